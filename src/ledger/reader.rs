//! Reading: one record by its position, or all of them in order.
//!
//! Owns: the list of segments with how far each is durable, and a few open files. Called by: `Ledger`, `compaction`;
//! `tail` publishes into it what has become durable. Never: shows a record that is not durable yet; writes a file.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::record::{self, Chain, Fields, Header, RECORD_HEADER_BYTES, Salt, record_bytes};
use super::segment::{SEGMENT_HEADER_BYTES, file_name};
use super::walk::Walk;
use super::{Entry, LedgerError, Position, SegmentInfo};

/// Files kept open for reading: a store of a terabyte has thousands of segments.
const FILES_OPEN_MAX: usize = 64;
/// Read along with a record's header, at most: most records then take one read.
const READ_AHEAD_BYTES: usize = 16 * 1024;

/// A segment as readers may see it.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// Durable records end here.
    pub(super) end: u64,
    pub(super) records: u64,
    pub(super) sealed: bool,
    /// Chain value before its first record.
    pub(super) before: Chain,
    /// Chain value after its last record.
    pub(super) after: Chain,
}

/// What is durable.
#[derive(Debug)]
pub(super) struct State {
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Where the next record will stand.
    pub(super) end: Position,
}

struct Handle<F> {
    file: F,
    salt: Salt,
}

/// Segment ids and their open files, the last used first.
type Files<F> = VecDeque<(u64, Arc<Handle<F>>)>;

/// Reads one ledger, from any thread.
pub(super) struct Reader<D: Disk> {
    disk: D,
    ledger: [u8; 16],
    state: RwLock<State>,
    files: Mutex<Files<D::File>>,
}

impl<D: Disk> Reader<D> {
    pub(super) fn new(disk: D, ledger: [u8; 16], state: State) -> Self {
        Self { disk, ledger, state: RwLock::new(state), files: Mutex::new(VecDeque::new()) }
    }

