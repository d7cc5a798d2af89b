//! Frames out of a drive.
//!
//! Owns: `Tape`. Called by: `restore`, `restore::scan`. Never: writes.

use crate::backup_to_tape::drive::{Drive, DriveError, Reading};
use crate::backup_to_tape::volume::frame::{Found, Place, Unframer};

/// Blocks one after the other that cannot be read, after which the rest of a tape file is given up: each may take a drive a minute.
const UNREADABLE_BLOCKS_MAX: u32 = 64;

/// A drive that is read.
pub(super) struct Tape {
    drive: Drive,
    block: Vec<u8>,
    unframer: Unframer,
    /// The next block of the file; its end has been seen.
    next: u32,
    is_over: bool,
    unreadable: u32,
}

impl Tape {
    /// On a volume with blocks of this length.
    pub(super) fn new(drive: Drive, block_len: usize) -> Self {
        let unframer = Unframer::new(block_len, Place { block: 0, offset: 0 });
        Self { drive, block: vec![0; block_len], unframer, next: 0, is_over: true, unreadable: 0 }
    }

    pub(super) fn into_drive(self) -> Drive {
        self.drive
    }

    /// To this place.
    pub(super) fn seek(&mut self, file: u32, block: u32, offset: u32) -> Result<(), DriveError> {
        self.drive.seek(file, block)?;
        self.unframer = Unframer::new(self.block.len(), Place { block, offset });
        (self.next, self.is_over, self.unreadable) = (block, false, 0);
        Ok(())
    }

    /// The frame that begins here; `None` where none can be read. Within a file that is being read, no seek is needed for the next frame.
    pub(super) fn frame(
        &mut self,
        file: u32,
        block: u32,
        offset: u32,
        same_file: bool,
    ) -> Result<Option<Found>, DriveError> {
        let wanted = Place { block, offset };
        if !(same_file && !self.is_over && self.unframer.is_before(wanted)) {
            match self.seek(file, block, offset) {
                Ok(()) => {}
                Err(DriveError::PastEnd(_) | DriveError::Medium(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        loop {
            let found = self.find()?;
            match &found {
                Some(Found::Frame { place, .. } | Found::Damaged { place, .. }) if *place < wanted => {}
                Some(Found::Frame { place, .. }) if *place == wanted => return Ok(found),
                Some(Found::Frame { .. } | Found::Damaged { .. }) | None => {
                    // What was found may be needed next, and is gone: it is sought anew then.
                    self.is_over = true;
                    return Ok(None);
                }
            }
        }
    }

    /// What comes next in the file; `None` at its end.
    pub(super) fn find(&mut self) -> Result<Option<Found>, DriveError> {
        loop {
            if let Some(found) = self.unframer.find() {
                return Ok(Some(found));
            }
            if self.is_over {
                return Ok(self.unframer.finish());
            }
            match self.drive.read_block(&mut self.block) {
                Ok(Reading::Block(len)) => {
                    self.unframer.block(self.block.get(..len).unwrap_or_default());
                    self.unreadable = 0;
                    self.next += 1;
                }
                Ok(Reading::Mark | Reading::EndOfData) => self.is_over = true,
                Err(DriveError::Medium(_) | DriveError::ForeignBlock { .. }) => {
                    self.unframer.unreadable(1);
                    self.unreadable += 1;
                    self.next += 1;
                    self.is_over = self.unreadable > UNREADABLE_BLOCKS_MAX;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
