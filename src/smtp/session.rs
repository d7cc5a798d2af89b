//! SMTP server session: received bytes in; replies and at most one question at a time out.
//!
//! Owns: the line buffer, the state of the dialogue, the envelope and the message being received. Called by: `smtp::serve` only.
//! Never: opens a socket or a file, reads the clock, asks the directory. What it needs to know it asks its caller (`Ask`), and reads on
//! when the answer is given; what came meanwhile waits in the caller's buffer, so that pipelined commands keep their order.
//! Spec: RFC 5321 (SMTP), RFC 6409 (submission), RFC 2920 (PIPELINING), RFC 3030 (CHUNKING), RFC 3207 (STARTTLS), RFC 4954 (AUTH),
//! RFC 6531 (SMTPUTF8), RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 2034 (ENHANCEDSTATUSCODES), RFC 3461 (DSN).
//!
//! - `session::commands`: one row per command: name, check, act;
//! - `session::body`: the message being received, by DATA or BDAT.

mod body;
mod commands;
#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg_attr(not(fuzzing), cfg(test))]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use body::{Body, Chunk};

use super::command::{self, ForwardPath};
use super::envelope::{Message, Notify, Origin, Personality, Recipient, Reports, Way};
use super::line::{Framed, Framer};
use super::reply::{self, Reply};
use super::sasl::{Credentials, Exchange, Step};
use crate::base::address::Address;
use crate::base::id::Id;
use crate::directory::Account;

/// Replies 5yz after which a session is closed.
const ERRORS_MAX: u32 = 20;
/// Refused recipients after which a session is closed: who tries addresses shall not get far.
const RECIPIENTS_REFUSED_MAX: u32 = 100;
/// Commands since the last message (or the start) after which a session is closed, recipients not counted.
const IDLE_COMMANDS_MAX: u32 = 1000;
/// Failed sign-ins after which a session is closed (RFC 4954 section 4 allows it).
const SIGN_INS_FAILED_MAX: u32 = 3;

/// What holds for all sessions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// By which we greet and sign `Received`.
    pub hostname: String,
    /// Octets of a message, at most.
    pub message_size_max: usize,
    pub recipients_max: usize,
    /// `Received` fields, at most.
    pub hops_max: u32,
    /// Silence, at most.
    pub idle_timeout: Duration,
    /// AUTH without TLS from other machines.
    pub cleartext_login: bool,
    /// STARTTLS can be done.
    pub tls_available: bool,
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Client {
    /// None: a unix socket.
    pub address: Option<IpAddr>,
    /// On this machine: nobody listens in between.
    pub is_local: bool,
    /// Version and cipher suite, when TLS runs.
    pub tls: Option<String>,
}

/// The present.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub monotonic: Instant,
    pub unix_secs: u64,
}

/// A recipient that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The address as it is to be named.
    pub given: Address,
    /// Where its mail goes, at least one.
    pub targets: Vec<(Address, Way)>,
}

/// What the session needs its caller for. It reads nothing more until it has the answer.
#[derive(Debug)]
pub enum Ask {
    /// May this sender begin a message? Answer: `sender_is`.
    Sender(Option<Address>),
    /// Is there a mailbox? Answer: `recipient_is`.
    Recipient(ForwardPath),
    /// Whose credentials are these? Answer: `sign_in_is`.
    SignIn(Credentials),
    /// The message is complete; it is the caller's now. Answer: `message_is`.
    Deliver(Box<Message>),
    /// Send what is to be sent, start TLS. Answer: `tls_started`.
    StartTls,
    /// Send what is to be sent, close the connection. No answer.
    Close,
}

/// What the next octets are.
#[derive(Debug)]
enum Phase {
    /// Command lines.
    Commands,
    /// Lines of a SASL exchange.
    SignIn(Exchange),
    /// Message text up to `<CRLF>.<CRLF>`.
    Data(Body),
    /// Octets of a chunk (RFC 3030).
    Chunk(Chunk),
    /// Nothing is read until the caller has answered.
    Asked,
    /// Nothing is read any more.
    Closing,
}

