//! The clock: the one room that reads it.
//!
//! Owns: wall time and monotonic time. Called by: `serve`-like rooms, which pass
//! the time on to protocol rooms as an argument. Never: sleeps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall time. May jump; use it for what people read (dates, trace headers).
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970-01-01 00:00 UTC; 0 when the clock stands before that.
#[must_use]
pub fn unix_millis() -> u64 {
    let elapsed = wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970-01-01 00:00 UTC; 0 when the clock stands before that.
#[must_use]
pub fn unix_secs() -> u64 {
    unix_millis() / 1000
}

/// Monotonic time. Never jumps; use it for timeouts and intervals.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}
