//! The format against the tar crate's writer and against itself; against GNU tar, zstd and dd see `tests/site/backup.rs`.

use super::cut::{Cutter, Raw};
use super::frame::{Compressor, FRAME_LEN, FRAME_LEN_MAX, Found, HEAD_LEN, Head, Kind, Place, Unframer, padding};
use super::label::{Continues, Foreign, Label};
use super::line::{EndLine, Line, MemberLine};
use super::walk::{Member, Step, TarError, Walk};

const PART: [u8; 16] = [7; 16];
const BLOCK_LEN: usize = 64 * 1024;

/// Cuts a stream that comes in pieces of this length.
fn cut(stream: &[u8], piece: usize) -> Result<Vec<Raw>, TarError> {
    let mut cutter = Cutter::default();
    let mut frames = Vec::new();
    for mut rest in stream.chunks(piece) {
        while !rest.is_empty() {
            let (taken, raw) = cutter.push(rest)?;
            rest = &rest[taken..];
            frames.extend(raw);
        }
    }
    frames.extend(cutter.finish()?);
    Ok(frames)
}

/// The members of a stream. Checks that frames are the stream, whatever the pieces, and that hashes are those of the contents.
fn members(stream: &[u8]) -> Result<Vec<Member>, TarError> {
    let frames = cut(stream, 10_000)?;
    let joined: Vec<u8> = frames.iter().flat_map(|raw| raw.content.clone()).collect();
    assert_eq!(joined.len(), stream.len());
    assert!(joined == stream, "the very octets");
    for (number, raw) in frames.iter().enumerate() {
        assert_eq!(raw.number, number as u64);
        assert!(raw.content.len() <= FRAME_LEN_MAX);
    }
    assert_eq!(cut(stream, 511)?, frames, "whatever the pieces");
    Ok(frames.into_iter().flat_map(|raw| raw.members).collect())
}

fn header(path: &str, size: u64, flag: u8) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(size);
    header.set_mode(0o640);
    header.set_mtime(1_700_000_000);
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_cksum();
    header
}

fn add(stream: &mut Vec<u8>, path: &str, flag: u8, content: &[u8]) {
    stream.extend_from_slice(header(path, content.len() as u64, flag).as_bytes());
    stream.extend_from_slice(content);
    stream.resize(stream.len().next_multiple_of(512), 0);
}

fn ended(mut stream: Vec<u8>) -> Vec<u8> {
    stream.resize(stream.len() + 1024, 0);
    stream
}

