//! What can go wrong in the ledger, by whose fault it is.
//!
//! Owns: `LedgerError`. Called by: every file of this room, and the owners of ledgers, who turn it into their own reply.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Position;

/// Why the ledger did not do what was asked. Cheap to clone: one failed group is told to all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// This machine: the disk (or the quota) is full. Nothing was appended; the ledger goes on when there is room.
    #[error("no space left for the ledger")]
    Full,
    /// This machine: the system refused an operation. An append that got this is not in the ledger.
    #[error("{act} {name}: {source}")]
    Io { act: &'static str, name: String, source: Arc<io::Error> },
    /// This machine: what was read is not what had been written. The files are left as they are.
    #[error("damaged at {position}: {what}")]
    Corrupt { position: Position, what: &'static str },
    /// The caller: no record starts there (any more).
    #[error("no record at {position}")]
    NoSuchRecord { position: Position },
    /// The caller: the entries of one append are larger than a segment can hold.
    #[error("append of {bytes} bytes, a segment holds {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    /// The caller: the last segment takes records, and bears the position from which the ledger goes on. It cannot be
    /// rewritten or removed.
    #[error("segment {segment} is the last one and in use")]
    InUse { segment: u64 },
    /// Another process (or another `Ledger` in this one) has the directory open.
    #[error("ledger {dir} is in use by another process")]
    Locked { dir: PathBuf },
    /// An earlier failure left the end of the ledger in an unknown state: it has to be opened again.
    #[error("the ledger is closed after an earlier failure")]
    Closed,
}

impl LedgerError {
    /// What a failed system call means to whoever waits for it.
    pub(super) fn io(act: &'static str, name: &str, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::Full;
        }
        Self::Io { act, name: name.to_owned(), source: Arc::new(source) }
    }
}
