//! Frames into blocks, file marks, the end of a volume, the catalogue behind a part.
//!
//! Owns: `Writer`. Called by: `feed::part`, on the caller's thread. Never: reads a source.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{info, warn};

use super::pipe::{Compressed, Pipe};
use super::progress::Progress;
use super::spool::{CHUNK_LEN, Spool, SpoolError};
use super::{FeedError, Hooks, Left, Mounted, Settings};
use crate::backup_to_tape::drive::{DriveError, Written};
use crate::backup_to_tape::volume::Name;
use crate::backup_to_tape::volume::frame::padding;
use crate::backup_to_tape::volume::label::Continues;
use crate::backup_to_tape::volume::line::{EndLine, FrameLine, Line, MemberLine, PartLine};

/// A frame that was handed to the drive, perhaps not all of it yet.
struct Pending {
    frame: Compressed,
    /// Octets from the start of the tape file to its head.
    begin: u64,
}

/// See the room.
pub(super) struct Writer {
    /// None only while the next volume is asked for.
    mounted: Option<Mounted>,
    part: Name,
    line: PartLine,
    spool_dir: PathBuf,
    spool: Spool,
    progress: Arc<Progress>,
    /// The block that is not full.
    block: Vec<u8>,
    block_len: usize,
    /// Blocks of this tape file that the drive has.
    blocks: u32,
    pending: VecDeque<Pending>,
    is_end_near: bool,
    /// Octets of frames that are with the drive since the pipe was told.
    confirmed_len: usize,
    /// Of this piece, on the volume for certain.
    frames: u64,
    members: u64,
    tar_len: u64,
}

/// Why the writing of a piece stopped.
enum Stop {
    /// The volume is full.
    Full,
    Fault(FeedError),
}

impl Writer {
    pub(super) fn new(
        mounted: Mounted,
        part: Name,
        line: PartLine,
        settings: &Settings,
        progress: Arc<Progress>,
    ) -> Result<Self, FeedError> {
        progress.set_volume(&mounted.label.volume);
        let block_len = mounted.drive.block_bytes();
        let mut writer = Self {
            mounted: Some(mounted),
            part,
            line,
            spool_dir: settings.spool_dir.clone(),
            spool: Spool::new(&settings.spool_dir, part)?,
            progress,
            block: Vec::with_capacity(block_len),
            block_len,
            blocks: 0,
            pending: VecDeque::new(),
            is_end_near: false,
            confirmed_len: 0,
            frames: 0,
            members: 0,
            tar_len: 0,
        };
        writer.spool.add(&Line::Part(writer.line.clone()))?;
        Ok(writer)
    }

    /// After `write_all` has returned `Ok`.
    #[expect(clippy::expect_used, reason = "write_all puts the volume back before it returns Ok")]
    pub(super) fn into_mounted(self) -> Mounted {
        self.mounted.expect("a volume is mounted")
    }

    /// Writes all frames, and the catalogue.
    pub(super) fn write_all(&mut self, pipe: &Pipe, hooks: &mut Hooks<'_>) -> Result<(), FeedError> {
        let mut number = 0;
        // Frames that did not fit on the volume before.
        let mut again: VecDeque<Compressed> = VecDeque::new();
        loop {
            let taken = match again.pop_front() {
                Some(frame) => Ok(Some(frame)),
                None => pipe.take_compressed(number),
            };
            let frame = match taken {
                Ok(Some(frame)) => frame,
                Ok(None) => match self.end_stream() {
                    Ok(()) => return self.end_piece(false, hooks),
                    Err(Stop::Full) => {
                        again = self.next_piece(again, hooks)?;
                        continue;
                    }
                    Err(Stop::Fault(fault)) => return Err(self.leave(fault)),
                },
                Err(fault) => return Err(self.leave(fault)),
            };
            number = number.max(frame.number + 1);
            let put = if self.is_end_near && self.has_frames() {
                // Between frames; this one is the first on the next volume.
                again.push_front(frame);
                self.end_stream().and(Err(Stop::Full))
            } else {
                self.put_frame(frame)
            };
            pipe.written(std::mem::take(&mut self.confirmed_len));
            match put {
                Ok(()) => {}
                Err(Stop::Full) => again = self.next_piece(again, hooks)?,
                Err(Stop::Fault(fault)) => return Err(self.leave(fault)),
            }
        }
    }