    /// Nobody panics while holding this lock; if it happened, the state would still be whole.
    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Files<D::File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    pub(super) fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.state();
        let last = state.segments.keys().next_back().copied();
        let info = |(id, segment): (&u64, &Segment)| SegmentInfo {
            id: *id,
            bytes: segment.end,
            records: segment.records,
            sealed: segment.sealed && Some(*id) != last,
        };
        state.segments.iter().map(info).collect()
    }

    /// The file of a segment, opened when it is not among the last used ones; none if the segment is removed meanwhile.
    fn handle(&self, segment: u64) -> Result<Option<Arc<Handle<D::File>>>, LedgerError> {
        let mut files = self.files();
        if let Some(at) = files.iter().position(|(id, _)| *id == segment)
            && let Some(found) = files.remove(at)
        {
            let handle = Arc::clone(&found.1);
            files.push_front(found);
            return Ok(Some(handle));
        }
        let name = file_name(segment);
        let file = match self.disk.open(&name) {
            Ok(file) => file,
            Err(_) if !self.state().segments.contains_key(&segment) => return Ok(None),
            Err(error) => return Err(LedgerError::io("open", &name, error)),
        };
        let handle = Arc::new(Handle { file, salt: Salt::of(&self.ledger, segment) });
        files.push_front((segment, Arc::clone(&handle)));
        files.truncate(FILES_OPEN_MAX);
        Ok(Some(handle))
    }

    /// The segment, if it is there and not the last one.
    pub(super) fn past(&self, segment: u64) -> Result<Segment, LedgerError> {
        let position = Position { segment, offset: 0 };
        let state = self.state();
        let found = state.segments.get(&segment).ok_or(LedgerError::NoSuchRecord { position })?;
        let last = state.segments.keys().next_back() == Some(&segment);
        if last { Err(LedgerError::InUse { segment }) } else { Ok(found.clone()) }
    }

    /// Forgets a segment that is about to be removed.
    pub(super) fn forget(&self, segment: u64) {
        self.state_mut().segments.remove(&segment);
        self.files().retain(|(id, _)| *id != segment);
    }

    /// `expected`: bytes of the payload, as far as the caller knows; so many are read at once.
    pub(super) fn read(&self, position: Position, expected: usize) -> Result<Entry, LedgerError> {
        let absent = LedgerError::NoSuchRecord { position };
        let end = self.state().segments.get(&position.segment).map_or(0, |segment| segment.end);
        if position.offset < SEGMENT_HEADER_BYTES || position.offset.saturating_add(RECORD_HEADER_BYTES) > end {
            return Err(absent);
        }
        let handle = self.handle(position.segment)?.ok_or(absent.clone())?;
        let fail = |error| LedgerError::io("read", &file_name(position.segment), error);
        let room = usize::try_from(end - position.offset).unwrap_or(usize::MAX);
        let header = usize::try_from(RECORD_HEADER_BYTES).unwrap_or(0);
        let ahead = expected.saturating_add(header).clamp(header, READ_AHEAD_BYTES);
        let mut bytes = vec![0; ahead.min(room)];
        let read = handle.file.read_at(&mut bytes, position.offset).map_err(fail)?;
        bytes.truncate(read);
        let place = u32::try_from(position.offset).map_err(|_| absent.clone())?;
        let header = Header::decode(&bytes, handle.salt, place).ok_or(absent)?;
        let damaged = |what| LedgerError::Corrupt { position, what };
        let size = usize::try_from(header.fields.size).unwrap_or(usize::MAX);
        // A record ends before the end of the segment's records: a damaged size asks for no more memory than that.
        let whole = size.saturating_add(64);
        if whole > room {
            return Err(damaged("size"));
        }
        let have = bytes.len();
        if have >= whole {
            bytes.truncate(whole);
        } else {
            // Not grown: memory that comes zeroed from the system costs nothing, filling it with zeros a fifth of a snapshot's time.
            let mut all = vec![0; whole];
            all.get_mut(..have).unwrap_or_default().copy_from_slice(&bytes);
            bytes = all;
            let from = position.offset + u64::try_from(have).unwrap_or(u64::MAX);
            let read = handle.file.read_at(bytes.get_mut(have..).unwrap_or_default(), from).map_err(fail)?;
            bytes.truncate(have + read);
        }
        let payload = Bytes::from(bytes).split_off(64);
        if payload.len() != size || !header.agrees(&payload) {
            return Err(damaged("checksum"));
        }
        entry_at(position, &header.fields, payload)
    }

    pub(super) fn replay(
        &self,
        from: Option<Position>,
        visit: &mut dyn FnMut(Position, Entry) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        let first = from.map_or(0, |position| position.segment);
        let ids: Vec<u64> = self.state().segments.range(first..).map(|(id, _)| *id).collect();
        let mut visit = |position, fields: Fields, payload| {
            if fields.removal() {
                return Ok(ControlFlow::Continue(()));
            }
            Ok(visit(position, entry_at(position, &fields, payload)?))
        };
        for id in ids {
            let start = from.filter(|position| position.segment == id).map(|position| position.offset);
            if self.walk(id, start, &mut visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the records of wanted kinds, in order, from the first position not before `from`. Of the others only the headers are read.
    pub(super) fn skim(
        &self,
        from: Position,
        wanted: &dyn Fn(u8) -> bool,
        visit: &mut dyn FnMut(Position, Entry) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        let segments: Vec<(u64, u64)> =
            self.state().segments.range(from.segment..).map(|(id, segment)| (*id, segment.end)).collect();
        for (segment, end) in segments {
            let start = if segment == from.segment { from.offset } else { 0 };
            let mut position = Position { segment, offset: start.max(SEGMENT_HEADER_BYTES) };
            while position.offset < end {
                let Some(fields) = self.fields(position)? else { break };
                if !fields.removal() && wanted(fields.kind) {
                    let expected = usize::try_from(fields.size).unwrap_or(usize::MAX);
                    if visit(position, self.read(position, expected)?).is_break() {
                        return Ok(());
                    }
                }
                position.offset += record_bytes(u64::from(fields.size));
            }
        }
        Ok(())
    }

    /// What the header of a record says; none when its segment has been removed.
    fn fields(&self, position: Position) -> Result<Option<Fields>, LedgerError> {
        let Some(handle) = self.handle(position.segment)? else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(RECORD_HEADER_BYTES).unwrap_or(0)];
        let read = handle.file.read_at(&mut bytes, position.offset);
        read.map_err(|error| LedgerError::io("read", &file_name(position.segment), error))?;
        let place = u32::try_from(position.offset).ok();
        let header = place.and_then(|place| Header::decode(&bytes, handle.salt, place));
        let corrupt = LedgerError::Corrupt { position, what: "header" };
        header.map(|header| Some(header.fields)).ok_or(corrupt)
    }

    /// What makes this ledger another than any other.
    pub(super) fn ledger(&self) -> [u8; 16] {
        self.ledger
    }

    /// The records of one segment from `start` on, as far as they are durable now. None if it has been removed.
    pub(super) fn walk(
        &self,
        id: u64,
        start: Option<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, LedgerError> {
        let Some(segment) = self.state().segments.get(&id).cloned() else { return Ok(ControlFlow::Continue(())) };
        let start = start.unwrap_or(SEGMENT_HEADER_BYTES).max(SEGMENT_HEADER_BYTES);
        let chain = (start == SEGMENT_HEADER_BYTES).then_some(segment.before);
        let Some(handle) = self.handle(id)? else { return Ok(ControlFlow::Continue(())) };
        let mut walk = Walk::new(&handle.file, handle.salt, start, segment.end, chain);
        while walk.offset() < segment.end {
            let position = Position { segment: id, offset: walk.offset() };
            let found = walk.next().map_err(|error| LedgerError::io("read", &file_name(id), error))?;
            let found = found.ok_or(LedgerError::Corrupt { position, what: "checksum or chain" })?;
            let (fields, payload) = (found.header.fields, Bytes::copy_from_slice(found.payload));
            if visit(position, fields, payload)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Is shown records as they are stored.
pub(super) type Visit<'a> = dyn FnMut(Position, Fields, Bytes) -> Result<ControlFlow<()>, LedgerError> + 'a;

/// The entry in a record that was found good.
pub(super) fn entry_at(position: Position, fields: &Fields, payload: Bytes) -> Result<Entry, LedgerError> {
    record::entry(fields, payload).ok_or(LedgerError::Corrupt { position, what: "compression" })
}
