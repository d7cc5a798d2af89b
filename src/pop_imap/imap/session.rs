//! One IMAP session: received bytes in, steps out.
//!
//! Owns: the receive buffer, the state, what is allowed in it, the answers that need no store. Called by: `imap::serve`
//! (sockets) and `imap::run` (which carries commands out). Never: reads a socket, the clock or the disk.
//! Spec: RFC 3501 section 3 (states) and section 6; RFC 4959 (initial response), RFC 4616 (PLAIN), RFC 2177 (IDLE).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::command::{self, Command, CommandError, SecretBytes};
use super::frame::{Fault, Frame, Framer, Mode, tag_of};
use super::selected::{Selected, Telling};
use super::write;
use crate::base::address::Address;
use crate::config::secret::SecretText;
use crate::pop_imap::store::AccountId;

/// Commands that were none, after which a session is closed.
const BAD_COMMANDS_MAX: u32 = 10;
/// Logins refused, after which a session is closed.
const LOGINS_REFUSED_MAX: u32 = 3;

/// Who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub account: AccountId,
    pub address: Address,
}

/// RFC 3501 section 3. Logout is the end of the session and needs no variant.
#[derive(Debug)]
pub enum State {
    NotAuthenticated,
    Authenticated(User),
    Selected(User, Box<Selected>),
}

/// What is offered to this client.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// A certificate is at hand: STARTTLS is offered while the connection is in the clear.
    pub starttls: bool,
    /// The connection is encrypted.
    pub encrypted: bool,
    /// Passwords may come in the clear: the client is on this machine, or the site allows it.
    pub cleartext_login: bool,
    /// Largest message in APPEND, in bytes.
    pub append_bytes_max: usize,
}

impl Policy {
    fn login_allowed(self) -> bool {
        self.encrypted || self.cleartext_login
    }
}

/// What the next line is.
#[derive(Debug)]
enum Awaiting {
    Command,
    /// The response of AUTHENTICATE PLAIN under this tag.
    Credentials(Bytes),
    /// DONE, for IDLE under this tag.
    Done(Bytes),
}

/// What the caller is to do now. Answers written so far are to be sent before it reads.
#[derive(Debug)]
pub enum Step {
    /// Receive more bytes. In IDLE, tell changes of the mailbox as they come.
    Read,
    /// Carry out a command, and answer it under this tag.
    Run { tag: Bytes, command: Command },
    /// Answer was written: shake hands, then call `encrypted`.
    StartTls,
    /// Send what was written and close.
    Close,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    framer: Framer,
    policy: Policy,
    pub state: State,
    awaiting: Awaiting,
    /// A CONDSTORE enabling command was seen (RFC 7162 section 3.1).
    pub condstore: bool,
    bad_commands: u32,
    logins_refused: u32,
    closing: bool,
}

