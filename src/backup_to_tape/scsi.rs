//! SCSI commands to a drive or a changer, past the kernel's drivers for them: by SG_IO to their `/dev/sg` device.
//!
//! Owns: one command at a time, and what its sense data says. Called by: `changer`, `drive`. Never: moves a tape under the driver `st`, which
//! counts its places itself.
//! Spec: SPC-4 (INQUIRY, TEST UNIT READY, LOG SENSE, sense data). What devices answer is not believed further than its own length.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc;
use serde::Serialize;

/// Octets of sense data that are taken.
const SENSE_BYTES: usize = 64;
/// A device may have this many things to tell before it does what it is asked (a reset, a changed medium, a changed inventory).
const UNIT_ATTENTIONS_MAX: usize = 8;
/// Milliseconds that an answer about the device itself may take.
pub(super) const ASK_MSECS: u32 = 60_000;
/// Milliseconds that the tape or the arm may move.
pub(super) const MOVE_MSECS: u32 = 15 * 60_000;

/// Letters of a line that are shown, at most.
const LINE_CHARS_MAX: usize = 500;

const TEST_UNIT_READY: u8 = 0x00;
const READ_6: u8 = 0x08;
const INQUIRY: u8 = 0x12;
const LOG_SENSE: u8 = 0x4d;
/// LOG SENSE: cumulative values.
const CUMULATIVE: u8 = 0x40;
const INQUIRY_BYTES: u8 = 96;
const LOG_BYTES: u16 = 0x4000;

/// SPC-4 table 43: sense keys that are acted upon.
pub(super) const NOT_READY: u8 = 2;
pub(super) const ILLEGAL_REQUEST: u8 = 5;
pub(super) const UNIT_ATTENTION: u8 = 6;
/// Additional sense code: there is no medium.
pub(super) const MEDIUM_NOT_PRESENT: u8 = 0x3a;

/// What a device says of a command that it did not carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    pub key: u8,
    /// Additional sense code, and its qualifier.
    pub code: u8,
    pub qualifier: u8,
}

