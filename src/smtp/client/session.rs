//! Client session of SMTP and LMTP: what to send, and what the replies mean.
//!
//! Owns: the state of one connection. Called by: `client::connection`. Never: opens a socket, reads the clock.
//! Spec: RFC 5321, RFC 2033 (LMTP: LHLO, and a reply a recipient after the message), RFC 2920, RFC 3030, RFC 6531, RFC 3207 (STARTTLS), RFC 4954 (AUTH),
//! RFC 3461 (DSN), RFC 1870, RFC 6152.
//!
//! Where the server lets us (PIPELINING and CHUNKING), the whole transaction is one write: MAIL, RCPT, BDAT and the message. On a
//! connection that was silent for a while the message is held back until the recipients are answered: as long as it was not sent,
//! a lost connection leaves no doubt about who has it.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use smtp_proto::Error as ParseError;
use smtp_proto::response::parser::ResponseReceiver;

use crate::base::address::Address;
use crate::config::secret::SecretText;
use crate::smtp::envelope::{Notify, Reports, Return};
use crate::smtp::reply::Reply;
use crate::smtp::xtext;

/// Octets of a reply, in all its lines, at most. (Octets of replies before it that came in the same read count too: they are few.)
const UNFINISHED_LEN_MAX: usize = 64 * 1024;

/// Which protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 2033: LHLO; after the message a reply for each recipient.
    Lmtp,
    /// RFC 5321: EHLO, or HELO; after the message one reply for all.
    Smtp,
}

/// By whom we sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: SecretText,
}

/// What is wanted of a connection beside a greeting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// TLS where it is offered.
    pub start_tls: bool,
    /// To sign in; only over TLS.
    pub credentials: Option<Credentials>,
}

/// What the server announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub pipelining: bool,
    pub chunking: bool,
    pub smtputf8: bool,
    pub eight_bit: bool,
    /// RFC 1870.
    pub size: bool,
    /// Octets of a message, at most; 0: it does not say.
    pub size_max: u64,
    /// RFC 3461.
    pub dsn: bool,
    pub start_tls: bool,
    pub auth_plain: bool,
    pub auth_login: bool,
}

/// Somebody to whom the message goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub address: &'a Address,
    pub notify: Notify,
    /// ORCPT, decoded.
    pub original: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Somebody about whose reports nothing is said.
    #[must_use]
    pub fn new(address: &'a Address) -> Self {
        Self { address, notify: Notify::default(), original: None }
    }
}

/// A message to be begun.
#[derive(Debug, Clone, Copy)]
pub struct Begin<'a> {
    pub reverse_path: Option<&'a Address>,
    /// At least one.
    pub targets: &'a [Target<'a>],
    pub message_len: usize,
    /// There are octets beyond ASCII in the message.
    pub eight_bit: bool,
    /// The message is to be announced as one beyond ASCII, even if no address is.
    pub smtputf8: bool,
    pub reports: Option<&'a Reports>,
    /// The message may go along with the commands.
    pub eager: bool,
}

/// How the message goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As it is; its length was announced (BDAT).
    Chunk,
    /// Dots stuffed, ended by a dot (DATA).
    Dots,
    /// Only the dot: the server wants a message although it took no recipient (RFC 2920 section 3.1).
    Nothing,
}

/// What came of some replies.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The server greeted and answered: `begin` may be called.
    Ready,
    /// Start TLS, then call `tls_started`. What the server sent after this reply was not protected: the connection is to be given up.
    StartTls,
    /// The message is to be sent, after what stands in the output; then `message_sent` is to be called.
    SendMessage(Framing),
    /// Every recipient has its reply, in the order of `begin`.
    Finished(Vec<Reply>),
}

/// The server is not one, or says goodbye. The connection is of no more use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("not a reply: {0}")]
    Malformed(&'static str),
    #[error("server closes: {0}")]
    Closing(Reply),
    #[error("greeting refused: {0}")]
    Refused(Reply),
    #[error("signing in refused: {0}")]
    NotSignedIn(Reply),
    #[error("server offers no way to sign in safely")]
    NoSignIn,
}

