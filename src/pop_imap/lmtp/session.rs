//! LMTP server session: received octets in, replies and requests out.
//!
//! Owns: the command state, the envelope and the text being received. Called by: `lmtp::serve`, which asks the
//! directory and the store what the session wants to know ([`Step`]) and tells it. Calls: nothing that blocks; no
//! sockets, no clock. Spec: RFC 2033, RFC 5321; the parser is smtp-proto's.

use std::borrow::Cow;
use std::net::IpAddr;

use smtp_proto::{Error as ParseError, MAIL_BODY_BINARYMIME, MAIL_REQUIRETLS, MAIL_SMTPUTF8, MailFrom, Request};

use crate::base::address::{Address, Domain};
use crate::message::dot::{DotReader, Findings, Progress};
use crate::pop_imap::line::{Fault, Frame, Framer};

/// Octets of a command line with `<CR><LF>`, at most: 512 (RFC 5321 section 4.5.3.1.4) and what the extensions add.
pub const COMMAND_LEN_MAX: usize = 2048;
/// Recipients of one message, at most. RFC 5321 section 4.5.3.1.8 wants at least 100.
pub const RECIPIENTS_MAX: usize = 1000;
/// Mailboxes that the recipients of one message may lead to.
pub const TARGETS_MAX: usize = 10_000;
/// Commands in a row that were refused for their form, after which the session ends.
pub const BAD_COMMANDS_MAX: u32 = 20;

/// Digits of a size or a chunk's length.
const NUMBER_DIGITS_MAX: usize = 18;

/// Octets of mailbox ids, as the directory gives them (entryUUID).
pub type AccountId = [u8; 16];

/// What the session wants next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More input. Replies so far can be sent.
    More,
    /// Who is this address? The answer goes to [`Session::resolved`].
    Resolve(Address),
    /// Put this into the mailboxes. The answer goes to [`Session::delivered`].
    Deliver(Box<Transaction>),
    /// Send the replies and close.
    Close,
}

/// A mailbox that a recipient leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub account: AccountId,
    /// The account's primary address.
    pub address: Address,
}

/// What the directory says of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Mailboxes here, at least one.
    Targets(Vec<Target>),
    NoSuchUser,
    NotLocal,
    /// The account takes no mail.
    Suspended,
    /// An alias that leads (also) to other sites: forwarding is the smtp role's business.
    Elsewhere,
    /// The directory gave no answer.
    Unavailable,
}

/// One accepted recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub address: Address,
    pub targets: Vec<Target>,
}

/// A message with its envelope, complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What the client called itself: printable ASCII without spaces.
    pub client: String,
    /// The reverse-path; none for a notification (`MAIL FROM:<>`).
    pub sender: Option<Address>,
    /// Whether SMTPUTF8 was asked for (RFC 6531).
    pub utf8: bool,
    /// In the order of the RCPT commands; each gets its reply.
    pub recipients: Vec<Recipient>,
    /// The message, exactly as sent.
    pub text: Vec<u8>,
}

/// What became of a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// In the mailbox, durable.
    Delivered,
    /// Reply code, enhanced status code, and text for the client; the log knows more.
    Refused(u16, &'static str, &'static str),
}

impl Outcome {
    /// A fault of this machine.
    pub const FAILED: Self = Self::Refused(451, "4.3.0", "local error, try again");
}

/// What is announced and enforced.
#[derive(Debug, Clone)]
pub struct Limits {
    /// This host, in the greeting.
    pub hostname: String,
    /// Largest message in octets (RFC 1870).
    pub message_size_max: usize,
}

/// The envelope so far.
#[derive(Debug, Default)]
struct Envelope {
    sender: Option<Address>,
    utf8: bool,
    recipients: Vec<Recipient>,
}

/// Text that comes in chunks (RFC 3030).
#[derive(Debug)]
struct Chunks {
    envelope: Envelope,
    reader: DotReader,
    text: Vec<u8>,
}

