//! Failed logins: how many there were lately, and whether one more may be tried.
//!
//! Owns: the buckets. Called by: `engine`, before and after each password check. Never: reads the clock, waits.
//!
//! A failure fills buckets, which drain with time: one of the account, one of the account at the client's network,
//! one of the network (IPv4 address, IPv6 /64) and a larger one of its surroundings (IPv4 /24, IPv6 /48). What
//! is meant by it:
//!
//! - Guessing from one network ends at the network's bucket, over all accounts, and for one account at the pair's.
//! - An account that is guessed at from everywhere is not closed, or anybody could close anybody's: each network
//!   still has `STRANGER_TRIES` for it, and one from which its owner has logged in lately has all tries.
//! - A network that is closed is so for those who have not logged in from it lately: thousands of pupils behind one
//!   address do not pay for what one of them does.
//! - A login that succeeds takes back what its pair had failed, and nothing else.
//! - A refusal counts nothing: nobody is kept out by asking often.
//!
//! Memory is bounded: two generations of buckets; when the young one is full, the old one is forgotten. Every bucket
//! that is looked at is young again, so whoever is being guessed at stays remembered.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ldap_proxy::LdapProxy;

/// Buckets at a time, of all kinds.
pub(super) const BUCKETS_MAX: usize = 100_000;
/// Tries that a network has for an account that is being guessed at from elsewhere.
pub(super) const STRANGER_TRIES: u32 = 3;
/// How many times as much as one network may its surroundings fail.
const SURROUNDINGS_FACTOR: u32 = 4;
/// How long a network is known as one from which the account's owner logs in.
const KNOWN_FOR: Duration = Duration::from_hours(7 * 24);

/// How many failures are too many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    pub(super) per_account: u32,
    pub(super) per_network: u32,
    /// Time in which a full bucket is empty again.
    pub(super) window: Duration,
}

impl Tolerance {
    pub(super) fn of(settings: &LdapProxy) -> Self {
        Self {
            per_account: settings.account_failures_max,
            per_network: settings.network_failures_max,
            window: settings.failures_window.get(),
        }
    }
}

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// This account, at this network.
    Account,
    /// The network, whatever the account.
    Network,
}

impl Full {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Network => "network",
        }
    }
}

/// One try: whose password, and from where. `None` of a network: over a unix socket or loopback, from a program
/// that does not say for whom; only accounts are counted then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Try {
    /// The account's name, for the log.
    pub(super) name: String,
    /// The account, in the form in which accounts are compared.
    pub(super) account: String,
    pub(super) client: Option<IpAddr>,
}

