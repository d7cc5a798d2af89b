//! POP3 server session: received octets in, answers and requests out.
//!
//! Owns: the command state, the maildrop's snapshot, the message being sent. Called by: `pop3::serve`, which logs in,
//! fetches and expunges what the session wants ([`Step`]) and tells it. Calls: nothing that blocks; no sockets, no clock.
//! Spec: RFC 1939, RFC 2449, RFC 2595 section 4, RFC 3206, RFC 5034, RFC 6856.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memchr_iter;

use super::command::{Command, CommandError, Sasl};
use super::maildrop::{Entry, Maildrop};
use crate::config::secret::SecretText;
use crate::message::dot::DotWriter;
use crate::pop_imap::line::{Fault, Frame, Framer};

/// Octets of a command line with `<CR><LF>`, at most. RFC 2449 section 4 has 255; AUTH lines are longer (RFC 5034 section 4).
pub const COMMAND_LEN_MAX: usize = 2048;
/// Refused logins, after which the session ends.
pub const LOGINS_MAX: u32 = 3;
/// Commands in a row that were refused for their form or place, after which the session ends.
pub const BAD_COMMANDS_MAX: u32 = 20;
/// Octets of answers after which they are sent before more is made; one piece of a message may come on top.
pub const OUT_LEN_MAX: usize = 64 * 1024;

/// What the session wants next.
pub enum Step {
    /// More input. Answers so far can be sent.
    More,
    /// Send the answers, then call again with the same rest of input.
    Flush,
    /// Is this login right, and what is in the maildrop? The answer goes to [`Session::logged_in`].
    Login { login: String, password: SecretText },
    /// Send the answers, shake hands, then call [`Session::secured`].
    StartTls,
    /// The message of this UID, please. The answer goes to [`Session::fetched`].
    Fetch(u32),
    /// Remove these messages, durably. The answer goes to [`Session::updated`].
    Update(Vec<u32>),
    /// Send the answers and close.
    Close,
}

/// What became of a login.
#[derive(Debug)]
pub enum Login {
    Opened(Maildrop),
    /// Name or password is wrong.
    Refused,
    /// The account may not log in.
    Suspended,
    /// Too many logins failed lately; this one was not looked at.
    TooManyFailures,
    /// Another session has the maildrop.
    InUse,
    /// Directory or store gave no answer.
    Unavailable,
}

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchError {
    /// Somebody has deleted it since login.
    Gone,
    /// A fault of this machine; the log knows more.
    Failed,
}

/// What holds for this connection.
#[derive(Debug, Clone)]
pub struct Policy {
    /// This host, in the greeting.
    pub hostname: String,
    /// Whether the connection is within TLS.
    pub is_tls: bool,
    /// Whether STLS is offered.
    pub offers_tls: bool,
    /// Whether passwords may be sent outside TLS.
    pub cleartext_login: bool,
}

/// What a session did, for its last log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// RETR and TOP that were answered with a message.
    pub retrieved: u64,
    /// Messages removed at QUIT.
    pub deleted: u64,
}

/// A state holds only what is true in it.
enum State {
    Authorization {
        user: Option<String>,
    },
    /// AUTH PLAIN waits for its line.
    Plain,
    LoggingIn,
    Securing,
    Transaction(Maildrop),
    /// The message was asked for; so many lines of its body are wanted, none: all.
    Fetching(Maildrop, Option<u32>),
    Sending(Maildrop, Sending),
    Updating {
        deleted: u64,
    },
    Closed,
}

/// An answer of several lines on its way.
enum Sending {
    Message {
        rest: Bytes,
        writer: DotWriter,
    },
    /// LIST or UIDL from this number on.
    Listing {
        unique_ids: bool,
        next: u32,
    },
}

/// One connection.
pub struct Session {
    policy: Policy,
    framer: Framer,
    logins_refused: u32,
    bad_commands: u32,
    tally: Tally,
    state: State,
}

