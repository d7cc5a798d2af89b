//! A tape drive, by the kernel's driver `st`.
//!
//! Owns: positions on the tape, and what the driver's answers mean. Called by: `Drive`. Never: sends SCSI commands that move the tape past the
//! driver.
//! Spec: Linux, Documentation/scsi/st.rst and <linux/mtio.h>; SSC-3 for what drives do.
//!
//! - Blocks have variable length (the driver's block size 0): one write(2) is one block on the tape, and one read(2) reads one, whatever its
//!   length, if there is room for it.
//! - The driver writes each block when it is told to, none later (no asynchronous writes), so that an error is that of the block
//!   at hand. The drive has a buffer of its own, and keeps the tape moving by it.
//! - The driver counts file marks and blocks; we count along, and go by our own count where it has lost its own (after an error).

pub mod log;
mod mtio;
mod place;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, minor};

use super::error::io;
use super::{Access, DriveError, Place, Reading, Status, Written};
use crate::backup_to_tape::scsi::{self, Identity, Scsi, ScsiError};
use mtio::{Flags, Operation, Report};

/// Device numbers of the driver `st`, and the bit of those devices that do not rewind when closed.
const TAPE_MAJOR: u64 = 9;
const NO_REWIND: u64 = 0x80;
/// How often, and how many times, a drive is asked whether it has made a tape ready: five minutes in all.
const READY_ASK_AGAIN: Duration = Duration::from_millis(500);
const READY_ASKS_MAX: usize = 600;

/// The tape drives of this machine, by their devices that do not rewind.
#[must_use]
pub fn devices() -> Vec<PathBuf> {
    let is_plain = |name: &str| {
        let number = name.strip_prefix("nst").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    };
    let names = std::fs::read_dir("/sys/class/scsi_tape").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| is_plain(name));
    let mut devices: Vec<PathBuf> = names.map(|name| Path::new("/dev").join(name)).collect();
    devices.sort();
    devices
}

/// One drive, open.
#[derive(Debug)]
pub struct Tape {
    path: PathBuf,
    access: Access,
    block_bytes: usize,
    /// `None` only between closing and opening again.
    device: Option<File>,
    /// Where the tape stands, where that is known.
    place: Option<Place>,
    /// Nothing is recorded behind `place`.
    is_at_end: bool,
    /// The last thing that was written is a block.
    is_unmarked: bool,
    has_warned: bool,
}

impl Tape {
    pub(super) fn open(path: &Path, access: Access, block_bytes: usize) -> Result<Self, DriveError> {
        let mut tape = Self {
            path: path.to_owned(),
            access,
            block_bytes,
            device: None,
            place: None,
            is_at_end: false,
            is_unmarked: false,
            has_warned: false,
        };
        tape.reopen()?;
        Ok(tape)
    }

    /// Opens the device anew: only then does the driver look at the tape that is in the drive now.
    fn reopen(&mut self) -> Result<(), DriveError> {
        self.device = None;
        let mut options = OpenOptions::new();
        // O_NONBLOCK: an empty drive can be asked what is the matter with it.
        options.read(true).write(self.access == Access::Write).custom_flags(libc::O_NONBLOCK);
        let device = options.open(&self.path).map_err(|error| self.not_opened(error))?;
        let metadata = device.metadata().map_err(self.io("asking for the device's numbers"))?;
        let (is_tape, number) = (major(metadata.rdev()) == TAPE_MAJOR, minor(metadata.rdev()));
        if !metadata.file_type().is_char_device() || !is_tape {
            return Err(DriveError::NotThere(self.path.clone()));
        }
        if number & NO_REWIND == 0 {
            return Err(DriveError::Unsupported(
                "keeping its place: name the device that does not rewind, as /dev/nst0",
            ));
        }
        self.device = Some(device);
        let report = self.report()?;
        self.forget();
        self.place = report.place();
        if report.has(Flags::ONLINE) {
            self.set_up(&report)?;
        }
        Ok(())
    }

