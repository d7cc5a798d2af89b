//! Where the tape stands, and going elsewhere.
//!
//! Owns: which way to a place is taken. Called by: `tape`. Never: relies on READ POSITION, which not every drive has.

use nix::errno::Errno;

use super::super::{DriveError, Place, Reading, Status};
use super::mtio::{Flags, Operation};
use super::{READY_ASK_AGAIN, READY_ASKS_MAX, Tape};

/// More file marks or blocks than are on any tape: to the end of data.
const ALL: i32 = 0x7f_ffff;

impl Tape {
    /// Before the tape is moved or read: a file mark behind blocks that have none. The driver would write it too, on most ways.
    pub(super) fn settle(&mut self) -> Result<(), DriveError> {
        if self.is_unmarked { self.write_marks(1) } else { Ok(()) }
    }

    /// Moves over file marks or blocks. At the end of data, and at a file mark where blocks were to be counted, it stops: then it says false,
    /// and the place is where it stopped.
    fn space(&mut self, operation: Operation, count: u32) -> Result<bool, DriveError> {
        if count == 0 {
            return Ok(true);
        }
        let moved = self.operate(operation, i32::try_from(count).unwrap_or(i32::MAX));
        let Err(error) = moved else { return Ok(true) };
        let report = self.report()?;
        // A block that could not be passed leaves the tape in the same tape file.
        let is_behind_mark = report.has(Flags::FILE_MARK) && report.file() > self.place.map(|place| place.file);
        if error == Errno::EIO && (report.has(Flags::END_OF_DATA) || is_behind_mark) {
            self.is_at_end = report.has(Flags::END_OF_DATA);
            self.place = report.place();
            return Ok(false);
        }
        let fault = self.diagnose(self.place, "positioning", error);
        self.place = None;
        Err(fault)
    }

    pub(in super::super) fn rewind(&mut self) -> Result<(), DriveError> {
        self.settle()?;
        self.operate(Operation::Rewind, 1).map_err(|error| self.diagnose(None, "rewinding", error))?;
        self.forget();
        self.place = Some(Place::START);
        Ok(())
    }

    pub(in super::super) fn seek(&mut self, place: Place) -> Result<(), DriveError> {
        self.settle()?;
        self.is_at_end = false;
        self.has_warned = false;
        let is_there = self.go_to_file(place.file)? && self.go_to_block(place.block)?;
        if !is_there {
            return Err(DriveError::PastEnd(place));
        }
        self.place = Some(place);
        Ok(())
    }

    /// To somewhere in this tape file, from which blocks can be counted.
    fn go_to_file(&mut self, file: u32) -> Result<bool, DriveError> {
        let here = match self.place {
            Some(here) if file > 0 || here.file == 0 => here,
            Some(_) | None => {
                self.rewind()?;
                Place::START
            }
        };
        if file == here.file {
            return Ok(true);
        }
        let is_there = if file > here.file {
            self.space(Operation::ForwardMarks, file - here.file)?
        } else {
            // Back before the mark that begins it, then over that mark.
            self.space(Operation::BackMarks, here.file - file + 1)? && self.space(Operation::ForwardMarks, 1)?
        };
        if is_there {
            self.place = Some(Place { file, block: 0 });
        }
        Ok(is_there)
    }

    /// To this block of the tape file in which the tape stands.
    fn go_to_block(&mut self, block: u32) -> Result<bool, DriveError> {
        let here = self.place.unwrap_or(Place::START);
        if block >= here.block {
            return self.space(Operation::ForwardBlocks, block - here.block);
        }
        if block > 0 || here.file > 0 {
            return self.space(Operation::BackBlocks, here.block - block);
        }
        self.rewind()?;
        Ok(true)
    }

    /// Behind everything. The block is counted as well: the driver says nothing of it there.
    pub(in super::super) fn space_to_end(&mut self) -> Result<(), DriveError> {
        self.settle()?;
        let before = self.place;
        self.operate(Operation::EndOfData, 1).map_err(|error| self.diagnose(None, "to the end of data", error))?;
        let file = self.report()?.file().filter(|file| i64::from(*file) < i64::from(ALL));
        self.place = None;
        let file = match file {
            Some(file) => file,
            // A drive that does not say how many marks it has passed: they are counted one by one.
            None => {
                self.count(before.filter(|place| place.block == 0).unwrap_or(Place::START), Operation::ForwardMarks)?
            }
        };
        let blocks = self.blocks_of(file)?;
        self.place = Some(Place { file, block: blocks });
        self.is_at_end = true;
        Ok(())
    }