/// How the client greeted.
#[derive(Debug)]
struct Greeting {
    name: String,
    /// EHLO, not HELO.
    extended: bool,
}

/// From MAIL to the end of the message.
#[derive(Debug)]
struct Transaction {
    id: Id,
    reverse_path: Option<Address>,
    smtputf8: bool,
    reports: Reports,
    recipients: Vec<Recipient>,
    /// The addresses in `recipients`: each gets the message once, by however many aliases it is named.
    mailboxes: HashSet<Address>,
    /// NOTIFY and ORCPT of a RCPT that waits for the caller's answer.
    pending_rcpt: (Notify, Option<Arc<str>>),
    /// RCPT commands that were taken, for the limit that the client sees.
    accepted: usize,
    /// The message by BDAT so far; only BDAT, RSET, QUIT and NOOP may follow (RFC 3030 section 2).
    chunks: Option<Body>,
}

/// One session, from greeting to close.
///
/// Invariants:
/// - `transaction` is none until MAIL was taken, and after each end of a message, RSET, EHLO, HELO and STARTTLS;
/// - in `Phase::Data` the transaction has at least one recipient;
/// - after STARTTLS nothing is left of what was said before (RFC 3207 section 4.2).
#[derive(Debug)]
pub struct Session {
    id: Id,
    settings: Arc<Settings>,
    personality: Personality,
    client: Client,
    framer: Framer,
    phase: Phase,
    greeting: Option<Greeting>,
    account: Option<Arc<Account>>,
    transaction: Option<Transaction>,
    /// Sender and flags of a MAIL that waits for the caller's answer.
    pending_mail: Option<command::Mail>,
    output: Vec<u8>,
    /// When the client last completed something: a command, a stretch of message.
    progress_at: Instant,
    errors: u32,
    recipients_refused: u32,
    idle_commands: u32,
    sign_ins_failed: u32,
}

impl Session {
    /// A new session; its greeting stands in the output.
    #[must_use]
    pub fn new(settings: Arc<Settings>, personality: Personality, client: Client, id: Id, now: &Now) -> Self {
        let output = format!("220 {} ESMTP\r\n", settings.hostname).into_bytes();
        Self {
            id,
            settings,
            personality,
            client,
            framer: Framer::default(),
            phase: Phase::Commands,
            greeting: None,
            account: None,
            transaction: None,
            pending_mail: None,
            output,
            progress_at: now.monotonic,
            errors: 0,
            recipients_refused: 0,
            idle_commands: 0,
            sign_ins_failed: 0,
        }
    }

    /// Takes octets. Returns how many were used, the rest to be offered again, and what the session needs.
    pub fn receive(&mut self, input: &[u8], now: &Now) -> (usize, Option<Ask>) {
        let mut rest = input;
        loop {
            let used = input.len() - rest.len();
            match self.phase {
                Phase::Closing => return (used, Some(Ask::Close)),
                Phase::Asked => return (used, None),
                Phase::Commands | Phase::SignIn(_) | Phase::Data(_) | Phase::Chunk(_) if rest.is_empty() => {
                    return (used, None);
                }
                Phase::Commands | Phase::SignIn(_) | Phase::Data(_) | Phase::Chunk(_) => {}
            }
            let (taken, ask) = match self.phase {
                Phase::Commands | Phase::SignIn(_) => self.receive_line(rest, now),
                Phase::Data(_) | Phase::Chunk(_) | Phase::Asked | Phase::Closing => self.receive_body(rest, now),
            };
            rest = rest.get(taken..).unwrap_or_default();
            if ask.is_some() {
                return (input.len() - rest.len(), ask);
            }
        }
    }

