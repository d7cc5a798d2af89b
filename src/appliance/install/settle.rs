//! What only the kernel can do on the new disk: a filesystem's identity, a file on the ESP.
//!
//! Owns: partitions that the kernel knows and the disk does not yet have, mounting them. Called by: `install`. Never: leaves anything mounted.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gpt::partition::Partition;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::block::{device_of, read_number};
use super::super::disk::add_partition;
use super::super::slots::write_settings;
use super::target::Target;
use super::{DATA, ESP, InstallError};

/// Where the new disk's volumes are mounted for a moment.
const MOUNT_POINT: &str = "/run/fife-install";
const SETTINGS: &str = "fife.toml";

// BLKRRPART of <linux/fs.h>: the kernel reads the partition table again.
nix::ioctl_none_bad!(blkrrpart, 0x125f);

/// `struct fsuuid` of the kernel's fs/ext4/ext4.h, with its array.
#[repr(C)]
struct FsUuid {
    len: u32,
    flags: u32,
    uuid: [u8; 16],
}

// EXT4_IOC_SETFSUUID is made with the size of the structure without its array.
nix::ioctl_write_ptr_bad!(ext4_set_uuid, nix::request_code_write!(b'f', 44, 8), FsUuid);

impl InstallError {
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Kernel { source: Errno::EBUSY, .. })
    }
}

/// The kernel takes the partitions from the disk's table; there are none when it has none.
pub(super) fn forget_partitions(disk: &File) -> Result<(), InstallError> {
    #[expect(unsafe_code, reason = "the kernel reads a table again by ioctl only")]
    // SAFETY: the descriptor is open; there is no argument.
    let read = unsafe { blkrrpart(disk.as_raw_fd()) };
    read.map(drop)
        .map_err(|source| InstallError::Kernel { what: "the kernel does not read the partition table", source })
}

/// Gives the data filesystem an identity of its own and puts `settings` onto the ESP, before the disk has a partition table.
pub(super) fn settle(
    disk: &File,
    target: &Target,
    partitions: &[(u32, Partition)],
    settings: Option<&str>,
) -> Result<(), InstallError> {
    for (number, partition) in partitions {
        add_partition(disk, *number, partition.first_lba, partition.last_lba)?;
    }
    let device = |number| {
        let found = partition_device(&target.sys, number);
        found.map_err(|source| InstallError::Io { path: target.device.clone(), source })
    };
    Mounted::with(&device(DATA)?, "ext4", set_uuid)?;
    match settings {
        Some(text) => Mounted::with(&device(ESP)?, "vfat", |root| Ok(write_settings(&root.join(SETTINGS), text)?)),
        None => Ok(()),
    }
}

/// A partition of this disk by its number.
fn partition_device(sys: &Path, number: u32) -> io::Result<PathBuf> {
    let dirs = fs::read_dir(sys)?.flatten().map(|entry| entry.path());
    let is_it = |dir: &PathBuf| read_number(&dir.join("partition")).is_ok_and(|found| found == u64::from(number));
    device_of(&dirs.into_iter().find(is_it).ok_or(io::ErrorKind::NotFound)?)
}

fn set_uuid(root: &Path) -> Result<(), InstallError> {
    let root = File::open(root).map_err(|source| InstallError::Io { path: root.to_owned(), source })?;
    let mut uuid: [u8; 16] = rand::random();
    // RFC 9562 section 5.4: version 4, made of random numbers.
    for (at, keep, set) in [(6, 0x0f, 0x40), (8, 0x3f, 0x80)] {
        if let Some(octet) = uuid.get_mut(at) {
            *octet = *octet & keep | set;
        }
    }
    let argument = FsUuid { len: 16, flags: 0, uuid };
    #[expect(unsafe_code, reason = "ext4 changes its identity by ioctl only")]
    // SAFETY: the descriptor is open, and the argument lives until the call returns.
    let set = unsafe { ext4_set_uuid(root.as_raw_fd(), &raw const argument) };
    set.map(drop).map_err(|source| InstallError::Kernel { what: "the data filesystem keeps its identity", source })
}

/// A volume that is mounted until this is dropped.
struct Mounted(&'static Path);

impl Mounted {
    fn with(
        device: &Path,
        kind: &'static str,
        work: impl FnOnce(&Path) -> Result<(), InstallError>,
    ) -> Result<(), InstallError> {
        let point = Path::new(MOUNT_POINT);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(point);
        made.map_err(|source| InstallError::Io { path: point.to_owned(), source })?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mounted = mount(Some(device), point, Some(kind), flags, None::<&str>);
        mounted.map_err(|source| InstallError::Io { path: device.to_owned(), source: source.into() })?;
        let mounted = Self(point);
        work(mounted.0)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Writes everything back. Nobody else is in it.
        if let Err(error) = umount2(self.0, MntFlags::empty()) {
            tracing::warn!(%error, mount = %self.0.display(), "stays mounted");
        }
    }
}
