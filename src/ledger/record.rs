//! A record as it stands on disk, and an entry made ready to become one.
//!
//! Owns: the 64-byte record header, compression, the checksums, the chain. Called by: `tail` (writes), `walk` and
//! `reader` (read). Never: touches a file.
//!
//! Layout, little-endian, at an offset divisible by 8:
//!
//! ```text
//!  0  u64  mark     proves that a record of this segment starts at this offset, in this group
//!  8  u32  group    offset of the first record of the group that was made durable together
//! 12  u32  crc      CRC-32C of bytes 16..32 and of the stored payload
//! 16  u32  size     payload bytes as stored
//! 20  u32  raw      payload bytes as given
//! 24  u8   kind     the owner's
//! 25  u8   flags
//! 26  u48  time     milliseconds since 1970
//! 32  [32] chain    BLAKE3(predecessor's chain, BLAKE3(bytes 16..32, stored payload))
//! 64  payload, then zeros up to the next multiple of 8
//! ```
//!
//! The checksum and the inner digest do not depend on the place of the record: the caller computes them on its own
//! thread, and the one writer has 64 bytes to hash for each record whatever its size.

use std::cell::RefCell;

use bytes::{Buf, BufMut, Bytes};

use super::Entry;

/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: u64 = 64;
/// Records start at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;
/// Largest payload of one record: sizes are 32 bits, and a segment has to hold it.
pub(super) const PAYLOAD_BYTES_MAX: u64 = 0xffff_0000;
/// Payloads below this are stored as given: the header weighs more than what could be saved.
const COMPRESS_BYTES_MIN: usize = 512;
/// Of a larger payload this much is tried first: photographs are not compressed a second time.
const COMPRESS_SAMPLE_BYTES: usize = 128 * 1024;
/// zstd's fastest level: the writer must not wait for a better one.
const COMPRESS_LEVEL: i32 = 1;

/// The payload is zstd.
const FLAG_COMPRESSED: u8 = 1;
/// Another record of the same append follows: alone this one counts for nothing.
const FLAG_MORE: u8 = 2;
/// The ledger's own: the payload is a `Removal`. Owners never see it.
const FLAG_REMOVAL: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_COMPRESSED | FLAG_MORE | FLAG_REMOVAL;

/// A chain value: what stands for everything up to and including a record.
pub(super) type Chain = [u8; 32];

/// What makes a mark of this segment different from one of any other segment or ledger.
///
/// It derives from the ledger's random id, so that a payload (a mail with a ledger segment attached) cannot pretend
/// to be a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Salt(u64);

impl Salt {
    pub(super) fn of(ledger: &[u8; 16], segment: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(ledger).update(&segment.to_le_bytes());
        let hash = hasher.finalize();
        Self(hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// The mark of a record at `offset` in the group that starts at `group`: one to one, so that both are protected.
    pub(super) fn mark(self, offset: u32, group: u32) -> u64 {
        let mut x = self.0 ^ ((u64::from(offset) << 32) | u64::from(group));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// The chain value before the first record of a ledger.
pub(super) fn genesis(ledger: &[u8; 16]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"fife ledger").update(ledger);
    *hasher.finalize().as_bytes()
}

/// The chain value after a record with this digest.
pub(super) fn link(chain: &Chain, digest: &[u8; 32]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chain).update(digest);
    *hasher.finalize().as_bytes()
}

/// The bytes of a record with this stored payload, padding included.
pub(super) fn record_bytes(size: u64) -> u64 {
    (RECORD_HEADER_BYTES + size).next_multiple_of(ALIGNMENT)
}

/// Bytes 16..32 of a record header: what the owner gave, apart from the payload itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) size: u32,
    pub(super) raw: u32,
    pub(super) kind: u8,
    flags: u8,
    pub(super) time_millis: u64,
}

impl Fields {
    fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let mut rest = out.as_mut_slice();
        rest.put_u32_le(self.size);
        rest.put_u32_le(self.raw);
        rest.put_u8(self.kind);
        rest.put_u8(self.flags);
        rest.put_uint_le(self.time_millis, 6);
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            size: bytes.try_get_u32_le().ok()?,
            raw: bytes.try_get_u32_le().ok()?,
            kind: bytes.try_get_u8().ok()?,
            flags: bytes.try_get_u8().ok()?,
            time_millis: bytes.try_get_uint_le(6).ok()?,
        })
    }

    /// Whether another record of the same append follows.
    pub(super) fn more(&self) -> bool {
        self.flags & FLAG_MORE != 0
    }

    /// Whether this is the ledger's own record of a removed segment.
    pub(super) fn removal(&self) -> bool {
        self.flags & FLAG_REMOVAL != 0
    }

    fn crc(&self, payload: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.encode()), payload)
    }

    pub(super) fn digest(&self, payload: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.encode()).update(payload);
        *hasher.finalize().as_bytes()
    }
}

