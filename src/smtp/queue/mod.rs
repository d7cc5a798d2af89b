//! The queue: mail that was taken and is not delivered yet.
//!
//! Owns: the ledger under it (`record`: what stands in it; `compaction`: how space comes back), and the index in memory. Called by: `smtp::delivery` (adds),
//! `smtp::runner` (takes out, settles). Never: delivers, decides when to give up, reads the clock.
//!
//! Invariants:
//! - what `add` and `settle` return from is durable; the index is changed only after that;
//! - a message is in the index as long as a recipient is pending, and only that long;
//! - the latest `Message` record of an id says who was pending when it was written; `Settled` records behind it take from that;
//! - segments are removed oldest first, so that a `Settled` record never goes before the `Message` that it is about: no message comes back.

mod compaction;
mod index;
mod record;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::{info, warn};

use self::index::{Index, Waiting};
pub use self::record::Ending;
use self::record::{Head, Record, Settled};
use super::envelope::Message;
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

/// A message out of the queue, with those recipients only that are pending.
#[derive(Debug)]
pub struct Queued {
    pub message: Message,
    /// Where the recipients stand in the record: what `settle` wants to know.
    pub places: Vec<u32>,
    /// When it was taken, in milliseconds since 1970.
    pub arrived_millis: u64,
    /// Attempts so far.
    pub attempts: u32,
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
    /// Opens the queue in this directory, and makes it if there is none. All that is in it is due `now`. Blocks.
    ///
    /// # Errors
    /// The ledger cannot be opened, or holds what this version did not write.
    pub fn open(dir: &Path, message_size_max: u64, now: Instant) -> Result<Self, QueueError> {
        let segment_bytes = SEGMENT_BYTES.max(message_size_max.saturating_add(SEGMENT_BYTES_SPARE));
        Self::open_with(dir, segment_bytes, now)
    }

    fn open_with(dir: &Path, segment_bytes: u64, now: Instant) -> Result<Self, QueueError> {
        let (ledger, _) = Ledger::open(dir, Options { segment_bytes, ..Options::default() })?;
        let mut index = Index::default();
        let mut fault = None;
        ledger.replay(None, &mut |position, entry| match Record::read(&entry) {
            Ok(record) => {
                index.apply(position, &record, now);
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

    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is consistent between its methods, which do not panic half-way.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts messages in, all or none. They are safe when it resolves, and due `now`.
    ///
    /// # Errors
    /// `Full` and `Ledger`: none of them is in the queue.
    pub async fn add(&self, messages: Vec<Message>, now_millis: u64, now: Instant) -> Result<(), QueueError> {
        self.write(messages, None, now_millis, now).await
    }

    /// Notes what became of recipients, and puts messages in (bounces) in the same breath. Safe when it resolves.
    ///
    /// # Errors
    /// `Ledger`: nothing of it was noted.
    pub async fn settle(
        &self,
        id: Id,
        places: Vec<u32>,
        ending: Ending,
        bounces: Vec<Message>,
        now_millis: u64,
        now: Instant,
    ) -> Result<(), QueueError> {
        let settled = Settled { id, places, ending };
        self.write(bounces, Some(settled), now_millis, now).await
    }

    async fn write(
        &self,
        messages: Vec<Message>,
        settled: Option<Settled>,
        now_millis: u64,
        now: Instant,
    ) -> Result<(), QueueError> {
        if settled.is_none() && self.index().len() + messages.len() > LEN_MAX {
            return Err(QueueError::Full);
        }
        let heads: Vec<Head> = messages.iter().map(|message| Head::of(message, now_millis)).collect();
        let mut entries: Vec<Entry> = heads.iter().zip(&messages).map(|(head, message)| head.entry(message)).collect();
        entries.extend(settled.as_ref().map(|settled| settled.entry(now_millis)));
        let positions = self.ledger.append(entries).await?;
        let records = heads.into_iter().map(Record::Message).chain(settled.map(Record::Settled));
        let mut index = self.index();
        for (position, record) in positions.into_iter().zip(records) {
            index.apply(position, &record, now);
        }
        drop(index);
        self.changed.notify_waiters();
        Ok(())
    }

    /// The message that has been due longest, for the caller alone until it is settled in full or put back.
    pub fn take(&self, now: Instant) -> Option<Id> {
        self.index().take(now)
    }

    /// The oldest message of those that were taken in before this time, due or not; for the caller alone, as by `take`.
    pub fn take_older(&self, arrived_before_millis: u64) -> Option<Id> {
        self.index().take_older(arrived_before_millis)
    }

    /// Reads a message that was taken. Blocks.
    ///
    /// # Errors
    /// `NoSuchMessage`, `Ledger`, `Record`.
    pub fn load(&self, id: Id) -> Result<Queued, QueueError> {
        let found = self.index().get(id).cloned().ok_or(QueueError::NoSuchMessage(id))?;
        let entry = self.ledger.read(found.position)?;
        let wrong = |what| QueueError::Record { position: found.position, what };
        let (head, trace, content) = Head::split(&entry.payload).map_err(wrong)?;
        let places = found.pending.clone();
        Ok(Queued {
            message: head.message(&places, trace, content),
            places,
            arrived_millis: found.arrived_millis,
            attempts: found.attempts,
        })
    }

    /// Gives a message back that is to be tried again, not before `due`. `tried`: it counts as an attempt.
    pub fn put_back(&self, id: Id, due: Instant, tried: bool) {
        self.index().put_back(id, due, tried);
        self.changed.notify_waiters();
    }

    /// All that waits is due `now`: what it waited for is back.
    pub fn wake(&self, now: Instant) {
        self.index().wake(now);
        self.changed.notify_waiters();
    }

    /// When the next message is due; none when none waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.index().next_due()
    }

    /// Resolves when something may have become due earlier than `next_due` said. Ask for it before `next_due`.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
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
    /// Complains about what cannot be: an operator should know, and no message depends on it.
    fn complain(id: Id, what: &str) {
        warn!(message = %id, what, "queue record without sense");
    }
}

/// A payload's parts share its memory.
fn slice(payload: &Bytes, range: std::ops::Range<usize>) -> Option<Bytes> {
    (range.start <= range.end && range.end <= payload.len()).then(|| payload.slice(range))
}
