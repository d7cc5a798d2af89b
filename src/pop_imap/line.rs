//! Command lines of LMTP and POP3, cut out of what has come.
//!
//! Owns: `Framer`. Called by: the LMTP and POP3 sessions. Never: keeps octets; the caller offers again what was not used.
//! Spec: RFC 5321 section 2.3.8 (lines end with `<CR><LF>`, nothing else), RFC 1939 section 3.

use memchr::{memchr, memchr2};

#[cfg(test)]
mod tests;

/// What stands at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// No whole line yet.
    More,
    /// A line, with its `<CR><LF>`.
    Line(&'a [u8]),
    /// A line that is none; it was skipped.
    Bad(Fault),
}

/// Why a line is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Longer than the protocol allows.
    TooLong,
    /// `<LF>` without `<CR>`, `<CR>` without `<LF>`, or a NUL. Guessing what was meant is how commands get smuggled.
    Octets,
}

/// Cuts lines of bounded length.
#[derive(Debug)]
pub(super) struct Framer {
    line_len_max: usize,
    /// In a line that is too long: skipped up to its end, then told.
    skipping: bool,
}

impl Framer {
    /// Lines have at most so many octets, `<CR><LF>` included.
    pub(super) fn new(line_len_max: usize) -> Self {
        Self { line_len_max, skipping: false }
    }

    /// The first line of `input`, and how many octets are done with. With [`Frame::More`] the rest, fewer than the
    /// longest line has, is to be offered again with what comes.
    pub(super) fn next<'a>(&mut self, input: &'a [u8]) -> (usize, Frame<'a>) {
        let Some(lf) = memchr(b'\n', input) else {
            if input.len() < self.line_len_max && !self.skipping {
                return (0, Frame::More);
            }
            self.skipping = true;
            return (input.len(), Frame::More);
        };
        let used = lf + 1;
        let line = input.get(..used).unwrap_or_default();
        if std::mem::take(&mut self.skipping) || used > self.line_len_max {
            return (used, Frame::Bad(Fault::TooLong));
        }
        let good = line.strip_suffix(b"\r\n").is_some_and(|text| memchr2(b'\r', 0, text).is_none());
        (used, if good { Frame::Line(line) } else { Frame::Bad(Fault::Octets) })
    }
}
