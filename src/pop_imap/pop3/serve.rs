//! POP3 sessions on their connections: directory and store answer what the session asks.
//!
//! Owns: reading, writing, timeouts, the maildrop's lock, log lines. Called by: `pop_imap::serve`.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, error, info, warn};

use super::lock::Held;
use super::maildrop::{Entry, Maildrop};
use super::session::{FetchError, Login, Policy, Session, Step};
use crate::base::clock;
use crate::config::secret::SecretText;
use crate::directory::AuthError;
use crate::net::{Peer, Stream};
use crate::pop_imap::context::{Context, Protocol};
use crate::pop_imap::metrics::{POP3_DELETED, POP3_RETRIEVED, SESSIONS};
use crate::pop_imap::store::name::INBOX;
use crate::pop_imap::store::{AccountId, OpenMailbox, StoreError, UIDS_PER_CHANGE_MAX};
use crate::pop_imap::wire::{Read, Wire};

/// Octets to read at a time.
const READ_LEN: usize = 4 * 1024;
/// Messages that are read from the store together, when the client asks for several at once.
const FETCH_MAX: usize = 64;

/// How a session ends whose client does not take its answers in time.
const DOES_NOT_READ: &str = "client does not read";

/// One connection, to its end.
pub(in crate::pop_imap) async fn session(context: Arc<Context>, stream: Stream, peer: Peer) {
    SESSIONS.with_label_values(&["pop3"]).inc();
    debug!("session begins");
    let mut connection = Connection::new(&context, stream, &peer);
    let end = connection.run().await;
    let tally = connection.session.tally();
    POP3_RETRIEVED.inc_by(tally.retrieved);
    POP3_DELETED.inc_by(tally.deleted);
    match &connection.opened {
        Some(opened) => {
            let (retrieved, deleted) = (tally.retrieved, tally.deleted);
            info!(account = %opened.address, retrieved, deleted, end, "session ends");
        }
        None => debug!(end, "session ends"),
    }
    connection.wire.close().await;
}

/// After login.
struct Opened {
    /// For the log.
    address: String,
    mailbox: Arc<OpenMailbox>,
    /// Keeps other POP3 sessions out, until this one has ended.
    held: Option<Held>,
    /// Messages that were read ahead, in the order in which they will be asked for.
    ahead: VecDeque<(u32, Option<Bytes>)>,
}

struct Connection<'a> {
    context: &'a Context,
    wire: Wire,
    session: Session,
    out: Vec<u8>,
    opened: Option<Opened>,
    /// Until when the client must have logged in.
    login_deadline: Instant,
    /// The peer's address, for TCP.
    client: Option<IpAddr>,
}

impl<'a> Connection<'a> {
    fn new(context: &'a Context, stream: Stream, peer: &Peer) -> Self {
        let mut out = Vec::new();
        let policy = Policy {
            hostname: context.hostname.clone(),
            is_tls: stream.is_tls(),
            offers_tls: context.tls.is_some(),
            cleartext_login: context.may_log_in(&stream, peer),
        };
        Self {
            session: Session::new(policy, &mut out),
            wire: Wire::new(stream, READ_LEN, context.shutdown.clone()),
            out,
            opened: None,
            login_deadline: clock::monotonic() + context.settings.login_timeout.get(),
            client: peer.ip(),
            context,
        }
    }

