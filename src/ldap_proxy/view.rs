//! The view: entries in SQLite, so that they are found by name, by place and by what they hold.
//!
//! Owns: the database file and its tables. Called by: `writer` (one connection that writes), `engine` (some that read).
//! Never: is the truth. The ledger is; the view notes how far it has seen it, in the transaction that
//! brings the change, and can be thrown away. Readable with `sqlite3` by any administrator.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use super::entry::Entry;
use super::plan::{self, Cursor, Plan};
use super::record::{self, RecordError};
use crate::ledger::Position;

/// Grows whenever the tables, the index rows or the normalization of values change: an older view is then made anew.
const VERSION: i64 = 1;
/// Statements kept prepared for each connection.
const STATEMENTS_MAX: usize = 32;
/// KiB of pages that the writing connection keeps: the upper levels of the indexes of half a million users.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Pages of the write-ahead log that are gathered before they are carried over, which costs a flush.
const CHECKPOINT_PAGES: i64 = 4000;

const TABLES: &str = "
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY,
        uuid TEXT NOT NULL UNIQUE,
        key TEXT NOT NULL UNIQUE,
        parent TEXT NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX entry_parent ON entry (parent, key);
    CREATE TABLE value (
        attribute TEXT NOT NULL,
        value TEXT NOT NULL,
        entry INTEGER NOT NULL,
        PRIMARY KEY (attribute, value, entry)
    ) WITHOUT ROWID;
    CREATE TABLE address (
        address TEXT PRIMARY KEY,
        entry INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE position (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        segment INTEGER NOT NULL,
        offset INTEGER NOT NULL
    );
";

/// The view cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ViewError {
    #[error("view: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("view: entry {id}: {source}")]
    Body { id: i64, source: RecordError },
    #[error("view: {0}")]
    Record(#[from] RecordError),
    #[error("view: entry without entryUUID")]
    NoUuid,
}

impl ViewError {
    /// Whether the file is of no more use: thrown away, it is made anew from the ledger.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            Self::Body { .. } | Self::Record(_) | Self::NoUuid => true,
        }
    }
}

/// A connection to the view.
pub(super) struct View {
    connection: Connection,
}

/// What is found or written together.
pub(super) struct Changing<'a> {
    transaction: Transaction<'a>,
}

impl View {
    /// Opens the view for writing; empty when it was not there or is of another version.
    pub(super) fn open(path: &Path) -> Result<Self, ViewError> {
        let connection = Connection::open(path)?;
        let mut view = Self { connection };
        view.set_up()?;
        Ok(view)
    }

