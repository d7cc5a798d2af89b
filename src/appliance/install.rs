//! Installing: the system that was booted, from a stick as a rule, onto a disk of the machine.
//!
//! Owns: in which order the disk is written. Called by: `fife install`. Never: overwrites a disk that is in use; copies data of the stick's
//! own run: the new disk starts with an empty data partition.
//!
//! Whenever the power goes, the disk either holds no system at all or a whole one: first the old partition tables are erased, then all is
//! written, read back and compared, and set up; the table and the boot sector are last.
//!
//! - `target`: what is on the disk, and whether it may be overwritten; `copy`: the octets; `settle`: what only the kernel can do.

mod copy;
mod settle;
pub mod target;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gpt::partition::Partition;
use gpt::{GptConfig, GptError};

use super::block::{SECTOR, Volume};
use super::disk::{self, BLOCK, DiskError, Step};
use super::slots::SlotError;
use copy::Piece;
use target::{Refusal, Target};

/// The empty data filesystem that the image carries, for there is no mke2fs in it.
pub const DATA_IMAGE: &str = "/usr/share/fife/data.ext4.zst";
/// Octets of data that a disk must have room for, at least.
pub const DATA_LEN_MIN: u64 = 512 << 20;
const BIOS_BOOT: u32 = 1;
const ESP: u32 = 2;
const DATA: u32 = 3;

