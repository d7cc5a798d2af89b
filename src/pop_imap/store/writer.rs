//! The writer: takes what has come, decides, makes it durable by one append, hands it on to be applied.
//!
//! Owns: the queue of requests, the writer's thread. Called by: `Store`. Never: answers a request that was written before
//! it is applied: what a client is told is durable *and* visible.
//!
//! While one batch is being applied, the next one is being made durable, and a third one gathers in the queue: under load
//! a batch is as large as what came during one flush, and each costs one. A batch waits a moment for half of those who have
//! asked lately. If it waited for all of them, nothing would be done while it is written; so one half is on its way while
//! the other one is served.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task;

use super::applier::{Batch, Progressed, Waiter, Work};
use super::apply::Content;
use super::decide::{Decider, Decision, Request};
use super::error::StoreError;
use super::record::{self, Changes, Counters};
use super::{Answer, Shared};
use crate::base::clock;
use crate::ledger::{Entry, Ledger, LedgerError, Position, Prepared};

/// Bytes of messages that may wait for the disk; callers wait for room above this.
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// The queue's bytes are counted in units of this.
const QUEUE_UNIT_BYTES: usize = 4 << 10;
/// A batch takes no further request above this.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Requests of one batch.
const BATCH_REQUESTS_MAX: usize = 1_000;

/// How long a batch waits, at most; the flush that is saved costs more than the wait.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// Who has asked within this time is taken to ask again.
const LATELY: Duration = Duration::from_millis(10);

/// Who has asked lately, and when last. Those who are not tasks count as one.
#[derive(Debug, Default)]
pub(super) struct Callers<Id>(HashMap<Id, Instant>);

impl<Id: std::hash::Hash + Eq> Callers<Id> {
    pub(super) fn asked(&mut self, caller: Id, now: Instant) {
        self.0.insert(caller, now);
    }

    /// Half of them: so many wait for each other.
    pub(super) fn half(&mut self, now: Instant) -> usize {
        self.0.retain(|_, last| now.saturating_duration_since(*last) <= LATELY);
        self.0.len() / 2
    }
}

/// A request with its way back.
#[derive(Debug)]
struct Queued {
    caller: Option<task::Id>,
    request: Request,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
    permit: OwnedSemaphorePermit,
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

impl Queue {
    /// Asks the writer and waits until the request is durable and applied. `bytes`: what the request keeps in memory.
    pub(super) async fn ask(&self, request: Request, bytes: usize) -> Answer {
        let units = (bytes / QUEUE_UNIT_BYTES + 1).min(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| StoreError::Closed)?;
        let (answer, outcome) = oneshot::channel();
        let caller = task::try_id();
        self.sender.send(Queued { caller, request, bytes, answer, permit }).map_err(|_| StoreError::Closed)?;
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Has the ledger begin another segment, and the view follow it there: then all of the one before is behind the view. When the queue is
    /// full, or the disk: next time. Blocks; not to be called from a task.
    pub(super) fn begin_segment(&self) -> Result<(), StoreError> {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return Ok(()) };
        let (answer, outcome) = oneshot::channel();
        let queued = Queued { caller: None, request: Request::NextSegment, bytes: 0, answer, permit };
        self.sender.send(queued).map_err(|_| StoreError::Closed)?;
        outcome.blocking_recv().unwrap_or(Err(StoreError::Closed)).map(drop)
    }
}

/// The writer's side.
pub(super) struct Writer {
    requests: mpsc::Receiver<Queued>,
    ledger: Ledger,
    decider: Decider,
    applier: SyncSender<Work>,
    progressed: Arc<Progressed>,
    message_next: Arc<AtomicU64>,
    callers: Callers<Option<task::Id>>,
}

/// What has been decided and waits for the append.
#[derive(Default)]
struct Gathered {
    first: u64,
    batch: Batch,
    messages: Vec<Prepared>,
    bytes: usize,
    next_segment: bool,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.batch.waiters.len() >= BATCH_REQUESTS_MAX
    }
}

