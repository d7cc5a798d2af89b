//! What can go wrong in the store, and what a client is told of it.
//!
//! Owns: `StoreError` and its replies. Called by: the store, LMTP, IMAP, POP3.
//! Never: puts a path or a system's message into a reply; those are for the log.
//! Spec: RFC 5321 section 4.2.3, RFC 3463 (enhanced codes), RFC 5530 and RFC 9051 section 7.1 (response codes).

use std::io;

use crate::ledger::LedgerError;
use crate::message::pack::Malformed;

/// Whose fault it is: the client's (names, limits), the disk's, or ours.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or has less free than `[pop-imap] free-space-min`.
    #[error("no room: less than the free space to be kept is left")]
    Full,
    /// No mailbox of that name.
    #[error("no such mailbox")]
    NoSuchMailbox,
    /// A mailbox of that name exists.
    #[error("mailbox exists already")]
    MailboxExists,
    /// The name is no mailbox name; says why.
    #[error("not a mailbox name: {0}")]
    Name(&'static str),
    /// What the protocol does not let anyone do (delete INBOX, rename into itself); says what.
    #[error("not possible: {0}")]
    Refused(&'static str),
    /// A bound of the store; says which.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The ledger could not be written or read.
    #[error("ledger: {0}")]
    Ledger(#[source] LedgerError),
    /// The view could not be written or read.
    #[error("view: {0}")]
    View(#[from] rusqlite::Error),
    /// The system refused something else.
    #[error("store: {0}")]
    Io(#[from] io::Error),
    /// A record or row is not what was written; says which.
    #[error("malformed {0} in the store")]
    Malformed(&'static str),
    /// The store is closing or has failed; the log says why.
    #[error("store is closed")]
    Closed,
}

impl From<LedgerError> for StoreError {
    fn from(error: LedgerError) -> Self {
        if matches!(error, LedgerError::Full) { Self::Full } else { Self::Ledger(error) }
    }
}

impl From<Malformed> for StoreError {
    fn from(_: Malformed) -> Self {
        Self::Malformed("record")
    }
}

impl StoreError {
    /// Reply of LMTP to a delivery: code, enhanced code, text. All but a bad name are temporary: the sender keeps the message.
    #[must_use]
    pub fn lmtp_reply(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Full => (452, "4.3.1", "insufficient storage"),
            Self::Limit(_) => (452, "4.2.2", "mailbox limit reached"),
            Self::NoSuchMailbox | Self::MailboxExists | Self::Name(_) | Self::Refused(_) => {
                (550, "5.2.0", "mailbox not usable")
            }
            Self::Ledger(_) | Self::View(_) | Self::Io(_) | Self::Malformed(_) | Self::Closed => {
                (451, "4.3.0", "mail store not available")
            }
        }
    }

    /// Response code of IMAP, without brackets. `to` is true for the target of APPEND, COPY, MOVE (RFC 9051 section 7.1, TRYCREATE).
    #[must_use]
    pub fn imap_code(&self, to: bool) -> Option<&'static str> {
        match self {
            Self::Full => Some("OVERQUOTA"),
            Self::NoSuchMailbox if to => Some("TRYCREATE"),
            Self::NoSuchMailbox => Some("NONEXISTENT"),
            Self::MailboxExists => Some("ALREADYEXISTS"),
            Self::Name(_) | Self::Refused(_) => Some("CANNOT"),
            Self::Limit(_) => Some("LIMIT"),
            Self::Ledger(_) | Self::View(_) | Self::Io(_) | Self::Malformed(_) | Self::Closed => Some("UNAVAILABLE"),
        }
    }

    /// Text for IMAP and POP3 clients.
    #[must_use]
    pub fn text(&self) -> &'static str {
        match self {
            Self::Full => "Not enough room on the server",
            Self::NoSuchMailbox => "No such mailbox",
            Self::MailboxExists => "Mailbox exists already",
            Self::Name(why) | Self::Refused(why) | Self::Limit(why) => why,
            Self::Ledger(_) | Self::View(_) | Self::Io(_) | Self::Malformed(_) | Self::Closed => {
                "Mail store not available, try again later"
            }
        }
    }
}
