//! The tables of the catalogue.
//!
//! Owns: their form and its version. Called by: `Catalogue::open`.

use rusqlite::Connection;

use super::CatalogueError;

/// Of the tables below.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE volumes (
    id TEXT PRIMARY KEY,          -- of the label
    name TEXT NOT NULL,
    written INTEGER NOT NULL,     -- seconds since 1970
    block_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE parts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    job TEXT NOT NULL,
    source TEXT NOT NULL,
    host TEXT NOT NULL,
    time INTEGER NOT NULL,
    since TEXT,                   -- null: full
    next TEXT
) STRICT;
CREATE TABLE pieces (
    part INTEGER NOT NULL REFERENCES parts ON DELETE CASCADE,
    piece INTEGER NOT NULL,
    volume TEXT NOT NULL REFERENCES volumes ON DELETE CASCADE,
    file INTEGER NOT NULL,
    members INTEGER NOT NULL,
    tar_len INTEGER NOT NULL,
    goes_on INTEGER NOT NULL,
    PRIMARY KEY (part, piece)
) STRICT;
CREATE UNIQUE INDEX pieces_by_place ON pieces (volume, file);
CREATE TABLE frames (
    part INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    at INTEGER NOT NULL,          -- in the tar stream
    len INTEGER NOT NULL,
    volume TEXT NOT NULL,
    file INTEGER NOT NULL,
    block INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (part, at),
    FOREIGN KEY (part, piece) REFERENCES pieces ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX frames_by_piece ON frames (part, piece);
CREATE TABLE members (
    id INTEGER PRIMARY KEY,
    part INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    path BLOB NOT NULL,
    flag INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    blake3 BLOB NOT NULL,
    at INTEGER NOT NULL,
    len INTEGER NOT NULL,
    FOREIGN KEY (part, piece) REFERENCES pieces ON DELETE CASCADE
) STRICT;
CREATE INDEX members_by_piece ON members (part, piece);
";

/// Makes the tables in a new file; checks the version of an old one.
pub(super) fn prepare(database: &Connection) -> Result<(), CatalogueError> {
    database.pragma_update(None, "journal_mode", "WAL")?;
    // A piece costs one sync; it is the record of what must not be written twice.
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "foreign_keys", true)?;
    database.busy_timeout(std::time::Duration::from_secs(30))?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => Ok(database.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?),
        VERSION => Ok(()),
        other => Err(CatalogueError::Newer(other)),
    }
}
