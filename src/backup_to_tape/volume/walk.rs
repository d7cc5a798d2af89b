//! A walk along a tar stream: where members begin and end, from octets that only pass.
//!
//! Owns: `Walk`, `Member`. Called by: `cut` (writing), `restore` (reading). Never: changes or keeps what passes.
//! Spec: POSIX.1-2017, pax, sections "pax Interchange Format" and "ustar Interchange Format"; the GNU types `L`, `K` and `S` as the
//! manual of GNU tar describes them. Header fields are decoded by the tar crate.
//!
//! Invariants: every octet given is counted once; of a header or extension no more is held than `EXTENSION_LEN_MAX`.

use tar::{EntryType, Header};

use super::pax;

/// Octets of a header block.
pub const BLOCK: usize = 512;
/// Octets of an extended header or a long name, at most.
const EXTENSION_LEN_MAX: u64 = 1024 * 1024;
/// Extended headers before one member, at most: a long name, a long link, and one of POSIX are three.
const EXTENSIONS_MAX: u32 = 8;
/// Zeroed blocks that end an archive.
const END_BLOCKS: u64 = 2;
/// Octets of one stream, at most; sums of offsets then cannot run over.
const STREAM_LEN_MAX: u64 = 1 << 60;

/// Why the octets are not a tar stream. All of it is the source's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    #[error("not a tar stream: no header at octet {at}")]
    NoHeader { at: u64 },
    #[error("the header at octet {at} of the tar stream is not understood: {what}")]
    Header { at: u64, what: &'static str },
    #[error("something follows the end of the tar stream at octet {at}")]
    AfterEnd { at: u64 },
    #[error("the tar stream breaks off at octet {at}: its end is missing")]
    Unfinished { at: u64 },
}

/// One member, as its headers say and its content hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Offset in the stream of its first header, extended ones included.
    pub at: u64,
    /// Octets from there to the next member.
    pub len: u64,
    pub path: Vec<u8>,
    /// The type flag: `0` file, `1` hard link, `2` symbolic link, `5` directory, …
    pub flag: u8,
    /// Octets of the content as it stands in the stream.
    pub size: u64,
    /// Octets of the file when holes were left out of the stream.
    pub sparse: Option<u64>,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub link: Vec<u8>,
    /// Of the content as it stands in the stream.
    pub blake3: [u8; 32],
}

/// What the octets just taken were.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Headers, padding, the end.
    Frame,
    /// The last octet of a member's headers: `Walk::member` tells of it.
    Begun,
    Content,
    /// The member is over.
    Ended(Box<Member>),
}

/// Extended headers gathered for the member to come.
#[derive(Debug, Default)]
struct Extensions {
    count: u32,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    uid: Option<u64>,
    gid: Option<u64>,
    sparse: bool,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
}

#[derive(Debug)]
enum State {
    /// At a header; what there is of it.
    Header(Vec<u8>),
    /// In an extended header of this type.
    Extension {
        flag: u8,
        text: Vec<u8>,
        left: u64,
        pad: u64,
    },
    /// At a further block of an old GNU map of holes.
    Map(Vec<u8>),
    Content {
        left: u64,
    },
    Padding {
        left: u64,
    },
    /// Zeroes so far.
    End {
        zeroes: u64,
    },
}

/// See the room.
#[derive(Debug)]
pub struct Walk {
    at: u64,
    state: State,
    extensions: Extensions,
    /// Where the member at hand begins.
    begin: u64,
    member: Option<Box<Member>>,
    hasher: blake3::Hasher,
}

impl Walk {
    /// A walk that begins at a member, at this offset of the stream.
    pub fn new(at: u64) -> Self {
        Self {
            at,
            state: State::Header(Vec::new()),
            extensions: Extensions::default(),
            begin: at,
            member: None,
            hasher: blake3::Hasher::new(),
        }
    }

    /// The offset of the octet to come.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether a new member, or the end, begins with the octet to come.
    pub fn is_between(&self) -> bool {
        self.member.is_none()
            && self.extensions.count == 0
            && matches!(&self.state, State::Header(header) if header.is_empty())
    }

    /// Octets of content to come.
    pub fn content_left(&self) -> u64 {
        match self.state {
            State::Content { left } => left,
            State::Header(_) | State::Extension { .. } | State::Map(_) | State::Padding { .. } | State::End { .. } => 0,
        }
    }

    /// The member whose headers have passed and whose end has not; its hash is not known yet.
    pub fn member(&self) -> Option<&Member> {
        self.member.as_deref()
    }

