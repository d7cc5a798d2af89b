//! Pauses on record: when something is tried next, and how often it was tried, over restarts.
//!
//! Owns: what of the index is worth a record, and its way back. Called by: `smtp::queue`, its `compaction`; `smtp::runner` says when.
//! Never: writes with each attempt: an attempt that fails costs no `fdatasync`.
//!
//! A pause is on record by the destination's name, not by the recipients' places, which compaction changes: what goes another way after a change of
//! routes is tried at once. Our own mailboxes have none: they are asked at once when this process starts.

use std::time::Instant;

use super::index::Index;
use super::record::{Mark, Pause};
use super::{Queue, QueueError};
use crate::base::id::Id;
use crate::smtp::outbound::route::Key;

/// Pauses that are written in one go.
const BATCH_LEN: usize = 1000;

impl Queue {
    /// Writes down what failed since the last time. Safe when it resolves.
    ///
    /// # Errors
    /// `Ledger`: after a restart some is tried earlier than it should be.
    pub async fn note_pauses(&self, now_millis: u64, now: Instant) -> Result<(), QueueError> {
        loop {
            let marks = self.index().unwritten_marks(now_millis, now);
            if marks.is_empty() {
                return Ok(());
            }
            self.ledger.append(marks.iter().map(|mark| mark.entry(now_millis)).collect()).await?;
        }
    }

    /// Has the pauses of all destinations written once more: where they were may be gone.
    pub(super) fn renew_pauses(&self) {
        self.index().lanes().renew();
    }
}

impl Index {
    /// Some of what is to be written; it counts as written.
    fn unwritten_marks(&mut self, now_millis: u64, now: Instant) -> Vec<Mark> {
        let mut marks = Vec::new();
        while marks.len() < BATCH_LEN
            && let Some((id, key)) = self.unwritten.pop_first()
        {
            marks.extend(self.tried(id, &key, now_millis, now));
        }
        while marks.len() < BATCH_LEN
            && let Some(key) = self.lanes().pop_unwritten()
        {
            marks.extend(self.down(&key, now_millis, now));
        }
        marks
    }

    /// What would be lost of a message, and of its destinations, when its record is written anew.
    pub(super) fn marks_of(&mut self, id: Id, now_millis: u64, now: Instant) -> Vec<Mark> {
        let Some(waiting) = self.get(id) else { return Vec::new() };
        let keys: Vec<Key> = waiting.parts.iter().map(|part| part.key.clone()).collect();
        let marks = |key: &Key| [self.tried(id, key, now_millis, now), self.down(key, now_millis, now)];
        keys.iter().flat_map(marks).flatten().collect()
    }

    fn tried(&self, id: Id, key: &Key, now_millis: u64, now: Instant) -> Option<Mark> {
        let part = self.get(id)?.part(key).filter(|part| part.attempts > 0 && *key != Key::Mailboxes)?;
        let left = Self::due_in(part, now);
        let pause = Pause::new(self.routes.name(key), part.attempts, left, part.reason.as_ref(), now_millis);
        Some(Mark { tried: Some(pause), ..Mark::new(id) })
    }

    fn down(&self, key: &Key, now_millis: u64, now: Instant) -> Option<Mark> {
        let (failures, left, reason) = self.failures(key, now).filter(|_| *key != Key::Mailboxes)?;
        let pause = Pause::new(self.routes.name(key), failures, left, reason.as_ref(), now_millis);
        Some(Mark { down: Some(pause), ..Mark::new(Id::from_u64(0)) })
    }

    /// A pause that is met in replay.
    pub(super) fn restore(&mut self, mark: &Mark, now_millis: u64, now: Instant) {
        if let Some(pause) = &mark.down {
            let (key, until) = (self.routes.named(&pause.destination), now + pause.left(now_millis));
            self.lanes().restore(&key, pause.failures, until, &pause.reason, now);
        }
        let Some(pause) = &mark.tried else { return };
        let (key, id) = (self.routes.named(&pause.destination), mark.id);
        let Some(part) = self.messages.get_mut(&id).and_then(|waiting| waiting.part_mut(&key)) else { return };
        let (before, due, held) = (part.due, now + pause.left(now_millis), part.held);
        (part.due, part.attempts, part.reason) = (due, pause.failures, Some(pause.reason.as_str().into()));
        if !held {
            self.lanes().unwait(&key, before, id, now);
            self.lanes().wait(&key, due, id, now);
        }
    }
}
