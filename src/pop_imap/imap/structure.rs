//! BODY and BODYSTRUCTURE: the parts of a message as one parenthesized list.
//!
//! Owns: its writing. Called by: `imap::run`. Never: parses; the store has done that.
//! Spec: RFC 3501 section 7.4.2 (BODYSTRUCTURE) and section 9 (body).

use super::envelope;
use super::write::{nstring, number, string};
use crate::message::structure::{Content, Mime, Param, Part};

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
    if is_opaque(part) {
        string(out, b"application");
        out.push(b' ');
        string(out, b"octet-stream");
    } else {
        string(out, &mime.media);
        out.push(b' ');
        string(out, &mime.subtype);
    }
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

/// A composite type whose content is not taken apart (too deep, or encoded). RFC 3501 section 9 (body): its name promises
/// parts or an envelope, and clients would read on for them.
fn is_opaque(part: &Part) -> bool {
    let is_message = part.mime.media == b"message" && matches!(part.mime.subtype.as_slice(), b"rfc822" | b"global");
    matches!(part.content, Content::Leaf { .. }) && (is_message || part.mime.media == b"multipart")
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
