//! The records of a pax extended header.
//!
//! Owns: `records`. Called by: `walk`. The tar crate's own reader divides at line ends; a file name, or an attribute's value, with a line
//! end in it is then taken for a fault. The lengths are there for that.
//! Spec: POSIX.1-2017, pax, section "pax Extended Header".

/// Keywords and values of `"%d %s=%s\n", <length>, <keyword>, <value>`; `None` where the text is not that.
pub(super) fn records(mut text: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let space = text.iter().take(20).position(|octet| *octet == b' ')?;
        let (digits, _) = text.split_at_checked(space)?;
        let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let (record, rest) = text.split_at_checked(len)?;
        let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = pair.iter().position(|octet| *octet == b'=')?;
        let (keyword, value) = pair.split_at_checked(equals)?;
        found.push((keyword, value.get(1..)?));
        text = rest;
    }
    Some(found)
}
