//! All that the store has at one moment, or what has changed since another one, while it goes on serving.
//!
//! Owns: `Snapshot`, its token, the pass through the view and the pass through the ledger. Called by: `pop_imap::snapshot`. All of it blocks.
//! Never: keeps SQLite's log from beginning anew while somebody changes a tape; names a file or a folder.
//!
//! - `since`: the token, and what the ledger says has been touched since; `plan`: messages to be read, in a file.
//!
//! First pass, in one transaction of the view, and short: who has which mailboxes, which rows. What is to be read of messages is
//! noted in a file of the store's directory, in the order of message ids. Second pass, which takes as long as the reader takes: the messages. Ids
//! ascend as the ledger does, and compaction keeps the order of what it moves, so the disk is read along, each record once however many mailboxes
//! have it. No segment is compacted away between the two (`Compactor::held`), unless the disk becomes full: then reading fails.
//!
//! What was touched since a token stands in the ledger's changes behind the token's position. When some of those segments have been
//! compacted away, the accounts that this concerns have a later state than the token; of them everything is shown.

mod plan;
mod since;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use rusqlite::Connection;

use self::plan::{Plan, Planned};
use self::since::{Token, Touched};
use super::apply::{read_row, select_row, select_trace, split_keywords};
use super::error::StoreError;
use super::name::SpecialUse;
use super::read::Reading;
use super::record;
use super::tables::{from_sql, from_sql32, read_progress, to_sql};
use super::view::{MessageId, Row};
use super::{AccountId, MailboxId, Store};
use crate::ledger::{Ledger, LedgerError, Position};
use crate::net::snapshot::Spool;

/// A mailbox, as a snapshot shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    pub id: MailboxId,
    pub name: String,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub highest_modseq: u64,
    pub special_use: Option<SpecialUse>,
    /// In the order of the flag bits.
    pub keywords: Vec<String>,
    /// All of its rows are shown: those that are not have gone.
    pub complete: bool,
}

/// What the first pass comes to, in this order: an account, then the rows of its mailboxes one after the other.
#[derive(Debug)]
pub enum Shown<'a> {
    /// First of all: number of the last change that is shown, and whether everything is.
    Start { seq: u64, full: bool },
    /// One whose mailboxes are as follows; those that are not among them (any more) are gone.
    Account { account: AccountId, mailboxes: &'a [Mailbox], subscriptions: &'a [String] },
    /// A message, and whether the second pass gives its octets.
    Row { mailbox: &'a Mailbox, row: &'a Row, read: bool },
    /// Messages that are there no more.
    Gone { mailbox: &'a Mailbox, uids: &'a [u32] },
}

/// Why a snapshot ends early: the store's fault, or that of whom it is shown to.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError<E> {
    /// Nothing can be told since that token.
    #[error("the token is not of this store, or too much has changed since")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("what a snapshot still needed was compacted away, because the disk is full")]
    Short,
    #[error("not shown to the end")]
    Shown(E),
}

impl<E> From<rusqlite::Error> for SnapshotError<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl<E> From<LedgerError> for SnapshotError<E> {
    fn from(error: LedgerError) -> Self {
        Self::Store(error.into())
    }
}

