//! A session with one destination: messages over one connection, as long as there are any.
//!
//! Owns: what a server's abilities mean for a message, what a lost connection means. Called by: `smtp::runner`, a task a session.
//! Never: decides what becomes of a recipient (`smtp::settling` does).
//! Spec: RFC 5321, RFC 6152 section 3 (8-bit text to a server that does not take it), RFC 6531 section 3.3 (SMTPUTF8), RFC 1870.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::dial::Line;
use super::exchanger::Unreachable;
use super::route::Key;
use super::seven_bit;
use crate::base::clock;
use crate::net::Shutdown;
use crate::smtp::client::connection::Text;
use crate::smtp::client::session::{Capabilities, Fault};
use crate::smtp::client::{Begin, Lost, Target};
use crate::smtp::context::Context;
use crate::smtp::envelope::{Message, Recipient};
use crate::smtp::header;
use crate::smtp::lmtp::Fate;
use crate::smtp::queue::{Ending, Queued, Taken};
use crate::smtp::reply::Reply;
use crate::smtp::runner::{load, set_down};
use crate::smtp::settling::{Hop, settle};

/// Recipients of one transaction: what every server has to take (RFC 5321 section 4.5.3.1.8).
const RECIPIENTS_MAX: usize = 100;
/// Messages whose endings are being written while the session goes on. So many may be sent once more after a crash.
const UNSETTLED_MAX: usize = 16;

const NEEDS_SMTPUTF8: Reply = Reply::new(550, 6, 7, "the next server takes no addresses or headers beyond ASCII");
const TOO_BIG: Reply = Reply::new(552, 3, 4, "message too big for the next server");

/// Carries what is due for this destination, and ends when there is nothing more, or the destination cannot be reached.
pub(in crate::smtp) async fn run(context: &Arc<Context>, key: &Key, shutdown: Shutdown) {
    let mut session = Session { context, key, line: None, settling: JoinSet::new(), shutdown };
    while !session.shutdown.is_stopping() {
        let Some(taken) = context.queue.take(key, clock::monotonic()) else {
            if session.idle().await {
                continue;
            }
            break;
        };
        let Some(queued) = load(context, &taken).await else { continue };
        if !session.carry(taken, queued).await {
            break;
        }
    }
    if let Some(line) = session.line {
        line.connection.quit().await;
    }
    while session.settling.join_next().await.is_some() {}
}

struct Session<'a> {
    context: &'a Arc<Context>,
    key: &'a Key,
    line: Option<Line>,
    settling: JoinSet<()>,
    shutdown: Shutdown,
}

/// What came of one attempt with one message.
enum Carried {
    /// Every recipient has a fate.
    Done(Vec<Fate>, Hop),
    /// The destination is not there, and has not got the message.
    Down(String),
}

