//! Damaged and forged volumes. Called by: `crate::fuzz`.
//!
//! The first octet says what the rest is: `t` a tar stream, `l` a label, `c` lines of a catalogue, `f` blocks of a tape file (the second
//! octet says which one cannot be read), `h` a frame's content behind a head that is made right.
//!
//! Invariants: no panic; a tar stream is cut into frames that are its octets; frames have the lengths that they name, at most
//! `FRAME_LEN_MAX`; what reads as a label or a line is written and reads as the same; a frame that is given out is one that was written.

use super::cut::Cutter;
use super::frame::{Compressor, FRAME_LEN_MAX, Found, Head, Kind, Place, Unframer, padding};
use super::label::Label;
use super::line::Line;

/// Octets of a block here.
const BLOCK_LEN: usize = 4096;

/// Returns how many members, labels, lines or frames were found.
pub(crate) fn target(data: &[u8]) -> usize {
    match data.split_first() {
        Some((b't', rest)) => tar(rest),
        Some((b'l', rest)) => label(rest),
        Some((b'c', rest)) => lines(rest),
        Some((b'f', rest)) => frames(rest),
        Some((b'h', rest)) => framed(rest),
        Some(_) | None => 0,
    }
}

fn tar(stream: &[u8]) -> usize {
    let mut cutter = Cutter::default();
    let (mut joined, mut members) = (0, 0);
    let mut rest = stream;
    let mut raws = Vec::new();
    loop {
        match cutter.push(rest) {
            Ok((taken, raw)) => {
                raws.extend(raw);
                rest = &rest[taken..];
            }
            Err(_) => return 0,
        }
        if rest.is_empty() {
            break;
        }
    }
    if let Ok(last) = cutter.finish() {
        raws.extend(last);
        for raw in raws {
            assert_eq!(raw.content, stream[joined..joined + raw.content.len()]);
            joined += raw.content.len();
            members += raw.members.len();
            assert!(raw.members.iter().all(|member| member.at + member.len <= stream.len() as u64));
        }
        assert_eq!(joined, stream.len());
    }
    members
}

fn label(block: &[u8]) -> usize {
    let Ok(label) = Label::decode(block) else { return 0 };
    if let Ok(again) = label.encode(64 * 1024) {
        assert_eq!(Label::decode(&again), Ok(label));
    }
    1
}

fn lines(text: &[u8]) -> usize {
    let lines = text.split(|octet| *octet == b'\n').filter_map(Line::decode);
    let again = |line: Line| assert_eq!(Line::decode(line.encode().strip_suffix(b"\n").unwrap()), Some(line));
    lines.map(again).count()
}

fn frames(data: &[u8]) -> usize {
    let Some((bad, octets)) = data.split_first() else { return 0 };
    let mut unframer = Unframer::new(BLOCK_LEN, Place { block: 0, offset: 0 });
    let mut found = 0;
    for (number, block) in octets.chunks(BLOCK_LEN).enumerate() {
        match number == usize::from(*bad) {
            true => unframer.unreadable(1),
            false => unframer.block(block),
        }
        let mut last = None;
        while let Some(one) = unframer.find() {
            let place = match one {
                Found::Frame { head, place, content } => {
                    assert_eq!(content.len(), head.content_len as usize);
                    assert!(content.len() <= FRAME_LEN_MAX);
                    found += 1;
                    place
                }
                Found::Damaged { place, .. } => place,
            };
            assert!(last.is_none_or(|last| last <= place), "in order: {last:?} {place:?}");
            last = Some(place);
        }
    }
    assert!(!matches!(unframer.finish(), Some(Found::Frame { .. })));
    found
}

/// The content goes onto a tape file and comes back, after damage that its first two octets name.
fn framed(data: &[u8]) -> usize {
    let Some(([at, flip], content)) = data.split_first_chunk() else { return 0 };
    let head =
        Head { kind: Kind::Tar, part: [1; 16], number: 1, at: 0, content_len: 0, compressed_len: 0, first: None };
    let mut octets = Compressor::new().unwrap().compress(content, head).unwrap();
    let whole = octets.len();
    octets.extend(padding(octets.len(), BLOCK_LEN));
    let damaged = usize::from(*at) * 7 % whole;
    octets[damaged] ^= flip;
    let mut unframer = Unframer::new(BLOCK_LEN, Place { block: 0, offset: 0 });
    octets.chunks(BLOCK_LEN).for_each(|block| unframer.block(block));
    match unframer.find() {
        Some(Found::Frame { content: read, .. }) => {
            assert_eq!(read, content);
            1
        }
        Some(Found::Damaged { .. }) | None => {
            assert!(*flip != 0, "what nobody touched is read");
            0
        }
    }
}
