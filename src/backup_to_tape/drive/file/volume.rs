//! One volume as a directory: its tape files, and the place where it is read or written.
//!
//! Owns: the order of writes and syncs. Called by: `file`. Never: follows a link.
//!
//! Invariants, after every step and so after every crash:
//! - tape files are numbered from 0 without a gap: what lies behind a gap is not part of the volume;
//! - all tape files but the last are whole and safe.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::super::error::io;
use super::super::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, DriveError, Place, Reading};
use super::names::{BLOCK_BYTES, tape_file};
use crate::base::durable;

/// Mode of a volume's files: backups hold everybody's mail.
const FILE_MODE: u32 = 0o640;
/// Octets of the file that has the block size, at most.
const BLOCK_BYTES_FILE_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Volume {
    name: String,
    path: PathBuf,
    /// Octets of its blocks.
    block_bytes: usize,
    /// How many tape files it has; a blank one has none.
    files: u32,
    place: Place,
    /// The tape file of `place`, once it was needed.
    open: Option<File>,
    /// Since the last movement it is written: octets on the whole volume.
    written: Option<u64>,
    /// Blocks have followed the last file mark.
    is_unmarked: bool,
}

impl Volume {
    /// At its beginning. `block_bytes`: of its blocks, when it does not say.
    pub(super) fn open(dir: &Path, name: &str, block_bytes: usize) -> Result<Self, DriveError> {
        let path = dir.join(name);
        let block_bytes = recorded_block_bytes(&path)?.unwrap_or(block_bytes);
        let mut files = 0;
        while is_file(&tape_file(&path, files))? {
            files += 1;
        }
        Ok(Self {
            name: name.to_owned(),
            path,
            block_bytes,
            files,
            place: Place::START,
            open: None,
            written: None,
            is_unmarked: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn place(&self) -> Place {
        self.place
    }

    /// Octets on it, while it is written.
    pub(super) const fn written(&self) -> Option<u64> {
        self.written
    }

    /// By its mode, which holds for root also.
    pub(super) fn is_protected(&self) -> Result<bool, DriveError> {
        let mode = fs::metadata(&self.path).map_err(self.io())?.permissions().mode();
        Ok(mode & 0o222 == 0)
    }

    pub(super) fn is_at_end(&self) -> Result<bool, DriveError> {
        Ok(self.place >= self.end()?)
    }

    fn io(&self) -> impl FnOnce(io::Error) -> DriveError {
        io(self.path.display().to_string())
    }

    fn block_len(&self) -> u64 {
        u64::try_from(self.block_bytes).unwrap_or(u64::MAX)
    }

    fn offset(&self) -> u64 {
        u64::from(self.place.block).saturating_mul(self.block_len())
    }

    fn len_of(&self, file: u32) -> Result<u64, DriveError> {
        fs::symlink_metadata(tape_file(&self.path, file)).map(|metadata| metadata.len()).map_err(self.io())
    }

    /// Behind its last whole block.
    pub(super) fn end(&self) -> Result<Place, DriveError> {
        let Some(file) = self.files.checked_sub(1) else { return Ok(Place::START) };
        let blocks = self.len_of(file)? / self.block_len();
        Ok(Place { file, block: u32::try_from(blocks).unwrap_or(u32::MAX) })
    }

    /// Before it is moved or read: a file mark behind blocks that have none, as the driver of a tape writes it.
    pub(super) fn settle(&mut self) -> Result<(), DriveError> {
        if self.written.is_some() && self.is_unmarked {
            self.write_marks(1)?;
        }
        self.written = None;
        Ok(())
    }

    pub(super) fn seek(&mut self, place: Place) -> Result<(), DriveError> {
        let end = self.end()?;
        let is_there = if place.file < end.file {
            // The last block of a tape file that somebody else wrote may be short.
            u64::from(place.block) <= self.len_of(place.file)?.div_ceil(self.block_len())
        } else {
            place <= end
        };
        if !is_there {
            return Err(DriveError::PastEnd(place));
        }
        self.go_to(place);
        Ok(())
    }

    fn go_to(&mut self, place: Place) {
        if place.file != self.place.file {
            self.open = None;
        }
        self.place = place;
    }

    pub(super) fn read_block(&mut self, buffer: &mut [u8]) -> Result<Reading, DriveError> {
        if self.place.file >= self.files {
            return Ok(Reading::EndOfData);
        }
        let is_last = self.place.file + 1 == self.files;
        let rest = self.len_of(self.place.file)?.saturating_sub(self.offset());
        let len = rest.min(self.block_len());
        if len < self.block_len() && is_last {
            return Ok(Reading::EndOfData);
        }
        if len == 0 {
            self.go_to(Place { file: self.place.file + 1, block: 0 });
            return Ok(Reading::Mark);
        }
        let (place, offset, expected) = (self.place, self.offset(), buffer.len());
        if self.open.is_none() {
            self.open = Some(File::open(tape_file(&self.path, place.file)).map_err(self.io())?);
        }
        self.place.block = place.block.saturating_add(1);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some(buffer) = buffer.get_mut(..len) else {
            return Err(DriveError::ForeignBlock { place, expected, bytes: Some(self.block_bytes) });
        };
        let read = self.open.as_ref().map_or(Ok(()), |file| file.read_exact_at(buffer, offset));
        match read {
            Ok(()) => Ok(Reading::Block(len)),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(DriveError::Medium(place)),
            Err(error) => Err(self.io()(error)),
        }
    }

    /// Cuts off what lies behind the place, and writes there from now on.
    pub(super) fn begin_writing(&mut self, block_bytes: usize) -> Result<(), DriveError> {
        if self.written.is_some() {
            return Ok(());
        }
        if self.is_protected()? {
            return Err(DriveError::WriteProtected);
        }
        if self.place == Place::START {
            let text = format!("{block_bytes}\n");
            let path = self.path.join(BLOCK_BYTES);
            // Blocks of the old size may not be read with the new one.
            self.cut_files(0)?;
            durable::replace(&path, text.as_bytes(), FILE_MODE).map_err(self.io())?;
            self.block_bytes = block_bytes;
        } else if self.block_bytes != block_bytes {
            let bytes = Some(self.block_bytes);
            return Err(DriveError::ForeignBlock { place: self.place, expected: block_bytes, bytes });
        } else {
            self.cut_files(self.place.file + 1)?;
        }
        let path = tape_file(&self.path, self.place.file);
        let file = create(&path).map_err(self.io())?;
        let cut = file.set_len(self.offset()).and_then(|()| file.sync_all()).and_then(|()| durable::sync_parent(&path));
        cut.map_err(self.io())?;
        self.files = self.place.file + 1;
        self.open = Some(file);
        let lens: Result<Vec<u64>, DriveError> = (0..self.files).map(|file| self.len_of(file)).collect();
        self.written = Some(lens?.iter().sum());
        self.is_unmarked = self.place.block > 0;
        Ok(())
    }

    /// Removes tape files from the last one down to this one.
    fn cut_files(&mut self, first: u32) -> Result<(), DriveError> {
        for number in (first..self.files).rev() {
            fs::remove_file(tape_file(&self.path, number)).map_err(self.io())?;
        }
        self.files = self.files.min(first);
        // What lies behind a gap was never part of it, and would become so.
        let mut stray = self.files;
        while is_file(&tape_file(&self.path, stray + 1))? {
            fs::remove_file(tape_file(&self.path, stray + 1)).map_err(self.io())?;
            stray += 1;
        }
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(self.io())
    }

    pub(super) fn write_block(&mut self, block: &[u8]) -> Result<(), DriveError> {
        let offset = self.offset();
        let Some(file) = &self.open else { return Err(DriveError::PlaceLost) };
        if let Err(error) = file.write_all_at(block, offset) {
            // A part of a block may be there. Where this fails too, the rest is a torn tail, which is passed over.
            drop(file.set_len(offset));
            return Err(self.failed_write(error));
        }
        let len = u64::try_from(block.len()).unwrap_or(u64::MAX);
        self.written = self.written.map(|octets| octets.saturating_add(len));
        self.place.block = self.place.block.saturating_add(1);
        self.is_unmarked = true;
        Ok(())
    }

    fn failed_write(&self, error: io::Error) -> DriveError {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => DriveError::Full(self.place),
            Some(libc::EIO) => DriveError::Medium(self.place),
            Some(_) | None => self.io()(error),
        }
    }

    pub(super) fn write_marks(&mut self, count: u32) -> Result<(), DriveError> {
        if let Some(file) = &self.open {
            file.sync_all().map_err(self.io())?;
        }
        for _ in 0..count {
            let number = self.place.file + 1;
            let path = tape_file(&self.path, number);
            let made = create(&path).and_then(|file| file.set_len(0).and_then(|()| file.sync_all()).map(|()| file));
            let file = made.map_err(|error| self.failed_write(error))?;
            self.place = Place { file: number, block: 0 };
            self.files = number + 1;
            self.open = Some(file);
            self.is_unmarked = false;
        }
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(self.io())
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

fn is_file(path: &Path) -> Result<bool, DriveError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io(path.display().to_string())(error)),
    }
}

/// What a volume says of the size of its blocks.
fn recorded_block_bytes(volume: &Path) -> Result<Option<usize>, DriveError> {
    let path = volume.join(BLOCK_BYTES);
    let failed = || io(path.display().to_string());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    let mut text = [0; BLOCK_BYTES_FILE_MAX];
    let len = file.read_at(&mut text, 0).map_err(failed())?;
    let number = text.get(..len).and_then(|text| str::from_utf8(text).ok()).and_then(|text| text.trim().parse().ok());
    let number = number.filter(|bytes| (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(bytes));
    number.map(Some).ok_or_else(|| failed()(io::Error::other("is no size of blocks")))
}
