//! How a drive is named: "/dev/nst0", "file:/srv/volumes", "null:".
//!
//! Owns: `Address` and its text. Called by: whoever opens a drive. Never: looks whether it is there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::base::size::Size;

/// Where a drive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A device of the kernel's tape driver that does not rewind when it is closed.
    Tape(PathBuf),
    /// A directory of volumes; `capacity`: octets that each takes, where there is a limit.
    File { dir: PathBuf, capacity: Option<Size> },
    /// Takes everything and keeps nothing, for measurements.
    Null,
}

/// The text names no drive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a tape device such as /dev/nst0, a directory of volumes such as file:/srv/volumes, or null:")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            _ if text.starts_with('/') => Ok(Self::Tape(PathBuf::from(text))),
            Some(("file", dir)) if dir.starts_with('/') => Ok(Self::File { dir: PathBuf::from(dir), capacity: None }),
            Some(("null", "")) => Ok(Self::Null),
            Some(_) | None => Err(AddressError),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tape(path) => path.display().fmt(f),
            Self::File { dir, .. } => write!(f, "file:{}", dir.display()),
            Self::Null => f.write_str("null:"),
        }
    }
}