impl Session {
    /// A new session.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            framer: Framer::new(policy.append_bytes_max),
            policy,
            state: State::NotAuthenticated,
            awaiting: Awaiting::Command,
            condstore: false,
            bad_commands: 0,
            logins_refused: 0,
            closing: false,
        }
    }

    /// Appends the greeting (RFC 3501 section 7.1.1).
    pub fn greet(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"* OK [");
        self.write_capabilities(out);
        out.extend_from_slice(b"] fife ready\r\n");
    }

    /// Takes what was read.
    pub fn receive(&mut self, input: &[u8]) {
        self.framer.receive(input);
    }

    /// Octets of a message that is coming in by APPEND.
    #[must_use]
    pub fn held(&self) -> usize {
        self.framer.held()
    }

    /// There is no room for the message that is coming in: it will be refused for now.
    pub fn give_up(&mut self) {
        self.framer.give_up();
    }

    /// Whether the client is in the middle of a command.
    #[must_use]
    pub fn is_mid_command(&self) -> bool {
        !self.framer.is_empty()
    }

    /// Whether the client waits in IDLE for changes.
    #[must_use]
    pub fn is_idling(&self) -> bool {
        matches!(self.awaiting, Awaiting::Done(_))
    }

    /// Whether someone is logged in.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        match &self.state {
            State::NotAuthenticated => None,
            State::Authenticated(user) | State::Selected(user, _) => Some(user),
        }
    }

    /// The selected mailbox.
    pub fn selected(&mut self) -> Option<&mut Selected> {
        match &mut self.state {
            State::Selected(_, selected) => Some(selected),
            State::NotAuthenticated | State::Authenticated(_) => None,
        }
    }

    /// The session has been encrypted (RFC 3501 section 6.2.1: all that was known before is forgotten).
    pub fn encrypted(&mut self) {
        self.policy.encrypted = true;
        self.framer.clear();
    }

    /// The login was right.
    pub fn logged_in(&mut self, out: &mut Vec<u8>, tag: &[u8], user: User) {
        self.state = State::Authenticated(user);
        self.framer.authenticated();
        self.logins_refused = 0;
        out.extend_from_slice(tag);
        out.extend_from_slice(b" OK [");
        self.write_capabilities(out);
        out.extend_from_slice(b"] Logged in\r\n");
    }

    /// The login was refused, for this reason: a response code and words. Whoever guesses is sent away.
    pub fn login_refused(&mut self, out: &mut Vec<u8>, tag: &[u8], reason: &str) {
        answer(out, tag, "NO", reason);
        self.logins_refused += 1;
        if self.logins_refused >= LOGINS_REFUSED_MAX {
            self.bye(out, "Too many failed logins");
        }
    }

    /// A mailbox was selected, or none when that failed or it was closed.
    pub fn select(&mut self, selected: Option<Selected>) {
        let state = std::mem::replace(&mut self.state, State::NotAuthenticated);
        self.state = match (state, selected) {
            (State::NotAuthenticated, _) => State::NotAuthenticated,
            (State::Authenticated(user) | State::Selected(user, _), Some(selected)) => {
                State::Selected(user, Box::new(selected))
            }
            (State::Authenticated(user) | State::Selected(user, _), None) => State::Authenticated(user),
        };
    }

    /// How changes are told after a command that was a UID command, or during IDLE.
    #[must_use]
    pub fn telling(&self, expunge: bool, uid: bool) -> Telling {
        Telling { expunge, uid: uid || self.condstore, modseq: self.condstore }
    }

    /// Says why the session ends; the next step is `Close`.
    pub fn bye(&mut self, out: &mut Vec<u8>, why: &str) {
        answer(out, b"*", "BYE", why);
        self.closing = true;
    }

    /// The next step. Answers that need no store are appended to `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Step {
        while !self.closing {
            let mode = match self.awaiting {
                Awaiting::Command => Mode::Command,
                Awaiting::Credentials(_) | Awaiting::Done(_) => Mode::Line,
            };
            let step = match self.framer.next(mode) {
                None => return Step::Read,
                Some(Frame::LiteralAwaited) => {
                    out.extend_from_slice(b"+ OK\r\n");
                    None
                }
                Some(Frame::Refused { tag, fault }) => {
                    self.refused(out, tag, fault);
                    None
                }
                Some(Frame::Complete(frame)) => self.complete(out, &frame),
            };
            if let Some(step) = step {
                return step;
            }
        }
        Step::Close
    }

    fn refused(&mut self, out: &mut Vec<u8>, tag: Option<Bytes>, fault: Fault) {
        let tag = tag.filter(|_| matches!(self.awaiting, Awaiting::Command));
        let tag = tag.as_deref().unwrap_or(b"*");
        if fault == Fault::NoRoom {
            return answer(out, tag, "NO", &fault.to_string());
        }
        answer(out, tag, "BAD", &fault.to_string());
        // What follows an overlong line of a stranger, or of IDLE, was not read on to its end: no command can be found in it.
        let known = matches!(self.state, State::Authenticated(_) | State::Selected(..));
        let lost = !known || !matches!(self.awaiting, Awaiting::Command);
        if lost && matches!(fault, Fault::LineTooLong | Fault::LiteralTooLong) {
            self.bye(out, "Cannot go on");
        }
        self.awaiting = Awaiting::Command;
        self.count_bad(out);
    }

    fn count_bad(&mut self, out: &mut Vec<u8>) {
        self.bad_commands += 1;
        if self.bad_commands >= BAD_COMMANDS_MAX && !self.closing {
            self.bye(out, "Too many bad commands");
        }
    }

    fn bad(&mut self, out: &mut Vec<u8>, tag: &[u8], why: &str) {
        answer(out, tag, "BAD", why);
        self.count_bad(out);
    }

    fn complete(&mut self, out: &mut Vec<u8>, frame: &Bytes) -> Option<Step> {
        match std::mem::replace(&mut self.awaiting, Awaiting::Command) {
            Awaiting::Command => self.command(out, frame),
            Awaiting::Credentials(tag) => self.credentials_line(out, tag, frame),
            Awaiting::Done(tag) if frame.eq_ignore_ascii_case(b"DONE") => {
                // Changes that came meanwhile are told before the end is.
                Some(Step::Run { tag, command: Command::Idle })
            }
            Awaiting::Done(tag) => {
                self.bad(out, &tag, "Expected DONE");
                None
            }
        }
    }

    fn command(&mut self, out: &mut Vec<u8>, frame: &Bytes) -> Option<Step> {
        let Some(tag) = tag_of(frame) else {
            self.bad(out, b"*", "Invalid tag");
            return None;
        };
        match command::parse(frame) {
            Ok(command) => self.dispatch(out, tag, command),
            Err(error @ (CommandError::Syntax | CommandError::Unsupported)) => {
                self.bad(out, &tag, &error.to_string());
                None
            }
            Err(error @ (CommandError::Name(_) | CommandError::Flag)) => {
                answer(out, &tag, "NO", &format!("[CANNOT] {error}"));
                None
            }
            Err(error @ CommandError::Charset) => {
                answer(out, &tag, "NO", &format!("[BADCHARSET (US-ASCII UTF-8)] {error}"));
                None
            }
        }
    }

    /// One row a command: what it is in this state.
    fn dispatch(&mut self, out: &mut Vec<u8>, tag: Bytes, command: Command) -> Option<Step> {
        match (&self.state, command) {
            (_, Command::Capability) => {
                out.extend_from_slice(b"* ");
                self.write_capabilities(out);
                out.extend_from_slice(b"\r\n");
                answer(out, &tag, "OK", "Capability completed");
                None
            }
            (_, Command::Logout) => {
                // RFC 3501 section 6.1.3: BYE comes before the answer.
                self.bye(out, "Logging out");
                answer(out, &tag, "OK", "Logout completed");
                None
            }
            (_, Command::Id) => {
                out.extend_from_slice(b"* ID (\"name\" \"fife\")\r\n");
                answer(out, &tag, "OK", "ID completed");
                None
            }
            (State::NotAuthenticated, Command::Noop) => {
                answer(out, &tag, "OK", "NOOP completed");
                None
            }
            (State::NotAuthenticated, Command::StartTls) => self.start_tls(out, &tag),
            (State::NotAuthenticated, command @ Command::Login { .. }) => {
                if self.login_is_refused_in_the_clear(out, &tag) {
                    return None;
                }
                Some(Step::Run { tag, command })
            }
            (State::NotAuthenticated, Command::AuthenticatePlain { initial }) => self.authenticate(out, tag, initial),
            (State::NotAuthenticated, Command::AuthenticateOther) => {
                answer(out, &tag, "NO", "[CANNOT] Mechanism not offered");
                None
            }
            (State::NotAuthenticated, _) => {
                self.bad(out, &tag, "Log in first");
                None
            }
            (
                State::Authenticated(_) | State::Selected(..),
                Command::StartTls
                | Command::Login { .. }
                | Command::AuthenticatePlain { .. }
                | Command::AuthenticateOther,
            ) => {
                self.bad(out, &tag, "Already logged in");
                None
            }
            (State::Authenticated(_) | State::Selected(..), Command::Namespace) => {
                // RFC 2342: personal, other users', shared.
                out.extend_from_slice(b"* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                answer(out, &tag, "OK", "Namespace completed");
                None
            }
            (State::Authenticated(_) | State::Selected(..), Command::Enable { condstore }) => {
                self.condstore |= condstore;
                out.extend_from_slice(if condstore { b"* ENABLED CONDSTORE\r\n".as_slice() } else { b"* ENABLED\r\n" });
                answer(out, &tag, "OK", "Enabled");
                None
            }
            (State::Authenticated(_) | State::Selected(..), Command::Idle) => {
                out.extend_from_slice(b"+ idling\r\n");
                self.awaiting = Awaiting::Done(tag);
                None
            }
            (State::Authenticated(_), command) if command.needs_selected() => {
                self.bad(out, &tag, "Select a mailbox first");
                None
            }
            (State::Authenticated(_) | State::Selected(..), command) => Some(Step::Run { tag, command }),
        }
    }

    fn start_tls(&mut self, out: &mut Vec<u8>, tag: &[u8]) -> Option<Step> {
        if self.policy.encrypted || !self.policy.starttls {
            self.bad(out, tag, "STARTTLS not available");
            return None;
        }
        if !self.framer.is_empty() {
            // Commands sent along in the clear would be carried out as if they had come encrypted (CVE-2011-0411 and its
            // like). RFC 3501 section 6.2.1: nothing may be sent before the answer.
            answer(out, tag, "BAD", "Nothing may follow STARTTLS");
            self.bye(out, "Plaintext after STARTTLS");
            return None;
        }
        answer(out, tag, "OK", "Begin TLS negotiation now");
        Some(Step::StartTls)
    }

    /// RFC 3501 section 6.2.3 (LOGINDISABLED) and section 11.2: no password in the clear over a network.
    fn login_is_refused_in_the_clear(&mut self, out: &mut Vec<u8>, tag: &[u8]) -> bool {
        let refused = !self.policy.login_allowed();
        if refused {
            answer(out, tag, "NO", "[PRIVACYREQUIRED] Use TLS first");
        }
        refused
    }

    fn authenticate(&mut self, out: &mut Vec<u8>, tag: Bytes, initial: Option<SecretBytes>) -> Option<Step> {
        if self.login_is_refused_in_the_clear(out, &tag) {
            return None;
        }
        match initial {
            Some(SecretBytes(response)) => self.credentials(out, tag, &response),
            None => {
                out.extend_from_slice(b"+ \r\n");
                self.awaiting = Awaiting::Credentials(tag);
                None
            }
        }
    }

    fn credentials_line(&mut self, out: &mut Vec<u8>, tag: Bytes, line: &[u8]) -> Option<Step> {
        if line == b"*" {
            // RFC 3501 section 6.2.2.
            answer(out, &tag, "BAD", "Authentication cancelled");
            return None;
        }
        let Ok(response) = STANDARD.decode(line) else {
            self.bad(out, &tag, "Invalid base64");
            return None;
        };
        self.credentials(out, tag, &response)
    }

    /// RFC 4616: authorization identity, NUL, authentication identity, NUL, password.
    fn credentials(&mut self, out: &mut Vec<u8>, tag: Bytes, response: &[u8]) -> Option<Step> {
        let text = std::str::from_utf8(response).ok();
        let mut parts = text.into_iter().flat_map(|text| text.split('\0'));
        let (Some(acting_as), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            self.bad(out, &tag, "Invalid PLAIN response");
            return None;
        };
        if !acting_as.is_empty() && acting_as != user {
            answer(out, &tag, "NO", "[AUTHORIZATIONFAILED] Nobody may act for another");
            return None;
        }
        let command = Command::Login { user: user.to_owned(), password: SecretText::new(password.to_owned()) };
        Some(Step::Run { tag, command })
    }

    /// RFC 3501 section 7.2.1. What is announced works; nothing else is announced.
    fn write_capabilities(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE");
        if matches!(self.state, State::NotAuthenticated) {
            if self.policy.starttls && !self.policy.encrypted {
                out.extend_from_slice(b" STARTTLS");
            }
            let login: &[u8] = if self.policy.login_allowed() { b" AUTH=PLAIN" } else { b" LOGINDISABLED" };
            out.extend_from_slice(login);
            return;
        }
        out.extend_from_slice(
            b" IDLE NAMESPACE UIDPLUS UNSELECT MOVE CHILDREN SPECIAL-USE LIST-EXTENDED LIST-STATUS STATUS=SIZE ESEARCH CONDSTORE",
        );
        write::text(out, format_args!(" APPENDLIMIT={}", self.policy.append_bytes_max));
    }
}

