//! The SQLite view: its tables, its connections.
//!
//! Owns: the schema, how connections are set up, the pool of readers. Called by: `apply` (the one writer), the reading
//! side of the store, `recovery`. Never: holds anything that the ledger does not: it can be deleted at any time.
//!
//! Any administrator may open it with `sqlite3 view.sqlite` and look, while the store is running.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::record::Counters;
use crate::ledger::Position;

/// Number of the schema; a view with another one is thrown away and made anew.
pub(super) const SCHEMA: i64 = 3;
/// File name of the view in the store's directory.
pub(super) const VIEW_FILE: &str = "view.sqlite";
/// Readers that are kept open when nobody reads.
const READERS_IDLE_MAX: usize = 8;
/// How long a connection waits for a lock; only a schema change or a checkpoint's end holds one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 65_536;
/// Page cache of a reader, in KiB.
const READER_CACHE_KIB: i64 = 4_096;

/// What one thing is called in the tables:
/// - `progress`: the one row says how far the ledger has been applied, and the next ids;
/// - `mailbox`: one row a mailbox, with its counters; `keywords` by blanks, in the order of the flag bits;
/// - `message`: one row for a message in a mailbox; `flags` as bits, 1 seen, 2 answered, 4 flagged, 8 deleted, 16 draft,
///   from 256 on the mailbox's keywords;
/// - `roll`: the rows of `message` whose UIDs are under `below` once more, packed (see `roll`), and in `roll_changed` what
///   has become of them since: other flags, or none when the message is gone;
/// - `trace`: header fields of that recipient, put before the message's bytes;
/// - `content`: where the bytes of a message stand in the ledger, and its envelope and structure;
/// - `segment`: how many bytes of messages were written to a segment of the ledger, and how many are still in a mailbox;
/// - `state`: the last state record of an account;
/// - `delivered`: the keys of the last deliveries, in their order.
const TABLES: &str = "
CREATE TABLE progress (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    segment INTEGER NOT NULL, offset INTEGER NOT NULL,
    seq INTEGER NOT NULL, message_next INTEGER NOT NULL, mailbox_next INTEGER NOT NULL, uid_validity_last INTEGER NOT NULL
) STRICT;
INSERT INTO progress VALUES (1, 0, 0, 0, 1, 1, 0);
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY, account BLOB NOT NULL, name TEXT NOT NULL,
    uid_validity INTEGER NOT NULL, uid_next INTEGER NOT NULL, modseq INTEGER NOT NULL,
    special_use INTEGER NOT NULL, keywords TEXT NOT NULL,
    messages INTEGER NOT NULL, unseen INTEGER NOT NULL, deleted INTEGER NOT NULL, bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX mailbox_by_name ON mailbox (account, name);
CREATE TABLE subscription (
    account BLOB NOT NULL, name TEXT NOT NULL, PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE message (
    mailbox INTEGER NOT NULL, uid INTEGER NOT NULL, flags INTEGER NOT NULL, modseq INTEGER NOT NULL,
    size INTEGER NOT NULL, internal_date INTEGER NOT NULL, content INTEGER NOT NULL, PRIMARY KEY (mailbox, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_by_content ON message (content);
CREATE TABLE roll (
    mailbox INTEGER PRIMARY KEY, below INTEGER NOT NULL, messages INTEGER NOT NULL, rows BLOB NOT NULL
) STRICT;
CREATE TABLE roll_changed (
    mailbox INTEGER NOT NULL, uid INTEGER NOT NULL, flags INTEGER, modseq INTEGER, PRIMARY KEY (mailbox, uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE trace (
    mailbox INTEGER NOT NULL, uid INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (mailbox, uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE content (
    id INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL, structure BLOB NOT NULL
) STRICT;
CREATE TABLE segment (
    id INTEGER PRIMARY KEY, written INTEGER NOT NULL, live INTEGER NOT NULL
) STRICT;
CREATE TABLE state (
    account BLOB PRIMARY KEY, as_of INTEGER NOT NULL, segment INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE delivered (
    nth INTEGER PRIMARY KEY, key BLOB NOT NULL
) STRICT;
";

/// Makes the tables in an empty database.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "user_version", SCHEMA)
}

/// Opens the view for the one who writes it.
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    keep_temporary_in_memory(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Checkpoints are made by `upkeep`, so that nobody who waits for a delivery waits for one.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// SQLite's temporary tables, sorts and statement journals stay in memory: the sandbox has no place for temporary files.
pub(super) fn keep_temporary_in_memory(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Opens the view for reading only.
fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    keep_temporary_in_memory(&connection)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// The pool of reading connections.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::new(Vec::new()) }
    }

    /// Reads within one transaction: all statements see the same state. Blocks.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let transaction = connection.transaction()?;
        let result = read(&transaction);
        transaction.finish()?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS_IDLE_MAX {
            idle.push(connection);
        }
        result
    }
}

/// How far the view has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// The last record of the ledger that was applied; `None`: none was.
    pub(super) position: Option<Position>,
    pub(super) counters: Counters,
}

/// Numbers of the store stay far below 2^63; a larger one is a fault that must not go unseen.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number out of a column that is never negative.
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A number out of a column that fits 32 bits.
pub(super) fn from_sql32(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

pub(super) fn read_progress(connection: &Connection) -> rusqlite::Result<Progress> {
    let mut statement = connection.prepare_cached(
        "SELECT segment, offset, seq, message_next, mailbox_next, uid_validity_last FROM progress WHERE one = 1",
    )?;
    statement.query_row([], |row| {
        let position = Position { segment: from_sql(row.get(0)?), offset: from_sql(row.get(1)?) };
        Ok(Progress {
            position: (position.offset > 0).then_some(position),
            counters: Counters {
                seq: from_sql(row.get(2)?),
                message_next: from_sql(row.get(3)?),
                mailbox_next: from_sql(row.get(4)?),
                uid_validity_last: from_sql32(row.get(5)?),
            },
        })
    })
}

pub(super) fn write_progress(connection: &Connection, progress: &Progress) -> rusqlite::Result<()> {
    let position = progress.position.unwrap_or(Position { segment: 0, offset: 0 });
    let counters = progress.counters;
    let mut statement = connection.prepare_cached(
        "UPDATE progress SET segment = ?1, offset = ?2, seq = ?3, message_next = ?4, mailbox_next = ?5, uid_validity_last = ?6",
    )?;
    statement.execute((
        to_sql(position.segment),
        to_sql(position.offset),
        to_sql(counters.seq),
        to_sql(counters.message_next),
        to_sql(counters.mailbox_next),
        counters.uid_validity_last,
    ))?;
    Ok(())
}