pub(super) struct Failures {
    tolerance: Tolerance,
    /// Makes the keys: nobody outside can choose accounts whose buckets coincide.
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

/// What has been looked at lately, and what before that.
#[derive(Default)]
struct Buckets {
    young: HashMap<u64, Bucket>,
    old: HashMap<u64, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Failures, at `at`.
    level: f64,
    at: Instant,
    /// When the account's owner last logged in from here; of pairs only.
    owner_seen: Option<Instant>,
}

/// The keys of the buckets that a try is about.
struct Keys {
    account: u64,
    pair: u64,
    network: Option<(u64, u64)>,
}

impl Failures {
    pub(super) fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, hasher: RandomState::new(), buckets: Mutex::default() }
    }

    /// Whether one more password may be tried.
    pub(super) fn admit(&self, attempt: &Try, now: Instant) -> Result<(), Full> {
        let keys = self.keys(attempt);
        let mut buckets = self.lock();
        let Tolerance { per_account, per_network, .. } = self.tolerance;
        let is_guessed_at = is_full(buckets.level(keys.account, self.rate(per_account), now), per_account);
        let is_known = buckets.is_known(keys.pair, now);
        let tries = if is_guessed_at && !is_known { per_account.min(STRANGER_TRIES) } else { per_account };
        if is_full(buckets.level(keys.pair, self.rate(tries), now), tries) {
            return Err(Full::Account);
        }
        let Some((network, surroundings)) = keys.network.filter(|_| !is_known) else {
            return Ok(());
        };
        for (key, tries) in [(network, per_network), (surroundings, per_network.saturating_mul(SURROUNDINGS_FACTOR))] {
            if is_full(buckets.level(key, self.rate(tries), now), tries) {
                return Err(Full::Network);
            }
        }
        Ok(())
    }

    /// The password was wrong. Tells what has become full by it, once.
    pub(super) fn failed(&self, attempt: &Try, now: Instant) -> Option<Full> {
        let keys = self.keys(attempt);
        let mut buckets = self.lock();
        let Tolerance { per_account, per_network, .. } = self.tolerance;
        buckets.add(keys.pair, 1.0, self.rate(per_account), now);
        let becomes_full = |level: f64, size| is_full(level, size) && !is_full(level - 1.0, size);
        let account_full = becomes_full(buckets.add(keys.account, 1.0, self.rate(per_account), now), per_account);
        let mut network_full = false;
        if let Some((network, surroundings)) = keys.network {
            let wide = per_network.saturating_mul(SURROUNDINGS_FACTOR);
            let near = becomes_full(buckets.add(network, 1.0, self.rate(per_network), now), per_network);
            let far = becomes_full(buckets.add(surroundings, 1.0, self.rate(wide), now), wide);
            network_full = near || far;
        }
        match (network_full, account_full) {
            (true, _) => Some(Full::Network),
            (false, true) => Some(Full::Account),
            (false, false) => None,
        }
    }

    /// The password was right.
    pub(super) fn succeeded(&self, attempt: &Try, now: Instant) {
        let keys = self.keys(attempt);
        let mut buckets = self.lock();
        let Tolerance { per_account, per_network, .. } = self.tolerance;
        let own = buckets.level(keys.pair, self.rate(per_account), now);
        if own > 0.0 {
            buckets.add(keys.account, -own, self.rate(per_account), now);
            if let Some((network, surroundings)) = keys.network {
                buckets.add(network, -own, self.rate(per_network), now);
                buckets.add(surroundings, -own, self.rate(per_network.saturating_mul(SURROUNDINGS_FACTOR)), now);
            }
        }
        buckets.put(keys.pair, Bucket { level: 0.0, at: now, owner_seen: Some(now) });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let buckets = self.lock();
        buckets.young.len() + buckets.old.len()
    }

    /// How fast a bucket of this size drains, per second.
    fn rate(&self, size: u32) -> f64 {
        f64::from(size) / self.tolerance.window.as_secs_f64().max(1.0)
    }

    fn keys(&self, attempt: &Try) -> Keys {
        let networks = attempt.client.map(networks);
        let key = |kind: u8, account: &str, network: Option<IpAddr>| self.hasher.hash_one((kind, account, network));
        Keys {
            account: key(0, &attempt.account, None),
            pair: key(1, &attempt.account, networks.map(|(near, _)| near)),
            network: networks.map(|(near, wide)| (key(2, "", Some(near)), key(3, "", Some(wide)))),
        }
    }

    /// A panic elsewhere cannot leave the maps half changed: each change is one call on one map.
    fn lock(&self) -> std::sync::MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    /// The bucket, young again when there is one.
    fn touch(&mut self, key: u64) -> Option<Bucket> {
        if let Some(bucket) = self.young.get(&key) {
            return Some(*bucket);
        }
        let bucket = self.old.remove(&key)?;
        self.put(key, bucket);
        Some(bucket)
    }

    fn put(&mut self, key: u64, bucket: Bucket) {
        self.old.remove(&key);
        if self.young.len() >= BUCKETS_MAX / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, bucket);
    }

    fn level(&mut self, key: u64, rate: f64, now: Instant) -> f64 {
        self.touch(key).map_or(0.0, |bucket| bucket.drained(rate, now))
    }

    fn is_known(&mut self, key: u64, now: Instant) -> bool {
        let seen = self.touch(key).and_then(|bucket| bucket.owner_seen);
        seen.is_some_and(|seen| now.saturating_duration_since(seen) < KNOWN_FOR)
    }

    /// Gives the new level. A bucket that is not there and stays empty is not made.
    fn add(&mut self, key: u64, amount: f64, rate: f64, now: Instant) -> f64 {
        let before = self.touch(key);
        let level = (before.map_or(0.0, |bucket| bucket.drained(rate, now)) + amount).max(0.0);
        if before.is_some() || level > 0.0 {
            self.put(key, Bucket { level, at: now, owner_seen: before.and_then(|bucket| bucket.owner_seen) });
        }
        level
    }
}

impl Bucket {
    fn drained(&self, rate: f64, now: Instant) -> f64 {
        (self.level - now.saturating_duration_since(self.at).as_secs_f64() * rate).max(0.0)
    }
}

/// Whether one more failure does not fit in. (A bucket that is full has room again when a whole one has drained.)
fn is_full(level: f64, size: u32) -> bool {
    level + 1.0 > f64::from(size)
}

/// The network of a client, and its surroundings.
fn networks(client: IpAddr) -> (IpAddr, IpAddr) {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            (IpAddr::V4(address), IpAddr::from([a, b, c, 0]))
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            (IpAddr::from([a, b, c, d, 0, 0, 0, 0]), IpAddr::from([a, b, c, 0, 0, 0, 0, 0]))
        }
    }
}
