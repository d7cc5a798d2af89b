//! The envelope and the MIME structure of a message, as IMAP shows them.
//!
//! Owns: `Structure`, `Envelope`, `Part`; parsing them out of a message and
//! coding them compactly, so that they are derived once, at delivery.
//! Called by: the mailbox store (parses, keeps), IMAP (shows).
//! Never: decodes content; goes deeper than `DEPTH_MAX` or wider than `PARTS_MAX`.
//! Spec: RFC 9051 section 7.5.2 (ENVELOPE, BODYSTRUCTURE), RFC 2045, RFC 2046.

use std::ops::Range;

use super::address::EnvelopeAddress;

/// Parts inside parts; deeper ones are shown as one leaf.
pub const DEPTH_MAX: usize = 32;
/// Parts of one message; what comes after them is not told apart any more.
pub const PARTS_MAX: usize = 1_000;

/// Envelope and parts of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// What the header block says about sender, recipients, subject.
    pub envelope: Envelope,
    /// The message as a part: its header block, its body.
    pub root: Part,
}

/// The envelope structure of RFC 9051 section 7.5.2. Text is as in the header: unfolded, not decoded, any bytes but NUL, CR, LF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    pub date: Option<Vec<u8>>,
    pub subject: Option<Vec<u8>>,
    pub from: Vec<EnvelopeAddress>,
    /// As `from` when the message has none (RFC 9051 section 7.5.2), so too `reply_to`.
    pub sender: Vec<EnvelopeAddress>,
    pub reply_to: Vec<EnvelopeAddress>,
    pub to: Vec<EnvelopeAddress>,
    pub cc: Vec<EnvelopeAddress>,
    pub bcc: Vec<EnvelopeAddress>,
    pub in_reply_to: Option<Vec<u8>>,
    pub message_id: Option<Vec<u8>>,
}

/// A part of a message. Offsets count from the first byte of what `Store::message` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its header block (MIME headers; for the root: the message's), blank line included.
    pub header: Range<u32>,
    /// Its body, as transferred.
    pub body: Range<u32>,
    /// What its MIME header fields say.
    pub mime: Mime,
    /// What is in it.
    pub content: Content,
}

/// MIME header fields of a part; defaults filled in (RFC 2045 section 5.2: text/plain; charset=us-ascii, 7bit).
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
    /// Lower case.
    pub kind: Vec<u8>,
    pub params: Vec<Param>,
}

/// What a part holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Neither multipart nor message. `lines`: line ends in the body, counted for text.
    Leaf { lines: u32 },
    /// The parts of a multipart; never empty (a multipart without parts is given as one empty leaf).
    Multipart(Vec<Part>),
    /// message/rfc822 or message/global: a message of its own.
    Message { message: Box<Structure>, lines: u32 },
}
