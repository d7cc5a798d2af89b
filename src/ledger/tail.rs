//! The end of the ledger, where records are written: the logic of the one writer, without its thread.
//!
//! Owns: the open segment, group commit, sealing, the next segment, what follows a failed write.
//! Called by: `writer` (on its thread), `simulation` (step by step). Never: waits for anything but the disk.
//!
//! Invariants:
//! - nothing is published to readers or acknowledged before it is durable;
//! - a group is written only when its predecessor is durable, so at most the last group can be torn;
//! - a segment file bears its name only with a durable header, and is followed by another only when it is sealed;
//! - after a failed write or sync the end is cut back to the last durable record, and the page that this record
//!   shares with what failed is written anew. If that fails too, nothing more is written: `closed`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::disk::{Disk, DiskFile};
use super::reader::{Reader, Segment};
use super::record::{Chain, Prepared, Salt};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, UNFINISHED_NAME, file_name, seal, seal_bytes};
use super::{LedgerError, Options, Position, Statistics};

/// What the kernel writes back as one.
const PAGE_BYTES: u64 = 4096;
/// Zeros are written ahead only for groups below this: a larger group pays for its own growth, and writing everything
/// twice would cost more than it saves.
const PREPARE_GROUP_BYTES_MAX: u64 = 64 * 1024;
/// A write buffer above this is given back after the group.
const BUFFER_BYTES_KEPT: usize = 16 * 1024 * 1024;

/// The start of the page in which `offset` lies.
pub(super) fn page_of(offset: u64) -> u64 {
    offset - offset % PAGE_BYTES
}

/// The segment that takes records.
pub(super) struct Open<F> {
    pub(super) id: u64,
    pub(super) file: F,
    pub(super) salt: Salt,
    /// Durable records end here.
    pub(super) end: u64,
    /// Length of the file: zeros stand from `end` up to here.
    pub(super) prepared: u64,
    /// Offsets of the records.
    pub(super) index: Vec<u32>,
    /// The bytes from `page_of(end)` to `end`.
    pub(super) page: Vec<u8>,
}

/// Counts since the ledger was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    records: AtomicU64,
    groups: AtomicU64,
    bytes: AtomicU64,
    /// The ledger is closed after a failure.
    closed: AtomicBool,
}

