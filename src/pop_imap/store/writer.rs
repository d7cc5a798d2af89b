//! The writer: takes what has come, decides, makes it durable by one append, hands it on to be applied.
//!
//! Owns: the queue of requests, the writer's thread. Called by: `Store`. Never: answers a request that was written before
//! it is applied: what a client is told is durable *and* visible.
//!
//! While one batch is being applied, the next one is being made durable, and a third one gathers in the queue: under load
//! a batch is as large as what came during one flush, and each costs one. A batch waits a moment for requests that are
//! announced (a message is just being received for it): they are served no later so, and by one flush less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::applier::{Batch, Progressed, Waiter, Work};
use super::apply::Content;
use super::decide::{Decider, Decision, Request};
use super::error::StoreError;
use super::record::{self, Changes, Counters};
use super::{Answer, Shared, Store};
use crate::base::clock;
use crate::ledger::{Entry, Ledger, LedgerError, Position};

/// Bytes of messages that may wait for the disk; callers wait for room above this.
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// The queue's bytes are counted in units of this.
const QUEUE_UNIT_BYTES: usize = 4 << 10;
/// A batch takes no further request above this.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Requests of one batch.
const BATCH_REQUESTS_MAX: usize = 1_000;

/// How long a batch waits for as many requests as the last one had. Those who were answered together come back together,
/// but not at the same instant; the flush that is saved costs more than the wait.
const GATHER_MAX: Duration = Duration::from_micros(200);

/// How long a batch waits for requests that are announced.
const COMING_MAX: Duration = Duration::from_millis(1);
/// How often it looks meanwhile.
const COMING_LOOK: Duration = Duration::from_micros(100);
/// After a wait that brought nobody, no batch waits for those who are announced for a while: at most so many batches.
const COMING_SKIPPED_MAX: u32 = 64;

/// Requests that are announced.
#[derive(Debug, Clone, Default)]
pub(super) struct Coming(Arc<AtomicUsize>);

/// A request that is announced, until this is dropped.
#[derive(Debug)]
pub struct Announced(Coming);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store {
    /// Says that a delivery is about to come, in a moment: others may be kept waiting for it, a millisecond at most. To be
    /// dropped when it is made, or will not be.
    #[must_use]
    pub fn announce(&self) -> Announced {
        let coming = self.inner.shared.coming.clone();
        coming.0.fetch_add(1, Ordering::Relaxed);
        Announced(coming)
    }
}

/// Whether to wait for those who are announced: one that does not come (a slow client) is not to cost every batch a wait.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Batches that do not wait, after a wait in vain.
    skips: u32,
    /// Of them, those to come.
    left: u32,
}

