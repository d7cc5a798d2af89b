//! Going through the records of one segment in sequence.
//!
//! Owns: the reading window, the test of mark, CRC and chain, the search for life behind a fault.
//! Called by: `recovery`, `reader`, `check`. Never: writes.

use std::io;

use super::disk::DiskFile;
use super::record::{ALIGNMENT, Chain, Header, RECORD_HEADER_BYTES, Salt, group_at, link, record_bytes};

/// Bytes read at a time.
const WINDOW_BYTES: u64 = 256 * 1024;

/// A walk through the records from `offset` to `limit`.
pub(super) struct Walk<'f, F> {
    file: &'f F,
    salt: Salt,
    limit: u64,
    offset: u64,
    /// Unknown when the walk starts in the middle: the first record is then believed.
    chain: Option<Chain>,
    window: Vec<u8>,
    /// Offset in the file of the window's first byte.
    window_offset: u64,
}

/// A good record.
pub(super) struct Found<'w> {
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) header: Header,
    /// As stored.
    pub(super) payload: &'w [u8],
}

impl<'f, F: DiskFile> Walk<'f, F> {
    pub(super) fn new(file: &'f F, salt: Salt, offset: u64, limit: u64, chain: Option<Chain>) -> Self {
        Self { file, salt, limit, offset, chain, window: Vec::new(), window_offset: offset }
    }

    /// Where the next record starts, or where the last call found none.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The chain value before `offset`, when the walk knows it.
    pub(super) fn chain(&self) -> Option<Chain> {
        self.chain
    }

    /// The next record; nothing when none that is good starts at `offset`.
    pub(super) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        let offset = self.offset;
        let Ok(place) = u32::try_from(offset) else { return Ok(None) };
        let salt = self.salt;
        let Some(bytes) = self.ahead(RECORD_HEADER_BYTES)? else { return Ok(None) };
        let Some(header) = Header::decode(bytes, salt, place) else { return Ok(None) };
        let size = u64::from(header.fields.size);
        let expected = self.chain;
        let Some(bytes) = self.ahead(record_bytes(size))? else { return Ok(None) };
        let stored = bytes.split_at_checked(64).map_or(&[][..], |(_, rest)| rest);
        let payload = stored.get(..usize::try_from(size).unwrap_or(0)).unwrap_or_default();
        if !header.agrees(payload) {
            return Ok(None);
        }
        if let Some(chain) = expected
            && link(&chain, &header.fields.digest(payload)) != header.chain
        {
            return Ok(None);
        }
        let end = offset + record_bytes(size);
        self.offset = end;
        self.chain = Some(header.chain);
        // The window is borrowed anew: the borrow above ended with the checks.
        let start = usize::try_from(offset - self.window_offset + RECORD_HEADER_BYTES).unwrap_or(0);
        let payload = self.window.get(start..start + usize::try_from(size).unwrap_or(0)).unwrap_or_default();
        Ok(Some(Found { offset, end, header, payload }))
    }

    /// So many bytes from `offset` on; nothing when the limit or the end of the file comes first.
    fn ahead(&mut self, bytes: u64) -> io::Result<Option<&[u8]>> {
        if bytes > self.limit.saturating_sub(self.offset) {
            return Ok(None);
        }
        let want = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut skip = usize::try_from(self.offset - self.window_offset).unwrap_or(usize::MAX);
        if self.window.len().saturating_sub(skip) < want {
            let skipped = skip.min(self.window.len());
            self.window.drain(..skipped);
            self.window_offset = self.offset;
            skip = 0;
            let have = self.window.len();
            let fill = bytes.max(WINDOW_BYTES).min(self.limit - self.offset);
            self.window.resize(usize::try_from(fill).unwrap_or(usize::MAX), 0);
            let from = self.offset + u64::try_from(have).unwrap_or(u64::MAX);
            let read = self.file.read_at(self.window.get_mut(have..).unwrap_or_default(), from)?;
            self.window.truncate(have + read);
        }
        Ok(self.window.get(skip..skip.saturating_add(want)))
    }
}

/// Whether a record of a group that began behind `fault` is there.
///
/// A group is written only after its predecessor was durable. So a good record of a later group proves that what
/// stood at `fault` was durable once, and may have been acknowledged: the disk has damaged it. Without such a proof the
/// fault is where a power cut tore the last group. (Damage within the very last group cannot be told from that.)
pub(super) fn later_group<F: DiskFile>(file: &F, salt: Salt, fault: u64, limit: u64) -> io::Result<Option<u64>> {
    let mut at = fault + ALIGNMENT;
    let mut window = Vec::new();
    while at < limit {
        let bytes = WINDOW_BYTES.min(limit - at);
        // Four more than a multiple of 8, so that the last place in the window still shows its group.
        window.resize(usize::try_from(bytes + 4).unwrap_or(0), 0);
        let read = file.read_at(&mut window, at)?;
        window.truncate(read);
        for skip in (0..usize::try_from(bytes).unwrap_or(0)).step_by(8) {
            let Some(head) = window.get(skip..skip + 12) else { break };
            let offset = at + u64::try_from(skip).unwrap_or(0);
            let Ok(place) = u32::try_from(offset) else { break };
            if group_at(head, salt, place).is_some_and(|group| u64::from(group) > fault)
                && Walk::new(file, salt, offset, limit, None).next()?.is_some()
            {
                return Ok(Some(offset));
            }
        }
        at += bytes.next_multiple_of(ALIGNMENT);
    }
    Ok(None)
}

/// Whether nothing but zeros stands from `offset` to `limit`.
pub(super) fn is_blank<F: DiskFile>(file: &F, mut offset: u64, limit: u64) -> io::Result<bool> {
    let mut window = Vec::new();
    while offset < limit {
        window.resize(usize::try_from(WINDOW_BYTES.min(limit - offset)).unwrap_or(0), 0);
        let read = file.read_at(&mut window, offset)?;
        if read == 0 {
            break;
        }
        if window.iter().take(read).any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += u64::try_from(read).unwrap_or(u64::MAX);
    }
    Ok(true)
}
