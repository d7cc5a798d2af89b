//! Response writers: the smallest pieces of IMAP responses, appended to a buffer.
//!
//! Owns: quoting, literals, numbers, dates. Called by: everything in `imap` that answers. Never: flushes, allocates per item.
//! Spec: RFC 3501 section 4 and section 9.

use std::io::Write;

use chrono::{DateTime, Datelike, Timelike};

/// Longest text sent as a quoted string; longer ones go as literals, which no client has trouble with.
const QUOTED_BYTES_MAX: usize = 900;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A number in decimal.
pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    // The longest is 20 digits; filled from the end.
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Formatted text.
pub(super) fn text(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

/// A string: quoted where that is possible, else a literal (RFC 3501 section 4.3).
pub(super) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let quotable = |byte: &u8| matches!(byte, 1..=127) && !matches!(byte, b'\r' | b'\n');
    if bytes.len() > QUOTED_BYTES_MAX || !bytes.iter().all(quotable) {
        literal(out, bytes);
        return;
    }
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut rest = bytes;
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        out.push(b'\\');
        out.extend(special.first());
        rest = special.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// A string, or NIL for none.
pub(super) fn nstring(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => string(out, bytes),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// A literal. RFC 3501 section 9: CHAR8 excludes NUL; 0x80 stands in for it, as in other servers, so that lengths stay.
pub(super) fn literal(out: &mut Vec<u8>, bytes: &[u8]) {
    literal_head(out, bytes.len());
    let from = out.len();
    out.extend_from_slice(bytes);
    for byte in out.get_mut(from..).unwrap_or_default() {
        if *byte == 0 {
            *byte = 0x80;
        }
    }
}

/// The announcement of a literal whose bytes follow.
pub(super) fn literal_head(out: &mut Vec<u8>, bytes: usize) {
    text(out, format_args!("{{{bytes}}}\r\n"));
}

/// A mailbox name, from UTF-8: an atom where it can be one, else a string.
pub(super) fn mailbox(out: &mut Vec<u8>, name: &str) {
    let wire = super::name::encode(name);
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-&+,=#:@!$'".contains(&byte);
    if !wire.is_empty() && wire.bytes().all(atom) && !wire.eq_ignore_ascii_case("NIL") {
        out.extend_from_slice(wire.as_bytes());
    } else {
        string(out, wire.as_bytes());
    }
}

/// `"17-Jul-1996 02:44:25 +0000"` from seconds since 1970 (RFC 3501 section 9, date-time).
pub(super) fn date_time(out: &mut Vec<u8>, unix_secs: i64) {
    let time = DateTime::from_timestamp(unix_secs, 0).filter(|time| (0..=9999).contains(&time.year()));
    let time = time.unwrap_or_default();
    let month = usize::try_from(time.month0()).ok().and_then(|index| MONTHS.get(index)).unwrap_or(&"Jan");
    let (day, year) = (time.day(), time.year());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    text(out, format_args!("\"{day:2}-{month}-{year:04} {hour:02}:{minute:02}:{second:02} +0000\""));
}

/// `1:3,5,7:9` from ascending numbers; nothing for none.
pub(super) fn set(out: &mut Vec<u8>, ascending: impl IntoIterator<Item = u32>) {
    let mut range: Option<(u32, u32)> = None;
    let mut first = true;
    let mut put = |out: &mut Vec<u8>, (from, to): (u32, u32)| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        number(out, u64::from(from));
        if to > from {
            out.push(b':');
            number(out, u64::from(to));
        }
    };
    for number in ascending {
        range = match range {
            Some((from, to)) if to.checked_add(1) == Some(number) => Some((from, number)),
            Some(done) => {
                put(out, done);
                Some((number, number))
            }
            None => Some((number, number)),
        };
    }
    if let Some(done) = range {
        put(out, done);
    }
}
