//! The disk that this machine was booted from, by what is on it; never by its name, which changes with the order of cables.
//!
//! Owns: finding the partition with `fife.toml` (ESP) and the one with the data. Called by: boot; `disks`, for what else there is. Never: writes.
//!
//! Both lie on one disk. Which disk, when several carry fife (a stick in an installed server): the loader says from which partition it
//! read (`LoaderDevicePartUUID` of systemd-boot, the kernel argument `fife.esp=` of GRUB); without that the only one.
//! Spec: UEFI 2.10 section 5.3 (GPT); the Boot Loader Interface for the variable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gpt::partition_types;

use crate::appliance::superblock::Superblock;

const BLOCK_DEVICES: &str = "/sys/class/block";
const LOADER_VARIABLE: &str = "/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Octets of attributes before a firmware variable's value.
const ATTRIBUTES_LEN: usize = 4;
const ESP_LABEL: &str = "FIFE-ESP";
const DATA_LABEL: &str = "fife-data";

/// The disk with the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SystemDisk {
    /// The whole disk, `/dev/vda`.
    pub(super) disk: PathBuf,
    /// The partition with `fife.toml`; none when the disk has lost it.
    pub(super) esp: Option<PathBuf>,
    pub(super) data: Option<Data>,
}

/// The data partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) device: PathBuf,
    /// Its number in the partition table.
    pub(super) number: u32,
}

/// A partition, as far as finding it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Partition {
    number: u32,
    device: PathBuf,
    /// In the form that the loader uses, small letters.
    guid: String,
    is_esp: bool,
    /// In the partition table.
    name: String,
    /// In its file system.
    label: String,
}

/// A disk with a partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    device: PathBuf,
    partitions: Vec<Partition>,
}

/// Looks at every disk that is there now. None: the disk that the loader read from, or any of ours, is not there (yet).
pub(super) fn find(kernel_arguments: &str) -> Option<SystemDisk> {
    choose(&disks(), loaded_from(kernel_arguments).as_deref())
}

/// The disks that are there, for people: name, and label or size of what is on them.
pub(super) fn seen() -> String {
    let names: Vec<String> = disks().iter().map(|disk| disk.device.display().to_string()).collect();
    if names.is_empty() { "no disk with partitions".to_owned() } else { names.join(", ") }
}

/// Every partition of a GPT, and its GUID in small letters.
pub(super) fn guids() -> Vec<(PathBuf, String)> {
    disks().into_iter().flat_map(|disk| disk.partitions).map(|one| (one.device, one.guid)).collect()
}

/// Every disk and partition on which something can lie.
pub(super) fn block_devices() -> Vec<PathBuf> {
    let entries = fs::read_dir(BLOCK_DEVICES).into_iter().flatten().flatten();
    let is_there = |dir: &PathBuf| fs::read_to_string(dir.join("size")).is_ok_and(|size| size.trim() != "0");
    entries.map(|entry| entry.path()).filter(is_there).map(|dir| device_of(&dir)).collect()
}

/// The GPT identity of the partition that the loader read the kernel from.
fn loaded_from(kernel_arguments: &str) -> Option<String> {
    let argument =
        kernel_arguments.split_ascii_whitespace().filter_map(|word| word.strip_prefix("fife.esp=")).next_back();
    let argument = argument.filter(|value| !value.is_empty()).map(str::to_ascii_lowercase);
    argument.or_else(|| loader_variable(&fs::read(LOADER_VARIABLE).ok()?))
}

/// The value of a firmware variable that holds text in UTF-16.
fn loader_variable(variable: &[u8]) -> Option<String> {
    let (units, _) = variable.get(ATTRIBUTES_LEN..)?.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
    (!text.is_empty()).then(|| text.to_ascii_lowercase())
}

fn choose(disks: &[Disk], loaded_from: Option<&str>) -> Option<SystemDisk> {
    let is_ours = |disk: &&Disk| disk.partitions.iter().any(|one| one.is_our_esp() || one.is_our_data());
    let disk = match loaded_from {
        Some(guid) => disks.iter().find(|disk| disk.partitions.iter().any(|one| one.guid == guid)),
        None => disks.iter().find(is_ours),
    }?;
    let of_loader = |one: &&Partition| Some(one.guid.as_str()) == loaded_from;
    let esp = disk.partitions.iter().find(of_loader);
    // One whose file system is garbage has lost its label, and is still where the table says.
    let esp = esp.or_else(|| disk.partitions.iter().find(|one| one.is_our_esp()));
    let esp = esp.or_else(|| disk.partitions.iter().find(|one| one.is_esp));
    let data = disk.partitions.iter().find(|one| one.is_our_data());
    Some(SystemDisk {
        disk: disk.device.clone(),
        esp: esp.map(|one| one.device.clone()),
        data: data.map(|one| Data { device: one.device.clone(), number: one.number }),
    })
}

impl Partition {
    fn is_our_esp(&self) -> bool {
        self.is_esp && (self.label == ESP_LABEL || self.name.eq_ignore_ascii_case(ESP_LABEL))
    }

