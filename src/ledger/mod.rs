//! The append-only log under everything durable.
//!
//! Owns: segment files, group commit, replay, compaction, `check`. Called by: the mailbox store, the queue, the directory.
//! Never: knows what a record means; reads the clock (entries bring their time).
//!
//! - `record`, `segment`: the formats.
//! - `disk`: the seam to the directory with the files; `walk`: going through a segment.
//! - `tail`: the one writer's logic; `writer`: its thread and queue.
//! - `recovery`: opening; `reader`: reading and replaying; `compaction`: giving space back; `check`: is all well.
//!
//! An append is durable when it returns, atomic (after a crash all of its entries are there or none) and contiguous.
//! One `fdatasync` serves all appends in flight.

mod check;
mod compaction;
mod disk;
mod error;
mod reader;
mod record;
mod recovery;
mod segment;
mod tail;
mod walk;
mod writer;

#[cfg_attr(not(fuzzing), cfg(test))]
mod false_disk;
#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use self::check::{Fault, Report, check};
pub use self::error::LedgerError;

use self::disk::RealDisk;
use self::reader::Reader;
use self::record::PAYLOAD_BYTES_MAX;
pub use self::record::Prepared;
use self::recovery::Opened;
use self::segment::{SEGMENT_HEADER_BYTES, seal_bytes};
use self::tail::Counters;
use self::writer::Request;

/// Payloads of an append above this are compressed and hashed on a thread for blocking work.
const INLINE_BYTES_MAX: u64 = 256 * 1024;
/// How often it is looked whether the disk of a closed ledger can be written again. The kernel says something of each attempt in vain.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// The queue's bytes are counted in units of this.
const QUEUE_UNIT_BYTES: usize = 1024;
/// Offsets within a segment are 32 bits.
const SEGMENT_BYTES_MAX: u64 = 0xffff_f000;
const SEGMENT_BYTES_MIN: u64 = 2048;

/// How a ledger is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of a segment file, in bytes; an append has to fit in one. Taken as at least 2 KiB and below 4 GiB.
    pub segment_bytes: u64,
    /// Bytes of appends that may wait for the disk; more wait for room in the queue.
    pub queue_bytes_max: usize,
    /// The open segment is filled with zeros ahead in steps of this, which makes small groups cheaper to sync. 0: not.
    pub prepare_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 256 << 20, queue_bytes_max: 64 << 20, prepare_bytes: 1 << 20 }
    }
}

impl Options {
    fn segment_bytes(&self) -> u64 {
        self.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// Largest append of one record, header and padding included.
    fn append_bytes_max(&self) -> u64 {
        self.segment_bytes() - SEGMENT_HEADER_BYTES - seal_bytes(1)
    }
}

/// Where a record starts. Positions sort in the order in which the records were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Id of the segment.
    pub segment: u64,
    /// Bytes from the start of the segment.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// What an owner writes, and gets back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The owner's own numbering of what it writes.
    pub kind: u8,
    /// When it happened, by the owner's clock: milliseconds since 1970, at most 48 bits.
    pub time_millis: u64,
    /// Below 4 GiB, and together with the others of its append below the size of a segment.
    pub payload: Bytes,
}

/// What opening found, and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Number of segments.
    pub segments: usize,
    /// Number of records in them, the ledger's own notes of removed segments included.
    pub records: u64,
    /// The remains of appends that were never acknowledged; they have been cut off.
    pub cut: Option<Cut>,
}

/// A torn tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Where the ledger ends now.
    pub position: Position,
    /// Bytes that had been written, or prepared, behind it.
    pub bytes: u64,
}

/// A segment as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its id: increasing, never used twice.
    pub id: u64,
    /// Bytes up to the end of its records.
    pub bytes: u64,
    /// Number of records.
    pub records: u64,
    /// Takes no more records, and another one follows: may be rewritten and removed.
    pub sealed: bool,
}

/// Counts since the ledger was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Records made durable.
    pub records: u64,
    /// Groups they were written in: each was one write and one `fdatasync`.
    pub groups: u64,
    /// Bytes of the records as stored.
    pub bytes: u64,
}

/// An open ledger; clones share it. When the last one is dropped, the queue is written out and the directory free again.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    reader: Arc<Reader<RealDisk>>,
    counters: Arc<Counters>,
    append_bytes_max: u64,
    room: Arc<Semaphore>,
    room_units: usize,
    queue: Option<mpsc::UnboundedSender<Request>>,
    writer: Option<JoinHandle<()>>,
    /// Held as long as the ledger is open.
    _lock: File,
}