impl Sense {
    /// SPC-4 section 4.5: both formats.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let at = |index: usize| data.get(index).copied();
        match at(0)? & 0x7f {
            0x70 | 0x71 => {
                let (code, qualifier) = (at(12).unwrap_or(0), at(13).unwrap_or(0));
                Some(Self { key: at(2)? & 0x0f, code, qualifier })
            }
            0x72 | 0x73 => Some(Self { key: at(1)? & 0x0f, code: at(2)?, qualifier: at(3)? }),
            _ => None,
        }
    }

    /// BLANK CHECK; some leave the key empty and tell it in the additional code alone.
    const fn is_end_of_data(self) -> bool {
        matches!(self, Self { key: 8, .. } | Self { key: 0, code: 0, qualifier: 5 })
    }

    const fn words(self) -> &'static str {
        match (self.key, self.code) {
            (NOT_READY, MEDIUM_NOT_PRESENT) => "there is no medium",
            (NOT_READY, _) => "not ready",
            (3, _) => "medium error",
            (4, _) => "hardware error",
            (ILLEGAL_REQUEST, 0x20 | 0x24 | 0x25 | 0x26) => "it does not know the command",
            (ILLEGAL_REQUEST, 0x21) => "there is no such element",
            (ILLEGAL_REQUEST, 0x3b) => "the place is empty or taken",
            (ILLEGAL_REQUEST, 0x53) => "it must not be taken out now",
            (ILLEGAL_REQUEST, _) => "refused",
            (UNIT_ATTENTION, _) => "it was reset, or its medium was changed",
            (7, _) => "protected",
            (8, _) => "nothing is recorded there",
            (0x0b, _) => "aborted",
            _ => "failed",
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, code, qualifier } = self;
        write!(f, "{} (sense {key:x}/{code:02x}/{qualifier:02x})", self.words())
    }
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ScsiError {
    #[error("the device says: {0}")]
    Sense(Sense),
    #[error("the device did not take the command (status {status:#x}, host {host:#x}, driver {driver:#x})")]
    Transport { status: u8, host: u16, driver: u16 },
    #[error("the answer cannot be understood: {0}")]
    Answer(&'static str),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

/// `struct sg_io_hdr` of the kernel's `<scsi/sg.h>`.
#[repr(C)]
#[derive(Debug)]
struct SgIoHeader {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: libc::c_uchar,
    mx_sb_len: libc::c_uchar,
    iovec_count: libc::c_ushort,
    dxfer_len: libc::c_uint,
    dxferp: *mut libc::c_void,
    cmdp: *const libc::c_uchar,
    sbp: *mut libc::c_uchar,
    timeout: libc::c_uint,
    flags: libc::c_uint,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: libc::c_uchar,
    masked_status: libc::c_uchar,
    msg_status: libc::c_uchar,
    sb_len_wr: libc::c_uchar,
    host_status: libc::c_ushort,
    driver_status: libc::c_ushort,
    resid: libc::c_int,
    duration: libc::c_uint,
    info: libc::c_uint,
}

const SG_IO: u16 = 0x2285;
const SG_DXFER_NONE: libc::c_int = -1;
const SG_DXFER_FROM_DEV: libc::c_int = -3;
/// Any: sense data comes with it.
const CHECK_CONDITION: u8 = 0x02;
/// The host adapter's driver has sense data to tell: no fault of its own.
const DRIVER_SENSE: u16 = 0x08;

nix::ioctl_readwrite_bad!(sg_io, SG_IO, SgIoHeader);

/// A device that takes SCSI commands.
#[derive(Debug)]
pub struct Scsi {
    file: File,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// SPC-4 table 142: 1 is a sequential-access device (a tape drive), 8 a medium changer.
    pub kind: u8,
    pub vendor: String,
    pub product: String,
    pub revision: String,
}

impl Scsi {
    /// Opens `/dev/sgN`.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn open(path: &Path) -> Result<Self, ScsiError> {
        // Without O_NONBLOCK sg may wait for others that have opened it exclusively.
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
        let file = options.read(true).write(true).open(path);
        let file = file.map_err(|source| ScsiError::Io { what: path.display().to_string(), source })?;
        Ok(Self { file })
    }

    /// Sends a command, and takes up to a buffer of data; gives the number of octets that came, where the host adapter knows it.
    ///
    /// # Errors
    /// The device refuses, also with a unit attention.
    pub(super) fn once(&self, command: &[u8], data: &mut [u8], msecs: u32) -> Result<usize, ScsiError> {
        let mut sense = [0_u8; SENSE_BYTES];
        let short = |len: usize| libc::c_uchar::try_from(len).unwrap_or(0);
        let mut header = SgIoHeader {
            interface_id: libc::c_int::from(b'S'),
            dxfer_direction: if data.is_empty() { SG_DXFER_NONE } else { SG_DXFER_FROM_DEV },
            cmd_len: short(command.len()),
            mx_sb_len: short(sense.len()),
            iovec_count: 0,
            dxfer_len: libc::c_uint::try_from(data.len()).unwrap_or(0),
            dxferp: data.as_mut_ptr().cast(),
            cmdp: command.as_ptr(),
            sbp: sense.as_mut_ptr(),
            timeout: msecs,
            flags: 0,
            pack_id: 0,
            usr_ptr: std::ptr::null_mut(),
            status: 0,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0,
            host_status: 0,
            driver_status: 0,
            resid: 0,
            duration: 0,
            info: 0,
        };
        #[expect(unsafe_code, reason = "SCSI commands are sent by ioctl only")]
        // SAFETY: the descriptor is open; header, command, data and sense live until the call returns, and their lengths are told.
        let done = unsafe { sg_io(self.file.as_raw_fd(), &raw mut header) };
        done.map_err(|source| ScsiError::Io { what: "SG_IO".to_owned(), source: source.into() })?;
        let (host, driver) = (header.host_status, header.driver_status & !DRIVER_SENSE);
        if header.status == 0 && host == 0 && driver == 0 {
            let missing = usize::try_from(header.resid).unwrap_or(0);
            return Ok(data.len().saturating_sub(missing));
        }
        let sense = sense.get(..usize::from(header.sb_len_wr)).and_then(Sense::parse);
        match sense {
            Some(sense) if header.status == CHECK_CONDITION || header.status == 0 => Err(ScsiError::Sense(sense)),
            Some(_) | None => Err(ScsiError::Transport { status: header.status, host, driver }),
        }
    }

    /// The same, past what the device has to tell first.
    ///
    /// # Errors
    /// The device refuses.
    pub(super) fn execute(&self, command: &[u8], data: &mut [u8], msecs: u32) -> Result<usize, ScsiError> {
        for _ in 0..UNIT_ATTENTIONS_MAX {
            match self.once(command, data, msecs) {
                Err(ScsiError::Sense(Sense { key: UNIT_ATTENTION, .. })) => (),
                other => return other,
            }
        }
        self.once(command, data, msecs)
    }

    /// Whether it is ready; what it says when not, also of a change since it was last asked.
    pub(super) fn readiness(&self) -> Result<(), ScsiError> {
        self.once(&[TEST_UNIT_READY, 0, 0, 0, 0, 0], &mut [], ASK_MSECS).map(drop)
    }

    /// What it is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn identity(&self) -> Result<Identity, ScsiError> {
        let mut data = [0; INQUIRY_BYTES as usize];
        let len = self.execute(&[INQUIRY, 0, 0, 0, INQUIRY_BYTES, 0], &mut data, ASK_MSECS)?;
        identity(data.get(..len).unwrap_or_default()).ok_or(ScsiError::Answer("it is too short to say what this is"))
    }

    /// Whether nothing is recorded where the tape stands. If something is, the tape moves past it.
    pub(super) fn is_at_end_of_data(&self, block_bytes: usize) -> Result<bool, ScsiError> {
        let [_, a, b, c] = u32::try_from(block_bytes).unwrap_or(0).to_be_bytes();
        match self.execute(&[READ_6, 0, a, b, c, 0], &mut vec![0; block_bytes], MOVE_MSECS) {
            Err(ScsiError::Sense(sense)) => Ok(sense.is_end_of_data()),
            other => other.map(|_| false),
        }
    }

    /// A log page; `None` when the device has it not.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn log_page(&self, page: u8) -> Result<Option<Vec<u8>>, ScsiError> {
        let mut data = vec![0; usize::from(LOG_BYTES)];
        let [high, low] = LOG_BYTES.to_be_bytes();
        let command = [LOG_SENSE, 0, CUMULATIVE | page, 0, 0, 0, 0, high, low, 0];
        match self.execute(&command, &mut data, ASK_MSECS) {
            Ok(len) => {
                data.truncate(len);
                Ok(Some(data))
            }
            Err(ScsiError::Sense(Sense { key: ILLEGAL_REQUEST, .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// SPC-4 section 6.6.2: standard INQUIRY data.
fn identity(data: &[u8]) -> Option<Identity> {
    let text = |from: usize, to: usize| data.get(from..to).map(printable);
    Some(Identity { kind: data.first()? & 0x1f, vendor: text(8, 16)?, product: text(16, 32)?, revision: text(32, 36)? })
}

/// What comes from a device must not steer the terminal.
pub(super) fn printable(text: &[u8]) -> String {
    let shown =
        text.iter().map(|octet| char::from(*octet)).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    // Some fill up with zeros, where blanks are meant.
    let filled = text.iter().rev().take_while(|octet| matches!(octet, 0 | b' ')).count();
    shown.take(text.len() - filled).collect::<String>().trim().to_owned()
}

/// The lines of a text that a medium begins with, likewise; blank ones at its end are what it is filled up with.
#[must_use]
pub fn printable_lines(text: &[u8], lines_max: usize) -> Vec<String> {
    let text = text.split(|octet| *octet == 0).next().unwrap_or_default();
    let shown = |line: &str| line.chars().map(|c| if c.is_control() { '?' } else { c }).take(LINE_CHARS_MAX).collect();
    String::from_utf8_lossy(text).trim_end().lines().take(lines_max).map(shown).collect()
}

/// The `/dev/sg` device of what has this directory below /sys/class.
pub(super) fn generic_of(class: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(class.join("device/scsi_generic")).ok()?;
    let name = names.flatten().next()?.file_name();
    Some(Path::new("/dev").join(name))
}
