//! What a changer says of its places: READ ELEMENT STATUS data.
//!
//! Owns: the parser. Called by: `changer`. Never: does I/O, or believes a length further than the data goes.
//! Spec: SMC-3 section 6.13.

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::backup_to_tape::scsi::printable;

pub(super) const HEADER_BYTES: usize = 8;
const PAGE_HEADER_BYTES: usize = 8;
/// Octets of a descriptor up to its volume tag.
const BARE_BYTES: usize = 12;
/// Octets of a volume tag's name (SMC-3 section 6.1.1).
const TAG_BYTES: usize = 32;
/// Places of one kind, at most: the addresses that there are.
const ELEMENTS_MAX: usize = 1 << 16;
/// Page flags: descriptors have a primary volume tag.
const HAS_TAG: u8 = 0x80;
/// Descriptor flags.
const FULL: u8 = 0x01;
const EXCEPT: u8 = 0x04;
const ACCESS: u8 = 0x08;
const SOURCE_VALID: u8 = 0x80;

/// What a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The arm.
    Transport,
    Storage,
    /// Behind a door of its own, for putting tapes in and taking them out.
    ImportExport,
    Drive,
}

impl Kind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Transport => 1,
            Self::Storage => 2,
            Self::ImportExport => 3,
            Self::Drive => 4,
        }
    }
}

/// A place for one tape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Element {
    pub kind: Kind,
    pub address: u16,
    /// There is a tape in it.
    pub full: bool,
    /// The arm reaches it (of a drive: the tape is not held).
    pub accessible: bool,
    pub barcode: Option<String>,
    /// The address that the tape came from, where the changer knows it.
    pub source: Option<u16>,
    /// What is the matter with it: additional sense code and qualifier.
    pub fault: Option<(u8, u8)>,
}

fn number(octets: &[u8]) -> usize {
    octets.iter().fold(0, |number, octet| number << 8 | usize::from(*octet))
}

/// Octets of the whole answer that this header begins.
pub(super) fn announced(header: &[u8; HEADER_BYTES]) -> usize {
    let [.., a, b, c] = header;
    HEADER_BYTES + number(&[*a, *b, *c])
}

/// The address of the first element in the answer.
pub(super) fn first_address(answer: &[u8]) -> Option<u16> {
    let ([high, low, count @ ..], _) = answer.split_first_chunk::<4>()?;
    (number(count) > 0).then(|| u16::from_be_bytes([*high, *low]))
}

/// All elements of this kind, in the order of their addresses.
pub(super) fn parse(kind: Kind, answer: &[u8]) -> Vec<Element> {
    let Some((header, _)) = answer.split_first_chunk::<HEADER_BYTES>() else { return Vec::new() };
    let end = announced(header).min(answer.len());
    let mut rest = answer.get(HEADER_BYTES..end).unwrap_or_default();
    let mut elements = Vec::new();
    while let Some((page, after)) = rest.split_first_chunk::<PAGE_HEADER_BYTES>() {
        let [code, flags, high, low, _, bytes @ ..] = page;
        let (body, next) = after.split_at(number(bytes).min(after.len()));
        rest = next;
        let len = number(&[*high, *low]);
        if *code != kind.code() || len < BARE_BYTES {
            continue;
        }
        let has_tag = flags & HAS_TAG != 0;
        elements.extend(body.chunks_exact(len).filter_map(|descriptor| element(kind, has_tag, descriptor)));
    }
    elements.truncate(ELEMENTS_MAX);
    elements.sort_by_key(|element| element.address);
    elements.dedup_by_key(|element| element.address);
    elements
}

fn element(kind: Kind, has_tag: bool, descriptor: &[u8]) -> Option<Element> {
    let ([high, low, flags, _, code, qualifier, _, _, _, source_flags, from_high, from_low], after) =
        descriptor.split_first_chunk::<BARE_BYTES>()?;
    let tag = after.get(..TAG_BYTES).filter(|_| has_tag).map(printable).filter(|tag| !tag.is_empty());
    let is_full = flags & FULL != 0;
    Some(Element {
        kind,
        address: u16::from_be_bytes([*high, *low]),
        full: is_full,
        accessible: flags & ACCESS != 0,
        barcode: tag.filter(|_| is_full),
        source: (source_flags & SOURCE_VALID != 0).then(|| u16::from_be_bytes([*from_high, *from_low])),
        fault: (flags & EXCEPT != 0).then_some((*code, *qualifier)),
    })
}