    /// What is to be sent; the caller empties it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// When the client has to have gone on; past it, `time_out` is to be called.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let silence = self.progress_at + self.settings.idle_timeout;
        match self.body_in_hand() {
            Some(body) => silence.min(body.deadline(self.settings.idle_timeout)),
            None => silence,
        }
    }

    /// The client was too slow. To be closed after the output is sent.
    pub fn time_out(&mut self) {
        self.close(&reply::TOO_SLOW);
    }

    /// The server stops. To be closed after the output is sent.
    pub fn stop(&mut self) {
        self.close(&reply::STOPPING);
    }

    /// Nothing is in hand that would be lost.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.transaction.is_none() && matches!(self.phase, Phase::Commands | Phase::SignIn(_) | Phase::Closing)
    }

    /// Octets of the message in hand that are held in memory.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.body_in_hand().map_or(0, Body::buffered)
    }

    /// There is no memory for the message in hand: it is read to its end and refused.
    pub fn refuse_message(&mut self, reply: Reply) {
        match &mut self.phase {
            Phase::Data(body) => body.refuse(reply),
            Phase::Commands | Phase::SignIn(_) | Phase::Chunk(_) | Phase::Asked | Phase::Closing => {
                if let Some(body) = self.transaction.as_mut().and_then(|transaction| transaction.chunks.as_mut()) {
                    body.refuse(reply);
                }
            }
        }
    }

    /// The account that signed in.
    #[must_use]
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.account.as_ref()
    }

    /// Who is at the other end, and what was said before the message.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            personality: self.personality,
            client: self.client.address,
            helo: self.greeting.as_ref().map(|greeting| greeting.name.clone()).unwrap_or_default(),
            tls: self.client.tls.clone(),
            account: self.account.clone(),
        }
    }

    /// Answer to `Ask::Sender`: the id that the message is to have, or why not.
    pub fn sender_is(&mut self, verdict: Result<Id, Reply>, now: &Now) {
        self.answered(now);
        let Some(mail) = self.pending_mail.take() else { return };
        match verdict {
            Ok(id) => {
                self.transaction = Some(Transaction {
                    id,
                    reverse_path: mail.reverse_path,
                    smtputf8: mail.smtputf8,
                    reports: mail.reports,
                    pending_rcpt: (Notify::default(), None),
                    recipients: Vec::new(),
                    mailboxes: HashSet::new(),
                    accepted: 0,
                    chunks: None,
                });
                self.say(&reply::SENDER_OK);
            }
            Err(reply) => self.say(&reply),
        }
    }

    /// Answer to `Ask::Recipient`: where its mail goes; or why nowhere.
    pub fn recipient_is(&mut self, verdict: Result<Found, Reply>, now: &Now) {
        self.answered(now);
        let Some(transaction) = &mut self.transaction else { return };
        let (notify, original) = std::mem::take(&mut transaction.pending_rcpt);
        match verdict {
            Ok(Found { given, targets }) => {
                let given = Arc::new(given);
                transaction.accepted += 1;
                for (mailbox, way) in targets {
                    if transaction.mailboxes.insert(mailbox.clone()) {
                        let (given, original) = (Arc::clone(&given), original.clone());
                        transaction.recipients.push(Recipient { given, mailbox, way, notify, original });
                    }
                }
                self.say(&reply::RECIPIENT_OK);
            }
            Err(reply) => self.refuse_recipient(&reply),
        }
    }

    /// Answer to `Ask::SignIn`.
    pub fn sign_in_is(&mut self, verdict: Result<Arc<Account>, Reply>, now: &Now) {
        self.answered(now);
        match verdict {
            Ok(account) => {
                self.account = Some(account);
                self.say(&reply::SIGNED_IN);
            }
            Err(reply) => self.fail_sign_in(&reply),
        }
    }

    /// Answer to `Ask::Deliver`: what the client is told. A positive reply means that the message is safe.
    pub fn message_is(&mut self, reply: &Reply, now: &Now) {
        self.answered(now);
        self.transaction = None;
        if reply.is_positive() {
            self.idle_commands = 0;
        }
        self.say(reply);
    }

    /// Answer to `Ask::StartTls`: TLS runs, all that was said before is forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self, description: String, now: &Now) {
        self.answered(now);
        self.client.tls = Some(description);
        self.framer = Framer::default();
        self.greeting = None;
        self.account = None;
        self.transaction = None;
        self.pending_mail = None;
        self.output.clear();
    }

    fn answered(&mut self, now: &Now) {
        self.progress_at = now.monotonic;
        if matches!(self.phase, Phase::Asked) {
            self.phase = Phase::Commands;
        }
    }

    /// A line, in `Phase::Commands` or `Phase::SignIn`.
    fn receive_line(&mut self, input: &[u8], now: &Now) -> (usize, Option<Ask>) {
        let (used, framed) = self.framer.receive(input);
        let refused = match framed {
            Framed::More => return (used, None),
            Framed::TooLong => reply::LINE_TOO_LONG,
            Framed::Ambiguous => reply::LINE_END,
            Framed::Line(line) => match std::mem::replace(&mut self.phase, Phase::Commands) {
                Phase::SignIn(exchange) => {
                    let step = exchange.receive(line);
                    self.progress_at = now.monotonic;
                    return (used, self.sign_in_step(step));
                }
                Phase::Commands | Phase::Data(_) | Phase::Chunk(_) | Phase::Asked | Phase::Closing => {
                    let parsed = command::parse(line);
                    self.progress_at = now.monotonic;
                    let nothing_follows = used == input.len();
                    return (used, self.command(parsed, nothing_follows, now));
                }
            },
        };
        self.progress_at = now.monotonic;
        // A line of a SASL exchange that is none ends the exchange too (RFC 4954 section 4).
        self.phase = Phase::Commands;
        self.say(&refused);
        (used, None)
    }

    fn sign_in_step(&mut self, step: Step) -> Option<Ask> {
        match step {
            Step::Challenge(exchange, challenge) => {
                self.phase = Phase::SignIn(exchange);
                self.output.extend_from_slice(challenge);
                None
            }
            Step::Done(credentials) => {
                self.phase = Phase::Asked;
                Some(Ask::SignIn(credentials))
            }
            Step::Failed(reply) => {
                self.fail_sign_in(&reply);
                None
            }
        }
    }

    fn fail_sign_in(&mut self, reply: &Reply) {
        self.phase = Phase::Commands;
        self.sign_ins_failed += 1;
        if self.sign_ins_failed >= SIGN_INS_FAILED_MAX {
            self.say(reply);
            self.close(&reply::AUTH_TOO_OFTEN);
        } else {
            self.say(reply);
        }
    }

    fn refuse_recipient(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
        self.recipients_refused += 1;
        if self.recipients_refused >= RECIPIENTS_REFUSED_MAX {
            self.close(&reply::TOO_MANY_ERRORS);
        }
    }

    /// Gives a reply; too many errors close the session.
    fn say(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
        if reply.is_permanent() {
            self.errors += 1;
            if self.errors > ERRORS_MAX {
                self.close(&reply::TOO_MANY_ERRORS);
            }
        }
    }

    /// Gives a last reply.
    fn close(&mut self, reply: &Reply) {
        if !matches!(self.phase, Phase::Closing) {
            reply.write(&mut self.output);
            self.phase = Phase::Closing;
        }
    }

    fn body_in_hand(&self) -> Option<&Body> {
        match &self.phase {
            Phase::Data(body) => Some(body),
            Phase::Commands | Phase::SignIn(_) | Phase::Chunk(_) | Phase::Asked | Phase::Closing => {
                self.transaction.as_ref().and_then(|transaction| transaction.chunks.as_ref())
            }
        }
    }
}
