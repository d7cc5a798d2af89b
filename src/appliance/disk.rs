//! The partition table of the system's disk, and growing its last partition to the disk's end.
//!
//! Owns: in which order the sectors of a changed table are written. Called by: boot at each start, `install`.
//! Never: moves or shrinks a partition; touches a disk whose table it cannot read.
//! Spec: UEFI 2.10 section 5.3 (GPT).
//!
//! Linux takes the partition table from the primary header alone (the backup counts only with `gpt` on its command line), and a
//! header is good only with the entries that it has the checksum of: two sectors, which no disk writes as one. So the new
//! entries are first written elsewhere, below the first partition; one sector, the header, then turns from the old entries to the new
//! ones; then the same back to the usual place. Whenever the power goes, the header fits the entries that it names.

mod overlay;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::{GptConfig, GptError};

use super::block::{SECTOR, Volume};
use super::superblock::{Superblock, System};
pub(super) use overlay::Overlay;

/// Where the entries begin, behind protective MBR and header.
const ENTRIES_FIRST_LBA: u64 = 2;
/// Octets of the table of entries, as this room writes it: 128 entries of 128.
const ENTRIES_OCTETS: u64 = 128 * 128;
const ENTRIES_SECTORS: u64 = ENTRIES_OCTETS / SECTOR;
/// Where new entries wait until the header points to them.
const SPARE_FIRST_LBA: u64 = ENTRIES_FIRST_LBA + ENTRIES_SECTORS;
const SPARE_END_LBA: u64 = SPARE_FIRST_LBA + ENTRIES_SECTORS;
const HEADER_LBA: u64 = 1;
/// Partitions begin and end at multiples of this (1 MiB).
pub(super) const ALIGNMENT_SECTORS: u64 = 2048;
pub(super) const BLOCK: LogicalBlockSize = LogicalBlockSize::Lb512;

/// Why the disk is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the partition table: {0}")]
    Table(#[from] GptError),
    #[error("the partition table has no room before its first partition")]
    NoRoom,
    #[error("partition {0} is not the last one on the disk: it cannot grow")]
    NotLast(u32),
    #[error("the disk has sectors of {0} octets: fife runs from disks with sectors of {SECTOR} octets")]
    Sectors(u64),
    #[error("{what}: {source}")]
    Kernel { what: &'static str, source: nix::Error },
}

/// What growing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grown {
    /// Octets of the partition before.
    pub from: u64,
    /// Octets of it, and of the filesystem, now.
    pub to: u64,
}

/// One step of a change to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Write {
        at: u64,
        octets: Vec<u8>,
    },
    /// All that was written is on the disk before anything that follows.
    Flush,
}

/// Grows the partition that is mounted here to the end of its disk, and the ext4 filesystem in it, both while they are in use. Nothing is
/// written when all is as large as it can be.
///
/// # Errors
/// Nothing was changed, or less than all; the system works on with what there is.
pub fn grow(mount_point: &Path) -> Result<Option<Grown>, DiskError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| DiskError::Io { path, source }
    };
    let volume = Volume::mounted_at(mount_point).map_err(io(mount_point))?;
    let sectors = super::block::read_number(&volume.disk_sys.join("queue/logical_block_size"));
    let sectors = sectors.map_err(io(&volume.disk_sys))?;
    if sectors != SECTOR {
        return Err(DiskError::Sectors(sectors));
    }
    let from = volume.octets().map_err(io(&volume.sys))?;
    let disk = OpenOptions::new().read(true).write(true).open(&volume.disk).map_err(io(&volume.disk))?;
    let growth = plan(&disk, volume.number)?;
    carry_out(&disk, &growth.steps).map_err(io(&volume.disk))?;
    let octets = growth.octets();
    if octets > from {
        resize_partition(&disk, &growth, volume.number)?;
    }
    resize_filesystem(mount_point, &volume, octets.max(from)).map(|grown| grown.then_some(Grown { from, to: octets }))
}

/// A partition table as it is to be, and how to get there.
#[derive(Debug)]
struct Growth {
    first_lba: u64,
    last_lba: u64,
    /// Empty when the table is already so.
    steps: Vec<Step>,
}

impl Growth {
    fn octets(&self) -> u64 {
        (self.last_lba + 1).saturating_sub(self.first_lba).saturating_mul(SECTOR)
    }
}

