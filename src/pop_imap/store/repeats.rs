//! Deliveries that came before: who sends and hears no answer sends again.
//!
//! Owns: `DeliveryKey`, the keys of the last deliveries in the writer's memory and in the view. Called by: `decide`
//! (asks and notes), `apply` and `recovery` (note in the view), `compaction` (carries keys on). Never: computes what
//! makes a message the same; whoever delivers does (see `lmtp::repeat`).
//!
//! A key stands in the ledger within the change that delivers, so both are durable or neither is. The writer, which decides
//! alone, knows it from the moment of the decision: of two deliveries at once the second waits for the first, and shares
//! its fate.

use std::collections::{HashSet, VecDeque};

use rusqlite::Connection;

use super::AccountId;
use super::record::{Act, Change};

/// Deliveries that are remembered, of all accounts together. At a thousand messages a second, three minutes; a server that
/// comes back after a crash tries again within seconds.
pub const REPEATS_MAX: usize = 200_000;

/// What tells a delivery from all others: the message and the account that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryKey(pub(super) [u8; Self::LEN]);

impl DeliveryKey {
    /// Octets of a key: what is meant for one account cannot be made to look like something else.
    pub(super) const LEN: usize = 16;

    /// The key of the message that has this hash, for this account.
    ///
    /// The recipient's address is no part of it: who sends again may name those only that had no answer, and an account
    /// gets a message once however many addresses lead to it.
    #[must_use]
    pub fn new(message: &blake3::Hash, account: &AccountId) -> Self {
        let mut key = [0; Self::LEN];
        blake3::Hasher::new().update(message.as_bytes()).update(account).finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// The last deliveries, as the writer knows them.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Oldest first.
    order: VecDeque<DeliveryKey>,
    known: HashSet<DeliveryKey>,
}

impl Repeats {
    /// As the view has them.
    pub(super) fn load(sql: &Connection) -> rusqlite::Result<Self> {
        let mut repeats = Self::default();
        for key in remembered(sql)? {
            repeats.note(key);
        }
        Ok(repeats)
    }

    pub(super) fn knows(&self, key: DeliveryKey) -> bool {
        self.known.contains(&key)
    }

    /// A delivery was decided.
    pub(super) fn note(&mut self, key: DeliveryKey) {
        if !self.known.insert(key) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > REPEATS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// These changes, the last that were decided, could not be written.
    pub(super) fn forget(&mut self, changes: &[Change]) {
        for _ in keys_of(changes) {
            if let Some(last) = self.order.pop_back() {
                self.known.remove(&last);
            }
        }
    }
}

/// The keys of the deliveries among these changes.
pub(super) fn keys_of(changes: &[Change]) -> impl Iterator<Item = DeliveryKey> {
    changes.iter().filter_map(|change| match &change.act {
        Act::Deliver { key, .. } => *key,
        Act::Create(_)
        | Act::Flags { .. }
        | Act::Expunge { .. }
        | Act::Copy { .. }
        | Act::MoveAll { .. }
        | Act::Delete { .. }
        | Act::Rename(_)
        | Act::Subscribe { .. } => None,
    })
}

/// The keys in the view, oldest first.
pub(super) fn remembered(sql: &Connection) -> rusqlite::Result<Vec<DeliveryKey>> {
    let mut select = sql.prepare_cached("SELECT key FROM delivered ORDER BY nth")?;
    select.query_map([], |row| Ok(DeliveryKey(row.get(0)?)))?.collect()
}

/// Notes a delivery in the view.
pub(super) fn remember(sql: &Connection, key: DeliveryKey) -> rusqlite::Result<()> {
    sql.prepare_cached("INSERT INTO delivered (key) VALUES (?1)")?.execute([key.0])?;
    Ok(())
}

/// Forgets the oldest ones in the view.
pub(super) fn trim(sql: &Connection) -> rusqlite::Result<()> {
    let mut delete = sql.prepare_cached("DELETE FROM delivered WHERE nth <= (SELECT max(nth) FROM delivered) - ?1")?;
    delete.execute([i64::try_from(REPEATS_MAX).unwrap_or(i64::MAX)])?;
    Ok(())
}
