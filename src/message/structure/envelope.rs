//! The envelope of a message: packed once, and read where it lies.
//!
//! Owns: `Envelope`, what is in it (`Fields`, `Addresses`), its coding, the header fields that make it (`Draft`). Called by:
//! `structure` (makes it), the mailbox store (keeps it), IMAP (shows it). Never: allocates to be read; trusts what it reads.
//! Spec: RFC 9051 section 7.5.2.

use crate::message::address::{self, EnvelopeAddress};
use crate::message::header::{self, Field};
use crate::message::pack::{Malformed, Packer, Unpacker};

/// Octets of one envelope field that are kept.
pub const ENVELOPE_FIELD_LEN_MAX: usize = 64 << 10;

/// The envelope structure of RFC 9051 section 7.5.2, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope(Vec<u8>);

/// What an envelope says. Text is as in the header: unfolded, not decoded, any bytes but NUL, CR, LF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    pub date: Option<&'a [u8]>,
    pub subject: Option<&'a [u8]>,
    pub from: Addresses<'a>,
    /// As `from` when the message has none (RFC 9051 section 7.5.2), so too `reply_to`.
    pub sender: Addresses<'a>,
    pub reply_to: Addresses<'a>,
    pub to: Addresses<'a>,
    pub cc: Addresses<'a>,
    pub bcc: Addresses<'a>,
    pub in_reply_to: Option<&'a [u8]>,
    pub message_id: Option<&'a [u8]>,
}

/// The addresses of a list, one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses<'a> {
    left: usize,
    packed: &'a [u8],
}

impl Envelope {
    /// What it says.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        // It was read to its end, or made here: it can be read again.
        Fields::read(&mut Unpacker::new(&self.0)).unwrap_or_default()
    }

    /// Takes the next one.
    pub(super) fn unpack(input: &mut Unpacker<'_>) -> Result<Self, Malformed> {
        let all = input.rest();
        Fields::read(input)?;
        let packed = all.get(..all.len() - input.rest().len()).ok_or(Malformed)?;
        Ok(Self(packed.to_vec()))
    }

    pub(super) fn pack(&self, out: &mut Packer) {
        out.raw(&self.0);
    }
}

impl<'a> Fields<'a> {
    fn read(input: &mut Unpacker<'a>) -> Result<Self, Malformed> {
        let [date, subject] = [input.optional()?, input.optional()?];
        let [in_reply_to, message_id] = [input.optional()?, input.optional()?];
        let from = Addresses::read(input)?;
        let sender = if input.byte()? == 1 { from.clone() } else { Addresses::read(input)? };
        let reply_to = if input.byte()? == 1 { from.clone() } else { Addresses::read(input)? };
        let [to, cc, bcc] = [Addresses::read(input)?, Addresses::read(input)?, Addresses::read(input)?];
        Ok(Self { date, subject, from, sender, reply_to, to, cc, bcc, in_reply_to, message_id })
    }
}

impl<'a> Addresses<'a> {
    /// Whether there are none (left).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    fn read(input: &mut Unpacker<'a>) -> Result<Self, Malformed> {
        let left = input.count()?;
        let list = Self { left, packed: input.rest() };
        for _ in 0..left {
            address(input)?;
        }
        Ok(list)
    }
}

impl<'a> Iterator for Addresses<'a> {
    type Item = EnvelopeAddress<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut input = Unpacker::new(self.packed);
        let next = address(&mut input).ok()?;
        self.packed = input.rest();
        Some(next)
    }
}

fn address<'a>(input: &mut Unpacker<'a>) -> Result<EnvelopeAddress<&'a [u8]>, Malformed> {
    let [name, route] = [input.optional()?, input.optional()?];
    let [mailbox, host] = [input.optional()?, input.optional()?];
    Ok(EnvelopeAddress { name, route, mailbox, host })
}

/// An envelope that is being put together.
#[derive(Debug, Default)]
pub(super) struct Draft {
    date: Option<Vec<u8>>,
    subject: Option<Vec<u8>>,
    from: Vec<EnvelopeAddress>,
    sender: Vec<EnvelopeAddress>,
    reply_to: Vec<EnvelopeAddress>,
    to: Vec<EnvelopeAddress>,
    cc: Vec<EnvelopeAddress>,
    bcc: Vec<EnvelopeAddress>,
    in_reply_to: Option<Vec<u8>>,
    message_id: Option<Vec<u8>>,
}

impl Draft {
    /// Takes what `field` says, when it is one of the envelope's. The first of each name counts, but addresses add up
    /// (RFC 5322 section 3.6 allows each once; some senders split To).
    pub(super) fn read(&mut self, field: &Field<'_>) {
        let value = field.value.get(..ENVELOPE_FIELD_LEN_MAX).unwrap_or(field.value);
        let text = |slot: &mut Option<Vec<u8>>| {
            if slot.is_none() {
                *slot = Some(header::unfold(value));
            }
        };
        let addresses = |slot: &mut Vec<EnvelopeAddress>| {
            slot.extend(address::list(value));
            slot.truncate(address::ADDRESSES_MAX);
        };
        // Sorted out by length first: most fields of a message are none of these.
        match (field.name.len(), field.name.to_ascii_lowercase().as_slice()) {
            (4, b"date") => text(&mut self.date),
            (7, b"subject") => text(&mut self.subject),
            (11, b"in-reply-to") => text(&mut self.in_reply_to),
            (10, b"message-id") => text(&mut self.message_id),
            (4, b"from") => addresses(&mut self.from),
            (6, b"sender") => addresses(&mut self.sender),
            (8, b"reply-to") => addresses(&mut self.reply_to),
            (2, b"to") => addresses(&mut self.to),
            (2, b"cc") => addresses(&mut self.cc),
            (3, b"bcc") => addresses(&mut self.bcc),
            _ => {}
        }
    }

    /// The envelope. RFC 9051 section 7.5.2: absent or empty Sender and Reply-To are as From.
    pub(super) fn finish(self) -> Envelope {
        let mut out = Packer::with_capacity(256);
        for text in [&self.date, &self.subject, &self.in_reply_to, &self.message_id] {
            out.optional(text.as_deref());
        }
        pack_list(&mut out, &self.from);
        for list in [&self.sender, &self.reply_to] {
            let as_from = list.is_empty() || *list == self.from;
            out.byte(u8::from(as_from));
            if !as_from {
                pack_list(&mut out, list);
            }
        }
        for list in [&self.to, &self.cc, &self.bcc] {
            pack_list(&mut out, list);
        }
        Envelope(out.finish())
    }
}

fn pack_list(out: &mut Packer, list: &[EnvelopeAddress]) {
    out.count(list.len());
    for address in list {
        for text in [&address.name, &address.route, &address.mailbox, &address.host] {
            out.optional(text.as_deref());
        }
    }
}
