//! Hostile messages. Called by: `crate::fuzz`.
//!
//! Invariants: no panic; parts lie within their parents, no deeper and no more than the bounds say; what is derived from a message is
//! not much larger than it, and the coding in which it is kept reads the same; texts of envelopes have no CR, LF or NUL; dots undone
//! give the same however the text is cut; dots done end exactly where the text does, for strict readers and for lenient ones; an
//! address written is read as the same address.

use std::ops::Range;

use super::address::{self, EnvelopeAddress};
use super::dot::{DotReader, DotWriter, Progress};
use super::header;
use super::structure::{Content, DEPTH_MAX, Envelope, Fields, PARTS_MAX, Part, Structure};
use crate::base::address::Address;

/// Text that a dot reader keeps.
const SIZE_MAX: usize = 20_000;

/// Takes a message apart in every way. Returns its parts.
pub(crate) fn target(data: &[u8]) -> usize {
    let parts = structure(data);
    coding(data);
    fields(data);
    dots(data);
    addresses(data);
    parts
}

fn structure(data: &[u8]) -> usize {
    let structure = Structure::parse(data);
    let end = u32::try_from(data.len()).unwrap();
    let mut count = 0;
    part(&structure.root, &(0..end), 0, &mut count);
    envelope(&structure.envelope);
    assert!(count <= 2 * PARTS_MAX, "{count} parts");
    let encoded = structure.encode();
    assert!(encoded.len() <= 4 * data.len() + (256 << 10), "{} octets of {}", encoded.len(), data.len());
    assert_eq!(Structure::decode(&encoded, 0).as_ref(), Ok(&structure));
    assert_eq!(Envelope::decode(&encoded).as_ref(), Ok(&structure.envelope));
    for path in [&[1][..], &[2, 1], &[1, 1, 1], &[0], &[u32::MAX]] {
        let _part: Option<&Part> = structure.part(path);
    }
    count
}

fn part(part: &Part, within: &Range<u32>, depth: usize, count: &mut usize) {
    *count += 1;
    assert!(depth <= DEPTH_MAX, "{depth} levels");
    let Part { header, body, content, .. } = part;
    assert!(within.start <= header.start && header.start <= header.end && header.end == body.start);
    assert!(body.start <= body.end && body.end <= within.end);
    match content {
        Content::Leaf { .. } => {}
        Content::Multipart(parts) => {
            assert!(!parts.is_empty());
            parts.iter().for_each(|inner| self::part(inner, body, depth + 1, count));
        }
        Content::Message { message, .. } => {
            envelope(&message.envelope);
            self::part(&message.root, body, depth + 1, count);
        }
    }
}

fn envelope(envelope: &Envelope) {
    let Fields { date, subject, from, sender, reply_to, to, cc, bcc, in_reply_to, message_id } = envelope.fields();
    [date, subject, in_reply_to, message_id].into_iter().flatten().for_each(plain);
    [from, sender, reply_to, to, cc, bcc].into_iter().for_each(bounded);
}

fn plain(text: &[u8]) {
    assert!(!text.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)), "{:?}", text.escape_ascii().to_string());
}

fn bounded<T: AsRef<[u8]>>(list: impl IntoIterator<Item = EnvelopeAddress<T>>) {
    let mut count = 0;
    for EnvelopeAddress { name, route, mailbox, host } in list {
        [name, route, mailbox, host].into_iter().flatten().for_each(|text| plain(text.as_ref()));
        count += 1;
    }
    assert!(count <= address::ADDRESSES_MAX);
}

/// As what was kept, and is not what it was.
fn coding(data: &[u8]) {
    for octets in [data, &[&[1], data].concat()] {
        drop(Structure::decode(octets, 7));
        if let Ok(kept) = Envelope::decode(octets) {
            [kept.fields().from, kept.fields().bcc].into_iter().for_each(|list| assert!(list.count() <= octets.len()));
        }
    }
}

fn fields(data: &[u8]) {
    let end = header::block_end(data);
    assert!(end <= data.len());
    for field in header::fields(&data[..end]) {
        plain(&header::unfold(field.value));
        bounded(address::list(field.value));
    }
    bounded(address::list(data));
}

fn dots(data: &[u8]) {
    let whole = read(data, data.len().max(1));
    assert_eq!(read(data, data.len() % 17 + 1), whole, "however it is cut");
    let mut out = Vec::new();
    let mut writer = DotWriter::new();
    data.chunks(data.len() % 13 + 1).for_each(|piece| writer.write(piece, &mut out));
    writer.finish(&mut out);
    let (mut reader, mut text) = (DotReader::new(usize::MAX), Vec::new());
    assert_eq!(reader.receive(&out, &mut text), Progress::Done { used: out.len() }, "the end is at the end");
    if !reader.findings().is_ambiguous() {
        let lacks_end = !data.is_empty() && !data.ends_with(b"\r\n");
        assert_eq!(text, [data, if lacks_end { b"\r\n" } else { b"" }].concat());
    }
    // One who takes CR, LF and both for line ends, and drops NUL, finds no end within.
    let lenient: Vec<u8> = out.iter().copied().filter(|octet| *octet != 0).collect();
    let mut lines = lenient.split(|octet| matches!(octet, b'\r' | b'\n'));
    let ends = lines.by_ref().filter(|line| *line == b".").count();
    assert_eq!(ends, 1, "{:?}", out.escape_ascii().to_string());
}

/// The text, what was found, and where it ended.
fn read(data: &[u8], piece: usize) -> (Vec<u8>, String, Option<usize>) {
    let (mut reader, mut text, mut at) = (DotReader::new(SIZE_MAX), Vec::new(), 0);
    for part in data.chunks(piece) {
        if let Progress::Done { used } = reader.receive(part, &mut text) {
            return (text, format!("{:?}", reader.findings()), Some(at + used));
        }
        at += part.len();
        assert!(text.len() <= SIZE_MAX);
    }
    if reader.findings().too_big {
        text.clear();
    }
    (text, format!("{:?}", reader.findings()), None)
}

fn addresses(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data.get(..data.len().min(400)).unwrap_or_default()) else { return };
    for line in text.lines().chain([text]) {
        let Ok(address) = line.parse::<Address>() else { continue };
        let written = address.to_string();
        assert!(
            !written.contains(char::is_control) && !written.contains(['<', '>']) || written.starts_with('"'),
            "{written:?}"
        );
        assert_eq!(written.parse::<Address>().as_ref(), Ok(&address), "{written:?}");
    }
}
