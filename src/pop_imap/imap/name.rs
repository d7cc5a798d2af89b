//! Mailbox names on the wire: modified UTF-7, INBOX, the hierarchy separator, LIST patterns.
//!
//! Owns: the translation between names as clients write them and names as the store keeps them (UTF-8, '/' between
//! levels). Called by: `imap::command`, `imap::list`, response writers.
//! Never: asks whether a mailbox exists, or may.
//! Spec: RFC 3501 section 5.1 (naming) and section 6.3.8 (wildcards).

use base64::Engine;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

const BASE64: GeneralPurpose = GeneralPurpose::new(&IMAP_MUTF7, NO_PAD);

/// Longest mailbox name in bytes of UTF-8, all levels together.
pub const NAME_BYTES_MAX: usize = 1000;

/// Bytes that are no name: the client's fault. Which names mailboxes may have is the store's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("Mailbox name is not valid modified UTF-7")]
    Encoding,
    #[error("Mailbox name is too long")]
    TooLong,
}

/// From the wire to UTF-8, no more. Raw UTF-8 is taken as well: some clients send it in literals.
pub fn decode(wire: &[u8]) -> Result<String, NameError> {
    let text = std::str::from_utf8(wire).map_err(|_| NameError::Encoding)?;
    if text.len() > NAME_BYTES_MAX * 3 {
        return Err(NameError::TooLong);
    }
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, shifted)) = rest.split_once('&') {
        name.push_str(plain);
        let (encoded, after) = shifted.split_once('-').ok_or(NameError::Encoding)?;
        if encoded.is_empty() {
            name.push('&');
        } else {
            let bytes = BASE64.decode(encoded).map_err(|_| NameError::Encoding)?;
            let (pairs, odd) = bytes.as_chunks::<2>();
            if !odd.is_empty() {
                return Err(NameError::Encoding);
            }
            let units = pairs.iter().map(|&pair| u16::from_be_bytes(pair));
            for unit in char::decode_utf16(units) {
                name.push(unit.map_err(|_| NameError::Encoding)?);
            }
        }
        rest = after;
    }
    name.push_str(rest);
    Ok(name)
}

/// INBOX in any case becomes "INBOX", also as the first level of others (RFC 3501 section 5.1).
fn canonical(name: &str) -> String {
    let (first, rest) = match name.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    if !first.eq_ignore_ascii_case("INBOX") {
        return name.to_owned();
    }
    rest.map_or_else(|| "INBOX".to_owned(), |rest| format!("INBOX/{rest}"))
}

/// From UTF-8 to modified UTF-7.
#[must_use]
pub fn encode(name: &str) -> String {
    let mut wire = String::with_capacity(name.len());
    let mut pending: Vec<u8> = Vec::new();
    let mut units = [0_u16; 2];
    for letter in name.chars() {
        if matches!(letter, ' '..='~') {
            shift_out(&mut wire, &mut pending);
            wire.push(letter);
            if letter == '&' {
                wire.push('-');
            }
        } else {
            for unit in letter.encode_utf16(&mut units) {
                pending.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    shift_out(&mut wire, &mut pending);
    wire
}

fn shift_out(wire: &mut String, pending: &mut Vec<u8>) {
    if pending.is_empty() {
        return;
    }
    wire.push('&');
    BASE64.encode_string(&pending, wire);
    wire.push('-');
    pending.clear();
}

/// A LIST pattern, reference and mailbox argument joined: `*` is anything, `%` anything but the separator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// From the wire. RFC 3501 section 6.3.8: the reference is put before the pattern.
    pub fn new(reference: &[u8], pattern: &[u8]) -> Result<Self, NameError> {
        let mut joined = decode(reference)?;
        joined.push_str(&decode(pattern)?);
        if joined.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        Ok(Self(canonical(&joined).chars().collect()))
    }

    /// Whether the whole name matches. Work is bounded by the product of the lengths: no backtracking.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        // reachable[i]: the pattern's first i characters match what was read of the name.
        let mut reachable = vec![false; self.0.len() + 1];
        if let Some(start) = reachable.first_mut() {
            *start = true;
        }
        self.pass_wildcards(&mut reachable);
        for letter in name.chars() {
            let mut next = vec![false; reachable.len()];
            for (index, &wanted) in self.0.iter().enumerate() {
                if !reachable.get(index).copied().unwrap_or(false) {
                    continue;
                }
                let stays = wanted == '*' || (wanted == '%' && letter != '/');
                if stays && let Some(slot) = next.get_mut(index) {
                    *slot = true;
                }
                if wanted == letter
                    && let Some(slot) = next.get_mut(index + 1)
                {
                    *slot = true;
                }
            }
            self.pass_wildcards(&mut next);
            reachable = next;
        }
        reachable.last().copied().unwrap_or(false)
    }

    /// A wildcard also matches nothing.
    fn pass_wildcards(&self, reachable: &mut [bool]) {
        for (index, &wanted) in self.0.iter().enumerate() {
            let here = reachable.get(index).copied().unwrap_or(false);
            if here
                && matches!(wanted, '*' | '%')
                && let Some(slot) = reachable.get_mut(index + 1)
            {
                *slot = true;
            }
        }
    }
}
