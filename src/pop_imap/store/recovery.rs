//! Opening: the view is brought up to the ledger's end, or made anew.
//!
//! Owns: replay of the tail, rebuilding, the decision between them. Called by: `Store::open`. Never: changes the ledger.
//!
//! Rebuilding reads the ledger once. Messages go into the view at once; changes and states are kept aside, because a state
//! stands in the ledger after changes that it does not hold yet (those made while it was written). Then the last complete
//! state of each account is applied, and after it all changes in the order of their numbers, less those that a state holds.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::Connection;

use super::AccountId;
use super::apply::{Apply, Content, Sweep};
use super::error::StoreError;
use super::record::{self, Changes, Counters, StateBody, StateMailbox, StatePart};
use super::repeats;
use super::tables::{self, Progress, VIEW_FILE, from_sql, to_sql};
use super::view::MessageId;
use crate::base::durable;
use crate::ledger::{Entry, Ledger, Position};
use crate::message::structure::Structure;

/// The view while it is made anew.
const NEW_VIEW_FILE: &str = "view.sqlite.new";
/// This file says that the view is damaged.
const DAMAGED_FILE: &str = "view.damaged";
/// Records of one transaction at replay.
const TRANSACTION_RECORDS_MAX: usize = 5_000;

/// The view, ready for the applier, and how far it is.
pub(super) fn open(dir: &Path, ledger: &Ledger) -> Result<(Connection, Progress), StoreError> {
    let path = dir.join(VIEW_FILE);
    if dir.join(DAMAGED_FILE).exists() {
        tracing::warn!(path = %path.display(), "the view was found damaged; it is made anew");
    } else if path.exists() {
        match reuse(&path, ledger) {
            Ok(Some(view)) => return Ok(view),
            Ok(None) => {
                tracing::warn!(path = %path.display(), "the view does not belong to the ledger; it is made anew")
            }
            Err(StoreError::View(error)) => {
                tracing::warn!(path = %path.display(), %error, "the view cannot be used; it is made anew");
            }
            Err(error) => return Err(error),
        }
    }
    rebuild(dir, ledger)?;
    remove(&dir.join(DAMAGED_FILE))?;
    let connection = tables::open_writer(&path)?;
    let progress = tables::read_progress(&connection)?;
    Ok((connection, progress))
}