/// A state holds only what is true in it.
#[derive(Debug)]
enum State {
    /// No mail transaction.
    Idle,
    /// MAIL was accepted.
    Envelope(Envelope),
    /// RCPT waits for the directory.
    Resolving(Envelope, Address),
    /// DATA: text up to the dot.
    Data(Envelope, DotReader, Vec<u8>),
    /// Between BDAT commands of a message.
    Chunks(Chunks),
    /// Within a BDAT chunk, `left` octets to come.
    Chunk { chunks: Chunks, left: usize, last: bool },
    /// Within a BDAT chunk that was refused: its octets are read all the same (RFC 3030 section 2), then the reply.
    Skip { left: usize },
    /// The store has the message; so many replies are owed.
    Delivering,
    /// After QUIT or too many faults.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    framer: Framer,
    /// What LHLO said; none before.
    client: Option<String>,
    bad_commands: u32,
    state: State,
    /// Recipients of the message that is being delivered, for the replies.
    owed: Vec<Address>,
    /// There is no room for the text in hand: it is read and thrown away.
    given_up: bool,
}

impl Session {
    /// A new session, and its greeting in `out`.
    pub fn new(limits: Limits, out: &mut Vec<u8>) -> Self {
        reply(out, 220, "", &format!("{} LMTP fife", limits.hostname));
        Self {
            limits,
            framer: Framer::new(COMMAND_LEN_MAX),
            client: None,
            bad_commands: 0,
            state: State::Idle,
            owed: Vec::new(),
            given_up: false,
        }
    }

