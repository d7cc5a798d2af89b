//! What waits between the threads of a part.
//!
//! Owns: `Pipe`: frames to be compressed, frames to be written, the octets of memory of both. Called by: `feed`. Never: touches a drive.
//!
//! The writer begins when the buffer has filled to the high mark and goes on until nothing is left (the low mark); a drive that has to
//! stop and wind back for each frame wears out and is slow, one that stops seldom does not. That it ran dry before the end is an underrun.
//!
//! No deadlock: room is given in the order of the stream, so the frame that the writer waits for always has its own; and when no further
//! frame has room, the buffer counts as full.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::FeedError;
use super::progress::Progress;
use crate::backup_to_tape::volume::cut::Raw;
use crate::backup_to_tape::volume::frame::FRAME_LEN_MAX;
use crate::backup_to_tape::volume::walk::Member;

/// Octets of memory for frames, at least: one is read while another is compressed and a third is written.
pub const BUFFER_LEN_MIN: usize = 4 * FRAME_LEN_MAX;

/// How often the writer looks whether it is to stop while it waits.
const WAKE_AFTER: Duration = Duration::from_millis(200);

/// A frame ready to be written.
#[derive(Debug)]
pub(super) struct Compressed {
    pub(super) number: u64,
    /// Offset in the stream.
    pub(super) at: u64,
    /// Octets of the content.
    pub(super) len: usize,
    /// With its head.
    pub(super) octets: Vec<u8>,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Default)]
struct State {
    raws: VecDeque<Raw>,
    /// Frames that are being compressed.
    in_hand: usize,
    compressed: BTreeMap<u64, Compressed>,
    /// Octets of `compressed`.
    fill: usize,
    /// Octets in memory in all, and promised.
    used: usize,
    /// The reader waits for room.
    is_reader_waiting: bool,
    /// How many frames there are, once it is known.
    count: Option<u64>,
    fault: Option<FeedError>,
    stopped: bool,
    /// Whether the writer has begun and not run dry.
    is_flowing: bool,
}

/// See the room.
#[derive(Debug)]
pub(super) struct Pipe {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
    progress: Arc<Progress>,
}

impl Pipe {
    pub(super) fn new(limit: usize, progress: Arc<Progress>) -> Self {
        let limit = limit.max(BUFFER_LEN_MIN);
        Self { limit, state: Mutex::default(), changed: Condvar::new(), progress }
    }

    /// Half of the memory: the other half takes what comes while the drive works off the first.
    const fn high_mark(&self) -> usize {
        self.limit / 2
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a thread's work: when it fails or panics, the writer is told.
    pub(super) fn guarded(&self, work: impl FnOnce() -> Result<(), FeedError>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let fault = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(fault)) => fault,
            Err(_) => FeedError::Broken,
        };
        self.state().fault.get_or_insert(fault);
        self.changed.notify_all();
    }

    /// No more is wanted: all threads end.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until there is room for so many octets. False: no more is wanted.
    pub(super) fn reserve(&self, len: usize) -> bool {
        let mut state = self.state();
        while !state.stopped && state.used + len > self.limit {
            state.is_reader_waiting = true;
            self.changed.notify_all();
            state = self.wait(state);
        }
        state.is_reader_waiting = false;
        state.used += len;
        !state.stopped
    }

    /// A frame for which `FRAME_LEN_MAX` was reserved. False: no more is wanted.
    pub(super) fn put_raw(&self, raw: Raw) -> bool {
        let mut state = self.state();
        state.used = (state.used + raw.content.len()).saturating_sub(FRAME_LEN_MAX);
        state.raws.push_back(raw);
        self.changed.notify_all();
        !state.stopped
    }

    /// The stream is over and has so many frames.
    pub(super) fn finish(&self, count: u64) {
        self.state().count = Some(count);
        self.changed.notify_all();
    }

    /// A frame to be compressed. None: there will be none.
    pub(super) fn take_raw(&self) -> Option<Raw> {
        let mut state = self.state();
        loop {
            if state.stopped || state.fault.is_some() {
                return None;
            }
            if let Some(raw) = state.raws.pop_front() {
                state.in_hand += 1;
                return Some(raw);
            }
            if state.count.is_some() {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// One that is; its content, of `len` octets, has been dropped.
    pub(super) fn put_compressed(&self, len: usize, frame: Compressed) {
        let mut state = self.state();
        state.in_hand -= 1;
        state.used = (state.used + frame.octets.len()).saturating_sub(len);
        state.fill += frame.octets.len();
        state.compressed.insert(frame.number, frame);
        self.progress.set_fill(state.fill, self.limit);
        self.changed.notify_all();
    }

    /// The frame of this number, when the drive should have it. None: there is no such frame, the stream is over.
    pub(super) fn take_compressed(&self, number: u64) -> Result<Option<Compressed>, FeedError> {
        let mut state = self.state();
        loop {
            if let Some(fault) = state.fault.take() {
                return Err(fault);
            }
            if self.progress.is_cancelled() {
                return Err(FeedError::Cancelled);
            }
            let all_there = state.count.is_some() && state.raws.is_empty() && state.in_hand == 0;
            if state.count.is_some_and(|count| number >= count) {
                return Ok(None);
            }
            let has_next = state.compressed.contains_key(&number);
            if state.is_flowing && !has_next && !all_there {
                state.is_flowing = false;
                self.progress.add_underrun();
            }
            let no_room = state.is_reader_waiting && state.raws.is_empty() && state.in_hand == 0;
            state.is_flowing |= state.fill >= self.high_mark() || all_there || no_room;
            if state.is_flowing && has_next {
                let frame = state.compressed.remove(&number);
                state.fill -= frame.as_ref().map_or(0, |frame| frame.octets.len());
                self.progress.set_fill(state.fill, self.limit);
                return Ok(frame);
            }
            // The wish to stop comes from outside and wakes nobody.
            state = self.changed.wait_timeout(state, WAKE_AFTER).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// So many octets of a frame that was taken are on the volume.
    pub(super) fn written(&self, len: usize) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(len);
        self.changed.notify_all();
    }
}
