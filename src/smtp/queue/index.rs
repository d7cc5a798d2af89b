//! What the queue knows of its messages without reading the disk.
//!
//! Owns: who is pending, when to try next. Called by: `smtp::queue`. Never: holds a message or an address.
//! Invariant: `schedule` has exactly the messages that nobody has taken; `arrivals` has all.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::record::{Head, Record, Settled};
use crate::base::id::Id;
use crate::ledger::Position;

/// A message in the queue.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Its latest `Message` record.
    pub(super) position: Position,
    pub(super) arrived_millis: u64,
    /// Octets of the message.
    pub(super) size: u64,
    /// Places of the recipients that are pending, in order; never empty.
    pub(super) pending: Vec<u32>,
    pub(super) attempts: u32,
    due: Instant,
    taken: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    messages: HashMap<Id, Waiting>,
    schedule: BTreeSet<(Instant, Id)>,
    arrivals: BTreeSet<(u64, Id)>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn get(&self, id: Id) -> Option<&Waiting> {
        self.messages.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &Waiting)> {
        self.messages.iter().map(|(id, waiting)| (*id, waiting))
    }

    /// A record that was appended, or is met in replay.
    pub(super) fn apply(&mut self, position: Position, record: &Record, now: Instant) {
        match record {
            Record::Message(head) => self.put(position, head, now),
            Record::Settled(settled) => self.settle(settled),
        }
    }

    /// A message; a later record of the same message takes the place of the earlier.
    fn put(&mut self, position: Position, head: &Head, now: Instant) {
        let id = head.id();
        self.remove(id);
        let pending: Vec<u32> = (0..u32::try_from(head.len()).unwrap_or(u32::MAX)).collect();
        if pending.is_empty() {
            return Waiting::complain(id, "no recipients");
        }
        let (arrived_millis, size) = (head.arrived_millis, head.size);
        let waiting = Waiting { position, arrived_millis, size, pending, attempts: 0, due: now, taken: false };
        self.messages.insert(id, waiting);
        self.schedule.insert((now, id));
        self.arrivals.insert((arrived_millis, id));
    }

    fn settle(&mut self, settled: &Settled) {
        // In replay: of a message whose record went with an older segment.
        let Some(waiting) = self.messages.get_mut(&settled.id) else { return };
        waiting.pending.retain(|place| !settled.places.contains(place));
        if waiting.pending.is_empty() {
            self.remove(settled.id);
        }
    }

    fn remove(&mut self, id: Id) {
        if let Some(waiting) = self.messages.remove(&id) {
            self.schedule.remove(&(waiting.due, id));
            self.arrivals.remove(&(waiting.arrived_millis, id));
        }
    }

    /// The message that has been due longest; it is the caller's until it is put back or gone.
    pub(super) fn take(&mut self, now: Instant) -> Option<Id> {
        let (due, id) = *self.schedule.first()?;
        (due <= now && self.hold(id)).then_some(id)
    }

    /// The oldest message that nobody has taken and that arrived before this time.
    pub(super) fn take_older(&mut self, arrived_before_millis: u64) -> Option<Id> {
        let older = self.arrivals.range(..(arrived_before_millis, Id::from_u64(0)));
        let free = |id: &Id| self.messages.get(id).is_some_and(|waiting| !waiting.taken);
        let id = older.map(|(_, id)| *id).find(free)?;
        self.hold(id).then_some(id)
    }

    /// Takes this message, due or not; false when it is taken, or gone.
    pub(super) fn hold(&mut self, id: Id) -> bool {
        let Some(waiting) = self.messages.get_mut(&id) else { return false };
        let free = !waiting.taken;
        waiting.taken = true;
        self.schedule.remove(&(waiting.due, id));
        free
    }

    pub(super) fn put_back(&mut self, id: Id, due: Instant, tried: bool) {
        let Some(waiting) = self.messages.get_mut(&id) else { return };
        waiting.attempts = waiting.attempts.saturating_add(u32::from(tried));
        waiting.taken = false;
        self.schedule.remove(&(waiting.due, id));
        waiting.due = due;
        self.schedule.insert((due, id));
    }

    /// Lets a held message go, due when it was before, with its record at another place.
    pub(super) fn moved(&mut self, id: Id, position: Position) {
        let Some(waiting) = self.messages.get_mut(&id) else { return };
        waiting.position = position;
        waiting.pending = (0..u32::try_from(waiting.pending.len()).unwrap_or(u32::MAX)).collect();
        self.release(id);
    }

    /// Lets a held message go, due when it was before.
    pub(super) fn release(&mut self, id: Id) {
        let Some(waiting) = self.messages.get_mut(&id) else { return };
        waiting.taken = false;
        self.schedule.insert((waiting.due, id));
    }

    pub(super) fn wake(&mut self, now: Instant) {
        for (_, id) in std::mem::take(&mut self.schedule) {
            if let Some(waiting) = self.messages.get_mut(&id) {
                waiting.due = waiting.due.min(now);
                self.schedule.insert((waiting.due, id));
            }
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.first().map(|(due, _)| *due)
    }

    pub(super) fn oldest_millis(&self) -> Option<u64> {
        self.arrivals.first().map(|(arrived, _)| *arrived)
    }
}