    /// Takes octets from the start of `input`: how many, and what they were. With `Step::Ended` it may be none.
    pub fn advance(&mut self, input: &[u8]) -> Result<(usize, Step), TarError> {
        let (taken, step) = match &mut self.state {
            State::Header(have) => {
                let taken = fill(have, input);
                match have.len() == BLOCK {
                    true => {
                        let block = std::mem::take(have);
                        (taken, self.header(&block)?)
                    }
                    false => (taken, Step::Frame),
                }
            }
            State::Extension { flag, text, left, pad } => {
                let (taken, content) = portion(input, left, pad);
                text.extend_from_slice(content);
                if *left == 0 && *pad == 0 {
                    let (flag, text) = (*flag, std::mem::take(text));
                    self.state = State::Header(Vec::new());
                    self.extension(flag, &text)?;
                }
                (taken, Step::Frame)
            }
            State::Map(have) => {
                let taken = fill(have, input);
                let step = match have.len() == BLOCK {
                    true => {
                        // GNU tar's struct sparse_header: `isextended` is octet 504.
                        let goes_on = have.get(504).is_some_and(|octet| *octet != 0);
                        have.clear();
                        if goes_on { Step::Frame } else { self.begin_content() }
                    }
                    false => Step::Frame,
                };
                (taken, step)
            }
            State::Content { left } => {
                let mut pad = 0;
                let (taken, content) = portion(input, left, &mut pad);
                self.hasher.update(content);
                if *left == 0 {
                    let size = self.member.as_ref().map_or(0, |member| member.size);
                    self.state = State::Padding { left: padding(size) };
                }
                (taken, Step::Content)
            }
            State::Padding { left: 0 } => return Ok((0, self.end_member())),
            State::Padding { left } => {
                let mut content = 0;
                (portion(input, &mut content, left).0, Step::Frame)
            }
            State::End { zeroes } => {
                if let Some(at) = input.iter().position(|octet| *octet != 0) {
                    return Err(TarError::AfterEnd { at: self.at + at as u64 });
                }
                *zeroes += input.len() as u64;
                (input.len(), Step::Frame)
            }
        };
        self.at += taken as u64;
        if self.at > STREAM_LEN_MAX {
            return Err(TarError::Header { at: self.begin, what: "the stream is too long" });
        }
        Ok((taken, step))
    }

    /// To be asked when the stream is over.
    pub fn finish(&self) -> Result<(), TarError> {
        match self.state {
            State::End { zeroes } if zeroes >= END_BLOCKS * BLOCK as u64 => Ok(()),
            State::End { .. }
            | State::Header(_)
            | State::Extension { .. }
            | State::Map(_)
            | State::Content { .. }
            | State::Padding { .. } => Err(TarError::Unfinished { at: self.at }),
        }
    }

    /// A whole header block. `self.at` still is where its last part began.
    fn header(&mut self, block: &[u8]) -> Result<Step, TarError> {
        if self.extensions.count == 0 {
            // The part of the block that came before is behind `at`; blocks stand at multiples of their size from the first member on.
            self.begin = self.at - self.at % BLOCK as u64;
            if block.iter().all(|octet| *octet == 0) {
                self.state = State::End { zeroes: BLOCK as u64 };
                return Ok(Step::Frame);
            }
        }
        let begin = self.begin;
        let fault = |what| TarError::Header { at: begin, what };
        if !agrees(block) {
            return Err(TarError::NoHeader { at: self.at - self.at % BLOCK as u64 });
        }
        let header = Header::from_byte_slice(block);
        let flag = header.entry_type().as_byte();
        let size = header.entry_size().map_err(|_| fault("its size"))?;
        match flag {
            b'x' | b'L' | b'K' => {
                self.extensions.count += 1;
                if self.extensions.count > EXTENSIONS_MAX || size > EXTENSION_LEN_MAX {
                    return Err(fault("too much before the header itself"));
                }
                self.state = State::Extension { flag, text: Vec::new(), left: size, pad: padding(size) };
                if size == 0 {
                    self.state = State::Header(Vec::new());
                }
                Ok(Step::Frame)
            }
            _ => self.member_header(header, flag, size),
        }
    }

