//! LMTP client session: what to send, and what the replies mean.
//!
//! Owns: the state of one connection. Called by: `lmtp::pool`. Never: opens a socket, reads the clock.
//! Spec: RFC 2033, RFC 5321 (all that RFC 2033 does not change), RFC 2920, RFC 3030, RFC 6531.
//!
//! Where the server lets us (PIPELINING and CHUNKING), the whole transaction is one write: MAIL, RCPT, BDAT and the message. On a
//! connection that was silent for a while the message is held back until the recipients are answered: as long as it was not sent,
//! a lost connection leaves no doubt about who has it.

use std::collections::VecDeque;

use smtp_proto::Error as ParseError;
use smtp_proto::response::parser::ResponseReceiver;

use crate::base::address::Address;
use crate::smtp::reply::Reply;

/// Octets of a reply, in all its lines, at most. (Octets of replies before it that came in the same read count too: they are few.)
const UNFINISHED_LEN_MAX: usize = 64 * 1024;

/// What LHLO announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub pipelining: bool,
    pub chunking: bool,
    pub smtputf8: bool,
    pub eight_bit: bool,
    /// RFC 1870.
    pub size: bool,
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
    /// The server greeted and answered LHLO: `begin` may be called.
    Ready,
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
    #[error("greeting or LHLO refused: {0}")]
    Refused(Reply),
}

/// A reply that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Greeting,
    Hello,
    Reset,
    Mail,
    Recipient(usize),
    Data,
    /// After the message, for this recipient (RFC 2033 section 4.2).
    Outcome(usize),
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
    hostname: String,
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
    /// A connection that was just opened. `hostname` is by what we greet.
    #[must_use]
    pub fn new(hostname: String) -> Self {
        Self {
            hostname,
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

    /// Begins a message. At least one recipient. True: the message is to be sent right after the output, as a chunk; only when `eager`.
    pub fn begin(
        &mut self,
        reverse_path: Option<&Address>,
        recipients: &[&Address],
        message_len: usize,
        eager: bool,
    ) -> bool {
        self.transaction =
            Transaction { outcomes: vec![None; recipients.len()], message_len, ..Transaction::default() };
        if std::mem::take(&mut self.needs_reset) {
            self.waiting.push_back((b"RSET\r\n".to_vec(), Expected::Reset));
        }
        let unicode =
            [reverse_path].into_iter().flatten().chain(recipients.iter().copied()).any(|path| !path.is_ascii());
        self.waiting.push_back((self.mail(reverse_path, message_len, unicode), Expected::Mail));
        for (index, recipient) in recipients.iter().enumerate() {
            let command = format!("RCPT TO:<{recipient}>\r\n").into_bytes();
            self.waiting.push_back((command, Expected::Recipient(index)));
        }
        let eager = eager && self.capabilities.pipelining && self.capabilities.chunking;
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

    fn mail(&self, reverse_path: Option<&Address>, message_len: usize, unicode: bool) -> Vec<u8> {
        let path = reverse_path.map(ToString::to_string).unwrap_or_default();
        let size = if self.capabilities.size { format!(" SIZE={message_len}") } else { String::new() };
        let body = if self.capabilities.eight_bit { " BODY=8BITMIME" } else { "" };
        // A server that does not announce it refuses the address or takes it; a parameter that it does not know it refuses surely.
        let utf8 = if self.capabilities.smtputf8 && unicode { " SMTPUTF8" } else { "" };
        format!("MAIL FROM:<{path}>{size}{body}{utf8}\r\n").into_bytes()
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
                if let Expected::Outcome(index) = expected
                    && let Some(outcome) = self.transaction.outcomes.get_mut(index)
                {
                    *outcome = Some(reply.clone());
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
            Expected::Greeting if reply.is_positive() => {
                self.output.extend_from_slice(format!("LHLO {}\r\n", self.hostname).as_bytes());
                self.expected.push_back(Expected::Hello);
            }
            Expected::Hello if reply.is_positive() => return Ok(Some(Event::Ready)),
            Expected::Greeting | Expected::Hello => return Err(Fault::Refused(reply)),
            Expected::Reset | Expected::Void => {}
            Expected::Mail if reply.is_positive() => {}
            Expected::Mail => self.transaction.refused = Some(reply),
            Expected::Recipient(index) => {
                self.recipient(index, reply);
                if index + 1 == self.transaction.outcomes.len() {
                    return Ok(self.recipients_answered());
                }
            }
            Expected::Data => return Ok(self.data_answered(&reply)),
            Expected::Outcome(index) => {
                if let Some(outcome) = self.transaction.outcomes.get_mut(index) {
                    *outcome = Some(reply);
                }
            }
        }
        Ok(self.finished())
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

    fn data_answered(&mut self, reply: &Reply) -> Option<Event> {
        let accepted = std::mem::take(&mut self.transaction.accepted);
        if reply.code() != 354 {
            for index in accepted {
                if let Some(outcome) = self.transaction.outcomes.get_mut(index) {
                    *outcome = Some(reply.clone());
                }
            }
            // 503 to DATA without recipients is what RFC 2033 section 4.2 wants; the transaction is still open then.
            self.needs_reset = true;
            return self.finished();
        }
        let framing = if accepted.is_empty() { Framing::Nothing } else { Framing::Dots };
        self.transaction.accepted = accepted;
        self.expect_outcomes();
        Some(Event::SendMessage(framing))
    }

    /// One reply for each accepted recipient (RFC 2033 section 4.2), or one that says that there is none.
    fn expect_outcomes(&mut self) {
        let accepted = std::mem::take(&mut self.transaction.accepted);
        if accepted.is_empty() {
            self.needs_reset = true;
            self.expected.push_back(Expected::Void);
        }
        self.expected.extend(accepted.into_iter().map(Expected::Outcome));
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

/// Keywords in the answer to LHLO, one a line after the first.
fn announced(text: &str) -> Capabilities {
    let mut capabilities = Capabilities::default();
    for line in text.lines().skip(1) {
        match line.split_ascii_whitespace().next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "PIPELINING" => capabilities.pipelining = true,
            "CHUNKING" => capabilities.chunking = true,
            "SMTPUTF8" => capabilities.smtputf8 = true,
            "8BITMIME" => capabilities.eight_bit = true,
            "SIZE" => capabilities.size = true,
            _ => {}
        }
    }
    capabilities
}