impl Session {
    /// A new session, and its greeting in `out`.
    pub fn new(policy: Policy, out: &mut Vec<u8>) -> Self {
        say(out, &format!("+OK {} POP3 fife", policy.hostname));
        Self {
            policy,
            framer: Framer::new(COMMAND_LEN_MAX),
            logins_refused: 0,
            bad_commands: 0,
            tally: Tally::default(),
            state: State::Authorization { user: None },
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes input; gives how many octets of it were used and what is wanted next.
    ///
    /// To be called again with the rest until it gives [`Step::More`] or [`Step::Close`].
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Step) {
        let mut used = 0;
        loop {
            if out.len() >= OUT_LEN_MAX {
                return (used, Step::Flush);
            }
            let rest = input.get(used..).unwrap_or_default();
            let (taken, step) = match std::mem::replace(&mut self.state, State::Closed) {
                State::Closed => (rest.len(), Some(Step::Close)),
                State::Sending(maildrop, sending) => {
                    self.send(maildrop, sending, out);
                    (0, None)
                }
                // The caller owes an answer: nothing is read before it is here.
                state @ (State::LoggingIn | State::Securing | State::Fetching(..) | State::Updating { .. }) => {
                    self.state = state;
                    (0, Some(Step::More))
                }
                state @ (State::Authorization { .. } | State::Plain | State::Transaction(_)) => {
                    self.state = state;
                    self.line(rest, out)
                }
            };
            used += taken;
            if let Some(step) = step {
                return (used, step);
            }
        }
    }

    /// The answer to [`Step::Login`]. The caller lets time pass before it tells of a refusal.
    pub fn logged_in(&mut self, login: Login, out: &mut Vec<u8>) {
        if !matches!(self.state, State::LoggingIn) {
            return;
        }
        self.state = State::Authorization { user: None };
        match login {
            Login::Opened(maildrop) => {
                say(out, &format!("+OK {} messages", maildrop.count()));
                self.state = State::Transaction(maildrop);
            }
            Login::Refused => {
                self.logins_refused += 1;
                // RFC 3206 section 4: the client may ask the user for another password.
                say(out, "-ERR [AUTH] name or password is wrong");
            }
            Login::Suspended => {
                self.logins_refused += 1;
                say(out, "-ERR [AUTH] the account may not log in");
            }
            Login::TooManyFailures => {
                self.logins_refused += 1;
                say(out, "-ERR [SYS/TEMP] too many failed logins lately, try again later");
            }
            Login::InUse => say(out, "-ERR [IN-USE] another session has the maildrop"),
            Login::Unavailable => say(out, "-ERR [SYS/TEMP] try again later"),
        }
        if self.logins_refused >= LOGINS_MAX {
            self.state = State::Closed;
        }
    }

    /// The handshake asked for by [`Step::StartTls`] is done: everything said before is forgotten (RFC 2595 section 4).
    pub fn secured(&mut self) {
        self.policy.is_tls = true;
        self.state = State::Authorization { user: None };
    }

    /// The answer to [`Step::Fetch`].
    pub fn fetched(&mut self, message: Result<Bytes, FetchError>, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Fetching(..)) {
            return;
        }
        let State::Fetching(maildrop, lines) = std::mem::replace(&mut self.state, State::Closed) else { return };
        self.state = match message {
            Ok(message) => {
                self.tally.retrieved += 1;
                let rest = match lines {
                    None => {
                        say(out, &format!("+OK {} octets", message.len()));
                        message
                    }
                    Some(lines) => {
                        say(out, "+OK top of message follows");
                        message.slice(..top_len(&message, lines))
                    }
                };
                State::Sending(maildrop, Sending::Message { rest, writer: DotWriter::new() })
            }
            Err(FetchError::Gone) => {
                say(out, "-ERR the message is gone");
                State::Transaction(maildrop)
            }
            Err(FetchError::Failed) => {
                say(out, "-ERR [SYS/TEMP] the message cannot be read now");
                State::Transaction(maildrop)
            }
        };
    }

    /// UIDs of the messages that RETR commands at the start of `input` ask for next, at most so many: a client that
    /// pipelines is served faster when they are read together. Nothing is used up or decided.
    pub fn ahead(&self, input: &[u8], max: usize) -> Vec<u32> {
        let State::Fetching(maildrop, _) = &self.state else { return Vec::new() };
        let mut framer = Framer::new(COMMAND_LEN_MAX);
        let mut rest = input;
        let mut uids = Vec::new();
        while uids.len() < max
            && let (used, Frame::Line(line)) = framer.next(rest)
            && let Ok(Command::Retr(number)) = Command::parse(line)
            && let Some(entry) = maildrop.get(number)
        {
            uids.push(entry.uid);
            rest = rest.get(used..).unwrap_or_default();
        }
        uids
    }

