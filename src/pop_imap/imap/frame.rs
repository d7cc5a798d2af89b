//! IMAP command framing: received bytes in, whole commands out.
//!
//! Owns: the receive buffer of one session and every bound on it. Called by: `imap::session` only.
//! Never: understands a command beyond its tag, the word APPEND and literal announcements; no I/O.
//! Spec: RFC 3501 section 2.2 (lines) and section 4.3 (literals), RFC 7888 (non-synchronizing literals).

use bytes::{Bytes, BytesMut};

/// Longest line (without literals) before login; a SASL initial response must fit.
const LINE_BYTES_MAX_BEFORE_LOGIN: usize = 8 * 1024;
/// Longest line (without literals) after login; RFC 7162 section 4 asks for at least 8192, clients send long sets.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest literal before login: a user name or a password.
const LITERAL_BYTES_MAX_BEFORE_LOGIN: usize = 1024;
/// Longest command with all its literals, before login.
const COMMAND_BYTES_MAX_BEFORE_LOGIN: usize = 12 * 1024;
/// Longest command with all its literals after login, APPEND apart.
const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// Longest tag that is worth remembering to answer with.
const TAG_BYTES_MAX: usize = 128;

/// What is asked from the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A command: lines joined by literals.
    Command,
    /// One bare line: an AUTHENTICATE response or the end of IDLE.
    Line,
}

/// What the buffer gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole command with its literals, CRLF at its end; or, in `Mode::Line`, a line without its CRLF.
    Complete(Bytes),
    /// The client waits for leave to send a literal: write a continuation request, flush, and read on.
    LiteralAwaited,
    /// The command cannot be taken. What belongs to it was dropped, so the next command can be read, unless the fault is fatal.
    Refused { tag: Option<Bytes>, fault: Fault },
}

/// Why a command was refused before it was understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("Line too long")]
    LineTooLong,
    #[error("[TOOBIG] Literal too long")]
    LiteralTooLong,
    #[error("Line must end in CRLF")]
    BareLineFeed,
    /// Not the client's fault: so many messages come in at once that there is no room for this one.
    #[error("[UNAVAILABLE] Too much is coming in at once, try again later")]
    NoRoom,
}

/// What the buffer is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Looking for the line end; no LF before `scanned`.
    Line { line_start: usize, scanned: usize },
    /// A literal ends at `until`.
    Literal { until: usize },
    /// Dropping bytes of a refused command: `literal` bytes first, then to the line end.
    Skip { literal: u64, fault: Fault },
}

const START: Progress = Progress::Line { line_start: 0, scanned: 0 };

/// The receive buffer.
///
/// Invariants: the buffer holds no byte of a command already given out; it grows only by `receive`, which is called only
/// after `next` gave `None`, so it never holds more than the bounds above plus one read. Empty, it owns no memory.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    progress: Progress,
    /// The tag of a command that is being skipped.
    skipped_tag: Option<Bytes>,
    authenticated: bool,
    append_bytes_max: usize,
}