impl<E> From<std::io::Error> for SnapshotError<E> {
    fn from(error: std::io::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Is shown messages: mailbox, row, what goes before the message there, the message.
pub type ShowMessage<'a, E> = dyn FnMut(MailboxId, &Row, &[u8], &[u8]) -> Result<(), E> + 'a;

/// A snapshot whose first pass is done.
#[derive(Debug)]
pub struct Snapshot {
    reading: Reading,
    plan: Plan,
    /// What a later one goes on from.
    pub next: String,
    /// Keeps compaction away.
    _held: Arc<()>,
}

impl Store {
    /// Makes a snapshot, of everything or of what has changed since the one that named this token, and shows it but for the messages.
    ///
    /// # Errors
    /// `Gone` for a token that cannot be gone on from; when the store cannot be read; whatever `show` fails with.
    pub fn snapshot<E>(
        &self,
        since: Option<&str>,
        show: &mut dyn FnMut(Shown<'_>) -> Result<(), E>,
    ) -> Result<Snapshot, SnapshotError<E>> {
        let compactor = self.inner.compactor.as_ref().ok_or(StoreError::Closed)?;
        // A compaction that is under way ends before the snapshot begins, and none comes after.
        let held = Arc::clone(&compactor.lock().unwrap_or_else(PoisonError::into_inner).held);
        let token = since.map(|text| Token::parse(text).ok_or(SnapshotError::Gone)).transpose()?;
        let reading = self.reading();
        let mut plan = Plan::new(&self.inner.dir)?;
        let mut outcome = Ok(());
        let now = reading.readers.read(|sql| {
            let progress = read_progress(sql)?;
            let position = progress.position.unwrap_or(Position { segment: 0, offset: 0 });
            let now = Token { ledger: reading.ledger.id(), seq: progress.counters.seq, position };
            let mut pass = Pass { sql, plan: &mut plan, show };
            outcome = pass.run(&reading.ledger, token.as_ref(), &now);
            Ok(now)
        })?;
        outcome?;
        plan.finish()?;
        Ok(Snapshot { reading, plan, next: now.to_string(), _held: held })
    }

    /// A file without a name on the store's disk, for what is shown and cannot be passed on at once.
    ///
    /// # Errors
    /// The disk is full or cannot be written.
    pub fn spool(&self) -> std::io::Result<Spool> {
        Spool::new(&self.inner.dir)
    }
}

/// The first pass.
struct Pass<'a, E> {
    sql: &'a Connection,
    plan: &'a mut Plan,
    show: &'a mut dyn FnMut(Shown<'_>) -> Result<(), E>,
}

impl<E> Pass<'_, E> {
    fn show(&mut self, shown: Shown<'_>) -> Result<(), SnapshotError<E>> {
        (self.show)(shown).map_err(SnapshotError::Shown)
    }

    fn run(&mut self, ledger: &Ledger, token: Option<&Token>, now: &Token) -> Result<(), SnapshotError<E>> {
        self.show(Shown::Start { seq: now.seq, full: token.is_none() })?;
        let Some(token) = token else { return self.everything() };
        let touched = Touched::since(ledger, token, now, self.sql)?.ok_or(SnapshotError::Gone)?;
        self.changes(&touched)
    }

    fn everything(&mut self) -> Result<(), SnapshotError<E>> {
        for account in accounts(self.sql)? {
            for mailbox in &self.account(account, &|_| true)? {
                self.whole(mailbox, &mut |_| true)?;
            }
        }
        let mut select = self.sql.prepare(
            "SELECT m.uid, m.flags, m.modseq, m.size, m.internal_date, m.content, m.mailbox, c.segment, c.offset, c.size \
             FROM content c CROSS JOIN message m ON m.content = c.id ORDER BY c.id",
        )?;
        let mut rows = select.query([])?;
        while let Some(found) = rows.next()? {
            let planned = Planned {
                row: read_row(found)?,
                mailbox: MailboxId(from_sql(found.get(6)?)),
                position: Position { segment: from_sql(found.get(7)?), offset: from_sql(found.get(8)?) },
                size: from_sql32(found.get(9)?),
            };
            self.plan(&planned)?;
        }
        Ok(())
    }

