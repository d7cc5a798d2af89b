//! Search in the text of messages: charsets and transfer encodings decoded, letter case ignored.
//!
//! Owns: `matches`. Called by: `Store::search_text`. Never: keeps an index; goes deeper into a message than its
//! structure does.
//! Spec: RFC 9051 section 6.4.4 (BODY, HEADER, TEXT), RFC 2047 (encoded words).

use std::borrow::Cow;

use mail_parser::HeaderValue;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;
use memchr::memmem::{self, Finder};

use super::Where;
use crate::message::header;
use crate::message::structure::{Content, Part, Structure};

/// What is looked for, made ready.
#[derive(Debug)]
pub(super) struct Needle {
    /// In lower case.
    folded: String,
    /// The same to look for in undecoded bytes, if it would stand there as it is.
    plain: Option<Finder<'static>>,
}

/// Traces of encodings in which ASCII text may look different, in lower case.
const DISGUISES: [&[u8]; 8] =
    [b"=?", b"quoted-printable", b"base64", b"utf-7", b"utf-16", b"utf-32", b"iso-2022", b"hz-gb"];

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        let folded = fold(text);
        // Blanks may be a line's end in the raw message, and what follows a colon is put there by `in_fields`.
        let stands = !folded.is_empty() && folded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        let plain = stands.then(|| Finder::new(folded.as_bytes()).into_owned());
        Self { folded, plain }
    }

    /// Whether the undecoded bytes are enough to tell that the message cannot have it: most messages that do not, and at a
    /// tenth of the cost of decoding them.
    fn is_out_of_the_question(&self, message: &[u8]) -> bool {
        let Some(plain) = &self.plain else { return false };
        if !message.is_ascii() {
            return false;
        }
        let folded = message.to_ascii_lowercase();
        plain.find(&folded).is_none() && DISGUISES.iter().all(|trace| memmem::find(&folded, trace).is_none())
    }

    fn is_in(&self, text: &str) -> bool {
        memmem::find(fold(text).as_bytes(), self.folded.as_bytes()).is_some()
    }

    /// Whether the message has it at that place.
    pub(super) fn matches(&self, message: &[u8], place: &Where) -> bool {
        if self.is_out_of_the_question(message) {
            return false;
        }
        match place {
            Where::Header(name) => self.in_fields(message, Some(name)),
            Where::Body => self.in_part(message, &Structure::parse(message).root),
            Where::Text => self.in_fields(message, None) || self.in_part(message, &Structure::parse(message).root),
        }
    }

    /// In the fields of that name, or in all fields with their names.
    fn in_fields(&self, message: &[u8], name: Option<&str>) -> bool {
        let block = message.get(..header::block_end(message)).unwrap_or_default();
        header::fields(block).any(|field| match name {
            // RFC 9051 section 6.4.4: an empty string finds all that have the field.
            Some(name) => field.is(name.as_bytes()) && self.is_in(&decoded_value(field.value)),
            None => {
                let name = String::from_utf8_lossy(field.name);
                self.is_in(&format!("{name}: {}", decoded_value(field.value)))
            }
        })
    }

    /// In the text of a part and of all that is in it.
    fn in_part(&self, message: &[u8], part: &Part) -> bool {
        match &part.content {
            Content::Multipart(parts) => parts.iter().any(|part| self.in_part(message, part)),
            Content::Message { message: inner, .. } => {
                let start = usize::try_from(inner.root.header.start).unwrap_or(usize::MAX);
                let inner_message = message.get(start..).unwrap_or_default();
                self.in_fields(inner_message, None) || self.in_part(message, &inner.root)
            }
            Content::Leaf { .. } if part.mime.is(b"text") => self.is_in(&text_of(message, part)),
            Content::Leaf { .. } => false,
        }
    }
}

fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() }
}

/// A field's value on one line, encoded words decoded.
fn decoded_value(value: &[u8]) -> String {
    let line = header::unfold(value);
    if memmem::find(&line, b"=?").is_none() {
        return String::from_utf8_lossy(&line).into_owned();
    }
    // The parser wants the line end of a field.
    let mut field = line;
    field.extend_from_slice(b"\r\n");
    let parsed = MessageStream::new(&field).parse_unstructured();
    let HeaderValue::Text(text) = parsed else { return String::from_utf8_lossy(&field).into_owned() };
    text.into_owned()
}

/// The text of a leaf.
fn text_of<'a>(message: &'a [u8], part: &Part) -> Cow<'a, str> {
    let offset = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
    let raw = message.get(offset(part.body.start)..offset(part.body.end)).unwrap_or_default();
    let bytes = match part.mime.encoding.as_slice() {
        b"base64" => MessageStream::new(raw).decode_base64_mime(b""),
        b"quoted-printable" => MessageStream::new(raw).decode_quoted_printable_mime(b""),
        _ => (raw.len(), Cow::Borrowed(raw)),
    };
    // What cannot be decoded is searched as it is.
    let bytes = if bytes.0 == usize::MAX { Cow::Borrowed(raw) } else { bytes.1 };
    match part.mime.param(b"charset").and_then(charset_decoder) {
        Some(decode) if !bytes.is_ascii() || is_stateful(part) => Cow::Owned(decode(&bytes)),
        Some(_) | None => match bytes {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        },
    }
}

/// Charsets in which ASCII bytes may stand for other characters.
fn is_stateful(part: &Part) -> bool {
    let charset = part.mime.param(b"charset").unwrap_or_default().to_ascii_lowercase();
    [b"iso-2022".as_slice(), b"utf-7", b"utf-16", b"utf-32", b"hz-gb"]
        .iter()
        .any(|stateful| charset.starts_with(stateful))
}
