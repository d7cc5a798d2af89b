//! MIME header fields of a part.
//!
//! Owns: `Mime`: media type, parameters, encoding, disposition, and reading them. Called by: `structure`, search.
//! Never: decodes parameter values (RFC 2231 names and encoded words are given as written: IMAP clients decode them).
//! Spec: RFC 2045 section 5 and 6, RFC 2183 (Content-Disposition), RFC 3282 (Content-Language), RFC 2557 (Content-Location).

use super::address;
use super::header::{self, Field};

/// Parameters of one field that are kept.
pub const PARAMS_MAX: usize = 100;
/// Languages of one part that are kept.
pub const LANGUAGES_MAX: usize = 100;

/// MIME header fields of a part; defaults filled in (RFC 2045 section 5.2: text/plain; charset=us-ascii; 7bit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mime {
    /// Lower case, such as `text`.
    pub media: Vec<u8>,
    /// Lower case, such as `plain`.
    pub subtype: Vec<u8>,
    /// Names lower case, in order; RFC 2231 names as written (`filename*0*`).
    pub params: Vec<Param>,
    pub id: Option<Vec<u8>>,
    pub description: Option<Vec<u8>>,
    /// Lower case.
    pub encoding: Vec<u8>,
    pub md5: Option<Vec<u8>>,
    pub disposition: Option<Disposition>,
    pub language: Vec<Vec<u8>>,
    pub location: Option<Vec<u8>>,
}

/// Name (lower case) and value of a parameter.
pub type Param = (Vec<u8>, Vec<u8>);

/// Content-Disposition (RFC 2183).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposition {
    /// Lower case, such as `attachment`.
    pub kind: Vec<u8>,
    pub params: Vec<Param>,
}

impl Mime {
    /// What a part is that says nothing: text/plain; charset=us-ascii (RFC 2045 section 5.2), or message/rfc822
    /// in a multipart/digest (RFC 2046 section 5.1.5).
    #[must_use]
    pub fn new(in_digest: bool) -> Self {
        let (media, subtype, params) = if in_digest {
            (b"message".to_vec(), b"rfc822".to_vec(), Vec::new())
        } else {
            (b"text".to_vec(), b"plain".to_vec(), vec![(b"charset".to_vec(), b"us-ascii".to_vec())])
        };
        Self {
            media,
            subtype,
            params,
            id: None,
            description: None,
            encoding: b"7bit".to_vec(),
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
        }
    }

    /// Takes what `field` says, when it is a MIME field.
    pub fn read(&mut self, field: &Field<'_>) {
        let Some((prefix, kind)) = field.name.split_at_checked(8) else { return };
        if !prefix.eq_ignore_ascii_case(b"content-") {
            return;
        }
        match kind.to_ascii_lowercase().as_slice() {
            b"type" => self.read_type(field.value),
            b"transfer-encoding" => self.encoding = token(&mut &*header::unfold(field.value)),
            b"id" => self.id = text(field.value),
            b"description" => self.description = text(field.value),
            b"md5" => self.md5 = text(field.value),
            b"location" => self.location = text(field.value),
            b"language" => self.read_language(field.value),
            b"disposition" => {
                let value = header::unfold(field.value);
                let mut rest = value.as_slice();
                let kind = token(&mut rest);
                if !kind.is_empty() {
                    self.disposition = Some(Disposition { kind, params: params(rest) });
                }
            }
            _ => {}
        }
        if self.encoding.is_empty() {
            self.encoding = b"7bit".to_vec();
        }
    }

    fn read_type(&mut self, value: &[u8]) {
        let value = header::unfold(value);
        let mut rest = value.as_slice();
        let media = token(&mut rest);
        let Some(after) = rest.trim_ascii_start().strip_prefix(b"/") else { return };
        rest = after;
        let subtype = token(&mut rest);
        // A malformed type is none at all (RFC 2045 section 5.2).
        if media.is_empty() || subtype.is_empty() {
            return;
        }
        self.params = params(rest);
        if media == b"text" && subtype == b"plain" && self.param(b"charset").is_none() {
            self.params.push((b"charset".to_vec(), b"us-ascii".to_vec()));
        }
        (self.media, self.subtype) = (media, subtype);
    }

    fn read_language(&mut self, value: &[u8]) {
        let value = header::unfold(value);
        let tags = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty());
        self.language = tags.take(LANGUAGES_MAX).map(<[u8]>::to_vec).collect();
    }

    /// The value of a parameter of Content-Type.
    #[must_use]
    pub fn param(&self, name: &[u8]) -> Option<&[u8]> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// Whether it is of this media type, such as `multipart`.
    #[must_use]
    pub fn is(&self, media: &[u8]) -> bool {
        self.media == media
    }

    /// Whether its body is a message (RFC 2046 section 5.2.1, RFC 6532 section 3.7).
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.is(b"message") && (self.subtype == b"rfc822" || self.subtype == b"global")
    }
}

/// Unstructured text on one line; none when it is empty.
pub(super) fn text(value: &[u8]) -> Option<Vec<u8>> {
    Some(header::unfold(value)).filter(|text| !text.is_empty())
}

fn skip_blanks(input: &mut &[u8]) {
    loop {
        *input = input.trim_ascii_start();
        if !input.starts_with(b"(") {
            return;
        }
        drop(address::comment(input));
    }
}

/// A token (RFC 2045 section 5.1) in lower case; empty when there is none.
fn token(input: &mut &[u8]) -> Vec<u8> {
    skip_blanks(input);
    let special = |byte: &u8| byte.is_ascii_whitespace() || b"()<>@,;:\\\"/[]?=".contains(byte);
    let length = input.iter().position(special).unwrap_or(input.len());
    let (token, rest) = input.split_at_checked(length).unwrap_or((*input, &[]));
    *input = rest;
    token.to_ascii_lowercase()
}

/// `; name=value; name="value"`, as far as it can be made out.
fn params(input: &[u8]) -> Vec<Param> {
    let mut out = Vec::new();
    let mut input = input;
    while out.len() < PARAMS_MAX {
        let Some(at) = memchr::memchr(b';', input) else { break };
        input = input.get(at + 1..).unwrap_or_default();
        let name = token(&mut input);
        skip_blanks(&mut input);
        let Some(rest) = input.strip_prefix(b"=") else { continue };
        input = rest;
        skip_blanks(&mut input);
        let value = if input.starts_with(b"\"") { quoted(&mut input) } else { bare(&mut input) };
        if !name.is_empty() {
            out.push((name, value));
        }
    }
    out
}

fn quoted(input: &mut &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = input.iter().enumerate().skip(1);
    let mut end = input.len();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => {
                end = at + 1;
                break;
            }
            b'\\' => out.extend(bytes.next().map(|(_, &byte)| byte)),
            other => out.push(other),
        }
    }
    *input = input.get(end..).unwrap_or_default();
    out
}

/// A value without quotes: up to the next `;` (more than a token, as unquoted file names with blanks are common).
fn bare(input: &mut &[u8]) -> Vec<u8> {
    let length = memchr::memchr2(b';', b'(', input).unwrap_or(input.len());
    let (value, rest) = input.split_at_checked(length).unwrap_or((*input, &[]));
    *input = rest;
    value.trim_ascii_end().to_vec()
}
