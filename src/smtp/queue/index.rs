//! What the queue knows of its messages without reading the disk.
//!
//! Owns: who is pending, where, when to try next; the messages that just came, as long as there is memory. Called by: `smtp::queue`.
//! Never: reads the clock or the ledger.
//!
//! About half a KiB a message with one recipient, beside the memory for messages themselves, which is bounded by `MEMORY_BYTES_MAX`.
//!
//! Invariants: `lanes` has exactly the parts of all messages; a message has at least one part, a part at least one place; `arrivals` has all
//! messages, `unwarned` those whose senders were not told of a delay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::{LaneState, Lanes};
use super::record::{Head, Mark, Record, Settled};
use crate::base::id::Id;
use crate::ledger::Position;
use crate::smtp::envelope::Message;
use crate::smtp::outbound::route::{Key, Routes};

/// Octets of messages that are kept in memory from their arrival to their first attempt, at most; older ones are read from the disk.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Those recipients of a message who are reached by the same way.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) key: Key,
    /// Places in the recipients of the latest `Message` record, in order; never empty.
    pub(super) places: Vec<u32>,
    pub(super) attempts: u32,
    pub(super) due: Instant,
    pub(super) taken: bool,
    pub(super) held: bool,
    /// Let go by an administrator, and not tried since: it is not too old before it was.
    pub(super) released: bool,
    /// Why it was not delivered yet.
    pub(super) reason: Option<Arc<str>>,
}

/// A message in the queue.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Its latest `Message` record.
    pub(super) position: Position,
    pub(super) arrived_millis: u64,
    /// Octets of the message.
    pub(super) size: u64,
    pub(super) parts: Vec<Part>,
    /// The sender was told of a delay.
    pub(super) warned: bool,
    message: Option<Message>,
}

/// A part that the caller has taken, for it alone until it is settled or put back.
#[derive(Debug)]
pub struct Taken {
    pub id: Id,
    pub key: Key,
    pub(super) places: Vec<u32>,
    pub(super) position: Position,
    pub(super) attempts: u32,
    pub(super) arrived_millis: u64,
    pub(super) message: Option<Message>,
    pub(super) reason: Option<Arc<str>>,
}

impl Taken {
    /// Attempts so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Why the last attempt failed.
    #[must_use]
    pub fn reason(&self) -> Option<Arc<str>> {
        self.reason.clone()
    }

    /// Whether `Queue::load` need not read the disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.message.is_some()
    }
}

#[derive(Debug)]
pub(super) struct Index {
    pub(super) routes: Arc<Routes>,
    pub(super) messages: BTreeMap<Id, Waiting>,
    lanes: Lanes,
    arrivals: BTreeSet<(u64, Id)>,
    unwarned: BTreeSet<(u64, Id)>,
    /// Messages in memory, oldest first, some of them gone.
    remembered: VecDeque<Id>,
    remembered_bytes: usize,
    /// Parts whose last attempt is not on record.
    pub(super) unwritten: BTreeSet<(Id, Key)>,
}