impl Command {
    /// Commands of the selected state (RFC 3501 section 6.4).
    fn needs_selected(&self) -> bool {
        match self {
            Self::Check
            | Self::Close
            | Self::Unselect
            | Self::Expunge { .. }
            | Self::Search(_)
            | Self::Fetch(_)
            | Self::Store(_)
            | Self::Copy(_) => true,
            Self::Capability
            | Self::Noop
            | Self::Logout
            | Self::Id
            | Self::StartTls
            | Self::Login { .. }
            | Self::AuthenticatePlain { .. }
            | Self::AuthenticateOther
            | Self::Enable { .. }
            | Self::Select(_)
            | Self::Create(_)
            | Self::Delete(_)
            | Self::Rename { .. }
            | Self::Subscribe { .. }
            | Self::List(_)
            | Self::Namespace
            | Self::Status { .. }
            | Self::Append(_)
            | Self::Idle => false,
        }
    }
}

/// Appends a status response: `tag OK words`.
pub(super) fn answer(out: &mut Vec<u8>, tag: &[u8], status: &str, words: &str) {
    out.extend_from_slice(tag);
    out.push(b' ');
    out.extend_from_slice(status.as_bytes());
    out.push(b' ');
    out.extend_from_slice(words.as_bytes());
    out.extend_from_slice(b"\r\n");
}
