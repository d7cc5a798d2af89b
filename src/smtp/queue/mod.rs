//! The queue: mail that was taken and is not delivered yet.
//!
//! Owns: the ledger under it (`record`: what stands in it; `compaction`: how space comes back), the index in memory, the `lane`s by destination, the
//! `pauses` that outlive a restart.
//! Called by: `smtp::delivery` (adds), `smtp::runner` and `smtp::outbound` (take out, settle), `smtp::desk` (shows, changes).
//! Never: delivers, decides when to give up, reads the clock.
//!
//! Invariants:
//! - what `add` and `settle` return from is durable; the index is changed only after that;
//! - how often something was tried, and when it is tried next, is written now and then, not with each attempt: after a crash some of it may be
//!   forgotten, and those messages are tried earlier;
//! - a message is in the index as long as a recipient is pending, and only that long;
//! - the latest `Message` record of an id says who was pending when it was written; `Settled` records behind it take from that;
//! - segments are removed oldest first, so that a `Settled` record never goes before the `Message` that it is about: no message comes back.

mod compaction;
mod index;
mod lane;
mod pauses;
mod record;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::{info, warn};

pub use self::compaction::Room;
pub use self::index::Taken;
use self::index::{Index, Waiting};
pub use self::lane::LaneState;
pub use self::record::Ending;
use self::record::{Head, Mark, Record, Settled};
use super::envelope::Message;
use super::outbound::route::{Key, Routes};
use super::reply::{self, Reply};
use crate::base::id::Id;
use crate::ledger::{Entry, Ledger, LedgerError, Options, Position};

/// Messages in the queue, at most: what the index holds of each is a few hundred bytes.
pub const LEN_MAX: usize = 500_000;
/// Size of a segment of the ledger; one that holds the largest message at least.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Room in a segment beside the message: its envelope with up to thousands of recipients, the ledger's own.
const SEGMENT_BYTES_SPARE: u64 = 16 * 1024 * 1024;

/// Why the queue did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("queue is full: {LEN_MAX} messages")]
    Full,
    #[error("queue: {0}")]
    Ledger(#[from] LedgerError),
    #[error("queue: record at {position} is not what this version writes: {what}")]
    Record { position: Position, what: &'static str },
    /// The caller: not in the queue (any more).
    #[error("message {0} is not in the queue")]
    NoSuchMessage(Id),
}

impl QueueError {
    /// What the client is told.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::Full | Self::Ledger(LedgerError::Full) => reply::NO_ROOM,
            Self::Ledger(LedgerError::TooLarge { .. }) => reply::TOO_BIG,
            Self::Ledger(_) | Self::Record { .. } | Self::NoSuchMessage(_) => reply::LOCAL_ERROR,
        }
    }
}

/// A message out of the queue, with those recipients only that are pending, or were taken.
#[derive(Debug)]
pub struct Queued {
    pub message: Message,
    /// Where the recipients stand in the record: what `settle` wants to know.
    pub places: Vec<u32>,
    /// When it was taken in, in milliseconds since 1970.
    pub arrived_millis: u64,
    /// Attempts so far.
    pub attempts: u32,
}

/// Recipients of one message who wait for the same, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartState {
    pub destination: Key,
    pub recipients: usize,
    pub attempts: u32,
    pub due_in: Duration,
    pub taken: bool,
    pub held: bool,
    pub reason: Option<Arc<str>>,
}

/// A message in the queue, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub id: Id,
    pub arrived_millis: u64,
    /// Octets.
    pub size: u64,
    pub parts: Vec<PartState>,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    ledger: Ledger,
    index: Mutex<Index>,
    /// Told when something may have become due earlier.
    changed: Notify,
}

impl Queue {
    /// Opens the queue in this directory, and makes it if there is none. What is in it is due when it was, or `now`. Blocks.
    ///
    /// # Errors
    /// The ledger cannot be opened, or holds what this version did not write.
    pub fn open(
        dir: &Path,
        message_size_max: u64,
        routes: Arc<Routes>,
        now_millis: u64,
        now: Instant,
    ) -> Result<Self, QueueError> {
        let segment_bytes = SEGMENT_BYTES.max(message_size_max.saturating_add(SEGMENT_BYTES_SPARE));
        Self::open_with(dir, segment_bytes, routes, now_millis, now)
    }