impl Index {
    pub(super) fn new(routes: Arc<Routes>) -> Self {
        Self {
            routes,
            messages: BTreeMap::new(),
            lanes: Lanes::default(),
            arrivals: BTreeSet::new(),
            unwarned: BTreeSet::new(),
            remembered: VecDeque::new(),
            remembered_bytes: 0,
            unwritten: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn get(&self, id: Id) -> Option<&Waiting> {
        self.messages.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &Waiting)> {
        self.messages.iter().map(|(id, waiting)| (*id, waiting))
    }

    /// Messages behind this one, in the order of their ids.
    pub(super) fn after(&self, id: Option<Id>) -> impl Iterator<Item = (Id, &Waiting)> {
        let from = id.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.messages.range((from, std::ops::Bound::Unbounded)).map(|(id, waiting)| (*id, waiting))
    }

    /// A record that was appended, or is met in replay.
    pub(super) fn apply(&mut self, position: Position, record: &Record, now: Instant) {
        match record {
            Record::Message(head) => self.put(position, head, now),
            Record::Settled(settled) => self.settle(settled, now),
            Record::Mark(mark) => self.mark(mark, now),
        }
    }

    /// A message; a later record of the same message takes the place of the earlier.
    fn put(&mut self, position: Position, head: &Head, now: Instant) {
        let id = head.id();
        self.remove(id, now);
        let mut parts: Vec<Part> = Vec::new();
        for (place, recipient) in (0..).zip(head.recipients()) {
            let key = self.routes.key(recipient);
            if let Some(part) = parts.iter_mut().find(|part| part.key == key) {
                part.places.push(place);
                continue;
            }
            let held = head.held.unwrap_or_else(|| self.routes.holds(&key));
            let (places, attempts, taken, released, reason) = (vec![place], 0, false, false, None);
            parts.push(Part { key, places, attempts, due: now, taken, held, released, reason });
        }
        if parts.is_empty() {
            return Waiting::complain(id, "no recipients");
        }
        for part in &parts {
            self.lanes.join(&part.key, self.routes.pace(&part.key));
            if !part.held {
                self.lanes.wait(&part.key, part.due, id, now);
            }
        }
        let (arrived_millis, size, warned) = (head.arrived_millis, head.size, head.warned);
        self.messages.insert(id, Waiting { position, arrived_millis, size, parts, warned, message: None });
        self.arrivals.insert((arrived_millis, id));
        if !warned {
            self.unwarned.insert((arrived_millis, id));
        }
    }

    /// Keeps a message in memory until it was tried.
    pub(super) fn remember(&mut self, message: Message) {
        let id = message.envelope.id;
        let Some(waiting) = self.messages.get_mut(&id) else { return };
        self.remembered_bytes += message.size();
        waiting.message = Some(message);
        self.remembered.push_back(id);
        while self.remembered_bytes > MEMORY_BYTES_MAX
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.forget(oldest);
        }
        // Those that are gone must not make the list long.
        if self.remembered.len() > 2 * self.messages.len() + 1024 {
            let messages = &self.messages;
            self.remembered.retain(|id| messages.get(id).is_some_and(|waiting| waiting.message.is_some()));
        }
    }

    fn forget(&mut self, id: Id) {
        let message = self.messages.get_mut(&id).and_then(|waiting| waiting.message.take());
        self.remembered_bytes = self.remembered_bytes.saturating_sub(message.map_or(0, |message| message.size()));
    }

    fn settle(&mut self, settled: &Settled, now: Instant) {
        // In replay: of a message whose record went with an older segment.
        let Some(waiting) = self.messages.get_mut(&settled.id) else { return };
        for part in &mut waiting.parts {
            part.places.retain(|place| !settled.places.contains(place));
        }
        let (kept, gone) = std::mem::take(&mut waiting.parts).into_iter().partition(|part| !part.places.is_empty());
        waiting.parts = kept;
        let is_empty = waiting.parts.is_empty();
        for part in gone {
            self.part_gone(settled.id, &part, now);
        }
        if is_empty {
            self.remove(settled.id, now);
        }
    }

    fn part_gone(&mut self, id: Id, part: &Part, now: Instant) {
        self.lanes.unwait(&part.key, part.due, id, now);
        self.lanes.leave(&part.key, now);
    }

    fn mark(&mut self, mark: &Mark, now: Instant) {
        let Some(waiting) = self.messages.get_mut(&mark.id) else { return };
        if mark.warned {
            waiting.warned = true;
            self.unwarned.remove(&(waiting.arrived_millis, mark.id));
        }
        let Some(held) = mark.held else { return };
        for part in &mut waiting.parts {
            if part.held == held {
                continue;
            }
            part.held = held;
            if part.taken {
                continue;
            }
            if held {
                self.lanes.unwait(&part.key, part.due, mark.id, now);
            } else {
                (part.due, part.released) = (now, true);
                self.lanes.wait(&part.key, now, mark.id, now);
            }
        }
    }

    fn remove(&mut self, id: Id, now: Instant) {
        self.forget(id);
        if let Some(waiting) = self.messages.remove(&id) {
            for part in &waiting.parts {
                self.part_gone(id, part, now);
            }
            self.arrivals.remove(&(waiting.arrived_millis, id));
            self.unwarned.remove(&(waiting.arrived_millis, id));
        }
    }

    /// The next part for this destination.
    pub(super) fn take(&mut self, key: &Key, now: Instant) -> Option<Taken> {
        loop {
            let id = self.lanes.next(key, now)?;
            let taken = self.messages.get_mut(&id).and_then(|waiting| waiting.take(id, key));
            if taken.is_some() {
                return taken;
            }
            Waiting::complain(id, "in a lane, but not there");
        }
    }

    /// Parts of messages that arrived before this time, that nobody has taken, that are not held, and that were tried since they were; as many as this.
    pub(super) fn take_older(&mut self, arrived_before_millis: u64, count: usize, now: Instant) -> Vec<Taken> {
        let mut found = Vec::new();
        let older = self.arrivals.range(..(arrived_before_millis, Id::from_u64(0)));
        for (_, id) in older {
            let Some(waiting) = self.messages.get_mut(id) else { continue };
            let free = waiting.parts.iter().filter(|part| !part.taken && !part.held && !part.released);
            for key in free.map(|part| part.key.clone()).collect::<Vec<_>>() {
                let due = waiting.part(&key).map(|part| part.due);
                found.extend(waiting.take(*id, &key));
                self.lanes.unwait(&key, due.unwrap_or(now), *id, now);
            }
            if found.len() >= count {
                break;
            }
        }
        found
    }

    /// Messages that arrived before this time and whose senders were not told of it; each is given once, as many as this.
    pub(super) fn take_unwarned(&mut self, arrived_before_millis: u64, count: usize) -> Vec<Id> {
        let older = self.unwarned.range(..(arrived_before_millis, Id::from_u64(0)));
        let ids: Vec<(u64, Id)> = older.take(count).copied().collect();
        for entry in &ids {
            self.unwarned.remove(entry);
        }
        let is_free = |id: &Id| self.get(*id).is_some_and(|waiting| waiting.parts.iter().any(|part| !part.held));
        ids.into_iter().map(|(_, id)| id).filter(is_free).collect()
    }

    /// Takes the whole message, due or not; none when some of it is taken, or it is gone.
    pub(super) fn hold(&mut self, id: Id, now: Instant) -> bool {
        let Some(waiting) = self.messages.get_mut(&id) else { return false };
        if waiting.parts.iter().any(|part| part.taken) {
            return false;
        }
        for part in &mut waiting.parts {
            part.taken = true;
            self.lanes.unwait(&part.key, part.due, id, now);
        }
        true
    }

    /// Gives a part back. `tried`: it counts as an attempt, for this reason.
    pub(super) fn put_back(&mut self, id: Id, key: &Key, due: Instant, tried: Option<&str>, now: Instant) {
        if tried.is_some() {
            self.forget(id);
        }
        let Some(part) = self.messages.get_mut(&id).and_then(|waiting| waiting.part_mut(key)) else { return };
        if let Some(reason) = tried {
            part.attempts = part.attempts.saturating_add(1);
            part.reason = Some(reason.into());
            self.unwritten.insert((id, key.clone()));
        }
        (part.taken, part.released) = (false, false);
        part.due = due;
        if !part.held {
            self.lanes.wait(key, due, id, now);
        }
    }

    /// Lets a held message go, due when it was before, with its record at another place.
    pub(super) fn moved(&mut self, id: Id, position: Position, now: Instant) {
        let Some(waiting) = self.messages.get_mut(&id) else { return };
        waiting.position = position;
        // The new record has those only who were pending, in the order of `pending`.
        let pending = waiting.pending();
        for place in waiting.parts.iter_mut().flat_map(|part| &mut part.places) {
            *place = pending.binary_search(place).ok().and_then(|at| u32::try_from(at).ok()).unwrap_or(*place);
        }
        self.release(id, now);
    }

    /// Lets a held message go, due when it was before.
    pub(super) fn release(&mut self, id: Id, now: Instant) {
        let Some(waiting) = self.messages.get_mut(&id) else { return };
        for part in &mut waiting.parts {
            part.taken = false;
            if !part.held {
                self.lanes.wait(&part.key, part.due, id, now);
            }
        }
    }

    /// What waits in this message is due now, and its destinations count as up.
    pub(super) fn retry(&mut self, id: Id, now: Instant) {
        let Some(waiting) = self.messages.get_mut(&id) else { return };
        for part in waiting.parts.iter_mut().filter(|part| !part.taken && !part.held) {
            self.lanes.unwait(&part.key, part.due, id, now);
            part.due = part.due.min(now);
            self.lanes.up(&part.key, now);
            self.lanes.wait(&part.key, part.due, id, now);
        }
    }

    /// All that waits for this destination is due now; all there is when none is named.
    pub(super) fn wake(&mut self, key: Option<&Key>, now: Instant) {
        let is_meant = |part: &Part| key.is_none_or(|key| part.key == *key);
        let ids: Vec<Id> = self.iter().filter(|(_, w)| w.parts.iter().any(is_meant)).map(|(id, _)| id).collect();
        for id in ids {
            self.retry(id, now);
        }
        for key in key.cloned().map_or_else(|| self.lanes.keys().cloned().collect(), |key| vec![key]) {
            self.lanes.up(&key, now);
        }
    }

    pub(super) fn open_session(&mut self, now: Instant, sessions_max: usize) -> Option<Key> {
        self.lanes.open_session(now, sessions_max)
    }

    pub(super) fn lanes(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        self.lanes.next_at(now)
    }

    pub(super) fn oldest_millis(&self) -> Option<u64> {
        self.arrivals.first().map(|(arrived, _)| *arrived)
    }

    pub(super) fn lane_state(&self, key: &Key, now: Instant) -> Option<LaneState> {
        self.lanes.state(key, now)
    }

    /// How often a destination failed in a row, how long it is left alone, and why.
    pub(super) fn failures(&self, key: &Key, now: Instant) -> Option<(u32, Duration, Option<Arc<str>>)> {
        self.lanes.failures(key, now)
    }

    pub(super) fn destinations(&self, now: Instant) -> Vec<(Key, LaneState)> {
        self.lanes.keys().filter_map(|key| Some((key.clone(), self.lanes.state(key, now)?))).collect()
    }

    /// How long until a part is due.
    pub(super) fn due_in(part: &Part, now: Instant) -> Duration {
        part.due.saturating_duration_since(now)
    }
}

impl Waiting {
    pub(super) fn part(&self, key: &Key) -> Option<&Part> {
        self.parts.iter().find(|part| part.key == *key)
    }

    pub(super) fn part_mut(&mut self, key: &Key) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.key == *key)
    }

    /// Places of all who are pending, in order.
    pub(super) fn pending(&self) -> Vec<u32> {
        let mut pending: Vec<u32> = self.parts.iter().flat_map(|part| part.places.iter().copied()).collect();
        pending.sort_unstable();
        pending
    }

    fn take(&mut self, id: Id, key: &Key) -> Option<Taken> {
        let (position, arrived_millis, message) = (self.position, self.arrived_millis, self.message.clone());
        let part = self.part_mut(key).filter(|part| !part.taken && !part.held)?;
        part.taken = true;
        let (key, places, attempts, reason) = (key.clone(), part.places.clone(), part.attempts, part.reason.clone());
        Some(Taken { id, key, places, position, attempts, arrived_millis, message, reason })
    }
}