/// A record header as read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) group: u32,
    crc: u32,
    pub(super) fields: Fields,
    pub(super) chain: Chain,
}

impl Header {
    /// The header of the record that starts at `offset`, if one does.
    pub(super) fn decode(mut bytes: &[u8], salt: Salt, offset: u32) -> Option<Self> {
        let group = group_at(bytes, salt, offset)?;
        bytes.advance(12);
        let crc = bytes.try_get_u32_le().ok()?;
        let fields = Fields::decode(bytes.get(..16)?)?;
        bytes.advance(16);
        let chain = *bytes.first_chunk()?;
        (fields.flags & !FLAGS_KNOWN == 0).then_some(Self { group, crc, fields, chain })
    }

    /// Whether this is the payload that was written with this header.
    pub(super) fn agrees(&self, payload: &[u8]) -> bool {
        self.fields.crc(payload) == self.crc
    }
}

/// The group of the record that starts at `offset`, going by its first 12 bytes; nothing when none starts there.
pub(super) fn group_at(mut bytes: &[u8], salt: Salt, offset: u32) -> Option<u32> {
    let mark = bytes.try_get_u64_le().ok()?;
    let group = bytes.try_get_u32_le().ok()?;
    (mark == salt.mark(offset, group)).then_some(group)
}

/// The entry back from its record; nothing if it does not decompress to its stated size.
pub(super) fn entry(fields: &Fields, payload: Bytes) -> Option<Entry> {
    let payload = if fields.flags & FLAG_COMPRESSED == 0 {
        payload
    } else {
        let raw = usize::try_from(fields.raw).ok()?;
        Bytes::from(decompress(&payload, raw)?)
    };
    Some(Entry { kind: fields.kind, time_millis: fields.time_millis, payload })
}

/// What stays of a segment that was compacted away: with this the chain goes on over the gap, and a segment that is
/// missing without it has been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) segment: u64,
    /// Chain value before its first record.
    pub(super) before: Chain,
    /// Chain value after its last record.
    pub(super) after: Chain,
}

impl Removal {
    pub(super) fn decode(mut payload: &[u8]) -> Option<Self> {
        let segment = payload.try_get_u64_le().ok()?;
        let (before, rest) = payload.split_first_chunk()?;
        let after = rest.try_into().ok()?;
        Some(Self { segment, before: *before, after })
    }

    /// The record, as an append of its own.
    pub(super) fn record(&self) -> Prepared {
        let mut payload = Vec::with_capacity(72);
        payload.put_u64_le(self.segment);
        payload.put_slice(&self.before);
        payload.put_slice(&self.after);
        let size = 72;
        let fields = Fields { size, raw: size, kind: 0, flags: FLAG_REMOVAL, time_millis: 0 };
        Prepared::of(fields, Bytes::from(payload))
    }
}