/// Says that the view is damaged, for the next start.
pub(super) fn mark_damaged(dir: &Path) {
    if let Err(error) = durable::replace(&dir.join(DAMAGED_FILE), b"", 0o600) {
        tracing::error!(%error, "cannot note that the view is damaged");
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The view that is there, brought up to date; none when it is not one of this ledger.
fn reuse(path: &Path, ledger: &Ledger) -> Result<Option<(Connection, Progress)>, StoreError> {
    let mut connection = tables::open_writer(path)?;
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if schema != tables::SCHEMA {
        return Ok(None);
    }
    let mut progress = tables::read_progress(&connection)?;
    if !follows(progress.position, ledger) {
        return Ok(None);
    }
    catch_up(&mut connection, &mut progress, ledger)?;
    Ok(Some((connection, progress)))
}

/// Whether the ledger still has every record after `position`.
fn follows(position: Option<Position>, ledger: &Ledger) -> bool {
    let segments: Vec<u64> = ledger.segments().iter().map(|segment| segment.id).collect();
    let Some(position) = position else {
        // Nothing was applied: all is there if nothing was ever compacted away.
        return segments.first().is_none_or(|first| *first <= 1);
    };
    // Segments have ascending ids without gaps, but for those that were compacted away.
    let rest: Vec<u64> = segments.into_iter().filter(|id| *id >= position.segment).collect();
    position < ledger.end()
        && rest.first() == Some(&position.segment)
        && rest.iter().zip(rest.iter().skip(1)).all(|(one, next)| one + 1 == *next)
}

/// Applies what the ledger has after `progress`.
fn catch_up(connection: &mut Connection, progress: &mut Progress, ledger: &Ledger) -> Result<(), StoreError> {
    let mut tail = Tail { apply: Apply::new(Sweep::AtOnce), seen: HashSet::new(), records: 0 };
    let from = progress.position;
    // One transaction at a time is open, by hand, as the visitor comes back between them.
    connection.execute_batch("BEGIN")?;
    let mut outcome = Ok(());
    ledger.replay(from, &mut |position, entry| {
        if Some(position) == from {
            return ControlFlow::Continue(());
        }
        outcome = tail.record(connection, progress, position, &entry);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome?;
    // Messages whose delivery did not make it into the ledger.
    for content in std::mem::take(&mut tail.seen) {
        tail.apply.sweep_content(connection, content)?;
    }
    tail.apply.flush(connection)?;
    tables::write_progress(connection, progress)?;
    connection.execute_batch("COMMIT")?;
    if tail.records > 0 {
        tracing::info!(records = tail.records, "the view has caught up with the ledger");
    }
    Ok(())
}

struct Tail {
    apply: Apply,
    /// Messages met.
    seen: HashSet<MessageId>,
    records: usize,
}

impl Tail {
    fn record(
        &mut self,
        sql: &Connection,
        progress: &mut Progress,
        position: Position,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        match entry.kind {
            record::KIND_MESSAGE => {
                let content = content(position, &entry.payload)?;
                self.seen.insert(content.id);
                progress.counters.message_next = progress.counters.message_next.max(content.id.0 + 1);
                self.apply.content(sql, &content, true)?;
            }
            record::KIND_CHANGES => {
                let changes = Changes::decode(&entry.payload)?;
                for (seq, change) in (changes.first..).zip(&changes.changes) {
                    if seq > progress.counters.seq {
                        self.apply.change(sql, change)?;
                        progress.counters = progress.counters.max(ids_in(change, seq));
                    }
                }
            }
            record::KIND_STATE => {
                let part = StatePart::decode(&entry.payload)?;
                // Without its last part a state is none. Its first parts may stand in the segment before.
                if part.part + 1 == part.parts {
                    let oldest = position.segment.saturating_sub(u64::from(part.parts > 1));
                    note_state(sql, &part.account, part.as_of, oldest)?;
                }
            }
            record::KIND_COUNTERS => progress.counters = progress.counters.max(counters(&entry.payload, progress)?),
            // The view has met the deliveries themselves.
            record::KIND_REPEATS => {}
            _ => return Err(StoreError::Malformed("kind of record")),
        }
        progress.position = Some(position);
        self.records += 1;
        if self.records.is_multiple_of(TRANSACTION_RECORDS_MAX) {
            self.apply.flush(sql)?;
            drop(self.apply.take_effects());
            tables::write_progress(sql, progress)?;
            sql.execute_batch("COMMIT; BEGIN")?;
        }
        Ok(())
    }
}

/// Counters as a record has them; its `seq` says nothing about what this view has applied.
fn counters(payload: &[u8], progress: &Progress) -> Result<Counters, StoreError> {
    Ok(Counters { seq: progress.counters.seq, ..Counters::decode(payload)? })
}

/// The account has a state record.
pub(super) fn note_state(sql: &Connection, account: &AccountId, as_of: u64, segment: u64) -> rusqlite::Result<()> {
    let mut insert = sql.prepare_cached(
        "INSERT INTO state VALUES (?1, ?2, ?3) ON CONFLICT (account) DO UPDATE SET \
         segment = CASE WHEN as_of = excluded.as_of THEN min(segment, excluded.segment) ELSE excluded.segment END, \
         as_of = excluded.as_of WHERE excluded.as_of >= as_of",
    )?;
    insert.execute((account, to_sql(as_of), to_sql(segment)))?;
    Ok(())
}

/// Where a message stands, and what it is made of.
fn content(position: Position, payload: &Bytes) -> Result<Content, StoreError> {
    let (id, bytes) = record::read_message(payload)?;
    let size = u32::try_from(bytes.len()).map_err(|_| StoreError::Malformed("message record"))?;
    Ok(Content { id, position, size, structure: Structure::parse(&bytes).encode() })
}

/// The ids that a change uses, as counters that are past them.
fn ids_in(change: &record::Change, seq: u64) -> Counters {
    let mut counters = Counters { seq, ..Counters::default() };
    match &change.act {
        record::Act::Create(mailboxes) => {
            for new in mailboxes {
                counters = counters.max(past(new));
            }
        }
        record::Act::Deliver { row, .. } => counters.message_next = row.message.0 + 1,
        record::Act::Flags { .. }
        | record::Act::Expunge { .. }
        | record::Act::Copy { .. }
        | record::Act::MoveAll { .. }
        | record::Act::Delete { .. }
        | record::Act::Rename(_)
        | record::Act::Subscribe { .. } => {}
    }
    counters
}

fn past(new: &record::NewMailbox) -> Counters {
    Counters { mailbox_next: new.id.0 + 1, uid_validity_last: new.uid_validity, ..Counters::default() }
}

/// Makes the view from the whole ledger, beside the old one, and puts it in its place.
fn rebuild(dir: &Path, ledger: &Ledger) -> Result<(), StoreError> {
    let new = dir.join(NEW_VIEW_FILE);
    remove(&new)?;
    let connection = Connection::open(&new)?;
    tables::keep_temporary_in_memory(&connection)?;
    // A crash leaves a file that is removed at the next start: nothing has to hold before the end.
    connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -131072;")?;
    tables::create(&connection)?;
    connection.execute_batch(
        "CREATE TABLE later (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT; \
         CREATE TABLE states (account BLOB, as_of INTEGER, part INTEGER, parts INTEGER, segment INTEGER, payload BLOB, \
         PRIMARY KEY (account, as_of, part)) STRICT; BEGIN",
    )?;
    let mut rebuilding = Rebuilding {
        sql: &connection,
        apply: Apply::new(Sweep::Later),
        progress: tables::read_progress(&connection)?,
        held: HashMap::new(),
    };
    rebuilding.read(ledger)?;
    rebuilding.states()?;
    rebuilding.changes()?;
    rebuilding.finish()?;
    connection.execute_batch("COMMIT; DROP TABLE later; DROP TABLE states;")?;
    drop(connection);
    File::open(&new)?.sync_all()?;
    let path = dir.join(VIEW_FILE);
    // The old view's log must not be taken for the new one's.
    for suffix in ["-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        remove(&PathBuf::from(name))?;
    }
    fs::rename(&new, &path)?;
    Ok(durable::sync_parent(&path)?)
}

struct Rebuilding<'a> {
    sql: &'a Connection,
    apply: Apply,
    progress: Progress,
    /// Changes up to this number are in the account's state.
    held: HashMap<AccountId, u64>,
}

impl Rebuilding<'_> {
    /// Reads the ledger: messages into the view, the rest aside.
    fn read(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        ledger.replay(None, &mut |position, entry| {
            outcome = self.record(position, &entry);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome
    }

    fn record(&mut self, position: Position, entry: &Entry) -> Result<(), StoreError> {
        match entry.kind {
            record::KIND_MESSAGE => {
                let content = content(position, &entry.payload)?;
                self.progress.counters.message_next = self.progress.counters.message_next.max(content.id.0 + 1);
                self.apply.content(self.sql, &content, true)?;
            }
            record::KIND_CHANGES => {
                let changes = Changes::decode(&entry.payload)?;
                let mut insert = self.sql.prepare_cached("INSERT OR REPLACE INTO later VALUES (?1, ?2)")?;
                insert.execute((to_sql(changes.first), entry.payload.as_ref()))?;
            }
            record::KIND_STATE => {
                let part = StatePart::decode(&entry.payload)?;
                let mut insert =
                    self.sql.prepare_cached("INSERT OR REPLACE INTO states VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                let (as_of, segment) = (to_sql(part.as_of), to_sql(position.segment));
                insert.execute((&part.account, as_of, part.part, part.parts, segment, entry.payload.as_ref()))?;
            }
            // Here the sequence number counts too: the changes up to it may be gone.
            record::KIND_COUNTERS => {
                self.progress.counters = self.progress.counters.max(Counters::decode(&entry.payload)?);
            }
            record::KIND_REPEATS => {
                for key in record::read_repeats(&entry.payload)? {
                    self.apply.remember(self.sql, key)?;
                }
            }
            _ => return Err(StoreError::Malformed("kind of record")),
        }
        self.progress.position = Some(position);
        Ok(())
    }

    /// Applies the last complete state of each account.
    fn states(&mut self) -> Result<(), StoreError> {
        let mut select = self.sql.prepare(
            "SELECT account, max(as_of) FROM \
             (SELECT account, as_of FROM states GROUP BY account, as_of HAVING count(*) = max(parts)) GROUP BY account",
        )?;
        let accounts = select.query_map([], |row| Ok((row.get::<_, AccountId>(0)?, from_sql(row.get(1)?))))?;
        self.held = accounts.collect::<rusqlite::Result<_>>()?;
        let mut select =
            self.sql.prepare("SELECT payload, segment FROM states WHERE account = ?1 AND as_of = ?2 ORDER BY part")?;
        for (account, as_of) in self.held.clone() {
            let mut rows = select.query((&account, to_sql(as_of)))?;
            let mut heads = Vec::new();
            while let Some(row) = rows.next()? {
                let part = StatePart::decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
                note_state(self.sql, &account, as_of, from_sql(row.get(1)?))?;
                self.state_part(&account, part.body, &mut heads)?;
            }
            // Last, as the messages move the numbers.
            for head in &heads {
                self.apply.set_head(self.sql, head.new.id, head)?;
            }
            self.progress.counters.seq = self.progress.counters.seq.max(as_of);
            self.apply.flush(self.sql)?;
            drop(self.apply.take_effects());
        }
        Ok(())
    }

    fn state_part(
        &mut self,
        account: &AccountId,
        body: StateBody,
        heads: &mut Vec<StateMailbox>,
    ) -> Result<(), StoreError> {
        match body {
            StateBody::Mailboxes { mailboxes, subscriptions } => {
                for mailbox in &mailboxes {
                    self.apply.create(self.sql, account, &mailbox.new)?;
                    self.progress.counters = self.progress.counters.max(past(&mailbox.new));
                }
                heads.extend(mailboxes);
                let mut insert = self.sql.prepare_cached("INSERT OR IGNORE INTO subscription VALUES (?1, ?2)")?;
                for name in subscriptions {
                    insert.execute((account, name))?;
                }
            }
            StateBody::Messages { mailbox, messages } => {
                for (row, trace) in messages {
                    let next = row.message.0 + 1;
                    self.progress.counters.message_next = self.progress.counters.message_next.max(next);
                    self.apply.insert(self.sql, mailbox, &row, &trace)?;
                }
            }
        }
        Ok(())
    }

    /// Applies the changes that no state holds.
    fn changes(&mut self) -> Result<(), StoreError> {
        let mut select = self.sql.prepare("SELECT payload FROM later ORDER BY seq")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let payload: Vec<u8> = row.get(0)?;
            let changes = Changes::decode(&payload.into())?;
            for (seq, change) in (changes.first..).zip(&changes.changes) {
                if self.held.get(&change.account).is_none_or(|held| seq > *held) {
                    self.apply.change(self.sql, change)?;
                } else if let Some(key) = repeats::keys_of(std::slice::from_ref(change)).next() {
                    // The state has the message, but not by what it is known again.
                    self.apply.remember(self.sql, key)?;
                }
                self.progress.counters = self.progress.counters.max(ids_in(change, seq));
            }
            drop(self.apply.take_effects());
        }
        Ok(())
    }

    /// Removes messages that no mailbox has, counts what the segments hold.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.apply.flush(self.sql)?;
        self.sql.execute_batch(
            "DELETE FROM content WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.content = content.id); \
             UPDATE segment SET live = (SELECT coalesce(sum(size), 0) FROM content WHERE content.segment = segment.id);",
        )?;
        let accounts: i64 = self.sql.query_row("SELECT count(DISTINCT account) FROM mailbox", [], |row| row.get(0))?;
        tracing::info!(accounts, seq = self.progress.counters.seq, "the view was made from the ledger");
        Ok(tables::write_progress(self.sql, &self.progress)?)
    }
}
