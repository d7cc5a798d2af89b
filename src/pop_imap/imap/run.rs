//! Carries commands out: the store's answers become responses.
//!
//! Owns: the order of things a command does. Called by: `imap::serve`. Never: reads from the client.
//! Errors of the store are answered (NO) and logged; only a broken connection ends the session from here.
//! Spec: RFC 3501 section 6.3 and 6.4.
//!
//! - here: mailboxes as a whole;
//! - `append`: APPEND; `fetch`: FETCH; `change`: STORE, EXPUNGE, CLOSE, COPY, MOVE; `find`: SEARCH.

mod append;
mod change;
mod fetch;
mod find;

use std::io;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::{error, warn};

use super::command::{Command, CopyRequest, FetchRequest, SelectRequest, StoreRequest};
use super::list::{self, ListRequest};
use super::out::Out;
use super::search::SearchRequest;
use super::selected::{self, Selected};
use super::session::{Session, answer};
use super::status::{self, StatusItem};
use super::write;
use crate::pop_imap::store::{AccountId, Flags, MailboxInfo, Store, StoreError};

/// What a command works on.
pub(super) struct Work<'a, W> {
    pub(super) store: &'a Store,
    pub(super) session: &'a mut Session,
    pub(super) out: &'a mut Out<W>,
    pub(super) tag: Bytes,
}

/// How a command ended, for its tagged answer.
pub(super) enum Done {
    /// Response code and words.
    Ok(String),
    No(String),
    Bad(&'static str),
}

/// A command that failed: by the store (answered), or because the client is gone (the session ends).
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] io::Error),
}

/// Carries one command out and answers it. LOGIN is not among them: it is the directory's.
pub(super) async fn run<W: AsyncWrite + Unpin + Send>(work: &mut Work<'_, W>, command: Command) -> io::Result<()> {
    // RFC 3501 section 7.4.1: no EXPUNGE in answer to FETCH, STORE and SEARCH, whose numbers it would move; the UID forms have none.
    let uid = matches!(
        &command,
        Command::Fetch(FetchRequest { uid: true, .. })
            | Command::Store(StoreRequest { uid: true, .. })
            | Command::Search(SearchRequest { uid: true, .. })
            | Command::Copy(CopyRequest { uid: true, .. })
            | Command::Expunge { uids: Some(_) }
    );
    let expunge = uid || !matches!(&command, Command::Fetch(_) | Command::Store(_) | Command::Search(_));
    let target_missing = matches!(&command, Command::Copy(_) | Command::Append(_));
    if work.session.selected().is_some_and(|selected| selected.open.is_deleted()) {
        work.session.bye(&mut work.out.buffer, "Selected mailbox was deleted");
        return Ok(());
    }
    let mut known = Vec::new();
    let done = match work.command(command, &mut known).await {
        Ok(done) => done,
        Err(RunError::Client(error)) => return Err(error),
        Err(RunError::Store(error)) => Done::No(refusal(&error, target_missing)),
    };
    let telling = work.session.telling(expunge, uid);
    if let Some(selected) = work.session.selected() {
        selected.catch_up(&mut work.out.buffer, telling, &known);
    }
    let out = &mut work.out.buffer;
    match done {
        Done::Ok(words) => answer(out, &work.tag, "OK", &words),
        Done::No(words) => answer(out, &work.tag, "NO", &words),
        Done::Bad(words) => answer(out, &work.tag, "BAD", words),
    }
    work.out.relieve().await
}

/// Logs what the store could not do, and says it to the client without paths.
fn refusal(error: &StoreError, target: bool) -> String {
    let code = error.imap_code(target);
    if code == Some("UNAVAILABLE") {
        error!(%error, "IMAP command failed");
    } else if matches!(error, StoreError::Full) {
        warn!(%error, "IMAP command refused");
    }
    match code {
        Some(code) => format!("[{code}] {}", error.text()),
        None => error.text().to_owned(),
    }
}

fn ok(words: &str) -> Done {
    Done::Ok(words.to_owned())
}

