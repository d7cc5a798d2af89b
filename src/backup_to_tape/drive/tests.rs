//! What every kind of drive must do, tried on a directory of volumes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::base::size::Size;

const BLOCK: usize = BLOCK_BYTES_MIN;

fn address(dir: &Path, blocks: Option<u64>) -> Address {
    let capacity = blocks.map(|blocks| Size::bytes(blocks * 4096));
    Address::File { dir: dir.to_owned(), capacity }
}

fn open(dir: &Path, access: Access) -> Drive {
    Drive::open(&address(dir, None), access, BLOCK).unwrap()
}

/// A directory with a blank volume in the drive.
fn blank() -> (tempfile::TempDir, Drive) {
    let dir = tempfile::tempdir().unwrap();
    let mut drive = open(dir.path(), Access::Write);
    drive.insert_blank("V1").unwrap();
    (dir, drive)
}

fn block(letter: u8) -> Vec<u8> {
    vec![letter; BLOCK]
}

/// Writes a letter as a block of that letter, and "|" as a file mark.
fn write(drive: &mut Drive, script: &str) {
    for letter in script.bytes() {
        match letter {
            b'|' => drive.write_marks(1).unwrap(),
            letter => assert_eq!(drive.write_block(&block(letter)).unwrap(), Written::Done),
        }
    }
}

/// Reads from here to the end of data, in the same letters; "." is the end, "<" a short block.
fn read(drive: &mut Drive) -> String {
    let mut said = String::new();
    let mut buffer = vec![0; BLOCK];
    loop {
        match drive.read_block(&mut buffer).unwrap() {
            Reading::Block(len) if len < BLOCK => said.push('<'),
            Reading::Block(_) => {
                assert!(buffer.iter().all(|octet| *octet == buffer[0]));
                said.push(char::from(buffer[0]));
            }
            Reading::Mark => said.push('|'),
            Reading::EndOfData => return said + ".",
        }
    }
}

fn place(drive: &mut Drive) -> (u32, u32) {
    let status = drive.status().unwrap();
    (status.file.unwrap(), status.block.unwrap())
}

#[test]
fn what_is_written_is_read_back_with_its_marks() {
    for script in ["", "a", "|", "a|", "ab|c|", "a|bcd||", "||a||b|"] {
        let (_dir, mut drive) = blank();
        write(&mut drive, script);
        drive.rewind().unwrap();
        let unmarked = !script.is_empty() && !script.ends_with('|');
        let expected = if unmarked { format!("{script}|.") } else { format!("{script}.") };
        assert_eq!(read(&mut drive), expected, "{script:?}");
    }
}

#[test]
fn any_place_up_to_the_end_of_data_is_found() {
    let (_dir, mut drive) = blank();
    write(&mut drive, "ab|cde|f||");
    for (file, block, rest) in
        [(0, 0, "ab|cde|f||."), (0, 1, "b|cde|f||."), (0, 2, "|cde|f||."), (1, 2, "e|f||."), (3, 0, "|."), (4, 0, ".")]
    {
        drive.seek(file, block).unwrap();
        assert_eq!(place(&mut drive), (file, block));
        assert_eq!(read(&mut drive), rest, "{file} {block}");
    }
    for (file, block) in [(0, 3), (1, 4), (4, 1), (5, 0)] {
        assert!(matches!(drive.seek(file, block), Err(DriveError::PastEnd(_))), "{file} {block}");
    }
    drive.rewind().unwrap();
    assert!(!drive.status().unwrap().at_end_of_data);
    drive.to_end_of_data().unwrap();
    assert_eq!(place(&mut drive), (4, 0));
    assert!(drive.status().unwrap().at_end_of_data);
}

#[test]
fn writing_in_the_middle_loses_what_is_behind() {
    for (file, block, script, expected) in [
        (3, 0, "g|", "ab|cde|f|g|."),
        (2, 0, "g|", "ab|cde|g|."),
        (1, 1, "g|", "ab|cg|."),
        (1, 3, "|", "ab|cde|."),
        (0, 0, "x|", "x|."),
    ] {
        let (_dir, mut drive) = blank();
        write(&mut drive, "ab|cde|f||");
        drive.seek(file, block).unwrap();
        write(&mut drive, script);
        assert!(drive.status().unwrap().at_end_of_data);
        drive.rewind().unwrap();
        assert_eq!(read(&mut drive), expected, "{file} {block} {script}");
    }
}

#[test]
fn a_volume_is_plain_files() {
    let (dir, mut drive) = blank();
    write(&mut drive, "a|bc|");
    let read = |name: &str| fs::read(dir.path().join("loaded").join(name)).unwrap();
    assert_eq!(read("000000"), block(b'a'));
    assert_eq!(read("000001"), [block(b'b'), block(b'c')].concat());
    assert_eq!(read("000002"), b"");
    assert_eq!(read("block-bytes"), b"4096\n");
}

