//! The header section of a message, as far as a mail server looks into it.
//!
//! Owns: the one pass over header field names. Called by: `smtp::session` when a message is complete, `smtp::bounce`.
//! Never: parses field bodies (mail-parser does), changes anything.
//! Spec: RFC 5322 section 2.2 (fields), RFC 5321 section 6.3 (loops by trace fields), RFC 6409 section 8 (submission).

use memchr::memchr;

/// What the header section has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Octets up to the empty line, exclusive.
    pub len: usize,
    /// `Received` fields: servers that the message has passed.
    pub hops: u32,
    pub has_date: bool,
    pub has_message_id: bool,
}

/// Looks through the header section. Ends at the empty line, or at the first line that is no field.
#[must_use]
pub fn scan(message: &[u8]) -> Header {
    let mut header = Header::default();
    let mut rest = message;
    while let Some(end) = memchr(b'\n', rest) {
        let line = rest.get(..end).unwrap_or_default();
        // Folded lines belong to the field before (RFC 5322 section 2.2.3).
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            let Some(colon) = memchr(b':', line) else { break };
            let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
            header.hops += u32::from(name.eq_ignore_ascii_case(b"Received"));
            header.has_date |= name.eq_ignore_ascii_case(b"Date");
            header.has_message_id |= name.eq_ignore_ascii_case(b"Message-ID");
        }
        rest = rest.get(end + 1..).unwrap_or_default();
        header.len = message.len() - rest.len();
    }
    header
}
