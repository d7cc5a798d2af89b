//! The catalogue: which files are on which volume, so that one of them is found without reading any.
//!
//! Owns: the SQLite database of volumes, parts, frames and members. Called by: `job` (takes pieces in), `restore` and `fife backup` (ask).
//! Never: the only place of anything; it is rebuilt from the volumes (`fife backup scan`).
//!
//! A piece comes in by one transaction, after it is safe on the volume: whatever is killed when, the catalogue names nothing that is not
//! there. What is there and not in the catalogue is taken in before the next run writes.

mod schema;
#[cfg(test)]
mod tests;

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::volume::label::Label;
use super::volume::line::{FrameLine, Line, MemberLine, PartLine};

/// Why the catalogue does not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the catalogue: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the catalogue was made by a newer fife (version {0}): it can be rebuilt by `fife backup scan`")]
    Newer(i64),
    /// What a volume says of itself does not fit together.
    #[error("the catalogue on the volume is not whole: {0}")]
    Piece(&'static str),
}

/// See the room.
#[derive(Debug)]
pub struct Catalogue {
    database: Connection,
}

/// A part, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Part {
    pub part: String,
    pub job: String,
    pub source: String,
    pub host: String,
    pub time: u64,
    pub is_full: bool,
    /// All pieces are known, to the end.
    pub is_whole: bool,
    pub members: u64,
    pub bytes: u64,
    /// In the order of the pieces.
    pub volumes: Vec<String>,
}

/// A member, with where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub part: String,
    pub job: String,
    pub source: String,
    pub time: u64,
    pub path: Vec<u8>,
    pub flag: u8,
    pub size: u64,
    pub mtime: i64,
    pub blake3: [u8; 32],
    pub at: u64,
    pub len: u64,
}

/// A frame and its volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub at: u64,
    pub len: u64,
    /// The label's id.
    pub volume_id: String,
    pub volume: String,
    pub block_bytes: usize,
    pub file: u32,
    pub block: u32,
    pub offset: u32,
}

impl Catalogue {
    /// Opens it, makes it when it is not there.
    ///
    /// # Errors
    /// The file is no such database, or the disk fails.
    pub fn open(path: &Path) -> Result<Self, CatalogueError> {
        let database = Connection::open(path)?;
        schema::prepare(&database)?;
        Ok(Self { database })
    }

    /// In memory, for `verify` and `scan` without the host's own.
    ///
    /// # Errors
    /// No memory.
    pub fn in_memory() -> Result<Self, CatalogueError> {
        let database = Connection::open_in_memory()?;
        schema::prepare(&database)?;
        Ok(Self { database })
    }

    /// Takes a piece in, which stands in this tape file of this volume. `lines` hands all of its catalogue to the function that it is given.
    ///
    /// # Errors
    /// The catalogue is then as it was before. `Piece`: the lines are not a whole catalogue.
    pub fn take<E: From<CatalogueError>>(
        &mut self,
        label: &Label,
        file: u32,
        lines: impl FnOnce(&mut dyn FnMut(Line)) -> Result<(), E>,
    ) -> Result<(), E> {
        let transaction = self.database.transaction().map_err(CatalogueError::from)?;
        let mut intake = Intake { transaction, label, file, part: None, counts: (0, 0), ended: false, fault: None };
        intake.volume()?;
        lines(&mut |line| {
            if intake.fault.is_none() {
                intake.fault = intake.line(line).err();
            }
        })?;
        Ok(intake.finish()?)
    }

    /// The tape file that the next part on this volume begins with.
    ///
    /// # Errors
    /// The database fails.
    pub fn next_file(&self, volume_id: &str) -> Result<u32, CatalogueError> {
        let last: Option<u32> =
            self.database.query_row("SELECT max(file) FROM pieces WHERE volume = ?", [volume_id], |row| row.get(0))?;
        Ok(last.map_or(1, |last| last + 2))
    }

    /// Forgets what was on a volume: it is being overwritten.
    ///
    /// # Errors
    /// The database fails.
    pub fn forget(&mut self, volume_id: &str) -> Result<(), CatalogueError> {
        let transaction = self.database.transaction()?;
        transaction.execute("DELETE FROM volumes WHERE id = ?", [volume_id])?;
        transaction
            .execute("DELETE FROM parts WHERE NOT EXISTS (SELECT 1 FROM pieces WHERE pieces.part = parts.id)", [])?;
        Ok(transaction.commit()?)
    }

    /// The id of the newest volume of this name.
    ///
    /// # Errors
    /// The database fails.
    pub fn volume(&self, name: &str) -> Result<Option<String>, CatalogueError> {
        let mut query = self.database.prepare("SELECT id FROM volumes WHERE name = ? ORDER BY written DESC LIMIT 1")?;
        Ok(query.query_row([name], |row| row.get(0)).optional()?)
    }

