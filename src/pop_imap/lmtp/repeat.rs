//! Which messages can be known again when they are sent again.
//!
//! Owns: `identity`. Called by: `lmtp::serve`. Never: remembers anything; the store does, by what this gives.
//! Spec: RFC 5321 section 4.4 (the ID clause of Received), RFC 2033 section 4.2 (a sender may lose the replies).
//!
//! A server that hands a message over and is killed before it has noted our answer hands it over again, with the same
//! octets. Among them is the Received field that it put on top, with an id that it never uses twice. Without such a field two
//! messages with the same octets may be two messages, and both are delivered.

use crate::message::header::{self, Field};

/// Fields that a server puts above its Received: RFC 5321 section 4.4 (Return-Path), RFC 8601 section 4.1
/// (Authentication-Results), RFC 7208 section 9.1 (Received-SPF), RFC 6376 section 3.5 (DKIM-Signature).
const ABOVE: [&[u8]; 5] =
    [b"Return-Path", b"Delivered-To", b"Authentication-Results", b"Received-SPF", b"DKIM-Signature"];
/// Words that begin a clause of Received: an `id` right behind one is its value, not a clause.
const CLAUSES: [&[u8]; 6] = [b"from", b"by", b"via", b"with", b"id", b"for"];

/// The hash of the message, if the server that sent it would send other octets for another message.
pub(super) fn identity(message: &[u8]) -> Option<blake3::Hash> {
    let top = header::fields(message).find(|field| !ABOVE.iter().any(|name| field.is(name)))?;
    has_id(&top).then(|| blake3::hash(message))
}

/// Whether this is a Received field with an id.
fn has_id(field: &Field<'_>) -> bool {
    if !field.is(b"Received") {
        return false;
    }
    let clauses = without_comments(field.value);
    let mut words = clauses.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut before: &[u8] = b"";
    while let Some(word) = words.next() {
        let is_value = CLAUSES.iter().any(|clause| before.eq_ignore_ascii_case(clause));
        if word.eq_ignore_ascii_case(b"id") && !is_value {
            return words.next().is_some();
        }
        before = word;
    }
    false
}

/// The value up to its date, comments as blanks (RFC 5322 section 3.2.2; they may nest).
fn without_comments(value: &[u8]) -> Vec<u8> {
    let (mut out, mut depth) = (Vec::with_capacity(value.len()), 0_usize);
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => break,
            other if depth == 0 => {
                out.push(other);
                continue;
            }
            _ => continue,
        }
        out.push(b' ');
    }
    out
}
