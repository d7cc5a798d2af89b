//! Reading back what `feed` wrote to directories of volumes; names that would leave the directory; damage.

use std::path::Path;
use std::sync::Arc;

use super::{Report, RestoreError, members, scan};
use crate::backup_to_tape::catalogue::{Catalogue, Frame};
use crate::backup_to_tape::drive::{Access, Address, Drive};
use crate::backup_to_tape::feed::{BUFFER_LEN_MIN, FeedError, Hooks, Mounted, Progress, Settings, part};
use crate::backup_to_tape::volume::label::Label;
use crate::backup_to_tape::volume::line::PartLine;

const BLOCK_LEN: usize = 64 * 1024;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut octets = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut octets);
    octets
}

/// A member with any name whatever: the crate's builder refuses bad ones.
fn add(stream: &mut Vec<u8>, path: &str, flag: u8, link: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    header.set_uid(u64::from(nix::unistd::getuid().as_raw()));
    header.set_gid(u64::from(nix::unistd::getgid().as_raw()));
    header.set_mtime(1_700_000_000);
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_cksum();
    stream.extend_from_slice(header.as_bytes());
    stream.extend_from_slice(content);
    stream.resize(stream.len().next_multiple_of(512), 0);
}

/// Puts a stream on volume V1 of this directory. Its catalogue.
fn write(dir: &Path, mut stream: Vec<u8>) -> Catalogue {
    stream.resize(stream.len() + 1024, 0);
    let mut catalogue = Catalogue::in_memory().unwrap();
    let mut drive = open(dir, Access::Write);
    let label = Label {
        format: Label::FORMAT,
        volume: "V1".into(),
        id: "00".repeat(16),
        site: "campus".into(),
        host: "vault".into(),
        written: 0,
        block_bytes: BLOCK_LEN as u64,
        continues: None,
    };
    drive.insert_blank("V1").unwrap();
    drive.write_block(&label.encode(BLOCK_LEN).unwrap()).unwrap();
    drive.write_marks(1).unwrap();
    let line = PartLine {
        part: "07".repeat(16),
        piece: 1,
        job: "daily".into(),
        source: "data".into(),
        host: "vault".into(),
        time: 5,
        since: None,
        next: None,
    };
    let settings = Settings { buffer_len: BUFFER_LEN_MIN, workers: 2, spool_dir: dir.to_owned() };
    let mut hooks = Hooks {
        next_volume: &mut |_, _| panic!("one is enough"),
        piece: &mut |label, file, spool| {
            catalogue.take::<FeedError>(label, file, |add| Ok(spool.lines(add)?)).unwrap();
            Ok(())
        },
    };
    let mounted = Mounted { drive, label, file: 1 };
    part(stream.as_slice(), mounted, &line, &settings, &Arc::new(Progress::default()), &mut hooks).unwrap();
    catalogue
}

fn open(dir: &Path, access: Access) -> Drive {
    Drive::open(&Address::File { dir: dir.to_owned(), capacity: None }, access, BLOCK_LEN).unwrap()
}

fn restore(dir: &Path, catalogue: &Catalogue, pattern: &str, to: Option<&Path>) -> Report {
    let found = catalogue.find(pattern, None).unwrap();
    let mut mount = |drive: Option<Drive>, _: &Frame| -> Result<Drive, RestoreError> {
        Ok(drive.unwrap_or_else(|| open(dir, Access::Read)))
    };
    members(catalogue, &found, to, &mut mount, &mut |_| ()).unwrap()
}

fn files() -> Vec<u8> {
    let mut stream = Vec::new();
    add(&mut stream, "data", b'5', "", b"");
    for number in 0..60 {
        add(&mut stream, &format!("data/{number}"), b'0', "", &noise(200_000, number));
    }
    add(&mut stream, "data/large", b'0', "", &noise(20_000_000, 99));
    add(&mut stream, "data/link", b'2', "large", b"");
    add(&mut stream, "data/hard", b'1', "data/7", b"");
    add(&mut stream, "data/empty", b'0', "", b"");
    stream
}

#[test]
fn one_member_or_all_come_back() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let catalogue = write(dir.path(), files());
    let report = restore(dir.path(), &catalogue, "data/41", Some(to.path()));
    assert_eq!((report.members, report.bytes), (1, 200_000));
    assert!(std::fs::read(to.path().join("data/41")).unwrap() == noise(200_000, 41));
    assert_eq!(std::fs::read_dir(to.path().join("data")).unwrap().count(), 1);
    let report = restore(dir.path(), &catalogue, "*", Some(to.path()));
    assert_eq!((report.members, &report.damaged, &report.refused), (65, &vec![], &vec![]));
    let at = |name: &str| to.path().join("data").join(name);
    assert!(std::fs::read(at("large")).unwrap() == noise(20_000_000, 99));
    assert!(std::fs::read(at("hard")).unwrap() == noise(200_000, 7));
    assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("large"));
    assert_eq!(std::fs::read(at("empty")).unwrap(), b"");
    use std::os::unix::fs::MetadataExt;
    let told = std::fs::metadata(to.path().join("data")).unwrap();
    assert_eq!((told.mtime(), told.mode() & 0o777), (1_700_000_000, 0o640));
    assert_eq!(restore(dir.path(), &catalogue, "*", None).members, 65, "checked only");
}

