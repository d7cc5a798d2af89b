//! What stands at the beginning of a file system: which one it is, its label and UUID, whether it was left in order, its size.
//!
//! Owns: reading of ext4 and XFS superblocks and of FAT's boot sector and volume label. Called by: `disk`; boot, which finds disks by
//! what is on them. Never: writes; trusts a number it reads. (`filesystem` knows more signatures, for people about to overwrite them.)
//! Spec: the kernel's Documentation/filesystems/ext4/super.rst; "XFS Algorithms & Data Structures", section "Superblocks"; Microsoft's
//! FAT specification 1.03, "Boot sector and BPB" and "Volume directory entry".

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Octets that hold all of these: the ext4 superblock lies at 1024.
const HEAD_LEN: usize = 2048;
const EXT_AT: usize = 1024;
const EXT_MAGIC: [u8; 2] = [0x53, 0xef];
/// `s_state`: unmounted in order; errors were seen.
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
/// `s_feature_incompat`: the journal holds what is not in its place yet; this is no file system but the journal of another one.
const INCOMPAT_RECOVER: u32 = 4;
const INCOMPAT_JOURNAL_DEV: u32 = 8;
/// `s_feature_incompat`: numbers of blocks have 64 bits.
const INCOMPAT_64BIT: u32 = 0x80;
/// `s_log_block_size`: 64 KiB.
const LOG_BLOCK_SIZE_MAX: u32 = 6;
/// An entry of a FAT directory, and what marks the one that is the volume's label.
const FAT_ENTRY_LEN: usize = 32;
const FAT_ATTRIBUTES: u8 = 0x3f;
const FAT_VOLUME_ID: u8 = 0x08;
const FAT_DELETED: u8 = 0xe5;
/// Octets of a FAT's first directory in which the label is looked for: formatting puts it first.
const FAT_ROOT_LEN_MAX: usize = 4096;
/// What stands in a boot sector in place of a label that is in the directory, or nowhere.
const FAT_NO_NAME: &str = "NO NAME";

/// A file system, as far as its first octets tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    pub system: System,
    /// Empty where it has none.
    pub label: String,
    /// In small letters, as blkid(8) writes it otherwise.
    pub uuid: String,
}

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// ext4, or ext2 and ext3, which the kernel reads as that.
    Ext {
        condition: Condition,
        blocks: u64,
        /// Octets of a block.
        block: u64,
    },
    Xfs,
    Fat,
}

/// How an ext4 was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Clean,
    /// The machine stopped while it was mounted: the journal is to be replayed.
    Dirty,
    /// The kernel has seen errors in it.
    Errors,
}

impl Superblock {
    /// Of this block device, or file that holds one; none where no file system is known.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(device: &Path) -> io::Result<Option<Self>> {
        let file = File::open(device)?;
        let mut head = [0; HEAD_LEN];
        file.read_exact_at(&mut head, 0)?;
        let Some(mut found) = Self::parse(&head) else { return Ok(None) };
        if let (System::Fat, Some(at)) = (found.system, fat_root(&head)) {
            let mut root = [0; FAT_ROOT_LEN_MAX];
            // Where the boot sector is wrong about it, what it says itself must do.
            if let Some(label) = file.read_exact_at(&mut root, at).ok().and_then(|()| fat_label(&root)) {
                found.label = label;
            }
        }
        Ok(Some(found))
    }

    fn parse(head: &[u8]) -> Option<Self> {
        ext(head).or_else(|| xfs(head)).or_else(|| fat(head))
    }
}