impl Session<'_> {
    /// Waits for work with an open connection; false when there is none, or it has waited long enough.
    async fn idle(&mut self) -> bool {
        let Some(line) = &mut self.line else { return false };
        let patience = self.context.outbound.settings.session_idle_max.get();
        let waited = clock::monotonic().saturating_duration_since(line.used_at);
        let left = patience.saturating_sub(waited);
        if left.is_zero() || !line.connection.is_silent() {
            return false;
        }
        let mut shutdown = self.shutdown.clone();
        tokio::select! {
            () = shutdown.stopping() => false,
            () = self.context.queue.idle(self.key, left.max(Duration::from_millis(1)), clock::monotonic) => true,
        }
    }

    /// Tries a message; false when the destination cannot be reached.
    async fn carry(&mut self, taken: Taken, queued: Queued) -> bool {
        match self.attempt(&queued.message).await {
            Carried::Done(fates, hop) => {
                if fates.iter().any(|fate| matches!(fate, Fate::Answered(reply) if reply.is_positive())) {
                    self.context.queue.is_good(self.key, clock::monotonic());
                }
                self.settle(taken, queued, fates, hop).await;
                true
            }
            Carried::Down(reason) => {
                set_down(self.context, &taken, &reason, clock::monotonic());
                false
            }
        }
    }

    /// Notes the fates beside the session, which goes on.
    async fn settle(&mut self, taken: Taken, queued: Queued, fates: Vec<Fate>, hop: Hop) {
        while self.settling.len() >= UNSETTLED_MAX {
            self.settling.join_next().await;
        }
        while self.settling.try_join_next().is_some() {}
        let (context, shutdown) = (Arc::clone(self.context), self.shutdown.clone());
        self.settling.spawn(async move {
            settle(&context, &taken, &queued, &fates, &hop, Ending::Refused, shutdown).await;
        });
    }

    /// Sends a message to its recipients; a connection that was used before and turns out to be dead is replaced once.
    async fn attempt(&mut self, message: &Message) -> Carried {
        let session_messages_max = self.context.outbound.settings.session_messages_max;
        if let Some(mut line) = self.line.take() {
            if line.messages < session_messages_max && line.connection.is_silent() {
                self.line = Some(line);
            } else {
                line.connection.quit().await;
            }
        }
        let all = message.envelope.recipients.as_slice();
        let (mut fates, mut hop) = (Vec::with_capacity(all.len()), Hop::default());
        for portion in all.chunks(RECIPIENTS_MAX) {
            let mut outcome = self.transact(message, portion, &mut hop).await;
            if let Err(Failure::Stale) = outcome {
                outcome = self.transact(message, portion, &mut hop).await;
            }
            match outcome {
                Ok(some) => fates.extend(some),
                Err(Failure::Never(reply)) => fates.extend(portion.iter().map(|_| Fate::Answered(reply.clone()))),
                Err(Failure::Down(reason)) if fates.is_empty() => return Carried::Down(reason),
                Err(Failure::Stale) if fates.is_empty() => return Carried::Down("connection lost".to_owned()),
                Err(Failure::Down(_) | Failure::Stale) => break,
            }
        }
        fates.resize(all.len(), Fate::NotTried);
        Carried::Done(fates, hop)
    }

    /// One transaction.
    async fn transact(
        &mut self,
        message: &Message,
        recipients: &[Recipient],
        hop: &mut Hop,
    ) -> Result<Vec<Fate>, Failure> {
        let mut line = match self.line.take() {
            Some(line) => line,
            None => self.dial().await?,
        };
        let capabilities = line.connection.capabilities();
        *hop = Hop { remote: Some(Arc::clone(&line.remote)), dsn: capabilities.dsn };
        if let Some(refusal) = refusal(message, recipients, capabilities) {
            self.line = Some(line);
            return Ok(vec![Fate::Answered(refusal); recipients.len()]);
        }
        let eight_bit = message.is_eight_bit();
        let converted = if eight_bit && !capabilities.eight_bit { seven_bit::convert(&message.content) } else { None };
        let content = converted.as_deref().unwrap_or(&message.content);
        let text = Text(&message.trace, content);
        let targets: Vec<Target<'_>> = recipients.iter().map(target).collect();
        let begin = Begin {
            reverse_path: message.envelope.reverse_path.as_ref(),
            targets: &targets,
            message_len: text.size(),
            eight_bit,
            smtputf8: needs_smtputf8(message, recipients),
            reports: Some(&message.envelope.reports),
            eager: false,
        };
        match line.connection.transact(text, &begin).await {
            Ok(replies) => {
                line.messages += 1;
                line.used_at = clock::monotonic();
                self.line = Some(line);
                Ok(replies.into_iter().map(Fate::Answered).collect())
            }
            Err(lost) if line.connection.is_message_sent() => Ok(doubtful(line, &lost)),
            // RFC 5321 section 3.8: a server may say goodbye at any time; that is no fault of the next connection.
            Err(_) if line.messages > 0 => Err(Failure::Stale),
            Err(lost) => Err(Failure::Down(format!("{}: {lost}", line.remote))),
        }
    }

    async fn dial(&self) -> Result<Line, Failure> {
        let plan = self.context.routes.plan(self.key);
        self.context.outbound.dial(self.key, plan).await.map_err(|unreachable| match unreachable {
            Unreachable::Never(reply) => Failure::Never(reply),
            Unreachable::Later(reply) => Failure::Down(reply.to_string()),
        })
    }
}

/// Why a transaction did not take place. Nobody has the message.
enum Failure {
    /// The connection was used before, and is dead.
    Stale,
    Down(String),
    Never(Reply),
}

/// The fates when the connection was lost after the message was sent.
fn doubtful(line: Line, lost: &Lost) -> Vec<Fate> {
    // 421 in place of an outcome is an answer: not taken (RFC 5321 section 3.8).
    let closing = match lost {
        Lost::Fault(Fault::Closing(reply)) => Some(reply.clone()),
        Lost::Fault(_) | Lost::Io(_) | Lost::Timeout(_) | Lost::Tls(_) => None,
    };
    let fate = |outcome: Option<Reply>| outcome.or_else(|| closing.clone()).map_or(Fate::Unknown, Fate::Answered);
    line.connection.abandon().into_iter().map(fate).collect()
}

fn target(recipient: &Recipient) -> Target<'_> {
    Target { address: &recipient.mailbox, notify: recipient.notify, original: recipient.original.as_deref() }
}

/// Why this server need not even be asked.
fn refusal(message: &Message, recipients: &[Recipient], capabilities: Capabilities) -> Option<Reply> {
    if !capabilities.smtputf8 && needs_smtputf8(message, recipients) {
        return Some(NEEDS_SMTPUTF8);
    }
    let size = u64::try_from(message.size()).unwrap_or(u64::MAX);
    // RFC 1870 section 6.1.
    (capabilities.size_max > 0 && size > capabilities.size_max).then_some(TOO_BIG)
}

/// RFC 6531 section 3.3: addresses beyond ASCII; or a header beyond it, of a message that was given to us as such.
fn needs_smtputf8(message: &Message, recipients: &[Recipient]) -> bool {
    let addresses = recipients.iter().map(|recipient| &recipient.mailbox).chain(&message.envelope.reverse_path);
    let header = || {
        let len = header::scan(&message.content).len;
        !message.trace.is_ascii() || !message.content.get(..len).unwrap_or_default().is_ascii()
    };
    addresses.into_iter().any(|address| !address.is_ascii()) || (message.envelope.smtputf8 && header())
}