impl Counters {
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn read(&self) -> Statistics {
        Statistics {
            records: self.records.load(Ordering::Relaxed),
            groups: self.groups.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// The writer's logic.
pub(super) struct Tail<D: Disk> {
    pub(super) disk: D,
    pub(super) options: Options,
    pub(super) ledger: [u8; 16],
    pub(super) reader: Arc<Reader<D>>,
    /// The id of the next segment to be made.
    pub(super) next: u64,
    /// Chain value of the last durable record.
    pub(super) chain: Chain,
    pub(super) open: Option<Open<D::File>>,
    pub(super) buffer: Vec<u8>,
    pub(super) closed: bool,
    pub(super) counters: Arc<Counters>,
}

/// What the appends of a group came to.
type Outcome = Result<Vec<Vec<Position>>, LedgerError>;

impl<D: Disk> Tail<D> {
    /// Writes these appends and makes them durable, by one sync for all that fit in the open segment. One result each. An append of nothing
    /// seals the open segment and begins the next one.
    pub(super) fn commit(&mut self, appends: &[&[Prepared]]) -> Vec<Result<Vec<Position>, LedgerError>> {
        let mut results = Vec::with_capacity(appends.len());
        let mut rest = appends;
        while !rest.is_empty() {
            let (count, outcome) = self.commit_first(rest);
            let (done, later) = rest.split_at_checked(count.max(1)).unwrap_or((rest, &[]));
            match outcome {
                Ok(positions) => results.extend(positions.into_iter().map(Ok)),
                Err(error) => results.extend(done.iter().map(|_| Err(error.clone()))),
            }
            rest = later;
        }
        results
    }

    /// Commits the first of these appends, as many as fit in one segment, and tells how many that were.
    fn commit_first(&mut self, appends: &[&[Prepared]]) -> (usize, Outcome) {
        let all = appends.len();
        if self.closed {
            return (all, Err(LedgerError::Closed));
        }
        if appends.first().is_some_and(|append| append.is_empty()) {
            return (1, self.begin_segment().map(|()| vec![Vec::new()]));
        }
        let mut count = self.fitting(appends);
        if count == 0 {
            // Without a segment to write to nobody can be served.
            if let Err(error) = self.seal().and_then(|()| self.create()) {
                return (all, Err(error));
            }
            count = self.fitting(appends);
        }
        let Some(group) = appends.get(..count).filter(|group| !group.is_empty()) else {
            let bytes = appends.first().map_or(0, |append| append.iter().map(Prepared::bytes).sum());
            return (1, Err(LedgerError::TooLarge { bytes, limit: self.options.append_bytes_max() }));
        };
        (count, self.write(group))
    }

    /// How many of the appends the open segment has room for, its seal included.
    fn fitting(&self, appends: &[&[Prepared]]) -> usize {
        let Some(open) = &self.open else { return 0 };
        let mut end = open.end;
        let mut records = u64::try_from(open.index.len()).unwrap_or(u64::MAX);
        let fits = |append: &&&[Prepared]| {
            end += append.iter().map(Prepared::bytes).sum::<u64>();
            records += u64::try_from(append.len()).unwrap_or(u64::MAX);
            !append.is_empty() && end + seal_bytes(records) <= self.options.segment_bytes()
        };
        appends.iter().take_while(fits).count()
    }

    /// One group: one write, one sync.
    fn write(&mut self, group: &[&[Prepared]]) -> Outcome {
        let Some(open) = &mut self.open else { return Err(LedgerError::Closed) };
        let start = open.end;
        let place = |offset: u64| u32::try_from(offset).unwrap_or(u32::MAX);
        let mut chain = self.chain;
        let mut positions = Vec::with_capacity(group.len());
        let mut index = Vec::new();
        self.buffer.clear();
        for append in group {
            let mut these = Vec::with_capacity(append.len());
            for record in *append {
                let offset = start + u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
                record.write(&mut self.buffer, open.salt, place(offset), place(start), &mut chain);
                these.push(Position { segment: open.id, offset });
                index.push(place(offset));
            }
            positions.push(these);
        }
        let records_len = self.buffer.len();
        let bytes = u64::try_from(records_len).unwrap_or(u64::MAX);
        let end = start + bytes;
        if end > open.prepared && bytes < PREPARE_GROUP_BYTES_MAX {
            // A write within the file's length is made durable without the file system's journal.
            let ahead = end.next_multiple_of(self.options.prepare_bytes.max(1)).min(self.options.segment_bytes());
            self.buffer.resize(usize::try_from(ahead.max(end) - start).unwrap_or(records_len), 0);
        }
        self.put(start, records_len)?;
        let Some(open) = &mut self.open else { return Err(LedgerError::Closed) };
        open.prepared = open.prepared.max(start + u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
        open.end = end;
        self.chain = chain;
        let added = u64::try_from(index.len()).unwrap_or(u64::MAX);
        open.index.append(&mut index);
        open.keep_page(self.buffer.get(..records_len).unwrap_or_default());
        let id = open.id;
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        self.publish(id, end, added);
        self.counters.records.fetch_add(added, Ordering::Relaxed);
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(positions)
    }

    /// Writes the buffer, of which so many octets are records, and makes it durable. Where there is no room for the zeros behind the records:
    /// without them.
    fn put(&mut self, start: u64, records_len: usize) -> Result<(), LedgerError> {
        loop {
            let Some(open) = &self.open else { return Err(LedgerError::Closed) };
            let Err(error) = open.file.write_at(&self.buffer, start).and_then(|()| open.file.sync_data()) else {
                return Ok(());
            };
            let failed = self.mend("write", error);
            let has_zeros = self.buffer.len() > records_len;
            if self.closed || !has_zeros || !matches!(failed, LedgerError::Full) {
                return Err(failed);
            }
            self.buffer.truncate(records_len);
        }
    }

    /// Shows readers what has become durable.
    fn publish(&self, id: u64, end: u64, added: u64) {
        let mut state = self.reader.state_mut();
        state.end = Position { segment: id, offset: end };
        if let Some(segment) = state.segments.get_mut(&id) {
            segment.end = end;
            segment.after = self.chain;
            segment.records += added;
        }
    }

    /// After a failed write or sync: makes the file end where its durable records end, or closes the ledger.
    ///
    /// The failed pages may be clean in memory and not on disk, so syncing them again would prove nothing. They are
    /// cut off; the page that they share with the last durable record is written again from memory, and synced.
    fn mend(&mut self, act: &'static str, error: io::Error) -> LedgerError {
        let Some(open) = &mut self.open else { return LedgerError::Closed };
        let name = file_name(open.id);
        let mended = open
            .file
            .set_bytes(open.end)
            .and_then(|()| open.file.write_at(&open.page, page_of(open.end)))
            .and_then(|()| open.file.sync_all());
        open.prepared = open.end;
        match mended {
            Ok(()) => tracing::warn!(segment = open.id, offset = open.end, %error, "ledger {act} failed, cut back"),
            Err(second) => {
                tracing::error!(segment = open.id, offset = open.end, %error, %second, "ledger closed");
                self.closed = true;
                self.counters.close();
            }
        }
        LedgerError::io(act, &name, error)
    }

    /// Ends the open segment, if there are records in it, and makes the next one.
    fn begin_segment(&mut self) -> Result<(), LedgerError> {
        if self.open.as_ref().is_some_and(|open| open.index.is_empty()) {
            return Ok(());
        }
        self.seal().and_then(|()| self.create())
    }

    /// Ends the open segment with its index and hash, for good.
    fn seal(&mut self) -> Result<(), LedgerError> {
        let Some(open) = &self.open else { return Ok(()) };
        let seal = seal(&open.index, u32::try_from(open.end).unwrap_or(u32::MAX), &self.chain);
        let bytes = open.end + u64::try_from(seal.len()).unwrap_or(u64::MAX);
        let sealed = open
            .file
            .write_at(&seal, open.end)
            .and_then(|()| if open.prepared > bytes { open.file.set_bytes(bytes) } else { Ok(()) })
            .and_then(|()| open.file.sync_all());
        if let Err(error) = sealed {
            return Err(self.mend("seal", error));
        }
        let id = open.id;
        self.open = None;
        if let Some(segment) = self.reader.state_mut().segments.get_mut(&id) {
            segment.sealed = true;
        }
        Ok(())
    }

    /// Makes the next segment: its header is durable before it gets its name, its name before it gets a record.
    fn create(&mut self) -> Result<(), LedgerError> {
        let id = self.next;
        let name = file_name(id);
        let header = SegmentHeader { ledger: self.ledger, segment: id, chain: self.chain }.encode();
        let made = self.disk.create(UNFINISHED_NAME).and_then(|file| {
            file.write_at(&header, 0)?;
            file.sync_all()?;
            self.disk.rename(UNFINISHED_NAME, &name)?;
            self.disk.sync()?;
            Ok(file)
        });
        let file = made.map_err(|error| LedgerError::io("create", &name, error))?;
        let salt = Salt::of(&self.ledger, id);
        let end = SEGMENT_HEADER_BYTES;
        self.open = Some(Open { id, file, salt, end, prepared: end, index: Vec::new(), page: header });
        self.next = id + 1;
        let mut state = self.reader.state_mut();
        state.segments.insert(id, Segment { end, records: 0, sealed: false, before: self.chain, after: self.chain });
        state.end = Position { segment: id, offset: end };
        Ok(())
    }
}

impl<F> Open<F> {
    /// Keeps what stands in the last page, after `written` has been added behind it.
    fn keep_page(&mut self, written: &[u8]) {
        let within = usize::try_from(self.end - page_of(self.end)).unwrap_or(0);
        match written.len().checked_sub(within) {
            Some(skip) => {
                self.page.clear();
                self.page.extend_from_slice(written.get(skip..).unwrap_or_default());
            }
            None => self.page.extend_from_slice(written),
        }
    }
}