    /// Gives why it ended.
    async fn run(&mut self) -> &'static str {
        let mut shutdown = self.context.shutdown.clone();
        loop {
            match self.input_used().await {
                Some(DOES_NOT_READ) => return DOES_NOT_READ,
                Some(end) => {
                    // RFC 1939 section 6: a client that has its answer to QUIT finds the maildrop free.
                    self.release();
                    let sent = self.send().await;
                    return if sent.is_ok() { end } else { "broken" };
                }
                None if self.send().await.is_err() => {
                    return DOES_NOT_READ;
                }
                None => {}
            }
            // RFC 1939 section 3: a session that is idle is closed without UPDATE: nothing is deleted.
            let deadline = match self.opened {
                Some(_) => {
                    let amid = !self.wire.input().is_empty();
                    let patience = self.context.settings.pop3_idle_timeout.get();
                    self.wire.pace.deadline(amid, clock::monotonic(), patience)
                }
                None => self.login_deadline,
            };
            match self.wire.read(deadline, Some(&mut shutdown)).await {
                Read::More => {}
                Read::Closed => return "closed by the client",
                Read::TimedOut => return "idle",
                Read::Stopping => return "stopping",
            }
        }
    }

    /// Lets other POP3 sessions in.
    fn release(&mut self) {
        if let Some(opened) = &mut self.opened {
            opened.held = None;
        }
    }

    /// Sends the answers made so far.
    async fn send(&mut self) -> io::Result<()> {
        let patience = self.patience();
        self.wire.write(&mut self.out, patience).await
    }

    /// How long the client may take to read an answer.
    fn patience(&self) -> Duration {
        match self.opened {
            Some(_) => self.context.settings.pop3_idle_timeout.get(),
            None => self.context.settings.login_timeout.get(),
        }
    }

    /// Lets the session work until it wants more input; gives why it has ended, if so.
    async fn input_used(&mut self) -> Option<&'static str> {
        loop {
            let (used, step) = self.session.step(self.wire.input(), &mut self.out);
            self.wire.used(used);
            if used > 0 {
                self.wire.pace.done();
            }
            match step {
                Step::More => return None,
                Step::Close => return Some("closed by us"),
                Step::Flush => {
                    if self.send().await.is_err() {
                        return Some(DOES_NOT_READ);
                    }
                }
                Step::StartTls => {
                    if !self.start_tls().await {
                        return Some("TLS handshake failed");
                    }
                }
                Step::Login { login, password } => {
                    let answer = self.log_in(&login, &password).await;
                    self.session.logged_in(answer, &mut self.out);
                }
                Step::Fetch(uid) => {
                    let message = self.fetch(uid).await;
                    self.session.fetched(message, &mut self.out);
                }
                Step::Update(uids) => {
                    let done = self.update(&uids).await;
                    self.session.updated(done, &mut self.out);
                }
            }
        }
    }

    async fn start_tls(&mut self) -> bool {
        if self.send().await.is_err() {
            return false;
        }
        match self.wire.start_tls(self.context).await {
            Ok(()) => {
                self.session.secured();
                true
            }
            Err(error) => {
                info!(%error, "TLS handshake failed");
                false
            }
        }
    }

    async fn log_in(&mut self, login: &str, password: &SecretText) -> Login {
        let account = match self.context.log_in(Protocol::Pop3, login, password, self.client).await {
            Ok(account) => account,
            Err(AuthError::Refused) => return Login::Refused,
            Err(AuthError::Suspended) => return Login::Suspended,
            Err(AuthError::TooManyFailures) => return Login::TooManyFailures,
            Err(AuthError::Unavailable(_)) => return Login::Unavailable,
        };
        let Some(held) = self.context.maildrops.take(account.id) else {
            info!(account = %account.address, "maildrop is in use");
            return Login::InUse;
        };
        match self.open(account.id).await {
            Ok((mailbox, maildrop)) => {
                let address = account.address.to_string();
                self.opened = Some(Opened { address, mailbox, held: Some(held), ahead: VecDeque::new() });
                Login::Opened(maildrop)
            }
            Err(error) => {
                error!(account = %account.address, %error, "INBOX does not open");
                Login::Unavailable
            }
        }
    }

    async fn open(&self, account: AccountId) -> Result<(Arc<OpenMailbox>, Maildrop), StoreError> {
        let mailbox = self.context.store.select(account, INBOX).await?;
        let view = mailbox.view();
        let entries = view.messages.iter().map(|row| Entry { uid: row.uid, size: row.size }).collect();
        let maildrop = Maildrop::new(mailbox.uid_validity(), entries);
        Ok((mailbox, maildrop))
    }

    /// The message; with it, in one go, those that the client has asked for already behind it.
    async fn fetch(&mut self, uid: u32) -> Result<Bytes, FetchError> {
        let Some(opened) = &mut self.opened else { return Err(FetchError::Failed) };
        if opened.ahead.front().is_none_or(|(next, _)| *next != uid) {
            let mut uids = vec![uid];
            uids.extend(self.session.ahead(self.wire.input(), FETCH_MAX - 1));
            opened.ahead.clear();
            match self.context.store.messages(&opened.mailbox, &uids).await {
                Ok(messages) => opened.ahead.extend(uids.into_iter().zip(messages)),
                Err(error) => {
                    error!(account = opened.address, uid, %error, "message cannot be read");
                    return Err(FetchError::Failed);
                }
            }
        }
        match opened.ahead.pop_front() {
            Some((_, Some(message))) => Ok(message),
            Some((_, None)) => Err(FetchError::Gone),
            None => Err(FetchError::Failed),
        }
    }

    /// Removes messages; true when all are gone for good.
    async fn update(&self, uids: &[u32]) -> bool {
        let Some(opened) = &self.opened else { return false };
        for part in uids.chunks(UIDS_PER_CHANGE_MAX) {
            if let Err(error) = self.context.store.expunge(&opened.mailbox, part).await {
                warn!(account = opened.address, %error, "messages were not deleted");
                return false;
            }
        }
        true
    }
}
