//! What is told of a part, or of a whole run, while it goes on.
//!
//! Owns: `Progress`, written by the pipeline's threads, read by whoever shows it; the wish to stop. Never: reads the clock.

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Files whose names are kept, of those that could not be read.
const LEFT_OUT_NAMED_MAX: usize = 1_000;

/// See the room.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    written: AtomicU64,
    members: AtomicU64,
    underruns: AtomicU64,
    fill: AtomicU64,
    limit: AtomicU64,
    volume: Mutex<String>,
    source: Mutex<String>,
    left_out: AtomicU64,
    left_out_named: Mutex<Vec<String>>,
    cancelled: AtomicBool,
}

/// The same at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// Octets of tar streams that came from sources.
    pub read: u64,
    /// Octets of blocks that the drive took.
    pub written: u64,
    pub members: u64,
    /// How often the drive had to stop for want of data.
    pub underruns: u64,
    /// Octets that wait for the drive, and for how many there is room.
    pub fill: u64,
    pub limit: u64,
    pub volume: String,
    /// What is being backed up.
    pub source: String,
    /// Files that could not be read, or not to their ends.
    pub left_out: u64,
}

impl Progress {
    pub(super) fn add_read(&self, len: usize) {
        self.read.fetch_add(len as u64, Ordering::Relaxed);
    }

    pub(super) fn add_written(&self, len: usize) {
        self.written.fetch_add(len as u64, Ordering::Relaxed);
    }

    pub(super) fn add_members(&self, count: u64) {
        self.members.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn add_underrun(&self) {
        self.underruns.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_fill(&self, fill: usize, limit: usize) {
        self.fill.store(fill as u64, Ordering::Relaxed);
        self.limit.store(limit as u64, Ordering::Relaxed);
    }

    pub(super) fn set_volume(&self, name: &str) {
        name.clone_into(&mut self.volume.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is backed up from now on.
    pub fn set_source(&self, name: &str) {
        name.clone_into(&mut self.source.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Something is not in the backup, or not as it was, because it cannot be read.
    pub fn leave_out(&self, path: &Path, why: &dyn Display) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
        let mut named = self.left_out_named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < LEFT_OUT_NAMED_MAX {
            named.push(format!("{}: {why}", path.display()));
        }
    }

    /// What was left out, each with the reason; of very many the first ones.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        self.left_out_named.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the pipeline to stop. It does so at its next frame.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// As it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let text = |text: &Mutex<String>| text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Snapshot {
            read: number(&self.read),
            written: number(&self.written),
            members: number(&self.members),
            underruns: number(&self.underruns),
            fill: number(&self.fill),
            limit: number(&self.limit),
            volume: text(&self.volume),
            source: text(&self.source),
            left_out: number(&self.left_out),
        }
    }
}
