//! Replies: code, enhanced status code, text.
//!
//! Owns: `Reply` and the wording of those that several rooms give. Called by: every room of the role.
//! Never: carries what a client must not read (paths, host names of other servers, addresses of others).
//! Spec: RFC 5321 section 4.2 (replies), RFC 2034 and RFC 3463 (enhanced status codes).

use std::borrow::Cow;
use std::fmt;

/// One reply of the server. The first digit of the code says it all: 2 done, 3 go on, 4 not now, 5 never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    /// Class, subject and detail (RFC 3463); none in greetings and in answers to EHLO, HELO and AUTH challenges
    /// (RFC 2034 section 4).
    enhanced: Option<[u16; 3]>,
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced status code, the class of which follows from the code: `Reply::new(550, 1, 1, "…")` is `550 5.1.1 …`.
    #[must_use]
    pub const fn new(code: u16, subject: u16, detail: u16, text: &'static str) -> Self {
        Self { code, enhanced: Some([code / 100, subject, detail]), text: Cow::Borrowed(text) }
    }

    /// A reply without enhanced status code.
    #[must_use]
    pub const fn plain(code: u16, text: &'static str) -> Self {
        Self { code, enhanced: None, text: Cow::Borrowed(text) }
    }

    /// The reply that another server gave, cut to printable ASCII of at most 400 octets in one line.
    #[must_use]
    pub fn relayed(code: u16, enhanced: Option<[u16; 3]>, text: &str) -> Self {
        let printable = |c: char| if c.is_ascii_graphic() { c } else { ' ' };
        Self { code, enhanced, text: text.trim().chars().take(400).map(printable).collect::<String>().into() }
    }

    /// The same reply with other words, which are the server's own.
    #[must_use]
    pub fn with_text(self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), ..self }
    }

    /// The three digits.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Class, subject, detail.
    #[must_use]
    pub fn enhanced(&self) -> Option<[u16; 3]> {
        self.enhanced
    }

    /// The words.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 2yz: what was asked is done.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 5yz: the same will fail again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Whether the other side has no room (RFC 3463: X.3.1, mail system full), as opposed to one mailbox over its quota (X.2.2).
    #[must_use]
    pub fn is_system_full(&self) -> bool {
        self.code == 452 && matches!(self.enhanced, Some([_, 3, 1]))
    }

    /// `5.1.1`; made from the code when the reply has none.
    #[must_use]
    pub fn status(&self) -> String {
        let [class, subject, detail] = self.enhanced.unwrap_or([self.code / 100, 0, 0]);
        format!("{class}.{subject}.{detail}")
    }

    /// Appends the reply as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Every text is one line: `new` and `plain` take our own words, `relayed` cuts.
        out.extend_from_slice(self.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some([class, subject, detail]) => {
                write!(f, "{} {class}.{subject}.{detail} {}", self.code, self.text)
            }
            None => write!(f, "{} {}", self.code, self.text),
        }
    }
}

pub const OK: Reply = Reply::new(250, 0, 0, "ok");
pub const SENDER_OK: Reply = Reply::new(250, 1, 0, "sender ok");
pub const RECIPIENT_OK: Reply = Reply::new(250, 1, 5, "recipient ok");
pub const SIGNED_IN: Reply = Reply::new(235, 7, 0, "signed in");
pub const TLS_READY: Reply = Reply::new(220, 0, 0, "ready to start TLS");
pub const GOODBYE: Reply = Reply::new(221, 0, 0, "goodbye");
pub const SEND_MESSAGE: Reply = Reply::plain(354, "send the message, end with <CRLF>.<CRLF>");

pub const BUSY: Reply = Reply::new(421, 4, 5, "too many connections, try again later");
pub const STOPPING: Reply = Reply::new(421, 3, 2, "server is stopping");
pub const TOO_SLOW: Reply = Reply::new(421, 4, 2, "too slow, closing");
pub const TOO_MANY_ERRORS: Reply = Reply::new(421, 7, 0, "too many errors, closing");
pub const TOO_MANY_IDLE_COMMANDS: Reply = Reply::new(421, 7, 0, "too many commands without a message, closing");

pub const LINE_TOO_LONG: Reply = Reply::new(500, 5, 2, "line too long");
pub const LINE_END: Reply =
    Reply::new(500, 5, 2, "a line ends with <CR><LF>, and has neither of them nor NUL elsewhere");
pub const NOT_TEXT: Reply = Reply::new(500, 5, 2, "not UTF-8");
pub const UNKNOWN_COMMAND: Reply = Reply::new(500, 5, 2, "command not known");
pub const NOT_IMPLEMENTED: Reply = Reply::new(502, 5, 1, "command not implemented");
pub const NO_ARGUMENT: Reply = Reply::new(501, 5, 4, "this command has no argument");
pub const SYNTAX: Reply = Reply::new(501, 5, 4, "syntax error");
pub const UNSUPPORTED_PARAMETER: Reply = Reply::new(555, 5, 4, "parameter not supported");
pub const GREET_FIRST: Reply = Reply::new(503, 5, 1, "EHLO first");
pub const MAIL_FIRST: Reply = Reply::new(503, 5, 1, "MAIL first");
pub const RCPT_FIRST: Reply = Reply::new(503, 5, 1, "RCPT first");
pub const NO_RECIPIENTS: Reply = Reply::new(554, 5, 1, "no valid recipients");
pub const NESTED_MAIL: Reply = Reply::new(503, 5, 1, "a message is in hand; RSET first");
pub const CHUNKS_IN_HAND: Reply = Reply::new(503, 5, 1, "chunks are in hand; BDAT, RSET or QUIT");