    /// Names of all volumes, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub fn volumes(&self) -> Result<Vec<String>, CatalogueError> {
        let mut query = self.database.prepare("SELECT name FROM volumes ORDER BY written, name")?;
        let names = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    }

    /// What a source is to be asked to go on from: what the last whole part of this job and source said. None: everything is to be taken, also
    /// when something that the last part goes on from is gone (its volume was begun anew): nobody could restore what goes on from nothing.
    ///
    /// # Errors
    /// The database fails.
    pub fn next_token(&self, job: &str, source: &str) -> Result<Option<String>, CatalogueError> {
        let mut query = self.database.prepare("SELECT since, next FROM parts WHERE name = ?")?;
        let mut tokens = |part: &Part| -> rusqlite::Result<(Option<String>, Option<String>)> {
            query.query_row([&part.part], |row| Ok((row.get(0)?, row.get(1)?)))
        };
        let is_of_it = |part: &Part| part.job == job && part.source == source && part.is_whole;
        let mut newest_first = self.parts()?.into_iter().rev().filter(is_of_it);
        let Some(last) = newest_first.next() else { return Ok(None) };
        let (mut since, next) = tokens(&last)?;
        for before in newest_first {
            let Some(token) = &since else { break };
            let (its_since, its_next) = tokens(&before)?;
            if its_next.as_ref() == Some(token) {
                since = its_since;
            }
        }
        Ok(if since.is_none() { next } else { None })
    }

    /// All parts, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub fn parts(&self) -> Result<Vec<Part>, CatalogueError> {
        let mut query = self.database.prepare(
            "SELECT parts.id, parts.name, job, source, host, time, since IS NULL, \
             coalesce(sum(members), 0), coalesce(max(tar_len), 0), count(*), coalesce(max(piece), 0), min(goes_on), \
             group_concat(volumes.name, char(10) ORDER BY piece) \
             FROM parts JOIN pieces ON pieces.part = parts.id JOIN volumes ON volumes.id = pieces.volume \
             GROUP BY parts.id ORDER BY time, parts.id",
        )?;
        let part = |row: &Row<'_>| {
            let (count, last, least): (u32, u32, bool) = (row.get(9)?, row.get(10)?, row.get(11)?);
            let volumes: String = row.get(12)?;
            Ok(Part {
                part: row.get(1)?,
                job: row.get(2)?,
                source: row.get(3)?,
                host: row.get(4)?,
                time: number(row, 5)?,
                is_full: row.get(6)?,
                // The last piece alone does not go on.
                is_whole: count == last && !least,
                members: number(row, 7)?,
                bytes: number(row, 8)?,
                volumes: volumes.lines().map(str::to_owned).collect(),
            })
        };
        let parts = query.query_map([], part)?.collect::<Result<_, _>>()?;
        Ok(parts)
    }

    /// Members whose path fits the pattern of GLOB (`*` also over `/`), or lies below it; in the order in which they stand on tape.
    ///
    /// # Errors
    /// The database fails.
    pub fn find(&self, pattern: &str, part: Option<&str>) -> Result<Vec<Member>, CatalogueError> {
        let mut query = self.database.prepare(
            "SELECT parts.name, job, source, time, path, flag, size, mtime, blake3, at, len \
             FROM members JOIN parts ON parts.id = members.part \
             WHERE (CAST(path AS TEXT) GLOB ?1 OR CAST(path AS TEXT) GLOB ?2) AND (?3 IS NULL OR parts.name = ?3) \
             ORDER BY time, parts.id, at",
        )?;
        let below = format!("{}/*", pattern.trim_end_matches('/'));
        let member = |row: &Row<'_>| {
            Ok(Member {
                part: row.get(0)?,
                job: row.get(1)?,
                source: row.get(2)?,
                time: number(row, 3)?,
                path: row.get(4)?,
                flag: row.get(5)?,
                size: number(row, 6)?,
                mtime: row.get(7)?,
                blake3: row.get(8)?,
                at: number(row, 9)?,
                len: number(row, 10)?,
            })
        };
        let members = query.query_map(params![pattern, below, part], member)?.collect::<Result<_, _>>()?;
        Ok(members)
    }

    /// Frames of a part that have something of these octets of its stream, in order.
    ///
    /// # Errors
    /// The database fails.
    pub fn frames(&self, part: &str, begin: u64, end: u64) -> Result<Vec<Frame>, CatalogueError> {
        let mut query = self.database.prepare_cached(
            "SELECT at, len, volumes.id, volumes.name, block_bytes, frames.file, block, offset \
             FROM frames JOIN parts ON parts.id = frames.part JOIN volumes ON volumes.id = frames.volume \
             WHERE parts.name = ?1 AND at < ?3 AND at >= coalesce((SELECT max(f.at) FROM frames f \
               WHERE f.part = parts.id AND f.at <= ?2), 0) \
             ORDER BY at",
        )?;
        let frame = |row: &Row<'_>| {
            Ok(Frame {
                at: number(row, 0)?,
                len: number(row, 1)?,
                volume_id: row.get(2)?,
                volume: row.get(3)?,
                block_bytes: usize::try_from(number(row, 4)?).unwrap_or(usize::MAX),
                file: row.get(5)?,
                block: row.get(6)?,
                offset: row.get(7)?,
            })
        };
        let frames = query.query_map(params![part, signed(begin), signed(end)], frame)?.collect::<Result<_, _>>()?;
        Ok(frames)
    }
}

