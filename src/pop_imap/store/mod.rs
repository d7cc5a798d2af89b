//! The mailbox store: messages, mailboxes, flags; durable before anyone is told so.
//!
//! Owns: the ledger of messages and changes, the SQLite view of it, the mailboxes open in memory.
//! Called by: LMTP, IMAP, POP3 of this role. Never: speaks a protocol; no one else opens its directory.
//! Spec: RFC 9051 section 2.3 (UIDs, flags), RFC 7162 (modseqs).

#![expect(dead_code, reason = "what changes views comes with the ledger")]

pub mod error;
pub mod flags;
pub mod name;
pub mod open;
pub mod view;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

pub use error::StoreError;
pub use flags::{Flag, FlagChange, Flags};
pub use name::SpecialUse;
pub use open::OpenMailbox;
pub use view::{Difference, MessageId, Row, Rows, View};

use crate::base::size::Size;
use crate::message::structure::{Envelope, Structure};

/// Recipients of one delivery.
pub const DELIVERIES_MAX: usize = 1_000;
/// UIDs of one change; callers with more call again (no IMAP command that changes is atomic over its messages).
pub const UIDS_PER_CHANGE_MAX: usize = 2_000;
/// UIDs of one question for envelopes or structures; callers with more call again and so stream their answer.
pub const UIDS_PER_READ_MAX: usize = 2_000;
/// Octets of one message with its trace.
pub const MESSAGE_LEN_MAX: usize = 512 << 20;

/// Id of an account: its directory entry's entryUUID.
pub type AccountId = [u8; 16];

/// Id of a mailbox, stable over renames, never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxId(u64);

impl MailboxId {
    /// The id as a number (for logs and RFC 8474 MAILBOXID).
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// How a store is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Free space below which nothing that takes room is accepted.
    pub free_space_min: Size,
}

impl Default for Settings {
    fn default() -> Self {
        Self { free_space_min: Size::mib(256) }
    }
}

/// One recipient of a message.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub account: AccountId,
    /// Where it goes; when that does not exist (any more), to INBOX.
    pub mailbox: String,
    /// Header fields for this recipient, each with its CRLF; they are put before the message.
    pub trace: Bytes,
    pub flags: Vec<Flag>,
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

/// What COPY and MOVE did (COPYUID, RFC 4315 section 3). Messages that were gone already are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyUid {
    pub uid_validity: u32,
    /// As many as `target`, ascending.
    pub source: Vec<u32>,
    pub target: Vec<u32>,
}

/// What STORE did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagsSet {
    /// Messages left alone because they changed after `unchanged_since` (MODIFIED, RFC 7162 section 3.1.3).
    pub modified: Vec<u32>,
    /// The mailbox's highest modseq after the change.
    pub modseq: u64,
}

/// A mailbox as LIST and STATUS show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxInfo {
    pub id: MailboxId,
    /// UTF-8, levels parted by `/`.
    pub name: String,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub highest_modseq: u64,
    pub subscribed: bool,
    pub special_use: Option<SpecialUse>,
    pub has_children: bool,
    pub messages: u32,
    pub unseen: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Always 0: RFC 9051 has removed `\Recent`.
    pub recent: u32,
    /// Octets of all messages (STATUS SIZE, RFC 8438; POP3 STAT).
    pub size: u64,
}

/// Where `search_text` looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// Decoded value of the header fields of this name. An empty needle finds all that have the field (RFC 9051 section 6.4.4).
    Header(String),
    /// Decoded text of the body.
    Body,
    /// Decoded header and body.
    Text,
}

/// The mailbox store. Cheap to clone; the last clone to go closes it.
#[derive(Debug, Clone)]
pub struct Store {
    settings: Settings,
}

impl Store {
    /// Opens the store in `dir`, makes one when there is none, repairs what a crash left. Blocks.
    ///
    /// # Errors
    /// When the disk cannot be read or written, or an acknowledged record is damaged.
    pub fn open(_dir: &Path, settings: Settings) -> Result<Self, StoreError> {
        Ok(Self { settings })
    }

    /// Delivers one message to many. Durable and visible to all sessions when it resolves: all or none.
    ///
    /// # Errors
    /// `Full`, `Limit`, or when the ledger cannot be written.
    pub async fn deliver(
        &self,
        _message: Bytes,
        _deliveries: Vec<Delivery>,
        _received: SystemTime,
    ) -> Result<Vec<Delivered>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Puts a message into a mailbox that must exist. `internal_date`: seconds since 1970.
    ///
    /// # Errors
    /// `NoSuchMailbox`, `Full`, `Limit`, or when the ledger cannot be written.
    pub async fn append(
        &self,
        _account: AccountId,
        _mailbox: &str,
        _message: Bytes,
        _flags: &[Flag],
        _internal_date: i64,
    ) -> Result<Appended, StoreError> {
        Err(StoreError::Closed)
    }

