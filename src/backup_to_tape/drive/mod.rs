//! What writes and reads blocks and file marks.
//!
//! Owns: the seam between the volume's format and what a volume is kept on. Called by: `backup_to_tape`'s pipeline and restore, and
//! `fife backup drive`. Never: knows what is in a block.
//!
//! - `address`: how a drive is named in the configuration; `error`: what can go wrong, by whose fault;
//! - `tape`: a tape drive; `file`: a directory of volumes as plain files; `null`: counts and throws away;
//! - `exercise`: whether a drive and a volume in it do what they must.
//!
//! All kinds behave as a tape does:
//! - a volume is a sequence of *tape files*, divided by *file marks*; a place on it is the number of a tape file and of a block in it, from 0;
//! - writing at a place loses everything behind it;
//! - what was written is safe when `write_marks` has returned, not before;
//! - moving away after writing without a file mark writes one first (Linux's tape driver does so);
//! - opening moves nothing: a tape stays where whoever had it before has left it.
//!
//! Calls block, a tape's positioning for minutes: they belong on a thread of their own.

pub mod address;
pub mod error;
pub mod exercise;
pub mod file;
pub mod null;
pub mod tape;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use address::Address;
pub use error::DriveError;
use file::FileDrive;
use null::NullDrive;
use tape::Tape;
use tape::log::Health;

use super::scsi::{Identity, ScsiError};

/// Octets of a block, at least (one page).
pub const BLOCK_BYTES_MIN: usize = 4 << 10;
/// Octets of a block, at most: what drives and host adapters of the last twenty years can be asked for in one command.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;

/// What a drive is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// A place on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The number of file marks before it.
    pub file: u32,
    /// The number of blocks between the last of those marks and it.
    pub block: u32,
}

impl Place {
    /// Where a volume begins.
    pub const START: Self = Self { file: 0, block: 0 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tape file {}, block {}", self.file, self.block)
    }
}

/// How a block was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Done,
    /// It was written; the end of the volume is near. What finishes the volume still has its place, if it is short.
    EarlyWarning,
}

/// What was read. The place moves on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A block of so many octets. Shorter ones than asked for are complete.
    Block(usize),
    /// A file mark.
    Mark,
    /// Nothing was ever written here, or what was begun here was never finished.
    EndOfData,
}

/// How a drive is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are what a drive says of itself, each true or not by itself")]
pub struct Status {
    /// There is a volume in the drive.
    pub loaded: bool,
    /// The volume can be read (and written).
    pub online: bool,
    pub write_protected: bool,
    /// Number of the tape file, where it is known.
    pub file: Option<u32>,
    /// Number of the block in it, where it is known.
    pub block: Option<u32>,
    /// Nothing is recorded behind this place, as far as the drive knows.
    pub at_end_of_data: bool,
    /// The early warning before the volume's end has been passed.
    pub at_early_warning: bool,
    /// The drive wants to be cleaned.
    pub wants_cleaning: bool,
    /// What is in the drive, where the drive knows names: the directory of a volume.
    pub volume: Option<String>,
}

/// A drive that is open. While it is, nobody else can open it.
#[derive(Debug)]
pub enum Drive {
    Tape(Tape),
    File(FileDrive),
    Null(NullDrive),
}

