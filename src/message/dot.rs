//! Message text on the wire: dot-stuffing undone on the way in, done on the way out.
//!
//! Owns: `DotReader` (DATA and BDAT of SMTP and LMTP), `Findings` (what is wrong with the text), `DotWriter`
//! (DATA to other servers, multi-line answers of POP3). Called by: the sessions of smtp and pop-imap.
//! Never: does I/O, refuses a message (the caller does, by the findings), changes line ends.
//! Spec: RFC 5321 section 4.5.2 (transparency) and 2.3.8 (lines), RFC 3030 (CHUNKING), RFC 1939 section 3.
//!
//! Only `<CR><LF>.<CR><LF>` ends a message (RFC 5321 section 4.1.1.4). Every other sequence that some server takes
//! for the end (`<LF>.<LF>`, `<LF>.<CR><LF>`, `<CR>.<CR>`, `<CR><LF>.<LF>`, `<CR><LF>.<CR>`, NUL among them) is text here
//! and shows in the findings, so that the caller can refuse it: a message smuggled in by one server's reading of line
//! ends then neither splits here nor travels on to a server where it would.

use memchr::{memchr_iter, memchr3};

#[cfg(test)]
mod tests;

/// Octets of a line of text with its `<CR><LF>`, at most (RFC 5321 section 4.5.3.1.6).
pub const TEXT_LINE_LEN_MAX: usize = 1000;

/// What was seen in a message's text. All false: plain ASCII text in lines as RFC 5321 wants them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// A `<LF>` without `<CR>` before it (RFC 5321 section 2.3.8 forbids it).
    pub bare_lf: bool,
    /// A `<CR>` without `<LF>` after it (RFC 5321 section 2.3.8 forbids it).
    pub bare_cr: bool,
    /// A NUL (RFC 5322 section 4 makes it obsolete; RFC 6152 and RFC 6532 do not bring it back).
    pub nul: bool,
    /// A line longer than [`TEXT_LINE_LEN_MAX`].
    pub long_line: bool,
    /// An octet above 127: needs 8BITMIME to travel on (RFC 6152).
    pub eight_bit: bool,
    /// More text than the reader was made for; what was kept until then is of no use.
    pub too_big: bool,
}

impl Findings {
    /// Whether line ends or a NUL could make another server read another message than this one did.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.bare_lf || self.bare_cr || self.nul
    }
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All of the input was used, and the message goes on.
    More,
    /// The message ended within this input, after so many octets of it; the rest are commands.
    Done { used: usize },
}

/// Where the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After `<CR><LF>`, or at the very start (after the `<CR><LF>` of the DATA command).
    LineStart,
    /// After a dot at the start of a line. The dot is not text, whatever follows (RFC 5321 section 4.5.2).
    Dot,
    /// After such a dot and a `<CR>`, which is text unless `<LF>` comes next.
    DotCr,
    /// Within a line.
    Line,
    /// After a `<CR>`, which is part of the text already.
    Cr,
}

/// Reads message text in pieces of any size.
///
/// Invariants:
/// - what it gives does not depend on how the input was cut;
/// - it appends no more than `size_max` octets, and reads on to the end all the same, so that the message can be
///   refused by a reply and the session goes on (RFC 5321 section 4.5.3.1.10);
/// - the text is the sender's, octet for octet, less the stuffed dots.
#[derive(Debug)]
pub struct DotReader {
    place: Place,
    stuffed: bool,
    /// Octets of the line in hand, its `<CR>` included.
    line_len: usize,
    size: usize,
    size_max: usize,
    findings: Findings,
}

impl DotReader {
    /// For DATA: ends at the dot; keeps at most so many octets of text.
    #[must_use]
    pub fn new(size_max: usize) -> Self {
        Self { place: Place::LineStart, stuffed: true, line_len: 0, size: 0, size_max, findings: Findings::default() }
    }

    /// For BDAT: the same limits and findings over all chunks of one message, but dots mean nothing
    /// (RFC 3030 section 2), so that it is never `Done`: the caller counts.
    #[must_use]
    pub fn unstuffed(size_max: usize) -> Self {
        Self { stuffed: false, ..Self::new(size_max) }
    }

