//! The pipeline over directories of volumes. What GNU tar, zstd and dd make of those is in `tests/site/backup.rs`.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::{BUFFER_LEN_MIN, FeedError, Hooks, Mounted, Progress, Settings, part};
use crate::backup_to_tape::drive::{Access, Address, Drive};
use crate::backup_to_tape::volume::frame::{Found, Place, Unframer};
use crate::backup_to_tape::volume::label::Label;
use crate::backup_to_tape::volume::line::{EndLine, Line, PartLine};
use crate::base::size::Size;

const BLOCK_LEN: usize = 64 * 1024;

fn settings(dir: &Path) -> Settings {
    Settings { buffer_len: BUFFER_LEN_MIN, workers: 2, spool_dir: dir.to_owned() }
}

fn line() -> PartLine {
    PartLine {
        part: "07".repeat(16),
        piece: 1,
        job: "daily".into(),
        source: "mail".into(),
        host: "mail1".into(),
        time: 1_764_000_000,
        since: None,
        next: None,
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut octets = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut octets);
    octets
}

/// An archive of so many files of this size.
fn archive(count: u64, len: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..count {
        let mut header = tar::Header::new_ustar();
        header.set_size(len as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("file-{number}"), noise(len, number).as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn label(name: &str) -> Label {
    Label {
        format: Label::FORMAT,
        volume: name.into(),
        id: "00".repeat(16),
        site: "campus".into(),
        host: "vault".into(),
        written: 0,
        block_bytes: BLOCK_LEN as u64,
        continues: None,
    }
}

fn blank(mut drive: Drive, label: Label) -> Mounted {
    drive.insert_blank(&label.volume).unwrap();
    drive.write_block(&label.encode(BLOCK_LEN).unwrap()).unwrap();
    drive.write_marks(1).unwrap();
    Mounted { drive, label, file: 1 }
}

fn first(dir: &Path, capacity: Option<Size>) -> Mounted {
    let address = Address::File { dir: dir.to_owned(), capacity };
    blank(Drive::open(&address, Access::Write, BLOCK_LEN).unwrap(), label("V1"))
}

/// What a part left.
struct Fed {
    outcome: Result<(), FeedError>,
    volumes: Vec<String>,
    ends: Vec<EndLine>,
    progress: Arc<Progress>,
}

fn feed(source: impl Read + Send, dir: &Path, capacity: Option<Size>) -> Fed {
    let progress = Arc::new(Progress::default());
    let (mut volumes, mut ends) = (vec!["V1".to_owned()], Vec::new());
    let mut next_volume = |ended: Mounted, continues| {
        let name = format!("V{}", volumes.len() + 1);
        volumes.push(name.clone());
        Ok(blank(ended.drive, Label { continues: Some(continues), ..label(&name) }))
    };
    let mut piece = |_: &Label, _, spool: &mut super::Spool| {
        let take = |line| {
            if let Line::End(end) = line {
                ends.push(end);
            }
        };
        Ok(spool.lines(take)?)
    };
    let mut hooks = Hooks { next_volume: &mut next_volume, piece: &mut piece };
    let mounted = first(dir, capacity);
    let outcome = part(source, mounted, &line(), &settings(dir), &progress, &mut hooks).map(drop);
    Fed { outcome, volumes, ends, progress }
}

/// The stream, from tape file 1 of these volumes.
fn joined(dir: &Path, volumes: &[String]) -> Vec<u8> {
    let mut stream = Vec::new();
    for name in volumes {
        let octets = std::fs::read(dir.join(name).join("000001")).unwrap();
        assert_eq!(octets.len() % BLOCK_LEN, 0);
        stream.extend(zstd::decode_all(octets.as_slice()).unwrap());
    }
    stream
}

#[test]
fn a_part_is_on_the_volume_octet_by_octet_with_its_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    let stream = archive(40, 300_000);
    let fed = feed(stream.as_slice(), dir.path(), None);
    fed.outcome.unwrap();
    assert!(joined(dir.path(), &fed.volumes) == stream);
    let catalogue = std::fs::read(dir.path().join("V1/000002")).unwrap();
    let lines = zstd::decode_all(catalogue.as_slice()).unwrap();
    let lines: Vec<Line> =
        lines.strip_suffix(b"\n").unwrap().split(|o| *o == b'\n').map(|line| Line::decode(line).unwrap()).collect();
    assert!(matches!((&lines[0], &lines[lines.len() - 1]), (Line::Part(_), Line::End(end)) if end.members == 40));
    let mut frames = 0;
    for line in &lines {
        let Line::Frame(frame) = line else { continue };
        frames += 1;
        // Straight to it.
        let from = Place { block: frame.block, offset: frame.offset };
        let mut unframer = Unframer::new(BLOCK_LEN, from);
        let octets = std::fs::read(dir.path().join("V1/000001")).unwrap();
        octets.chunks(BLOCK_LEN).skip(frame.block as usize).for_each(|block| unframer.block(block));
        let Some(Found::Frame { head, content, .. }) = unframer.find() else { panic!("{frame:?}") };
        let at = usize::try_from(frame.at).unwrap();
        assert_eq!(head.at, frame.at);
        assert!(content == stream[at..at + content.len()]);
    }
    assert!(frames >= 3, "{frames}");
    let progress = fed.progress.snapshot();
    assert_eq!((progress.read, progress.members, progress.fill), (stream.len() as u64, 40, 0));
}

#[test]
fn a_part_spans_volumes_between_frames() {
    let dir = tempfile::tempdir().unwrap();
    let stream = archive(350, 300_000);
    let fed = feed(stream.as_slice(), dir.path(), Some(Size::mib(40)));
    fed.outcome.unwrap();
    assert!(fed.volumes.len() >= 3, "{:?}", fed.volumes);
    assert!(joined(dir.path(), &fed.volumes) == stream);
    let goes_on: Vec<bool> = fed.ends.iter().map(|end| end.goes_on).collect();
    assert_eq!(goes_on.iter().filter(|goes_on| !**goes_on).count(), 1);
    assert_eq!(goes_on.last(), Some(&false));
    assert_eq!(fed.ends.iter().map(|end| end.members).sum::<u64>(), 350);
    let block = std::fs::read(dir.path().join("V2/000000")).unwrap();
    let continues = Label::decode(&block).unwrap().continues.unwrap();
    assert_eq!((continues.piece, continues.after.as_str()), (2, "V1"));
}

#[test]
fn a_volume_too_small_for_anything_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fed = feed(archive(40, 300_000).as_slice(), dir.path(), Some(Size::kib(200)));
    assert!(matches!(fed.outcome, Err(FeedError::NoRoom(ref name)) if name == "V1"), "{:?}", fed.outcome);
}

/// Gives octets and then fails.
struct Torn<'a>(&'a [u8]);

