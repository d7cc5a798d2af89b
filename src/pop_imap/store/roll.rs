//! The roll of a large mailbox: its rows once more, packed into one piece that is read at once when the mailbox is opened.
//!
//! Owns: the tables `roll` and `roll_changed`, the packing, when a roll is to be written anew. Called by: `open` (reads),
//! `apply` (notes what has changed since), `upkeep` (has it written, when nobody waits), `check`. Never: says anything that
//! `message` does not: a roll can be deleted at any time, and one that does not fit is not used.
//!
//! Invariants:
//! - every message whose UID is under `below` stands in the roll, or came to be as `roll_changed` says: new flags, or gone;
//! - both tables change within the transaction that changes `message`: whatever crashes, they fit together.
//!
//! A hundred thousand rows of `message` are a thousand pages all over the file; a roll takes four to eight octets a row, in
//! pages one behind the other: a format octet, a CRC-32C of what follows, and the chunks of the view, each with what is asked
//! of a mailbox when it is opened (how many, how many unseen, the first UID) before its packed rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::MailboxId;
use super::apply::{Apply, read_row, split_keywords};
use super::columns;
use super::flags::Flags;
use super::tables::{from_sql, from_sql32, to_sql};
use super::view::{CHUNK_ROWS, PackedChunk, Row, Rows, View};
use crate::message::pack::{Malformed, Packer, Unpacker};

/// First octet of a roll; one with another is not read.
const FORMAT: u8 = 2;
/// A roll may lack so many rows or changes before it is worth writing anew: they are read from the tables in no time.
const LACKING_MIN: u32 = if cfg!(test) { 3 } else { 256 };
/// It is written anew though mail keeps coming when it lacks one row in so many: what that costs each message is bounded.
const LACKING_URGENT_DIVISOR: u32 = 32;
/// It is given up when one row in so many has changed: noting more would cost more than it saves.
const CHANGED_MAX_DIVISOR: u32 = 8;

/// Whether a roll is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// When nothing else is to be done.
    AtLeisure,
    Soon,
}

/// What the applier knows of a mailbox's roll.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RollHead {
    /// The roll is about UIDs under this; 0: there is none.
    pub(super) below: u32,
    /// Rows in it.
    rows: u32,
    /// Changes noted since, at least.
    changed: u32,
}

impl RollHead {
    /// Of a mailbox; none has the same as an empty one.
    pub(super) fn load(sql: &Connection, mailbox: MailboxId) -> rusqlite::Result<Self> {
        let mut select = sql.prepare_cached(
            "SELECT below, messages, (SELECT count(*) FROM roll_changed c WHERE c.mailbox = r.mailbox) \
             FROM roll r WHERE mailbox = ?1",
        )?;
        let head = select.query_row([to_sql(mailbox.0)], |row| {
            Ok(Self { below: from_sql32(row.get(0)?), rows: from_sql32(row.get(1)?), changed: from_sql32(row.get(2)?) })
        });
        Ok(head.optional()?.unwrap_or_default())
    }

    /// Whether a mailbox of so many messages should have another one.
    pub(super) fn due(&self, messages: u32) -> Option<Due> {
        let lacking = self.changed.saturating_add(messages.saturating_sub(self.rows));
        if lacking < LACKING_MIN {
            None
        } else if lacking < LACKING_MIN + self.rows / LACKING_URGENT_DIVISOR {
            Some(Due::AtLeisure)
        } else {
            Some(Due::Soon)
        }
    }

    /// Notes that a message has other flags now, or is gone.
    pub(super) fn changed(
        &mut self,
        sql: &Connection,
        mailbox: MailboxId,
        uid: u32,
        now: Option<(Flags, u64)>,
    ) -> rusqlite::Result<()> {
        if uid >= self.below {
            return Ok(());
        }
        if self.changed >= LACKING_MIN + self.rows / CHANGED_MAX_DIVISOR {
            return self.forget(sql, mailbox);
        }
        self.changed += 1;
        let (flags, modseq) = now.unzip();
        sql.prepare_cached("INSERT OR REPLACE INTO roll_changed VALUES (?1, ?2, ?3, ?4)")?.execute((
            to_sql(mailbox.0),
            uid,
            flags.map(|flags| to_sql(flags.to_raw())),
            modseq.map(to_sql),
        ))?;
        Ok(())
    }