fn ext(head: &[u8]) -> Option<Superblock> {
    let head = head.get(EXT_AT..)?;
    let incompat = number(head, 0x60);
    let log_block_size = number(head, 0x18);
    let is_ext = bytes(head, 0x38) == Some(EXT_MAGIC)
        && incompat & INCOMPAT_JOURNAL_DEV == 0
        && log_block_size <= LOG_BLOCK_SIZE_MAX;
    is_ext.then(|| {
        let state = bytes(head, 0x3a).map_or(0, u16::from_le_bytes);
        let condition = if state & STATE_ERROR != 0 {
            Condition::Errors
        } else if state & STATE_VALID == 0 || incompat & INCOMPAT_RECOVER != 0 {
            Condition::Dirty
        } else {
            Condition::Clean
        };
        let high = if incompat & INCOMPAT_64BIT == 0 { 0 } else { number(head, 0x150) };
        let blocks = u64::from(high) << 32 | u64::from(number(head, 0x4));
        Superblock {
            system: System::Ext { condition, blocks, block: 1024 << log_block_size },
            label: text(&bytes::<16>(head, 0x78).unwrap_or_default()),
            uuid: uuid(&bytes(head, 0x68).unwrap_or_default()),
        }
    })
}

fn xfs(head: &[u8]) -> Option<Superblock> {
    (bytes(head, 0)? == *b"XFSB").then(|| Superblock {
        system: System::Xfs,
        label: text(&bytes::<12>(head, 108).unwrap_or_default()),
        uuid: uuid(&bytes(head, 32).unwrap_or_default()),
    })
}

fn fat(head: &[u8]) -> Option<Superblock> {
    let (label, serial) = match () {
        _ if bytes(head, 510)? != [0x55, 0xaa] => return None,
        () if bytes(head, 0x52)? == *b"FAT32   " => (0x47, 0x43),
        () if [*b"FAT16   ", *b"FAT12   "].contains(&bytes(head, 0x36)?) => (0x2b, 0x27),
        () => return None,
    };
    let label = text(&bytes::<11>(head, label).unwrap_or_default());
    let serial = number(head, serial);
    Some(Superblock {
        system: System::Fat,
        label: if label == FAT_NO_NAME { String::new() } else { label },
        uuid: format!("{:04x}-{:04x}", serial >> 16, serial & 0xffff),
    })
}

/// Where the first directory of a FAT begins, in octets.
fn fat_root(head: &[u8]) -> Option<u64> {
    let short = |at: usize| bytes(head, at).map_or(0, u16::from_le_bytes);
    let octet = |at: usize| head.get(at).copied().map_or(0, u64::from);
    let (sector, reserved, fats) = (u64::from(short(0x0b)), u64::from(short(0x0e)), octet(0x10));
    let table = match short(0x16) {
        0 => number(head, 0x24).into(),
        sectors => u64::from(sectors),
    };
    let behind_tables = fats.checked_mul(table)?.checked_add(reserved)?;
    // Of FAT32 it is a file like others, and named by its first cluster; these are counted from 2.
    let cluster = if short(0x16) == 0 { u64::from(number(head, 0x2c)).checked_sub(2)? } else { 0 };
    cluster.checked_mul(octet(0x0d))?.checked_add(behind_tables)?.checked_mul(sector)
}

/// The label among the entries of a FAT's first directory.
fn fat_label(root: &[u8]) -> Option<String> {
    let is_label = |entry: &&[u8; FAT_ENTRY_LEN]| {
        entry.first() != Some(&FAT_DELETED) && entry.get(11).is_some_and(|kind| kind & FAT_ATTRIBUTES == FAT_VOLUME_ID)
    };
    let entry = root.as_chunks().0.iter().find(is_label)?;
    Some(text(entry.get(..11)?))
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..)?.first_chunk().copied()
}

fn number(head: &[u8], at: usize) -> u32 {
    bytes(head, at).map_or(0, u32::from_le_bytes)
}

/// A label: ended by NUL (ext4, XFS) or filled with spaces (FAT).
fn text(label: &[u8]) -> String {
    let end = label.iter().position(|byte| *byte == 0).unwrap_or(label.len());
    String::from_utf8_lossy(label.get(..end).unwrap_or_default()).trim_end().to_owned()
}

/// As RFC 9562 section 4 writes it.
fn uuid(octets: &[u8; 16]) -> String {
    let mut text = hex::encode(octets);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}
