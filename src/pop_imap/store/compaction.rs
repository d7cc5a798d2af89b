//! Giving space back: mostly dead segments of the ledger are emptied and removed.
//!
//! Owns: which segments are worth it, writing states of accounts, moving live messages. Called by: `upkeep`, tests.
//! Never: removes a segment before the view that no longer needs it is on the disk.
//!
//! A message lives while a mailbox has it. Changes are dead when the account has a later state, so the states of all
//! accounts with changes in the segment are written first; the counters too, lest an id be given out twice, and the keys of
//! deliveries that are still remembered.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use rusqlite::Connection;

use super::applier::{Task, Work};
use super::apply::{Apply, read_row, select_trace, split_keywords};
use super::error::StoreError;
use super::name::SpecialUse;
use super::record::{self, Changes, NewMailbox, StateBody, StateMailbox, StatePart};
use super::recovery::note_state;
use super::repeats::{self, DeliveryKey};
use super::tables::{Readers, from_sql, from_sql32, read_progress, to_sql};
use super::view::MessageId;
use super::writer::Queue;
use super::{AccountId, MailboxId, free_space, writer};
use crate::ledger::{Entry, Ledger, Position, SegmentInfo};

/// A segment is looked at when fewer than this many percent of its message bytes live.
const LIVE_PERCENT_MAX: i64 = 50;
/// A segment is emptied when so many percent of its payload come free, new states taken into account.
const GAIN_PERCENT_MIN: u64 = 40;
/// The same while there is too little free space: then more work is worth less gain.
const LIVE_PERCENT_MAX_SHORT: i64 = 90;
const GAIN_PERCENT_MIN_SHORT: u64 = 10;
/// Octets from which on the segment that takes records is ended before it is full, when it is mostly dead and space is short. A small disk may
/// hold nothing else.
const SEGMENT_BYTES_MIN_SHORT: u64 = 256 << 10;
/// Free octets that have to be left when all that lives of a segment has been written once more.
const SPARE_BYTES: u64 = 1 << 20;
/// Messages of one part of a state.
const STATE_PART_MESSAGES: usize = 2_000;
/// Pages of SQLite's log after which the applier itself makes a checkpoint, between two batches, so that the log begins anew.
const LOG_PAGES_MAX: i64 = 8_192;
/// Octets of state parts of one append.
const STATE_APPEND_BYTES: usize = 4 << 20;

/// What is needed to compact.
#[derive(Debug)]
pub(super) struct Compactor {
    pub(super) ledger: Ledger,
    pub(super) readers: Arc<Readers>,
    pub(super) applier: SyncSender<Work>,
    pub(super) view: PathBuf,
    pub(super) queue: Queue,
    /// Free space below which there is too little.
    pub(super) free_space_min: u64,
    /// There was too little, the last time.
    pub(super) was_short: bool,
    /// Segments that were not worth it, and how much lived in them then.
    pub(super) rejected: HashMap<u64, i64>,
    /// Held by snapshots that are being read: what they show may be expunged meanwhile, and is to stay till then.
    pub(super) held: Arc<()>,
}

/// What a segment holds.
#[derive(Default)]
struct Survey {
    /// Octets of payload.
    bytes: u64,
    live_bytes: u64,
    /// The last change of each account that has changes here.
    changed: HashMap<AccountId, u64>,
    /// Accounts with a state record here.
    states: HashSet<AccountId>,
    /// Keys of deliveries that stand here.
    keys: HashSet<DeliveryKey>,
}

impl Compactor {
    /// Empties and removes one segment, if there is one that is worth it. Blocks.
    ///
    /// While there is too little free space, it is worth more; and nothing is begun that there is no room for: what lives is written once
    /// more before anything is removed.
    pub(super) fn compact_one(&mut self) -> Result<Option<u64>, StoreError> {
        let free = free_space(&self.view)?;
        let is_short = free < self.free_space_min;
        if std::mem::replace(&mut self.was_short, is_short) != is_short {
            self.rejected.clear();
        }
        // While there is too little space, those who send mail go before those who back it up: the snapshot then fails.
        if !is_short && Arc::strong_count(&self.held) > 1 {
            return Ok(None);
        }
        if is_short {
            self.end_segment()?;
        }
        let (live_max, gain_min) = match is_short {
            true => (LIVE_PERCENT_MAX_SHORT, GAIN_PERCENT_MIN_SHORT),
            false => (LIVE_PERCENT_MAX, GAIN_PERCENT_MIN),
        };
        for (segment, live) in self.candidates(live_max)? {
            let survey = self.survey(segment)?;
            let accounts = self.without_later_state(segment, &survey)?;
            let states = self.state_bytes(&accounts)?;
            let gain = survey.bytes.saturating_sub(survey.live_bytes).saturating_sub(states);
            if gain * 100 < survey.bytes * gain_min {
                self.rejected.insert(segment, live);
                continue;
            }
            let needed = survey.live_bytes.saturating_add(states).saturating_add(SPARE_BYTES);
            if free < needed {
                tracing::warn!(segment, free, needed, "no room to compact a segment");
                continue;
            }
            self.write_states(&accounts)?;
            self.write_repeats(&survey.keys)?;
            self.move_messages(segment)?;
            self.checkpoint()?;
            self.ledger.remove(segment)?;
            tracing::info!(segment, bytes = survey.bytes, live = survey.live_bytes, "segment compacted");
            return Ok(Some(segment));
        }
        Ok(None)
    }