/// What must be written so that partition `number` reaches to the end of the disk.
fn plan<D: Read + Seek + std::fmt::Debug>(disk: D, number: u32) -> Result<Growth, DiskError> {
    let config = GptConfig::new().writable(true).logical_block_size(BLOCK);
    let mut table = config.open_from_device(Overlay::over(disk))?;
    let before = table.primary_header().map_err(GptError::from)?.clone();
    let mut partitions = table.partitions().clone();
    let is_last = |one: &Partition| partitions.values().all(|other| other.last_lba <= one.last_lba);
    let grown = partitions.get(&number).filter(|one| is_last(one)).ok_or(DiskError::NotLast(number))?.clone();
    if partitions.values().filter(|one| one.is_used()).any(|one| one.first_lba < SPARE_END_LBA) {
        return Err(DiskError::NoRoom);
    }
    // Makes headers for the disk's present size: what is usable ends further back.
    table.update_partitions(partitions.clone())?;
    let after = table.primary_header().map_err(GptError::from)?.clone();
    let end = (after.last_usable + 1) / ALIGNMENT_SECTORS * ALIGNMENT_SECTORS;
    let last_lba = end.saturating_sub(1).max(grown.last_lba);
    let is_whole = before.part_start == ENTRIES_FIRST_LBA
        && before.backup_lba == after.backup_lba
        && table.backup_header().is_ok()
        && last_lba == grown.last_lba;
    let mut growth = Growth { first_lba: grown.first_lba, last_lba, steps: Vec::new() };
    let mut sectors = after.backup_lba;
    if !is_whole {
        if let Some(partition) = partitions.get_mut(&number) {
            partition.last_lba = last_lba;
        }
        table.update_partitions(partitions)?;
        table.write_inplace()?;
        sectors = table.header().backup_lba;
        growth.steps = table_steps(&mut table, before.part_start)?;
    }
    growth.steps.extend(protective_steps(table.take_device(), sectors)?);
    Ok(growth)
}

/// The sectors of a table that was written to an overlay, in the order in which they may go to the disk. `live`: where the entries
/// lie that the header on the disk names now.
fn table_steps<D: Read + Seek + std::fmt::Debug>(
    table: &mut gpt::GptDisk<Overlay<D>>,
    live: u64,
) -> Result<Vec<Step>, DiskError> {
    let header = table.primary_header().map_err(GptError::from)?.clone();
    let backup = table.backup_header().map_err(GptError::from)?.clone();
    let overlay = table.device_mut();
    let entries = overlay.octets(header.part_start, ENTRIES_SECTORS).map_err(GptError::from)?;
    let backup_header = overlay.octets(backup.current_lba, 1).map_err(GptError::from)?;
    let usual_header = overlay.octets(HEADER_LBA, 1).map_err(GptError::from)?;
    let write = |lba: u64, octets: &[u8]| Step::Write { at: lba * SECTOR, octets: octets.to_vec() };
    let mut steps =
        vec![write(backup.part_start, &entries), Step::Flush, write(backup.current_lba, &backup_header), Step::Flush];
    if live != SPARE_FIRST_LBA {
        let mut spare = header;
        spare.part_start = SPARE_FIRST_LBA;
        spare.first_usable = spare.first_usable.max(SPARE_END_LBA);
        overlay.put(SPARE_FIRST_LBA, &entries).map_err(GptError::from)?;
        spare.write_primary(overlay, BLOCK).map_err(GptError::from)?;
        let spare_header = overlay.octets(HEADER_LBA, 1).map_err(GptError::from)?;
        steps.extend([write(SPARE_FIRST_LBA, &entries), Step::Flush, write(HEADER_LBA, &spare_header), Step::Flush]);
    }
    steps.extend([write(ENTRIES_FIRST_LBA, &entries), Step::Flush, write(HEADER_LBA, &usual_header), Step::Flush]);
    Ok(steps)
}

/// The protective MBR with the disk's present size; boot code and all else in its sector stay.
fn protective_steps<D: Read + Seek + std::fmt::Debug>(
    mut disk: Overlay<D>,
    sectors: u64,
) -> Result<Vec<Step>, DiskError> {
    let old = disk.octets(0, 1).map_err(GptError::from)?;
    let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(sectors).unwrap_or(u32::MAX));
    if let Ok(there) = ProtectiveMBR::from_bytes(&old, BLOCK) {
        mbr.set_bootcode(*there.bootcode());
        mbr.set_disk_signature(*there.disk_signature());
    }
    let new = mbr.to_bytes();
    Ok(if old == new { Vec::new() } else { vec![Step::Write { at: 0, octets: new.to_vec() }, Step::Flush] })
}

