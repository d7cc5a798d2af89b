//! Header blocks: where they end, which fields they have.
//!
//! Owns: finding the blank line, cutting a block into fields, unfolding. Called by:
//! `structure`, IMAP (`HEADER.FIELDS`), POP3 (`TOP`). Never: decodes (see `text`).
//! Spec: RFC 5322 section 2.2 (header fields), section 2.2.3 (folding).

use std::ops::Range;

/// Where the header block of `message` ends: after its blank line, or at the end of the message when there is none.
///
/// Bare LF ends a line too: old messages are full of it.
#[must_use]
pub fn block_end(message: &[u8]) -> usize {
    let mut start = 0;
    while let Some(length) = memchr::memchr(b'\n', message.get(start..).unwrap_or_default()) {
        let line = message.get(start..start + length).unwrap_or_default();
        start += length + 1;
        if matches!(line, b"" | b"\r") {
            return start;
        }
    }
    message.len()
}

/// One field of a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Name as written, without the colon.
    pub name: &'a [u8],
    /// All after the colon, folded as written, without the last line end.
    pub value: &'a [u8],
    /// The whole field with its line ends, as it stands in the message.
    pub raw: &'a [u8],
}

impl Field<'_> {
    /// Whether this is the field called `name` (letter case does not matter, RFC 5322 section 1.2.2).
    #[must_use]
    pub fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The fields of a header block, in order. Lines that are no fields (no colon, an mbox "From " line) are passed over.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    block: &'a [u8],
}

/// The fields of `block`, a header block with or without its blank line.
#[must_use]
pub fn fields(block: &[u8]) -> Fields<'_> {
    Fields { block }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let range = field_range(self.block)?;
            let (raw, rest) = self.block.split_at_checked(range.end)?;
            self.block = rest;
            let Some(colon) = memchr::memchr(b':', raw) else { continue };
            let (name, value) = raw.split_at_checked(colon)?;
            // RFC 5322 section 4.5 lets old messages have blanks before the colon.
            let name = name.trim_ascii_end();
            if name.is_empty() || !name.iter().all(|&byte| byte > b' ' && byte != 0x7f) {
                continue;
            }
            return Some(Field { name, value: trim_line_end(value.get(1..)?), raw });
        }
    }
}

/// The first field with its continuation lines; `None` at the blank line or at the end.
fn field_range(block: &[u8]) -> Option<Range<usize>> {
    if block.is_empty() || block.starts_with(b"\n") || block.starts_with(b"\r\n") {
        return None;
    }
    let mut end = 0;
    loop {
        let rest = block.get(end..)?;
        end = match memchr::memchr(b'\n', rest) {
            Some(length) => end + length + 1,
            None => block.len(),
        };
        match block.get(end) {
            Some(b' ' | b'\t') => {}
            Some(_) | None => return Some(0..end),
        }
    }
}

fn trim_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// A field's value on one line: line ends taken out (RFC 5322 section 2.2.3), blanks at both ends too, NUL as well,
/// which no IMAP string can carry (RFC 9051 section 4.3).
#[must_use]
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let value = value.trim_ascii();
    // Most fields are one line.
    if memchr::memchr3(b'\r', b'\n', 0, value).is_none() {
        return value.to_vec();
    }
    value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)).collect()
}
