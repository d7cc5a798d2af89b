//! Feeding a drive: from a tar stream to blocks and file marks, with a buffer between so that the drive need not stop.
//!
//! Owns: the threads of one part: one reads and cuts, one a core compresses, the caller's writes. Called by: `job`. Calls: `volume` for the
//! octets, `drive` for the blocks. Never: chooses volumes; it asks for the next one.
//!
//! - `pipe`: what waits between the threads, within the memory that is allowed;
//! - `writer`: frames into blocks, the end of a volume, the catalogue behind the part;
//! - `spool`: a catalogue that grows while its part is written;
//! - `progress`: what is told of it while it goes on.
//!
//! Invariants: frames are written in the order of the stream; a frame that is not wholly on a volume is written to the next one; a
//! part has its catalogue on the volume and a file mark behind it, or it did not happen; the memory of waiting frames stays
//! within the buffer.

mod pipe;
mod progress;
mod spool;
mod writer;

#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::catalogue::CatalogueError;
use super::drive::{Drive, DriveError};
use super::volume::cut::{Cutter, Raw};
use super::volume::frame::{CompressError, Compressor, FRAME_LEN_MAX, Head, Kind};
use super::volume::label::{Continues, Label};
use super::volume::line::PartLine;
use super::volume::walk::TarError;
use super::volume::{self};
pub use pipe::BUFFER_LEN_MIN;
use pipe::{Compressed, Pipe};
pub use progress::{Progress, Snapshot};
pub use spool::{Spool, SpoolError};

/// Octets that are asked of a source at a time.
const READ_LEN: usize = 256 * 1024;

/// A volume in its drive, which stands at the beginning of this tape file.
#[derive(Debug)]
pub struct Mounted {
    pub drive: Drive,
    pub label: Label,
    /// The tape file that is written next: 1, 3, …
    pub file: u32,
}

/// How a part is fed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Octets of frames in memory, at most; at least `BUFFER_LEN_MIN`.
    pub buffer_len: usize,
    /// Threads that compress.
    pub workers: usize,
    /// Where catalogues grow; nothing is left in it.
    pub spool_dir: PathBuf,
}

/// Why a part is not on the volume.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The source: it broke off.
    #[error("the source broke off: {0}")]
    Source(io::Error),
    /// The source: what it gave is no tar stream.
    #[error("the source gave what is no backup: {0}")]
    Tar(#[from] TarError),
    /// The drive or the volume.
    #[error("writing to volume {volume}: {error}; {left}")]
    Drive { volume: String, error: DriveError, left: Left },
    /// Nobody gave a further volume, or it was not fit.
    #[error("volume {after} is full and there is no next one: {reason}")]
    NoVolume { after: String, reason: String },
    /// A fresh volume had no room for a single frame.
    #[error("volume {0} has no room for anything")]
    NoRoom(String),
    #[error("stopped")]
    Cancelled,
    /// This machine.
    #[error("the catalogue of the part cannot be kept: {0}")]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A bug; it is in the log.
    #[error("a thread of the pipeline broke")]
    Broken,
    /// The part is on the volume, and not in the database: the next run takes it in.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// The state in which a volume was left after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Left {
    #[error("all parts before this one are whole; behind them stand {frames} frames of this one and a file mark")]
    Marked { frames: u64 },
    #[error("all parts before this one are whole; behind them it has no file mark, because the drive takes none")]
    Unmarked,
}

/// What the caller does while a part is written.
pub struct Hooks<'a> {
    /// The volume is full: gives the next one, labelled so.
    pub next_volume: &'a mut dyn FnMut(Mounted, Continues) -> Result<Mounted, FeedError>,
    /// A piece is safe on this volume, in this tape file; its catalogue.
    pub piece: &'a mut dyn FnMut(&Label, u32, &mut Spool) -> Result<(), FeedError>,
}

/// Puts one part on volumes: the stream, its catalogue, and a file mark behind each. Blocks.
///
/// # Errors
/// The part is not there; parts before it are. See `Left`.
pub fn part<R: Read + Send>(
    source: R,
    mounted: Mounted,
    line: &PartLine,
    settings: &Settings,
    progress: &Arc<Progress>,
    hooks: &mut Hooks<'_>,
) -> Result<Mounted, FeedError> {
    let name: volume::Name = hex::decode(&line.part).ok().and_then(|name| name.try_into().ok()).unwrap_or_default();
    let pipe = Pipe::new(settings.buffer_len, Arc::clone(progress));
    let mut writer = writer::Writer::new(mounted, name, line.clone(), settings, Arc::clone(progress))?;
    thread::scope(|scope| {
        scope.spawn(|| pipe.guarded(|| read(source, &pipe, progress)));
        for _ in 0..settings.workers.max(1) {
            scope.spawn(|| pipe.guarded(|| compress(&pipe, name)));
        }
        let written = writer.write_all(&pipe, hooks);
        pipe.stop();
        written
    })?;
    Ok(writer.into_mounted())
}

/// The reading thread: the stream into frames.
fn read<R: Read>(mut source: R, pipe: &Pipe, progress: &Progress) -> Result<(), FeedError> {
    let mut cutter = Cutter::default();
    let mut octets = vec![0; READ_LEN];
    let mut count = 0;
    let put = |raw: Option<Raw>, count: &mut u64| {
        let Some(raw) = raw else { return true };
        *count = raw.number + 1;
        pipe.put_raw(raw) && pipe.reserve(FRAME_LEN_MAX)
    };
    if !pipe.reserve(FRAME_LEN_MAX) {
        return Ok(());
    }
    loop {
        if progress.is_cancelled() {
            return Err(FeedError::Cancelled);
        }
        let len = match source.read(&mut octets) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FeedError::Source(error)),
        };
        progress.add_read(len);
        let mut rest = octets.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            let (taken, raw) = cutter.push(rest)?;
            rest = rest.get(taken..).unwrap_or_default();
            if !put(raw, &mut count) {
                return Ok(());
            }
        }
    }
    put(cutter.finish()?, &mut count);
    pipe.finish(count);
    Ok(())
}

/// A compressing thread.
fn compress(pipe: &Pipe, part: volume::Name) -> Result<(), FeedError> {
    let mut compressor = Compressor::new()?;
    while let Some(raw) = pipe.take_raw() {
        let head = Head {
            kind: Kind::Tar,
            part,
            number: raw.number,
            at: raw.at,
            content_len: 0,
            compressed_len: 0,
            first: raw.first,
        };
        let octets = compressor.compress(&raw.content, head)?;
        let len = raw.content.len();
        pipe.put_compressed(len, Compressed { number: raw.number, at: raw.at, len, octets, members: raw.members });
    }
    Ok(())
}