    /// Whether there is too little free space; no when that cannot be told.
    pub(super) fn is_short(&self) -> bool {
        free_space(&self.view).is_ok_and(|free| free < self.free_space_min)
    }

    /// Ends the segment that takes records if it is mostly dead.
    fn end_segment(&self) -> Result<(), StoreError> {
        let open = self.ledger.segments().last().copied();
        let Some(open) = open.filter(|open| !open.sealed && open.bytes >= SEGMENT_BYTES_MIN_SHORT) else {
            return Ok(());
        };
        let (written, live) = self.readers.read(|sql| Ok(counts(sql, open.id)?))?;
        if live * 100 <= written * LIVE_PERCENT_MAX { self.queue.begin_segment() } else { Ok(()) }
    }

    /// Sealed segments that are applied and of which at most so many percent live, with their live bytes; those first that cost least.
    fn candidates(&self, live_percent_max: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        let sealed: Vec<SegmentInfo> = self.ledger.segments().into_iter().filter(|segment| segment.sealed).collect();
        self.readers.read(|sql| {
            let applied = read_progress(sql)?.position.map_or(0, |position| position.segment);
            let mut found = Vec::new();
            for segment in sealed.iter().filter(|segment| segment.id < applied) {
                let (written, live) = counts(sql, segment.id)?;
                // Looked at again only after much more has died in it.
                let rejected =
                    self.rejected.get(&segment.id).is_some_and(|before| live * 10 > before * 9 || *before == 0);
                if live * 100 <= written * live_percent_max && !rejected {
                    found.push((segment.id, live));
                }
            }
            found.sort_by_key(|(_, live)| *live);
            Ok(found)
        })
    }

    /// Whether a message record is where the view has the message.
    fn lives(sql: &Connection, id: MessageId, position: Position) -> rusqlite::Result<bool> {
        let mut select = sql.prepare_cached("SELECT 1 FROM content WHERE id = ?1 AND segment = ?2 AND offset = ?3")?;
        select.exists((to_sql(id.0), to_sql(position.segment), to_sql(position.offset)))
    }

