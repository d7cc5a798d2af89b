//! The disk: partition table, boot code, and the two volumes in their places.
//!
//! Owns: where everything lies. Called by: `build`, `esp`, `grub`.
//! Spec: UEFI 2.10 chapter 5 (GPT).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use gpt::GptConfig;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types;
use uuid::Uuid;

use crate::grub::Grub;

pub const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;

pub const BIOS_BOOT_FIRST_LBA: u64 = 2048;
pub const BIOS_BOOT_SECTORS: u64 = MIB / SECTOR;
pub const ESP_FIRST_LBA: u64 = 4096;
/// Two slots of the system, and 2 MiB for the file allocation tables, the loaders and `fife.toml`.
pub const ESP_LEN: u64 = 2 * SLOT_LEN_MAX + 2 * MIB;
/// Octets of a kernel and its initramfs, at most.
pub const SLOT_LEN_MAX: u64 = 45 * MIB;
pub const DATA_FIRST_LBA: u64 = ESP_FIRST_LBA + ESP_LEN / SECTOR;
/// The data partition as it is shipped; it is grown to the disk's end at the first boot.
pub const DATA_LEN: u64 = 40 * MIB;
/// Behind the data: the backup of the partition table.
const TAIL_LEN: u64 = MIB;
/// What BIOS loaders look for (UEFI 2.10 table 5.8, bit 2).
const LEGACY_BIOS_BOOTABLE: u64 = 1 << 2;
/// Octets that are copied at a time; all zero, they are left out, and the file stays sparse.
const COPY_LEN: usize = 64 * 1024;

/// Writes the image. `guid` gives the disk's and, in order, the partitions' GUIDs.
pub fn make(path: &Path, grub: &Grub, esp: &Path, data: &Path, guid: &dyn Fn(&str) -> Uuid) -> Result<()> {
    // By these names the boot knows its partitions when their labels are garbage.
    let total = DATA_FIRST_LBA * SECTOR + DATA_LEN + TAIL_LEN;
    let mut image = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    image.set_len(total)?;
    let mut table = GptConfig::new().writable(true).create_from_device(image.try_clone()?, Some(guid("disk")))?;
    let bios_boot = (BIOS_BOOT_FIRST_LBA, BIOS_BOOT_SECTORS);
    table.add_partition_at("bios-boot", 1, bios_boot.0, bios_boot.1, partition_types::BIOS, 0)?;
    table.add_partition_at(
        "fife-esp",
        2,
        ESP_FIRST_LBA,
        ESP_LEN / SECTOR,
        partition_types::EFI,
        LEGACY_BIOS_BOOTABLE,
    )?;
    table.add_partition_at("fife-data", 3, DATA_FIRST_LBA, DATA_LEN / SECTOR, partition_types::LINUX_FS, 0)?;
    let mut partitions: BTreeMap<_, _> = table.partitions().clone();
    for partition in partitions.values_mut() {
        partition.part_guid = guid(&partition.name);
    }
    table.update_partitions(partitions)?;
    drop(table.write()?);
    let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(total / SECTOR - 1)?);
    mbr.set_bootcode(grub.boot_code);
    mbr.overwrite_lba0(&mut image)?;
    image.seek(SeekFrom::Start(BIOS_BOOT_FIRST_LBA * SECTOR))?;
    image.write_all(&grub.core)?;
    copy(esp, &mut image, ESP_FIRST_LBA * SECTOR)?;
    copy(data, &mut image, DATA_FIRST_LBA * SECTOR)?;
    image.sync_all()?;
    Ok(())
}

/// Copies a volume to its place, leaving out what is zero.
fn copy(from: &Path, image: &mut File, mut at: u64) -> Result<()> {
    let mut volume = File::open(from).with_context(|| from.display().to_string())?;
    let mut octets = vec![0; COPY_LEN];
    loop {
        let count = volume.read(&mut octets)?;
        let Some(read) = octets.get(..count).filter(|read| !read.is_empty()) else { return Ok(()) };
        if read.iter().any(|octet| *octet != 0) {
            image.seek(SeekFrom::Start(at))?;
            image.write_all(read)?;
        }
        at += u64::try_from(count)?;
    }
}