    fn has_frames(&self) -> bool {
        self.frames > 0 || !self.pending.is_empty()
    }

    fn put_frame(&mut self, frame: Compressed) -> Result<(), Stop> {
        let begin = self.position();
        self.pending.push_back(Pending { frame, begin });
        // The octets leave the queue for the time of the call, so that both can be borrowed.
        let octets = self.pending.back_mut().map(|last| std::mem::take(&mut last.frame.octets)).unwrap_or_default();
        let put = self.put(&octets);
        if let Some(last) = self.pending.back_mut() {
            last.frame.octets = octets;
        }
        put?;
        self.confirm()
    }

    /// Octets of this tape file so far, the block that is not full included.
    fn position(&self) -> u64 {
        u64::from(self.blocks) * self.block_len as u64 + self.block.len() as u64
    }

    /// Octets into blocks.
    fn put(&mut self, mut octets: &[u8]) -> Result<(), Stop> {
        while !octets.is_empty() {
            let (taken, rest) = octets.split_at(octets.len().min(self.block_len - self.block.len()));
            self.block.extend_from_slice(taken);
            octets = rest;
            if self.block.len() == self.block_len {
                self.put_block()?;
            }
        }
        Ok(())
    }

    fn put_block(&mut self) -> Result<(), Stop> {
        let Some(mounted) = &mut self.mounted else { return Err(Stop::Fault(FeedError::Broken)) };
        match mounted.drive.write_block(&self.block) {
            Ok(Written::Done) => {}
            Ok(Written::EarlyWarning) => self.is_end_near = true,
            Err(DriveError::Full(_)) => return Err(Stop::Full),
            Err(error) => return Err(Stop::Fault(self.fault(error))),
        }
        self.progress.add_written(self.block.len());
        self.block.clear();
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    fn marks(&mut self, count: u32) -> Result<(), Stop> {
        let Some(mounted) = &mut self.mounted else { return Err(Stop::Fault(FeedError::Broken)) };
        match mounted.drive.write_marks(count) {
            Ok(()) => Ok(()),
            Err(error) => Err(Stop::Fault(self.fault(error))),
        }
    }

    /// Fills the last block up, so that all frames are with the drive.
    fn end_stream(&mut self) -> Result<(), Stop> {
        self.put(&padding(self.block.len(), self.block_len))?;
        self.confirm()
    }

    /// Writes down frames, all of whose blocks the drive has.
    fn confirm(&mut self) -> Result<(), Stop> {
        let end = u64::from(self.blocks) * self.block_len as u64;
        while self.pending.front().is_some_and(|first| first.begin + first.frame.octets.len() as u64 <= end) {
            let Some(first) = self.pending.pop_front() else { break };
            self.add_lines(&first).map_err(Stop::Fault)?;
        }
        Ok(())
    }

    fn add_lines(&mut self, pending: &Pending) -> Result<(), FeedError> {
        let Pending { frame, begin } = pending;
        let (volume, file) =
            self.mounted.as_ref().map(|mounted| (mounted.label.volume.clone(), mounted.file)).unwrap_or_default();
        let within = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        self.spool.add(&Line::Frame(FrameLine {
            at: frame.at,
            len: frame.len as u64,
            volume,
            file,
            block: within(begin / self.block_len as u64),
            offset: within(begin % self.block_len as u64),
            bytes: frame.octets.len() as u64,
        }))?;
        for member in &frame.members {
            self.spool.add(&Line::Member(MemberLine::of(member)))?;
        }
        let members = frame.members.len() as u64;
        self.confirmed_len += frame.octets.len();
        self.frames += 1;
        self.members += members;
        self.tar_len = frame.at + frame.len as u64;
        self.progress.add_members(members);
        Ok(())
    }

    /// Ends the piece on this volume and goes on on the next. Gives the frames that have to be written there first.
    fn next_piece(
        &mut self,
        rest: VecDeque<Compressed>,
        hooks: &mut Hooks<'_>,
    ) -> Result<VecDeque<Compressed>, FeedError> {
        let had_frames = self.frames > 0;
        let mut again: VecDeque<Compressed> = self.pending.drain(..).map(|pending| pending.frame).collect();
        again.extend(rest);
        self.block.clear();
        let is_fresh = self.mounted.as_ref().is_some_and(|mounted| mounted.file == 1);
        self.end_piece(true, hooks)?;
        let Some(ended) = self.mounted.take() else { return Err(FeedError::Broken) };
        if !had_frames && is_fresh {
            return Err(FeedError::NoRoom(ended.label.volume));
        }
        self.line.piece += 1;
        let after = ended.label.volume.clone();
        info!(volume = %after, piece = self.line.piece, "the volume is full; the part goes on on the next");
        let continues = Continues { part: self.line.part.clone(), piece: self.line.piece, after };
        let next = (hooks.next_volume)(ended, continues)?;
        self.progress.set_volume(&next.label.volume);
        self.block_len = next.drive.block_bytes();
        self.mounted = Some(next);
        self.begin_file();
        self.is_end_near = false;
        self.spool = Spool::new(&self.spool_dir, self.part)?;
        self.spool.add(&Line::Part(self.line.clone()))?;
        (self.frames, self.members) = (0, 0);
        Ok(again)
    }

    fn begin_file(&mut self) {
        self.block.clear();
        self.blocks = 0;
    }

    /// The tape file with the stream has all its blocks: a file mark, the catalogue, a file mark.
    fn end_piece(&mut self, goes_on: bool, hooks: &mut Hooks<'_>) -> Result<(), FeedError> {
        let end = EndLine { members: self.members, frames: self.frames, tar_len: self.tar_len, goes_on };
        self.spool.add(&Line::End(end))?;
        match self.finish_piece(goes_on) {
            Ok(()) => {}
            Err(Stop::Full) => {
                // The stream is there and closed by a mark; what the catalogue says can be had by reading it.
                warn!(
                    "the volume has no room for the catalogue of its last part; `fife backup scan` reads the part itself"
                );
                self.marks(1).map_err(|stop| self.stopped(stop))?;
            }
            Err(Stop::Fault(fault)) => return Err(self.leave(fault)),
        }
        let Some(mounted) = &mut self.mounted else { return Err(FeedError::Broken) };
        (hooks.piece)(&mounted.label, mounted.file, &mut self.spool)?;
        mounted.file += 2;
        Ok(())
    }

    fn finish_piece(&mut self, is_last: bool) -> Result<(), Stop> {
        self.marks(1)?;
        self.begin_file();
        let kept = |error: SpoolError| Stop::Fault(FeedError::Spool(error));
        self.spool.rewind().map_err(kept)?;
        let mut chunk = vec![0; CHUNK_LEN];
        loop {
            let len = self.spool.read(&mut chunk).map_err(kept)?;
            if len == 0 {
                break;
            }
            self.put(chunk.get(..len).unwrap_or_default())?;
        }
        self.put(&padding(self.block.len(), self.block_len))?;
        // A second mark ends the volume.
        self.marks(if is_last { 2 } else { 1 })
    }

    fn fault(&self, error: DriveError) -> FeedError {
        let volume = self.mounted.as_ref().map(|mounted| mounted.label.volume.clone()).unwrap_or_default();
        FeedError::Drive { volume, error, left: Left::Unmarked }
    }

    fn stopped(&mut self, stop: Stop) -> FeedError {
        match stop {
            Stop::Full => FeedError::Broken,
            Stop::Fault(fault) => fault,
        }
    }

    /// Leaves the volume with a file mark behind what was written, when the drive still takes one.
    fn leave(&mut self, fault: FeedError) -> FeedError {
        let marked = self.mounted.as_mut().is_some_and(|mounted| mounted.drive.write_marks(1).is_ok());
        let FeedError::Drive { volume, error, .. } = fault else { return fault };
        let left = if marked { Left::Marked { frames: self.frames } } else { Left::Unmarked };
        FeedError::Drive { volume, error, left }
    }
}
