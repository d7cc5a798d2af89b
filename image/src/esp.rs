//! The EFI system partition: a FAT32 volume with both loaders' files, the first slot, and `fife.toml`.
//!
//! Owns: what lies on it. Called by: `build`.
//! Spec: UEFI 2.10 section 3.5.1.1 (BOOTX64.EFI); Boot Loader Specification, type 1.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter};
use hadris_fat::time::{FatDateTime, TimeProvider};
use hadris_fat::{FatVolume, FatVolumeWriteExt};

use crate::disk::{ESP_FIRST_LBA, ESP_LEN, SLOT_LEN_MAX};

const LABEL: &str = "FIFE-ESP";
/// Sectors of a cluster: with larger ones a volume of this size would have too few of them for FAT32.
const CLUSTER_SECTORS: u8 = 2;

/// Places in a directory entry: time and date of creation and of the last writing, date of the last access.
const CREATED_AT: u64 = 14;
const ACCESSED_AT: u64 = 18;
const WRITTEN_AT: u64 = 22;

/// Every file has the FAT's first day: the same inputs give the same volume.
#[derive(Debug)]
struct FirstDay;

impl TimeProvider for FirstDay {
    fn now(&self) -> FatDateTime {
        FatDateTime::EPOCH
    }
}

/// The formatter takes the label's time from the clock; it gets that of the files. The label is the root directory's first entry, and
/// that begins behind the FATs (Microsoft FAT specification 1.03, "BPB", "FAT Directory Structure").
fn stamp_label(file: &mut File) -> Result<()> {
    let mut boot = [0; 512];
    file.read_exact(&mut boot)?;
    let number = |at: usize, len: usize| -> u64 {
        boot.iter().skip(at).take(len).rev().fold(0, |number, octet| (number << 8) | u64::from(*octet))
    };
    let (sector, reserved, fats, fat_sectors) = (number(11, 2), number(14, 2), number(16, 1), number(36, 4));
    let (date, time, _) = FatDateTime::EPOCH.to_raw();
    let entry = (reserved + fats * fat_sectors) * sector;
    for (at, value) in
        [(CREATED_AT, time), (CREATED_AT + 2, date), (ACCESSED_AT, date), (WRITTEN_AT, time), (WRITTEN_AT + 2, date)]
    {
        file.seek(SeekFrom::Start(entry + at))?;
        file.write_all(&value.to_le_bytes())?;
    }
    file.rewind()?;
    Ok(())
}

/// Refuses a system that would leave no place for the next one beside it.
pub fn check_slot(linux: &[u8], initrd: &[u8]) -> Result<()> {
    let len = u64::try_from(linux.len() + initrd.len())?;
    ensure!(len <= SLOT_LEN_MAX, "kernel and initramfs have {len} octets; {SLOT_LEN_MAX} fit into a slot");
    Ok(())
}

/// Writes the volume as a file of its own. `files`: path and octets, in the order in which they are to lie on it.
pub fn make(path: &Path, volume_id: u32, files: &[(String, Vec<u8>)]) -> Result<()> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(ESP_LEN)?;
    let options = FatFormatOptions::new(ESP_LEN)
        .fat_type(FatTypeSelection::Fat32)
        .sectors_per_cluster(CLUSTER_SECTORS)
        .hidden_sectors(u32::try_from(ESP_FIRST_LBA)?)
        .volume_label(LABEL)
        .volume_id(volume_id);
    let fault = |error| anyhow!("the ESP: {error:?}");
    drop(FatVolumeFormatter::format(file, options).map_err(fault)?);
    let mut file = File::options().read(true).write(true).open(path)?;
    stamp_label(&mut file)?;
    let volume = FatVolume::builder(file).time_provider(&FirstDay).open().map_err(fault)?;
    for (path, octets) in files {
        let mut dir = volume.root_dir();
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                let entry = volume.create_file(&dir, name).map_err(fault)?;
                let mut writer = volume.write_file(&entry).map_err(fault)?;
                let mut rest = octets.as_slice();
                while !rest.is_empty() {
                    let count = writer.write(rest).map_err(fault)?;
                    rest = rest.get(count..).filter(|_| count > 0).ok_or_else(|| anyhow!("the ESP is full"))?;
                }
                writer.finish().map_err(fault)?;
            } else {
                dir = match dir.open_dir(name) {
                    Ok(found) => found,
                    Err(_) => volume.create_dir(&dir, name).map_err(fault)?,
                };
            }
        }
    }
    volume.sync().map_err(fault)
}