    /// All mailboxes of an account, sorted by name, INBOX first. An account that is not known yet comes into being.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn mailboxes(&self, _account: AccountId) -> Result<Vec<MailboxInfo>, StoreError> {
        Err(StoreError::Closed)
    }

    /// One mailbox (STATUS).
    ///
    /// # Errors
    /// `NoSuchMailbox`, or when the view cannot be read.
    pub async fn mailbox(&self, _account: AccountId, _name: &str) -> Result<MailboxInfo, StoreError> {
        Err(StoreError::Closed)
    }

    /// Subscribed names (LSUB); some may be no mailboxes (RFC 9051 section 6.3.7).
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn subscriptions(&self, _account: AccountId) -> Result<Vec<String>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Makes a mailbox, and those above it that do not exist (RFC 9051 section 6.3.4).
    ///
    /// # Errors
    /// `MailboxExists`, `Name`, `Limit`, `Full`.
    pub async fn create(
        &self,
        _account: AccountId,
        _name: &str,
        _special_use: Option<SpecialUse>,
    ) -> Result<MailboxId, StoreError> {
        Err(StoreError::Closed)
    }

    /// Deletes a mailbox with its messages; its children stay (RFC 9051 section 6.3.5).
    ///
    /// # Errors
    /// `NoSuchMailbox`; `Refused` for INBOX.
    pub async fn delete(&self, _account: AccountId, _name: &str) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Renames a mailbox and its children. INBOX stays, its messages move to the new name (RFC 9051 section 6.3.6).
    ///
    /// # Errors
    /// `NoSuchMailbox`, `MailboxExists`, `Name`, `Refused` (into itself), `Limit`.
    pub async fn rename(&self, _account: AccountId, _from: &str, _to: &str) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Puts a name on the list of subscriptions or takes it off.
    ///
    /// # Errors
    /// `Name`, `Limit`, or when the ledger cannot be written.
    pub async fn subscribe(&self, _account: AccountId, _name: &str, _subscribed: bool) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Opens a mailbox: in memory, shared by all who have it open.
    ///
    /// # Errors
    /// `NoSuchMailbox`, or when the view cannot be read.
    pub async fn select(&self, _account: AccountId, _name: &str) -> Result<Arc<OpenMailbox>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Changes flags of at most `UIDS_PER_CHANGE_MAX` messages; with `unchanged_since` only of those whose modseq is not above it.
    ///
    /// # Errors
    /// `NoSuchMailbox` when it was deleted meanwhile, `Limit` (keywords), or when the ledger cannot be written.
    pub async fn set_flags(
        &self,
        _mailbox: &OpenMailbox,
        _uids: &[u32],
        _change: FlagChange,
        _flags: &[Flag],
        _unchanged_since: Option<u64>,
    ) -> Result<FlagsSet, StoreError> {
        Err(StoreError::Closed)
    }

    /// Removes at most `UIDS_PER_CHANGE_MAX` messages, whatever their flags; those that are gone already do nothing.
    ///
    /// # Errors
    /// `NoSuchMailbox` when it was deleted meanwhile, or when the ledger cannot be written.
    pub async fn expunge(&self, _mailbox: &OpenMailbox, _uids: &[u32]) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Copies at most `UIDS_PER_CHANGE_MAX` messages with flags and dates to a mailbox of the same account, all or none.
    ///
    /// # Errors
    /// `NoSuchMailbox`, `Full`, `Limit`; `Refused` when `account` is not the mailbox's.
    pub async fn copy(
        &self,
        _mailbox: &OpenMailbox,
        _uids: &[u32],
        _account: AccountId,
        _target: &str,
    ) -> Result<CopyUid, StoreError> {
        Err(StoreError::Closed)
    }

    /// As `copy`, and expunges the originals in the same change.
    ///
    /// # Errors
    /// As `copy`.
    pub async fn move_(
        &self,
        _mailbox: &OpenMailbox,
        _uids: &[u32],
        _account: AccountId,
        _target: &str,
    ) -> Result<CopyUid, StoreError> {
        Err(StoreError::Closed)
    }

    /// The exact bytes of a message: trace, then message. `None` when the mailbox does not have it (any more).
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub async fn message(&self, _mailbox: &OpenMailbox, _uid: u32) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Closed)
    }

    /// As `message` for many: answers for as many of `uids`, from the first on, as fit `MESSAGES_READ_LEN_MAX` (at
    /// least one); call again for the rest. Much cheaper than one by one.
    ///
    /// # Errors
    /// When one cannot be read or is damaged.
    pub async fn messages(&self, _mailbox: &OpenMailbox, _uids: &[u32]) -> Result<Vec<Option<Bytes>>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Header blocks (trace, then the message's own, blank line included) of at most `UIDS_PER_READ_MAX` messages, in the order asked for.
    ///
    /// # Errors
    /// When one cannot be read or is damaged.
    pub async fn headers(&self, _mailbox: &OpenMailbox, _uids: &[u32]) -> Result<Vec<Option<Bytes>>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Envelopes of at most `UIDS_PER_READ_MAX` messages, in the order asked for; no message is read.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn envelopes(&self, _mailbox: &OpenMailbox, _uids: &[u32]) -> Result<Vec<Option<Envelope>>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Envelope and MIME structure of at most `UIDS_PER_READ_MAX` messages, in the order asked for; no message is read. Offsets are those of `message`.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn structures(
        &self,
        _mailbox: &OpenMailbox,
        _uids: &[u32],
    ) -> Result<Vec<Option<Structure>>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Which of `uids` have `needle` where asked, without regard to letter case, charsets and transfer encodings decoded.
    ///
    /// # Errors
    /// When a message cannot be read.
    pub async fn search_text(
        &self,
        _mailbox: &OpenMailbox,
        _uids: &[u32],
        _needle: &str,
        _place: &Where,
    ) -> Result<Vec<u32>, StoreError> {
        Err(StoreError::Closed)
    }

    /// Resolves when the store cannot go on (its view is damaged): the role should end and be started again, which repairs it.
    pub async fn failed(&self) {
        std::future::pending::<()>().await;
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }
}