    /// Shows the records of one segment.
    fn each(
        &self,
        segment: u64,
        visit: &mut dyn FnMut(Position, &Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        let from = Position { segment, offset: 0 };
        self.ledger.replay(Some(from), &mut |position, entry| {
            if position.segment != segment {
                return std::ops::ControlFlow::Break(());
            }
            outcome = visit(position, &entry);
            if outcome.is_ok() { std::ops::ControlFlow::Continue(()) } else { std::ops::ControlFlow::Break(()) }
        })?;
        outcome
    }

    fn survey(&self, segment: u64) -> Result<Survey, StoreError> {
        let mut survey = Survey::default();
        self.each(segment, &mut |position, entry| {
            let bytes = u64::try_from(entry.payload.len()).unwrap_or(u64::MAX);
            survey.bytes += bytes;
            match entry.kind {
                record::KIND_MESSAGE => {
                    let (id, _) = record::read_message(&entry.payload)?;
                    if self.readers.read(|sql| Ok(Self::lives(sql, id, position)?))? {
                        survey.live_bytes += bytes;
                    }
                }
                record::KIND_CHANGES => {
                    let changes = Changes::decode(&entry.payload)?;
                    for (seq, change) in (changes.first..).zip(&changes.changes) {
                        survey.changed.insert(change.account, seq);
                    }
                    survey.keys.extend(repeats::keys_of(&changes.changes));
                }
                record::KIND_STATE => {
                    survey.states.insert(StatePart::decode(&entry.payload)?.account);
                }
                record::KIND_REPEATS => survey.keys.extend(record::read_repeats(&entry.payload)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(survey)
    }

    /// Accounts whose changes or state would be lost with the segment.
    fn without_later_state(&self, segment: u64, survey: &Survey) -> Result<Vec<AccountId>, StoreError> {
        let everyone: HashSet<AccountId> = survey.changed.keys().chain(&survey.states).copied().collect();
        self.readers.read(|sql| {
            let mut select = sql.prepare_cached("SELECT as_of, segment FROM state WHERE account = ?1")?;
            let mut out = Vec::new();
            for account in everyone {
                let state = select.query_row([&account], |row| Ok((from_sql(row.get(0)?), from_sql(row.get(1)?))));
                let state = rusqlite::OptionalExtension::optional(state)?;
                let last = survey.changed.get(&account).copied().unwrap_or(0);
                if !state.is_some_and(|(as_of, at)| as_of >= last && at > segment) {
                    out.push(account);
                }
            }
            Ok(out)
        })
    }

    /// What the states of these accounts will take, about.
    fn state_bytes(&self, accounts: &[AccountId]) -> Result<u64, StoreError> {
        self.readers.read(|sql| {
            let mut select = sql.prepare_cached(
                "SELECT coalesce(sum(100 + m.messages * 20 + \
                 (SELECT coalesce(sum(length(t.bytes)), 0) FROM trace t WHERE t.mailbox = m.id)), 0) \
                 FROM mailbox m WHERE m.account = ?1",
            )?;
            let mut bytes = 0;
            for account in accounts {
                bytes += from_sql(select.query_row([account], |row| row.get(0))?);
            }
            Ok(bytes)
        })
    }

    /// Writes the states of these accounts, each as of one moment, and the counters.
    fn write_states(&self, accounts: &[AccountId]) -> Result<(), StoreError> {
        let counters = self.readers.read(|sql| Ok(read_progress(sql)?.counters))?;
        // No part of these states stands before this segment.
        let oldest = self.ledger.end().segment;
        let mut entries = vec![writer::entry(record::KIND_COUNTERS, counters.encode())];
        let mut waiting: Vec<(AccountId, u64)> = Vec::new();
        let mut bytes = 0;
        for account in accounts {
            let parts = self.readers.read(|sql| state_of(sql, account))?;
            let as_of = parts.first().map_or(0, |part| part.as_of);
            for part in parts {
                let payload = part.encode();
                bytes += payload.len();
                entries.push(writer::entry(record::KIND_STATE, payload));
                if bytes >= STATE_APPEND_BYTES {
                    bytes = 0;
                    self.append_states(std::mem::take(&mut entries), oldest, &mut waiting)?;
                }
            }
            waiting.push((*account, as_of));
        }
        self.append_states(entries, oldest, &mut waiting)
    }

    /// Carries on the keys of deliveries that stand in the segment and are still remembered.
    fn write_repeats(&self, keys: &HashSet<DeliveryKey>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut remembered = self.readers.read(|sql| Ok(repeats::remembered(sql)?))?;
        remembered.retain(|key| keys.contains(key));
        if !remembered.is_empty() {
            self.ledger.append_blocking(vec![writer::entry(record::KIND_REPEATS, record::repeats(&remembered))])?;
        }
        Ok(())
    }

    /// Appends parts of states, and tells the view of the accounts that are complete with them.
    fn append_states(
        &self,
        entries: Vec<Entry>,
        oldest: u64,
        complete: &mut Vec<(AccountId, u64)>,
    ) -> Result<(), StoreError> {
        self.ledger.append_blocking(entries)?;
        let complete = std::mem::take(complete);
        if complete.is_empty() {
            return Ok(());
        }
        self.task(Box::new(move |connection, _| {
            let transaction = connection.transaction()?;
            for (account, as_of) in complete {
                note_state(&transaction, &account, as_of, oldest)?;
            }
            transaction.commit()
        }))
    }

    /// Appends the segment's live messages anew, and tells the view.
    fn move_messages(&self, segment: u64) -> Result<(), StoreError> {
        let mut kept = Vec::new();
        let mut fault = None;
        let moved = self.ledger.rewrite(segment, &mut |position, entry| {
            if entry.kind != record::KIND_MESSAGE || fault.is_some() {
                return false;
            }
            let keep = record::read_message(&entry.payload).map_err(StoreError::from).and_then(|(id, _)| {
                let lives = self.readers.read(|sql| Ok(Self::lives(sql, id, position)?))?;
                kept.extend(lives.then_some(id));
                Ok(lives)
            });
            keep.unwrap_or_else(|error| {
                fault = Some(error);
                false
            })
        })?;
        if let Some(error) = fault {
            return Err(error);
        }
        let moves: Vec<_> = kept.into_iter().zip(moved).map(|(id, (old, new))| (id, old, new)).collect();
        self.task(Box::new(move |connection, apply| {
            let transaction = connection.transaction()?;
            for (id, old, new) in moves {
                apply.moved(&transaction, id, old, new)?;
            }
            apply.flush(&transaction)?;
            transaction.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([to_sql(segment)])?;
            transaction.commit()
        }))
    }

    /// Moves what SQLite's log has into the database file. On a connection of its own: batches go on meanwhile.
    pub(super) fn move_log(&mut self) -> Result<(), StoreError> {
        let connection = super::tables::open_writer(&self.view)?;
        let pages: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
        if pages < LOG_PAGES_MAX {
            return Ok(());
        }
        // Little is left to do now; between two batches nobody writes, and the log can begin anew.
        self.task(Box::new(|connection, _| connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))))
    }

    /// Makes the view durable as it is now.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let connection = super::tables::open_writer(&self.view)?;
        let busy: bool = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0))?;
        if busy { Err(StoreError::Malformed("checkpoint: the view is busy")) } else { Ok(()) }
    }

