//! Passwords that the directory found right a moment ago, so that a client which polls every
//! minute does not pay the slow password hash each time.
//!
//! Owns: keyed hashes of them, never the passwords; which passwords are being asked about. Called by: `client`.
//! Never: outlives the process (the key is random and in memory only), says "wrong".
//!
//! A memory is bound to the entry's revision (modifyTimestamp or entryCSN): a changed password is
//! met as soon as the entry itself is read again, that is after `cache-lifetime`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::cache::Cache;
use super::connection::Verdict;
use crate::config::secret::SecretText;

/// How long a verified password is good without asking the directory again.
const LIFETIME: Duration = Duration::from_mins(5);
/// Accounts remembered at a time.
const ENTRIES_MAX: usize = 100_000;

pub(super) struct Remembered {
    key: [u8; 32],
    hashes: Cache<blake3::Hash>,
    flights: Arc<Flights>,
}

/// One question to the directory, and those who wait for its answer. As many at most as there are sessions.
type Flights = Mutex<HashMap<(blake3::Hash, Option<IpAddr>), Arc<OnceCell<Verdict>>>>;

/// A place among those who wait for the same answer; the last one who leaves takes the question away.
pub(super) struct Flight {
    key: (blake3::Hash, Option<IpAddr>),
    flights: Arc<Flights>,
    pub(super) verdict: Arc<OnceCell<Verdict>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // Two: the table's and this one's own. Nobody joins while the table is locked.
        if Arc::strong_count(&self.verdict) <= 2
            && flights.get(&self.key).is_some_and(|at| Arc::ptr_eq(at, &self.verdict))
        {
            flights.remove(&self.key);
        }
    }
}

impl Remembered {
    pub(super) fn new() -> Self {
        Self { key: rand::random(), hashes: Cache::new(LIFETIME, ENTRIES_MAX), flights: Arc::default() }
    }

    /// Whether this password was right for this revision of this entry. Compared in constant time (`blake3::Hash`).
    pub(super) fn knows(&self, dn: &str, revision: &str, password: &SecretText, now: Instant) -> bool {
        self.hashes.get(dn, now).is_some_and(|hash| hash == self.hash(dn, revision, password))
    }

    pub(super) fn remember(&self, dn: &str, revision: &str, password: &SecretText, now: Instant) {
        self.hashes.put(dn.to_owned(), self.hash(dn, revision, password), now);
    }

    /// The question whether this password is right, asked together with all who ask the same now from the same address.
    pub(super) fn flight(&self, dn: &str, revision: &str, password: &SecretText, client: Option<IpAddr>) -> Flight {
        let key = (self.hash(dn, revision, password), client);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = Arc::clone(flights.entry(key).or_default());
        Flight { key, flights: Arc::clone(&self.flights), verdict }
    }

    #[cfg(test)]
    pub(super) fn flights(&self) -> usize {
        self.flights.lock().unwrap().len()
    }

    pub(super) fn forget(&self, dn: &str) {
        self.hashes.forget(dn);
    }

    /// Each part with its length before it, so that no two different triples are one text.
    fn hash(&self, dn: &str, revision: &str, password: &SecretText) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [dn, revision, password.reveal()] {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize()
    }
}