impl Patience {
    /// Whether this batch may wait.
    pub(super) fn may_wait(&mut self) -> bool {
        let may = self.left == 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    pub(super) fn waited(&mut self, in_vain: bool) {
        self.skips = if in_vain { (self.skips * 2).clamp(1, COMING_SKIPPED_MAX) } else { 0 };
        self.left = self.skips;
    }
}

/// A request with its way back.
#[derive(Debug)]
struct Queued {
    request: Request,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
    permit: OwnedSemaphorePermit,
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

impl Queue {
    /// Asks the writer and waits until the request is durable and applied. `bytes`: what the request keeps in memory.
    pub(super) async fn ask(&self, request: Request, bytes: usize) -> Answer {
        let units = (bytes / QUEUE_UNIT_BYTES + 1).min(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| StoreError::Closed)?;
        let (answer, outcome) = oneshot::channel();
        self.sender.send(Queued { request, bytes, answer, permit }).map_err(|_| StoreError::Closed)?;
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Has the ledger begin another segment, and the view follow it there: then all of the one before is behind the view. When the queue is
    /// full, or the disk: next time. Blocks; not to be called from a task.
    pub(super) fn begin_segment(&self) -> Result<(), StoreError> {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return Ok(()) };
        let (answer, outcome) = oneshot::channel();
        let queued = Queued { request: Request::NextSegment, bytes: 0, answer, permit };
        self.sender.send(queued).map_err(|_| StoreError::Closed)?;
        outcome.blocking_recv().unwrap_or(Err(StoreError::Closed)).map(drop)
    }
}

/// The writer's side.
pub(super) struct Writer {
    requests: mpsc::UnboundedReceiver<Queued>,
    ledger: Ledger,
    decider: Decider,
    applier: SyncSender<Work>,
    progressed: Arc<Progressed>,
    message_next: Arc<AtomicU64>,
    coming: Coming,
    patience: Patience,
}

/// What has been decided and waits for the append.
#[derive(Default)]
struct Gathered {
    first: u64,
    batch: Batch,
    entries: Vec<Entry>,
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
        let (sender, requests) = mpsc::unbounded_channel();
        let writer = Self {
            requests,
            ledger,
            decider,
            applier,
            progressed: Arc::clone(&shared.progressed),
            message_next: Arc::clone(&shared.message_next),
            coming: shared.coming.clone(),
            patience: Patience::default(),
        };
        (writer, Queue { sender, room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES)) })
    }

    /// Serves the queue until all who could ask are gone, or the applier has given up.
    pub(super) fn run(mut self) {
        let mut expected = 1;
        while let Some(first) = self.requests.blocking_recv() {
            let mut gathered = Gathered { first: self.decider.counters.seq + 1, ..Gathered::default() };
            self.take(first, &mut gathered);
            self.gather(&mut gathered, expected);
            expected = gathered.batch.waiters.len();
            if self.write(gathered).is_err() {
                tracing::error!("the store's writer ends: the view cannot be written");
                return;
            }
            self.decider.trim(self.progressed.seq());
        }
    }

    /// Adds what has come; waits a little for more while there are fewer than the last time, or more are announced.
    fn gather(&mut self, gathered: &mut Gathered, expected: usize) {
        self.take_all(gathered);
        let begun = clock::monotonic();
        while !gathered.is_full() && gathered.batch.waiters.len() < expected && begun.elapsed() < GATHER_MAX {
            thread::yield_now();
            self.take_all(gathered);
        }
        if !self.are_coming() || !self.patience.may_wait() {
            return;
        }
        let before = gathered.batch.waiters.len();
        while !gathered.is_full() && self.are_coming() && begun.elapsed() < COMING_MAX {
            thread::park_timeout(COMING_LOOK);
            self.take_all(gathered);
        }
        self.patience.waited(gathered.batch.waiters.len() == before);
    }

    fn are_coming(&self) -> bool {
        self.coming.0.load(Ordering::Relaxed) > 0
    }

    /// Adds what has come.
    fn take_all(&mut self, gathered: &mut Gathered) {
        while !gathered.is_full()
            && let Ok(next) = self.requests.try_recv()
        {
            self.take(next, gathered);
        }
    }

    /// Decides on one request.
    fn take(&mut self, queued: Queued, gathered: &mut Gathered) {
        gathered.next_segment |= matches!(queued.request, Request::NextSegment);
        let Decision { changes, message, promise } = self.decider.decide(queued.request);
        if let Some(message) = message {
            gathered.entries.push(entry(record::KIND_MESSAGE, message.record));
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
        let Gathered { first, mut batch, mut entries, next_segment, .. } = gathered;
        if next_segment {
            if let Err(error) = self.ledger.begin_segment() {
                tracing::warn!(%error, "no other segment can be begun");
            }
        } else if batch.changes.is_empty() {
            // What these requests found decided already (a delivery that came before, an account that is just being
            // made) is in the ledger, but perhaps not in the view: they are answered in their turn.
            return self.applier.send(Work::Batch(batch)).map_err(|_| StoreError::Closed);
        }
        if batch.changes.is_empty() {
            // The view moves by records.
            entries.push(entry(record::KIND_COUNTERS, self.counters().encode()));
        } else {
            // The changes lie in the batch while it is written, and are applied from there.
            let changes = Changes { first, changes: std::mem::take(&mut batch.changes) };
            entries.push(entry(record::KIND_CHANGES, changes.encode()));
            batch.changes = changes.changes;
        }
        match self.ledger.append_blocking(entries) {
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
        let (done, drained) = std::sync::mpsc::sync_channel(1);
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
