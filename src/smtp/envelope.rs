//! The envelope: from whom, to whom, under which id.
//!
//! Owns: `Envelope`, `Recipient`, `Message`, `Origin`. Called by: the session (builds it), delivery and the queue (carry it).
//! Never: holds header fields; those are in the message.
//! Spec: RFC 5321 section 2.3.1 (mail objects).

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::address::Address;
use crate::base::id::Id;
use crate::directory::Account;

/// By which way a recipient is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A mailbox of this site, by LMTP.
    #[default]
    Mailbox,
    /// Another site, by SMTP.
    Elsewhere,
}

/// Of what the sender wants to be told (RFC 3461 section 4.1). Nothing said: of failure, and of delay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notify(u8);

impl Notify {
    pub const SUCCESS: Self = Self(1);
    pub const FAILURE: Self = Self(2);
    pub const DELAY: Self = Self(4);
    pub const NEVER: Self = Self(8);

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the client said anything.
    #[must_use]
    pub fn is_said(self) -> bool {
        self != Self::default()
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Tell of success, which nobody is told who did not ask.
    #[must_use]
    pub fn success(self) -> bool {
        self.has(Self::SUCCESS)
    }

    /// Tell of failure.
    #[must_use]
    pub fn failure(self) -> bool {
        !self.is_said() || self.has(Self::FAILURE)
    }

    /// Tell of delay.
    #[must_use]
    pub fn delay(self) -> bool {
        !self.is_said() || self.has(Self::DELAY)
    }

    /// As it stands behind `NOTIFY=`.
    #[must_use]
    pub fn value(self) -> String {
        let names =
            [(Self::NEVER, "NEVER"), (Self::SUCCESS, "SUCCESS"), (Self::FAILURE, "FAILURE"), (Self::DELAY, "DELAY")];
        names.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect::<Vec<_>>().join(",")
    }
}

/// How much of the message a failure report returns (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Return {
    Full,
    Header,
}

/// What the sender said about reports, for the whole message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports {
    /// RET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Return>,
    /// ENVID, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_id: Option<String>,
}

/// One address that the message goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipient {
    /// As the sender gave it: what a bounce names.
    pub given: Arc<Address>,
    /// After aliases: the account's own address, which is said to LMTP, or the address at another site.
    pub mailbox: Address,
    #[serde(default, skip_serializing_if = "is_default")]
    pub way: Way,
    #[serde(default, skip_serializing_if = "is_default")]
    pub notify: Notify,
    /// ORCPT, decoded: type and address as in `rfc822;a@example.test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Arc<str>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Recipient {
    /// A recipient about whose reports nothing was said.
    #[must_use]
    pub fn new(given: Arc<Address>, mailbox: Address, way: Way) -> Self {
        Self { given, mailbox, way, notify: Notify::default(), original: None }
    }
}

/// From whom, to whom.
///
/// Invariant: no address is in `recipients` twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub id: Id,
    /// None: the null reverse-path; nothing ever bounces to it (RFC 5321 section 4.5.5).
    pub reverse_path: Option<Address>,
    pub recipients: Vec<Recipient>,
    /// The message may need SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    pub reports: Reports,
}

/// For whom a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// Port 25: mail from other servers, for our own domains only, no AUTH.
    Mx,
    /// Ports 587 and 465: mail from users, who sign in first.
    Submission,
}

/// Where a message came from: what is known of the session that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Another server, or a user.
    pub personality: Personality,
    /// None: a unix socket.
    pub client: Option<IpAddr>,
    /// The name that the client gave in EHLO or HELO, as it gave it: nothing is known of it.
    pub helo: String,
    /// Version and cipher suite, when TLS ran.
    pub tls: Option<String>,
    /// The account that signed in.
    pub account: Option<Arc<Account>>,
}

/// A whole message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub envelope: Envelope,
    /// Header lines that this server puts before the content; whole lines.
    pub trace: Bytes,
    /// The message as it came, ending with `<CR><LF>`.
    pub content: Bytes,
}

impl Message {
    /// Whether there is an octet beyond ASCII in it.
    #[must_use]
    pub fn is_eight_bit(&self) -> bool {
        !self.trace.is_ascii() || !self.content.is_ascii()
    }

    /// Octets of trace and content.
    #[must_use]
    pub fn size(&self) -> usize {
        self.trace.len() + self.content.len()
    }
}
