//! Messages on their way in: what LMTP delivers, what IMAP appends.
//!
//! Owns: `Delivery` and what is answered to it, the bounds of a message. Called by: LMTP, IMAP. Never: decides where a
//! message goes (see `decide`).

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::decide::{Incoming, Request};
use super::{AccountId, DeliveryKey, Flag, MailboxId, MessageId, Outcome, Store, StoreError, record, writer};
use crate::ledger::Ledger;
use crate::message::structure::Structure;

/// Recipients of one delivery.
pub const DELIVERIES_MAX: usize = 1_000;
/// Octets of one message: it has to fit in a segment of the ledger.
pub const MESSAGE_LEN_MAX: usize = 200 << 20;
/// Octets of the trace of one recipient.
pub const TRACE_LEN_MAX: usize = 64 << 10;
/// Messages larger than this are taken apart and compressed on a thread for blocking work.
const PARSE_INLINE_LEN_MAX: usize = 128 << 10;

/// One recipient of a message.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub account: AccountId,
    /// Where it goes; when that does not exist (any more), to INBOX.
    pub mailbox: String,
    /// Header fields for this recipient, each with its CRLF; they are put before the message.
    pub trace: Bytes,
    pub flags: Vec<Flag>,
    /// Known again when the delivery comes again; none: it is always a new one.
    pub key: Option<DeliveryKey>,
}

/// Where a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    pub mailbox: MailboxId,
    pub uid_validity: u32,
    pub uid: u32,
}

/// Where an appended message went (APPENDUID, RFC 4315 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub uid_validity: u32,
    pub uid: u32,
}

impl Store {
    /// Takes a message apart and makes its record ready: on the deliverer's thread, as the writer's is everyone's.
    async fn incoming(&self, message: Bytes, internal_date: i64) -> Result<Incoming, StoreError> {
        if message.len() > MESSAGE_LEN_MAX {
            return Err(StoreError::Limit("Message is too large"));
        }
        let id = MessageId(self.inner.shared.message_next.fetch_add(1, Ordering::Relaxed));
        let small = message.len() <= PARSE_INLINE_LEN_MAX;
        let make = move || {
            Ok(Incoming {
                id,
                record: Ledger::prepare(writer::entry(record::KIND_MESSAGE, record::message(id, &message)))?,
                size: u32::try_from(message.len()).unwrap_or(u32::MAX),
                structure: Structure::parse(&message).encode(),
                internal_date,
            })
        };
        if small { make() } else { tokio::task::spawn_blocking(make).await.map_err(|_| StoreError::Closed)? }
    }

    /// Delivers one message to many. Durable and visible to all sessions when it resolves: all or none. Says where it went, in
    /// the order of the deliveries; none: that delivery came before, and was made then.
    ///
    /// # Errors
    /// `Full`, `Limit`, or when the ledger cannot be written.
    pub async fn deliver(
        &self,
        message: Bytes,
        deliveries: Vec<Delivery>,
        received: SystemTime,
    ) -> Result<Vec<Option<Delivered>>, StoreError> {
        if deliveries.len() > DELIVERIES_MAX {
            return Err(StoreError::Limit("Too many recipients at once"));
        }
        if deliveries.iter().any(|delivery| delivery.trace.len() > TRACE_LEN_MAX) {
            return Err(StoreError::Limit("Trace is too long"));
        }
        self.check_room()?;
        let secs = received.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let traces: usize = deliveries.iter().map(|delivery| delivery.trace.len() + 128).sum();
        let bytes = message.len() + traces;
        let incoming = self.incoming(message, i64::try_from(secs).unwrap_or(i64::MAX)).await?;
        let Outcome::Delivered(delivered) = self.ask(Request::Deliver(incoming, deliveries), bytes).await? else {
            return Err(StoreError::Closed);
        };
        Ok(delivered)
    }

    /// Puts a message into a mailbox that must exist. `internal_date`: seconds since 1970.
    ///
    /// # Errors
    /// `NoSuchMailbox`, `Full`, `Limit`, or when the ledger cannot be written.
    pub async fn append(
        &self,
        account: AccountId,
        mailbox: &str,
        message: Bytes,
        flags: &[Flag],
        internal_date: i64,
    ) -> Result<Appended, StoreError> {
        self.check_room()?;
        let bytes = message.len();
        let incoming = self.incoming(message, internal_date).await?;
        let request = Request::Append(incoming, account, mailbox.to_owned(), flags.to_vec());
        let Outcome::Delivered(delivered) = self.ask(request, bytes).await? else { return Err(StoreError::Closed) };
        let done = delivered.first().copied().flatten().ok_or(StoreError::Closed)?;
        Ok(Appended { uid_validity: done.uid_validity, uid: done.uid })
    }
}