    /// The answer to [`Step::Update`]: whether the messages are gone for good.
    pub fn updated(&mut self, done: bool, out: &mut Vec<u8>) {
        if let State::Updating { deleted } = std::mem::replace(&mut self.state, State::Closed) {
            if done {
                self.tally.deleted = deleted;
                say(out, "+OK bye");
            } else {
                // RFC 1939 section 6: some may not have been removed, and the client must learn that.
                say(out, "-ERR [SYS/TEMP] messages were not deleted");
            }
        }
    }

    /// Makes the next piece of a long answer.
    fn send(&mut self, maildrop: Maildrop, sending: Sending, out: &mut Vec<u8>) {
        let more = match sending {
            Sending::Message { mut rest, mut writer } => {
                let piece = rest.split_to(rest.len().min(OUT_LEN_MAX));
                writer.write(&piece, out);
                if rest.is_empty() {
                    writer.finish(out);
                    None
                } else {
                    Some(Sending::Message { rest, writer })
                }
            }
            Sending::Listing { unique_ids, next } => {
                let mut next = next;
                while next <= maildrop.highest() && out.len() < OUT_LEN_MAX {
                    if let Some(entry) = maildrop.get(next) {
                        say(out, &listing(&maildrop, next, entry, unique_ids));
                    }
                    next += 1;
                }
                if next <= maildrop.highest() {
                    Some(Sending::Listing { unique_ids, next })
                } else {
                    say(out, ".");
                    None
                }
            }
        };
        self.state = match more {
            Some(sending) => State::Sending(maildrop, sending),
            None => State::Transaction(maildrop),
        };
    }

    /// Takes one line, if it is whole.
    fn line(&mut self, rest: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let (used, frame) = self.framer.next(rest);
        let is_last = used == rest.len();
        let step = match frame {
            Frame::More => Some(Step::More),
            Frame::Bad(fault) => {
                if matches!(self.state, State::Plain) {
                    self.state = State::Authorization { user: None };
                }
                match fault {
                    Fault::TooLong => self.bad("line too long", out),
                    Fault::Octets => self.bad("lines end with CR LF; no CR, LF or NUL within", out),
                }
            }
            Frame::Line(line) if matches!(self.state, State::Plain) => {
                let text = std::str::from_utf8(line).unwrap_or_default().trim_end_matches(['\r', '\n']);
                self.plain(text, out)
            }
            Frame::Line(line) => match Command::parse(line) {
                Ok(command) => self.command(command, is_last, out),
                Err(CommandError::Unknown) => self.bad("no such command", out),
                Err(CommandError::Arguments) => self.bad("arguments are not what the command wants", out),
                Err(CommandError::Text) => self.bad("not UTF-8", out),
            },
        };
        (used, step)
    }

    /// Refuses a command for its form or place; too many in a row end the session.
    fn bad(&mut self, why: &str, out: &mut Vec<u8>) -> Option<Step> {
        self.bad_commands += 1;
        if self.bad_commands < BAD_COMMANDS_MAX {
            say(out, &format!("-ERR {why}"));
            return None;
        }
        say(out, "-ERR too many errors");
        self.state = State::Closed;
        Some(Step::Close)
    }

    /// One row per command and state.
    fn command(&mut self, command: Command<'_>, is_last: bool, out: &mut Vec<u8>) -> Option<Step> {
        match (std::mem::replace(&mut self.state, State::Closed), command) {
            (State::Authorization { user }, command) => {
                self.state = State::Authorization { user: None };
                self.authorize(user, command, is_last, out)
            }
            (State::Transaction(maildrop), command) => self.transact(maildrop, command, out),
            (other, _) => {
                self.state = other;
                None
            }
        }
    }

