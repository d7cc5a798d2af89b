//! Command lines: framing, nothing else.
//!
//! Owns: the octets of a line that is not complete. Called by: `smtp::session`.
//! Never: looks at what a line says.
//! Spec: RFC 5321 section 2.3.8 (lines end with `<CR><LF>` and with nothing else) and 4.5.3.1.4 (their length).

use memchr::memchr;

/// Octets of a line, `<CR><LF>` included, at most: what RFC 4954 section 4 wants for AUTH, the longest of all.
pub const LINE_LEN_MAX: usize = 12_288;
/// Octets of a command line other than AUTH, at most. RFC 5321 section 4.5.3.1.4 has 512; the parameters of the extensions
/// that are announced add 10 + 26 (SMTPUTF8, SIZE), 500 (AUTH), 17 (BODY) and room for addresses in UTF-8.
pub const COMMAND_LEN_MAX: usize = 2048;

/// What came of some input.
#[derive(Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A line without its `<CR><LF>`. It has no `<CR>`, `<LF>` or NUL.
    Line(&'a [u8]),
    /// A line longer than `LINE_LEN_MAX`, read to its end.
    TooLong,
    /// A line that ends with a bare `<LF>`, or has a `<CR>` or NUL within.
    Ambiguous,
    /// All input used, the line goes on.
    More,
}

/// Cuts input into lines.
///
/// Invariant: `held` never grows beyond `LINE_LEN_MAX`.
#[derive(Debug, Default)]
pub struct Framer {
    held: Vec<u8>,
    /// `held` was a whole line, given out; it is emptied with the next call.
    given: bool,
    /// The line in hand is too long; its octets are thrown away up to its end.
    too_long: bool,
}

impl Framer {
    /// Whether a line has begun and not ended.
    #[must_use]
    pub fn is_within_line(&self) -> bool {
        self.too_long || (!self.given && !self.held.is_empty())
    }

    /// Takes octets up to the end of a line, and says how many it took.
    ///
    /// A bare `<LF>` ends a line too, but only to be refused: whoever types it is told so at once, and nothing that follows it is
    /// ever read as part of another command.
    pub fn receive<'a>(&'a mut self, input: &'a [u8]) -> (usize, Framed<'a>) {
        if self.given {
            self.held.clear();
            self.given = false;
        }
        let Some(at) = memchr(b'\n', input) else {
            self.hold(input);
            return (input.len(), Framed::More);
        };
        let (line, used) = (input.get(..=at).unwrap_or_default(), at + 1);
        if self.held.is_empty() && !self.too_long {
            return (used, if line.len() > LINE_LEN_MAX { Framed::TooLong } else { classify(line) });
        }
        self.hold(line);
        if self.too_long {
            self.too_long = false;
            return (used, Framed::TooLong);
        }
        self.given = true;
        (used, classify(&self.held))
    }

    fn hold(&mut self, octets: &[u8]) {
        if self.too_long || self.held.len() + octets.len() > LINE_LEN_MAX {
            self.too_long = true;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(octets);
        }
    }
}

fn classify(line: &[u8]) -> Framed<'_> {
    match line.strip_suffix(b"\r\n") {
        Some(text) if !text.iter().any(|octet| matches!(octet, b'\r' | 0)) => Framed::Line(text),
        Some(_) | None => Framed::Ambiguous,
    }
}