/// A reply that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Greeting,
    Hello,
    /// HELO, of a server that did not understand EHLO.
    OldHello,
    StartTls,
    /// The end of AUTH.
    SignIn,
    /// LOGIN asks for the name, then for the password.
    LoginName,
    LoginPassword,
    Reset,
    Mail,
    Recipient(usize),
    Data,
    /// After the message, for this recipient (RFC 2033 section 4.2).
    Outcome(usize),
    /// After the message, for all recipients that were taken (RFC 5321 section 4.2.5).
    CommonOutcome,
    /// After the message, when no recipient was taken.
    Void,
}

/// From MAIL to the last reply.
#[derive(Debug, Default)]
struct Transaction {
    /// Per recipient; none: no final reply yet.
    outcomes: Vec<Option<Reply>>,
    accepted: Vec<usize>,
    /// MAIL's refusal, which is every recipient's.
    refused: Option<Reply>,
    message_len: usize,
    /// The message goes along with the commands.
    along: bool,
    /// All of the message was sent.
    sent: bool,
}

/// One connection.
///
/// Invariants: `expected` has a reply for each command in `output` or sent, in order; every recipient of a transaction gets exactly
/// one outcome.
pub struct Client {
    dialect: Dialect,
    hostname: String,
    wishes: Wishes,
    /// TLS runs.
    tls: bool,
    capabilities: Capabilities,
    receiver: ResponseReceiver,
    /// Octets of a reply that has not ended.
    unfinished: usize,
    expected: VecDeque<Expected>,
    /// Commands that wait for the one before to be answered, at a server without PIPELINING.
    waiting: VecDeque<(Vec<u8>, Expected)>,
    transaction: Transaction,
    /// The last transaction ended before its message; the server has to be told.
    needs_reset: bool,
    output: Vec<u8>,
}

impl Client {
    /// A connection that was just opened. `hostname` is by what we greet; `tls`: TLS runs already.
    #[must_use]
    pub fn new(dialect: Dialect, hostname: String, wishes: Wishes, tls: bool) -> Self {
        Self {
            dialect,
            hostname,
            wishes,
            tls,
            capabilities: Capabilities::default(),
            receiver: ResponseReceiver::default(),
            unfinished: 0,
            expected: VecDeque::from([Expected::Greeting]),
            waiting: VecDeque::new(),
            transaction: Transaction::default(),
            needs_reset: false,
            output: Vec::new(),
        }
    }

