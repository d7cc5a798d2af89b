//! Passwords that the directory found right a moment ago, so that a client which polls every
//! minute does not pay the slow password hash each time.
//!
//! Owns: keyed hashes of them; never the passwords. Called by: `client`.
//! Never: outlives the process (the key is random and in memory only), says "wrong".
//!
//! A memory is bound to the entry's revision (modifyTimestamp or entryCSN): a changed password is
//! met as soon as the entry itself is read again, that is after `cache-lifetime`.

use std::time::{Duration, Instant};

use super::cache::Cache;
use crate::config::secret::SecretText;

/// How long a verified password is good without asking the directory again.
const LIFETIME: Duration = Duration::from_mins(5);
/// Accounts remembered at a time.
const ENTRIES_MAX: usize = 100_000;

pub(super) struct Remembered {
    key: [u8; 32],
    hashes: Cache<blake3::Hash>,
}

impl Remembered {
    pub(super) fn new() -> Self {
        Self { key: rand::random(), hashes: Cache::new(LIFETIME, ENTRIES_MAX) }
    }

    /// Whether this password was right for this revision of this entry. Compared in constant time (`blake3::Hash`).
    pub(super) fn knows(&self, dn: &str, revision: &str, password: &SecretText, now: Instant) -> bool {
        self.hashes.get(dn, now).is_some_and(|hash| hash == self.hash(dn, revision, password))
    }

    pub(super) fn remember(&self, dn: &str, revision: &str, password: &SecretText, now: Instant) {
        self.hashes.put(dn.to_owned(), self.hash(dn, revision, password), now);
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