#[test]
fn a_torn_tail_is_the_end_of_data_and_is_written_over() {
    let (dir, mut drive) = blank();
    write(&mut drive, "a|bc");
    // As a power cut leaves it: no file mark, and a block that is not whole.
    let file = dir.path().join("V1/000001");
    std::mem::forget(drive);
    let octets = [block(b'b'), block(b'c')[..100].to_vec()].concat();
    fs::write(&file, octets).unwrap();
    let again = tempfile::tempdir().unwrap();
    let moved = again.path().join("V1");
    fs::rename(dir.path().join("V1"), moved).unwrap();
    let mut drive = open(again.path(), Access::Write);
    drive.insert("V1").unwrap();
    assert_eq!(read(&mut drive), "a|b.");
    drive.to_end_of_data().unwrap();
    assert_eq!(place(&mut drive), (1, 1));
    write(&mut drive, "d|");
    drive.rewind().unwrap();
    assert_eq!(read(&mut drive), "a|bd|.");
}

#[test]
fn what_lies_behind_a_gap_does_not_come_back() {
    let (dir, mut drive) = blank();
    write(&mut drive, "a|b|c|");
    drive.eject().unwrap();
    // As a crash can leave it between the removal of files and the write.
    fs::remove_file(dir.path().join("V1/000001")).unwrap();
    drive.insert("V1").unwrap();
    assert_eq!(read(&mut drive), "a.");
    drive.to_end_of_data().unwrap();
    write(&mut drive, "|x|");
    drive.rewind().unwrap();
    assert_eq!(read(&mut drive), "a|x|.");
}

#[test]
fn the_end_is_said_to_be_near_before_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut drive = Drive::open(&address(dir.path(), Some(16)), Access::Write, BLOCK).unwrap();
    drive.insert_blank("V1").unwrap();
    for number in 0..16 {
        let expected = if number < 14 { Written::Done } else { Written::EarlyWarning };
        assert_eq!(drive.write_block(&block(b'a')).unwrap(), expected, "{number}");
    }
    assert!(drive.status().unwrap().at_early_warning);
    assert!(matches!(drive.write_block(&block(b'a')), Err(DriveError::Full(Place { file: 0, block: 16 }))));
    drive.write_marks(1).unwrap();
    drive.rewind().unwrap();
    assert_eq!(read(&mut drive), "a".repeat(16) + "|.");
}

#[test]
fn a_volume_that_must_not_be_written_is_not() {
    let (dir, mut drive) = blank();
    write(&mut drive, "a|");
    drive.rewind().unwrap();
    fs::set_permissions(dir.path().join("V1"), fs::Permissions::from_mode(0o555)).unwrap();
    assert!(drive.status().unwrap().write_protected);
    assert!(matches!(drive.write_block(&block(b'b')), Err(DriveError::WriteProtected)));
    assert!(matches!(drive.write_marks(1), Err(DriveError::WriteProtected)));
    fs::set_permissions(dir.path().join("V1"), fs::Permissions::from_mode(0o755)).unwrap();
    drop(drive);
    let mut drive = open(dir.path(), Access::Read);
    assert!(matches!(drive.write_block(&block(b'b')), Err(DriveError::ReadOnly)));
    assert!(matches!(drive.insert_blank("V2"), Err(DriveError::ReadOnly)));
    assert_eq!(read(&mut drive), "a|.");
}

#[test]
fn blocks_of_another_size_are_told_and_passed_over() {
    let (dir, mut drive) = blank();
    write(&mut drive, "ab|");
    drop(drive);
    let mut drive = Drive::open(&address(dir.path(), None), Access::Write, 2 * BLOCK).unwrap();
    let mut small = vec![0; BLOCK / 2];
    let said = drive.read_block(&mut small);
    assert!(matches!(said, Err(DriveError::ForeignBlock { bytes: Some(BLOCK), .. })), "{said:?}");
    // With room enough, each block is as it was written.
    let mut large = vec![0; 2 * BLOCK];
    assert_eq!(drive.read_block(&mut large).unwrap(), Reading::Block(BLOCK));
    assert_eq!(large[0], b'b');
    assert!(matches!(drive.write_block(&large), Err(DriveError::ForeignBlock { .. })));
    drive.rewind().unwrap();
    large.fill(b'c');
    drive.write_block(&large).unwrap();
    drive.rewind().unwrap();
    assert_eq!(drive.read_block(&mut large).unwrap(), Reading::Block(2 * BLOCK));
}