/// A piece on its way into the database.
struct Intake<'a> {
    transaction: Transaction<'a>,
    label: &'a Label,
    file: u32,
    /// Its row, and the number of the piece.
    part: Option<(i64, u32)>,
    /// Members and frames so far.
    counts: (u64, u64),
    ended: bool,
    fault: Option<CatalogueError>,
}

impl Intake<'_> {
    fn volume(&self) -> Result<(), CatalogueError> {
        let Label { id, volume, written, block_bytes, .. } = self.label;
        self.transaction.execute(
            "INSERT INTO volumes (id, name, written, block_bytes) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            params![id, volume, signed(*written), signed(*block_bytes)],
        )?;
        Ok(())
    }

    fn line(&mut self, line: Line) -> Result<(), CatalogueError> {
        if self.ended {
            return Err(CatalogueError::Piece("something follows its end"));
        }
        match line {
            Line::Part(part) => self.begin(&part),
            Line::Member(member) => self.member(&member),
            Line::Frame(frame) => self.frame(&frame),
            Line::End(end) => {
                if self.counts != (end.members, end.frames) {
                    return Err(CatalogueError::Piece("lines are missing"));
                }
                let (part, piece) = self.part()?;
                self.transaction.execute(
                    "UPDATE pieces SET members = ?, tar_len = ?, goes_on = ? WHERE part = ? AND piece = ?",
                    params![signed(end.members), signed(end.tar_len), end.goes_on, part, piece],
                )?;
                self.ended = true;
                Ok(())
            }
        }
    }

    fn part(&self) -> Result<(i64, u32), CatalogueError> {
        self.part.ok_or(CatalogueError::Piece("its first line is missing"))
    }

    fn begin(&mut self, line: &PartLine) -> Result<(), CatalogueError> {
        if self.part.is_some() {
            return Err(CatalogueError::Piece("it has two first lines"));
        }
        let id: i64 = self.transaction.query_row(
            "INSERT INTO parts (name, job, source, host, time, since, next) VALUES (?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (name) DO UPDATE SET name = name RETURNING id",
            params![line.part, line.job, line.source, line.host, signed(line.time), line.since, line.next],
            |row| row.get(0),
        )?;
        // Known already: it is taken in anew. What stands at this place of the volume now is this.
        self.transaction.execute(
            "DELETE FROM pieces WHERE part = ?1 AND piece = ?2 OR volume = ?3 AND file >= ?4",
            params![id, line.piece, self.label.id, self.file],
        )?;
        self.transaction.execute(
            "INSERT INTO pieces (part, piece, volume, file, members, tar_len, goes_on) VALUES (?, ?, ?, ?, 0, 0, 1)",
            params![id, line.piece, self.label.id, self.file],
        )?;
        self.part = Some((id, line.piece));
        Ok(())
    }

    fn member(&mut self, line: &MemberLine) -> Result<(), CatalogueError> {
        let (part, piece) = self.part()?;
        let path = line.path_octets().ok_or(CatalogueError::Piece("a path is not understood"))?;
        let hash = hex::decode(&line.blake3).ok().filter(|hash| hash.len() == blake3::OUT_LEN);
        let hash = hash.ok_or(CatalogueError::Piece("a hash is not understood"))?;
        let flag = u8::try_from(u32::from(line.flag)).map_err(|_| CatalogueError::Piece("a type is not understood"))?;
        self.transaction
            .prepare_cached(
                "INSERT INTO members (part, piece, path, flag, size, mtime, blake3, at, len) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                part,
                piece,
                path,
                flag,
                signed(line.size),
                line.mtime,
                hash,
                signed(line.at),
                signed(line.len)
            ])?;
        self.counts.0 += 1;
        Ok(())
    }

    fn frame(&mut self, line: &FrameLine) -> Result<(), CatalogueError> {
        let (part, piece) = self.part()?;
        self.transaction
            .prepare_cached(
                "INSERT INTO frames (part, piece, at, len, volume, file, block, offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (part, at) DO UPDATE SET piece = excluded.piece, volume = excluded.volume, \
                 file = excluded.file, block = excluded.block, offset = excluded.offset",
            )?
            .execute(params![
                part,
                piece,
                signed(line.at),
                signed(line.len),
                self.label.id,
                // The volume knows best in which file it is read.
                self.file,
                line.block,
                line.offset
            ])?;
        self.counts.1 += 1;
        Ok(())
    }

    fn finish(self) -> Result<(), CatalogueError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if !self.ended {
            return Err(CatalogueError::Piece("its end is missing"));
        }
        Ok(self.transaction.commit()?)
    }
}

/// SQLite has no unsigned numbers; nothing here comes near the bound.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}