    /// Deletes the roll.
    pub(super) fn forget(&mut self, sql: &Connection, mailbox: MailboxId) -> rusqlite::Result<()> {
        if self.below > 0 {
            *self = Self::default();
            for text in ["DELETE FROM roll WHERE mailbox = ?1", "DELETE FROM roll_changed WHERE mailbox = ?1"] {
                sql.prepare_cached(text)?.execute([to_sql(mailbox.0)])?;
            }
        }
        Ok(())
    }
}

/// A roll, ready to be put into its table.
#[derive(Debug)]
pub(super) struct Roll {
    mailbox: MailboxId,
    below: u32,
    /// It is as of this modseq.
    pub(super) modseq: u64,
    messages: u32,
    packed: Vec<u8>,
}

impl Roll {
    /// Of a mailbox as it is; none when it is gone.
    pub(super) fn of(sql: &Connection, mailbox: MailboxId) -> rusqlite::Result<Option<Self>> {
        let Some((view, _)) = read_view(sql, mailbox)? else { return Ok(None) };
        Ok(Some(Self {
            mailbox,
            below: view.uid_next,
            modseq: view.highest_modseq,
            messages: number(view.messages.len()),
            packed: pack(&view.messages),
        }))
    }

    /// Puts it in the place of the one before, in a transaction of its own; false: messages that it holds have changed
    /// since it was made.
    pub(super) fn put(&self, connection: &mut Connection, apply: &mut Apply) -> rusqlite::Result<bool> {
        let transaction = connection.transaction()?;
        let Some(head) = apply.roll_head(&transaction, self.mailbox, self.modseq)? else { return Ok(false) };
        let (id, below) = (to_sql(self.mailbox.0), self.below);
        transaction.execute("DELETE FROM roll_changed WHERE mailbox = ?1", [id])?;
        let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO roll VALUES (?1, ?2, ?3, ?4)")?;
        insert.execute((id, below, self.messages, self.packed.as_slice()))?;
        *head = RollHead { below, rows: self.messages, changed: 0 };
        drop(insert);
        transaction.commit()?;
        Ok(true)
    }
}

/// A mailbox as the view's tables have it, and whether its roll is due; none when it is not there.
pub(super) fn read_view(sql: &Connection, id: MailboxId) -> rusqlite::Result<Option<(View, Option<Due>)>> {
    let mut select =
        sql.prepare_cached("SELECT uid_next, modseq, keywords, messages, unseen FROM mailbox WHERE id = ?1")?;
    let head = select.query_row([to_sql(id.0)], |row| {
        let keywords = split_keywords(row.get_ref(2)?.as_str()?);
        let view = View {
            uid_next: from_sql32(row.get(0)?),
            highest_modseq: from_sql(row.get(1)?),
            keywords: keywords.into(),
            messages: Rows::default(),
        };
        Ok((view, (from_sql32(row.get(3)?), from_sql32(row.get(4)?))))
    });
    let Some((view, counts)) = head.optional()? else { return Ok(None) };
    let (messages, head) = match read_with_roll(sql, id)? {
        Some((rows, _)) if (number(rows.len()), number(rows.unseen())) != counts => {
            tracing::warn!(mailbox = id.0, "a roll does not fit its mailbox; it is not used");
            (read_rows(sql, id, 0)?, RollHead::default())
        }
        Some(read) => read,
        None => (read_rows(sql, id, 0)?, RollHead::default()),
    };
    let due = head.due(number(messages.len()));
    Ok(Some((View { messages, ..view }, due)))
}

/// UIDs have 32 bits, and so has the number of messages.
fn number(messages: usize) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}

/// The rows of `message` from this UID on.
pub(super) fn read_rows(sql: &Connection, id: MailboxId, from: u32) -> rusqlite::Result<Rows> {
    Ok(Rows::from_sorted(&select_rows(sql, id, from)?))
}