pub const BAD_SENDER: Reply = Reply::new(501, 1, 7, "not a sender address");
pub const BAD_RECIPIENT: Reply = Reply::new(501, 1, 3, "not a recipient address");
pub const SENDER_NEEDS_SMTPUTF8: Reply = Reply::new(550, 6, 7, "an address that is not ASCII needs SMTPUTF8");
pub const RECIPIENT_NEEDS_SMTPUTF8: Reply = Reply::new(553, 6, 7, "an address that is not ASCII needs SMTPUTF8");
pub const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, 5, 3, "too many recipients");
pub const NO_SUCH_USER: Reply = Reply::new(550, 1, 1, "no such user here");
pub const MAILBOX_DISABLED: Reply = Reply::new(550, 2, 1, "mailbox disabled");
pub const RELAY_DENIED: Reply = Reply::new(550, 7, 1, "relaying denied");
pub const DMARC_REFUSED: Reply = Reply::new(550, 7, 1, "refused as the DMARC policy of the author's domain asks");
pub const TOO_MANY_AUTHORS: Reply = Reply::new(550, 7, 1, "authors of too many domains in From");
pub const POLICY_UNKNOWN: Reply =
    Reply::new(451, 4, 3, "the policy of the author's domain cannot be learned, try again later");
pub const NOT_OWN_ADDRESS: Reply = Reply::new(553, 7, 1, "not an address of the signed-in user");
pub const DIRECTORY_AWAY: Reply = Reply::new(451, 3, 0, "user directory not reachable, try again later");
pub const NO_ROOM: Reply = Reply::new(452, 3, 1, "no room on this system, try again later");
pub const NO_MEMORY: Reply = Reply::new(452, 3, 1, "too many messages on the way, try again later");
pub const LOCAL_ERROR: Reply = Reply::new(451, 3, 0, "local error, try again later");
pub const OUTCOME_UNKNOWN: Reply = Reply::new(451, 4, 2, "delivery broke off, try again later");

pub const TOO_BIG: Reply = Reply::new(552, 3, 4, "message too big");
pub const BARE_LINE_END: Reply = Reply::new(550, 6, 0, "message has <CR> or <LF> that is not part of <CR><LF>");
pub const NUL_IN_MESSAGE: Reply = Reply::new(550, 6, 0, "message has NUL");
pub const BINARY: Reply = Reply::new(555, 6, 3, "BINARYMIME not supported");
pub const LOOP: Reply = Reply::new(554, 4, 6, "too many hops: the message is looping");

pub const NO_AUTH_HERE: Reply = Reply::new(503, 5, 1, "no AUTH here; users send on the submission port");
pub const AUTH_NEEDS_TLS: Reply = Reply::new(538, 7, 11, "encryption required for AUTH");
pub const AUTH_FIRST: Reply = Reply::new(530, 7, 0, "authentication required");
pub const AUTH_ALREADY: Reply = Reply::new(503, 5, 1, "signed in already");
pub const AUTH_MECHANISM: Reply = Reply::new(504, 5, 4, "mechanism not supported; PLAIN and LOGIN are");
pub const AUTH_CANCELLED: Reply = Reply::new(501, 7, 0, "authentication cancelled");
pub const AUTH_MALFORMED: Reply = Reply::new(501, 5, 2, "not what the mechanism sends");
pub const AUTH_REFUSED: Reply = Reply::new(535, 7, 8, "user or password wrong");
pub const AUTH_AWAY: Reply = Reply::new(454, 7, 0, "cannot check passwords now, try again later");
pub const AUTH_LATER: Reply = Reply::new(454, 7, 0, "too many failed sign-ins lately, try again later");
pub const AUTH_TOO_OFTEN: Reply = Reply::new(421, 7, 0, "too many failed sign-ins, closing");
pub const AUTH_IN_TRANSACTION: Reply = Reply::new(503, 5, 1, "not within a message");

pub const NO_TLS_HERE: Reply = Reply::new(502, 5, 1, "STARTTLS not offered");
pub const TLS_ALREADY: Reply = Reply::new(503, 5, 1, "TLS runs already");
pub const TLS_INJECTION: Reply = Reply::new(554, 5, 0, "nothing may follow STARTTLS before TLS runs, closing");

pub const VRFY: Reply = Reply::new(252, 5, 0, "try RCPT");
pub const HELP: Reply = Reply::new(214, 0, 0, "RFC 5321; postmaster helps");
