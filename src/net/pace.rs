//! How long a peer may take for something that comes in pieces.
//!
//! Owns: `Pace`. Called by: sessions' sockets. Never: reads the clock or waits. A limit on silence alone is none: whoever sends an
//! octet now and then would hold a connection, and what stands behind it, for ever.

use std::time::{Duration, Instant};

/// The slowest that something may come, on average, beyond the first patience.
pub const OCTETS_PER_SEC_MIN: usize = 1024;

/// The pace of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// When what is coming in has begun.
    begun: Option<Instant>,
    /// Octets of it so far.
    octets: usize,
}

impl Pace {
    /// Until when more must have come. `amid`: something has begun (a command, a transaction) and is not whole; then all of it has
    /// this patience together, and a second for every [`OCTETS_PER_SEC_MIN`] that came. Otherwise it is the silence that counts.
    pub fn deadline(&mut self, amid: bool, now: Instant, patience: Duration) -> Instant {
        if !amid {
            self.done();
            return now + patience;
        }
        let earned = u64::try_from(self.octets / OCTETS_PER_SEC_MIN).unwrap_or(u64::MAX);
        *self.begun.get_or_insert(now) + patience.saturating_add(Duration::from_secs(earned))
    }

    /// Octets have come.
    pub fn received(&mut self, octets: usize) {
        self.octets = self.octets.saturating_add(octets);
    }

    /// What was coming in is whole.
    pub fn done(&mut self) {
        *self = Self::default();
    }
}