impl<W: AsyncWrite + Unpin + Send> Work<'_, W> {
    fn account(&self) -> AccountId {
        self.session.user().map_or([0; 16], |user| user.account)
    }

    /// What is not here was answered by the session, or is allowed only with a mailbox selected: the session sees to that.
    async fn command(&mut self, command: Command, known: &mut Vec<(u32, Flags)>) -> Result<Done, RunError> {
        let account = self.account();
        Ok(match command {
            Command::Noop => ok("NOOP completed"),
            Command::Check => ok("Check completed"),
            Command::Idle => ok("Idle completed"),
            Command::Select(request) => self.select(&request).await?,
            Command::Create(name) => {
                self.store.create(account, &name, None).await?;
                ok("Create completed")
            }
            Command::Delete(name) => self.delete(&name).await?,
            Command::Rename { from, to } => {
                self.store.rename(account, &from, &to).await?;
                ok("Rename completed")
            }
            Command::Subscribe { name, on } => {
                self.store.subscribe(account, &name, on).await?;
                ok(if on { "Subscribe completed" } else { "Unsubscribe completed" })
            }
            Command::List(request) => self.list(&request).await?,
            Command::Status { mailbox, items } => self.status(&mailbox, &items).await?,
            Command::Append(request) => self.append(request).await?,
            Command::Close => self.close(true).await?,
            Command::Unselect => self.close(false).await?,
            Command::Expunge { uids } => self.expunge(uids.as_ref()).await?,
            Command::Search(request) => self.search(request).await?,
            Command::Fetch(request) => self.fetch(&request, known).await?,
            Command::Store(request) => self.store_flags(&request, known).await?,
            Command::Copy(request) => self.copy(&request).await?,
            Command::Capability
            | Command::Logout
            | Command::Id
            | Command::StartTls
            | Command::Login { .. }
            | Command::AuthenticatePlain { .. }
            | Command::AuthenticateOther
            | Command::Enable { .. }
            | Command::Namespace => Done::Bad("Not now"),
        })
    }

    /// SELECT and EXAMINE (RFC 3501 section 6.3.1). A failed one leaves no mailbox selected.
    async fn select(&mut self, request: &SelectRequest) -> Result<Done, RunError> {
        self.session.condstore |= request.condstore;
        if self.session.selected().is_some() {
            self.session.select(None);
            // RFC 7162 section 3.2.11: from here on answers are about the new one.
            self.out.buffer.extend_from_slice(b"* OK [CLOSED] Previous mailbox closed\r\n");
        }
        let open = self.store.select(self.account(), &request.mailbox).await?;
        let selected = Selected::new(open, request.read_only);
        let view = &selected.view;
        let out = &mut self.out.buffer;
        selected::write_flag_list(out, view);
        out.extend_from_slice(b"* OK [PERMANENTFLAGS (");
        if !request.read_only {
            selected::write_known_flags(out, view);
            // RFC 3501 section 7.1: keywords can be made by naming them.
            out.extend_from_slice(b" \\*");
        }
        out.extend_from_slice(b")] Flags permitted\r\n");
        write::text(out, format_args!("* {} EXISTS\r\n* 0 RECENT\r\n", view.messages.len()));
        if let Some(first) = view.messages.first_unseen() {
            write::text(out, format_args!("* OK [UNSEEN {}] First unseen\r\n", first + 1));
        }
        write::text(out, format_args!("* OK [UIDVALIDITY {}] UIDs valid\r\n", selected.open.uid_validity()));
        write::text(out, format_args!("* OK [UIDNEXT {}] Predicted next UID\r\n", view.uid_next));
        write::text(out, format_args!("* OK [HIGHESTMODSEQ {}] Highest\r\n", view.highest_modseq.max(1)));
        self.session.select(Some(selected));
        Ok(ok(if request.read_only { "[READ-ONLY] Examine completed" } else { "[READ-WRITE] Select completed" }))
    }

    async fn delete(&mut self, name: &str) -> Result<Done, RunError> {
        self.store.delete(self.account(), name).await?;
        if self.session.selected().is_some_and(|selected| selected.open.is_deleted()) {
            self.session.select(None);
        }
        Ok(ok("Delete completed"))
    }

    async fn list(&mut self, request: &ListRequest) -> Result<Done, RunError> {
        if request.patterns.is_empty() {
            // RFC 3501 section 6.3.8: the separator, and the root of the reference.
            let word: &[u8] = if request.lsub { b"* LSUB" } else { b"* LIST" };
            self.out.buffer.extend_from_slice(word);
            self.out.buffer.extend_from_slice(b" (\\Noselect) \"/\" \"\"\r\n");
            return Ok(ok("List completed"));
        }
        let mailboxes = self.store.mailboxes(self.account()).await?;
        let subscriptions =
            if request.select_subscribed { self.store.subscriptions(self.account()).await? } else { Vec::new() };
        if request.return_status.contains(&StatusItem::HighestModSeq) {
            self.session.condstore = true;
        }
        for (name, line) in request.answers(&mailboxes, &subscriptions) {
            list::write_answer(&mut self.out.buffer, request, name, line);
            // RFC 5819 section 2: no STATUS for what cannot be selected.
            if let Some(info) = line.mailbox.filter(|_| !request.return_status.is_empty()) {
                status::write_answer(&mut self.out.buffer, name, &request.return_status, |item| value(info, item));
            }
            self.out.relieve().await?;
        }
        Ok(ok(if request.lsub { "Lsub completed" } else { "List completed" }))
    }

    async fn status(&mut self, mailbox: &str, items: &[StatusItem]) -> Result<Done, RunError> {
        let info = self.store.mailbox(self.account(), mailbox).await?;
        // RFC 7162 section 3.1: asking for it is a CONDSTORE enabling command.
        self.session.condstore |= items.contains(&StatusItem::HighestModSeq);
        status::write_answer(&mut self.out.buffer, &info.name, items, |item| value(&info, item));
        Ok(ok("Status completed"))
    }
}

fn value(info: &MailboxInfo, item: StatusItem) -> u64 {
    match item {
        StatusItem::Messages => info.messages.into(),
        StatusItem::Recent => info.recent.into(),
        StatusItem::UidNext => info.uid_next.into(),
        StatusItem::UidValidity => info.uid_validity.into(),
        StatusItem::Unseen => info.unseen.into(),
        StatusItem::Deleted => info.deleted.into(),
        StatusItem::Size => info.size,
        StatusItem::HighestModSeq => info.highest_modseq.max(1),
    }
}