    fn not_opened(&self, error: io::Error) -> DriveError {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => DriveError::NotThere(self.path.clone()),
            Some(libc::EBUSY) => DriveError::Busy,
            Some(_) | None => self.io("opening")(error),
        }
    }

    /// Sets the driver and the drive to what this room relies on.
    fn set_up(&self, report: &Report) -> Result<(), DriveError> {
        for options in [mtio::OPTIONS_ON, mtio::OPTIONS_OFF] {
            // Options are root's to set, and stay set until the machine is switched off.
            if let Err(error) = self.operate(Operation::DriverOptions, options) {
                tracing::debug!(drive = %self.path.display(), %error, "the driver's options stay as they are");
            }
        }
        if report.block_bytes() != 0 {
            self.operate(Operation::SetBlock, 0).map_err(|error| self.io("blocks of variable length")(error.into()))?;
        }
        if self.access == Access::Write
            && !report.has(Flags::WRITE_PROTECTED)
            && let Err(error) = self.operate(Operation::Compression, 0)
        {
            // What is written is compressed already; a drive that does it again loses a little space.
            tracing::debug!(drive = %self.path.display(), %error, "the drive's compression stays as it is");
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.place = None;
        self.is_at_end = false;
        self.is_unmarked = false;
        self.has_warned = false;
    }

    fn io(&self, what: &str) -> impl FnOnce(io::Error) -> DriveError {
        io(format!("{}: {what}", self.path.display()))
    }

    fn device(&self) -> Result<&File, Errno> {
        self.device.as_ref().ok_or(Errno::EBADF)
    }

    fn operate(&self, operation: Operation, count: i32) -> Result<(), Errno> {
        mtio::operate(self.device()?, operation, count)
    }

    /// What the driver knows. It refuses when the drive was reset.
    fn report(&self) -> Result<Report, DriveError> {
        let report = self.device().and_then(mtio::report);
        report
            .map_err(|error| if error == Errno::EIO { DriveError::PlaceLost } else { self.io("status")(error.into()) })
    }

    /// The drive's device for SCSI commands.
    fn generic(&self) -> Option<Result<Scsi, ScsiError>> {
        let number = std::fs::metadata(&self.path).ok()?.rdev();
        let class = PathBuf::from(format!("/sys/dev/char/{}:{}", major(number), minor(number)));
        scsi::generic_of(&class).map(|path| Scsi::open(&path))
    }

    /// What the driver says by itself, without having asked the drive.
    fn refused(&self, what: &str, error: io::Error) -> DriveError {
        match error.raw_os_error() {
            Some(libc::ENOMEDIUM) => DriveError::NoMedium,
            Some(libc::EACCES | libc::EROFS) => DriveError::WriteProtected,
            Some(libc::EINVAL) => DriveError::Unsupported("blocks of this size"),
            Some(libc::ENXIO | libc::ENODEV) => DriveError::NotThere(self.path.clone()),
            Some(_) | None => self.io(what)(error),
        }
    }

    /// What a call that failed with EIO, or with nothing that says why, has met.
    fn diagnose(&self, place: Option<Place>, what: &str, error: Errno) -> DriveError {
        if error != Errno::EIO {
            return self.refused(what, error.into());
        }
        let report = match self.report() {
            Ok(report) => report,
            Err(error) => return error,
        };
        if report.has(Flags::NO_TAPE) {
            return DriveError::NoMedium;
        }
        if !report.has(Flags::ONLINE) {
            return DriveError::Offline;
        }
        // The driver has looked when the device was opened. What is there now, only the drive itself says.
        let readiness = self.generic().map(|scsi| scsi.and_then(|scsi| scsi.readiness()));
        if let Some(Err(ScsiError::Sense(sense))) = readiness {
            match (sense.key, sense.code) {
                (scsi::NOT_READY, scsi::MEDIUM_NOT_PRESENT) => return DriveError::NoMedium,
                (scsi::NOT_READY, _) => return DriveError::Offline,
                (scsi::UNIT_ATTENTION, _) => return DriveError::PlaceLost,
                _ => (),
            }
        }
        place.map_or_else(|| self.io(what)(error.into()), DriveError::Medium)
    }

    pub(super) fn status(&mut self) -> Result<Status, DriveError> {
        let mut report = self.report()?;
        if !report.has(Flags::ONLINE) {
            // A tape may have been put in since.
            self.reopen()?;
            report = self.report()?;
        }
        let is_online = report.has(Flags::ONLINE);
        let place = self.place.filter(|_| is_online);
        Ok(Status {
            loaded: !report.has(Flags::NO_TAPE),
            online: is_online,
            write_protected: report.has(Flags::WRITE_PROTECTED),
            file: place.map(|place| place.file).or_else(|| report.file().filter(|_| is_online)),
            block: place.map(|place| place.block),
            at_end_of_data: is_online && (self.is_at_end || report.has(Flags::END_OF_DATA)),
            at_early_warning: self.has_warned || report.has(Flags::END_OF_TAPE),
            wants_cleaning: report.has(Flags::CLEANING),
            volume: None,
        })
    }

    pub(super) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// What the drive is.
    pub(super) fn identity(&self) -> Option<Result<Identity, ScsiError>> {
        self.generic().map(|scsi| scsi.and_then(|scsi| scsi.identity()))
    }

    /// What the drive has to say of itself and of the tape in it: flags that it has raised, and counters.
    pub(super) fn health(&self) -> Result<log::Health, ScsiError> {
        let Some(scsi) = self.generic() else { return Ok(log::Health::default()) };
        let scsi = scsi?;
        let page = |number| scsi.log_page(number);
        let alerts = page(log::TAPE_ALERT)?.map(|data| log::alerts(&data));
        let counters =
            [log::SEQUENTIAL_ACCESS, log::VOLUME_STATISTICS].map(|number| page(number).map(|data| (number, data)));
        let mut health = log::Health { alerts, counters: Vec::new() };
        for counter in counters {
            if let (number, Some(data)) = counter? {
                health.counters.extend(log::counters(number, &data));
            }
        }
        Ok(health)
    }

    /// Before anything is written.
    fn require_writing(&self) -> Result<(), DriveError> {
        if self.access == Access::Read { Err(DriveError::ReadOnly) } else { Ok(()) }
    }

    fn write_once(&self, block: &[u8]) -> Result<usize, Errno> {
        let mut device = self.device()?;
        device.write(block).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// st.rst, "EOM Behaviour When Writing": the write that meets the early warning is carried out and succeeds; the next one is refused with
    /// ENOSPC and nothing written; the one after it is carried out, and so on in turn. A write that does not fit any more is refused with
    /// ENOSPC too. So one ENOSPC may be either, and of two in a row one was a write that did not fit.
    pub(super) fn write_block(&mut self, block: &[u8]) -> Result<Written, DriveError> {
        self.require_writing()?;
        let mut written = self.write_once(block);
        if written == Err(Errno::ENOSPC) {
            self.has_warned = true;
            written = self.write_once(block);
        }
        let place = self.place;
        match written {
            Ok(len) if len == block.len() => (),
            Ok(len) => {
                // A part of it is on the tape, as a block of its own: it is not left there.
                tracing::warn!(drive = %self.path.display(), len, "a block was cut off by the end of the tape");
                let back = self.operate(Operation::BackBlocks, 1);
                self.place = place.filter(|_| back.is_ok());
                return Err(DriveError::Full(place.unwrap_or(Place::START)));
            }
            Err(Errno::ENOSPC) => return Err(DriveError::Full(place.unwrap_or(Place::START))),
            Err(error) => {
                let fault = self.diagnose(place, "writing", error);
                if error == Errno::EIO {
                    self.place = None;
                    // Closing the device, the driver writes a mark if it can.
                    self.is_unmarked = false;
                }
                return Err(fault);
            }
        }
        self.place = place.map(|place| Place { block: place.block.saturating_add(1), ..place });
        self.is_at_end = true;
        self.is_unmarked = true;
        // The driver knows at once; the caller can finish the volume before the next write is refused.
        if self.report().is_ok_and(|report| report.has(Flags::END_OF_TAPE)) {
            self.has_warned = true;
        }
        Ok(if self.has_warned { Written::EarlyWarning } else { Written::Done })
    }

    pub(super) fn write_marks(&mut self, count: u32) -> Result<(), DriveError> {
        self.require_writing()?;
        // Not "immediate": it returns when what is in the drive's buffer is on the tape.
        let done = self.operate(Operation::WriteMarks, i32::try_from(count).unwrap_or(i32::MAX));
        if let Err(error) = done {
            let fault = if error == Errno::ENOSPC {
                DriveError::Full(self.place.unwrap_or(Place::START))
            } else {
                self.diagnose(self.place, "writing file marks", error)
            };
            self.place = None;
            self.is_unmarked = false;
            return Err(fault);
        }
        if count > 0 {
            self.place = self.place.map(|place| Place { file: place.file.saturating_add(count), block: 0 });
        }
        self.is_at_end = true;
        self.is_unmarked = false;
        Ok(())
    }

    pub(super) fn read_block(&mut self, buffer: &mut [u8]) -> Result<Reading, DriveError> {
        self.settle()?;
        if self.is_at_end {
            return Ok(Reading::EndOfData);
        }
        let mut device = self.device().map_err(|error| self.io("reading")(error.into()))?;
        let read = device.read(buffer).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
        match read {
            Ok(0) => self.mark_or_end(),
            Ok(len) => {
                if self.is_no_block()? {
                    return Ok(Reading::EndOfData);
                }
                self.place = self.place.map(|place| Place { block: place.block.saturating_add(1), ..place });
                Ok(Reading::Block(len))
            }
            // The driver has gone past it.
            Err(Errno::ENOMEM) => {
                let place = self.place.unwrap_or(Place::START);
                self.place = self.place.map(|place| Place { block: place.block.saturating_add(1), ..place });
                Err(DriveError::ForeignBlock { place, expected: buffer.len(), bytes: None })
            }
            Err(error) => self.not_read(error),
        }
    }

    /// A read that gave nothing has met a file mark, or the end of data right behind one.
    fn mark_or_end(&mut self) -> Result<Reading, DriveError> {
        let report = self.report()?;
        if report.has(Flags::END_OF_DATA) {
            self.is_at_end = true;
            return Ok(Reading::EndOfData);
        }
        self.place = self.place.map(|place| Place { file: place.file.saturating_add(1), block: 0 }).or(report.place());
        Ok(Reading::Mark)
    }
}