    fn changes(&mut self, touched: &Touched) -> Result<(), SnapshotError<E>> {
        let accounts: BTreeSet<AccountId> = touched.accounts.iter().copied().collect();
        let mut read = Vec::new();
        for account in accounts {
            let all = touched.whole.contains(&account);
            let complete = |id| all || touched.mailboxes.get(&id).is_some_and(|mailbox| mailbox.whole);
            for mailbox in &self.account(account, &complete)? {
                let changed = touched.mailboxes.get(&mailbox.id);
                let fresh: HashSet<u32> = changed.iter().flat_map(|changed| changed.fresh.iter().copied()).collect();
                if mailbox.complete {
                    let sql = self.sql;
                    self.whole(mailbox, &mut |row| {
                        let fresh = fresh.contains(&row.uid) || touched.is_new(sql, row.message).unwrap_or(true);
                        if fresh {
                            read.push((row.message, mailbox.id, row.uid));
                        }
                        fresh
                    })?;
                } else if let Some(changed) = changed {
                    self.some(mailbox, &changed.uids(), &fresh, &mut read)?;
                }
            }
        }
        if read.len() > since::TOUCHED_MAX {
            return Err(SnapshotError::Gone);
        }
        read.sort_unstable();
        self.plan_these(&read)
    }

    /// Shows an account; gives its mailboxes.
    fn account(
        &mut self,
        account: AccountId,
        complete: &dyn Fn(MailboxId) -> bool,
    ) -> Result<Vec<Mailbox>, SnapshotError<E>> {
        let mut mailboxes = mailboxes(self.sql, &account)?;
        mailboxes.iter_mut().for_each(|mailbox| mailbox.complete = complete(mailbox.id));
        let subscriptions = subscriptions(self.sql, &account)?;
        self.show(Shown::Account { account, mailboxes: &mailboxes, subscriptions: &subscriptions })?;
        Ok(mailboxes)
    }

    /// Shows all rows of a mailbox.
    fn whole(&mut self, mailbox: &Mailbox, read: &mut dyn FnMut(&Row) -> bool) -> Result<(), SnapshotError<E>> {
        let mut select = self.sql.prepare_cached(
            "SELECT uid, flags, modseq, size, internal_date, content FROM message WHERE mailbox = ?1 ORDER BY uid",
        )?;
        let mut rows = select.query([to_sql(mailbox.id.0)])?;
        while let Some(row) = rows.next()? {
            let row = read_row(row)?;
            let read = read(&row);
            self.show(Shown::Row { mailbox, row: &row, read })?;
        }
        Ok(())
    }

    /// Shows what has become of these messages.
    fn some(
        &mut self,
        mailbox: &Mailbox,
        uids: &BTreeSet<u32>,
        fresh: &HashSet<u32>,
        read: &mut Vec<(MessageId, MailboxId, u32)>,
    ) -> Result<(), SnapshotError<E>> {
        let mut gone = Vec::new();
        for &uid in uids {
            match select_row(self.sql, mailbox.id, uid)? {
                Some(row) => {
                    let is_fresh = fresh.contains(&uid);
                    if is_fresh {
                        read.push((row.message, mailbox.id, uid));
                    }
                    self.show(Shown::Row { mailbox, row: &row, read: is_fresh })?;
                }
                None => gone.push(uid),
            }
        }
        if gone.is_empty() { Ok(()) } else { self.show(Shown::Gone { mailbox, uids: &gone }) }
    }

    fn plan_these(&mut self, read: &[(MessageId, MailboxId, u32)]) -> Result<(), SnapshotError<E>> {
        let mut select = self.sql.prepare_cached("SELECT segment, offset, size FROM content WHERE id = ?1")?;
        for (id, mailbox, uid) in read {
            let Some(row) = select_row(self.sql, *mailbox, *uid)? else { continue };
            let planned = select.query_row([to_sql(id.0)], |found| {
                let position = Position { segment: from_sql(found.get(0)?), offset: from_sql(found.get(1)?) };
                Ok(Planned { row, mailbox: *mailbox, position, size: from_sql32(found.get(2)?) })
            })?;
            self.plan(&planned)?;
        }
        Ok(())
    }

