//! `fife queue`: mail that waits.
//!
//! Owns: the questions to the smtp role's own socket, and what is printed. Called by: `cli`. Calls: `smtp::desk`'s HTTP, page by page.
//! Exit: 0 done, 1 failed or (with ids) not all were there, 2 usage, 3 smtp does not answer.

use std::io;
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use clap::{Args, Subcommand, ValueEnum};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Exit, Global, complain, print, print_json};
use crate::base::duration::Span;
use crate::base::size::Size;
use crate::smtp::desk::{Acted, Filter, Listed, Page, Progress, Question};

/// Where the role is asked.
const SOCKET: &str = "run/smtp.metrics.sock";
/// Octets of an answer, at most: a page of messages with many recipients.
const ANSWER_LEN_MAX: usize = 256 * 1024 * 1024;

/// Mail that waits: list it, try it now, hold it, delete it.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List messages, one a line.
    List(Selection),
    /// Show messages with their recipients, and why they wait.
    Show(Selection),
    /// Try messages now.
    Retry(Chosen),
    /// Keep messages until they are released.
    Hold(Chosen),
    /// Let held messages go.
    Release(Chosen),
    /// Delete messages; nobody is told.
    Delete(Chosen),
    /// Try everything now.
    Flush,
}

/// Which messages; all conditions have to be met.
#[derive(Debug, Args)]
struct Selection {
    /// Message ids.
    ids: Vec<String>,
    /// Sender, or a part of it; "<>" for bounces.
    #[arg(long)]
    sender: Option<String>,
    /// A waiting recipient, or a part of it.
    #[arg(long)]
    recipient: Option<String>,
    /// Domain of a waiting recipient.
    #[arg(long)]
    domain: Option<String>,
    /// At least so old, as "1h".
    #[arg(long)]
    older: Option<Span>,
    /// At most so old.
    #[arg(long)]
    younger: Option<Span>,
    /// At least so big, as "1 MiB".
    #[arg(long)]
    larger: Option<Size>,
    /// At most so big.
    #[arg(long)]
    smaller: Option<Size>,
    #[arg(long = "in")]
    progress: Option<Standing>,
}

/// The same for what changes messages.
#[derive(Debug, Args)]
struct Chosen {
    #[command(flatten)]
    selection: Selection,
    /// All messages; needed when nothing else is said.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Standing {
    Active,
    Waiting,
    Deferred,
    Held,
}

