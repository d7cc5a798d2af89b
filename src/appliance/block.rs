//! Disks and partitions, as the kernel shows them below /sys.
//!
//! Owns: `Volume`: from a mount point to the partition and the disk under it. Called by: `disk`, `install`, boot.
//! Never: reads or writes a disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// Where the kernel shows block devices by their numbers.
const SYS_DEV_BLOCK: &str = "/sys/dev/block";
const DEV: &str = "/dev";

/// Octets of a sector as the kernel counts them below /sys, whatever the disk's own are.
pub const SECTOR: u64 = 512;

/// A partition that is in use, and the disk that it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The partition's directory below /sys.
    pub sys: PathBuf,
    /// Its device, as "/dev/vda3".
    pub device: PathBuf,
    /// Its number on the disk, from 1.
    pub number: u32,
    /// The disk's device, as "/dev/vda".
    pub disk: PathBuf,
    /// The disk's directory below /sys.
    pub disk_sys: PathBuf,
}

impl Volume {
    /// The partition that is mounted here.
    ///
    /// # Errors
    /// `NotFound` when what is mounted here is no partition of a disk (a tmpfs, a whole disk, a volume of LVM).
    pub fn mounted_at(mount_point: &Path) -> io::Result<Self> {
        let device = fs::metadata(mount_point)?.dev();
        let link = Path::new(SYS_DEV_BLOCK).join(format!("{}:{}", major(device), minor(device)));
        Self::from_sys(&fs::canonicalize(link)?)
    }

    /// The partition with this directory below /sys.
    fn from_sys(sys: &Path) -> io::Result<Self> {
        let number = read_number(&sys.join("partition"))?;
        let number = u32::try_from(number).map_err(io::Error::other)?;
        let disk_sys = sys.parent().ok_or(io::ErrorKind::NotFound)?.to_owned();
        Ok(Self { device: device_of(sys)?, disk: device_of(&disk_sys)?, sys: sys.to_owned(), number, disk_sys })
    }

    /// Its length as the kernel has it now, in octets.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn octets(&self) -> io::Result<u64> {
        Ok(read_number(&self.sys.join("size"))?.saturating_mul(SECTOR))
    }
}

/// The device node of a directory below /sys. Its name there has `!` for `/`: `uevent` has the true one.
pub(super) fn device_of(sys: &Path) -> io::Result<PathBuf> {
    let events = fs::read_to_string(sys.join("uevent"))?;
    let name = events.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    Ok(Path::new(DEV).join(name.ok_or(io::ErrorKind::NotFound)?))
}

/// A file below /sys that holds one number.
pub(super) fn read_number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}
