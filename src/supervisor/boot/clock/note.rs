//! What is known of the time beyond a power cut: `/data/clock.json`.
//!
//! Owns: `Note`, the file. Called by: `clock`, `keeper`. Never: believes a file that is none; without one, the version's own date counts.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::base::durable;
use crate::config::load::read_bounded;

/// Octets of the file, at most.
const FILE_LEN_MAX: u64 = 4096;

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    /// Of the clock, whether right or not.
    seen: Option<u64>,
    /// On which servers agreed.
    sure: Option<u64>,
}

impl Note {
    pub(super) fn seen(&self) -> Option<SystemTime> {
        time(self.seen?)
    }

    pub(super) fn sure(&self) -> Option<SystemTime> {
        time(self.sure?)
    }

    /// The clock stands at this.
    pub(super) fn see(&mut self, now: SystemTime) {
        self.seen = secs(now);
    }

    /// Somebody says that this is the time. People mistype: servers may still say otherwise.
    pub(super) fn take(&mut self, now: SystemTime) {
        *self = Self { seen: secs(now), sure: None };
    }

    /// Servers agree that this is the time. What was noted before may be later, and was wrong then.
    pub(super) fn trust(&mut self, now: SystemTime) {
        *self = Self { seen: secs(now), sure: secs(now) };
    }

    /// Reads it; nothing is known where there is none, or where it is garbage.
    pub(super) fn read(path: &Path) -> Self {
        let text = match read_bounded(path, FILE_LEN_MAX) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "the last known time cannot be read");
                }
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the last known time is garbage");
            Self::default()
        })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the system says; the former one stands.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        durable::replace(path, &serde_json::to_vec(self)?, 0o600)
    }
}

fn time(secs: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(secs))
}

fn secs(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// When this version was built, as the file says that the kernel was started with; the start of all times where it says nothing.
pub(super) fn built(init: &Path) -> SystemTime {
    fs::metadata(init).and_then(|facts| facts.modified()).unwrap_or(UNIX_EPOCH)
}