impl Writer {
    /// A writer and the way to it.
    pub(super) fn new(ledger: Ledger, shared: &Shared, decider: Decider, applier: SyncSender<Work>) -> (Self, Queue) {
        let (sender, requests) = mpsc::channel();
        let writer = Self {
            requests,
            ledger,
            decider,
            applier,
            progressed: Arc::clone(&shared.progressed),
            message_next: Arc::clone(&shared.message_next),
            callers: Callers::default(),
        };
        (writer, Queue { sender, room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES)) })
    }

    /// Serves the queue until all who could ask are gone, or the applier has given up.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.requests.recv() {
            let begun = clock::monotonic();
            let mut gathered = Gathered { first: self.decider.counters.seq + 1, ..Gathered::default() };
            self.take(first, begun, &mut gathered);
            self.gather(begun, &mut gathered);
            if self.write(gathered).is_err() {
                tracing::error!("the store's writer ends: the view cannot be written");
                return;
            }
            self.decider.trim(self.progressed.seq());
        }
    }

    /// Adds what has come, and waits a little for more.
    fn gather(&mut self, begun: Instant, gathered: &mut Gathered) {
        let mut now = begun;
        while !gathered.is_full() {
            let wait = if gathered.batch.waiters.len() < self.callers.half(now) {
                GATHER_MAX.saturating_sub(now.saturating_duration_since(begun))
            } else {
                Duration::ZERO
            };
            let Ok(next) = self.requests.recv_timeout(wait) else { return };
            now = clock::monotonic();
            self.take(next, now, gathered);
        }
    }

    /// Decides on one request.
    fn take(&mut self, queued: Queued, now: Instant, gathered: &mut Gathered) {
        self.callers.asked(queued.caller, now);
        gathered.next_segment |= matches!(queued.request, Request::NextSegment);
        let Decision { changes, message, promise } = self.decider.decide(queued.request);
        if let Some(message) = message {
            gathered.messages.push(message.record);
            gathered.batch.contents.push(Content {
                id: message.id,
                position: Position { segment: 0, offset: 0 },
                size: message.size,
                structure: message.structure,
            });
        }
        gathered.bytes += queued.bytes;
        gathered.batch.changes.extend(changes);
        let changes = gathered.batch.changes.len();
        gathered.batch.waiters.push(Waiter { promise, answer: queued.answer, changes, permit: queued.permit });
    }

    /// Makes the batch durable and hands it on; an error means that the applier is gone.
    fn write(&mut self, gathered: Gathered) -> Result<(), StoreError> {
        let Gathered { first, mut batch, messages, next_segment, .. } = gathered;
        if next_segment {
            if let Err(error) = self.ledger.begin_segment() {
                tracing::warn!(%error, "no other segment can be begun");
            }
        } else if batch.changes.is_empty() {
            // What these requests found decided already (a delivery that came before, an account that is just being
            // made) is in the ledger, but perhaps not in the view: they are answered in their turn.
            return self.applier.send(Work::Batch(batch)).map_err(|_| StoreError::Closed);
        }
        let last = if batch.changes.is_empty() {
            // The view moves by records.
            entry(record::KIND_COUNTERS, self.counters().encode())
        } else {
            // The changes lie in the batch while it is written, and are applied from there.
            let changes = Changes { first, changes: std::mem::take(&mut batch.changes) };
            let record = entry(record::KIND_CHANGES, changes.encode());
            batch.changes = changes.changes;
            record
        };
        match self.ledger.append_prepared_blocking(messages, last) {
            Ok(positions) => {
                for (content, position) in batch.contents.iter_mut().zip(&positions) {
                    content.position = *position;
                }
                batch.position = positions.last().copied();
                batch.counters = self.counters();
                self.applier.send(Work::Batch(batch)).map_err(|_| StoreError::Closed)
            }
            Err(error) => self.unwritten(batch, &error),
        }
    }

    /// Nothing of the batch is in the ledger: the accounts that it touched are read anew, so that names and numbers that
    /// were decided in vain are forgotten.
    fn unwritten(&mut self, batch: Batch, error: &LedgerError) -> Result<(), StoreError> {
        tracing::error!(%error, requests = batch.waiters.len(), "batch not written");
        let (done, drained) = mpsc::sync_channel(1);
        self.applier.send(Work::Drained(done)).map_err(|_| StoreError::Closed)?;
        drained.recv().map_err(|_| StoreError::Closed)?;
        self.decider.forget(&batch.changes);
        batch.fail(|| StoreError::from(error.clone()));
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters { message_next: self.message_next.load(Ordering::Relaxed), ..self.decider.counters }
    }
}

/// A record of the ledger, stamped with the present.
pub(super) fn entry(kind: u8, payload: bytes::Bytes) -> Entry {
    Entry { kind, time_millis: clock::unix_millis(), payload }
}
