//! The catalogue of a piece, while its piece is written.
//!
//! Owns: `Spool`: lines in compressed frames, in a file that has no name (a full tape's catalogue is larger than memory should be).
//! Called by: `writer` (adds lines, copies the frames to the volume), `catalogue` by way of `job` (reads the lines). Leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::backup_to_tape::volume::Name;
use crate::backup_to_tape::volume::frame::{CompressError, Compressor, Found, Head, Kind, Place, Unframer};
use crate::backup_to_tape::volume::line::Line;

/// Octets of lines after which a frame is full.
const FRAME_LEN: usize = 1024 * 1024;
/// Octets read at a time.
pub(super) const CHUNK_LEN: usize = 256 * 1024;

/// Why the catalogue is not kept: this machine's fault.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("spool file: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Compress(#[from] CompressError),
}

/// See the room.
pub struct Spool {
    file: File,
    compressor: Compressor,
    part: Name,
    number: u64,
    at: u64,
    lines: Vec<u8>,
}

impl Spool {
    pub(super) fn new(dir: &Path, part: Name) -> Result<Self, SpoolError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        let (file, compressor) = (options.open(dir)?, Compressor::new()?);
        Ok(Self { file, compressor, part, number: 0, at: 0, lines: Vec::new() })
    }

    pub(super) fn add(&mut self, line: &Line) -> Result<(), SpoolError> {
        self.lines.extend(line.encode());
        if self.lines.len() >= FRAME_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SpoolError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let head = Head {
            kind: Kind::Catalogue,
            part: self.part,
            number: self.number,
            at: self.at,
            content_len: 0,
            compressed_len: 0,
            first: Some(0),
        };
        self.file.write_all(&self.compressor.compress(&self.lines, head)?)?;
        self.number += 1;
        self.at += self.lines.len() as u64;
        self.lines.clear();
        Ok(())
    }

    /// To the first frame, for `read`.
    pub(super) fn rewind(&mut self) -> Result<(), SpoolError> {
        self.flush()?;
        self.file.rewind()?;
        Ok(())
    }

    /// Octets of the frames; 0 at their end.
    pub(super) fn read(&mut self, chunk: &mut [u8]) -> Result<usize, SpoolError> {
        Ok(self.file.read(chunk)?)
    }

    /// Gives out the lines, from the first one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn lines(&mut self, mut take: impl FnMut(Line)) -> Result<(), SpoolError> {
        self.rewind()?;
        let mut unframer = Unframer::new(CHUNK_LEN, Place { block: 0, offset: 0 });
        let mut chunk = vec![0; CHUNK_LEN];
        loop {
            let len = self.read(&mut chunk)?;
            if len == 0 {
                return Ok(());
            }
            unframer.block(chunk.get(..len).unwrap_or_default());
            while let Some(found) = unframer.find() {
                if let Found::Frame { content, .. } = found {
                    content.split(|octet| *octet == b'\n').filter_map(Line::decode).for_each(&mut take);
                }
            }
        }
    }
}