    fn is_our_data(&self) -> bool {
        !self.is_esp && (self.label == DATA_LABEL || self.name.eq_ignore_ascii_case(DATA_LABEL))
    }
}

fn disks() -> Vec<Disk> {
    // Disk, number and device of each partition that the kernel sees.
    let mut found: BTreeMap<PathBuf, Vec<(u32, PathBuf)>> = BTreeMap::new();
    for entry in fs::read_dir(BLOCK_DEVICES).into_iter().flatten().flatten() {
        let number = fs::read_to_string(entry.path().join("partition")).ok().and_then(|text| text.trim().parse().ok());
        let parent = fs::canonicalize(entry.path()).ok().and_then(|path| path.parent().map(Path::to_owned));
        if let (Some(number), Some(parent)) = (number, parent) {
            found.entry(device_of(&parent)).or_default().push((number, device_of(&entry.path())));
        }
    }
    found.into_iter().filter_map(|(device, partitions)| read_disk(device, &partitions)).collect()
}

/// The device file of what sysfs shows here. A `!` in the name there stands for a `/`.
fn device_of(shown: &Path) -> PathBuf {
    let name = shown.file_name().unwrap_or_default().to_string_lossy().replace('!', "/");
    Path::new("/dev").join(name)
}

/// The disk's table; none when it has no good one.
fn read_disk(device: PathBuf, seen: &[(u32, PathBuf)]) -> Option<Disk> {
    let table = gpt::GptConfig::new().writable(false).only_valid_headers(false).open(&device).ok()?;
    let one = |(number, device): &(u32, PathBuf)| {
        let entry = table.partitions().get(number)?;
        Some(Partition {
            number: *number,
            device: device.clone(),
            guid: entry.part_guid.to_string().to_ascii_lowercase(),
            is_esp: entry.part_type_guid == partition_types::EFI,
            name: entry.name.clone(),
            label: Superblock::read(device).ok().flatten().map(|found| found.label).unwrap_or_default(),
        })
    };
    Some(Disk { partitions: seen.iter().filter_map(one).collect(), device })
}

#[cfg(test)]
mod tests {
    use super::{Data, Disk, Partition, choose, loaded_from, loader_variable};
    use std::path::PathBuf;

    fn disk(name: &str, esp: &str, data: &str) -> Disk {
        let partition = |number: u32, is_esp: bool, label: &str| Partition {
            number,
            device: PathBuf::from(format!("/dev/{name}{number}")),
            guid: format!("{name}-{number}"),
            is_esp,
            name: String::new(),
            label: label.to_owned(),
        };
        let partitions = vec![partition(1, false, ""), partition(2, true, esp), partition(3, false, data)];
        Disk { device: PathBuf::from(format!("/dev/{name}")), partitions }
    }

    #[test]
    fn the_disk_is_the_one_that_the_loader_read_from() {
        let check = |disks: &[Disk], hint: Option<&str>, expected: Option<(&str, &str, Option<&str>)>| {
            let found = choose(disks, hint);
            let text = |path: &std::path::Path| path.display().to_string();
            let found = found.map(|found| {
                (text(&found.disk), text(&found.esp.unwrap()), found.data.map(|Data { device, .. }| text(&device)))
            });
            let expected = expected.map(|(disk, esp, data)| (disk.into(), esp.into(), data.map(str::to_owned)));
            assert_eq!(found, expected);
        };
        let (other, stick, server) =
            (disk("sda", "", ""), disk("sdb", "FIFE-ESP", "fife-data"), disk("sdc", "FIFE-ESP", "fife-data"));
        let all = [other.clone(), stick, server];
        check(&all, Some("sdc-2"), Some(("/dev/sdc", "/dev/sdc2", Some("/dev/sdc3"))));
        check(&all, None, Some(("/dev/sdb", "/dev/sdb2", Some("/dev/sdb3"))));
        // The stick is still being found: the other disk is not taken in its place.
        check(&all, Some("sdd-2"), None);
        check(&[other], None, None);
        // Garbage where fife.toml was: the table still says where it is.
        check(&[disk("vda", "", "fife-data")], None, Some(("/dev/vda", "/dev/vda2", Some("/dev/vda3"))));
        check(&[disk("vda", "FIFE-ESP", "")], None, Some(("/dev/vda", "/dev/vda2", None)));
    }

    #[test]
    fn the_loader_names_its_partition_in_either_firmware() {
        assert_eq!(loaded_from("quiet fife.esp=AB-CD x").as_deref(), Some("ab-cd"));
        let check = |value: &[u8], expected: Option<&str>| assert_eq!(loader_variable(value).as_deref(), expected);
        check(b"\x06\0\0\0A\0-\x001\0\0\0", Some("a-1"));
        check(b"\x06\0\0\0", None);
        check(b"\x06", None);
        // Half a character.
        check(b"\x06\0\0\0\x00\xd8\0\0", None);
    }
}
