//! The role backup-to-tape: copies of the site on volumes that anyone can read in twenty years.
//!
//! Owns: drives, changers, the volume's format, the catalogue, jobs. Called by: `main.rs` by way of `cli::role`, and `fife backup`.
//! Calls: other roles only over their unix sockets (`net::snapshot`).
//!
//! - `drive`: what writes and reads blocks and file marks: a tape drive, a directory of volumes, or nothing at all;
//! - `changer`: what puts tapes into drives by itself; `scsi`: commands to drives and changers, and what they answer;
//! - `volume`: the format, what stands on a volume octet by octet;
//! - `feed`: from a tar stream to blocks, so that the drive need not stop;
//! - `catalogue`: which files are on which volume;
//! - `restore`: reading back, and finding out what a volume holds;
//! - `job`: a run, from what is in the drive to the last part; `source`: files of this host as a tar stream.

pub mod catalogue;
pub mod changer;
pub mod drive;
pub mod feed;
pub mod job;
pub mod restore;
pub mod scsi;
pub mod source;
pub mod volume;