    fn member_header(&mut self, header: &Header, flag: u8, size: u64) -> Result<Step, TarError> {
        let begin = self.begin;
        let fault = |what| TarError::Header { at: begin, what };
        let extensions = std::mem::take(&mut self.extensions);
        let old_sparse = header.entry_type() == EntryType::GNUSparse;
        // A hard link has no content whatever its size field says: so GNU tar reads it.
        let size = if flag == b'1' { 0 } else { extensions.size.unwrap_or(size) };
        if size > STREAM_LEN_MAX {
            return Err(fault("its size"));
        }
        let sparse = match old_sparse {
            true => Some(header.size().map_err(|_| fault("its size without holes"))?),
            false => extensions.sparse.then(|| extensions.sparse_size.unwrap_or(size)),
        };
        let name = extensions.sparse_name.or(extensions.path);
        self.member = Some(Box::new(Member {
            at: begin,
            len: 0,
            path: name.unwrap_or_else(|| header.path_bytes().into_owned()),
            // Old archives write files with NUL.
            flag: if flag == 0 { b'0' } else { flag },
            size,
            sparse,
            mtime: extensions.mtime.unwrap_or_else(|| (mtime(header), 0)),
            mode: header.mode().unwrap_or_default() & 0o7777,
            uid: extensions.uid.or_else(|| header.uid().ok()).unwrap_or_default(),
            gid: extensions.gid.or_else(|| header.gid().ok()).unwrap_or_default(),
            link: extensions.link.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default(),
            blake3: [0; 32],
        }));
        if old_sparse && header.as_gnu().is_some_and(tar::GnuHeader::is_extended) {
            self.state = State::Map(Vec::new());
            return Ok(Step::Frame);
        }
        Ok(self.begin_content())
    }

    fn begin_content(&mut self) -> Step {
        let left = self.member.as_ref().map_or(0, |member| member.size);
        self.hasher.reset();
        self.state = if left == 0 { State::Padding { left: 0 } } else { State::Content { left } };
        Step::Begun
    }

    fn end_member(&mut self) -> Step {
        self.state = State::Header(Vec::new());
        match self.member.take() {
            Some(mut member) => {
                member.len = self.at - member.at;
                member.blake3 = *self.hasher.finalize().as_bytes();
                Step::Ended(member)
            }
            None => Step::Frame,
        }
    }

    fn extension(&mut self, flag: u8, text: &[u8]) -> Result<(), TarError> {
        let fault = || TarError::Header { at: self.begin, what: "its extended header" };
        // GNU long names end with NUL.
        let name = || text.strip_suffix(b"\0").unwrap_or(text).to_vec();
        match flag {
            b'L' => self.extensions.path = Some(name()),
            b'K' => self.extensions.link = Some(name()),
            _ => {
                for (keyword, value) in pax::records(text).ok_or_else(fault)? {
                    self.extensions.take(keyword, value).ok_or_else(fault)?;
                }
            }
        }
        Ok(())
    }
}

impl Extensions {
    /// A record of a pax header; `None`: it must be understood and is not.
    fn take(&mut self, keyword: &[u8], value: &[u8]) -> Option<()> {
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match keyword {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = number(),
            b"gid" => self.gid = number(),
            b"mtime" => self.mtime = time(value),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                (self.sparse, self.sparse_size) = (true, Some(number()?));
            }
            b"GNU.sparse.major" | b"GNU.sparse.map" | b"GNU.sparse.numblocks" => self.sparse = true,
            _ => {}
        }
        Some(())
    }
}

/// Moves octets until there is a block. How many.
fn fill(have: &mut Vec<u8>, input: &[u8]) -> usize {
    let (taken, _) = input.split_at(input.len().min(BLOCK - have.len()));
    have.extend_from_slice(taken);
    taken.len()
}

/// Counts down content, then padding. How many octets, and those that are content.
fn portion<'a>(input: &'a [u8], left: &mut u64, pad: &mut u64) -> (usize, &'a [u8]) {
    let within = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    let (content, rest) = input.split_at(within(*left));
    *left -= content.len() as u64;
    let padding = usize::try_from(*pad).unwrap_or(usize::MAX).min(rest.len());
    *pad -= padding as u64;
    (content.len() + padding, content)
}

/// Octets from the end of a content to the next block.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// Whether the sum in a header is right: of unsigned octets, or of signed ones as some old writers had it.
fn agrees(block: &[u8]) -> bool {
    let header = Header::from_byte_slice(block);
    let Ok(given) = header.cksum() else { return false };
    let counted = |at: usize, octet: u8| if (148..156).contains(&at) { b' ' } else { octet };
    let octets = || block.iter().enumerate().map(|(at, octet)| counted(at, *octet));
    let unsigned: u32 = octets().map(u32::from).sum();
    let signed: i32 = octets().map(|octet| i32::from(octet.cast_signed())).sum();
    given == unsigned || i64::from(given) == i64::from(signed)
}

/// Seconds since 1970; times before it are negative in base 256, where the crate reads a huge number.
fn mtime(header: &Header) -> i64 {
    header.mtime().map_or(0, u64::cast_signed)
}

/// `-?[0-9]+(\.[0-9]*)?`
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some((secs.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((secs, nanos)),
    }
}