    /// What is to be sent; the caller empties it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What the server announced.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether a message can be begun.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.expected.is_empty()
    }

    /// Whether TLS runs.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Begins a message. True: the message is to be sent right after the output, as a chunk; only when `eager`.
    pub fn begin(&mut self, begin: &Begin<'_>) -> bool {
        let Begin { targets, message_len, .. } = *begin;
        self.transaction = Transaction { outcomes: vec![None; targets.len()], message_len, ..Transaction::default() };
        if std::mem::take(&mut self.needs_reset) {
            self.waiting.push_back((b"RSET\r\n".to_vec(), Expected::Reset));
        }
        self.waiting.push_back((self.mail(begin), Expected::Mail));
        for (index, target) in targets.iter().enumerate() {
            self.waiting.push_back((self.rcpt(target), Expected::Recipient(index)));
        }
        let eager = begin.eager && self.capabilities.pipelining && self.capabilities.chunking;
        if !self.capabilities.chunking {
            self.waiting.push_back((b"DATA\r\n".to_vec(), Expected::Data));
        }
        self.send_waiting();
        if eager {
            self.output.extend_from_slice(format!("BDAT {message_len} LAST\r\n").as_bytes());
            self.transaction.along = true;
        }
        eager
    }

    fn mail(&self, begin: &Begin<'_>) -> Vec<u8> {
        let path = begin.reverse_path.map(ToString::to_string).unwrap_or_default();
        let mut line = format!("MAIL FROM:<{path}>");
        if self.capabilities.size {
            line.push_str(&format!(" SIZE={}", begin.message_len));
        }
        if self.capabilities.eight_bit && (begin.eight_bit || self.dialect == Dialect::Lmtp) {
            line.push_str(" BODY=8BITMIME");
        }
        let paths = begin.targets.iter().map(|target| target.address).chain(begin.reverse_path);
        let unicode = begin.smtputf8 || paths.into_iter().any(|path| !path.is_ascii());
        // A server that does not announce it refuses the address or takes it; a parameter that it does not know it refuses surely.
        if self.capabilities.smtputf8 && unicode {
            line.push_str(" SMTPUTF8");
        }
        if let Some(reports) = begin.reports.filter(|_| self.capabilities.dsn) {
            match reports.returned {
                Some(Return::Full) => line.push_str(" RET=FULL"),
                Some(Return::Header) => line.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(id) = &reports.envelope_id {
                line.push_str(&format!(" ENVID={}", xtext::encode(id)));
            }
        }
        line.push_str("\r\n");
        line.into_bytes()
    }

    fn rcpt(&self, target: &Target<'_>) -> Vec<u8> {
        let mut line = format!("RCPT TO:<{}>", target.address);
        if self.capabilities.dsn {
            if target.notify.is_said() {
                line.push_str(&format!(" NOTIFY={}", target.notify.value()));
            }
            // RFC 3461 section 4.2: the type is plain, the address behind it is coded.
            let original = target.original.and_then(|original| original.split_once(';'));
            if let Some((kind, address)) =
                original.filter(|(_, address)| address.is_ascii() || self.capabilities.smtputf8)
            {
                line.push_str(&format!(" ORCPT={kind};{}", xtext::encode(address)));
            }
        }
        line.push_str("\r\n");
        line.into_bytes()
    }

    /// TLS runs: what was said before counts no more (RFC 3207 section 4.2).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.capabilities = Capabilities::default();
        self.receiver = ResponseReceiver::default();
        self.unfinished = 0;
        self.greet();
    }

    /// Says goodbye; no answer is waited for.
    pub fn quit(&mut self) {
        self.output.extend_from_slice(b"QUIT\r\n");
    }

    fn greet(&mut self) {
        let verb = if self.dialect == Dialect::Lmtp { "LHLO" } else { "EHLO" };
        self.output.extend_from_slice(format!("{verb} {}\r\n", self.hostname).as_bytes());
        self.expected.push_back(Expected::Hello);
    }

    /// All of the message was sent: after `begin` said so, or after `Event::SendMessage`.
    pub fn message_sent(&mut self) {
        self.transaction.sent = true;
    }

    /// Whether all of the message may have reached the server: from here on a lost connection leaves doubt.
    #[must_use]
    pub fn is_message_sent(&self) -> bool {
        self.transaction.sent
    }

    /// What is known of each recipient, when the connection is lost.
    #[must_use]
    pub fn abandon(self) -> Vec<Option<Reply>> {
        self.transaction.outcomes
    }

    /// Takes octets up to the next event. Returns how many were used.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub fn receive(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Fault> {
        let mut octets = input.iter();
        loop {
            let reply = match self.receiver.parse(&mut octets) {
                Ok(response) => {
                    self.receiver.reset();
                    self.unfinished = 0;
                    // The parser leaves all zero when there is no enhanced status code (RFC 2034).
                    let enhanced = (response.esc != [0; 3]).then(|| response.esc.map(u16::from));
                    (response.code, enhanced, response.message)
                }
                Err(ParseError::NeedsMoreData { .. }) => {
                    // smtp-proto 0.2.5 bounds long lines, but not the number of short ones.
                    self.unfinished += input.len();
                    let bounded = self.unfinished <= UNFINISHED_LEN_MAX;
                    return if bounded { Ok((input.len(), None)) } else { Err(Fault::Malformed("too long")) };
                }
                Err(ParseError::ResponseTooLong) => return Err(Fault::Malformed("too long")),
                Err(_) => return Err(Fault::Malformed("syntax")),
            };
            if !(200..600).contains(&reply.0) {
                return Err(Fault::Malformed("code out of range"));
            }
            let expected = self.expected.pop_front().ok_or(Fault::Malformed("more replies than commands"))?;
            if expected == Expected::Hello {
                self.capabilities = announced(&reply.2);
            }
            let reply = Reply::relayed(reply.0, reply.1, &reply.2);
            if reply.code() == 421 {
                if let Expected::Outcome(index) = expected {
                    self.outcome(index, &reply);
                } else if expected == Expected::CommonOutcome {
                    self.common_outcome(&reply);
                }
                return Err(Fault::Closing(reply));
            }
            if let Some(event) = self.meets(expected, reply)? {
                return Ok((input.len() - octets.as_slice().len(), Some(event)));
            }
        }
    }

    /// A reply to what was expected.
    fn meets(&mut self, expected: Expected, reply: Reply) -> Result<Option<Event>, Fault> {
        self.send_waiting();
        match expected {
            Expected::Greeting if reply.is_positive() => self.greet(),
            Expected::Hello | Expected::OldHello if reply.is_positive() => return self.greeted(),
            // RFC 5321 section 4.1.4: a server that does not know EHLO is greeted the old way.
            Expected::Hello if reply.is_permanent() && self.dialect == Dialect::Smtp && !self.tls => {
                self.capabilities = Capabilities::default();
                self.output.extend_from_slice(format!("HELO {}\r\n", self.hostname).as_bytes());
                self.expected.push_back(Expected::OldHello);
            }
            Expected::Greeting | Expected::Hello | Expected::OldHello => return Err(Fault::Refused(reply)),
            Expected::StartTls if reply.code() == 220 => return Ok(Some(Event::StartTls)),
            // It offered what it cannot do; whether that will do without TLS is the caller's question.
            Expected::StartTls => return self.sign_in(),
            Expected::SignIn if reply.code() == 235 => return Ok(Some(Event::Ready)),
            Expected::LoginName if reply.code() == 334 => self.login_step(Expected::LoginPassword),
            Expected::LoginPassword if reply.code() == 334 => self.login_step(Expected::SignIn),
            Expected::SignIn | Expected::LoginName | Expected::LoginPassword => return Err(Fault::NotSignedIn(reply)),
            Expected::Reset | Expected::Void => {}
            Expected::Mail if reply.is_positive() => {}
            Expected::Mail => self.transaction.refused = Some(reply),
            Expected::Recipient(index) => {
                self.recipient(index, reply);
                if index + 1 == self.transaction.outcomes.len() {
                    return Ok(self.recipients_answered());
                }
            }
            Expected::Data => return self.data_answered(&reply),
            Expected::Outcome(index) => self.outcome(index, &reply),
            Expected::CommonOutcome => self.common_outcome(&reply),
        }
        Ok(self.finished())
    }

    /// The greeting was answered: TLS first, then the sign-in, then messages.
    fn greeted(&mut self) -> Result<Option<Event>, Fault> {
        if self.wishes.start_tls && self.capabilities.start_tls && !self.tls {
            self.output.extend_from_slice(b"STARTTLS\r\n");
            self.expected.push_back(Expected::StartTls);
            return Ok(None);
        }
        self.sign_in()
    }

    /// Begins AUTH when we have credentials: PLAIN, or LOGIN at a server that knows nothing better.
    fn sign_in(&mut self) -> Result<Option<Event>, Fault> {
        let Some(credentials) = &self.wishes.credentials else { return Ok(Some(Event::Ready)) };
        if !self.tls {
            return Err(Fault::NoSignIn);
        }
        if self.capabilities.auth_plain {
            let (user, password) = (&credentials.user, credentials.password.reveal());
            let plain = STANDARD.encode(format!("\0{user}\0{password}"));
            self.output.extend_from_slice(format!("AUTH PLAIN {plain}\r\n").as_bytes());
            self.expected.push_back(Expected::SignIn);
        } else if self.capabilities.auth_login {
            self.output.extend_from_slice(b"AUTH LOGIN\r\n");
            self.expected.push_back(Expected::LoginName);
        } else {
            return Err(Fault::NoSignIn);
        }
        Ok(None)
    }

    fn login_step(&mut self, next: Expected) {
        let Some(credentials) = &self.wishes.credentials else { return };
        let text = if next == Expected::LoginPassword { &credentials.user } else { credentials.password.reveal() };
        self.output.extend_from_slice(STANDARD.encode(text).as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.expected.push_back(next);
    }

    fn outcome(&mut self, index: usize, reply: &Reply) {
        if let Some(outcome) = self.transaction.outcomes.get_mut(index) {
            *outcome = Some(reply.clone());
        }
    }

    /// One reply for everyone who has none yet, that is for everyone who was taken.
    fn common_outcome(&mut self, reply: &Reply) {
        for outcome in self.transaction.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(reply.clone());
        }
    }

    fn recipient(&mut self, index: usize, reply: Reply) {
        if reply.is_positive() {
            self.transaction.accepted.push(index);
        } else if let Some(outcome) = self.transaction.outcomes.get_mut(index) {
            // When MAIL was refused, RCPT is refused for being out of order; why, MAIL's reply says.
            *outcome = Some(self.transaction.refused.clone().unwrap_or(reply));
        }
    }

    /// All recipients have answers; what of the message?
    fn recipients_answered(&mut self) -> Option<Event> {
        let none = self.transaction.accepted.is_empty();
        if self.transaction.along {
            self.expect_outcomes();
            return None;
        }
        if !self.capabilities.chunking {
            return None; // DATA is on its way.
        }
        if none {
            self.needs_reset = true;
            return self.finished();
        }
        let bdat = format!("BDAT {} LAST\r\n", self.transaction.message_len);
        self.output.extend_from_slice(bdat.as_bytes());
        self.expect_outcomes();
        Some(Event::SendMessage(Framing::Chunk))
    }

    fn data_answered(&mut self, reply: &Reply) -> Result<Option<Event>, Fault> {
        if reply.is_positive() {
            // It must not pass for the reply to a message that was not sent.
            return Err(Fault::Malformed("DATA needs 354"));
        }
        let accepted = std::mem::take(&mut self.transaction.accepted);
        if reply.code() != 354 {
            for index in accepted {
                if let Some(outcome) = self.transaction.outcomes.get_mut(index) {
                    *outcome = Some(reply.clone());
                }
            }
            // 503 to DATA without recipients is what RFC 2033 section 4.2 wants; the transaction is still open then.
            self.needs_reset = true;
            return Ok(self.finished());
        }
        let framing = if accepted.is_empty() { Framing::Nothing } else { Framing::Dots };
        self.transaction.accepted = accepted;
        self.expect_outcomes();
        Ok(Some(Event::SendMessage(framing)))
    }

    /// One reply for each accepted recipient (RFC 2033 section 4.2), or one for all of them (RFC 5321), or one that says that there is none.
    fn expect_outcomes(&mut self) {
        let accepted = std::mem::take(&mut self.transaction.accepted);
        if accepted.is_empty() {
            self.needs_reset = true;
            self.expected.push_back(Expected::Void);
            return;
        }
        match self.dialect {
            Dialect::Lmtp => self.expected.extend(accepted.into_iter().map(Expected::Outcome)),
            Dialect::Smtp => self.expected.push_back(Expected::CommonOutcome),
        }
    }

    /// The transaction is over when nothing is expected any more.
    fn finished(&mut self) -> Option<Event> {
        if !self.expected.is_empty() || !self.waiting.is_empty() || self.transaction.outcomes.is_empty() {
            return None;
        }
        let outcomes = std::mem::take(&mut self.transaction).outcomes;
        // By the invariant none is missing; a recipient without a reply would count as not tried.
        let missing = || Reply::relayed(451, None, "no reply");
        Some(Event::Finished(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect()))
    }

    /// Sends all commands, or one, if the server wants them one by one.
    fn send_waiting(&mut self) {
        while self.capabilities.pipelining || self.expected.is_empty() {
            let Some((command, expected)) = self.waiting.pop_front() else { return };
            self.output.extend_from_slice(&command);
            self.expected.push_back(expected);
        }
    }
}

/// Keywords in the answer to EHLO or LHLO, one a line after the first.
fn announced(text: &str) -> Capabilities {
    let mut capabilities = Capabilities::default();
    for line in text.lines().skip(1) {
        let mut words = line.split_ascii_whitespace();
        match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "PIPELINING" => capabilities.pipelining = true,
            "CHUNKING" => capabilities.chunking = true,
            "SMTPUTF8" => capabilities.smtputf8 = true,
            "8BITMIME" => capabilities.eight_bit = true,
            "SIZE" => {
                capabilities.size = true;
                capabilities.size_max = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
            }
            "DSN" => capabilities.dsn = true,
            "STARTTLS" => capabilities.start_tls = true,
            "AUTH" => {
                for mechanism in words {
                    capabilities.auth_plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                    capabilities.auth_login |= mechanism.eq_ignore_ascii_case("LOGIN");
                }
            }
            _ => {}
        }
    }
    capabilities
}