impl Selection {
    fn filter(&self) -> Filter {
        Filter {
            ids: self.ids.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            domain: self.domain.clone(),
            older_secs: self.older.map(|span| span.get().as_secs()),
            younger_secs: self.younger.map(|span| span.get().as_secs()),
            larger: self.larger.map(|size| size.get()),
            smaller: self.smaller.map(|size| size.get()),
            state: self.progress.map(|standing| match standing {
                Standing::Active => Progress::Active,
                Standing::Waiting => Progress::Waiting,
                Standing::Deferred => Progress::Deferred,
                Standing::Held => Progress::Held,
            }),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("smtp does not answer on {path}: {source}")]
    Unreachable { path: String, source: io::Error },
    #[error("smtp gave no answer: {0}")]
    Broken(String),
    #[error("{0}")]
    Refused(String),
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let socket = match global.state_dir() {
        Ok(dir) => dir.join(SOCKET),
        Err(exit) => return exit,
    };
    let outcome = super::block_on(async {
        match &arguments.what {
            What::List(selection) => list(&socket, global, selection, false).await,
            What::Show(selection) => list(&socket, global, selection, true).await,
            What::Retry(chosen) => act(&socket, global, chosen, "retry", "tried now").await,
            What::Hold(chosen) => act(&socket, global, chosen, "hold", "held").await,
            What::Release(chosen) => act(&socket, global, chosen, "release", "released").await,
            What::Delete(chosen) => act(&socket, global, chosen, "delete", "deleted").await,
            What::Flush => {
                let acted: Acted = ask(&socket, "flush", &Question::default()).await?;
                say(global, "tried now", acted.count);
                Ok(Exit::Done)
            }
        }
    });
    let failed = match outcome {
        Ok(Ok(exit)) => return exit,
        Ok(Err(error)) => error,
        Err(error) => AskError::Broken(error.to_string()),
    };
    complain(&failed);
    match failed {
        AskError::Unreachable { .. } => Exit::Unreachable,
        AskError::Broken(_) | AskError::Refused(_) => Exit::Failed,
    }
}

/// Prints page by page: the queue may be long. With `--json`: an object a line.
async fn list(socket: &Path, global: &Global, selection: &Selection, whole: bool) -> Result<Exit, AskError> {
    let mut question = Question { filter: selection.filter(), after: None };
    let (mut count, mut bytes) = (0_usize, 0_u64);
    loop {
        let page: Page = ask(socket, "list", &question).await?;
        for message in &page.messages {
            count += 1;
            bytes += message.size;
            match (global.json, whole) {
                (true, _) => print(serde_json::to_string(message).unwrap_or_default()),
                (false, true) => show(message),
                (false, false) => print(line(message)),
            }
        }
        if page.next.is_none() {
            break;
        }
        question.after = page.next;
    }
    if !global.json && !whole {
        print(format_args!("{count} messages, {} KiB", bytes.div_ceil(1024)));
    }
    Ok(if count < selection.ids.len() { Exit::Failed } else { Exit::Done })
}

async fn act(socket: &Path, global: &Global, chosen: &Chosen, action: &str, done: &str) -> Result<Exit, AskError> {
    let filter = chosen.selection.filter();
    if filter == Filter::default() && !chosen.all {
        complain("say which messages: ids, a condition, or --all");
        return Ok(Exit::Usage);
    }
    let mut question = Question { filter, after: None };
    let mut count = 0;
    loop {
        let acted: Acted = ask(socket, action, &question).await?;
        count += acted.count;
        if acted.next.is_none() {
            break;
        }
        question.after = acted.next;
    }
    say(global, done, count);
    Ok(if count < chosen.selection.ids.len() { Exit::Failed } else { Exit::Done })
}

fn say(global: &Global, done: &str, count: usize) {
    if global.json {
        print_json(&serde_json::json!({ "count": count }));
    } else {
        print(format_args!("{count} messages {done}"));
    }
}

async fn ask<T: DeserializeOwned>(socket: &Path, action: &str, question: &Question) -> Result<T, AskError> {
    let unreachable = |source| AskError::Unreachable { path: socket.display().to_string(), source };
    let stream = TokioIo::new(UnixStream::connect(socket).await.map_err(unreachable)?);
    let broken = |error: &dyn std::fmt::Display| AskError::Broken(error.to_string());
    let shaken = hyper::client::conn::http1::handshake(stream).await;
    let (mut sender, connection) = shaken.map_err(|error| broken(&error))?;
    let connection = tokio::spawn(connection);
    let body = serde_json::to_string(question).map_err(|error| broken(&error))?;
    let request = Request::post(format!("/queue/{action}")).header(header::HOST, "smtp").body(Body::from(body));
    let answer = sender.send_request(request.map_err(|error| broken(&error))?).await;
    let answer = answer.map_err(|error| broken(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await.map_err(|error| broken(&error))?;
    connection.abort();
    let octets = body.to_bytes();
    if status != StatusCode::OK {
        return Err(AskError::Refused(String::from_utf8_lossy(&octets).into_owned()));
    }
    serde_json::from_slice(&octets).map_err(|error| broken(&error))
}

fn name(progress: Progress) -> &'static str {
    match progress {
        Progress::Active => "active",
        Progress::Waiting => "waiting",
        Progress::Deferred => "deferred",
        Progress::Held => "held",
    }
}

fn sender(message: &Listed) -> &str {
    if message.sender.is_empty() { "<>" } else { &message.sender }
}

fn line(message: &Listed) -> String {
    let first = message.recipients.first().map_or("", |recipient| &recipient.address);
    let more = match message.recipients.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let (age, state) = (span(message.age_secs), name(message.state));
    format!("{}  {age:>7} {:>9} {state:<8}  {} -> {first}{more}", message.id, message.size, sender(message))
}

fn show(message: &Listed) {
    print(format_args!(
        "{}  from {}, {} octets, {} old, {}",
        message.id,
        sender(message),
        message.size,
        span(message.age_secs),
        name(message.state)
    ));
    for recipient in &message.recipients {
        let given = recipient.given.as_ref().map(|given| format!(" (for {given})")).unwrap_or_default();
        let reason = recipient.reason.as_deref().unwrap_or("-");
        print(format_args!(
            "    {}{given} by {}: {}, {} attempts, next in {}; {reason}",
            recipient.address,
            recipient.destination,
            name(recipient.state),
            recipient.attempts,
            span(recipient.retry_secs)
        ));
    }
}

/// Seconds for people.
fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{}h", secs / 86_400, secs / 3600 % 24),
    }
}
