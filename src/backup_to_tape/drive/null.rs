//! A drive that takes everything and keeps nothing.
//!
//! Owns: what a measurement of everything before the drive needs. Called by: `Drive`.

use super::{DriveError, Place, Status, Written};

/// Counts.
#[derive(Debug)]
pub struct NullDrive {
    block_bytes: usize,
    place: Place,
    octets: u64,
}

impl NullDrive {
    pub(super) const fn new(block_bytes: usize) -> Self {
        Self { block_bytes, place: Place::START, octets: 0 }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            loaded: true,
            online: true,
            file: Some(self.place.file),
            block: Some(self.place.block),
            at_end_of_data: true,
            ..Status::default()
        }
    }

    pub(super) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Octets that it was given so far.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    pub(super) fn write_block(&mut self) -> Written {
        self.place.block = self.place.block.saturating_add(1);
        self.octets = self.octets.saturating_add(u64::try_from(self.block_bytes).unwrap_or(u64::MAX));
        Written::Done
    }

    pub(super) fn write_marks(&mut self, count: u32) {
        if count > 0 {
            self.place = Place { file: self.place.file.saturating_add(count), block: 0 };
        }
    }

    pub(super) fn seek(&mut self, place: Place) -> Result<(), DriveError> {
        if place > self.place {
            return Err(DriveError::PastEnd(place));
        }
        self.place = place;
        Ok(())
    }
}
