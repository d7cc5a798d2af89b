//! What can go wrong with a drive, by whose fault.
//!
//! Owns: `DriveError`. Called by: every kind of drive, and whoever decides what comes next.

use std::io;
use std::path::PathBuf;

use super::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Place};

/// Why a drive did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    // Whoever handles volumes must do something.
    #[error("there is no volume in the drive")]
    NoMedium,
    #[error("the volume is write-protected")]
    WriteProtected,
    #[error("the drive is not ready")]
    Offline,
    #[error("the drive is in use by another process")]
    Busy,
    #[error("there is no volume {0:?}")]
    NoVolume(String),
    #[error("there is a volume {0:?} already")]
    VolumeExists(String),
    #[error(
        "{0:?} cannot be the name of a volume: up to 64 letters, digits, '-', '_' and '.', a letter or digit first"
    )]
    VolumeName(String),

    // The volume is at fault.
    #[error("the volume is full at {0}")]
    Full(Place),
    #[error("the medium is damaged at {0}")]
    Medium(Place),
    /// What is recorded there has blocks of another size. `bytes`: theirs, where it is known.
    #[error("the block at {place} is larger than {expected} octets{}", known(*bytes))]
    ForeignBlock { place: Place, expected: usize, bytes: Option<usize> },
    #[error("nothing is recorded at {0}: data ends before it")]
    PastEnd(Place),

    // The configuration, or the caller.
    #[error("{}: there is no such drive", .0.display())]
    NotThere(PathBuf),
    #[error("blocks of {0} octets: they must have {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}")]
    BlockBytes(usize),
    #[error("the drive was opened for reading only")]
    ReadOnly,
    #[error("this drive cannot do it: {0}")]
    Unsupported(&'static str),

    // The machine.
    #[error("the drive was reset, and has lost its place on the volume")]
    PlaceLost,
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

fn known(bytes: Option<usize>) -> String {
    bytes.map(|bytes| format!(": {bytes}")).unwrap_or_default()
}

/// For `map_err`: what was being done.
pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> DriveError {
    let what = what.into();
    move |source| DriveError::Io { what, source }
}