impl Read for Torn<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::ConnectionReset.into()) } else { self.0.read(buffer) }
    }
}

#[test]
fn a_source_that_breaks_off_leaves_no_catalogue_and_a_mark() {
    let stream = archive(40, 300_000);
    type Case<'a> = (Box<dyn Read + Send + 'a>, fn(&FeedError) -> bool);
    let cases: [Case<'_>; 3] = [
        (Box::new(Torn(&stream)), |fault| matches!(fault, FeedError::Source(_))),
        (Box::new(&stream[..9_000_000]), |fault| matches!(fault, FeedError::Tar(_))),
        (Box::new(io::repeat(7)), |fault| matches!(fault, FeedError::Tar(_))),
    ];
    for (source, is_expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let fed = feed(source, dir.path(), None);
        let fault = fed.outcome.unwrap_err();
        assert!(is_expected(&fault), "{fault}");
        assert!(fed.ends.is_empty());
        let catalogue = std::fs::read(dir.path().join("V1/000002")).unwrap_or_default();
        assert!(catalogue.is_empty(), "no catalogue");
    }
}

/// Never ends; asks to stop after a while.
struct Endless(Arc<Progress>, u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += buffer.len() as u64;
        if self.1 > 50_000_000 {
            self.0.cancel();
        }
        buffer.fill(0);
        Ok(buffer.len())
    }
}

#[test]
fn who_wants_to_stop_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("endless").unwrap();
    header.set_size(1 << 32);
    header.set_cksum();
    let progress = Arc::new(Progress::default());
    let source = io::Cursor::new(header.as_bytes().to_vec()).chain(Endless(Arc::clone(&progress), 0));
    let mut hooks = Hooks { next_volume: &mut |_, _| panic!("no"), piece: &mut |_, _, _| panic!("no") };
    let outcome = part(source, first(dir.path(), None), &line(), &settings(dir.path()), &progress, &mut hooks);
    assert!(matches!(outcome, Err(FeedError::Cancelled)), "{outcome:?}");
}