impl Drive {
    /// Opens a drive, whether there is a volume in it or not. Blocks are written with exactly `block_bytes`.
    ///
    /// # Errors
    /// There is no such drive, somebody else has it open, or blocks of this size are out of bounds.
    pub fn open(address: &Address, access: Access, block_bytes: usize) -> Result<Self, DriveError> {
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes) {
            return Err(DriveError::BlockBytes(block_bytes));
        }
        match address {
            Address::Tape(path) => Tape::open(path, access, block_bytes).map(Self::Tape),
            Address::File { dir, capacity } => FileDrive::open(dir, access, block_bytes, *capacity).map(Self::File),
            Address::Null => Ok(Self::Null(NullDrive::new(block_bytes))),
        }
    }

    /// How it is.
    ///
    /// # Errors
    /// The drive does not answer. An empty drive is no error here.
    pub fn status(&mut self) -> Result<Status, DriveError> {
        match self {
            Self::Tape(tape) => tape.status(),
            Self::File(file) => file.status(),
            Self::Null(null) => Ok(null.status()),
        }
    }

    /// Octets of the blocks that it writes.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        match self {
            Self::Tape(tape) => tape.block_bytes(),
            Self::File(file) => file.block_bytes(),
            Self::Null(null) => null.block_bytes(),
        }
    }

    /// To where the volume begins.
    ///
    /// # Errors
    /// No volume, or the drive fails.
    pub fn rewind(&mut self) -> Result<(), DriveError> {
        match self {
            Self::Tape(tape) => tape.rewind(),
            Self::File(file) => file.seek(Place::START),
            Self::Null(null) => null.seek(Place::START),
        }
    }

    /// Writes one block, of exactly `block_bytes`. It is safe only after `write_marks`.
    ///
    /// # Errors
    /// After `Full`, `Medium` and whatever the system says this block is not on the volume; the blocks before it are.
    pub fn write_block(&mut self, block: &[u8]) -> Result<Written, DriveError> {
        assert_eq!(block.len(), self.block_bytes(), "blocks have one size");
        match self {
            Self::Tape(tape) => tape.write_block(block),
            Self::File(file) => file.write_block(block),
            Self::Null(null) => Ok(null.write_block()),
        }
    }

    /// Writes so many file marks, none being allowed. When it returns, all that was written is on the medium.
    ///
    /// # Errors
    /// What was written since the last time may not be there.
    pub fn write_marks(&mut self, count: u32) -> Result<(), DriveError> {
        match self {
            Self::Tape(tape) => tape.write_marks(count),
            Self::File(file) => file.write_marks(count),
            Self::Null(null) => {
                null.write_marks(count);
                Ok(())
            }
        }
    }

    /// Reads one block, or what is in its place. The buffer may be longer than `block_bytes`, for volumes with blocks
    /// of another size, as far as the drive goes along (`Unsupported` when it does not).
    ///
    /// # Errors
    /// After `Medium` and `ForeignBlock` the next call reads what comes behind.
    pub fn read_block(&mut self, buffer: &mut [u8]) -> Result<Reading, DriveError> {
        match self {
            Self::Tape(tape) => tape.read_block(buffer),
            Self::File(file) => file.read_block(buffer),
            Self::Null(_) => Ok(Reading::EndOfData),
        }
    }

    /// To the beginning of this block of this tape file. The place where data ends may be sought, none behind it.
    ///
    /// # Errors
    /// `PastEnd`: the place is then unknown or the end of data.
    pub fn seek(&mut self, file: u32, block: u32) -> Result<(), DriveError> {
        let place = Place { file, block };
        match self {
            Self::Tape(tape) => tape.seek(place),
            Self::File(drive) => drive.seek(place),
            Self::Null(null) => null.seek(place),
        }
    }

    /// Behind everything that is recorded.
    ///
    /// # Errors
    /// No volume, or the drive fails.
    pub fn to_end_of_data(&mut self) -> Result<(), DriveError> {
        match self {
            Self::Tape(tape) => tape.space_to_end(),
            Self::File(file) => file.space_to_end(),
            Self::Null(_) => Ok(()),
        }
    }

    /// Takes the volume out, as far as a machine can.
    ///
    /// # Errors
    /// The drive fails, or holds the volume.
    pub fn eject(&mut self) -> Result<(), DriveError> {
        match self {
            Self::Tape(tape) => tape.eject(),
            Self::File(file) => file.eject(),
            Self::Null(_) => Ok(()),
        }
    }

    /// Makes ready the volume that lies in the drive, and waits until it is; at its beginning.
    ///
    /// # Errors
    /// `NoMedium` when there is none.
    pub fn load(&mut self) -> Result<(), DriveError> {
        match self {
            Self::Tape(tape) => tape.load(),
            Self::File(file) => file.load(),
            Self::Null(_) => Ok(()),
        }
    }

    /// Puts a volume in by its name, in place of the one that is there: what hands or a changer do for a tape drive.
    ///
    /// # Errors
    /// `NoVolume` when there is none of this name; `Unsupported` for all but directories of volumes.
    pub fn insert(&mut self, name: &str) -> Result<(), DriveError> {
        match self {
            Self::File(file) => file.insert(name),
            Self::Tape(_) | Self::Null(_) => Err(DriveError::Unsupported("putting in a volume by its name")),
        }
    }

    /// The same with a new, blank volume.
    ///
    /// # Errors
    /// `VolumeExists` when there is one of this name already; `Unsupported` for all but directories of volumes.
    pub fn insert_blank(&mut self, name: &str) -> Result<(), DriveError> {
        match self {
            Self::File(file) => file.insert_blank(name),
            Self::Tape(_) | Self::Null(_) => Err(DriveError::Unsupported("making a volume")),
        }
    }

    /// Whether nothing was ever written on it: no block, and at most the file mark by which a volume is made blank. It is rewound.
    ///
    /// # Errors
    /// No volume, or the drive fails.
    pub fn is_blank(&mut self) -> Result<bool, DriveError> {
        self.rewind()?;
        // Longer blocks than these are no less blocks.
        let mut buffer = vec![0; self.block_bytes()];
        let is_blank = match self.read_block(&mut buffer) {
            Ok(Reading::EndOfData) => true,
            Ok(Reading::Mark) => self.read_block(&mut buffer)? == Reading::EndOfData,
            Ok(Reading::Block(_)) | Err(DriveError::Medium(_) | DriveError::ForeignBlock { .. }) => false,
            Err(error) => return Err(error),
        };
        self.rewind()?;
        Ok(is_blank)
    }

    /// What the drive is; `None` when it is none of the kind that says so.
    ///
    /// # Errors
    /// It does not answer.
    pub fn identity(&self) -> Result<Option<Identity>, ScsiError> {
        match self {
            Self::Tape(tape) => tape.identity().transpose(),
            Self::File(_) | Self::Null(_) => Ok(None),
        }
    }

    /// What it says of its own health and of the volume's; `None` when it is none of the kind that says so.
    ///
    /// # Errors
    /// It does not answer.
    pub fn health(&self) -> Result<Option<Health>, ScsiError> {
        match self {
            Self::Tape(tape) => tape.health().map(Some),
            Self::File(_) | Self::Null(_) => Ok(None),
        }
    }
}