    /// Commands before login (RFC 1939 section 4).
    fn authorize(
        &mut self,
        user: Option<String>,
        command: Command<'_>,
        is_last: bool,
        out: &mut Vec<u8>,
    ) -> Option<Step> {
        match command {
            Command::Capa => self.capabilities(true, out),
            Command::Quit => {
                say(out, "+OK bye");
                return Some(self.close());
            }
            Command::Stls => return self.start_tls(is_last, out),
            Command::User(_) | Command::Pass(_) | Command::Auth(Some(_)) if !self.may_log_in() => {
                // RFC 2595 section 2.2.
                return self.bad("[AUTH] passwords are taken within TLS only: say STLS first", out);
            }
            Command::User(name) => {
                self.state = State::Authorization { user: Some(name.to_owned()) };
                say(out, "+OK send PASS");
            }
            Command::Pass(password) => {
                return match user {
                    Some(login) => Some(self.log_in(login, password)),
                    None => self.bad("say USER first", out),
                };
            }
            Command::Auth(None) => {
                say(out, "+OK mechanisms");
                if self.may_log_in() {
                    say(out, "PLAIN");
                }
                say(out, ".");
            }
            Command::Auth(Some(sasl)) => return self.auth(sasl, out),
            // RFC 6856 section 2.1: here and not later. We send messages as they are in either mode.
            Command::Utf8 => say(out, "+OK UTF-8"),
            Command::Stat
            | Command::List(_)
            | Command::Uidl(_)
            | Command::Retr(_)
            | Command::Top(..)
            | Command::Dele(_)
            | Command::Rset
            | Command::Noop => return self.bad("log in first", out),
        }
        self.bad_commands = 0;
        None
    }

    fn start_tls(&mut self, is_last: bool, out: &mut Vec<u8>) -> Option<Step> {
        if self.policy.is_tls || !self.policy.offers_tls {
            return self.bad("STLS is not offered here", out);
        }
        if !is_last {
            // What follows in clear text could have been put there by somebody in between, to be taken as said within TLS.
            say(out, "-ERR nothing may follow STLS before the handshake");
            return Some(self.close());
        }
        say(out, "+OK begin TLS");
        self.state = State::Securing;
        Some(Step::StartTls)
    }

    fn auth(&mut self, sasl: Sasl<'_>, out: &mut Vec<u8>) -> Option<Step> {
        if !sasl.mechanism.eq_ignore_ascii_case("PLAIN") {
            return self.bad("no such mechanism", out);
        }
        match sasl.initial_response {
            Some(response) => self.plain(response, out),
            None => {
                // RFC 5034 section 4: an empty challenge.
                say(out, "+ ");
                self.state = State::Plain;
                None
            }
        }
    }

    /// The response of AUTH PLAIN (RFC 4616): authorization identity, NUL, login, NUL, password, in base64.
    fn plain(&mut self, response: &str, out: &mut Vec<u8>) -> Option<Step> {
        self.state = State::Authorization { user: None };
        if response == "*" {
            return self.bad("cancelled", out);
        }
        let decoded = STANDARD.decode(response).ok().and_then(|octets| String::from_utf8(octets).ok());
        let parts = decoded.as_deref().map(|text| text.split('\0').collect::<Vec<_>>());
        match parts.as_deref() {
            Some([authority, login, password])
                if !login.is_empty() && !password.is_empty() && (authority.is_empty() || authority == login) =>
            {
                Some(self.log_in((*login).to_owned(), password))
            }
            Some([_, _, _]) => self.bad("[AUTH] name and password are wanted, and nobody may act for another", out),
            Some(_) | None => self.bad("not a PLAIN response", out),
        }
    }

    fn log_in(&mut self, login: String, password: &str) -> Step {
        self.bad_commands = 0;
        self.state = State::LoggingIn;
        Step::Login { login, password: SecretText::new(password.to_owned()) }
    }