impl Ledger {
    /// Opens the ledger in this directory, and makes it if there is none.
    ///
    /// Removes what a crash has left of appends that were not acknowledged; one that was acknowledged is never touched.
    ///
    /// # Errors
    /// `Locked` if it is open already, `Corrupt` if a segment's frame, or a record that may have been acknowledged in the
    /// last segment, is damaged (nothing is changed then), `Io`, `Full`.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovery), LedgerError> {
        let name = dir.display().to_string();
        let disk = RealDisk::new(dir).map_err(|error| LedgerError::io("open", &name, error))?;
        let lock = disk.lock().map_err(|error| LedgerError::io("lock", &name, error))?;
        let lock = lock.ok_or_else(|| LedgerError::Locked { dir: dir.to_owned() })?;
        let room_units = options.queue_bytes_max.div_ceil(QUEUE_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS >> 8);
        let append_bytes_max = options.append_bytes_max();
        let Opened { tail, reader, recovery } = recovery::open(disk, options, rand::random())?;
        if let Some(cut) = &recovery.cut {
            tracing::info!(dir = %name, position = %cut.position, bytes = cut.bytes, "unacknowledged tail cut off");
        }
        let counters = Arc::clone(&tail.counters);
        let (queue, requests) = mpsc::unbounded_channel();
        let writer = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer::run(tail, requests))
            .map_err(|error| LedgerError::io("start writer of", &name, error))?;
        let room = Arc::new(Semaphore::new(room_units));
        let (queue, writer) = (Some(queue), Some(writer));
        let inner = Inner { reader, counters, append_bytes_max, room, room_units, queue, writer, _lock: lock };
        Ok((Self { inner: Arc::new(inner) }, recovery))
    }

    /// Appends these entries, contiguous and in order. They are durable when it resolves, all of them or none.
    ///
    /// Waits while the queue is full. Two appends that are in flight at the same time may come in either order. If the
    /// future is dropped before it resolves, the entries may or may not be in the ledger.
    ///
    /// # Errors
    /// `Full`, `Io` (the entries are not in the ledger), `TooLarge`, `Closed`.
    pub fn append(
        &self,
        entries: Vec<Entry>,
    ) -> impl Future<Output = Result<Vec<Position>, LedgerError>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let bytes = payload_bytes(&entries)?;
            let records = match Handle::try_current() {
                // Compressing and hashing a lot takes its time: not on a thread that has other tasks to serve.
                Ok(runtime) if bytes > INLINE_BYTES_MAX => {
                    let work = runtime.spawn_blocking(move || Prepared::all(entries));
                    work.await.map_err(|_| LedgerError::Closed)?
                }
                Ok(_) | Err(_) => Prepared::all(entries),
            };
            submit(inner, records).await
        }
    }

    /// The same for threads: blocks until the entries are durable. Not to be called from a task.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_blocking(&self, entries: Vec<Entry>) -> Result<Vec<Position>, LedgerError> {
        payload_bytes(&entries)?;
        block_on(submit(Arc::clone(&self.inner), Prepared::all(entries)))
    }

    /// Seals the segment that takes records, if it has any, and begins the next one: what is dead in it can be given back though it is not
    /// full. Blocks; not to be called from a task.
    ///
    /// # Errors
    /// `Full`, `Io`: it takes records as before. `Closed`.
    pub fn begin_segment(&self) -> Result<(), LedgerError> {
        block_on(request(Arc::clone(&self.inner), Vec::new())).map(drop)
    }

    /// Makes an entry ready to be appended with others behind it: compressing and hashing it is the caller's work, the threads
    /// that many wait for are spared it.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn prepare(entry: Entry) -> Result<Prepared, LedgerError> {
        payload_bytes(std::slice::from_ref(&entry))?;
        Ok(Prepared::followed(entry))
    }

    /// As `append_blocking`: those that are prepared, in order, and `last` behind them.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_prepared_blocking(&self, prepared: Vec<Prepared>, last: Entry) -> Result<Vec<Position>, LedgerError> {
        payload_bytes(std::slice::from_ref(&last))?;
        let mut records = prepared;
        records.extend(Prepared::all(vec![last]));
        block_on(submit(Arc::clone(&self.inner), records))
    }

    /// The entry at a position that an append or a replay gave. Reads the disk; safe from any thread.
    ///
    /// # Errors
    /// `NoSuchRecord`, `Corrupt`, `Io`.
    pub fn read(&self, position: Position) -> Result<Entry, LedgerError> {
        self.inner.reader.read(position, usize::MAX)
    }

    /// The same, for who knows about how large the payload is: no more than that is read when it is right.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_expecting(&self, position: Position, payload_bytes: usize) -> Result<Entry, LedgerError> {
        self.inner.reader.read(position, payload_bytes)
    }

    /// Shows all entries that are durable now, in order, from the first position not yet seen (`None`: from the start).
    ///
    /// Records of segments that were compacted away are not among them; their living copies come later.
    ///
    /// # Errors
    /// `Corrupt` where a record is damaged; those before it have been shown. `Io`.
    pub fn replay(
        &self,
        from: Option<Position>,
        visit: &mut dyn FnMut(Position, Entry) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.inner.reader.replay(from, visit)
    }

    /// As `replay` for records of wanted kinds only, `from` itself included. The payloads of others are neither read nor checked: much faster where
    /// those that are wanted are small.
    ///
    /// # Errors
    /// As `replay`.
    pub fn skim(
        &self,
        from: Position,
        wanted: &dyn Fn(u8) -> bool,
        visit: &mut dyn FnMut(Position, Entry) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.inner.reader.skim(from, wanted, visit)
    }

    /// What makes it another than any other ledger: drawn at random when it was made.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.inner.reader.ledger()
    }

    /// Where the next record will stand: what a view notes when it has seen everything.
    #[must_use]
    pub fn end(&self) -> Position {
        self.inner.reader.state().end
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.inner.reader.segments()
    }

    /// Whether an earlier failure of the disk has closed it: nothing is appended any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.counters.is_closed()
    }

    /// The same for who must not keep it open.
    pub fn watch_closed(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let counters = Arc::clone(&self.inner.counters);
        move || counters.is_closed()
    }

    /// Resolves when the ledger is closed and its disk can be written again: then its owner should open it anew, which finds out where it ends.
    pub async fn can_be_opened_anew(&self) {
        loop {
            let reader = Arc::clone(&self.inner.reader);
            if self.is_closed()
                && tokio::task::spawn_blocking(move || recovery::probe(reader.disk()))
                    .await
                    .is_ok_and(|probed| probed.is_ok())
            {
                return;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Counts since it was opened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.inner.counters.read()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("end", &self.end()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without senders the writer ends after what is queued; only then may the lock go.
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the ledger's writer panicked");
        }
    }
}

/// The bytes of all payloads, if none is larger than a record can hold.
fn payload_bytes(entries: &[Entry]) -> Result<u64, LedgerError> {
    let mut sum: u64 = 0;
    for entry in entries {
        let bytes = u64::try_from(entry.payload.len()).unwrap_or(u64::MAX);
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(LedgerError::TooLarge { bytes, limit: PAYLOAD_BYTES_MAX });
        }
        sum = sum.saturating_add(bytes);
    }
    Ok(sum)
}

/// Hands records to the writer, as one append, and waits until they are durable.
async fn submit(inner: Arc<Inner>, records: Vec<Prepared>) -> Result<Vec<Position>, LedgerError> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    request(inner, records).await
}

/// The same; no records ask for the next segment.
async fn request(inner: Arc<Inner>, records: Vec<Prepared>) -> Result<Vec<Position>, LedgerError> {
    let bytes: u64 = records.iter().map(Prepared::bytes).sum();
    if bytes > inner.append_bytes_max {
        return Err(LedgerError::TooLarge { bytes, limit: inner.append_bytes_max });
    }
    let units = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(QUEUE_UNIT_BYTES).min(inner.room_units);
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    let permit = Arc::clone(&inner.room).acquire_many_owned(units).await.map_err(|_| LedgerError::Closed)?;
    let (done, outcome) = oneshot::channel();
    let queue = inner.queue.as_ref().ok_or(LedgerError::Closed)?;
    queue.send(Request { records, done, permit }).map_err(|_| LedgerError::Closed)?;
    outcome.await.unwrap_or(Err(LedgerError::Closed))
}

/// Waits for a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
