//! A directory of volumes that stands for a drive.
//!
//! Owns: how blocks and file marks are kept as plain files. Called by: `Drive`. Never: needs a tool to be read.
//!
//! ```text
//! DIR/loaded -> FIFE01      the volume in the drive
//! DIR/FIFE01/               a volume; without write permission (chmod a-w) it is write-protected
//! DIR/FIFE01/000000         a tape file: its blocks, one after the other
//! DIR/FIFE01/000001         the next: that it is there is the file mark before it
//! DIR/FIFE01/block-bytes    the size of its blocks, as a number
//! ```
//!
//! So a part that stands in tape file 1 is read by `zstd -dc <000001 | tar x`, and goes to a tape by `dd bs=BLOCK of=/dev/nst0 if=000001`.
//! After kill -9 and power cut all that `write_marks` acknowledged is there; a last block that is not whole was never acknowledged: there
//! data ends.

mod names;
mod volume;

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::error::io;
use super::{Access, DriveError, Place, Reading, Status, Written};
use crate::base::durable;
use crate::base::size::Size;
use names::{LOADED, LOADED_NEW};
use volume::Volume;

/// The part of a volume's capacity behind the early warning.
const EARLY_WARNING_PART: u64 = 8;

/// One directory of volumes, and the one that is in.
#[derive(Debug)]
pub struct FileDrive {
    dir: PathBuf,
    /// Holds the lock on the directory.
    _lock: File,
    access: Access,
    block_bytes: usize,
    capacity: Option<u64>,
    volume: Option<Volume>,
}

impl FileDrive {
    pub(super) fn open(
        dir: &Path,
        access: Access,
        block_bytes: usize,
        capacity: Option<Size>,
    ) -> Result<Self, DriveError> {
        let lock = File::open(dir).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return DriveError::NotThere(dir.to_owned());
            }
            io(dir.display().to_string())(error)
        })?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DriveError::Busy,
            TryLockError::Error(error) => io(format!("locking {}", dir.display()))(error),
        })?;
        let capacity = capacity.map(Size::get);
        let mut drive = Self { dir: dir.to_owned(), _lock: lock, access, block_bytes, capacity, volume: None };
        drive.volume = drive.what_is_in()?;
        Ok(drive)
    }

    /// The volume that `loaded` names.
    fn what_is_in(&self) -> Result<Option<Volume>, DriveError> {
        let link = self.dir.join(LOADED);
        let name = match fs::read_link(&link) {
            Ok(target) => target.to_string_lossy().into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(link.display().to_string())(error)),
        };
        names::check(&name)?;
        if !self.dir.join(&name).is_dir() {
            return Ok(None);
        }
        Volume::open(&self.dir, &name, self.block_bytes).map(Some)
    }

    fn volume(&mut self) -> Result<&mut Volume, DriveError> {
        self.volume.as_mut().ok_or(DriveError::NoMedium)
    }

    pub(super) fn status(&self) -> Result<Status, DriveError> {
        let Some(volume) = &self.volume else { return Ok(Status::default()) };
        let Place { file, block } = volume.place();
        let early = self.capacity.map(warning_at);
        Ok(Status {
            loaded: true,
            online: true,
            write_protected: volume.is_protected()?,
            file: Some(file),
            block: Some(block),
            at_end_of_data: volume.is_at_end()?,
            at_early_warning: volume.written().is_some_and(|octets| early.is_some_and(|early| octets > early)),
            wants_cleaning: false,
            volume: Some(volume.name().to_owned()),
        })
    }

    pub(super) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// The volume, to be written at its place.
    fn writing(&mut self) -> Result<&mut Volume, DriveError> {
        let (access, block_bytes) = (self.access, self.block_bytes);
        let volume = self.volume()?;
        if access == Access::Read {
            return Err(DriveError::ReadOnly);
        }
        volume.begin_writing(block_bytes)?;
        Ok(volume)
    }

    pub(super) fn write_block(&mut self, block: &[u8]) -> Result<Written, DriveError> {
        let capacity = self.capacity;
        let volume = self.writing()?;
        let len = u64::try_from(block.len()).unwrap_or(u64::MAX);
        let octets = volume.written().unwrap_or(0).saturating_add(len);
        if capacity.is_some_and(|capacity| octets > capacity) {
            return Err(DriveError::Full(volume.place()));
        }
        volume.write_block(block)?;
        let is_early = capacity.is_some_and(|capacity| octets > warning_at(capacity));
        Ok(if is_early { Written::EarlyWarning } else { Written::Done })
    }

    pub(super) fn write_marks(&mut self, count: u32) -> Result<(), DriveError> {
        self.writing()?.write_marks(count)
    }

    pub(super) fn read_block(&mut self, buffer: &mut [u8]) -> Result<Reading, DriveError> {
        let volume = self.volume()?;
        volume.settle()?;
        volume.read_block(buffer)
    }

    pub(super) fn seek(&mut self, place: Place) -> Result<(), DriveError> {
        let volume = self.volume()?;
        volume.settle()?;
        volume.seek(place)
    }

    pub(super) fn space_to_end(&mut self) -> Result<(), DriveError> {
        let volume = self.volume()?;
        volume.settle()?;
        let end = volume.end()?;
        volume.seek(end)
    }

    pub(super) fn eject(&mut self) -> Result<(), DriveError> {
        self.volume()?.settle()?;
        self.volume = None;
        let link = self.dir.join(LOADED);
        fs::remove_file(&link).and_then(|()| durable::sync_parent(&link)).map_err(io(link.display().to_string()))
    }

    pub(super) fn load(&mut self) -> Result<(), DriveError> {
        if let Some(volume) = &mut self.volume {
            volume.settle()?;
        }
        self.volume = self.what_is_in()?;
        self.volume().map(|_| ())
    }

    pub(super) fn insert(&mut self, name: &str) -> Result<(), DriveError> {
        names::check(name)?;
        if !self.dir.join(name).is_dir() {
            return Err(DriveError::NoVolume(name.to_owned()));
        }
        if let Some(volume) = &mut self.volume {
            volume.settle()?;
        }
        // The link is replaced in one step: some volume is always in.
        let (new, link) = (self.dir.join(LOADED_NEW), self.dir.join(LOADED));
        let replace = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => (),
            }
            symlink(name, &new)?;
            fs::rename(&new, &link)?;
            durable::sync_parent(&link)
        };
        replace().map_err(io(link.display().to_string()))?;
        self.load()
    }

    pub(super) fn insert_blank(&mut self, name: &str) -> Result<(), DriveError> {
        names::check(name)?;
        if self.access == Access::Read {
            return Err(DriveError::ReadOnly);
        }
        let path = self.dir.join(name);
        match fs::create_dir(&path) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(DriveError::VolumeExists(name.to_owned()));
            }
            Err(error) => return Err(io(path.display().to_string())(error)),
        }
        durable::sync_parent(&path).map_err(io(path.display().to_string()))?;
        self.insert(name)
    }
}

/// Octets on a volume of this capacity, from which on the end is said to be near.
const fn warning_at(capacity: u64) -> u64 {
    capacity - capacity / EARLY_WARNING_PART
}
