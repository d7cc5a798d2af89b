//! Names in a directory of volumes.
//!
//! Owns: which names volumes and tape files have. Called by: `file` and its rooms.

use std::path::{Path, PathBuf};

use super::DriveError;

/// The link to the volume in the drive.
pub(super) const LOADED: &str = "loaded";
/// What becomes it.
pub(super) const LOADED_NEW: &str = "loaded.new";
/// The file that has the size of a volume's blocks.
pub(super) const BLOCK_BYTES: &str = "block-bytes";
/// Letters of a volume's name, at most.
const NAME_CHARS_MAX: usize = 64;
/// Digits of a tape file's name, at least: so they sort.
const DIGITS: usize = 6;

/// Whether a volume may be called so: it is the name of a directory, and of nothing elsewhere.
pub(super) fn check(name: &str) -> Result<(), DriveError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_good = name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_plain)
        && ![LOADED, LOADED_NEW].contains(&name);
    if is_good { Ok(()) } else { Err(DriveError::VolumeName(name.to_owned())) }
}

/// Where a tape file of this volume is.
pub(super) fn tape_file(volume: &Path, number: u32) -> PathBuf {
    volume.join(format!("{number:0DIGITS$}"))
}