#[test]
fn names_do_not_leave_the_directory() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap().to_owned();
    let mut stream = Vec::new();
    add(&mut stream, "../above", b'0', "", b"x");
    add(&mut stream, "a/../../above", b'0', "", b"x");
    add(&mut stream, &format!("{out}/absolute"), b'0', "", b"x");
    add(&mut stream, "way", b'2', &out, b"");
    add(&mut stream, "way/in", b'0', "", b"x");
    add(&mut stream, "way/dir", b'5', "", b"");
    add(&mut stream, "up", b'2', "..", b"");
    add(&mut stream, "up/in", b'0', "", b"x");
    add(&mut stream, "way2", b'1', "../secret", b"");
    add(&mut stream, "device", b'3', "", b"");
    add(&mut stream, "inner", b'2', ".", b"");
    add(&mut stream, "inner/file", b'0', "", b"x");
    add(&mut stream, "good", b'0', "", b"good");
    let catalogue = write(dir.path(), stream);
    let report = restore(dir.path(), &catalogue, "*", Some(&to.path().join("below")));
    let mut left: Vec<_> =
        std::fs::read_dir(to.path().join("below")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["good", "inner", "up", "way"]);
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!((report.members, report.refused.len()), (4, 9), "{report:?}");
    // A link in the place of a file is replaced, never written through.
    std::fs::remove_file(to.path().join("below/good")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("target"), to.path().join("below/good")).unwrap();
    restore(dir.path(), &catalogue, "good", Some(&to.path().join("below")));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read(to.path().join("below/good")).unwrap(), b"good");
}

#[test]
fn what_is_damaged_is_told_and_the_rest_comes_back() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let catalogue = write(dir.path(), files());
    let path = dir.path().join("V1/000001");
    let mut octets = std::fs::read(&path).unwrap();
    let member = &catalogue.find("data/30", None).unwrap()[0];
    let frame = &catalogue.frames(&member.part, member.at, member.at + 1).unwrap()[0];
    let at = frame.block as usize * BLOCK_LEN + frame.offset as usize;
    octets[at + 1000] ^= 1;
    std::fs::write(&path, octets).unwrap();
    let report = restore(dir.path(), &catalogue, "*", Some(to.path()));
    let damaged: Vec<&str> = report.damaged.iter().map(|fault| fault.path.as_str()).collect();
    assert!(damaged.contains(&"data/30") && damaged.len() < 30, "{damaged:?}");
    assert!(report.damaged[0].reason.contains("volume V1"), "{:?}", report.damaged[0]);
    let back = std::fs::read_dir(to.path().join("data")).unwrap().count();
    assert_eq!(back + damaged.len(), 64, "no halves: {:?}", report.refused);
    assert!(std::fs::read(to.path().join("data/large")).unwrap() == noise(20_000_000, 99));
}

#[test]
fn a_lost_catalogue_is_made_again_from_the_volume() {
    let dir = tempfile::tempdir().unwrap();
    let before = write(dir.path(), files());
    let scan = || {
        let mut drive = open(dir.path(), Access::Read);
        let scan::Begin::Ours(label) = scan::begin(&mut drive).unwrap() else { panic!("not ours") };
        let mut catalogue = Catalogue::in_memory().unwrap();
        let (_, scanned) = scan::volume(drive, &label, 1, &mut catalogue).unwrap();
        (catalogue, scanned.parts.iter().map(|part| part.state).collect::<Vec<_>>())
    };
    let facts = |catalogue: &Catalogue| {
        let found = catalogue.find("*", None).unwrap();
        found.into_iter().map(|member| (member.path, member.at, member.len, member.blake3)).collect::<Vec<_>>()
    };
    let (catalogue, states) = scan();
    assert_eq!(states, [scan::PartState::Listed]);
    assert_eq!(facts(&catalogue), facts(&before));
    // The catalogue on the volume is damaged: the part itself is read.
    let path = dir.path().join("V1/000002");
    let mut octets = std::fs::read(&path).unwrap();
    octets[200] ^= 1;
    std::fs::write(&path, octets).unwrap();
    let (catalogue, states) = scan();
    assert_eq!(states, [scan::PartState::Read]);
    assert_eq!(facts(&catalogue), facts(&before));
    assert!(catalogue.parts().unwrap()[0].is_whole);
    let to = tempfile::tempdir().unwrap();
    assert_eq!(restore(dir.path(), &catalogue, "*", Some(to.path())).members, 65);
}
