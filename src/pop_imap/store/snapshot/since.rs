//! From where a snapshot goes on, and what was touched since.
//!
//! Owns: `Token`, `Touched`. Called by: `store::snapshot`. Never: says what has become of a message; the view does.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::SnapshotError;
use crate::ledger::{Ledger, Position};
use crate::pop_imap::store::record::{Act, Change, Changes, KIND_CHANGES};
use crate::pop_imap::store::tables::{from_sql, to_sql};
use crate::pop_imap::store::{AccountId, MailboxId, MessageId, StoreError};

/// Messages touched since a token, at most: 16 octets each. With more a full snapshot is no worse.
pub(super) const TOUCHED_MAX: usize = 4_000_000;

/// Names the moment that a snapshot shows: which ledger, the number of the last change, and the last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) ledger: [u8; 16],
    pub(super) seq: u64,
    pub(super) position: Position,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ledger, seq, position } = self;
        write!(f, "{}-{seq}-{}-{}", hex::encode(ledger), position.segment, position.offset)
    }
}

impl Token {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut ledger = [0; 16];
        hex::decode_to_slice(parts.next()?, &mut ledger).ok()?;
        let seq = parts.next()?.parse().ok()?;
        let position = Position { segment: parts.next()?.parse().ok()?, offset: parts.next()?.parse().ok()? };
        parts.next().is_none().then_some(Self { ledger, seq, position })
    }
}

/// What changes have said of one mailbox.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// All that it has.
    pub(super) whole: bool,
    /// UIDs of messages that were there before: flags, or gone.
    old: Vec<u32>,
    /// UIDs of messages that came.
    pub(super) fresh: Vec<u32>,
}

impl Changed {
    /// Both.
    pub(super) fn uids(&self) -> BTreeSet<u32> {
        self.old.iter().chain(&self.fresh).copied().collect()
    }
}

/// What was touched between two moments.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) accounts: HashSet<AccountId>,
    /// Of those among them, what happened is not known: all that they have may have changed.
    pub(super) whole: HashSet<AccountId>,
    pub(super) mailboxes: HashMap<MailboxId, Changed>,
    /// Where the earlier moment is.
    position: Option<Position>,
    uids: usize,
}

impl Touched {
    /// Reads it from the ledger; none when `from` is not a moment of this store, or too much was touched.
    pub(super) fn since<E>(
        ledger: &Ledger,
        from: &Token,
        to: &Token,
        sql: &Connection,
    ) -> Result<Option<Self>, SnapshotError<E>> {
        if from.ledger != to.ledger || from.seq > to.seq || from.position > to.position {
            return Ok(None);
        }
        let mut touched = Self { position: Some(from.position), ..Self::default() };
        let mut fault = None;
        ledger.skim(from.position, &|kind| kind == KIND_CHANGES, &mut |_, entry| {
            match Changes::decode(&entry.payload) {
                Ok(changes) => {
                    let numbered = (changes.first..).zip(&changes.changes);
                    let new = numbered.filter(|(seq, _)| *seq > from.seq && *seq <= to.seq);
                    new.for_each(|(_, change)| touched.note(change));
                }
                Err(malformed) => fault = Some(StoreError::from(malformed)),
            }
            if fault.is_some() || touched.uids > TOUCHED_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        if has_gap(ledger, from.position.segment) {
            touched.note_states(sql, from.seq)?;
        }
        Ok((touched.uids <= TOUCHED_MAX).then_some(touched))
    }

    /// Whether the octets of a message were written after the earlier moment (or moved since).
    pub(super) fn is_new(&self, sql: &Connection, message: MessageId) -> rusqlite::Result<bool> {
        let mut select = sql.prepare_cached("SELECT segment, offset FROM content WHERE id = ?1")?;
        let position = select.query_row([to_sql(message.0)], |row| {
            Ok(Position { segment: from_sql(row.get(0)?), offset: from_sql(row.get(1)?) })
        })?;
        Ok(Some(position) > self.position)
    }

    fn note(&mut self, change: &Change) {
        self.accounts.insert(change.account);
        match &change.act {
            Act::Create(_) | Act::Delete { .. } | Act::Rename(_) | Act::Subscribe { .. } => {}
            Act::Deliver { mailbox, row, .. } => self.fresh(*mailbox, &[row.uid]),
            Act::Flags { mailbox, uids, .. } | Act::Expunge { mailbox, uids, .. } => self.old(*mailbox, uids),
            Act::Copy { source, target, first, uids, remove, .. } => {
                let copies: Vec<u32> = uids.iter().zip(*first..).map(|(_, copy)| copy).collect();
                self.fresh(*target, &copies);
                if remove.is_some() {
                    self.old(*source, uids);
                }
            }
            Act::MoveAll { source, target, .. } => {
                self.mailboxes.entry(*source).or_default().whole = true;
                self.mailboxes.entry(*target).or_default().whole = true;
            }
        }
    }

    fn fresh(&mut self, mailbox: MailboxId, uids: &[u32]) {
        self.uids = self.uids.saturating_add(uids.len());
        self.mailboxes.entry(mailbox).or_default().fresh.extend_from_slice(uids);
    }

    fn old(&mut self, mailbox: MailboxId, uids: &[u32]) {
        self.uids = self.uids.saturating_add(uids.len());
        self.mailboxes.entry(mailbox).or_default().old.extend_from_slice(uids);
    }

    /// Accounts whose state was written after the earlier moment: changes of theirs may have gone with a segment.
    fn note_states(&mut self, sql: &Connection, seq: u64) -> rusqlite::Result<()> {
        let mut select = sql.prepare_cached("SELECT account FROM state WHERE as_of > ?1")?;
        let accounts = select.query_map([to_sql(seq)], |row| row.get(0))?;
        for account in accounts {
            let account = account?;
            self.accounts.insert(account);
            self.whole.insert(account);
        }
        Ok(())
    }
}

/// Whether a segment from this one on has been compacted away.
fn has_gap(ledger: &Ledger, from: u64) -> bool {
    let ids: Vec<u64> = ledger.segments().iter().map(|segment| segment.id).filter(|id| *id >= from).collect();
    !ids.iter().zip(from..).all(|(id, expected)| *id == expected)
}
