//! The envelope and the MIME structure of a message, as IMAP shows them.
//!
//! Owns: `Structure`, `Part`, reading them out of a message. Called by: the mailbox store (derives
//! them once, at delivery, and keeps them in the coding of `coding`), IMAP (shows them), search.
//! Never: decodes content; goes deeper than `DEPTH_MAX` or wider than `PARTS_MAX`, whatever the message does.
//! Spec: RFC 9051 section 7.5.2 (ENVELOPE, BODYSTRUCTURE), RFC 2045, RFC 2046 section 5.1 (multipart).

mod coding;
mod envelope;

use std::ops::Range;

use super::header;
pub use super::mime::{Disposition, Mime, Param};
use envelope::Draft;
pub use envelope::{Addresses, ENVELOPE_FIELD_LEN_MAX, Envelope, Fields};

/// Parts inside parts; deeper ones are shown as one leaf.
pub const DEPTH_MAX: usize = 32;
/// Parts of one message; what would be more is not split any further.
pub const PARTS_MAX: usize = 1_000;

/// Envelope and parts of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// What the header block says about sender, recipients, subject.
    pub envelope: Envelope,
    /// The message as a part: its header block, its body.
    pub root: Part,
}

/// A part of a message. Offsets count from the first byte of the message (of what the store gives: trace included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its header block (MIME headers; for the root: the message's), blank line included.
    pub header: Range<u32>,
    /// Its body, as transferred. Begins where the header block ends.
    pub body: Range<u32>,
    /// What its MIME header fields say.
    pub mime: Mime,
    /// What is in it.
    pub content: Content,
}

/// What a part holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Neither multipart nor message. `lines`: line ends in the body.
    Leaf { lines: u32 },
    /// The parts of a multipart; never empty (a multipart without parts is given one empty leaf).
    Multipart(Vec<Part>),
    /// message/rfc822 or message/global: a message of its own.
    Message { message: Box<Structure>, lines: u32 },
}

impl Structure {
    /// Reads a whole message. Never fails: what cannot be made out is a leaf.
    #[must_use]
    pub fn parse(message: &[u8]) -> Self {
        let mut walk = Walk { message, parts: 0 };
        walk.message(0..message.len(), 0)
    }

    /// The part that IMAP calls by these numbers (`[2, 1]` for `BODY[2.1]`); none when there is no such part.
    ///
    /// RFC 9051 section 6.4.5: a message that is no multipart has its body as part 1, and so has a message inside one.
    #[must_use]
    pub fn part(&self, path: &[u32]) -> Option<&Part> {
        let mut holder = &self.root;
        let mut part = &self.root;
        for (depth, &number) in path.iter().enumerate() {
            // The children are those of the multipart, or of the root of the message in it.
            if depth > 0 {
                holder = match &part.content {
                    Content::Message { message, .. } => &message.root,
                    Content::Multipart(_) => part,
                    Content::Leaf { .. } => return None,
                };
            }
            let index = usize::try_from(number.checked_sub(1)?).ok()?;
            part = match &holder.content {
                Content::Multipart(children) => children.get(index)?,
                Content::Leaf { .. } | Content::Message { .. } if index == 0 => holder,
                Content::Leaf { .. } | Content::Message { .. } => return None,
            };
        }
        Some(part)
    }
}

/// One walk through a message.
struct Walk<'a> {
    message: &'a [u8],
    parts: usize,
}