fn pax(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (keyword, value) in pairs {
        let rest = keyword.len() + value.len() + 3;
        let len = (1..9).map(|digits| rest + digits).find(|len| len.to_string().len() + rest == *len).unwrap();
        text.extend_from_slice(format!("{len} {keyword}=").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut octets = vec![0; len];
    reader.fill(&mut octets);
    octets
}

#[test]
fn members_are_found_with_their_names_times_and_hashes() {
    let mut stream = Vec::new();
    add(&mut stream, "a", b'0', b"hello");
    add(&mut stream, "dir/", b'5', b"");
    add(&mut stream, "@LongLink", b'L', &[vec![b'n'; 300], vec![0]].concat());
    add(&mut stream, "short", b'0', b"long");
    let records = pax(&[("path", b"line\nend"), ("mtime", b"1700000000.25"), ("SCHILY.xattr.user.x", b"\n\0=\n")]);
    add(&mut stream, "pax", b'x', &records);
    add(&mut stream, "cut", b'0', b"content");
    let stream = ended(stream);
    let found = members(&stream).unwrap();
    let paths: Vec<&[u8]> = found.iter().map(|member| member.path.as_slice()).collect();
    assert_eq!(paths, [&b"a"[..], b"dir/", &[b'n'; 300], b"line\nend"]);
    assert_eq!(found[3].mtime, (1_700_000_000, 250_000_000));
    assert_eq!(found[0].mode, 0o640);
    assert_eq!(found[0].blake3, *blake3::hash(b"hello").as_bytes());
    assert_eq!(found[3].blake3, *blake3::hash(b"content").as_bytes());
    let ends: Vec<u64> = found.iter().map(|member| member.at + member.len).collect();
    assert_eq!((found[0].at, ends[0], ends[3]), (0, 1024, stream.len() as u64 - 1024), "no gap");
    assert_eq!(found[2].at, ends[1], "extended headers belong to their member");
}

#[test]
fn what_is_no_tar_is_refused_clearly() {
    let mut good = Vec::new();
    add(&mut good, "a", b'0', b"hello");
    let check = |stream: Vec<u8>, expected: TarError| assert_eq!(members(&stream), Err(expected));
    check(noise(2000, 1), TarError::NoHeader { at: 0 });
    check(Vec::new(), TarError::Unfinished { at: 0 });
    check(good.clone(), TarError::Unfinished { at: 1024 });
    check([good.clone(), vec![0; 512]].concat(), TarError::Unfinished { at: 1536 });
    check([good.clone(), noise(512, 2)].concat(), TarError::NoHeader { at: 1024 });
    check([ended(good.clone()), b"x".to_vec()].concat(), TarError::AfterEnd { at: 2048 });
    check(good[..1000].to_vec(), TarError::Unfinished { at: 1000 });
    let mut huge = header("l", 1 << 30, b'L').as_bytes().to_vec();
    check(huge.clone(), TarError::Header { at: 0, what: "too much before the header itself" });
    huge = (0..9).flat_map(|_| header("x", 0, b'x').as_bytes().to_vec()).collect();
    check(huge, TarError::Header { at: 0, what: "too much before the header itself" });
    let mut lying = Vec::new();
    add(&mut lying, "x", b'x', b"9999 path=a\n");
    check(lying, TarError::Header { at: 0, what: "its extended header" });
}

#[test]
fn small_members_are_never_cut_and_large_ones_are() {
    let mut stream = Vec::new();
    for number in 0..70 {
        add(&mut stream, &format!("small-{number}"), b'0', &noise(100_000, number));
    }
    add(&mut stream, "large", b'0', &noise(3 * FRAME_LEN, 99));
    add(&mut stream, "last", b'0', b"x");
    let frames = cut(&ended(stream), 1 << 20).unwrap();
    let small = frames.iter().flat_map(|raw| &raw.members).filter(|member| member.path.starts_with(b"small"));
    for member in small {
        let within = |raw: &&Raw| raw.at <= member.at && member.at + member.len <= raw.at + raw.content.len() as u64;
        assert_eq!(frames.iter().filter(within).count(), 1, "{}", String::from_utf8_lossy(&member.path));
    }
    assert!(frames.len() >= 5, "{}", frames.len());
    let inside: Vec<bool> = frames.iter().map(|raw| raw.first == Some(0)).collect();
    assert!(inside.contains(&false) && inside[0] && inside[1], "{inside:?}");
    for raw in frames.iter().filter(|raw| raw.first.is_some()) {
        let first = raw.first.unwrap() as usize;
        assert_eq!(&raw.content[first + 257..first + 262], b"ustar", "a header is where the frame says");
    }
}

fn head(number: u64) -> Head {
    Head { kind: Kind::Tar, part: PART, number, at: number * 1000, content_len: 0, compressed_len: 0, first: Some(0) }
}

/// Blocks of a tape file with these contents in frames; where each frame begins.
fn tape_file(contents: &[Vec<u8>]) -> (Vec<u8>, Vec<Place>) {
    let mut compressor = Compressor::new().unwrap();
    let (mut octets, mut places) = (Vec::new(), Vec::new());
    for (number, content) in contents.iter().enumerate() {
        let place = |at: usize| u32::try_from(at).unwrap();
        places.push(Place { block: place(octets.len() / BLOCK_LEN), offset: place(octets.len() % BLOCK_LEN) });
        octets.extend(compressor.compress(content, head(number as u64)).unwrap());
    }
    octets.extend(padding(octets.len(), BLOCK_LEN));
    assert_eq!(octets.len() % BLOCK_LEN, 0);
    (octets, places)
}

fn read(octets: &[u8], from: Place, bad: &[usize]) -> Vec<Found> {
    let mut unframer = Unframer::new(BLOCK_LEN, from);
    let mut found = Vec::new();
    for (number, block) in octets.chunks(BLOCK_LEN).enumerate().skip(from.block as usize) {
        match bad.contains(&number) {
            true => unframer.unreadable(1),
            false => unframer.block(block),
        }
        found.extend(std::iter::from_fn(|| unframer.find()));
    }
    found.extend(unframer.finish());
    found
}

fn numbers(found: &[Found]) -> Vec<Option<u64>> {
    let number = |found: &Found| match found {
        Found::Frame { head, .. } => Some(head.number),
        Found::Damaged { .. } => None,
    };
    found.iter().map(number).collect()
}

#[test]
fn frames_come_back_and_any_decoder_reads_them() {
    let contents: Vec<Vec<u8>> = (0..9).map(|number| noise(30_000 * (number + 1), number as u64)).collect();
    let (octets, places) = tape_file(&contents);
    let found = read(&octets, Place { block: 0, offset: 0 }, &[]);
    assert_eq!(found.len(), 9);
    for ((found, content), expected) in found.iter().zip(&contents).zip(&places) {
        let Found::Frame { place, content: read, .. } = found else { panic!("{found:?}") };
        assert_eq!((place, read), (expected, content));
    }
    assert_eq!(zstd::decode_all(octets.as_slice()).unwrap(), contents.concat(), "heads and padding are passed over");
    assert_eq!(numbers(&read(&octets, places[4], &[])), [4, 5, 6, 7, 8].map(Some), "straight to a frame");
}

#[test]
fn padding_fills_any_rest() {
    for used in (0..20).chain(BLOCK_LEN - 20..BLOCK_LEN + 1) {
        let padding = padding(used, BLOCK_LEN);
        assert_eq!((used + padding.len()) % BLOCK_LEN, 0);
        assert!(padding.is_empty() || zstd::decode_all(padding.as_slice()).unwrap().is_empty());
    }
}

#[test]
fn behind_damage_frames_are_found_again() {
    let contents: Vec<Vec<u8>> = (0..9).map(|number| noise(40_000, number)).collect();
    let (mut octets, places) = tape_file(&contents);
    let start = Place { block: 0, offset: 0 };
    // Block 1 has the end of frame 1, frame 2, and the beginning of frame 3.
    let found = read(&octets, start, &[1]);
    assert_eq!(numbers(&found), [Some(0), None, Some(4), Some(5), Some(6), Some(7), Some(8)]);
    let at = |place: Place| place.block as usize * BLOCK_LEN + place.offset as usize;
    octets[at(places[5]) + HEAD_LEN + 100] ^= 1;
    let expected = [Some(0), Some(1), Some(2), Some(3), Some(4), None, Some(6), Some(7), Some(8)];
    assert_eq!(numbers(&read(&octets, start, &[])), expected, "a flipped bit in a frame");
    octets[at(places[5]) + HEAD_LEN + 100] ^= 1;
    octets[at(places[5]) + 30] ^= 1;
    assert_eq!(numbers(&read(&octets, start, &[])), expected, "a flipped bit in a head");
    octets[at(places[5]) + 30] ^= 1;
    let torn = &octets[..at(places[8]) + 100];
    assert_eq!(numbers(&read(torn, start, &[])).last(), Some(&None), "the end is missing");
}

#[test]
fn a_bomb_does_not_go_off() {
    // A frame that says of itself in its head that it is small.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    let mut frame = Compressor::new().unwrap().compress(&noise(bomb.len(), 1)[..bomb.len() - 20], head(0)).unwrap();
    let keep = frame.len() - HEAD_LEN;
    frame.truncate(HEAD_LEN);
    frame.extend(bomb.iter().take(keep).chain(std::iter::repeat_n(&0, keep.saturating_sub(bomb.len()))));
    frame.extend(padding(frame.len(), BLOCK_LEN));
    assert_eq!(numbers(&read(&frame, Place { block: 0, offset: 0 }, &[])), [None]);
}

fn label() -> Label {
    Label {
        format: Label::FORMAT,
        volume: "daily-0007".into(),
        id: hex::encode(PART),
        site: "campus".into(),
        host: "vault".into(),
        written: 1_764_000_000,
        block_bytes: 1 << 20,
        continues: None,
    }
}

#[test]
fn a_label_is_text_and_reads_back() {
    let continues = Some(Continues { part: hex::encode(PART), piece: 2, after: "daily-0006".into() });
    for label in [label(), Label { continues, ..label() }] {
        let block = label.encode(BLOCK_LEN).unwrap();
        assert_eq!((block.len(), Label::decode(&block)), (BLOCK_LEN, Ok(label.clone())));
        let text = String::from_utf8(block).unwrap();
        assert!(text.contains("dd if=/dev/nst0 bs=1048576 | zstd -dc | tar -xpf -"), "{text}");
        assert!(text.lines().filter(|line| !line.starts_with('{')).all(|line| line.len() <= 100), "{text}");
        assert_eq!(text.contains("piece 2"), label.continues.is_some());
    }
    assert!(Label { volume: "../x".into(), ..label() }.encode(BLOCK_LEN).is_err());
    assert!(Label { volume: "x".repeat(65), ..label() }.encode(BLOCK_LEN).is_err());
}

#[test]
fn what_is_not_ours_is_named() {
    let mut archive = Vec::new();
    add(&mut archive, "etc/passwd", b'0', b"root");
    let mut damaged = label().encode(BLOCK_LEN).unwrap();
    let at = damaged.windows(6).position(|octets| octets == b"campus").unwrap();
    damaged[at] = b'C';
    assert_eq!(Label::decode(&damaged), Ok(label()), "the text for people may be damaged");
    let at = damaged.windows(9).rposition(|octets| octets == b":\"campus\"").unwrap();
    damaged[at + 3] = b'A';
    for (block, expected) in [
        (archive.as_slice(), Foreign::Tar { first: "etc/passwd".into() }),
        (&damaged, Foreign::Label("its hash is wrong")),
        (&zstd::bulk::compress(b"x", 3).unwrap(), Foreign::Compressed("zstd")),
        (&[0; 1024], Foreign::Unknown),
        (b"", Foreign::Unknown),
        (b"fife backup volume\n", Foreign::Label("a line is missing")),
    ] {
        assert_eq!(Label::decode(block), Err(expected));
    }
}

#[test]
fn lines_of_a_catalogue_read_back() {
    let mut stream = Vec::new();
    add(&mut stream, "x", b'x', &pax(&[("path", b"caf\xe9")]));
    add(&mut stream, "x", b'0', b"hello");
    let member = members(&ended(stream)).unwrap().remove(0);
    let line = MemberLine::of(&member);
    assert_eq!(line.path_octets().unwrap(), b"caf\xe9");
    let lines = [Line::Member(line), Line::End(EndLine { members: 1, frames: 0, tar_len: 9, goes_on: false })];
    for line in lines {
        let text = line.encode();
        assert_eq!(Line::decode(text.strip_suffix(b"\n").unwrap()), Some(line));
    }
    let newer = br#"{"kind":"end","members":1,"frames":2,"tar-len":3,"goes-on":true,"moon":"full"}"#;
    assert!(Line::decode(newer).is_some());
    assert_eq!(Line::decode(br#"{"kind":"moon"}"#), None);
    assert_eq!(Line::decode(&[b'['; 100_000]), None);
}

#[test]
fn a_walk_can_begin_at_any_member() {
    let mut stream = Vec::new();
    add(&mut stream, "a", b'0', &noise(1000, 1));
    let at = stream.len();
    add(&mut stream, "b", b'0', b"hello");
    let mut walk = Walk::new(at as u64);
    let mut rest = &stream[at..];
    loop {
        let (taken, step) = walk.advance(rest).unwrap();
        rest = &rest[taken..];
        if let Step::Ended(member) = step {
            assert_eq!((member.at, member.path.as_slice()), (at as u64, &b"b"[..]));
            break;
        }
    }
    assert!(rest.is_empty() && walk.is_between());
}
