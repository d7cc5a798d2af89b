//! Reading: lists of mailboxes, messages, header blocks, envelopes, structures.
//!
//! Owns: the questions that are answered from the view and the ledger. Called by: `Store`. All of it blocks.
//! Never: changes anything.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use super::apply::select_trace;
use super::error::StoreError;
use super::name::{INBOX, SEPARATOR, SpecialUse};
use super::record;
use super::tables::{Readers, from_sql, from_sql32, to_sql};
use super::view::Row;
use super::{AccountId, MailboxId, MailboxInfo};
use crate::ledger::{Ledger, LedgerError, Position};
use crate::message::header;
use crate::message::structure::{Envelope, Structure};

/// Octets of messages that one `messages` call answers with.
pub const MESSAGES_READ_LEN_MAX: usize = 8 << 20;
/// How often a message is looked up again when compaction has moved it in between.
const MOVED_RETRIES: usize = 3;

/// What a blocking read needs; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) readers: std::sync::Arc<Readers>,
    pub(super) ledger: Ledger,
}

const INFO: &str = "SELECT id, name, uid_validity, uid_next, modseq, special_use, messages, unseen, deleted, bytes, \
     EXISTS (SELECT 1 FROM subscription s WHERE s.account = m.account AND s.name = m.name) FROM mailbox m WHERE account = ?1";

fn read_info(row: &rusqlite::Row<'_>) -> rusqlite::Result<MailboxInfo> {
    Ok(MailboxInfo {
        id: MailboxId(from_sql(row.get(0)?)),
        name: row.get(1)?,
        uid_validity: from_sql32(row.get(2)?),
        uid_next: from_sql32(row.get(3)?),
        highest_modseq: from_sql(row.get(4)?),
        special_use: SpecialUse::from_code(row.get(5)?),
        messages: from_sql32(row.get(6)?),
        unseen: from_sql32(row.get(7)?),
        deleted: from_sql32(row.get(8)?),
        size: from_sql(row.get(9)?),
        subscribed: row.get(10)?,
        has_children: false,
        recent: 0,
    })
}

impl Reading {
    /// All mailboxes of an account: INBOX first, then by name.
    pub(super) fn mailboxes(&self, account: &AccountId) -> Result<Vec<MailboxInfo>, StoreError> {
        let mut mailboxes = self.readers.read(|sql| {
            let mut select = sql.prepare_cached(INFO)?;
            let found: rusqlite::Result<Vec<MailboxInfo>> = select.query_map([account], read_info)?.collect();
            Ok(found?)
        })?;
        // By levels, so that what is below a name follows it whatever characters come before the separator.
        mailboxes.sort_by(|one, other| {
            let key = |info: &MailboxInfo| (info.name != INBOX, info.name.replace(SEPARATOR, "\0"));
            key(one).cmp(&key(other))
        });
        for at in 0..mailboxes.len() {
            let (Some(this), next) = (mailboxes.get(at), mailboxes.get(at + 1)) else { break };
            // INBOX stands first, apart from what is below it.
            let below = |info: &MailboxInfo| super::name::below(&info.name, &this.name).is_some();
            let has = if this.name == INBOX { mailboxes.iter().any(below) } else { next.is_some_and(below) };
            if let Some(this) = mailboxes.get_mut(at) {
                this.has_children = has;
            }
        }
        Ok(mailboxes)
    }

    /// One mailbox.
    pub(super) fn mailbox(&self, account: &AccountId, name: &str) -> Result<Option<MailboxInfo>, StoreError> {
        self.readers.read(|sql| {
            let mut select = sql.prepare_cached(&format!("{INFO} AND name = ?2"))?;
            let Some(mut info) = select.query_row((account, name), read_info).optional()? else { return Ok(None) };
            // "0" is what follows "/" in the order of bytes.
            let mut children = sql.prepare_cached(
                "SELECT 1 FROM mailbox WHERE account = ?1 AND name > ?2 || '/' AND name < ?2 || '0' LIMIT 1",
            )?;
            info.has_children = children.exists((account, name))?;
            Ok(Some(info))
        })
    }

    pub(super) fn subscriptions(&self, account: &AccountId) -> Result<Vec<String>, StoreError> {
        self.readers.read(|sql| {
            let mut select = sql.prepare_cached("SELECT name FROM subscription WHERE account = ?1 ORDER BY name")?;
            let names: rusqlite::Result<Vec<String>> = select.query_map([account], |row| row.get(0))?.collect();
            Ok(names?)
        })
    }

    /// The messages of these rows, from the first on, as many as fit the bound.
    pub(super) fn messages(&self, mailbox: MailboxId, rows: &[Option<Row>]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut room = MESSAGES_READ_LEN_MAX;
        let fits = |row: &&Option<Row>| {
            let size = row.map_or(0, |row| usize::try_from(row.size).unwrap_or(usize::MAX));
            let first = room == MESSAGES_READ_LEN_MAX;
            let fits = room.checked_sub(size);
            room = fits.unwrap_or(0);
            first || fits.is_some()
        };
        let rows: Vec<Option<Row>> = rows.iter().take_while(fits).copied().collect();
        let places = self.readers.read(|sql| rows.iter().map(|row| find(sql, mailbox, row.as_ref())).collect());
        let places: Vec<Option<Place>> = places?;
        rows.iter().zip(places).map(|(row, place)| self.fetch(mailbox, row.as_ref(), place)).collect()
    }

