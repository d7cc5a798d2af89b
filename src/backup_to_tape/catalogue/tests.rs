//! The catalogue by itself.

use super::{Catalogue, CatalogueError};
use crate::backup_to_tape::volume::label::Label;
use crate::backup_to_tape::volume::line::{EndLine, FrameLine, Line, MemberLine, PartLine};

fn label(name: &str) -> Label {
    Label {
        format: Label::FORMAT,
        volume: name.into(),
        id: format!("{name}-id"),
        site: "campus".into(),
        host: "vault".into(),
        written: 7,
        block_bytes: 65_536,
        continues: None,
    }
}

fn part(name: &str, piece: u32, time: u64, since: Option<&str>) -> Line {
    Line::Part(PartLine {
        part: name.into(),
        piece,
        job: "daily".into(),
        source: "mail".into(),
        host: "mail1".into(),
        time,
        since: since.map(str::to_owned),
        next: Some(format!("after-{time}")),
    })
}

fn member(path: &str, at: u64) -> Line {
    Line::Member(MemberLine {
        path: path.into(),
        path_hex: None,
        flag: '0',
        size: 5,
        mtime: 9,
        mtime_ns: 0,
        mode: "0644".into(),
        blake3: "00".repeat(32),
        at,
        len: 1024,
    })
}

fn frame(at: u64, len: u64) -> Line {
    let block = u32::try_from(at / 1000).unwrap();
    Line::Frame(FrameLine { at, len, volume: "V1".into(), file: 1, block, offset: 3, bytes: 5 })
}

fn end(members: u64, frames: u64, goes_on: bool) -> Line {
    Line::End(EndLine { members, frames, tar_len: 5000, goes_on })
}

fn take(catalogue: &mut Catalogue, name: &str, file: u32, lines: Vec<Line>) -> Result<(), CatalogueError> {
    catalogue.take(&label(name), file, |add| {
        lines.into_iter().for_each(add);
        Ok(())
    })
}

#[test]
fn members_and_their_frames_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalogue.sqlite");
    let mut catalogue = Catalogue::open(&path).unwrap();
    let lines = vec![
        part("p1", 1, 100, None),
        frame(0, 2000),
        member("a/b", 0),
        frame(2000, 2000),
        member("a/c", 1500),
        frame(4000, 1000),
        end(2, 3, false),
    ];
    take(&mut catalogue, "V1", 1, lines).unwrap();
    drop(catalogue);
    let catalogue = Catalogue::open(&path).unwrap();
    let paths = |pattern| -> Vec<String> {
        let found = catalogue.find(pattern, None).unwrap();
        found.into_iter().map(|member| String::from_utf8(member.path).unwrap()).collect()
    };
    assert_eq!(paths("a/c"), ["a/c"]);
    assert_eq!(paths("a"), ["a/b", "a/c"]);
    assert_eq!(paths("*c"), ["a/c"]);
    assert_eq!(paths("c"), [""; 0]);
    let at =
        |begin, end| -> Vec<u64> { catalogue.frames("p1", begin, end).unwrap().iter().map(|frame| frame.at).collect() };
    assert_eq!(at(1500, 2524), [0, 2000]);
    assert_eq!(at(2000, 2001), [2000]);
    assert_eq!(at(4500, 9000), [4000]);
    let found = &catalogue.parts().unwrap()[0];
    assert!(found.is_full && found.is_whole);
    assert_eq!((found.members, found.volumes.as_slice()), (2, &["V1".to_owned()][..]));
    assert_eq!(catalogue.next_token("daily", "mail").unwrap().as_deref(), Some("after-100"));
    assert_eq!((catalogue.next_file("V1-id").unwrap(), catalogue.next_file("V2-id").unwrap()), (3, 1));
}