/// Why the disk holds no system.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the disk that this system runs from: {0}")]
    Source(DiskError),
    #[error("the disk that this system runs from is not laid out as fife's image is")]
    Layout,
    #[error("the new partition table: {0}")]
    Table(#[from] DiskError),
    #[error("{what}: {source}")]
    Kernel { what: &'static str, source: nix::Error },
    #[error("the configuration: {0}")]
    Settings(#[from] SlotError),
}

/// The disk that the system runs from.
#[derive(Debug)]
pub struct Booted {
    disk: PathBuf,
    bios_boot: Partition,
    esp: Partition,
    data: Partition,
}

impl Booted {
    /// The disk under the mounted ESP.
    ///
    /// # Errors
    /// It cannot be read, or is not laid out as the image is.
    pub fn find(esp: &Path) -> Result<Self, InstallError> {
        let volume = Volume::mounted_at(esp).map_err(|source| InstallError::Io { path: esp.to_owned(), source })?;
        Self::read(&volume.disk)
    }

    /// The system on this disk, or in this image.
    fn read(disk: &Path) -> Result<Self, InstallError> {
        let fault = |error: GptError| InstallError::Source(error.into());
        let table = GptConfig::new().logical_block_size(BLOCK).open(disk).map_err(fault)?;
        let partition = |number| table.partitions().get(&number).cloned().ok_or(InstallError::Layout);
        let (bios_boot, esp, data) = (partition(BIOS_BOOT)?, partition(ESP)?, partition(DATA)?);
        let in_order = bios_boot.last_lba < esp.first_lba && esp.last_lba < data.first_lba;
        if !in_order || table.partitions().len() != 3 || bios_boot.first_lba < disk::ALIGNMENT_SECTORS {
            return Err(InstallError::Layout);
        }
        Ok(Self { disk: disk.to_owned(), bios_boot, esp, data })
    }

    /// Octets that a disk must have, at least.
    #[must_use]
    pub fn octets_min(&self) -> u64 {
        (self.data.first_lba + disk::ALIGNMENT_SECTORS).saturating_mul(SECTOR).saturating_add(DATA_LEN_MIN)
    }

    /// The device.
    #[must_use]
    pub fn disk(&self) -> &Path {
        &self.disk
    }
}

/// Puts the system onto a disk. `settings`: the `fife.toml` that it gets in place of the stick's. `tell` hears what is being done.
///
/// # Errors
/// The disk holds nothing that boots then.
pub fn install(
    booted: &Booted,
    target: &Target,
    settings: Option<&str>,
    mut tell: impl FnMut(&str),
) -> Result<(), InstallError> {
    let fault = |source| InstallError::Io { path: target.device.clone(), source };
    {
        // O_EXCL: the kernel refuses a disk that anybody has mounted since it was looked at.
        let disk = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(&target.device);
        let disk = disk.map_err(fault)?;
        tell("erasing the old partition table");
        erase(&disk, target.octets).map_err(fault)?;
        settle::forget_partitions(&disk)?;
        for piece in pieces(booted, Path::new(DATA_IMAGE)).map_err(fault)? {
            tell(piece.what);
            piece.write(&disk).map_err(fault)?;
        }
    }
    let disk = OpenOptions::new().read(true).write(true).open(&target.device).map_err(fault)?;
    let table = table(booted, &disk)?;
    tell("setting up");
    settle::settle(&disk, target, &table.partitions, settings)?;
    tell("writing the partition table");
    finish(&disk, &table).map_err(fault)?;
    // They are the same as those that were set up; not to read them again does no harm.
    settle::forget_partitions(&disk).or_else(|error| if error.is_busy() { Ok(()) } else { Err(error) })
}

/// No loader and no kernel finds a system on the disk, whatever was there.
fn erase(disk: &File, octets: u64) -> io::Result<()> {
    let len = disk::ALIGNMENT_SECTORS * SECTOR;
    let zeros = vec![0; usize::try_from(len).unwrap_or(0)];
    let steps = [
        Step::Write { at: 0, octets: zeros.clone() },
        Step::Write { at: octets / SECTOR * SECTOR - len.min(octets / SECTOR * SECTOR), octets: zeros },
        Step::Flush,
    ];
    disk::carry_out(disk, &steps)
}

/// All that is copied, with its place.
fn pieces(booted: &Booted, data: &Path) -> io::Result<Vec<Piece>> {
    Ok(vec![
        Piece::of_partition("the loader for BIOS", &booted.disk, &booted.bios_boot)?,
        Piece::of_partition("the system", &booted.disk, &booted.esp)?.with_volume_id(rand::random()),
        Piece::of_image("an empty data partition", data, &booted.data)?,
    ])
}

/// A table that is still to be written.
#[derive(Debug)]
struct Table {
    partitions: Vec<(u32, Partition)>,
    steps: Vec<Step>,
}

/// The table for this disk: names, kinds and places as on the booted disk, identities of its own, the data to the end. The boot sector is last.
fn table(booted: &Booted, disk: &File) -> Result<Table, InstallError> {
    let fault = |error: GptError| InstallError::Table(error.into());
    let io = |error: io::Error| InstallError::Table(GptError::from(error).into());
    let config = GptConfig::new().writable(true).logical_block_size(BLOCK);
    let overlay = disk::Overlay::over(disk.try_clone().map_err(io)?);
    let mut new = config.create_from_device(overlay, None).map_err(fault)?;
    let end = (new.header().last_usable + 1) / disk::ALIGNMENT_SECTORS * disk::ALIGNMENT_SECTORS;
    for (number, like) in [(BIOS_BOOT, &booted.bios_boot), (ESP, &booted.esp), (DATA, &booted.data)] {
        let end = if number == DATA { end } else { like.last_lba + 1 };
        let sectors = end.saturating_sub(like.first_lba).max(1);
        let kind = like.part_type_guid.clone();
        new.add_partition_at(&like.name, number, like.first_lba, sectors, kind, like.flags).map_err(fault)?;
    }
    new.write_inplace().map_err(fault)?;
    let partitions = new.partitions().iter().map(|(number, partition)| (*number, partition.clone())).collect();
    let mut steps = disk::new_table_steps(&mut new)?;
    let sectors = new.header().backup_lba;
    let boot = Piece::boot_code(&booted.disk).map_err(io)?;
    steps.extend([disk::boot_sector_step(boot, sectors), Step::Flush]);
    Ok(Table { partitions, steps })
}

fn finish(disk: &File, table: &Table) -> io::Result<()> {
    disk::carry_out(disk, &table.steps)
}
