//! Frames: compressed pieces that stand alone, each behind a head that says what it is.
//!
//! Owns: `Head`, `Compressor`, `padding`, `Unframer`. Called by: `feed` (writes), `restore` (reads). Never: knows what is in a frame.
//! Spec: RFC 8878 (zstd): frames in section 3.1.1, skippable frames in section 3.1.2.
//!
//! Invariants of reading: no more is decompressed than `FRAME_LEN_MAX` at a time, whatever a frame says of itself; what does not agree
//! with its checksums is told as damage, never given out.

use memchr::memmem;
use zstd::bulk;
use zstd::zstd_safe::{self, CParameter};

use super::Name;

/// Octets after which a frame ends before the next member. Restoring one message decompresses so much: some ten milliseconds.
/// Measured over 250 MB of mail, three quarters of it attachments, at level 3: with 1 MiB it takes 0.1 % more, with 8 MiB 0.02 % less.
pub const FRAME_LEN: usize = 4 * 1024 * 1024;
/// Octets of a frame's content, at most.
pub const FRAME_LEN_MAX: usize = 2 * FRAME_LEN;
/// Octets of a compressed frame, at most: above ZSTD_compressBound of the content.
const COMPRESSED_LEN_MAX: usize = FRAME_LEN_MAX + FRAME_LEN_MAX / 128;
/// The default of the `zstd` command. Measured over the same mail: level 1 takes as long for 0.3 % more, level 6 takes three and a half times
/// as long for 0.01 % less.
const LEVEL: i32 = 3;

/// A skippable frame that is a head (RFC 8878 section 3.1.2: 0x184D2A50 to 0x184D2A5F).
const HEAD_MAGIC: [u8; 4] = 0x184D_2A51_u32.to_le_bytes();
/// A skippable frame that fills a block up.
const PADDING_MAGIC: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();
/// Octets of a skippable frame before its content: magic and length.
const SKIPPABLE_LEN: usize = 8;
/// Octets of a head in all.
pub const HEAD_LEN: usize = 64;
/// What a head begins with: magic, the length of the rest, and whose it is.
const HEAD_BEGIN: [u8; 13] = [0x51, 0x2A, 0x4D, 0x18, 56, 0, 0, 0, b'f', b'i', b'f', b'e', 1];

/// What a frame's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tar,
    Catalogue,
}

/// What stands before a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub part: Name,
    /// From 0, through all volumes of the part.
    pub number: u64,
    /// Offset in the tar stream (or the catalogue) of the content.
    pub at: u64,
    pub content_len: u32,
    pub compressed_len: u32,
    /// Where in the content a member begins, if one does.
    pub first: Option<u32>,
}

impl Head {
    fn encode(&self) -> [u8; HEAD_LEN] {
        let kind = match self.kind {
            Kind::Tar => b't',
            Kind::Catalogue => b'c',
        };
        let mut octets = Vec::with_capacity(HEAD_LEN);
        octets.extend_from_slice(&HEAD_BEGIN);
        octets.extend_from_slice(&[kind, 0, 0]);
        octets.extend_from_slice(&self.part);
        octets.extend_from_slice(&self.number.to_le_bytes());
        octets.extend_from_slice(&self.at.to_le_bytes());
        octets.extend_from_slice(&self.content_len.to_le_bytes());
        octets.extend_from_slice(&self.compressed_len.to_le_bytes());
        octets.extend_from_slice(&self.first.unwrap_or(u32::MAX).to_le_bytes());
        octets.extend_from_slice(&crc32c::crc32c(&octets).to_le_bytes());
        let mut head = [0; HEAD_LEN];
        head.iter_mut().zip(octets).for_each(|(to, from)| *to = from);
        head
    }

