//! What bounds the time: when this version was built, and what was noted.
//!
//! Owns: `Book`, which holds the one `Note` of the machine. Called by: `clock`, `keeper`. Never: sets a clock.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing::warn;

use super::decision::Bounds;
use super::note::Note;

#[derive(Debug)]
pub(super) struct Book {
    built: SystemTime,
    /// None: there is no data partition.
    path: Option<PathBuf>,
    note: Mutex<Note>,
}

impl Book {
    pub(super) fn new(built: SystemTime) -> Self {
        Self { built, path: None, note: Mutex::default() }
    }

    /// From now on it is kept in this file, where an earlier one may be.
    pub(super) fn open(&mut self, path: PathBuf) {
        *self.lock() = Note::read(&path);
        self.path = Some(path);
    }

    pub(super) fn bounds(&self) -> Bounds {
        let note = self.lock();
        Bounds { built: self.built, seen: note.seen(), sure: note.sure() }
    }

    /// Servers agree that this is the time.
    pub(super) fn trust(&self, now: SystemTime) {
        self.lock().trust(now);
    }

    /// A person says that this is the time.
    pub(super) fn take(&self, now: SystemTime) {
        self.lock().take(now);
    }

    /// The clock stands at this: noted down.
    pub(super) fn note(&self, now: SystemTime) {
        self.lock().see(now);
        self.write();
    }

    pub(super) fn write(&self) {
        let note = *self.lock();
        if let Some(path) = &self.path
            && let Err(error) = note.write(path)
        {
            warn!(path = %path.display(), %error, "the time is not noted");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Note> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