    fn open_with(
        dir: &Path,
        segment_bytes: u64,
        routes: Arc<Routes>,
        now_millis: u64,
        now: Instant,
    ) -> Result<Self, QueueError> {
        let (ledger, _) = Ledger::open(dir, Options { segment_bytes, ..Options::default() })?;
        let mut index = Index::new(routes);
        let mut fault = None;
        ledger.replay(None, &mut |position, entry| match Record::read(&entry) {
            Ok(record) => {
                index.apply(position, &record, now);
                if let Record::Mark(mark) = &record {
                    index.restore(mark, now_millis, now);
                }
                std::ops::ControlFlow::Continue(())
            }
            Err(what) => {
                fault = Some(QueueError::Record { position, what });
                std::ops::ControlFlow::Break(())
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if index.len() > 0 {
            info!(messages = index.len(), "mail in the queue from before");
        }
        Ok(Self { ledger, index: Mutex::new(index), changed: Notify::new() })
    }

    /// Whether a failure of the disk has closed it: nothing comes in or goes out.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ledger.is_closed()
    }

    /// Resolves when it is closed, and the disk is well again: then it is to be opened anew.
    pub async fn can_be_opened_anew(&self) {
        self.ledger.can_be_opened_anew().await;
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is consistent between its methods, which do not panic half-way.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts messages in, all or none. They are safe when it resolves, and due `now`.
    ///
    /// # Errors
    /// `Full` and `Ledger`: none of them is in the queue.
    pub async fn add(&self, messages: Vec<Message>, now_millis: u64, now: Instant) -> Result<(), QueueError> {
        if self.index().len() + messages.len() > LEN_MAX {
            return Err(QueueError::Full);
        }
        self.write(messages, Vec::new(), now_millis, now).await
    }

    /// Notes what became of recipients, and puts messages in (bounces) in the same breath. Safe when it resolves.
    ///
    /// # Errors
    /// `Ledger`: nothing of it was noted.
    pub async fn settle(
        &self,
        id: Id,
        endings: Vec<(Vec<u32>, Ending)>,
        bounces: Vec<Message>,
        now_millis: u64,
        now: Instant,
    ) -> Result<(), QueueError> {
        let settled = |(places, ending)| Record::Settled(Settled { id, places, ending });
        self.write(bounces, endings.into_iter().map(settled).collect(), now_millis, now).await
    }

    /// Notes that the sender was told of a delay, and puts the message in that tells it. Safe when it resolves.
    ///
    /// # Errors
    /// `Ledger`: nothing of it was noted.
    pub async fn warned(
        &self,
        id: Id,
        warning: Option<Message>,
        now_millis: u64,
        now: Instant,
    ) -> Result<(), QueueError> {
        let mark = Record::Mark(Mark { warned: true, ..Mark::new(id) });
        self.write(warning.into_iter().collect(), vec![mark], now_millis, now).await
    }

    /// Holds messages, or lets them go; safe when it resolves. Gives how many of them are there.
    ///
    /// # Errors
    /// `Ledger`: nothing of it was noted.
    pub async fn hold(&self, ids: &[Id], held: bool, now_millis: u64, now: Instant) -> Result<usize, QueueError> {
        let there: Vec<Id> = ids.iter().copied().filter(|id| self.index().get(*id).is_some()).collect();
        let mark = |id: &Id| Record::Mark(Mark { held: Some(held), ..Mark::new(*id) });
        self.write(Vec::new(), there.iter().map(mark).collect(), now_millis, now).await?;
        Ok(there.len())
    }

    /// Takes messages out for good, but for those that are under way just now. Safe when it resolves; gives those that are gone.
    ///
    /// # Errors
    /// `Ledger`: nothing of it was noted.
    pub async fn delete(&self, ids: &[Id], now_millis: u64, now: Instant) -> Result<Vec<Id>, QueueError> {
        let (mut gone, mut records) = (Vec::new(), Vec::new());
        for id in ids {
            let mut index = self.index();
            let pending = index.get(*id).map(Waiting::pending).unwrap_or_default();
            if index.hold(*id, now) {
                gone.push(*id);
                records.push(Record::Settled(Settled { id: *id, places: pending, ending: Ending::Deleted }));
            }
        }
        let written = self.write(Vec::new(), records, now_millis, now).await;
        if written.is_err() {
            gone.iter().for_each(|id| self.index().release(*id, now));
        }
        written.map(|()| gone)
    }

    async fn write(
        &self,
        messages: Vec<Message>,
        others: Vec<Record>,
        now_millis: u64,
        now: Instant,
    ) -> Result<(), QueueError> {
        let heads: Vec<Head> = messages.iter().map(|message| Head::of(message, now_millis)).collect();
        let mut entries: Vec<Entry> = heads.iter().zip(&messages).map(|(head, message)| head.entry(message)).collect();
        entries.extend(others.iter().filter_map(|record| match record {
            Record::Message(_) => None,
            Record::Settled(settled) => Some(settled.entry(now_millis)),
            Record::Mark(mark) => Some(mark.entry(now_millis)),
        }));
        let positions = self.ledger.append(entries).await?;
        let has_new = !messages.is_empty() || others.iter().any(|record| matches!(record, Record::Mark(_)));
        let mut index = self.index();
        for (position, record) in positions.into_iter().zip(heads.into_iter().map(Record::Message).chain(others)) {
            index.apply(position, &record, now);
        }
        messages.into_iter().for_each(|message| index.remember(message));
        drop(index);
        if has_new {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// A destination to which a session may be opened now; it counts as open until `close_session`. `sessions_max`: to all destinations together.
    pub fn open_session(&self, now: Instant, sessions_max: usize) -> Option<Key> {
        self.index().open_session(now, sessions_max)
    }

    /// A session has ended.
    pub fn close_session(&self, key: &Key, now: Instant) {
        self.index().lanes().close_session(key, now);
        self.changed.notify_one();
    }

    /// What has been due longest for this destination, for the caller alone until it is settled in full or put back.
    pub fn take(&self, key: &Key, now: Instant) -> Option<Taken> {
        self.index().take(key, now)
    }

    /// Waits until there may be something for this destination; not for ever, so ask again. The session counts as idle meanwhile.
    pub async fn idle(&self, key: &Key, patience: Duration, now: fn() -> Instant) {
        let work = self.index().lanes().set_idle(key, true, now());
        if let Some(work) = work {
            // Whatever ended the wait, the caller looks for itself.
            drop(tokio::time::timeout(patience, work.notified()).await);
            self.index().lanes().set_idle(key, false, now());
            self.changed.notify_one();
        }
    }

    /// The destination took something.
    pub fn is_good(&self, key: &Key, now: Instant) {
        self.index().lanes().good(key, now);
    }

    /// The destination cannot be reached, for this reason; `pause` gives how long it is left alone, from how often it failed before. None when that was known.
    pub fn is_down(&self, key: &Key, reason: &str, pause: &dyn Fn(u32) -> Duration, now: Instant) -> Option<Duration> {
        self.index().lanes().down(key, reason, pause, now)
    }

    /// What has waited since before this time, due or not, as many parts as this; as by `take`.
    pub fn take_older(&self, arrived_before_millis: u64, count: usize, now: Instant) -> Vec<Taken> {
        self.index().take_older(arrived_before_millis, count, now)
    }

    /// Messages that have waited since before this time without their senders being told; each is given once.
    pub fn take_unwarned(&self, arrived_before_millis: u64, count: usize) -> Vec<Id> {
        self.index().take_unwarned(arrived_before_millis, count)
    }

    /// The message of what was taken, from memory if it just came. Blocks when it did not (`is_in_memory`).
    ///
    /// # Errors
    /// `Ledger`, `Record`.
    pub fn load(&self, taken: &Taken) -> Result<Queued, QueueError> {
        let (places, arrived_millis, attempts) = (taken.places.clone(), taken.arrived_millis, taken.attempts);
        let message = match &taken.message {
            Some(message) => {
                let mut message = message.clone();
                let all = std::mem::take(&mut message.envelope.recipients);
                let at = |place: &u32| usize::try_from(*place).ok().and_then(|at| all.get(at)).cloned();
                message.envelope.recipients = places.iter().filter_map(at).collect();
                message
            }
            None => self.read(taken.position, &places)?,
        };
        Ok(Queued { message, places, arrived_millis, attempts })
    }

    /// Reads a message with all who are pending. Blocks.
    ///
    /// # Errors
    /// `NoSuchMessage`, `Ledger`, `Record`.
    pub fn load_all(&self, id: Id) -> Result<Queued, QueueError> {
        let found = self.index().get(id).cloned().ok_or(QueueError::NoSuchMessage(id))?;
        let places = found.pending();
        let message = self.read(found.position, &places)?;
        let attempts = found.parts.iter().map(|part| part.attempts).max().unwrap_or_default();
        Ok(Queued { message, places, arrived_millis: found.arrived_millis, attempts })
    }

    fn read(&self, position: Position, places: &[u32]) -> Result<Message, QueueError> {
        let entry = self.ledger.read(position)?;
        let wrong = |what| QueueError::Record { position, what };
        let (head, trace, content) = Head::split(&entry.payload).map_err(wrong)?;
        Ok(head.message(places, trace, content))
    }

    /// Gives back what is to be tried again, not before `due`. `tried`: it counts as an attempt, which failed for this reason.
    pub fn put_back(&self, id: Id, key: &Key, due: Instant, tried: Option<&str>, now: Instant) {
        self.index().put_back(id, key, due, tried, now);
        self.changed.notify_one();
    }

    /// All that waits for this destination is due `now`: it is back. All there is when none is named.
    pub fn wake(&self, key: Option<&Key>, now: Instant) {
        self.index().wake(key, now);
        self.changed.notify_one();
    }

    /// These messages are due `now`, and their destinations are tried again. Gives how many of them are there.
    pub fn retry(&self, ids: &[Id], now: Instant) -> usize {
        let mut index = self.index();
        let there: Vec<Id> = ids.iter().copied().filter(|id| index.get(*id).is_some()).collect();
        there.iter().for_each(|id| index.retry(*id, now));
        drop(index);
        self.changed.notify_one();
        there.len()
    }

    /// When something can be done next; none when nothing waits.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        self.index().next_at(now)
    }

    /// Resolves when something may have become possible earlier than `next_at` said.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// As many messages as this, in the order of their ids, from behind this one on.
    #[must_use]
    pub fn page(&self, after: Option<Id>, count: usize, now: Instant) -> Vec<State> {
        self.index().after(after).take(count).map(|(id, waiting)| waiting.state(id, now)).collect()
    }

    /// One message.
    #[must_use]
    pub fn state(&self, id: Id, now: Instant) -> Option<State> {
        self.index().get(id).map(|waiting| waiting.state(id, now))
    }

    /// Whether somebody is trying this destination, and what is wrong with it.
    #[must_use]
    pub fn destination(&self, key: &Key, now: Instant) -> Option<LaneState> {
        self.index().lane_state(key, now)
    }

    /// All destinations that have mail.
    #[must_use]
    pub fn destinations(&self, now: Instant) -> Vec<(Key, LaneState)> {
        self.index().destinations(now)
    }

    /// Messages in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the oldest message was taken, in milliseconds since 1970.
    #[must_use]
    pub fn oldest_millis(&self) -> Option<u64> {
        self.index().oldest_millis()
    }
}

impl Waiting {
    fn state(&self, id: Id, now: Instant) -> State {
        let part = |part: &index::Part| PartState {
            destination: part.key.clone(),
            recipients: part.places.len(),
            attempts: part.attempts,
            due_in: Index::due_in(part, now),
            taken: part.taken,
            held: part.held,
            reason: part.reason.clone(),
        };
        let (arrived_millis, size) = (self.arrived_millis, self.size);
        State { id, arrived_millis, size, parts: self.parts.iter().map(part).collect() }
    }

    /// Complains about what cannot be: an operator should know, and no message depends on it.
    fn complain(id: Id, what: &str) {
        warn!(message = %id, what, "queue record without sense");
    }
}

/// A payload's parts share its memory.
fn slice(payload: &Bytes, range: std::ops::Range<usize>) -> Option<Bytes> {
    (range.start <= range.end && range.end <= payload.len()).then(|| payload.slice(range))
}
