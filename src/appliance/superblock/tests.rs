//! Superblocks as the file systems' own programs write them, and garbage.

use super::{Condition, EXT_AT, EXT_MAGIC, HEAD_LEN, Superblock, System};
use std::fs;
use std::path::Path;
use std::process::Command;

fn run(program: &str, arguments: &[&str], file: &Path) -> String {
    let done = Command::new(program).args(arguments).arg(file).output().expect(program);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn make(program: &str, arguments: &[&str], file: &Path, mib: u64) {
    fs::File::create(file).unwrap().set_len(mib << 20).unwrap();
    run(program, arguments, file);
}

/// What blkid says of the same.
fn blkid(file: &Path, tag: &str) -> String {
    run("/sbin/blkid", &["-p", "-o", "value", "-s", tag], file).trim().to_lowercase()
}

fn check(file: &Path, label: &str, system: System) {
    let found = Superblock::read(file).unwrap().unwrap();
    assert_eq!((found.label.as_str(), found.system), (label, system));
    assert_eq!(found.uuid, blkid(file, "UUID"));
    assert_eq!(label.to_lowercase(), blkid(file, "LABEL"));
}

#[test]
fn an_ext4_is_read_as_mke2fs_and_debugfs_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    make("/sbin/mke2fs", &["-q", "-t", "ext4", "-b", "4096", "-L", "fife-data", "-E", "lazy_itable_init=1"], &file, 64);
    let ext = |condition: Condition| System::Ext { condition, blocks: 16384, block: 4096 };
    check(&file, "fife-data", ext(Condition::Clean));
    for (set, expected) in [
        ("set_super_value state 0", Condition::Dirty),
        ("set_super_value state 3", Condition::Errors),
        ("set_super_value state 1", Condition::Clean),
        ("feature +needs_recovery", Condition::Dirty),
    ] {
        run("/sbin/debugfs", &["-w", "-R", set], &file);
        check(&file, "fife-data", ext(expected));
    }
    // Without a label, with small blocks and numbers of 32 bits.
    make("/sbin/mke2fs", &["-q", "-t", "ext2", "-b", "1024"], &file, 8);
    check(&file, "", System::Ext { condition: Condition::Clean, blocks: 8192, block: 1024 });
    // The journal of a file system that lies elsewhere.
    make("/sbin/mke2fs", &["-q", "-O", "journal_dev", "-b", "4096", "-L", "journal"], &file, 8);
    assert_eq!(Superblock::read(&file).unwrap(), None);
}

#[test]
fn an_xfs_is_read_as_mkfs_xfs_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    make("/sbin/mkfs.xfs", &["-q", "-L", "archive 2026"], &file, 320);
    check(&file, "archive 2026", System::Xfs);
}

#[test]
fn a_fat_of_any_size_is_read_as_mkfs_vfat_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    for (bits, mib) in [("12", 2), ("16", 16), ("32", 64)] {
        make("/sbin/mkfs.vfat", &["-F", bits, "-s", "1", "-n", "FIFE-ESP"], &file, mib);
        check(&file, "FIFE-ESP", System::Fat);
        make("/sbin/mkfs.vfat", &["-F", bits, "-s", "1"], &file, mib);
        check(&file, "", System::Fat);
    }
    // As Windows does it: in the directory alone.
    run("mlabel", &["-N", "cafebabe", "::", "-i"], &file);
    run("mlabel", &["::Photos", "-i"], &file);
    check(&file, "PHOTOS", System::Fat);
    let mut octets = fs::read(&file).unwrap();
    octets[0x47..0x47 + 11].copy_from_slice(b"NO NAME    ");
    fs::write(&file, octets).unwrap();
    check(&file, "PHOTOS", System::Fat);
}

#[test]
fn garbage_is_no_file_system() {
    assert_eq!(Superblock::parse(&[]), None);
    assert_eq!(Superblock::parse(&[0xff; HEAD_LEN]), None);
    // Too short for what its magic promises: nothing is read beyond.
    let mut head = vec![0; EXT_AT + 0x3a];
    head[EXT_AT + 0x38..].copy_from_slice(&EXT_MAGIC);
    let system = System::Ext { condition: Condition::Dirty, blocks: 0, block: 1024 };
    assert_eq!(Superblock::parse(&head).unwrap().system, system);
    // A FAT whose numbers lead anywhere.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    let mut head = vec![0xff; HEAD_LEN];
    head[510..512].copy_from_slice(&[0x55, 0xaa]);
    head[0x16..0x18].fill(0);
    head[0x52..0x5a].copy_from_slice(b"FAT32   ");
    fs::write(&file, &head).unwrap();
    assert_eq!(Superblock::read(&file).unwrap().unwrap().system, System::Fat);
    fs::write(&file, [0; 100]).unwrap();
    assert!(Superblock::read(&file).is_err());
}