    /// `None`: this is no head, or a damaged one.
    fn decode(octets: &[u8]) -> Option<Self> {
        let (body, crc) = octets.get(..HEAD_LEN)?.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut rest = body.strip_prefix(&HEAD_BEGIN)?;
        let [kind, _, _] = *take::<3>(&mut rest)?;
        let head = Self {
            kind: match kind {
                b't' => Kind::Tar,
                b'c' => Kind::Catalogue,
                _ => return None,
            },
            part: *take(&mut rest)?,
            number: u64::from_le_bytes(*take(&mut rest)?),
            at: u64::from_le_bytes(*take(&mut rest)?),
            content_len: u32::from_le_bytes(*take(&mut rest)?),
            compressed_len: u32::from_le_bytes(*take(&mut rest)?),
            first: Some(u32::from_le_bytes(*take(&mut rest)?)).filter(|first| *first != u32::MAX),
        };
        let bounded = |len: u32, bound: usize| usize::try_from(len).is_ok_and(|len| len <= bound);
        let sound = bounded(head.content_len, FRAME_LEN_MAX) && bounded(head.compressed_len, COMPRESSED_LEN_MAX);
        let within = head.first.is_none_or(|first| first < head.content_len);
        (sound && within && head.at < 1 << 60).then_some(head)
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(taken)
}

/// Why a frame was not made: an error of the library, or content that is too long, which is our bug.
#[derive(Debug, thiserror::Error)]
#[error("zstd: {0}")]
pub struct CompressError(String);

/// One thread's compressor.
pub struct Compressor(bulk::Compressor<'static>);

impl Compressor {
    pub fn new() -> Result<Self, CompressError> {
        let made = bulk::Compressor::new(LEVEL).and_then(|mut compressor| {
            // The octets at the end by which a reader sees damage (RFC 8878 section 3.1.1, Content_Checksum).
            compressor.set_parameter(CParameter::ChecksumFlag(true))?;
            Ok(compressor)
        });
        made.map(Self).map_err(|error| CompressError(error.to_string()))
    }

    /// Head and frame. The lengths in `head` are set here.
    pub fn compress(&mut self, content: &[u8], head: Head) -> Result<Vec<u8>, CompressError> {
        if content.len() > FRAME_LEN_MAX {
            return Err(CompressError(format!("a frame of {} octets", content.len())));
        }
        let compressed = self.0.compress(content).map_err(|error| CompressError(error.to_string()))?;
        let len = |octets: &[u8]| u32::try_from(octets.len()).map_err(|error| CompressError(error.to_string()));
        let head = Head { content_len: len(content)?, compressed_len: len(&compressed)?, ..head };
        let mut frame = Vec::with_capacity(HEAD_LEN + compressed.len());
        frame.extend_from_slice(&head.encode());
        frame.extend_from_slice(&compressed);
        Ok(frame)
    }
}

/// What fills a block up when `used` octets of it stand: a skippable frame of zeroes. One too short for the frame's own header goes
/// through the next block.
pub fn padding(used: usize, block_len: usize) -> Vec<u8> {
    let mut left = used.next_multiple_of(block_len.max(1)) - used;
    if left == 0 {
        return Vec::new();
    }
    if left < SKIPPABLE_LEN {
        left += block_len;
    }
    let content = left - SKIPPABLE_LEN;
    let mut padding = PADDING_MAGIC.to_vec();
    padding.extend_from_slice(&u32::try_from(content).unwrap_or(u32::MAX).to_le_bytes());
    padding.resize(left, 0);
    padding
}

/// Where something begins in a tape file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub block: u32,
    pub offset: u32,
}

/// What was found in the blocks of a tape file.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Frame {
        head: Head,
        place: Place,
        content: Vec<u8>,
    },
    /// From here until the next find is nothing that can be used; the head is given where it at least is good.
    Damaged {
        place: Place,
        head: Option<Head>,
    },
}

/// Frames out of blocks. Holds one frame and one block at most.
#[derive(Debug)]
pub struct Unframer {
    block_len: usize,
    octets: Vec<u8>,
    /// Position in the file of the first of them.
    position: u64,
    /// Octets of padding to pass over.
    skip: u64,
    /// Whether the octets follow damage that has been told.
    lost: bool,
    /// Damage that has not been told.
    untold: Option<Place>,
    /// Frames of other parts are not taken: the content of a frame that came uncompressed may itself be a volume.
    part: Option<Name>,
}

impl Unframer {
    /// For a file whose blocks have this length, from this block on; `offset` octets of it are passed over.
    pub fn new(block_len: usize, from: Place) -> Self {
        let block_len = block_len.max(1);
        let position = u64::from(from.block) * block_len as u64;
        let skip = u64::from(from.offset);
        Self { block_len, octets: Vec::new(), position, skip, lost: false, untold: None, part: None }
    }

