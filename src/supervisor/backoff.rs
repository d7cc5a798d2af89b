//! How long to wait before a role that ended is started again.
//!
//! Owns: `Backoff`. Called by: the supervisor. Never: reads the clock.

use std::time::Duration;

/// Wait after the second failure in a row; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Wait, at most: a role whose trouble is over (disk freed, file restored) is back within this.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A role that ran this long has had a good start: the next failure counts as the first.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// Failures in a row of one role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The role ended after `uptime`: how long until it is started again. At once the first time.
    pub(super) fn after(&mut self, uptime: Duration) -> Duration {
        if uptime >= GOOD_RUN {
            self.failures = 0;
        }
        let wait = match self.failures {
            0 => Duration::ZERO,
            // 2^5 seconds are above the maximum already.
            failures => FIRST_WAIT.saturating_mul(1 << (failures - 1).min(5)).min(WAIT_MAX),
        };
        self.failures = self.failures.saturating_add(1);
        wait
    }
}