    /// A view in memory, for tests.
    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        let mut view = Self { connection: Connection::open_in_memory().unwrap() };
        view.set_up().unwrap();
        view
    }

    /// Where SQLite puts temporary tables and journals: 2 is memory.
    #[cfg(test)]
    pub(super) fn temp_store(&self) -> i64 {
        self.connection.pragma_query_value(None, "temp_store", |row| row.get(0)).unwrap()
    }

    /// Opens the view for reading beside the writer.
    pub(super) fn open_reader(path: &Path) -> Result<Self, ViewError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        keep_temporary_in_memory(&connection)?;
        Ok(Self { connection })
    }

    fn set_up(&mut self) -> Result<(), ViewError> {
        self.connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        keep_temporary_in_memory(&self.connection)?;
        // Never fsynced on the write path: what a power cut takes from the view, the ledger gives back.
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        // Negative: KiB, not pages.
        self.connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        self.connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        let version: i64 = self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == VERSION {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute_batch(
            "DROP TABLE IF EXISTS entry; DROP TABLE IF EXISTS value; DROP TABLE IF EXISTS address; DROP TABLE IF EXISTS position;",
        )?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        Ok(transaction.commit()?)
    }

    pub(super) fn begin(&mut self) -> Result<Changing<'_>, ViewError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Changing { transaction })
    }

    /// The file; none for a view in memory.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.connection.path().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// The last record that the view has seen.
    pub(super) fn position(&self) -> Result<Option<Position>, ViewError> {
        let row = self
            .connection
            .query_row("SELECT segment, offset FROM position", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        Ok(row.map(|(segment, offset)| Position { segment: segment.cast_unsigned(), offset: offset.cast_unsigned() }))
    }

    /// The entry of this key.
    pub(super) fn by_key(&self, key: &str) -> Result<Option<Entry>, ViewError> {
        by_key(&self.connection, key)
    }

    /// The entry with this entryUUID.
    pub(super) fn by_uuid(&self, uuid: &str) -> Result<Option<Entry>, ViewError> {
        one(&self.connection, "SELECT id, body FROM entry WHERE uuid = ?1", uuid)
    }

    /// Number of entries.
    pub(super) fn len(&self) -> Result<u64, ViewError> {
        Ok(self.connection.query_row("SELECT count(*) FROM entry", [], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// The next candidates of a search, each with the cursor behind it; fewer than `limit` when these are the last.
    pub(super) fn candidates(
        &self,
        plan: &Plan,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Entry)>, ViewError> {
        match plan {
            Plan::Base(key) if *cursor == Cursor::Start => {
                Ok(self.by_key(key)?.map(|entry| (Cursor::AfterKey(key.clone()), entry)).into_iter().collect())
            }
            Plan::Base(_) => Ok(Vec::new()),
            Plan::Index(rows) => self.by_rows(rows, cursor, limit),
            Plan::Children(parent) => {
                let sql = "SELECT id, key, body FROM entry WHERE parent = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
                self.along_the_tree(sql, [parent, after_key(cursor)], limit)
            }
            Plan::Range(from, to) => {
                // The start belongs to the range; whatever was seen last does not.
                let (sql, from) = match cursor {
                    Cursor::AfterKey(key) if key >= from => (
                        "SELECT id, key, body FROM entry WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3",
                        key.as_str(),
                    ),
                    Cursor::Start | Cursor::AfterId(_) | Cursor::AfterKey(_) => (
                        "SELECT id, key, body FROM entry WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3",
                        from.as_str(),
                    ),
                };
                self.along_the_tree(sql, [from, to], limit)
            }
        }
    }

    fn along_the_tree(&self, sql: &str, [a, b]: [&str; 2], limit: usize) -> Result<Vec<(Cursor, Entry)>, ViewError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![a, b, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let key: String = row.get(1)?;
            found.push((Cursor::AfterKey(key), body(row.get(0)?, row.get_ref(2)?.as_bytes().unwrap_or_default())?));
        }
        Ok(found)
    }

    /// Each row of the index gives its entries in the order of ids, so the first `limit` of all are among the first `limit` of each.
    fn by_rows(&self, rows: &[plan::Row], cursor: &Cursor, limit: usize) -> Result<Vec<(Cursor, Entry)>, ViewError> {
        let after = match cursor {
            Cursor::AfterId(id) => *id,
            Cursor::Start | Cursor::AfterKey(_) => i64::MIN,
        };
        let sql = "SELECT entry FROM value WHERE attribute = ?1 AND value = ?2 AND entry > ?3 ORDER BY entry LIMIT ?4";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut ids = Vec::new();
        for (attribute, value) in rows {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let found = statement.query_map(params![attribute, value, after, limit], |row| row.get::<_, i64>(0))?;
            for id in found {
                ids.push(id?);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(limit);
        let mut statement = self.connection.prepare_cached("SELECT body FROM entry WHERE id = ?1")?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let text: Option<String> = statement.query_row([id], |row| row.get(0)).optional()?;
            if let Some(text) = text {
                found.push((Cursor::AfterId(id), body(id, text.as_bytes())?));
            }
        }
        Ok(found)
    }
}

impl Changing<'_> {
    pub(super) fn by_key(&self, key: &str) -> Result<Option<Entry>, ViewError> {
        by_key(&self.transaction, key)
    }

    pub(super) fn has_children(&self, key: &str) -> Result<bool, ViewError> {
        let mut statement = self.transaction.prepare_cached("SELECT 1 FROM entry WHERE parent = ?1 LIMIT 1")?;
        Ok(statement.exists([key])?)
    }

    /// entryUUID of the entry that has this address.
    pub(super) fn address_owner(&self, address: &str) -> Result<Option<String>, ViewError> {
        let sql = "SELECT entry.uuid FROM address JOIN entry ON entry.id = address.entry WHERE address.address = ?1";
        Ok(self.transaction.prepare_cached(sql)?.query_row([address], |row| row.get(0)).optional()?)
    }

    /// Whether an entry has this row in the index.
    pub(super) fn exists(&self, (attribute, value): (&str, &str)) -> Result<bool, ViewError> {
        let sql = "SELECT 1 FROM value WHERE attribute = ?1 AND value = ?2 LIMIT 1";
        Ok(self.transaction.prepare_cached(sql)?.exists([attribute, value])?)
    }

    /// Brings an entry in, in place of the one with the same entryUUID.
    pub(super) fn put(&self, entry: &Entry) -> Result<(), ViewError> {
        let uuid = entry.text("entryUUID").ok_or(ViewError::NoUuid)?;
        self.forget_rows(uuid)?;
        let (key, parent) = (entry.dn.key(), entry.dn.parent().key());
        let sql = "INSERT INTO entry (uuid, key, parent, body) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (uuid) DO UPDATE SET key = ?2, parent = ?3, body = ?4 RETURNING id";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let body = record::to_json(entry)?;
        let id: i64 = statement.query_row(params![uuid, key, parent, body], |row| row.get(0))?;
        let sql = "INSERT OR IGNORE INTO value (attribute, value, entry) VALUES (?1, ?2, ?3)";
        let mut statement = self.transaction.prepare_cached(sql)?;
        for (attribute, value) in plan::rows(entry) {
            statement.execute(params![attribute, value, id])?;
        }
        let sql = "INSERT OR REPLACE INTO address (address, entry) VALUES (?1, ?2)";
        let mut statement = self.transaction.prepare_cached(sql)?;
        for address in plan::addresses(entry) {
            statement.execute(params![address, id])?;
        }
        Ok(())
    }

    /// Takes an entry away; one that is not there is no error (a record may be seen twice).
    pub(super) fn delete(&self, uuid: &str) -> Result<(), ViewError> {
        self.forget_rows(uuid)?;
        self.transaction.prepare_cached("DELETE FROM entry WHERE uuid = ?1")?.execute([uuid])?;
        Ok(())
    }

    pub(super) fn set_position(&self, position: Position) -> Result<(), ViewError> {
        let sql = "INSERT OR REPLACE INTO position (one, segment, offset) VALUES (1, ?1, ?2)";
        let (segment, offset) = (position.segment.cast_signed(), position.offset.cast_signed());
        self.transaction.prepare_cached(sql)?.execute([segment, offset])?;
        Ok(())
    }

    pub(super) fn commit(self) -> Result<(), ViewError> {
        Ok(self.transaction.commit()?)
    }

    /// Takes the index rows of an entry away; they follow from its body.
    fn forget_rows(&self, uuid: &str) -> Result<(), ViewError> {
        let mut statement = self.transaction.prepare_cached("SELECT id, body FROM entry WHERE uuid = ?1")?;
        let row = statement.query_row([uuid], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
        let Some((id, text)) = row.optional()? else {
            return Ok(());
        };
        let entry = body(id, text.as_bytes())?;
        let sql = "DELETE FROM value WHERE attribute = ?1 AND value = ?2 AND entry = ?3";
        let mut statement = self.transaction.prepare_cached(sql)?;
        for (attribute, value) in plan::rows(&entry) {
            statement.execute(params![attribute, value, id])?;
        }
        let mut statement = self.transaction.prepare_cached("DELETE FROM address WHERE address = ?1 AND entry = ?2")?;
        for address in plan::addresses(&entry) {
            statement.execute(params![address, id])?;
        }
        Ok(())
    }
}

/// The role's sandbox has no directory for temporary files: SQLite, which opens them late and seldom (a statement journal
/// above 64 KiB), would say "unable to open database file" in the middle of a bulk load.
fn keep_temporary_in_memory(connection: &Connection) -> Result<(), ViewError> {
    Ok(connection.pragma_update(None, "temp_store", "MEMORY")?)
}

fn by_key(connection: &Connection, key: &str) -> Result<Option<Entry>, ViewError> {
    one(connection, "SELECT id, body FROM entry WHERE key = ?1", key)
}

fn one(connection: &Connection, sql: &str, parameter: &str) -> Result<Option<Entry>, ViewError> {
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row([parameter], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
    row.optional()?.map(|(id, text)| body(id, text.as_bytes())).transpose()
}

fn body(id: i64, json: &[u8]) -> Result<Entry, ViewError> {
    record::from_json(json).map_err(|source| ViewError::Body { id, source })
}

fn after_key(cursor: &Cursor) -> &str {
    match cursor {
        Cursor::AfterKey(key) => key,
        Cursor::Start | Cursor::AfterId(_) => "",
    }
}

/// Names of the files that make up the view at this path.
pub(super) fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}
