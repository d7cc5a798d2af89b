//! The disk that is installed to: what is on it, and whether it may be overwritten.
//!
//! Owns: `Target`, and who refuses. Called by: `install`, `fife install`. Never: writes.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use serde::Serialize;

use super::super::block::{SECTOR, device_of, read_number};
use super::super::filesystem::{Found, look, printable};

const SYS_DEV_BLOCK: &str = "/sys/dev/block";
/// The number of a SCSI disk among SCSI devices (SPC-4 table 61); others are tapes, changers, CD-ROM drives.
const SCSI_DISK: u64 = 0;

/// Why a disk is not overwritten.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{}: {source}", path.display())]
    Unknown { path: PathBuf, source: io::Error },
    #[error("{} is no disk: {why}", path.display())]
    NoDisk { path: PathBuf, why: &'static str },
    #[error("{} is the disk that this system runs from", .0.display())]
    Running(PathBuf),
    #[error("{} is in use: {by}", path.display())]
    InUse { path: PathBuf, by: String },
    #[error("{} has {octets} octets: at least {needed} are needed", path.display())]
    TooSmall { path: PathBuf, octets: u64, needed: u64 },
    #[error("{} has sectors of {octets} octets: fife runs from disks with sectors of {SECTOR} octets", path.display())]
    Sectors { path: PathBuf, octets: u64 },
}

/// A disk, for people who are about to overwrite it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    pub device: PathBuf,
    pub octets: u64,
    pub model: String,
    pub serial: String,
    /// What lies on the disk as a whole.
    pub found: Option<Found>,
    pub partitions: Vec<Part>,
    #[serde(skip)]
    pub(super) sys: PathBuf,
}

/// One of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Part {
    pub device: PathBuf,
    pub number: u64,
    pub octets: u64,
    pub found: Option<Found>,
    #[serde(skip)]
    numbers: String,
}

impl Target {
    /// Looks at a disk.
    ///
    /// # Errors
    /// What `device` names is no disk.
    pub fn look(device: &Path) -> Result<Self, Refusal> {
        let unknown = |source| Refusal::Unknown { path: device.to_owned(), source };
        let no_disk = |why| Refusal::NoDisk { path: device.to_owned(), why };
        let metadata = fs::metadata(device).map_err(unknown)?;
        if !metadata.file_type().is_block_device() {
            return Err(no_disk("no block device"));
        }
        let link = Path::new(SYS_DEV_BLOCK).join(numbers_of(metadata.rdev()));
        Self::from_sys(device, &fs::canonicalize(link).map_err(unknown)?)
    }

    /// The disk with this directory below /sys.
    pub(super) fn from_sys(device: &Path, sys: &Path) -> Result<Self, Refusal> {
        let unknown = |source| Refusal::Unknown { path: device.to_owned(), source };
        let no_disk = |why| Refusal::NoDisk { path: device.to_owned(), why };
        if sys.join("partition").exists() {
            return Err(no_disk("a partition; name the whole disk"));
        }
        if !sys.join("device").exists() {
            return Err(no_disk("it is made of others (loop, RAID, LVM) or of memory"));
        }
        if read_number(&sys.join("device/type")).is_ok_and(|kind| kind != SCSI_DISK) {
            return Err(no_disk("a tape, changer or CD-ROM drive"));
        }
        if read_number(&sys.join("ro")).is_ok_and(|read_only| read_only != 0) {
            return Err(no_disk("it cannot be written to"));
        }
        let octets = read_number(&sys.join("size")).map_err(unknown)?.saturating_mul(SECTOR);
        let sectors = read_number(&sys.join("queue/logical_block_size")).map_err(unknown)?;
        if sectors != SECTOR {
            return Err(Refusal::Sectors { path: device.to_owned(), octets: sectors });
        }
        let fact = |names: &[&str]| {
            let read = |name: &&str| fs::read_to_string(sys.join(name)).ok().map(|text| printable(&text));
            names.iter().find_map(read).unwrap_or_default()
        };
        let mut partitions: Vec<Part> = parts(sys).map_err(unknown)?;
        partitions.sort_by_key(|part| part.number);
        Ok(Self {
            device: device.to_owned(),
            octets,
            model: fact(&["device/model", "device/name"]),
            serial: fact(&["device/serial", "serial", "device/vpd_pg80"]),
            found: look(device),
            partitions,
            sys: sys.to_owned(),
        })
    }

    /// Whether it may be overwritten.
    ///
    /// # Errors
    /// Why not.
    pub fn may_be_overwritten(&self, running: &Path, needed: u64) -> Result<(), Refusal> {
        let path = self.device.clone();
        let same = |one: &Path, other: &Path| fs::canonicalize(one).ok() == fs::canonicalize(other).ok();
        if same(&self.device, running) {
            return Err(Refusal::Running(path));
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        if let Some(by) = self.used_by(&read("/proc/self/mountinfo"), &read("/proc/swaps")) {
            return Err(Refusal::InUse { path, by });
        }
        if self.octets < needed {
            return Err(Refusal::TooSmall { path, octets: self.octets, needed });
        }
        Ok(())
    }

    /// Who uses the disk or a part of it.
    pub(super) fn used_by(&self, mounts: &str, swaps: &str) -> Option<String> {
        let whole = fs::read_to_string(self.sys.join("dev")).unwrap_or_default();
        let all = self.partitions.iter().map(|part| (part.device.clone(), part.numbers.clone()));
        let all: Vec<(PathBuf, String)> = all.chain([(self.device.clone(), whole.trim().to_owned())]).collect();
        let mounted = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let (numbers, point) = (fields.next()?, fields.nth(1)?);
            let (device, _) = all.iter().find(|(_, of)| of == numbers)?;
            Some(format!("{} is mounted at {point}", device.display()))
        });
        let swapped = || {
            let used = swaps.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next());
            used.map(Path::new).find(|used| all.iter().any(|(device, _)| device == used))
        };
        let held = || {
            let dirs = [self.sys.clone()]
                .into_iter()
                .chain(all.iter().filter_map(|(device, _)| device.file_name().map(|name| self.sys.join(name))));
            let holders = dirs.filter_map(|dir| fs::read_dir(dir.join("holders")).ok()).flatten().flatten();
            holders.map(|entry| entry.file_name().to_string_lossy().into_owned()).next()
        };
        mounted
            .or_else(|| swapped().map(|device| format!("{} is swap space", device.display())))
            .or_else(|| held().map(|holder| format!("{holder} is made of it")))
    }
}

fn numbers_of(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

/// The partitions of a disk that the kernel knows.
fn parts(sys: &Path) -> io::Result<Vec<Part>> {
    let dirs = fs::read_dir(sys)?.flatten().map(|entry| entry.path());
    let part = |dir: PathBuf| {
        let number = read_number(&dir.join("partition")).ok()?;
        let device = device_of(&dir).ok()?;
        let numbers = fs::read_to_string(dir.join("dev")).ok()?.trim().to_owned();
        let octets = read_number(&dir.join("size")).ok()?.saturating_mul(SECTOR);
        Some(Part { found: look(&device), device, number, octets, numbers })
    };
    Ok(dirs.filter_map(part).collect())
}