/// A whole table on a disk that has none, from the overlay that it was written to; the primary header is last.
pub(super) fn new_table_steps<D: Read + Seek + std::fmt::Debug>(
    table: &mut gpt::GptDisk<Overlay<D>>,
) -> Result<Vec<Step>, DiskError> {
    let header = table.primary_header().map_err(GptError::from)?.clone();
    let backup = table.backup_header().map_err(GptError::from)?.clone();
    let overlay = table.device_mut();
    let entries = overlay.octets(header.part_start, ENTRIES_SECTORS).map_err(GptError::from)?;
    let write = |lba: u64, octets: Vec<u8>| Step::Write { at: lba.saturating_mul(SECTOR), octets };
    let backup_header = overlay.octets(backup.current_lba, 1).map_err(GptError::from)?;
    let primary_header = overlay.octets(HEADER_LBA, 1).map_err(GptError::from)?;
    Ok(vec![
        write(header.part_start, entries.clone()),
        write(backup.part_start, entries),
        write(backup.current_lba, backup_header),
        Step::Flush,
        write(HEADER_LBA, primary_header),
        Step::Flush,
    ])
}

/// Sector 0: boot code, and the protective partition over a disk whose last sector is `last_lba`.
pub(super) fn boot_sector_step(boot_code: [u8; 440], last_lba: u64) -> Step {
    let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(last_lba).unwrap_or(u32::MAX));
    mbr.set_bootcode(boot_code);
    Step::Write { at: 0, octets: mbr.to_bytes().to_vec() }
}

/// Writes to a disk, or to a file that holds one.
pub(super) fn carry_out(disk: &File, steps: &[Step]) -> io::Result<()> {
    for step in steps {
        match step {
            Step::Write { at, octets } => disk.write_all_at(octets, *at)?,
            Step::Flush => disk.sync_all()?,
        }
    }
    Ok(())
}

// What <linux/blkpg.h> has.
const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;
const BLKPG_RESIZE_PARTITION: libc::c_int = 3;

#[repr(C)]
struct BlkpgIoctlArg {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut BlkpgPartition,
}

#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    pno: libc::c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

nix::ioctl_write_ptr_bad!(blkpg, BLKPG, BlkpgIoctlArg);
// EXT4_IOC_RESIZE_FS: the new number of blocks.
nix::ioctl_write_ptr!(ext4_resize_fs, b'f', 16, u64);

/// Tells the kernel the new end of a partition that is in use: reading the table again (BLKRRPART) is refused then.
fn resize_partition(disk: &File, growth: &Growth, number: u32) -> Result<(), DiskError> {
    let resized = tell_kernel(disk, BLKPG_RESIZE_PARTITION, number, growth.first_lba, growth.last_lba);
    resized.map_err(|source| DiskError::Kernel { what: "the kernel does not take the partition's new end", source })
}

/// The kernel has a partition that the disk's table does not have yet.
pub(super) fn add_partition(disk: &File, number: u32, first_lba: u64, last_lba: u64) -> Result<(), DiskError> {
    let added = tell_kernel(disk, BLKPG_ADD_PARTITION, number, first_lba, last_lba);
    added.map_err(|source| DiskError::Kernel { what: "the kernel does not take the new partition", source })
}

fn tell_kernel(disk: &File, op: libc::c_int, number: u32, first_lba: u64, last_lba: u64) -> nix::Result<()> {
    let signed = |sectors: u64| libc::c_longlong::try_from(sectors.saturating_mul(SECTOR)).unwrap_or(i64::MAX);
    let mut partition = BlkpgPartition {
        start: signed(first_lba),
        length: signed((last_lba + 1).saturating_sub(first_lba)),
        pno: libc::c_int::try_from(number).unwrap_or(0),
        devname: [0; 64],
        volname: [0; 64],
    };
    let datalen = libc::c_int::try_from(size_of::<BlkpgPartition>()).unwrap_or(0);
    let argument = BlkpgIoctlArg { op, flags: 0, datalen, data: &raw mut partition };
    #[expect(unsafe_code, reason = "the kernel has no other way to change partitions of a disk in use")]
    // SAFETY: the descriptor is open, and argument and what it points to live until the call returns.
    let told = unsafe { blkpg(disk.as_raw_fd(), &raw const argument) };
    told.map(drop)
}

/// Grows a mounted ext4 to fill its partition. Returns whether there was anything to do.
fn resize_filesystem(mount_point: &Path, volume: &Volume, octets: u64) -> Result<bool, DiskError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| DiskError::Io { path, source }
    };
    let found = Superblock::read(&volume.device).map_err(io(&volume.device))?;
    let Some(System::Ext { blocks, block, .. }) = found.map(|found| found.system) else { return Ok(false) };
    let wanted = octets / block;
    if wanted <= blocks {
        return Ok(false);
    }
    let root = File::open(mount_point).map_err(io(mount_point))?;
    #[expect(unsafe_code, reason = "ext4 grows by ioctl only")]
    // SAFETY: the descriptor is open, and the number lives until the call returns.
    let resized = unsafe { ext4_resize_fs(root.as_raw_fd(), &raw const wanted) };
    resized.map_err(|source| DiskError::Kernel { what: "the filesystem does not grow", source })?;
    Ok(true)
}