#[test]
fn a_part_is_whole_with_all_its_pieces() {
    let mut catalogue = Catalogue::in_memory().unwrap();
    let is_whole = |catalogue: &Catalogue| catalogue.parts().unwrap()[0].is_whole;
    take(&mut catalogue, "V1", 1, vec![part("p1", 1, 1, None), frame(0, 10), end(0, 1, true)]).unwrap();
    assert!(!is_whole(&catalogue));
    assert_eq!(catalogue.next_token("daily", "mail").unwrap(), None, "nothing goes on from half a part");
    take(&mut catalogue, "V3", 1, vec![part("p1", 3, 1, None), frame(20, 10), end(0, 1, false)]).unwrap();
    assert!(!is_whole(&catalogue), "the second is missing");
    take(&mut catalogue, "V2", 1, vec![part("p1", 2, 1, None), frame(10, 10), end(0, 1, true)]).unwrap();
    assert!(is_whole(&catalogue));
    assert_eq!(catalogue.parts().unwrap()[0].volumes, ["V1", "V2", "V3"]);
    take(&mut catalogue, "V2", 1, vec![part("p1", 2, 1, None), frame(10, 10), end(0, 1, true)]).unwrap();
    assert_eq!(catalogue.frames("p1", 0, 100).unwrap().len(), 3, "taken in twice, there once");
    catalogue.forget("V2-id").unwrap();
    assert!(!is_whole(&catalogue));
    assert_eq!(catalogue.frames("p1", 0, 100).unwrap().len(), 2);
}

#[test]
fn what_is_not_whole_changes_nothing() {
    let mut catalogue = Catalogue::in_memory().unwrap();
    for lines in [
        vec![],
        vec![part("p1", 1, 1, None), member("a", 0)],
        vec![member("a", 0), end(1, 0, false)],
        vec![part("p1", 1, 1, None), end(1, 0, false)],
        vec![part("p1", 1, 1, None), part("p2", 1, 1, None), end(0, 0, false)],
        vec![part("p1", 1, 1, None), end(0, 0, false), member("a", 0)],
    ] {
        assert!(matches!(take(&mut catalogue, "V1", 1, lines), Err(CatalogueError::Piece(_))));
    }
    assert_eq!(catalogue.volumes().unwrap(), [""; 0]);
    assert_eq!(catalogue.find("*", None).unwrap(), []);
}

#[test]
fn a_part_written_over_others_takes_their_place() {
    let mut catalogue = Catalogue::in_memory().unwrap();
    for (name, file) in [("p1", 1), ("p2", 3), ("p3", 5)] {
        take(&mut catalogue, "V1", file, vec![part(name, 1, 1, None), member(name, 0), end(1, 0, false)]).unwrap();
    }
    take(&mut catalogue, "V1", 3, vec![part("p4", 1, 2, None), member("p4", 0), end(1, 0, false)]).unwrap();
    let paths: Vec<Vec<u8>> = catalogue.find("*", None).unwrap().into_iter().map(|member| member.path).collect();
    assert_eq!(paths, [b"p1", b"p4"]);
}

#[test]
fn nothing_goes_on_from_a_part_whose_beginning_is_gone() {
    let mut catalogue = Catalogue::in_memory().unwrap();
    let since = [("V1", None), ("V2", Some("after-1")), ("V3", Some("after-2")), ("V4", Some("after-3"))];
    for (time, (volume, since)) in (1..).zip(since) {
        let lines = vec![part(&format!("p{time}"), 1, time, since), member("a", 0), end(1, 0, false)];
        take(&mut catalogue, volume, 1, lines).unwrap();
    }
    let next = |catalogue: &Catalogue| catalogue.next_token("daily", "mail").unwrap();
    assert_eq!(next(&catalogue).as_deref(), Some("after-4"));
    catalogue.forget("V2-id").unwrap();
    assert_eq!(next(&catalogue), None, "one in the middle is gone");
    take(&mut catalogue, "V2", 1, vec![part("p5", 1, 5, None), member("a", 0), end(1, 0, false)]).unwrap();
    assert_eq!(next(&catalogue).as_deref(), Some("after-5"), "a full one needs none before it");
    catalogue.forget("V1-id").unwrap();
    assert_eq!(next(&catalogue).as_deref(), Some("after-5"));
}