impl Framer {
    /// A buffer for a session that is not yet logged in. `append_bytes_max`: largest message in APPEND.
    #[must_use]
    pub fn new(append_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), progress: START, skipped_tag: None, authenticated: false, append_bytes_max }
    }

    /// From now on the bounds for known users hold.
    pub fn authenticated(&mut self) {
        self.authenticated = true;
    }

    /// Adds what was read.
    pub fn receive(&mut self, input: &[u8]) {
        self.buffer.extend_from_slice(input);
    }

    /// Whether nothing is waiting that was not yet given out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Octets of a message in APPEND that wait here; 0 for what any command may have.
    #[must_use]
    pub fn held(&self) -> usize {
        if self.buffer.len() > COMMAND_BYTES_MAX { self.buffer.len() } else { 0 }
    }

    /// Lets go of the command that is coming in; the rest of it is dropped as it comes.
    pub fn give_up(&mut self) {
        let end = match self.progress {
            Progress::Literal { until } => until,
            Progress::Line { line_start, .. } => line_start,
            Progress::Skip { .. } => return,
        };
        self.skipped_tag = tag_of(&self.buffer);
        let missing = end.saturating_sub(self.buffer.len());
        // Copied: a part of the large buffer would keep all of it.
        self.buffer = BytesMut::from(self.buffer.get(end..).unwrap_or_default());
        let literal = u64::try_from(missing).unwrap_or(u64::MAX);
        self.progress = Progress::Skip { literal, fault: Fault::NoRoom };
    }

    /// Forgets everything received (RFC 3501 section 6.2.1: what came before TLS was not sent by whom we talk to).
    pub fn clear(&mut self) {
        self.buffer = BytesMut::new();
        self.progress = START;
        self.skipped_tag = None;
    }

    /// The next frame, or `None` when more bytes are needed.
    pub fn next(&mut self, mode: Mode) -> Option<Frame> {
        let frame = match mode {
            Mode::Command => self.next_command(),
            Mode::Line => self.next_line(),
        };
        if self.buffer.is_empty() {
            // An idle session keeps no buffer.
            self.buffer = BytesMut::new();
        }
        frame
    }

    fn next_line(&mut self) -> Option<Frame> {
        match self.find_line_end(0) {
            LineEnd::Missing => None,
            LineEnd::Fault { fault, end } => self.refuse(fault, end),
            LineEnd::At(end) => {
                let mut line = self.buffer.split_to(end).freeze();
                line.truncate(end.saturating_sub(2));
                self.progress = START;
                Some(Frame::Complete(line))
            }
        }
    }

    fn next_command(&mut self) -> Option<Frame> {
        loop {
            match self.progress {
                Progress::Skip { literal, fault } => match self.skip(literal, fault) {
                    Skipped::NeedMore => return None,
                    Skipped::Done(frame) => return Some(frame),
                    Skipped::Again => {}
                },
                Progress::Literal { until } => {
                    if self.buffer.len() < until {
                        return None;
                    }
                    self.progress = Progress::Line { line_start: until, scanned: until };
                }
                Progress::Line { line_start, .. } => match self.find_line_end(line_start) {
                    LineEnd::Missing => return None,
                    LineEnd::Fault { fault, end } => return self.refuse(fault, end),
                    LineEnd::At(end) => {
                        let line = self.buffer.get(line_start..end).unwrap_or_default();
                        match announced_literal(line) {
                            None => {
                                self.progress = START;
                                return Some(Frame::Complete(self.buffer.split_to(end).freeze()));
                            }
                            Some(literal) => {
                                if let Some(frame) = self.admit(literal, end) {
                                    return Some(frame);
                                }
                            }
                        }
                    }
                },
            }
        }
    }

    /// Decides on an announced literal whose line ends at `end`.
    fn admit(&mut self, literal: Announced, end: usize) -> Option<Frame> {
        let length = usize::try_from(literal.bytes).unwrap_or(usize::MAX);
        let (literal_max, command_max) = if !self.authenticated {
            (LITERAL_BYTES_MAX_BEFORE_LOGIN, COMMAND_BYTES_MAX_BEFORE_LOGIN)
        } else if is_append(&self.buffer) {
            (self.append_bytes_max, self.append_bytes_max.saturating_add(COMMAND_BYTES_MAX))
        } else {
            (COMMAND_BYTES_MAX, COMMAND_BYTES_MAX)
        };
        let until = end.saturating_add(length);
        if length > literal_max || until > command_max {
            let tag = tag_of(&self.buffer);
            drop(self.buffer.split_to(end));
            // RFC 7888 section 4: a synchronizing literal is refused by not asking for it; another one is on its way
            // already and is read on to its end, but not for strangers.
            if literal.synchronizing || !self.authenticated {
                self.progress = START;
                return Some(Frame::Refused { tag, fault: Fault::LiteralTooLong });
            }
            self.skipped_tag = tag;
            self.progress = Progress::Skip { literal: literal.bytes, fault: Fault::LiteralTooLong };
            return None;
        }
        self.progress = Progress::Literal { until };
        // A client that sent the literal without waiting gets its continuation request all the same; it is owed one.
        literal.synchronizing.then_some(Frame::LiteralAwaited)
    }

    fn line_bytes_max(&self) -> usize {
        if self.authenticated { LINE_BYTES_MAX } else { LINE_BYTES_MAX_BEFORE_LOGIN }
    }

    fn find_line_end(&mut self, line_start: usize) -> LineEnd {
        let scanned = match self.progress {
            Progress::Line { scanned, .. } => scanned,
            Progress::Literal { .. } | Progress::Skip { .. } => line_start,
        };
        let rest = self.buffer.get(scanned..).unwrap_or_default();
        let Some(offset) = rest.iter().position(|&byte| byte == b'\n') else {
            self.progress = Progress::Line { line_start, scanned: self.buffer.len() };
            if self.buffer.len().saturating_sub(line_start) > self.line_bytes_max() {
                return LineEnd::Fault { fault: Fault::LineTooLong, end: None };
            }
            return LineEnd::Missing;
        };
        let end = scanned + offset + 1;
        if end - line_start > self.line_bytes_max() {
            return LineEnd::Fault { fault: Fault::LineTooLong, end: Some(end) };
        }
        // RFC 3501 section 2.2: every line ends in CRLF. A bare LF ends the line for resynchronization only.
        let before = end.checked_sub(2).filter(|&at| at >= line_start).and_then(|at| self.buffer.get(at));
        if before == Some(&b'\r') {
            LineEnd::At(end)
        } else {
            LineEnd::Fault { fault: Fault::BareLineFeed, end: Some(end) }
        }
    }

    /// Drops the command in hand: up to `end`, or, when its line end has not come yet, up to where that will be.
    fn refuse(&mut self, fault: Fault, end: Option<usize>) -> Option<Frame> {
        let tag = tag_of(&self.buffer);
        match end {
            Some(end) => {
                drop(self.buffer.split_to(end));
                self.progress = START;
                Some(Frame::Refused { tag, fault })
            }
            None if !self.authenticated => {
                // Strangers are not read on: the session ends a stranger's connection at this fault.
                self.clear();
                Some(Frame::Refused { tag, fault })
            }
            None => {
                self.buffer = BytesMut::new();
                self.skipped_tag = tag;
                self.progress = Progress::Skip { literal: 0, fault };
                None
            }
        }
    }

    /// Drops bytes of a refused command; its answer is due at its end.
    fn skip(&mut self, literal: u64, fault: Fault) -> Skipped {
        let waiting = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let taken = waiting.min(literal);
        drop(self.buffer.split_to(usize::try_from(taken).unwrap_or(usize::MAX)));
        let literal = literal - taken;
        self.progress = Progress::Skip { literal, fault };
        if literal > 0 {
            return Skipped::NeedMore;
        }
        let Some(offset) = self.buffer.iter().position(|&byte| byte == b'\n') else {
            // An announcement may be cut here by the end of what has come: keep what one could need, no more.
            let keep_from = self.buffer.len().saturating_sub(ANNOUNCEMENT_BYTES_MAX);
            drop(self.buffer.split_to(keep_from));
            return Skipped::NeedMore;
        };
        let line = self.buffer.split_to(offset + 1);
        match announced_literal(&line) {
            Some(more) if !more.synchronizing => {
                self.progress = Progress::Skip { literal: more.bytes, fault };
                Skipped::Again
            }
            Some(_) | None => {
                self.progress = START;
                Skipped::Done(Frame::Refused { tag: self.skipped_tag.take(), fault })
            }
        }
    }
}

