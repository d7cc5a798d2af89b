//! Reads the parts of a command that imap-codec cannot: LIST with options, SEARCH with RETURN, deep or 8-bit searches.
//!
//! Owns: the lexical rules of IMAP over one framed command. Called by: `imap::list`, `imap::search_command`.
//! Never: waits for more; a framed command is complete.
//! Spec: RFC 3501 section 9.

use std::borrow::Cow;

/// The command is not what the grammar says: the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Syntax error")]
pub struct SyntaxError;

/// A place in a command.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Takes this text, letters in any case, if it is next.
    pub(super) fn skip(&mut self, text: &str) -> bool {
        let (Some(head), Some(rest)) = (self.rest.get(..text.len()), self.rest.get(text.len()..)) else { return false };
        let found = head.eq_ignore_ascii_case(text.as_bytes());
        if found {
            self.rest = rest;
        }
        found
    }

    pub(super) fn expect(&mut self, text: &str) -> Result<(), SyntaxError> {
        self.skip(text).then_some(()).ok_or(SyntaxError)
    }

    /// The CRLF at the end, and nothing behind it. A space before it is forgiven: old clients send one.
    pub(super) fn end(mut self) -> Result<(), SyntaxError> {
        self.skip(" ");
        (self.rest == b"\r\n").then_some(()).ok_or(SyntaxError)
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// One or more bytes for which `wanted` holds.
    pub(super) fn word(&mut self, wanted: impl Fn(u8) -> bool) -> Result<&'a [u8], SyntaxError> {
        let word = self.take_while(wanted);
        if word.is_empty() { Err(SyntaxError) } else { Ok(word) }
    }

    pub(super) fn atom(&mut self) -> Result<&'a [u8], SyntaxError> {
        self.word(is_atom_char)
    }

    pub(super) fn number(&mut self) -> Result<u64, SyntaxError> {
        let digits = self.word(|byte| byte.is_ascii_digit())?;
        std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(SyntaxError)
    }

    pub(super) fn number32(&mut self) -> Result<u32, SyntaxError> {
        u32::try_from(self.number()?).map_err(|_| SyntaxError)
    }

    pub(super) fn astring(&mut self) -> Result<Cow<'a, [u8]>, SyntaxError> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => self.word(|byte| is_atom_char(byte) || byte == b']').map(Cow::Borrowed),
        }
    }

    /// A LIST pattern: like an astring, with wildcards.
    pub(super) fn list_mailbox(&mut self) -> Result<Cow<'a, [u8]>, SyntaxError> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => self.word(|byte| is_atom_char(byte) || matches!(byte, b']' | b'%' | b'*')).map(Cow::Borrowed),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, [u8]>, SyntaxError> {
        if self.skip("{") {
            return self.literal().map(Cow::Borrowed);
        }
        self.expect("\"")?;
        let mut text = Vec::new();
        loop {
            // 8-bit characters are let through: RFC 6855 made them legal and clients send them in searches.
            let plain = self.take_while(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
            let (mark, rest) = self.rest.split_first().ok_or(SyntaxError)?;
            self.rest = rest;
            match mark {
                b'"' if text.is_empty() => return Ok(Cow::Borrowed(plain)),
                b'"' => {
                    text.extend_from_slice(plain);
                    return Ok(Cow::Owned(text));
                }
                b'\\' => {
                    text.extend_from_slice(plain);
                    let (&escaped, rest) = self.rest.split_first().ok_or(SyntaxError)?;
                    if !matches!(escaped, b'"' | b'\\') {
                        return Err(SyntaxError);
                    }
                    text.push(escaped);
                    self.rest = rest;
                }
                _ => return Err(SyntaxError),
            }
        }
    }

    /// Behind the "{".
    fn literal(&mut self) -> Result<&'a [u8], SyntaxError> {
        let length = usize::try_from(self.number()?).map_err(|_| SyntaxError)?;
        self.skip("+");
        self.expect("}\r\n")?;
        let (literal, rest) = self.rest.split_at_checked(length).ok_or(SyntaxError)?;
        self.rest = rest;
        // RFC 3501 section 9: CHAR8 excludes NUL.
        if literal.contains(&0) { Err(SyntaxError) } else { Ok(literal) }
    }
}

/// RFC 3501 section 9, ATOM-CHAR.
pub(super) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}
