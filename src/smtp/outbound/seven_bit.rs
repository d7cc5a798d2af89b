//! Messages for servers that do not take 8-bit text.
//!
//! Owns: coding 8-bit bodies as quoted-printable or base64. Called by: `outbound::session`, `smtp::authentication` (before it signs). Never: changes a header field but
//! Content-Transfer-Encoding (a header beyond ASCII needs SMTPUTF8, or goes as it came).
//! Spec: RFC 6152 section 3, RFC 2045 section 6 (encodings), which also says that a multipart or message has none but 7bit.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::message::header;
use crate::message::structure::{Content, Part, Structure};

/// Characters of a coded line, at most (RFC 2045 section 6.7 and 6.8).
const LINE_LEN_MAX: usize = 76;

/// The message with bodies of ASCII only; none when there is nothing to convert.
#[must_use]
pub fn convert(message: &[u8]) -> Option<Vec<u8>> {
    let structure = Structure::parse(message);
    let mut edits = Vec::new();
    part(message, &structure.root, &mut edits);
    if edits.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(message.len() + message.len() / 2);
    let mut at = 0;
    for (range, text) in edits {
        out.extend_from_slice(message.get(at..range.start)?);
        out.extend_from_slice(&text);
        at = range.end;
    }
    out.extend_from_slice(message.get(at..)?);
    Some(out)
}

/// The same before it is signed, so that the signature outlives a server that takes 7-bit text only (RFC 6376 section 5.3); none too when somebody
/// else has signed 8-bit text in it, which RFC 1847 section 2.1 forbids: as long as all servers take that, his signature is to live.
#[must_use]
pub fn convert_unsigned(message: &[u8]) -> Option<Vec<u8>> {
    let structure = Structure::parse(message);
    if is_signed(message, &structure.root) { None } else { convert(message) }
}

/// Whether there is a `multipart/signed` with 8-bit text in it.
fn is_signed(message: &[u8], part: &Part) -> bool {
    match &part.content {
        Content::Multipart(_) if part.mime.subtype == b"signed" => {
            !message.get(range(&part.body)).unwrap_or_default().is_ascii()
        }
        Content::Multipart(parts) => parts.iter().any(|part| is_signed(message, part)),
        Content::Message { message: inner, .. } => is_signed(message, &inner.root),
        Content::Leaf { .. } => false,
    }
}

/// What is put in place of a range.
type Edit = (Range<usize>, Vec<u8>);

fn range(of: &Range<u32>) -> Range<usize> {
    usize::try_from(of.start).unwrap_or(usize::MAX)..usize::try_from(of.end).unwrap_or(usize::MAX)
}

fn part(message: &[u8], part: &Part, edits: &mut Vec<Edit>) {
    let (head, body) = (range(&part.header), range(&part.body));
    let octets = message.get(body.clone()).unwrap_or_default();
    if octets.is_ascii() {
        return;
    }
    match &part.content {
        Content::Multipart(parts) => {
            encoding(message, head, "7bit", edits);
            for child in parts {
                self::part(message, child, edits);
            }
        }
        Content::Message { message: inner, .. } => {
            encoding(message, head, "7bit", edits);
            self::part(message, &inner.root, edits);
        }
        Content::Leaf { .. } if part.mime.is(b"text") || part.mime.is(b"message") => {
            encoding(message, head, "quoted-printable", edits);
            edits.push((body, quoted_printable(octets)));
        }
        Content::Leaf { .. } => {
            encoding(message, head, "base64", edits);
            edits.push((body, base64(octets)));
        }
    }
}

/// Sets Content-Transfer-Encoding in the header block at this place.
fn encoding(message: &[u8], head: Range<usize>, name: &str, edits: &mut Vec<Edit>) {
    let block = message.get(head.clone()).unwrap_or_default();
    let field = format!("Content-Transfer-Encoding: {name}\r\n").into_bytes();
    let mut at = head.start;
    for known in header::fields(block) {
        let Some(found) = memchr::memmem::find(block.get(at - head.start..).unwrap_or_default(), known.raw) else {
            break;
        };
        at += found;
        if known.is(b"Content-Transfer-Encoding") {
            edits.push((at..at + known.raw.len(), field));
            return;
        }
        at += known.raw.len();
    }
    edits.push((at..at, field));
}

/// RFC 2045 section 6.7; line ends stay line ends.
fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() * 2);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let (text, end) = match line.strip_suffix(b"\r\n") {
            Some(text) => (text, &b"\r\n"[..]),
            None => (line, &b""[..]),
        };
        let mut column = 0;
        for (at, octet) in text.iter().enumerate() {
            let is_last = at + 1 == text.len();
            let plain = matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && !is_last);
            let width = if plain { 1 } else { 3 };
            if column + width > LINE_LEN_MAX - 1 {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            if plain {
                out.push(*octet);
            } else {
                out.extend_from_slice(format!("={octet:02X}").as_bytes());
            }
            column += width;
        }
        out.extend_from_slice(end);
    }
    out
}

/// RFC 2045 section 6.8. The last line end belongs to what follows the part.
fn base64(octets: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(octets);
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.as_bytes().chunks(LINE_LEN_MAX) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out
}
