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

use super::session::Personality;

/// One mailbox that the message goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipient {
    /// As the sender gave it: what a bounce names.
    pub given: Arc<Address>,
    /// The account's own address, after aliases: what is said to LMTP.
    pub mailbox: Address,
}

/// From whom, to whom.
///
/// Invariant: no mailbox is in `recipients` twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub id: Id,
    /// None: the null reverse-path; nothing ever bounces to it (RFC 5321 section 4.5.5).
    pub reverse_path: Option<Address>,
    pub recipients: Vec<Recipient>,
    /// The message may need SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
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
    /// Octets of trace and content.
    #[must_use]
    pub fn size(&self) -> usize {
        self.trace.len() + self.content.len()
    }
}