/// An entry made ready on its caller's thread: compressed, checksummed and digested.
#[derive(Debug, Clone)]
pub struct Prepared {
    fields: Fields,
    crc: u32,
    digest: [u8; 32],
    payload: Bytes,
}

impl Prepared {
    /// All entries of one append. The caller has checked that each payload is at most `PAYLOAD_BYTES_MAX`.
    pub(super) fn all(entries: Vec<Entry>) -> Vec<Self> {
        let last = entries.len().saturating_sub(1);
        entries.into_iter().enumerate().map(|(i, entry)| Self::new(entry, i < last)).collect()
    }

    /// One that has others of its append behind it. The bound of its payload is the caller's to check.
    pub(super) fn followed(entry: Entry) -> Self {
        Self::new(entry, true)
    }

    fn new(entry: Entry, more: bool) -> Self {
        let raw = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
        let (payload, compressed) = match compress(&entry.payload) {
            Some(packed) => (Bytes::from(packed), FLAG_COMPRESSED),
            None => (entry.payload, 0),
        };
        let fields = Fields {
            size: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            raw,
            kind: entry.kind,
            flags: compressed | if more { FLAG_MORE } else { 0 },
            time_millis: entry.time_millis & 0xffff_ffff_ffff,
        };
        Self::of(fields, payload)
    }

    fn of(fields: Fields, payload: Bytes) -> Self {
        Self { crc: fields.crc(&payload), digest: fields.digest(&payload), fields, payload }
    }

    /// Records as they were stored elsewhere, made ready to be one append.
    pub(super) fn again(records: Vec<(Fields, Bytes)>) -> Vec<Self> {
        let last = records.len().saturating_sub(1);
        let again = |(i, (mut fields, payload)): (usize, (Fields, Bytes))| {
            fields.flags = (fields.flags & !FLAG_MORE) | if i < last { FLAG_MORE } else { 0 };
            Self::of(fields, payload)
        };
        records.into_iter().enumerate().map(again).collect()
    }

    /// Whether this is the ledger's own record of a removed segment.
    #[cfg(test)]
    pub(super) fn removal(&self) -> bool {
        self.fields.removal()
    }

    /// The bytes that it takes in a segment.
    pub(super) fn bytes(&self) -> u64 {
        record_bytes(u64::from(self.fields.size))
    }

    /// Writes the record for its place, and moves the chain on.
    pub(super) fn write(&self, out: &mut Vec<u8>, salt: Salt, offset: u32, group: u32, chain: &mut Chain) {
        *chain = link(chain, &self.digest);
        out.put_u64_le(salt.mark(offset, group));
        out.put_u32_le(group);
        out.put_u32_le(self.crc);
        out.put_slice(&self.fields.encode());
        out.put_slice(chain);
        out.put_slice(&self.payload);
        let written = RECORD_HEADER_BYTES + u64::from(self.fields.size);
        let padding = usize::try_from(self.bytes() - written).unwrap_or(0);
        out.put_bytes(0, padding);
    }
}

thread_local! {
    /// A zstd context is some hundred KiB: one for each thread, not one for each record.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The payload as given, if it is of this size.
fn decompress(packed: &[u8], raw: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = zstd::bulk::Decompressor::new().ok();
        }
        decompressor.as_mut()?.decompress(packed, raw).ok().filter(|plain| plain.len() == raw)
    })
}

/// The payload compressed, when that saves at least an eighth.
fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(COMPRESS_LEVEL).ok();
        }
        let compressor = compressor.as_mut()?;
        let mut attempt = |bytes: &[u8]| {
            let packed = compressor.compress(bytes).ok()?;
            (packed.len() + bytes.len() / 8 <= bytes.len()).then_some(packed)
        };
        if payload.len() > 2 * COMPRESS_SAMPLE_BYTES {
            attempt(payload.get(..COMPRESS_SAMPLE_BYTES)?)?;
        }
        attempt(payload)
    })
}