    /// The bytes at a place, with the trace before them.
    fn fetch(&self, mailbox: MailboxId, row: Option<&Row>, place: Option<Place>) -> Result<Option<Bytes>, StoreError> {
        let mut place = place;
        for _ in 0..MOVED_RETRIES {
            let Some(found) = place else { return Ok(None) };
            match self.ledger.read_expecting(found.position, found.record_len) {
                Ok(entry) => return Ok(Some(joined(&found, &entry.payload)?)),
                // Compaction has moved the message since its place was read.
                Err(LedgerError::NoSuchRecord { .. } | LedgerError::Io { .. }) => {
                    place = self.readers.read(|sql| find(sql, mailbox, row))?;
                    if place.as_ref().is_some_and(|again| again.position == found.position) {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Malformed("place of a message"))
    }

    /// The header blocks of these rows.
    pub(super) fn headers(&self, mailbox: MailboxId, rows: &[Option<Row>]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut out = Vec::with_capacity(rows.len());
        while let Some(rest) = rows.get(out.len()..)
            && !rest.is_empty()
        {
            for message in self.messages(mailbox, rest)? {
                // A copy, so that the block does not keep the message in memory.
                out.push(message.map(|bytes| Bytes::copy_from_slice(block(&bytes))));
            }
        }
        Ok(out)
    }

    /// What `decode` makes of the kept structures of these rows; the second argument is the length of the trace.
    fn kept<T>(
        &self,
        mailbox: MailboxId,
        rows: &[Option<Row>],
        decode: impl Fn(&[u8], u32) -> Option<T>,
        derive: impl Fn(Structure) -> T,
    ) -> Result<Vec<Option<T>>, StoreError> {
        let kept = self.readers.read(|sql| {
            let mut select = sql.prepare_cached("SELECT structure, size FROM content WHERE id = ?1")?;
            let mut one = |row: &Option<Row>| {
                let Some(row) = row else { return Ok(Some(None)) };
                let found = select.query_row([to_sql(row.message.0)], |found| {
                    let trace = row.size.saturating_sub(from_sql32(found.get(1)?));
                    Ok(decode(found.get_ref(0)?.as_blob()?, trace).map(Some))
                });
                Ok(found.optional()?.unwrap_or(Some(None)))
            };
            rows.iter().map(&mut one).collect::<Result<Vec<Option<Option<T>>>, StoreError>>()
        })?;
        let mut out = Vec::with_capacity(kept.len());
        for (at, kept) in kept.into_iter().enumerate() {
            out.push(match kept {
                Some(found) => found,
                // Kept by another version of this program: derived again.
                None => {
                    let row = rows.get(at..=at).unwrap_or_default();
                    let message = self.messages(mailbox, row)?.pop().flatten();
                    message.map(|bytes| derive(Structure::parse(&bytes)))
                }
            });
        }
        Ok(out)
    }

    pub(super) fn envelopes(
        &self,
        mailbox: MailboxId,
        rows: &[Option<Row>],
    ) -> Result<Vec<Option<Envelope>>, StoreError> {
        let decode = |bytes: &[u8], _| Envelope::decode(bytes).ok();
        self.kept(mailbox, rows, decode, |structure| structure.envelope)
    }

    pub(super) fn structures(
        &self,
        mailbox: MailboxId,
        rows: &[Option<Row>],
    ) -> Result<Vec<Option<Structure>>, StoreError> {
        let decode = |bytes: &[u8], trace| Structure::decode(bytes, trace).ok();
        self.kept(mailbox, rows, decode, |structure| structure)
    }
}

/// Where a message of a mailbox stands.
struct Place {
    position: Position,
    /// Octets of its record, at most; fewer when it was compressed.
    record_len: usize,
    trace: Vec<u8>,
}

fn find(sql: &Connection, mailbox: MailboxId, row: Option<&Row>) -> Result<Option<Place>, StoreError> {
    let Some(row) = row else { return Ok(None) };
    let mut select = sql.prepare_cached("SELECT segment, offset, size FROM content WHERE id = ?1")?;
    let found = select.query_row([to_sql(row.message.0)], |found| {
        let position = Position { segment: from_sql(found.get(0)?), offset: from_sql(found.get(1)?) };
        Ok((position, from_sql32(found.get(2)?)))
    });
    let Some((position, size)) = found.optional()? else { return Ok(None) };
    let trace = if size < row.size { select_trace(sql, mailbox, row.uid)? } else { Vec::new() };
    // The trace goes with the message's row: without it the message is being expunged.
    if u64::from(size) + u64::try_from(trace.len()).unwrap_or(0) != u64::from(row.size) {
        return Ok(None);
    }
    let record_len = record::MESSAGE_PREFIX_LEN + usize::try_from(size).unwrap_or(usize::MAX / 2);
    Ok(Some(Place { position, record_len, trace }))
}

/// Trace and message as one.
fn joined(place: &Place, payload: &Bytes) -> Result<Bytes, StoreError> {
    let (_, message) = record::read_message(payload)?;
    if place.trace.is_empty() {
        return Ok(message);
    }
    let mut out = Vec::with_capacity(place.trace.len() + message.len());
    out.extend_from_slice(&place.trace);
    out.extend_from_slice(&message);
    Ok(out.into())
}

fn block(message: &[u8]) -> &[u8] {
    message.get(..header::block_end(message)).unwrap_or_default()
}
