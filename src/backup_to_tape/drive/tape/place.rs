//! Where the tape stands, and going elsewhere.
//!
//! Owns: which way to a place is taken. Called by: `tape`. Never: relies on READ POSITION, which not every drive has.

use nix::errno::Errno;

use super::super::{DriveError, Place, Reading, Status};
use super::mtio::{self, ALL, Flags, Operation};
use super::{READY_ASK_AGAIN, READY_ASKS_MAX, Tape};

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
        // Some do not tell the driver that it is the end of data that they have come to.
        if error == Errno::EIO && self.is_end_of_data_here() {
            self.is_at_end = true;
            self.place = None;
            return Ok(false);
        }
        let fault = self.diagnose(self.place, "positioning", error);
        self.place = None;
        Err(fault)
    }

    /// Asked of the drive itself. The driver's count may be wrong after it.
    fn is_end_of_data_here(&self) -> bool {
        let asked = self.generic().map(|scsi| scsi.and_then(|scsi| scsi.is_at_end_of_data(self.block_bytes)));
        matches!(asked, Some(Ok(true)))
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
            Some(here) if file >= here.file || file > 0 && self.counts_back() => here,
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
        self.operate(Operation::EndOfData, 1).map_err(|error| self.diagnose(None, "to the end of data", error))?;
        let file = self.report()?.file();
        self.place = None;
        self.is_at_end = false;
        let counted = match file {
            Some(file) => self.blocks_of(file)?.map(|block| Place { file, block }),
            None => None,
        };
        self.place = Some(match counted {
            Some(place) => place,
            None => self.count()?,
        });
        self.is_at_end = true;
        Ok(())
    }

    /// How many blocks the last tape file has, by the drive's own count; the tape then stands behind them.
    fn blocks_of(&mut self, file: u32) -> Result<Option<u32>, DriveError> {
        if file == 0 {
            self.rewind()?
        } else {
            self.place = Some(self.back_to_mark(file)?)
        }
        if self.space(Operation::ForwardBlocks, ALL)? {
            return Err(DriveError::PlaceLost);
        }
        Ok(self.place.map(|place| place.block).filter(|block| *block < ALL))
    }

    /// With a drive that does not say how far it has come: over each file mark, and reading each block of the last tape file.
    fn count(&mut self) -> Result<Place, DriveError> {
        self.rewind()?;
        let mut place = Place::START;
        while self.space(Operation::ForwardMarks, 1)? {
            place.file += 1;
            self.place = Some(place);
        }
        self.place = None;
        self.seek(place)?;
        let mut buffer = vec![0; self.block_bytes];
        loop {
            match self.read_block(&mut buffer) {
                Ok(Reading::EndOfData) => return Ok(place),
                Ok(Reading::Block(_)) | Err(DriveError::ForeignBlock { .. } | DriveError::Medium(_)) => {
                    place.block += 1
                }
                Ok(Reading::Mark) => return Err(DriveError::PlaceLost),
                Err(error) => return Err(error),
            }
        }
    }

    /// After a read that failed: is it the end of data, or a block that cannot be read? The driver tells both alike, and has lost its place;
    /// the drive knows. After a bad block the tape goes back to where it was, and over that block without reading it: then the next
    /// read reads what is behind.
    pub(super) fn not_read(&mut self, error: Errno) -> Result<Reading, DriveError> {
        let place = self.place.take();
        let fault = self.diagnose(place, "reading", error);
        let (DriveError::Medium(_), Some(place)) = (&fault, place) else { return Err(fault) };
        if self.is_end_of_data_here() {
            self.place = Some(place);
            self.is_at_end = true;
            return Ok(Reading::EndOfData);
        }
        // Not by its count of blocks: by the file mark before it.
        let start = if place.file == 0 {
            self.rewind()?;
            Place::START
        } else {
            self.back_to_mark(place.file)?
        };
        self.place = Some(start);
        if self.space(Operation::ForwardBlocks, place.block.saturating_add(1))? {
            self.place = Some(Place { block: place.block.saturating_add(1), ..place });
        }
        Err(fault)
    }

    /// Where a drive tells the end of data and the end of the tape at once, the driver sees the latter alone, and passes on its buffer as if
    /// a block had been read. (A last block of a tape that is full, without a file mark behind it, is lost with this: it was never
    /// acknowledged.)
    pub(super) fn is_no_block(&mut self) -> Result<bool, DriveError> {
        let report = self.report()?;
        if !report.has(Flags::END_OF_TAPE) && !report.has(Flags::END_OF_DATA) {
            return Ok(false);
        }
        if !self.is_end_of_data_here() {
            // It was one, and asking has moved on over the next thing.
            self.operate(Operation::BackBlocks, 1).map_err(|error| self.diagnose(None, "going back", error))?;
            return Ok(false);
        }
        // Else the driver would refuse the next write, for it takes this for the end of the tape.
        if let Err(error) = self.operate(Operation::EndOfData, 1) {
            tracing::debug!(%error, "the driver still takes the end of data for the end of the tape");
        }
        self.is_at_end = true;
        Ok(true)
    }

    /// Whether the drive may be asked to count file marks backward. One that has no READ POSITION is older than SSC-2, or an imitation: of
    /// those, some count the mark before which they stand. They are sent on from the beginning of the tape.
    fn counts_back(&self) -> bool {
        self.device().and_then(mtio::has_position).is_ok()
    }

    /// From somewhere in a tape file that is not the first to its beginning.
    fn back_to_mark(&mut self, file: u32) -> Result<Place, DriveError> {
        if !self.counts_back() {
            self.place = None;
            self.rewind()?;
        }
        let is_there = if self.place == Some(Place::START) {
            self.space(Operation::ForwardMarks, file)?
        } else {
            self.space(Operation::BackMarks, 1)? && self.space(Operation::ForwardMarks, 1)?
        };
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