    /// Has the applier work on the view.
    fn task(&self, task: Task) -> Result<(), StoreError> {
        let (answer, done) = sync_channel(1);
        self.applier.send(Work::Task(task, answer)).map_err(|_| StoreError::Closed)?;
        done.recv().map_err(|_| StoreError::Closed)?
    }
}

/// Octets of messages that were written to a segment, and those that live.
fn counts(sql: &Connection, segment: u64) -> rusqlite::Result<(i64, i64)> {
    let mut select = sql.prepare_cached("SELECT written, live FROM segment WHERE id = ?1")?;
    let counts = select.query_row([to_sql(segment)], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(rusqlite::OptionalExtension::optional(counts)?.unwrap_or((0, 0)))
}

impl Apply {
    /// A message stands somewhere else now, unless it was expunged or moved meanwhile.
    fn moved(&mut self, sql: &Connection, id: MessageId, old: Position, new: Position) -> rusqlite::Result<()> {
        let mut update = sql.prepare_cached(
            "UPDATE content SET segment = ?4, offset = ?5 WHERE id = ?1 AND segment = ?2 AND offset = ?3 RETURNING size",
        )?;
        let place = (to_sql(id.0), to_sql(old.segment), to_sql(old.offset), to_sql(new.segment), to_sql(new.offset));
        let size: Option<i64> = rusqlite::OptionalExtension::optional(update.query_row(place, |row| row.get(0)))?;
        if let Some(size) = size {
            self.count_move(old.segment, new.segment, size);
        }
        Ok(())
    }
}

/// All that an account has, in parts.
fn state_of(sql: &Connection, account: &AccountId) -> Result<Vec<StatePart>, StoreError> {
    let as_of = read_progress(sql)?.counters.seq;
    let mut select = sql.prepare_cached(
        "SELECT id, name, uid_validity, special_use, uid_next, modseq, keywords FROM mailbox WHERE account = ?1",
    )?;
    let mailboxes = select.query_map([account], |row| {
        let new = NewMailbox {
            id: MailboxId(from_sql(row.get(0)?)),
            name: row.get(1)?,
            uid_validity: from_sql32(row.get(2)?),
            special_use: SpecialUse::from_code(row.get(3)?),
        };
        let (uid_next, modseq) = (from_sql32(row.get(4)?), from_sql(row.get(5)?));
        Ok(StateMailbox { new, uid_next, modseq, keywords: split_keywords(row.get_ref(6)?.as_str()?) })
    })?;
    let mailboxes = mailboxes.collect::<rusqlite::Result<Vec<StateMailbox>>>()?;
    let mut select = sql.prepare_cached("SELECT name FROM subscription WHERE account = ?1")?;
    let subscriptions = select.query_map([account], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let ids: Vec<MailboxId> = mailboxes.iter().map(|mailbox| mailbox.new.id).collect();
    let mut bodies = vec![StateBody::Mailboxes { mailboxes, subscriptions }];
    let mut select = sql.prepare_cached(
        "SELECT uid, flags, modseq, size, internal_date, content FROM message WHERE mailbox = ?1 ORDER BY uid",
    )?;
    for mailbox in ids {
        let mut messages = Vec::new();
        let mut rows = select.query([to_sql(mailbox.0)])?;
        while let Some(row) = rows.next()? {
            let row = read_row(row)?;
            messages.push((row, select_trace(sql, mailbox, row.uid)?));
            if messages.len() == STATE_PART_MESSAGES {
                bodies.push(StateBody::Messages { mailbox, messages: std::mem::take(&mut messages) });
            }
        }
        if !messages.is_empty() {
            bodies.push(StateBody::Messages { mailbox, messages });
        }
    }
    let parts = u32::try_from(bodies.len()).unwrap_or(u32::MAX);
    let part = |(part, body)| StatePart { account: *account, as_of, part, parts, body };
    Ok((0..).zip(bodies).map(part).collect())
}