    /// Octets of text that are held in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.state {
            State::Data(_, _, text) => text.capacity(),
            State::Chunks(chunks) | State::Chunk { chunks, .. } => chunks.text.capacity(),
            State::Idle
            | State::Envelope(_)
            | State::Resolving(..)
            | State::Skip { .. }
            | State::Delivering
            | State::Closed => 0,
        }
    }

    /// There is no room for the text in hand: read it to its end, then refuse it for the time being.
    pub fn give_up(&mut self) {
        match &mut self.state {
            State::Data(_, _, text) => *text = Vec::new(),
            State::Chunks(chunks) | State::Chunk { chunks, .. } => chunks.text = Vec::new(),
            State::Idle
            | State::Envelope(_)
            | State::Resolving(..)
            | State::Skip { .. }
            | State::Delivering
            | State::Closed => return,
        }
        self.given_up = true;
    }

    /// Whether a mail transaction is under way: a graceful stop waits for it.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        !matches!(self.state, State::Idle | State::Closed)
    }

    /// Tells the client that the service stops, between transactions.
    pub fn stop(&mut self, out: &mut Vec<u8>) {
        reply(out, 421, "4.3.2", &format!("{} is stopping, try again", self.limits.hostname));
        self.state = State::Closed;
    }

    /// Takes input; gives how many octets of it were used and what is wanted next.
    ///
    /// To be called again with the rest until it gives [`Step::More`] or [`Step::Close`].
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let (taken, step) = match std::mem::replace(&mut self.state, State::Closed) {
                State::Closed => (rest.len(), Some(Step::Close)),
                State::Data(envelope, reader, text) => self.data(envelope, reader, text, rest, out),
                State::Chunk { chunks, left, last } => self.chunk(chunks, left, last, rest, out),
                State::Skip { left } => self.skip(left, rest, out),
                // The caller owes an answer: nothing is read before it is here.
                state @ (State::Resolving(..) | State::Delivering) => {
                    self.state = state;
                    (0, Some(Step::More))
                }
                state @ (State::Idle | State::Envelope(_) | State::Chunks(_)) => {
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

    /// The directory's answer to [`Step::Resolve`].
    pub fn resolved(&mut self, resolved: Resolved, out: &mut Vec<u8>) {
        let State::Resolving(envelope, address) = &mut self.state else { return };
        let (mut envelope, address) = (std::mem::take(envelope), address.clone());
        let mailboxes: usize = envelope.recipients.iter().map(|recipient| recipient.targets.len()).sum();
        match resolved {
            Resolved::Targets(targets) if mailboxes + targets.len() > TARGETS_MAX => {
                reply(out, 452, "4.5.3", "too many mailboxes for one message");
            }
            Resolved::Targets(targets) => {
                reply(out, 250, "2.1.5", &format!("<{address}> is here"));
                envelope.recipients.push(Recipient { address, targets });
            }
            Resolved::NoSuchUser => reply(out, 550, "5.1.1", &format!("<{address}> does not exist")),
            Resolved::NotLocal => reply(out, 550, "5.1.2", &format!("<{address}> is not of this site")),
            Resolved::Suspended => reply(out, 550, "5.2.1", &format!("<{address}> takes no mail")),
            Resolved::Elsewhere => reply(out, 550, "5.1.1", &format!("<{address}> has no mailbox here")),
            Resolved::Unavailable => reply(out, 451, "4.3.0", "directory is away, try again"),
        }
        self.state = State::Envelope(envelope);
    }

    /// The store's answer to [`Step::Deliver`]: one outcome a recipient, in their order, and the message's id.
    ///
    /// A recipient without an outcome counts as failed: nothing is acknowledged that nobody vouched for.
    pub fn delivered(&mut self, outcomes: &[Outcome], id: &str, out: &mut Vec<u8>) {
        for (nth, address) in std::mem::take(&mut self.owed).into_iter().enumerate() {
            match outcomes.get(nth) {
                // RFC 2033 section 4.2: one reply for each RCPT that was accepted.
                Some(Outcome::Delivered) => reply(out, 250, "2.0.0", &format!("<{address}> delivered as {id}")),
                Some(Outcome::Refused(code, status, text)) => {
                    reply(out, *code, status, &format!("<{address}> {text}"));
                }
                None => reply(out, 451, "4.3.0", &format!("<{address}> local error, try again")),
            }
        }
        self.state = State::Idle;
    }

    /// Takes one command line, if it is whole.
    fn line(&mut self, rest: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let (used, frame) = self.framer.next(rest);
        let step = match frame {
            Frame::More => Some(Step::More),
            Frame::Line(line) if has_endless_number(line) => {
                reply(out, 501, "5.5.4", "number out of range");
                // The octets of a chunk follow, and nobody knows how many.
                self.state = State::Closed;
                Some(Step::Close)
            }
            Frame::Line(line) => match Request::parse(&mut line.iter()) {
                Ok(request) => {
                    self.bad_commands = 0;
                    self.command(request, out)
                }
                Err(error) => self.bad(&fault(&error), out),
            },
            Frame::Bad(Fault::TooLong) => self.bad(&Refusal(500, "5.5.2", "line too long".into()), out),
            Frame::Bad(Fault::Octets) => {
                self.bad(&Refusal(500, "5.5.2", "lines end with CR LF; no CR, LF or NUL within".into()), out)
            }
        };
        (used, step)
    }

    /// Refuses a command for its form; too many in a row end the session.
    fn bad(&mut self, refusal: &Refusal, out: &mut Vec<u8>) -> Option<Step> {
        self.bad_commands += 1;
        if self.bad_commands < BAD_COMMANDS_MAX {
            refusal.write(out);
            return None;
        }
        reply(out, 421, "4.7.0", "too many errors");
        self.state = State::Closed;
        Some(Step::Close)
    }

    /// One row per command.
    fn command(&mut self, request: Request<Cow<'_, str>>, out: &mut Vec<u8>) -> Option<Step> {
        match request {
            Request::Lhlo { host } => self.lhlo(&host, out),
            Request::Mail { from } => self.mail(&from, out),
            Request::Rcpt { to } => return self.rcpt(&to.address, out),
            Request::Data => self.begin_data(out),
            Request::Bdat { chunk_size, is_last } => self.begin_chunk(chunk_size, is_last),
            Request::Rset => {
                self.state = State::Idle;
                reply(out, 250, "2.0.0", "forgotten");
            }
            Request::Noop { .. } => reply(out, 250, "2.0.0", "ok"),
            // RFC 5321 section 3.5.3: we do not say who is here before RCPT.
            Request::Vrfy { .. } => reply(out, 252, "2.5.1", "try RCPT"),
            Request::Help { .. } => reply(out, 214, "2.0.0", "RFC 2033"),
            Request::Quit => {
                reply(out, 221, "2.0.0", "bye");
                self.state = State::Closed;
                return Some(Step::Close);
            }
            // RFC 2033 section 4.1: HELO and EHLO must not get a positive reply.
            Request::Ehlo { .. } | Request::Helo { .. } => reply(out, 500, "5.5.1", "this is LMTP: say LHLO"),
            Request::Auth { .. }
            | Request::StartTls
            | Request::Expn { .. }
            | Request::Etrn { .. }
            | Request::Atrn { .. }
            | Request::Burl { .. } => {
                return self.bad(&Refusal(502, "5.5.1", "not offered".into()), out);
            }
        }
        None
    }

    fn lhlo(&mut self, host: &str, out: &mut Vec<u8>) {
        if !is_client_name(host) {
            return reply(out, 501, "5.5.4", "LHLO wants a domain or an address literal");
        }
        self.client = Some(host.to_owned());
        // RFC 5321 section 4.1.4: a new greeting forgets the transaction.
        self.state = State::Idle;
        let Limits { hostname, message_size_max } = &self.limits;
        let lines = [
            hostname.as_str(),
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            &format!("SIZE {message_size_max}"),
        ];
        for (nth, line) in lines.iter().enumerate() {
            let dash = if nth + 1 < lines.len() { '-' } else { ' ' };
            out.extend_from_slice(format!("250{dash}{line}\r\n").as_bytes());
        }
    }

    fn mail(&mut self, from: &MailFrom<Cow<'_, str>>, out: &mut Vec<u8>) {
        match self.check_mail(from) {
            Ok(envelope) => {
                self.state = State::Envelope(envelope);
                self.given_up = false;
                reply(out, 250, "2.1.0", "sender ok");
            }
            Err(refusal) => refusal.write(out),
        }
    }

    fn check_mail(&self, from: &MailFrom<Cow<'_, str>>) -> Result<Envelope, Refusal> {
        if self.client.is_none() {
            return Err(Refusal(503, "5.5.1", "say LHLO first".into()));
        }
        if !matches!(self.state, State::Idle) {
            return Err(Refusal(503, "5.5.1", "a transaction is under way".into()));
        }
        if from.flags & MAIL_BODY_BINARYMIME != 0 {
            return Err(Refusal(501, "5.5.4", "BINARYMIME is not offered".into()));
        }
        if from.flags & MAIL_REQUIRETLS != 0 {
            return Err(Refusal(501, "5.5.4", "REQUIRETLS is not offered".into()));
        }
        if from.size > self.limits.message_size_max {
            return Err(self.too_big());
        }
        let utf8 = from.flags & MAIL_SMTPUTF8 != 0;
        let sender = match from.address.as_ref() {
            "" => None,
            text => Some(address(text, utf8)?),
        };
        Ok(Envelope { sender, utf8, recipients: Vec::new() })
    }

    fn rcpt(&mut self, text: &str, out: &mut Vec<u8>) -> Option<Step> {
        let State::Envelope(envelope) = &mut self.state else {
            reply(out, 503, "5.5.1", "say MAIL first");
            return None;
        };
        let envelope = std::mem::take(envelope);
        let checked = if envelope.recipients.len() >= RECIPIENTS_MAX {
            // RFC 5321 section 4.5.3.1.10: temporary, the client sends the rest in another transaction.
            Err(Refusal(452, "4.5.3", "too many recipients".into()))
        } else {
            address(text, envelope.utf8)
        };
        match checked {
            Ok(address) => {
                self.state = State::Resolving(envelope, address.clone());
                Some(Step::Resolve(address))
            }
            Err(refusal) => {
                self.state = State::Envelope(envelope);
                refusal.write(out);
                None
            }
        }
    }

    fn begin_data(&mut self, out: &mut Vec<u8>) {
        if let State::Envelope(envelope) = &mut self.state
            && !envelope.recipients.is_empty()
        {
            reply(out, 354, "", "text, then a dot on a line");
            let reader = DotReader::new(self.limits.message_size_max);
            self.state = State::Data(std::mem::take(envelope), reader, Vec::new());
        } else {
            // RFC 2033 section 4.2: without a recipient 503, and no text follows.
            // RFC 3030 section 2: nor may DATA come after BDAT.
            reply(out, 503, "5.5.1", "no recipients");
        }
    }

    fn begin_chunk(&mut self, left: usize, last: bool) {
        let reader = DotReader::unstuffed(self.limits.message_size_max);
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Envelope(envelope) if !envelope.recipients.is_empty() => {
                State::Chunk { chunks: Chunks { envelope, reader, text: Vec::new() }, left, last }
            }
            State::Chunks(chunks) => State::Chunk { chunks, left, last },
            // RFC 3030 section 2: the octets follow whatever we say. A refused chunk ends the transaction, so that a
            // later one is not taken for a message's beginning.
            State::Idle
            | State::Envelope(_)
            | State::Resolving(..)
            | State::Data(..)
            | State::Chunk { .. }
            | State::Skip { .. }
            | State::Delivering
            | State::Closed => State::Skip { left },
        };
    }

    /// Text after DATA.
    fn data(
        &mut self,
        envelope: Envelope,
        mut reader: DotReader,
        mut text: Vec<u8>,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> (usize, Option<Step>) {
        match reader.receive(rest, &mut text) {
            Progress::More => {
                self.forget_useless(&reader, &mut text);
                self.state = State::Data(envelope, reader, text);
                (rest.len(), Some(Step::More))
            }
            Progress::Done { used } => (used, self.complete(envelope, reader.findings(), text, out)),
        }
    }

    /// Octets of a chunk.
    fn chunk(
        &mut self,
        mut chunks: Chunks,
        left: usize,
        last: bool,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> (usize, Option<Step>) {
        let taken = left.min(rest.len());
        chunks.reader.receive(rest.get(..taken).unwrap_or_default(), &mut chunks.text);
        self.forget_useless(&chunks.reader, &mut chunks.text);
        if taken < left {
            self.state = State::Chunk { chunks, left: left - taken, last };
            return (taken, Some(Step::More));
        }
        if last {
            let findings = chunks.reader.findings();
            return (taken, self.complete(chunks.envelope, findings, chunks.text, out));
        }
        reply(out, 250, "2.0.0", &format!("{} octets", chunks.reader.size()));
        self.state = State::Chunks(chunks);
        (taken, None)
    }

    /// Octets of a refused chunk.
    fn skip(&mut self, left: usize, rest: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let taken = left.min(rest.len());
        if taken < left {
            self.state = State::Skip { left: left - taken };
            return (taken, Some(Step::More));
        }
        self.state = State::Idle;
        let refusal = Refusal(503, "5.5.1", "no recipients".into());
        (taken, self.bad(&refusal, out))
    }

    /// The message has ended: deliver it, or refuse it to each recipient.
    fn complete(&mut self, envelope: Envelope, findings: Findings, text: Vec<u8>, out: &mut Vec<u8>) -> Option<Step> {
        let refusal = if findings.too_big {
            Some(self.too_big())
        } else if self.given_up {
            Some(Refusal(452, "4.3.1", "too much mail at once, try again".into()))
        } else if findings.is_ambiguous() {
            Some(Refusal(550, "5.6.0", "text has a CR or LF that stands alone, or a NUL".into()))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            // RFC 2033 section 4.2: each accepted recipient gets a reply, refusals too.
            envelope.recipients.iter().for_each(|_| refusal.write(out));
            self.state = State::Idle;
            return None;
        }
        self.owed = envelope.recipients.iter().map(|recipient| recipient.address.clone()).collect();
        self.state = State::Delivering;
        Some(Step::Deliver(Box::new(Transaction {
            client: self.client.clone().unwrap_or_default(),
            sender: envelope.sender,
            utf8: envelope.utf8,
            recipients: envelope.recipients,
            text,
        })))
    }

    /// A message that will be refused need not be kept.
    fn forget_useless(&self, reader: &DotReader, text: &mut Vec<u8>) {
        if self.given_up || reader.findings().too_big {
            *text = Vec::new();
        }
    }

    fn too_big(&self) -> Refusal {
        Refusal(552, "5.3.4", format!("larger than {} octets", self.limits.message_size_max))
    }
}

/// A negative reply: code, enhanced status code (RFC 3463), text.
#[derive(Debug)]
struct Refusal(u16, &'static str, String);

impl Refusal {
    fn write(&self, out: &mut Vec<u8>) {
        reply(out, self.0, self.1, &self.2);
    }
}

/// Appends a reply of one line. `text` is ours or parsed: it has no line end.
fn reply(out: &mut Vec<u8>, code: u16, status: &str, text: &str) {
    let space = if status.is_empty() { "" } else { " " };
    out.extend_from_slice(format!("{code} {status}{space}{text}\r\n").as_bytes());
}

/// smtp-proto 0.2.5 begins anew when a number grows beyond 64 bits: a chunk would be read as shorter than the client means it, and its
/// rest as commands; a message announced as endless would be let begin. RFC 1870 section 6.1 allows 20 digits; no size needs more than 18.
fn has_endless_number(line: &[u8]) -> bool {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let endless = |word: &[u8]| word.iter().filter(|byte| byte.is_ascii_digit()).count() > NUMBER_DIGITS_MAX;
    match words.next() {
        Some(verb) if verb.eq_ignore_ascii_case(b"BDAT") => words.any(endless),
        Some(verb) if verb.eq_ignore_ascii_case(b"MAIL") => {
            let of_size = |word: &&[u8]| word.get(..5).is_some_and(|key| key.eq_ignore_ascii_case(b"SIZE="));
            words.filter(of_size).any(endless)
        }
        Some(_) | None => false,
    }
}

/// What the parser did not like, in the client's words.
fn fault(error: &ParseError) -> Refusal {
    match error {
        ParseError::UnknownCommand | ParseError::NeedsMoreData { .. } => {
            Refusal(500, "5.5.1", "no such command".into())
        }
        ParseError::InvalidSenderAddress => Refusal(501, "5.1.7", "not a reverse-path".into()),
        ParseError::InvalidRecipientAddress => Refusal(501, "5.1.3", "not an address".into()),
        ParseError::SyntaxError { syntax } => Refusal(501, "5.5.4", format!("expected: {syntax}")),
        ParseError::InvalidParameter { param } => Refusal(501, "5.5.4", format!("bad value of {param}")),
        // RFC 5321 section 4.1.1.11.
        ParseError::UnsupportedParameter { .. } => Refusal(555, "5.5.4", "no such parameter".into()),
        ParseError::ResponseTooLong | ParseError::InvalidResponse { .. } => {
            Refusal(500, "5.5.2", "line too long".into())
        }
    }
}

/// An address from the parser, which has taken the quotes away.
fn address(text: &str, utf8: bool) -> Result<Address, Refusal> {
    let parsed = text.parse().or_else(|error| match text.rsplit_once('@') {
        Some((local, domain)) => {
            let quoted = local.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{quoted}\"@{domain}").parse::<Address>()
        }
        None => Err(error),
    });
    let address = parsed.map_err(|error| Refusal(553, "5.1.3", error.to_string()))?;
    if !utf8 && !address.is_ascii() {
        // RFC 6531 section 3.5: without SMTPUTF8 such an address must not be taken.
        return Err(Refusal(553, "5.6.7", "the address needs SMTPUTF8".into()));
    }
    Ok(address)
}

/// A domain or an address literal (RFC 5321 section 4.1.3): it goes into a trace header.
fn is_client_name(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match literal {
        Some(literal) => {
            let ip = literal.strip_prefix("IPv6:").unwrap_or(literal);
            ip.parse::<IpAddr>().is_ok()
        }
        None => host.is_ascii() && host.trim_end_matches('.').parse::<Domain>().is_ok(),
    }
}
