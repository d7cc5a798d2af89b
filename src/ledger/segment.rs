//! What frames the records of a segment: the header before them, the seal behind them.
//!
//! Owns: both formats, the file's name. Called by: `tail` (writes), `recovery`, `reader`, `check` (read).
//! Never: touches a file.
//!
//! ```text
//! header (512 bytes)            seal (at the end of the file)
//!  0  [8]  "fifeLEDG"            index: u32 offset of each record, zeros up to a multiple of 8
//!  8  u32  version                0  [8]  "fifeSEAL"
//! 12  [16] ledger id              8  u32  number of records
//! 28  u64  segment id            12  u32  end: where the records end and the index begins
//! 36  [32] chain before          16  [32] chain after the last record
//! 68  u32  CRC-32C of 0..68      48  [32] BLAKE3 of index and of 0..48
//!                                80  u32  CRC-32C of 0..80, then four zeros
//! ```

use bytes::{Buf, BufMut};

use super::record::{ALIGNMENT, Chain};

/// Bytes before the first record: a sector, so that writing records never rewrites the header.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 512;
/// Bytes of the seal behind its index.
pub(super) const FOOTER_BYTES: u64 = 88;

const HEADER_MAGIC: [u8; 8] = *b"fifeLEDG";
const FOOTER_MAGIC: [u8; 8] = *b"fifeSEAL";
const VERSION: u32 = 1;

/// What a segment's file is called while it is being made.
pub(super) const UNFINISHED_NAME: &str = "next.new";

/// What a segment's file is called.
pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:010}.segment")
}

/// The segment that a file of this name holds.
pub(super) fn segment_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    // Below 10^19 there is always a next one.
    let plain = (10..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// The header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) ledger: [u8; 16],
    pub(super) segment: u64,
    pub(super) chain: Chain,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put_slice(&HEADER_MAGIC);
        out.put_u32_le(VERSION);
        out.put_slice(&self.ledger);
        out.put_u64_le(self.segment);
        out.put_slice(&self.chain);
        out.put_u32_le(crc32c::crc32c(&out));
        out.resize(512, 0);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let crc = crc32c::crc32c(bytes.get(..68)?);
        let mut rest = bytes.strip_prefix(&HEADER_MAGIC)?;
        let version = rest.try_get_u32_le().ok()?;
        let mut ledger = [0; 16];
        rest.try_copy_to_slice(&mut ledger).ok()?;
        let segment = rest.try_get_u64_le().ok()?;
        let mut chain = [0; 32];
        rest.try_copy_to_slice(&mut chain).ok()?;
        let good = rest.try_get_u32_le().ok()? == crc && version == VERSION;
        good.then_some(Self { ledger, segment, chain })
    }
}

/// The bytes of a seal over so many records.
pub(super) fn seal_bytes(records: u64) -> u64 {
    (records * 4).next_multiple_of(ALIGNMENT) + FOOTER_BYTES
}

/// Index and footer, ready to be written at `end`.
pub(super) fn seal(index: &[u32], end: u32, chain: &Chain) -> Vec<u8> {
    let records = u64::try_from(index.len()).unwrap_or(u64::MAX);
    let mut out = Vec::with_capacity(usize::try_from(seal_bytes(records)).unwrap_or(0));
    for offset in index {
        out.put_u32_le(*offset);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let mut footer = Vec::with_capacity(88);
    footer.put_slice(&FOOTER_MAGIC);
    footer.put_u32_le(u32::try_from(index.len()).unwrap_or(u32::MAX));
    footer.put_u32_le(end);
    footer.put_slice(chain);
    let hash = index_hash(&out, &footer);
    footer.put_slice(&hash);
    footer.put_u32_le(crc32c::crc32c(&footer));
    footer.put_u32_le(0);
    out.put_slice(&footer);
    out
}

fn index_hash(index: &[u8], head: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(index).update(head);
    *hasher.finalize().as_bytes()
}

/// The last 88 bytes of a sealed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) records: u32,
    pub(super) end: u32,
    pub(super) chain: Chain,
    hash: [u8; 32],
    head: Vec<u8>,
}

impl Footer {
    /// The footer of a file of this length, if its last bytes are one.
    pub(super) fn decode(bytes: &[u8], file_bytes: u64) -> Option<Self> {
        let crc = crc32c::crc32c(bytes.get(..80)?);
        let mut rest = bytes.strip_prefix(&FOOTER_MAGIC)?;
        let records = rest.try_get_u32_le().ok()?;
        let end = rest.try_get_u32_le().ok()?;
        let mut chain = [0; 32];
        rest.try_copy_to_slice(&mut chain).ok()?;
        let mut hash = [0; 32];
        rest.try_copy_to_slice(&mut hash).ok()?;
        let whole = u64::from(end) + seal_bytes(u64::from(records)) == file_bytes;
        let good = rest.try_get_u32_le().ok()? == crc && whole && u64::from(end) >= SEGMENT_HEADER_BYTES;
        good.then(|| Self { records, end, chain, hash, head: bytes.iter().take(48).copied().collect() })
    }

    /// The offsets of the records, if `bytes` are the index that was sealed.
    pub(super) fn index(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        if index_hash(bytes, &self.head) != self.hash {
            return None;
        }
        let records = usize::try_from(self.records).ok()?;
        let offsets = bytes.chunks_exact(4).take(records).filter_map(|four| four.try_into().ok());
        Some(offsets.map(u32::from_le_bytes).collect())
    }
}