#[test]
fn volumes_are_put_in_and_taken_out_by_name() {
    let (dir, mut drive) = blank();
    write(&mut drive, "a|");
    drive.insert_blank("V2").unwrap();
    write(&mut drive, "b|");
    assert!(matches!(drive.insert_blank("V1"), Err(DriveError::VolumeExists(_))));
    assert!(matches!(drive.insert("V3"), Err(DriveError::NoVolume(_))));
    for name in ["", ".", "..", "../V1", "a/b", "loaded", "-x", "a b", &"x".repeat(65)] {
        assert!(matches!(drive.insert(name), Err(DriveError::VolumeName(_))), "{name:?}");
    }
    drive.insert("V1").unwrap();
    assert_eq!(read(&mut drive), "a|.");
    drop(drive);
    // It stays in, as a tape does.
    let mut drive = open(dir.path(), Access::Read);
    assert_eq!(drive.status().unwrap().volume.as_deref(), Some("V1"));
    drive.eject().unwrap();
    assert_eq!(drive.status().unwrap(), Status::default());
    assert!(matches!(drive.load(), Err(DriveError::NoMedium)));
    assert!(matches!(drive.rewind(), Err(DriveError::NoMedium)));
    assert!(matches!(drive.read_block(&mut block(0)), Err(DriveError::NoMedium)));
}

#[test]
fn a_drive_has_one_user() {
    let (dir, drive) = blank();
    assert!(matches!(Drive::open(&address(dir.path(), None), Access::Read, BLOCK), Err(DriveError::Busy)));
    drop(drive);
    open(dir.path(), Access::Read);
    let nowhere = address(&dir.path().join("none"), None);
    assert!(matches!(Drive::open(&nowhere, Access::Read, BLOCK), Err(DriveError::NotThere(_))));
    let tiny = Drive::open(&Address::Null, Access::Write, 512);
    assert!(matches!(tiny, Err(DriveError::BlockBytes(512))));
}

#[test]
fn addresses_are_told_apart() {
    for (text, expected) in [
        ("file:/srv/volumes", Some(Address::File { dir: "/srv/volumes".into(), capacity: None })),
        ("null:", Some(Address::Null)),
        ("/dev/nst0", Some(Address::Tape("/dev/nst0".into()))),
        ("/dev/tape/by-id/scsi-3:5-nst", Some(Address::Tape("/dev/tape/by-id/scsi-3:5-nst".into()))),
        ("file:volumes", None),
        ("null:x", None),
        ("ftp://host", None),
        ("", None),
    ] {
        let address = text.parse::<Address>().ok();
        assert_eq!(address, expected, "{text}");
        assert!(address.is_none_or(|address| address.to_string() == text));
    }
}

#[test]
fn the_null_drive_counts() {
    let mut drive = Drive::open(&Address::Null, Access::Write, BLOCK).unwrap();
    write(&mut drive, "ab|c");
    assert_eq!(place(&mut drive), (1, 1));
    let Drive::Null(null) = &drive else { panic!("null") };
    assert_eq!(null.octets(), 3 * 4096);
}

#[test]
fn what_is_no_tape_device_is_not_taken_for_one() {
    for path in ["/dev/null", "/dev/no-such-tape", "/etc/hostname"] {
        let opened = Drive::open(&Address::Tape(path.into()), Access::Read, BLOCK);
        assert!(matches!(opened, Err(DriveError::NotThere(_))), "{path}: {opened:?}");
    }
}

#[test]
fn a_volume_is_blank_until_a_block_is_on_it() {
    for (script, expected) in [("", true), ("|", true), ("||", false), ("a", false), ("a|", false), ("|a|", false)] {
        let (_dir, mut drive) = blank();
        write(&mut drive, script);
        assert_eq!(drive.is_blank().unwrap(), expected, "{script:?}");
        assert_eq!(place(&mut drive), (0, 0));
    }
}

#[test]
fn a_good_drive_stands_the_exercise() {
    let (_dir, mut drive) = blank();
    let mut steps = Vec::new();
    exercise::run(&mut drive, exercise::Options::default(), &mut |step| steps.push(step.to_owned())).unwrap();
    assert!(steps.len() >= 5, "{steps:?}");
    assert!(drive.is_blank().unwrap());
    write(&mut drive, "a|");
    let refused = exercise::run(&mut drive, exercise::Options::default(), &mut |_| ());
    assert!(matches!(refused, Err(exercise::ExerciseError::NotBlank)));
    drive.rewind().unwrap();
    assert_eq!(read(&mut drive), "a|.");
    let overwrite = exercise::Options { overwrite: true, fill: false };
    exercise::run(&mut drive, overwrite, &mut |_| ()).unwrap();
}

#[test]
fn a_volume_is_filled_to_its_end_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut drive = Drive::open(&address(dir.path(), Some(40)), Access::Write, BLOCK).unwrap();
    drive.insert_blank("V1").unwrap();
    let fill = exercise::Options { overwrite: false, fill: true };
    let mut steps = Vec::new();
    exercise::run(&mut drive, fill, &mut |step| steps.push(step.to_owned())).unwrap();
    assert!(steps.iter().any(|step| step.contains("early warning after 36 blocks, with room for 4 more")), "{steps:?}");
}

#[test]
fn the_exercise_sees_a_drive_that_forgets() {
    // What is written to it is gone.
    let mut drive = Drive::open(&Address::Null, Access::Write, BLOCK).unwrap();
    let failed = exercise::run(&mut drive, exercise::Options::default(), &mut |_| ());
    assert!(matches!(failed, Err(exercise::ExerciseError::Wrong { .. })), "{failed:?}");
}