fn select_rows(sql: &Connection, id: MailboxId, from: u32) -> rusqlite::Result<Vec<Row>> {
    let mut select = sql.prepare_cached(
        "SELECT uid, flags, modseq, size, internal_date, content FROM message WHERE mailbox = ?1 AND uid >= ?2 ORDER BY uid",
    )?;
    let mut rows = Vec::new();
    let mut found = select.query((to_sql(id.0), from))?;
    while let Some(row) = found.next()? {
        rows.push(read_row(row)?);
    }
    Ok(rows)
}

/// All rows by means of the roll: what it has, less what has changed, and those behind it.
pub(super) fn read_with_roll(sql: &Connection, id: MailboxId) -> rusqlite::Result<Option<(Rows, RollHead)>> {
    let mut select = sql.prepare_cached(
        "SELECT below, rows, below < uid_next FROM roll JOIN mailbox ON mailbox.id = roll.mailbox WHERE mailbox.id = ?1",
    )?;
    let found = select.query_row([to_sql(id.0)], |row| {
        Ok((from_sql32(row.get(0)?), unpack(row.get_ref(1)?.as_blob()?), row.get::<_, bool>(2)?))
    });
    let (below, mut rows, more) = match found.optional()? {
        Some((below, Ok(rows), more)) => (below, rows, more),
        Some((_, Err(error), _)) => {
            tracing::warn!(mailbox = id.0, %error, "a roll cannot be read; it is not used");
            return Ok(None);
        }
        None => return Ok(None),
    };
    let mut head = RollHead { below, rows: number(rows.len()), changed: 0 };
    let mut select = sql.prepare_cached("SELECT uid, flags, modseq FROM roll_changed WHERE mailbox = ?1")?;
    let changes = select.query_map([to_sql(id.0)], |row| {
        let (flags, modseq): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
        let now = flags.zip(modseq).map(|(flags, modseq)| (Flags::from_raw(from_sql(flags)), from_sql(modseq)));
        Ok((from_sql32(row.get(0)?), now))
    })?;
    let changes = changes.collect::<rusqlite::Result<BTreeMap<u32, Option<(Flags, u64)>>>>()?;
    if !changes.is_empty() {
        head.changed = number(changes.len());
        rows.edit(&changes);
    }
    // Pages of `message` are far from those of the roll: they are not read for nothing.
    if more {
        rows.push_all(&select_rows(sql, id, below)?);
    }
    Ok(Some((rows, head)))
}

/// Packs rows.
pub(super) fn pack(rows: &Rows) -> Vec<u8> {
    let mut out = Packer::with_capacity(rows.len() * 6);
    let all: Vec<Row> = rows.iter().copied().collect();
    for rows in all.chunks(CHUNK_ROWS) {
        out.count(rows.len());
        out.number(rows.first().map_or(0, |row| row.uid).into());
        out.count(rows.iter().filter(|row| !row.flags.contains(Flags::SEEN)).count());
        out.bytes(&columns::pack(rows));
    }
    let chunks = out.finish();
    let mut out = Packer::with_capacity(chunks.len() + 5);
    out.byte(FORMAT);
    out.raw(&crc32c::crc32c(&chunks).to_le_bytes());
    out.raw(&chunks);
    out.finish()
}

/// Rows out of what `pack` made; they stay packed until someone looks at them.
pub(super) fn unpack(roll: &[u8]) -> Result<Rows, Malformed> {
    let mut input = Unpacker::new(roll);
    if input.byte()? != FORMAT || input.raw(4)? != crc32c::crc32c(input.rest()).to_le_bytes() {
        return Err(Malformed);
    }
    let whole = Bytes::copy_from_slice(input.rest());
    let mut input = Unpacker::new(&whole);
    let mut chunks = Vec::with_capacity(whole.len() / (CHUNK_ROWS * 4));
    let mut last = 0;
    while !input.is_empty() {
        let (len, first_uid, unseen) = (input.count()?, input.number32()?, input.count()?);
        let packed = whole.slice_ref(input.bytes()?);
        if len == 0 || len > CHUNK_ROWS || first_uid <= last || unseen > len {
            return Err(Malformed);
        }
        last = first_uid;
        chunks.push(PackedChunk { first_uid, len, unseen, packed });
    }
    Ok(Rows::from_packed(chunks))
}
