//! BODY[section]<partial>: which bytes of a message are meant.
//!
//! Owns: `Section`, `Partial` and their resolution. Called by: `imap::fetch`. Never: copies a body; header subsets are new bytes.
//! Spec: RFC 3501 section 6.4.5.

use std::ops::Range;

use bytes::Bytes;

use super::write;
use crate::message::header;
use crate::message::structure::{Content, Structure};

/// A section specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The part number; empty for the message itself.
    pub path: Vec<u32>,
    pub what: What,
}

/// What of the part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// All of it: the message with its header, or the body of a part.
    Everything,
    Header,
    /// The fields of these names, or with `not` all others.
    Fields {
        names: Vec<Vec<u8>>,
        not: bool,
    },
    Text,
    Mime,
}

/// `<offset.length>`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    pub offset: u32,
    pub length: u32,
}

impl Section {
    /// Whether the structure of the message must be known.
    #[must_use]
    pub fn needs_structure(&self) -> bool {
        !self.path.is_empty()
    }

    /// Whether the header of the message is enough.
    #[must_use]
    pub fn needs_header_only(&self) -> bool {
        self.path.is_empty() && matches!(self.what, What::Header | What::Fields { .. })
    }

    /// The bytes that are meant; `None` when the message has no such section. `structure` must be given when
    /// `needs_structure`. When `needs_header_only`, the header block may stand for the message.
    #[must_use]
    pub fn resolve(&self, message: &Bytes, structure: Option<&Structure>) -> Option<Bytes> {
        if self.path.is_empty() {
            let header_end = header::block_end(message);
            return self.of_message(message, 0..header_end, header_end..message.len(), 0..message.len());
        }
        let part = structure?.part(&self.path)?;
        let body = usize_range(&part.body);
        match &self.what {
            What::Everything => slice(message, body),
            What::Mime => slice(message, usize_range(&part.header)),
            What::Header | What::Fields { .. } | What::Text => {
                // RFC 3501 section 6.4.5: these refer to the message within a part of type message/rfc822.
                let Content::Message { message: inner, .. } = &part.content else { return None };
                self.of_message(message, usize_range(&inner.root.header), usize_range(&inner.root.body), body)
            }
        }
    }

    fn of_message(
        &self,
        message: &Bytes,
        header: Range<usize>,
        body: Range<usize>,
        whole: Range<usize>,
    ) -> Option<Bytes> {
        match &self.what {
            What::Everything => slice(message, whole),
            What::Header => slice(message, header),
            What::Text => slice(message, body),
            What::Fields { names, not } => Some(subset(message.get(header)?, names, *not)),
            What::Mime => None,
        }
    }

    /// Appends the specification as responses repeat it: `[1.HEADER.FIELDS (From)]`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, &number) in self.path.iter().enumerate() {
            if index > 0 {
                out.push(b'.');
            }
            write::number(out, u64::from(number));
        }
        let word: &[u8] = match &self.what {
            What::Everything => b"",
            What::Header => b"HEADER",
            What::Fields { not: false, .. } => b"HEADER.FIELDS (",
            What::Fields { not: true, .. } => b"HEADER.FIELDS.NOT (",
            What::Text => b"TEXT",
            What::Mime => b"MIME",
        };
        if !self.path.is_empty() && !word.is_empty() {
            out.push(b'.');
        }
        out.extend_from_slice(word);
        if let What::Fields { names, .. } = &self.what {
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                write_name(out, name);
            }
            out.push(b')');
        }
        out.push(b']');
    }
}

fn usize_range(range: &Range<u32>) -> Range<usize> {
    let offset = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
    offset(range.start)..offset(range.end)
}

/// A part of the message without a copy; `None` when the structure does not fit the message.
fn slice(message: &Bytes, range: Range<usize>) -> Option<Bytes> {
    (range.start <= range.end && range.end <= message.len()).then(|| message.slice(range))
}

/// A field name as the client wrote it: an atom where it can be one.
fn write_name(out: &mut Vec<u8>, name: &[u8]) {
    if !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        out.extend_from_slice(name);
    } else {
        write::string(out, name);
    }
}

/// The chosen fields and the blank line, which is always part of the answer (RFC 3501 section 6.4.5).
fn subset(header: &[u8], names: &[Vec<u8>], not: bool) -> Bytes {
    let mut chosen = Vec::new();
    for field in header::fields(header) {
        if names.iter().any(|name| field.is(name)) != not {
            chosen.extend_from_slice(field.raw);
        }
    }
    chosen.extend_from_slice(b"\r\n");
    chosen.into()
}

impl Partial {
    /// Cuts; beyond the end there is nothing (RFC 3501 section 6.4.5).
    #[must_use]
    pub fn cut(self, bytes: &Bytes) -> Bytes {
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX).min(bytes.len());
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        bytes.slice(start..start.saturating_add(length).min(bytes.len()))
    }
}