    /// Commands after login (RFC 1939 sections 5 to 7).
    fn transact(&mut self, mut maildrop: Maildrop, command: Command<'_>, out: &mut Vec<u8>) -> Option<Step> {
        match command {
            Command::Quit => return Some(self.quit(&maildrop, out)),
            Command::Retr(number) => return self.fetch(maildrop, number, None, out),
            Command::Top(number, lines) => return self.fetch(maildrop, number, Some(lines), out),
            Command::List(None) => return self.list(maildrop, false, out),
            Command::Uidl(None) => return self.list(maildrop, true, out),
            Command::List(Some(number)) => one(&maildrop, number, false, out),
            Command::Uidl(Some(number)) => one(&maildrop, number, true, out),
            Command::Stat => say(out, &format!("+OK {} {}", maildrop.count(), maildrop.octets())),
            Command::Dele(number) if maildrop.delete(number) => say(out, "+OK deleted at QUIT"),
            Command::Dele(_) => say(out, NO_SUCH_MESSAGE),
            Command::Rset => {
                maildrop.reset();
                say(out, "+OK nothing is deleted");
            }
            Command::Noop => say(out, "+OK"),
            Command::Capa => self.capabilities(false, out),
            Command::Stls | Command::User(_) | Command::Pass(_) | Command::Auth(_) | Command::Utf8 => {
                self.state = State::Transaction(maildrop);
                return self.bad("you are logged in already", out);
            }
        }
        self.bad_commands = 0;
        self.state = State::Transaction(maildrop);
        None
    }

    fn fetch(&mut self, maildrop: Maildrop, number: u32, lines: Option<u32>, out: &mut Vec<u8>) -> Option<Step> {
        self.bad_commands = 0;
        if let Some(entry) = maildrop.get(number) {
            self.state = State::Fetching(maildrop, lines);
            return Some(Step::Fetch(entry.uid));
        }
        say(out, NO_SUCH_MESSAGE);
        self.state = State::Transaction(maildrop);
        None
    }

    fn list(&mut self, maildrop: Maildrop, unique_ids: bool, out: &mut Vec<u8>) -> Option<Step> {
        self.bad_commands = 0;
        say(out, &format!("+OK {} messages", maildrop.count()));
        self.state = State::Sending(maildrop, Sending::Listing { unique_ids, next: 1 });
        None
    }

    /// RFC 1939 section 6: messages are removed now and only now, and +OK means that they are.
    fn quit(&mut self, maildrop: &Maildrop, out: &mut Vec<u8>) -> Step {
        let deleted = maildrop.deleted();
        if deleted.is_empty() {
            say(out, "+OK bye");
            return self.close();
        }
        self.state = State::Updating { deleted: u64::try_from(deleted.len()).unwrap_or(u64::MAX) };
        Step::Update(deleted)
    }

    fn close(&mut self) -> Step {
        self.state = State::Closed;
        Step::Close
    }

    fn may_log_in(&self) -> bool {
        self.policy.is_tls || self.policy.cleartext_login
    }

    /// CAPA (RFC 2449 section 5).
    fn capabilities(&self, before_login: bool, out: &mut Vec<u8>) {
        say(out, "+OK capabilities");
        for always in ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER"] {
            say(out, always);
        }
        if self.may_log_in() {
            say(out, "USER");
            say(out, "SASL PLAIN");
        }
        if before_login && self.policy.offers_tls && !self.policy.is_tls {
            say(out, "STLS");
        }
        say(out, "IMPLEMENTATION fife");
        say(out, ".");
    }
}

const NO_SUCH_MESSAGE: &str = "-ERR no such message";

/// LIST or UIDL of one message.
fn one(maildrop: &Maildrop, number: u32, unique_ids: bool, out: &mut Vec<u8>) {
    match maildrop.get(number) {
        Some(entry) => say(out, &format!("+OK {}", listing(maildrop, number, entry, unique_ids))),
        None => say(out, NO_SUCH_MESSAGE),
    }
}

/// A scan listing or unique-id listing.
fn listing(maildrop: &Maildrop, number: u32, entry: Entry, unique_ids: bool) -> String {
    if unique_ids { format!("{number} {}", maildrop.unique_id(entry)) } else { format!("{number} {}", entry.size) }
}

/// Octets of the header, the empty line and so many lines of the body (RFC 1939 section 7, TOP).
fn top_len(message: &[u8], lines: u32) -> usize {
    let mut start = 0;
    let mut in_header = true;
    let mut left = lines;
    for lf in memchr_iter(b'\n', message) {
        if !in_header {
            if left == 0 {
                return start;
            }
            left -= 1;
        } else if matches!(message.get(start..lf), Some(b"" | b"\r")) {
            in_header = false;
        }
        start = lf + 1;
    }
    if in_header || left > 0 { message.len() } else { start }
}

/// Appends a line.
fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