    fn plan(&mut self, planned: &Planned) -> Result<(), SnapshotError<E>> {
        let has_trace = planned.size < planned.row.size;
        let trace = if has_trace { select_trace(self.sql, planned.mailbox, planned.row.uid)? } else { Vec::new() };
        Ok(self.plan.push(planned, &trace)?)
    }
}

impl Snapshot {
    /// Shows the messages, in the order in which they lie on the disk.
    ///
    /// # Errors
    /// When one cannot be read or is damaged; `Short` when it is no longer there; whatever `show` fails with.
    pub fn messages<E>(self, show: &mut ShowMessage<'_, E>) -> Result<(), SnapshotError<E>> {
        let Self { reading, plan, .. } = self;
        let mut last: Option<(MessageId, Bytes)> = None;
        let mut planned = plan.read()?;
        while let Some((next, trace)) = planned.next()? {
            let message = match last {
                Some((id, message)) if id == next.row.message => message,
                Some(_) | None => read_message(&reading, &next)?,
            };
            show(next.mailbox, &next.row, &trace, &message).map_err(SnapshotError::Shown)?;
            last = Some((next.row.message, message));
        }
        Ok(())
    }
}

/// The octets of a message, from where it was, or is now.
fn read_message<E>(reading: &Reading, planned: &Planned) -> Result<Bytes, SnapshotError<E>> {
    let len = record::MESSAGE_PREFIX_LEN + usize::try_from(planned.size).unwrap_or(usize::MAX / 2);
    let payload = match reading.ledger.read_expecting(planned.position, len) {
        Ok(entry) => entry.payload,
        Err(LedgerError::NoSuchRecord { .. } | LedgerError::Io { .. }) => {
            let moved = reading.readers.read(|sql| {
                let mut select = sql.prepare_cached("SELECT segment, offset FROM content WHERE id = ?1")?;
                let found = select.query_row([to_sql(planned.row.message.0)], |row| {
                    Ok(Position { segment: from_sql(row.get(0)?), offset: from_sql(row.get(1)?) })
                });
                Ok(rusqlite::OptionalExtension::optional(found)?)
            })?;
            reading.ledger.read_expecting(moved.ok_or(SnapshotError::Short)?, len)?.payload
        }
        Err(error) => return Err(error.into()),
    };
    let (id, message) = record::read_message(&payload).map_err(StoreError::from)?;
    let is_it = id == planned.row.message && u32::try_from(message.len()).is_ok_and(|len| len == planned.size);
    if is_it { Ok(message) } else { Err(StoreError::Malformed("place of a message").into()) }
}

fn accounts(sql: &Connection) -> rusqlite::Result<Vec<AccountId>> {
    let mut select = sql.prepare_cached("SELECT DISTINCT account FROM mailbox ORDER BY account")?;
    select.query_map([], |row| row.get(0))?.collect()
}

fn mailboxes(sql: &Connection, account: &AccountId) -> rusqlite::Result<Vec<Mailbox>> {
    let mut select = sql.prepare_cached(
        "SELECT id, name, uid_validity, uid_next, modseq, special_use, keywords FROM mailbox WHERE account = ?1 ORDER BY name",
    )?;
    let found = select.query_map([account], |row| {
        Ok(Mailbox {
            id: MailboxId(from_sql(row.get(0)?)),
            name: row.get(1)?,
            uid_validity: from_sql32(row.get(2)?),
            uid_next: from_sql32(row.get(3)?),
            highest_modseq: from_sql(row.get(4)?),
            special_use: SpecialUse::from_code(row.get(5)?),
            keywords: split_keywords(row.get_ref(6)?.as_str()?),
            complete: false,
        })
    })?;
    found.collect()
}

fn subscriptions(sql: &Connection, account: &AccountId) -> rusqlite::Result<Vec<String>> {
    let mut select = sql.prepare_cached("SELECT name FROM subscription WHERE account = ?1 ORDER BY name")?;
    select.query_map([account], |row| row.get(0))?.collect()
}