    /// Whether what comes next stands at or before this place.
    #[must_use]
    pub fn is_before(&self, place: Place) -> bool {
        self.untold.is_none() && self.place() <= place
    }

    /// The next block.
    pub fn block(&mut self, block: &[u8]) {
        self.octets.extend_from_slice(block);
    }

    /// The next blocks could not be read.
    pub fn unreadable(&mut self, blocks: u32) {
        self.untold.get_or_insert(self.place());
        let end = (self.position + self.octets.len() as u64).next_multiple_of(self.block_len as u64);
        self.octets.clear();
        self.position = end + u64::from(blocks) * self.block_len as u64;
        (self.skip, self.lost) = (0, true);
    }

    /// What is left at the end of the file is not a whole frame.
    pub fn finish(&mut self) -> Option<Found> {
        let place = self.place();
        let rest = !self.octets.is_empty() && !self.lost;
        self.octets.clear();
        self.untold.take().or(rest.then_some(place)).map(|place| Found::Damaged { place, head: None })
    }

    /// `None`: more blocks are needed.
    pub fn find(&mut self) -> Option<Found> {
        loop {
            if let Some(place) = self.untold.take() {
                return Some(Found::Damaged { place, head: None });
            }
            self.pass(usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.octets.len()), true);
            if self.skip > 0 || self.octets.len() < SKIPPABLE_LEN {
                return None;
            }
            if self.octets.starts_with(&PADDING_MAGIC) && !self.lost {
                let len = self.octets.get(4..SKIPPABLE_LEN).and_then(|len| len.first_chunk()).copied();
                self.skip = SKIPPABLE_LEN as u64 + u64::from(u32::from_le_bytes(len.unwrap_or_default()));
                continue;
            }
            if self.octets.starts_with(&HEAD_MAGIC) && self.octets.len() < HEAD_LEN {
                return None;
            }
            match Head::decode(&self.octets).filter(|head| self.part.is_none_or(|part| part == head.part)) {
                Some(head) => match self.frame(head) {
                    Some(found) => return Some(found),
                    None => return None,
                },
                None => self.seek_head(),
            }
        }
    }

    /// The frame behind this head, which stands at the front; `None`: there is more of it to come.
    fn frame(&mut self, head: Head) -> Option<Found> {
        let place = self.place();
        let len = HEAD_LEN + usize::try_from(head.compressed_len).unwrap_or(COMPRESSED_LEN_MAX);
        let compressed = self.octets.get(HEAD_LEN..len)?;
        let content = decompress(compressed, head.content_len);
        self.pass(len, false);
        self.lost = false;
        self.part = Some(head.part);
        Some(match content {
            Some(content) => Found::Frame { head, place, content },
            None => Found::Damaged { place, head: Some(head) },
        })
    }

    /// Passes over what is no head until something looks like one.
    fn seek_head(&mut self) {
        if !self.lost {
            self.untold = Some(self.place());
            self.lost = true;
        }
        let behind = self.octets.get(1..).unwrap_or_default();
        let next = match memmem::find(behind, &HEAD_BEGIN) {
            Some(at) => at + 1,
            // Its beginning may be the last octets.
            None => self.octets.len().saturating_sub(HEAD_BEGIN.len() - 1).max(1),
        };
        self.pass(next, false);
    }

    fn pass(&mut self, len: usize, skipped: bool) {
        self.octets.drain(..len.min(self.octets.len()));
        self.position += len as u64;
        if skipped {
            self.skip -= len as u64;
        }
    }

    fn place(&self) -> Place {
        let block_len = self.block_len as u64;
        let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Place { block: part(self.position / block_len), offset: part(self.position % block_len) }
    }
}

/// One frame's content, when it is that long and its checksum agrees.
fn decompress(compressed: &[u8], content_len: u32) -> Option<Vec<u8>> {
    let len = usize::try_from(content_len).ok().filter(|len| *len <= FRAME_LEN_MAX)?;
    // A second frame behind the first would be decompressed too, without having been named in the head.
    if zstd_safe::find_frame_compressed_size(compressed).ok()? != compressed.len() {
        return None;
    }
    bulk::decompress(compressed, len).ok().filter(|content| content.len() == len)
}
