//! How structures are kept: envelope first, so that it can be read alone.
//!
//! Owns: coding and decoding of `Structure`. Called by: the mailbox store. Never: trusts what it reads.

use super::{Content, DEPTH_MAX, Disposition, Envelope, Mime, Param, Part, Structure};
use crate::message::pack::{Malformed, Packer, Unpacker};

/// First byte of the coding; another one means: derive it again.
const VERSION: u8 = 1;

const LEAF: u8 = 0;
const MULTIPART: u8 = 1;
const MESSAGE: u8 = 2;

impl Structure {
    /// The structure as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Packer::with_capacity(512);
        out.byte(VERSION);
        structure(&mut out, self);
        out.finish()
    }

    /// The structure back. `trace` is how many bytes were put before the message since: all offsets move by it, and
    /// the header block of the message begins with it.
    ///
    /// # Errors
    /// When `bytes` are not what `encode` gave.
    pub fn decode(bytes: &[u8], trace: u32) -> Result<Self, Malformed> {
        let mut reader = Reader { bytes: versioned(bytes)?, trace };
        let mut structure = reader.structure(0)?;
        structure.root.header.start = 0;
        Ok(structure)
    }
}

impl Envelope {
    /// The envelope alone, out of an encoded structure.
    ///
    /// # Errors
    /// When `bytes` are not what `Structure::encode` gave.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::unpack(&mut versioned(bytes)?)
    }
}

fn versioned(bytes: &[u8]) -> Result<Unpacker<'_>, Malformed> {
    let mut reader = Unpacker::new(bytes);
    if reader.byte()? == VERSION { Ok(reader) } else { Err(Malformed) }
}

fn structure(out: &mut Packer, structure: &Structure) {
    structure.envelope.pack(out);
    part(out, &structure.root);
}

fn part(out: &mut Packer, part: &Part) {
    for offset in [part.header.start, part.body.start, part.body.end] {
        out.number(offset.into());
    }
    mime(out, &part.mime);
    match &part.content {
        Content::Leaf { lines } => {
            out.byte(LEAF);
            out.number((*lines).into());
        }
        Content::Multipart(parts) => {
            out.byte(MULTIPART);
            out.count(parts.len());
            for child in parts {
                self::part(out, child);
            }
        }
        Content::Message { message, lines } => {
            out.byte(MESSAGE);
            out.number((*lines).into());
            structure(out, message);
        }
    }
}

fn mime(out: &mut Packer, mime: &Mime) {
    for text in [&mime.media, &mime.subtype, &mime.encoding] {
        out.bytes(text);
    }
    params(out, &mime.params);
    for text in [&mime.id, &mime.description, &mime.md5, &mime.location] {
        out.optional(text.as_deref());
    }
    out.optional(mime.disposition.as_ref().map(|disposition| disposition.kind.as_slice()));
    if let Some(disposition) = &mime.disposition {
        params(out, &disposition.params);
    }
    out.count(mime.language.len());
    for tag in &mime.language {
        out.bytes(tag);
    }
}

fn params(out: &mut Packer, params: &[Param]) {
    out.count(params.len());
    for (name, value) in params {
        out.bytes(name);
        out.bytes(value);
    }
}

struct Reader<'a> {
    bytes: Unpacker<'a>,
    trace: u32,
}

impl Reader<'_> {
    fn structure(&mut self, depth: usize) -> Result<Structure, Malformed> {
        Ok(Structure { envelope: Envelope::unpack(&mut self.bytes)?, root: self.part(depth)? })
    }

    fn text(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        Ok(self.bytes.optional()?.map(<[u8]>::to_vec))
    }

    fn offset(&mut self) -> Result<u32, Malformed> {
        self.bytes.number32()?.checked_add(self.trace).ok_or(Malformed)
    }

    fn part(&mut self, depth: usize) -> Result<Part, Malformed> {
        // A message and its root part are one level in the walk that made this.
        if depth > DEPTH_MAX {
            return Err(Malformed);
        }
        let [start, body, end] = [self.offset()?, self.offset()?, self.offset()?];
        if start > body || body > end {
            return Err(Malformed);
        }
        let mime = self.mime()?;
        let content = match self.bytes.byte()? {
            LEAF => Content::Leaf { lines: self.bytes.number32()? },
            MULTIPART => {
                let count = self.bytes.count()?;
                let parts: Result<Vec<Part>, Malformed> = (0..count).map(|_| self.part(depth + 1)).collect();
                Content::Multipart(parts?)
            }
            MESSAGE => {
                let lines = self.bytes.number32()?;
                Content::Message { message: Box::new(self.structure(depth + 1)?), lines }
            }
            _ => return Err(Malformed),
        };
        Ok(Part { header: start..body, body: body..end, mime, content })
    }

    fn mime(&mut self) -> Result<Mime, Malformed> {
        let [media, subtype, encoding] = [self.bytes.bytes()?, self.bytes.bytes()?, self.bytes.bytes()?];
        let params = self.params()?;
        let [id, description, md5, location] = [self.text()?, self.text()?, self.text()?, self.text()?];
        let disposition = match self.text()? {
            None => None,
            Some(kind) => Some(Disposition { kind, params: self.params()? }),
        };
        let count = self.bytes.count()?;
        let language: Result<Vec<Vec<u8>>, Malformed> = (0..count).map(|_| Ok(self.bytes.bytes()?.to_vec())).collect();
        Ok(Mime {
            media: media.to_vec(),
            subtype: subtype.to_vec(),
            params,
            id,
            description,
            encoding: encoding.to_vec(),
            md5,
            disposition,
            language: language?,
            location,
        })
    }

    fn params(&mut self) -> Result<Vec<Param>, Malformed> {
        let count = self.bytes.count()?;
        (0..count).map(|_| Ok((self.bytes.bytes()?.to_vec(), self.bytes.bytes()?.to_vec()))).collect()
    }
}