    /// Octets of text so far, those beyond the limit too.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// What was seen so far; complete once the message has ended.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let mut findings = self.findings;
        // A message by BDAT may end within a line: its last `<CR>` then has no `<LF>`.
        findings.bare_cr |= self.place == Place::Cr;
        findings
    }

    /// Takes input and appends the text in it to `text`.
    ///
    /// `text` is the caller's, and may hold other octets (a trace header, earlier chunks) before.
    /// When the text grows too big, `text` is left as it is then and grows no further.
    pub fn receive(&mut self, input: &[u8], text: &mut Vec<u8>) -> Progress {
        let mut rest = input;
        // Octets of text are copied in runs that are as long as possible: from `run` up to `rest`.
        let mut run = input;
        loop {
            let Some((&first, after)) = rest.split_first() else {
                self.keep(run, rest, text);
                return Progress::More;
            };
            match (self.place, first) {
                (Place::LineStart, b'.') if self.stuffed => {
                    self.keep(run, rest, text);
                    self.place = Place::Dot;
                    run = after;
                    rest = after;
                }
                (Place::Dot, b'\r') => {
                    // Not yet text: the message may end here.
                    self.place = Place::DotCr;
                    run = after;
                    rest = after;
                }
                (Place::DotCr, b'\n') => {
                    return Progress::Done { used: input.len() - after.len() };
                }
                (Place::DotCr, _) => {
                    self.keep(b"\r", b"", text);
                    self.line_len = 1;
                    self.place = Place::Cr;
                    run = rest;
                }
                (Place::LineStart | Place::Dot | Place::Line | Place::Cr, _) => rest = self.advance(rest),
            }
        }
    }

    /// Goes on to the start of the next line or the end of `rest`, noting what is wrong on the way.
    fn advance<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        if self.place == Place::Cr {
            if let Some((b'\n', after)) = rest.split_first() {
                self.end_line();
                return after;
            }
            self.findings.bare_cr = true;
        }
        self.place = Place::Line;
        let Some(at) = memchr3(b'\r', b'\n', 0, rest) else {
            self.count(rest);
            return &[];
        };
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        self.count(before);
        match from {
            [b'\r', b'\n', after @ ..] => {
                self.end_line();
                after
            }
            [b'\r', after @ ..] => {
                self.line_len += 1;
                self.place = Place::Cr;
                after
            }
            [b'\n', after @ ..] => {
                // Not the end of a line: the next octet is no line's first, a dot there is only a dot.
                self.findings.bare_lf = true;
                self.line_len += 1;
                after
            }
            [_, after @ ..] => {
                self.findings.nul = true;
                self.line_len += 1;
                after
            }
            [] => &[],
        }
    }

    /// Notes octets within a line, up to its end or the next octet that needs a look.
    fn count(&mut self, octets: &[u8]) {
        self.line_len += octets.len();
        // With the `<CR><LF>` that is to come.
        self.findings.long_line |= self.line_len + 2 > TEXT_LINE_LEN_MAX;
        self.findings.eight_bit |= !octets.is_ascii();
    }

    fn end_line(&mut self) {
        self.line_len = 0;
        self.place = Place::LineStart;
    }

    /// Appends the octets of `run` that come before `rest`, its tail.
    fn keep(&mut self, run: &[u8], rest: &[u8], text: &mut Vec<u8>) {
        let octets = run.get(..run.len() - rest.len()).unwrap_or_default();
        self.size = self.size.saturating_add(octets.len());
        if self.size > self.size_max {
            self.findings.too_big = true;
        } else {
            text.extend_from_slice(octets);
        }
    }
}

/// Writes message text in pieces of any size, dots stuffed, and the final dot.
///
/// A dot is stuffed after a bare `<LF>` or `<CR>` too, and after NULs behind them, although only `<CR><LF>` begins a line: no
/// receiver, however lenient, finds the end of the message within the message.
#[derive(Debug)]
pub struct DotWriter {
    /// The last two octets written, older first.
    last: [u8; 2],
    /// The last octet written that is no NUL ends a line, for somebody.
    at_line_start: bool,
}

impl Default for DotWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl DotWriter {
    /// At the start of a line.
    #[must_use]
    pub fn new() -> Self {
        Self { last: *b"\r\n", at_line_start: true }
    }

    /// Appends text to `out`, dots stuffed.
    pub fn write(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.reserve(text.len() + 8);
        let mut done = 0;
        for dot in memchr_iter(b'.', text) {
            if self.starts_line(text.get(..dot).unwrap_or_default()) {
                out.extend_from_slice(text.get(done..dot).unwrap_or_default());
                out.push(b'.');
                done = dot;
            }
        }
        self.at_line_start = self.starts_line(text);
        out.extend_from_slice(text.get(done..).unwrap_or_default());
        self.last = match text {
            [.., a, b] => [*a, *b],
            [b] => [self.last[1], *b],
            [] => self.last,
        };
    }

    /// Whether what comes behind `text` could be taken for the start of a line.
    fn starts_line(&self, text: &[u8]) -> bool {
        let last = text.iter().rev().find(|octet| **octet != 0);
        last.map_or(self.at_line_start, |octet| matches!(octet, b'\r' | b'\n'))
    }

    /// Appends the end: `<CR><LF>` when the text lacks it, then the dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}
