//! BODY and BODYSTRUCTURE: the parts of a message as one parenthesized list.
//!
//! Owns: its writing, and the numbering of parts. Called by: `imap::fetch`, `imap::section`. Never: parses; the store has done that.
//! Spec: RFC 3501 section 7.4.2 (BODYSTRUCTURE), section 6.4.5 (part numbers).

use super::envelope;
use super::write::{nstring, number, string};
use crate::message::structure::{Content, Mime, Param, Part};

/// The part of this number, such as `[2, 1]`, in a message whose root this is.
#[must_use]
pub(super) fn find<'a>(root: &'a Part, path: &[u32]) -> Option<&'a Part> {
    let mut at = root;
    // RFC 3501 section 6.4.5: a message numbers the parts of its body, and a body that is no multipart is its part 1.
    let mut is_message = true;
    for &number in path {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let (container, entered) = match &at.content {
            Content::Message { message, .. } if !is_message => (&message.root, true),
            Content::Message { .. } | Content::Leaf { .. } | Content::Multipart(_) => (at, is_message),
        };
        at = match &container.content {
            Content::Multipart(parts) => parts.get(index)?,
            Content::Leaf { .. } | Content::Message { .. } if entered && index == 0 => container,
            Content::Leaf { .. } | Content::Message { .. } => return None,
        };
        is_message = false;
    }
    Some(at)
}

/// Appends BODY, or with `extended` BODYSTRUCTURE.
pub(super) fn write(out: &mut Vec<u8>, part: &Part, extended: bool) {
    out.push(b'(');
    match &part.content {
        Content::Multipart(parts) => {
            for part in parts {
                write(out, part, extended);
            }
            out.push(b' ');
            string(out, &part.mime.subtype);
            if extended {
                out.push(b' ');
                write_params(out, &part.mime.params);
                write_extension(out, &part.mime);
            }
        }
        Content::Leaf { .. } | Content::Message { .. } => write_single(out, part, extended),
    }
    out.push(b')');
}

fn write_single(out: &mut Vec<u8>, part: &Part, extended: bool) {
    let mime = &part.mime;
    string(out, &mime.media);
    out.push(b' ');
    string(out, &mime.subtype);
    out.push(b' ');
    write_params(out, &mime.params);
    out.push(b' ');
    nstring(out, mime.id.as_deref());
    out.push(b' ');
    nstring(out, mime.description.as_deref());
    out.push(b' ');
    string(out, &mime.encoding);
    out.push(b' ');
    number(out, u64::from(part.body.end.saturating_sub(part.body.start)));
    match &part.content {
        Content::Message { message, lines } => {
            out.push(b' ');
            envelope::write(out, &message.envelope);
            out.push(b' ');
            write(out, &message.root, extended);
            out.push(b' ');
            number(out, u64::from(*lines));
        }
        // RFC 3501 section 7.4.2: only text has a line count here.
        Content::Leaf { lines } if mime.media == b"text" => {
            out.push(b' ');
            number(out, u64::from(*lines));
        }
        Content::Leaf { .. } | Content::Multipart(_) => {}
    }
    if extended {
        out.push(b' ');
        nstring(out, mime.md5.as_deref());
        write_extension(out, mime);
    }
}

fn write_params(out: &mut Vec<u8>, params: &[Param]) {
    if params.is_empty() {
        nstring(out, None);
        return;
    }
    out.push(b'(');
    for (index, (name, value)) in params.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        string(out, name);
        out.push(b' ');
        string(out, value);
    }
    out.push(b')');
}

/// Disposition, language, location: what every part has at its end.
fn write_extension(out: &mut Vec<u8>, mime: &Mime) {
    out.push(b' ');
    match &mime.disposition {
        Some(disposition) => {
            out.push(b'(');
            string(out, &disposition.kind);
            out.push(b' ');
            write_params(out, &disposition.params);
            out.push(b')');
        }
        None => nstring(out, None),
    }
    out.push(b' ');
    match mime.language.as_slice() {
        [] => nstring(out, None),
        [language] => string(out, language),
        several => {
            out.push(b'(');
            for (index, language) in several.iter().enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                string(out, language);
            }
            out.push(b')');
        }
    }
    out.push(b' ');
    nstring(out, mime.location.as_deref());
}
