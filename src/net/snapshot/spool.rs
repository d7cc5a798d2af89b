//! A file without a name, for what is read in a moment and passed on as slowly as it is taken.
//!
//! Owns: `Spool`. Called by: roles that give a snapshot. Never: outlives the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::Path;

/// Octets that are read and written at once.
const BUFFER_LEN: usize = 256 << 10;

/// Written, then read once from its start.
#[derive(Debug)]
pub struct Spool(BufWriter<File>);

impl Spool {
    /// A new one on the disk of this directory.
    ///
    /// # Errors
    /// Files cannot be made there.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("spool-{:016x}", rand::random::<u64>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        // Nobody finds it any more, and its space comes back with the last descriptor.
        fs::remove_file(&path)?;
        Ok(Self(BufWriter::with_capacity(BUFFER_LEN, file)))
    }

    /// What was written, from the start, and how many octets that is.
    ///
    /// # Errors
    /// The disk is full.
    pub fn read(self) -> io::Result<(BufReader<File>, u64)> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        let len = file.stream_position()?;
        file.rewind()?;
        Ok((BufReader::with_capacity(BUFFER_LEN, file), len))
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