impl<'a> Walk<'a> {
    fn bytes(&self, range: &Range<usize>) -> &'a [u8] {
        self.message.get(range.clone()).unwrap_or_default()
    }

    fn message(&mut self, range: Range<usize>, depth: usize) -> Structure {
        let mut draft = Draft::default();
        let root = self.part(range, depth, false, Some(&mut draft));
        Structure { envelope: draft.finish(), root }
    }

    fn part(&mut self, range: Range<usize>, depth: usize, in_digest: bool, envelope: Option<&mut Draft>) -> Part {
        self.parts += 1;
        let body_start = range.start + header::block_end(self.bytes(&range));
        let mut mime = Mime::new(in_digest);
        let mut envelope = envelope;
        for field in header::fields(self.bytes(&(range.start..body_start))) {
            mime.read(&field);
            if let Some(envelope) = envelope.as_deref_mut() {
                envelope.read(&field);
            }
        }
        let body = body_start..range.end;
        let content = self.content(&mime, &body, depth);
        Part { header: offsets(&(range.start..body_start)), body: offsets(&body), mime, content }
    }

    fn content(&mut self, mime: &Mime, body: &Range<usize>, depth: usize) -> Content {
        let lines = || count(memchr::memchr_iter(b'\n', self.bytes(body)).count());
        if depth >= DEPTH_MAX || self.parts >= PARTS_MAX {
            return Content::Leaf { lines: lines() };
        }
        // RFC 2045 section 6.4: composite types have no encoding; a message that has one is opaque to IMAP.
        let transparent = matches!(mime.encoding.as_slice(), b"7bit" | b"8bit" | b"binary");
        if mime.is_message() && transparent {
            let lines = lines();
            return Content::Message { message: Box::new(self.message(body.clone(), depth + 1)), lines };
        }
        if mime.is(b"multipart")
            && let Some(boundary) = mime.param(b"boundary").filter(|boundary| !boundary.is_empty())
        {
            return Content::Multipart(self.multipart(boundary, body, depth, mime.subtype == b"digest"));
        }
        if mime.is(b"multipart") {
            return Content::Multipart(vec![empty_leaf(body.end)]);
        }
        Content::Leaf { lines: lines() }
    }

    fn multipart(&mut self, boundary: &[u8], body: &Range<usize>, depth: usize, in_digest: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut delimiters = Delimiters { bytes: self.bytes(body), boundary, at: 0 };
        // All before the first delimiter is preamble, all after the closing one epilogue (RFC 2046 section 5.1.1).
        let mut open = delimiters.next();
        while let Some(delimiter) = open
            && !delimiter.closing
            && self.parts < PARTS_MAX
        {
            open = delimiters.next();
            let end = open.as_ref().map_or(body.end, |next| body.start + next.start);
            let start = (body.start + delimiter.end).min(end);
            parts.push(self.part(start..end, depth + 1, in_digest, None));
        }
        if parts.is_empty() {
            parts.push(empty_leaf(body.end));
        }
        parts
    }
}

/// RFC 9051 section 9: a multipart has at least one part.
fn empty_leaf(at: usize) -> Part {
    let nothing = offsets(&(at..at));
    Part { header: nothing.clone(), body: nothing, mime: Mime::new(false), content: Content::Leaf { lines: 0 } }
}

/// A delimiter line: the line end before it belongs to it (RFC 2046 section 5.1.1).
struct Delimiter {
    start: usize,
    end: usize,
    closing: bool,
}

/// The delimiter lines of one boundary.
struct Delimiters<'a> {
    bytes: &'a [u8],
    boundary: &'a [u8],
    at: usize,
}

impl Delimiters<'_> {
    fn next(&mut self) -> Option<Delimiter> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            let found = self.at + memchr::memmem::find(rest, b"--")?;
            let at_line_start = found == 0 || self.bytes.get(found - 1) == Some(&b'\n');
            let after = self.bytes.get(found + 2..)?;
            if !at_line_start || !after.starts_with(self.boundary) {
                // Dashes in a row (signatures, drawn lines) are stepped over as one.
                let dashes = after.iter().take_while(|&&byte| byte == b'-').count();
                self.at = found + 2 + dashes;
                continue;
            }
            let after = after.get(self.boundary.len()..)?;
            let (closing, tail) = match after.strip_prefix(b"--") {
                Some(tail) => (true, tail),
                None => (false, after),
            };
            let length = memchr::memchr(b'\n', tail).map_or(tail.len(), |at| at + 1);
            let line = tail.get(..length)?;
            self.at = self.bytes.len() - tail.len() + length;
            // RFC 2046 section 5.1.1: only blanks may follow; else it is another, longer boundary.
            if !line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let before = self.bytes.get(..found)?;
            let before = before.strip_suffix(b"\n").unwrap_or(before);
            let start = before.strip_suffix(b"\r").unwrap_or(before).len();
            return Some(Delimiter { start, end: self.at, closing });
        }
    }
}

/// Offsets as they are kept: 32 bits, as the store takes no message that is longer.
fn offsets(range: &Range<usize>) -> Range<u32> {
    count(range.start)..count(range.end)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
