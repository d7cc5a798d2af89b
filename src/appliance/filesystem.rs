//! What lies on a disk or partition, for people who are about to overwrite it.
//!
//! Owns: `Found`. Called by: `install`. Never: believes what it reads further than to show it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Serialize;

/// Letters of a label, at most.
const LABEL_CHARS_MAX: usize = 64;

/// A filesystem, or what else a signature says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Found {
    pub kind: &'static str,
    pub label: String,
}

/// What is known by octets at a place, and where its label is (with its length).
struct Mark {
    kind: &'static str,
    at: u64,
    octets: &'static [u8],
    label: Option<(u64, usize)>,
}

const fn mark(kind: &'static str, at: u64, octets: &'static [u8], label: Option<(u64, usize)>) -> Mark {
    Mark { kind, at, octets, label }
}

/// Looked for in this order.
const MARKS: [Mark; 16] = [
    mark("LUKS", 0, b"LUKS\xba\xbe", None),
    mark("XFS", 0, b"XFSB", Some((108, 12))),
    mark("LVM", 536, b"LVM2 001", None),
    mark("LVM", 24, b"LVM2 001", None),
    mark("RAID", 4096, b"\xfc\x4e\x2b\xa9", Some((4128, 32))),
    mark("ext4", 1080, b"\x53\xef", Some((1144, 16))),
    mark("Btrfs", 65_600, b"_BHRfS_M", Some((65_835, 64))),
    mark("swap", 4086, b"SWAPSPACE2", Some((1052, 16))),
    mark("ISO 9660", 32_769, b"CD001", Some((32_808, 32))),
    mark("NTFS", 3, b"NTFS    ", None),
    mark("exFAT", 3, b"EXFAT   ", None),
    mark("FAT32", 82, b"FAT32   ", Some((71, 11))),
    mark("FAT16", 54, b"FAT16   ", Some((43, 11))),
    mark("FAT12", 54, b"FAT12   ", Some((43, 11))),
    mark("BitLocker", 3, b"-FVE-FS-", None),
    mark("ZFS", 0x4010, b"version", None),
];

/// What lies at the beginning of this device or file.
#[must_use]
pub fn look(device: &Path) -> Option<Found> {
    let file = File::open(device).ok()?;
    let read = |at: u64, len: usize| {
        let mut octets = vec![0; len];
        file.read_exact_at(&mut octets, at).ok().map(|()| octets)
    };
    let is_there = |mark: &&Mark| read(mark.at, mark.octets.len()).is_some_and(|octets| octets == mark.octets);
    let mark = MARKS.iter().find(is_there)?;
    let label = mark.label.and_then(|(at, len)| read(at, len)).unwrap_or_default();
    let label = label.split(|octet| *octet == 0).next().unwrap_or_default();
    Some(Found { kind: mark.kind, label: printable(&String::from_utf8_lossy(label)) })
}

/// What comes from a disk must not steer the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let shown = text.trim().chars().take(LABEL_CHARS_MAX);
    shown.map(|c| if c.is_control() { '?' } else { c }).collect()
}
