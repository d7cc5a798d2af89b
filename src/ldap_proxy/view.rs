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
const VERSION: i64 = 2;
/// What a view is whose loading has not ended.
const UNFINISHED: i64 = 0;
/// Statements kept prepared for each connection.
const STATEMENTS_MAX: usize = 32;
/// KiB of pages that the writing connection keeps: the upper levels of the indexes of half a million users.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Pages of the write-ahead log that are gathered before they are carried over, which costs a flush.
const CHECKPOINT_PAGES: i64 = 4000;

const TABLES: &str = "
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY,
        uuid TEXT NOT NULL,
        key TEXT NOT NULL,
        parent TEXT NOT NULL,
        segment INTEGER NOT NULL,
        body TEXT NOT NULL
    );
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

/// Those that `load` makes when everything is in. `segment`: where in the ledger the entry stands, or a segment before that.
const INDEXES: &str = "
    CREATE UNIQUE INDEX entry_uuid ON entry (uuid);
    CREATE UNIQUE INDEX entry_key ON entry (key);
    CREATE INDEX entry_parent ON entry (parent, key);
    CREATE INDEX entry_segment ON entry (segment);
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
    #[error("view: {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
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
            Self::Io { .. } => false,
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

    /// Every entry.
    #[cfg(test)]
    pub(super) fn everything(&self) -> Vec<Entry> {
        let range = Plan::Range(String::new(), "\u{10ffff}".to_owned());
        self.candidates(&range, &Cursor::Start, usize::MAX).unwrap().into_iter().map(|(_, entry)| entry).collect()
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
        transaction.execute_batch(INDEXES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        Ok(transaction.commit()?)
    }

    /// Makes ready for loading everything: nothing is written twice, nothing is looked up, and the view is worth nothing until `end_load`.
    pub(super) fn begin_load(&mut self) -> Result<(), ViewError> {
        self.connection.pragma_update(None, "user_version", UNFINISHED)?;
        self.connection.pragma_update(None, "journal_mode", "OFF")?;
        self.connection.pragma_update(None, "synchronous", "OFF")?;
        Ok(self.connection.execute_batch(
            "DROP INDEX entry_uuid; DROP INDEX entry_key; DROP INDEX entry_parent; DROP INDEX entry_segment;",
        )?)
    }

    /// Makes the indexes, and the view durable: what was written without a journal must be there before the view says that it is whole.
    pub(super) fn end_load(&mut self) -> Result<(), ViewError> {
        self.connection.execute_batch(INDEXES)?;
        if let Some(path) = self.path() {
            let synced = std::fs::File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| ViewError::Io { path, source })?;
        }
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(self.connection.pragma_update(None, "user_version", VERSION)?)
    }

    /// Number of entries that stand in this segment of the ledger or before it.
    pub(super) fn count_up_to(&self, segment: u64) -> Result<u64, ViewError> {
        let sql = "SELECT count(*) FROM entry WHERE segment <= ?1";
        let count = self.connection.query_row(sql, [segment.cast_signed()], |row| row.get::<_, i64>(0))?;
        Ok(count.cast_unsigned())
    }

    /// Some of these entries: row and body.
    pub(super) fn some_up_to(&self, segment: u64, limit: u32) -> Result<Vec<(i64, String)>, ViewError> {
        let sql = "SELECT id, body FROM entry WHERE segment <= ?1 LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![segment.cast_signed(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
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

    /// Shows every entry as of one moment, those above before those below, until `visit` has had enough.
    pub(super) fn each(&self, visit: &mut dyn FnMut(&Entry) -> bool) -> Result<(), ViewError> {
        let mut statement = self.connection.prepare("SELECT id, body FROM entry ORDER BY key")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if !visit(&body(row.get(0)?, row.get_ref(1)?.as_bytes().unwrap_or_default())?) {
                break;
            }
        }
        Ok(())
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

    /// Brings an entry in, in place of the one with the same entryUUID. `segment`: where in the ledger it stands, or one before that.
    pub(super) fn put(&self, entry: &Entry, segment: u64) -> Result<(), ViewError> {
        let uuid = entry.text("entryUUID").ok_or(ViewError::NoUuid)?;
        self.forget_rows(uuid)?;
        let (key, parent) = (entry.dn.key(), entry.dn.parent().key());
        let sql = "INSERT INTO entry (uuid, key, parent, segment, body) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (uuid) DO UPDATE SET key = ?2, parent = ?3, segment = ?4, body = ?5 RETURNING id";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let body = record::to_json(entry)?;
        let id: i64 = statement.query_row(params![uuid, key, parent, segment.cast_signed(), body], |row| row.get(0))?;
        for (attribute, value) in plan::rows(entry) {
            self.add_value(attribute, &value, id)?;
        }
        for address in plan::addresses(entry) {
            self.add_address(&address, id)?;
        }
        Ok(())
    }

    pub(super) fn add_value(&self, attribute: &str, value: &str, row: i64) -> Result<(), ViewError> {
        let sql = "INSERT OR IGNORE INTO value (attribute, value, entry) VALUES (?1, ?2, ?3)";
        self.transaction.prepare_cached(sql)?.execute(params![attribute, value, row])?;
        Ok(())
    }

    pub(super) fn add_address(&self, address: &str, row: i64) -> Result<(), ViewError> {
        let sql = "INSERT OR REPLACE INTO address (address, entry) VALUES (?1, ?2)";
        self.transaction.prepare_cached(sql)?.execute(params![address, row])?;
        Ok(())
    }

    /// Brings an entry in without its rows in the index; in place of the one in `row`, when there is one. Gives its row.
    pub(super) fn load(&self, row: Option<i64>, entry: &Entry, body: &str, segment: u64) -> Result<i64, ViewError> {
        let uuid = entry.text("entryUUID").ok_or(ViewError::NoUuid)?;
        let (key, parent) = (entry.dn.key(), entry.dn.parent().key());
        let sql = "INSERT OR REPLACE INTO entry (id, uuid, key, parent, segment, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut statement = self.transaction.prepare_cached(sql)?;
        Ok(statement.insert(params![row, uuid, key, parent, segment.cast_signed(), body])?)
    }

    /// Takes the index rows of the entry in this row away.
    pub(super) fn forget_rows_of(&self, row: i64) -> Result<(), ViewError> {
        let sql = "SELECT body FROM entry WHERE id = ?1";
        let text: String = self.transaction.prepare_cached(sql)?.query_row([row], |found| found.get(0))?;
        self.forget_rows_in(row, &text)
    }

    pub(super) fn delete_row(&self, row: i64) -> Result<(), ViewError> {
        self.transaction.prepare_cached("DELETE FROM entry WHERE id = ?1")?.execute([row])?;
        Ok(())
    }

    /// The entry stands in another segment now.
    pub(super) fn moved(&self, row: i64, segment: u64) -> Result<(), ViewError> {
        let sql = "UPDATE entry SET segment = ?2 WHERE id = ?1";
        self.transaction.prepare_cached(sql)?.execute([row, segment.cast_signed()])?;
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
        match row.optional()? {
            Some((id, text)) => self.forget_rows_in(id, &text),
            None => Ok(()),
        }
    }

    fn forget_rows_in(&self, id: i64, text: &str) -> Result<(), ViewError> {
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
