//! A pax tar, written as a stream.
//!
//! Owns: `Archive`. Called by: roles that give a snapshot. Never: reads a file, seeks, or keeps a member.
//! Spec: POSIX.1-2001, pax interchange format: ustar headers, and before those that a ustar header cannot say an extended one.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::{HEAD_PATH, Head};

/// Octets of a block.
const BLOCK_LEN: usize = 512;
const BLOCK_OCTETS: u64 = 512;
/// Zeros to fill up a block, and the two blocks at the end of an archive.
const ZEROS: [u8; 2 * BLOCK_LEN] = [0; 2 * BLOCK_LEN];
/// Octets of a name in a ustar header; longer ones stand in an extended header.
const NAME_LEN_MAX: usize = 100;
/// The largest time in the twelve octets of a ustar header, in seconds since 1970.
const TIME_MAX: u64 = 0o77_777_777_777;
/// The largest size likewise.
const SIZE_MAX: u64 = 0o77_777_777_777;

/// What is said of a member beside its octets.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Relative, levels parted by `/`.
    pub path: &'a str,
    /// Seconds since 1970; times before are written as 1970.
    pub time: i64,
    /// Permissions, as 0o600.
    pub mode: u32,
}

/// An archive that is being written.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
}

impl<W: Write> Archive<W> {
    /// An archive that goes there.
    pub const fn new(out: W) -> Self {
        Self { out }
    }

    /// The first member of a snapshot. `time`: seconds since 1970.
    ///
    /// # Errors
    /// Whatever writing fails with.
    pub fn head(&mut self, head: &Head, time: u64) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(head)?;
        text.push(b'\n');
        let time = i64::try_from(time).unwrap_or(i64::MAX);
        self.file(Member { path: HEAD_PATH, time, mode: 0o600 }, &[&text])
    }

    /// A file, whose octets are given in pieces.
    ///
    /// # Errors
    /// Whatever writing fails with.
    pub fn file(&mut self, member: Member<'_>, pieces: &[&[u8]]) -> io::Result<()> {
        let size = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        self.header(member, EntryType::Regular, u64::try_from(size).unwrap_or(u64::MAX))?;
        for piece in pieces {
            self.out.write_all(piece)?;
        }
        self.fill(size)
    }

    /// A file of so many octets, read from there.
    ///
    /// # Errors
    /// Whatever reading and writing fail with; `UnexpectedEof` when there is less than it should be.
    pub fn stream(&mut self, member: Member<'_>, size: u64, from: &mut impl Read) -> io::Result<()> {
        self.header(member, EntryType::Regular, size)?;
        if io::copy(&mut from.take(size), &mut self.out)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.fill(usize::try_from(size % BLOCK_OCTETS).unwrap_or(0))
    }

    /// A directory.
    ///
    /// # Errors
    /// Whatever writing fails with.
    pub fn directory(&mut self, member: Member<'_>) -> io::Result<()> {
        let path = format!("{}/", member.path);
        self.header(Member { path: &path, ..member }, EntryType::Directory, 0)
    }

    /// The end: without it nobody takes the archive for whole. Gives back what it was written to.
    ///
    /// # Errors
    /// Whatever writing fails with.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&ZEROS)?;
        Ok(self.out)
    }

    /// What it is written to, for members that were made elsewhere.
    pub const fn inner(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends it without the end of an archive, as the beginning of another.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn header(&mut self, member: Member<'_>, kind: EntryType, size: u64) -> io::Result<()> {
        let time = u64::try_from(member.time).unwrap_or(0);
        let mut records = Vec::new();
        if member.path.len() > NAME_LEN_MAX || !member.path.is_ascii() {
            record(&mut records, "path", member.path);
        }
        if size > SIZE_MAX {
            record(&mut records, "size", &size.to_string());
        }
        if time > TIME_MAX {
            record(&mut records, "mtime", &time.to_string());
        }
        if !records.is_empty() {
            let len = u64::try_from(records.len()).unwrap_or(u64::MAX);
            self.ustar(".fife/pax", time, 0o600, EntryType::XHeader, len)?;
            self.out.write_all(&records)?;
            self.fill(records.len())?;
        }
        self.ustar(member.path, time, member.mode, kind, size)
    }

    fn ustar(&mut self, path: &str, time: u64, mode: u32, kind: EntryType, size: u64) -> io::Result<()> {
        let mut header = Header::new_ustar();
        if let Some(ustar) = header.as_ustar_mut() {
            // Of a longer one, the extended header has the whole.
            for (to, from) in ustar.name.iter_mut().zip(path.bytes()) {
                *to = from;
            }
        }
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time.min(TIME_MAX));
        header.set_size(size.min(SIZE_MAX));
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    /// Zeros up to the next block.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        let missing = len.next_multiple_of(BLOCK_LEN) - len;
        self.out.write_all(ZEROS.get(..missing).unwrap_or_default())
    }
}

/// A record of an extended header: its own length, in decimal, counts too.
fn record(records: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(format!("{len} {key}={value}\n").as_bytes());
}