    /// How many file marks there are up to the end of data, by going over each from here.
    fn count(&mut self, from: Place, operation: Operation) -> Result<u32, DriveError> {
        self.seek(from)?;
        let mut file = from.file;
        while self.space(operation, 1)? {
            file += 1;
            self.place = Some(Place { file, block: 0 });
        }
        Ok(file)
    }

    /// How many blocks the last tape file has; the tape then stands behind them.
    fn blocks_of(&mut self, file: u32) -> Result<u32, DriveError> {
        let start = Place { file, block: 0 };
        // Not by way of the beginning of the tape.
        if file == 0 {
            self.rewind()?
        } else {
            self.place = Some(self.back_to_mark(file)?)
        }
        if self.space(Operation::ForwardBlocks, ALL.unsigned_abs())? {
            return Err(DriveError::PlaceLost);
        }
        if let Some(Place { block, .. }) = self.place.filter(|place| i64::from(place.block) < i64::from(ALL)) {
            return Ok(block);
        }
        self.place = None;
        self.seek(start)?;
        let mut block = 0;
        while self.space(Operation::ForwardBlocks, 1)? {
            block += 1;
        }
        Ok(block)
    }

    /// After a read that failed: is it the end of data, or a block that cannot be read? The driver tells both alike, and has lost its place. So
    /// the tape goes back to where it was, and over that block without reading it: then the next read reads what is behind.
    pub(super) fn not_read(&mut self, error: Errno) -> Result<Reading, DriveError> {
        let place = self.place.take();
        let fault = self.diagnose(place, "reading", error);
        let (DriveError::Medium(_), Some(place)) = (&fault, place) else { return Err(fault) };
        // Not by its count of blocks: by the file mark before it.
        let start = if place.file == 0 {
            self.rewind()?;
            Place::START
        } else {
            self.back_to_mark(place.file)?
        };
        self.place = Some(start);
        if !self.space(Operation::ForwardBlocks, place.block)? {
            return Err(DriveError::PlaceLost);
        }
        self.place = Some(place);
        if self.space(Operation::ForwardBlocks, 1)? {
            self.place = Some(Place { block: place.block.saturating_add(1), ..place });
        } else if self.is_at_end {
            self.place = Some(place);
            return Ok(Reading::EndOfData);
        }
        Err(fault)
    }

    /// From somewhere in a tape file that is not the first to its beginning.
    fn back_to_mark(&mut self, file: u32) -> Result<Place, DriveError> {
        let is_there = self.space(Operation::BackMarks, 1)? && self.space(Operation::ForwardMarks, 1)?;
        if is_there { Ok(Place { file, block: 0 }) } else { Err(DriveError::PlaceLost) }
    }

    pub(in super::super) fn eject(&mut self) -> Result<(), DriveError> {
        self.settle()?;
        self.operate(Operation::Offline, 1).map_err(|error| self.diagnose(None, "ejecting", error))?;
        self.forget();
        Ok(())
    }

    pub(in super::super) fn load(&mut self) -> Result<(), DriveError> {
        self.settle()?;
        if let Err(error) = self.operate(Operation::Load, 1) {
            // Drives load by themselves what is put in, and some do not know the command.
            tracing::debug!(%error, "the drive does not load on command");
        }
        self.wait_ready()?;
        self.rewind()
    }

    fn wait_ready(&mut self) -> Result<(), DriveError> {
        for _ in 0..READY_ASKS_MAX {
            self.reopen()?;
            match self.status()? {
                Status { online: true, .. } => return Ok(()),
                Status { loaded: false, .. } => return Err(DriveError::NoMedium),
                Status { .. } => pause(),
            }
        }
        Err(DriveError::Offline)
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver gives no sign when a drive becomes ready: asked again")]
fn pause() {
    std::thread::sleep(READY_ASK_AGAIN);
}
