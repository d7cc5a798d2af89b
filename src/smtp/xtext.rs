//! xtext: values of parameters that may hold any character.
//!
//! Owns: coding and decoding. Called by: `smtp::command` (reads), `smtp::client`, `smtp::bounce` (write).
//! Spec: RFC 3461 section 4 (xtext), RFC 6533 section 3 (utf-8-addr-xtext, which for us is the same with UTF-8 left as it is).

use std::fmt::Write as _;

/// Codes text: printable ASCII stays, but for `+` and `=`; UTF-8 stays too (it is sent only where SMTPUTF8 is).
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii() || (c.is_ascii_graphic() && !matches!(c, '+' | '=')) {
            out.push(c);
        } else {
            // Writing to a String cannot fail.
            _ = write!(out, "+{:02X}", u32::from(c));
        }
    }
    out
}

/// Reads xtext; none when it is none, or holds a control character.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('+') {
        let (plain, coded) = rest.split_at_checked(at)?;
        out.push_str(plain);
        let digits = coded.get(1..3).filter(|digits| digits.bytes().all(|d| matches!(d, b'0'..=b'9' | b'A'..=b'F')))?;
        out.push(char::from(u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?));
        rest = coded.get(3..)?;
    }
    out.push_str(rest);
    let good = !out.is_empty() && !out.chars().any(char::is_control) && !text.contains('=');
    good.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn what_is_coded_comes_back() {
        let check = |plain: &str, coded: &str| {
            assert_eq!(encode(plain), coded);
            assert_eq!(decode(coded).as_deref(), Some(plain));
        };
        check("rfc822;a@example.test", "rfc822;a@example.test");
        check("a+b=c d", "a+2Bb+3Dc+20d");
        check("grün@example.test", "grün@example.test");
    }

    #[test]
    fn what_is_no_xtext_is_refused() {
        for coded in ["", "a=b", "a+", "a+2", "a+2b", "a+GG", "a+0Db", "a+FF"] {
            assert_eq!(decode(coded), None, "{coded}");
        }
    }
}
