//! What stands at the beginning of a partition: its label, and whether its file system was left in order.
//!
//! Owns: reading of an ext4 superblock and a FAT boot sector. Called by: `partitions`, `data`. Never: writes; trusts a number it reads.
//! Spec: the kernel's Documentation/filesystems/ext4/super.rst; Microsoft's FAT specification 1.03, "Boot sector and BPB".

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Octets that hold both: the ext4 superblock begins at 1024 and its label ends before 2048.
const HEAD_LEN: usize = 2048;
const EXT_AT: usize = 1024;
const EXT_MAGIC: [u8; 2] = [0x53, 0xef];
/// `s_state`: unmounted in order; errors were seen.
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
/// `s_feature_incompat`: the journal holds what is not in its place yet.
const INCOMPAT_RECOVER: u32 = 4;

/// A file system, as far as its first octets tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Superblock {
    Ext { label: String, condition: Condition },
    Fat { label: String },
    Unknown,
}

/// How an ext4 was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Clean,
    /// The machine stopped while it was mounted: the journal is to be replayed.
    Dirty,
    /// The kernel has seen errors in it.
    Errors,
}

impl Superblock {
    /// Of this block device.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(device: &Path) -> io::Result<Self> {
        let mut head = [0; HEAD_LEN];
        File::open(device)?.read_exact_at(&mut head, 0)?;
        Ok(Self::parse(&head))
    }

    fn parse(head: &[u8]) -> Self {
        if bytes(head, EXT_AT + 0x38) == Some(EXT_MAGIC) {
            let state = bytes(head, EXT_AT + 0x3a).map_or(0, u16::from_le_bytes);
            let incompat = bytes(head, EXT_AT + 0x60).map_or(0, u32::from_le_bytes);
            let condition = if state & STATE_ERROR != 0 {
                Condition::Errors
            } else if state & STATE_VALID == 0 || incompat & INCOMPAT_RECOVER != 0 {
                Condition::Dirty
            } else {
                Condition::Clean
            };
            let label = text(&bytes::<16>(head, EXT_AT + 0x78).unwrap_or_default());
            return Self::Ext { label, condition };
        }
        let is_fat = bytes(head, 510) == Some([0x55, 0xaa]) && bytes(head, 0x52) == Some(*b"FAT32   ");
        if is_fat {
            return Self::Fat { label: text(&bytes::<11>(head, 0x47).unwrap_or_default()) };
        }
        Self::Unknown
    }

    pub(super) fn label(&self) -> &str {
        match self {
            Self::Ext { label, .. } | Self::Fat { label } => label,
            Self::Unknown => "",
        }
    }
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..)?.first_chunk().copied()
}

/// A label: ended by NUL (ext4) or filled with spaces (FAT).
fn text(label: &[u8]) -> String {
    let end = label.iter().position(|byte| *byte == 0).unwrap_or(label.len());
    String::from_utf8_lossy(label.get(..end).unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Condition, HEAD_LEN, Superblock};
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    fn make(program: &str, arguments: &[&str], file: &Path) {
        fs::File::create(file).unwrap().set_len(64 << 20).unwrap();
        let done = Command::new(program).args(arguments).arg(file).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    #[test]
    fn labels_and_conditions_are_read_as_mke2fs_and_mkfs_vfat_write_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        make("/sbin/mke2fs", &["-q", "-t", "ext4", "-L", "fife-data", "-E", "lazy_itable_init=1"], &file);
        let check = |file: &Path, expected: Condition| {
            let expected = Superblock::Ext { label: "fife-data".into(), condition: expected };
            assert_eq!(Superblock::read(file).unwrap(), expected);
        };
        check(&file, Condition::Clean);
        for (set, expected) in [
            ("state 0", Condition::Dirty),
            ("state 3", Condition::Errors),
            ("feature +needs_recovery", Condition::Errors),
        ] {
            let words = if set.starts_with("feature") { set.to_owned() } else { format!("set_super_value {set}") };
            let done = Command::new("/sbin/debugfs").args(["-w", "-R", &words]).arg(&file).output().unwrap();
            assert!(done.status.success(), "{done:?}");
            check(&file, expected);
        }
        make("/sbin/mkfs.vfat", &["-F", "32", "-s", "1", "-n", "FIFE-ESP"], &file);
        assert_eq!(Superblock::read(&file).unwrap(), Superblock::Fat { label: "FIFE-ESP".into() });
    }

    #[test]
    fn garbage_is_no_file_system() {
        assert_eq!(Superblock::parse(&[]), Superblock::Unknown);
        assert_eq!(Superblock::parse(&[0xff; HEAD_LEN]), Superblock::Unknown);
        // Too short for what its magic promises: nothing is read beyond.
        let mut head = vec![0; 1082];
        head[1080..].copy_from_slice(&super::EXT_MAGIC);
        assert_eq!(Superblock::parse(&head), Superblock::Ext { label: String::new(), condition: Condition::Dirty });
    }
}