enum LineEnd {
    Missing,
    /// The offset behind the LF.
    At(usize),
    Fault {
        fault: Fault,
        end: Option<usize>,
    },
}

enum Skipped {
    NeedMore,
    Again,
    Done(Frame),
}

/// `{4294967295+}` and its CRLF.
const ANNOUNCEMENT_BYTES_MAX: usize = 15;

#[derive(Debug, Clone, Copy)]
struct Announced {
    bytes: u64,
    synchronizing: bool,
}

/// The literal that a line (with its CRLF) announces at its end: `{123}` or `{123+}`.
fn announced_literal(line: &[u8]) -> Option<Announced> {
    let rest = line.strip_suffix(b"\r\n")?.strip_suffix(b"}")?;
    let (rest, synchronizing) = match rest.strip_suffix(b"+") {
        Some(rest) => (rest, false),
        None => (rest, true),
    };
    let open = rest.iter().rposition(|&byte| byte == b'{')?;
    let digits = rest.get(open + 1..)?;
    // RFC 3501 section 9: number is 32 bits.
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let bytes = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Announced { bytes, synchronizing })
}

/// The tag at the start of a command, when it is one (RFC 3501 section 9: ASTRING-CHAR except "+").
#[must_use]
pub fn tag_of(command: &[u8]) -> Option<Bytes> {
    let end = command.iter().take(TAG_BYTES_MAX).position(|&byte| matches!(byte, b' ' | b'\r' | b'\n'))?;
    let tag = command.get(..end)?;
    let valid = |byte: &u8| byte.is_ascii_graphic() && !b"+(){%*\"\\".contains(byte);
    (!tag.is_empty() && tag.iter().all(valid)).then(|| Bytes::copy_from_slice(tag))
}

fn is_append(command: &[u8]) -> bool {
    let Some(space) = command.iter().take(TAG_BYTES_MAX).position(|&byte| byte == b' ') else { return false };
    command.get(space + 1..space + 8).is_some_and(|verb| verb.eq_ignore_ascii_case(b"APPEND "))
}
