//! The ioctls of the kernel's tape driver.
//!
//! Owns: their numbers and structures, as <linux/mtio.h> has them. Called by: `tape`.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

use super::super::Place;

/// `struct mtop`.
#[repr(C)]
#[derive(Debug)]
struct MtOp {
    mt_op: libc::c_short,
    mt_count: libc::c_int,
}

/// `struct mtget`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Report {
    mt_type: libc::c_long,
    mt_resid: libc::c_long,
    mt_dsreg: libc::c_long,
    mt_gstat: libc::c_long,
    mt_erreg: libc::c_long,
    mt_fileno: libc::c_int,
    mt_blkno: libc::c_int,
}

nix::ioctl_write_ptr!(mtioctop, b'm', 1, MtOp);
nix::ioctl_read!(mtiocget, b'm', 2, Report);
nix::ioctl_read!(mtiocpos, b'm', 3, libc::c_long);

/// What the drive is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(super) enum Operation {
    ForwardMarks = 1,
    BackMarks = 2,
    ForwardBlocks = 3,
    BackBlocks = 4,
    WriteMarks = 5,
    Rewind = 6,
    Offline = 7,
    EndOfData = 12,
    SetBlock = 20,
    DriverOptions = 24,
    Load = 30,
    Compression = 32,
}

const SET_BOOLEANS: i32 = 0x3000_0000;
const CLEAR_BOOLEANS: i32 = 0x4000_0000;
const ASYNC_WRITES: i32 = 0x2;
const TWO_MARKS: i32 = 0x10;
const FAST_END: i32 = 0x20;
const AUTO_LOCK: i32 = 0x40;
const CAN_BACK_BLOCKS: i32 = 0x100;
const SCSI2_LOGICAL: i32 = 0x800;
const SYSV: i32 = 0x1000;
const NO_WAIT: i32 = 0x2000;
const NO_WAIT_MARKS: i32 = 0x8000;

/// The door is locked while a tape is in use.
pub(super) const OPTIONS_ON: i32 = SET_BOOLEANS | AUTO_LOCK | CAN_BACK_BLOCKS | SCSI2_LOGICAL;
/// The file number must stay known at the end of data, and every call must have done what it says when it returns.
pub(super) const OPTIONS_OFF: i32 =
    CLEAR_BOOLEANS | ASYNC_WRITES | TWO_MARKS | FAST_END | SYSV | NO_WAIT | NO_WAIT_MARKS;

const BLOCK_BYTES_MASK: libc::c_long = 0xff_ffff;

/// More file marks or blocks than are on any tape: to the end of data. The driver itself asks for so many, and when the drive does not
/// say how many there were, the driver believes in all of them.
pub(super) const ALL: u32 = 0x7f_ffff;

/// Bits of `mt_gstat`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags(libc::c_long);

impl Flags {
    pub(super) const FILE_MARK: Self = Self(0x8000_0000);
    pub(super) const END_OF_TAPE: Self = Self(0x2000_0000);
    pub(super) const END_OF_DATA: Self = Self(0x0800_0000);
    pub(super) const WRITE_PROTECTED: Self = Self(0x0400_0000);
    pub(super) const ONLINE: Self = Self(0x0100_0000);
    pub(super) const NO_TAPE: Self = Self(0x0004_0000);
    pub(super) const CLEANING: Self = Self(0x0000_8000);
}

impl Report {
    pub(super) const fn has(&self, flag: Flags) -> bool {
        self.mt_gstat & flag.0 != 0
    }

    /// The tape file, where the driver knows it.
    pub(super) fn file(&self) -> Option<u32> {
        u32::try_from(self.mt_fileno).ok().filter(|file| *file < ALL)
    }

    pub(super) fn place(&self) -> Option<Place> {
        Some(Place { file: self.file()?, block: u32::try_from(self.mt_blkno).ok()? })
    }

    /// Octets of its blocks; 0 when their length varies.
    pub(super) const fn block_bytes(&self) -> libc::c_long {
        self.mt_dsreg & BLOCK_BYTES_MASK
    }
}

pub(super) fn operate(device: &File, operation: Operation, count: i32) -> Result<(), Errno> {
    #[expect(clippy::as_conversions, reason = "the numbers of a C enumeration")]
    let argument = MtOp { mt_op: operation as libc::c_short, mt_count: count };
    loop {
        #[expect(unsafe_code, reason = "tapes are moved by ioctl only")]
        // SAFETY: the descriptor is open, and the argument lives until the call returns.
        let done = unsafe { mtioctop(device.as_raw_fd(), &raw const argument) };
        // The driver only waits for its lock interruptibly: then nothing was begun.
        if done != Err(Errno::EINTR) {
            return done.map(drop);
        }
    }
}

pub(super) fn report(device: &File) -> Result<Report, Errno> {
    let mut report = Report::default();
    #[expect(unsafe_code, reason = "the driver tells by ioctl only")]
    // SAFETY: the descriptor is open, and the structure is as large as the driver's.
    unsafe { mtiocget(device.as_raw_fd(), &raw mut report) }.map(|_| report)
}

/// Whether the drive knows its place by itself.
pub(super) fn has_position(device: &File) -> Result<(), Errno> {
    let mut block = 0;
    #[expect(unsafe_code, reason = "the driver tells by ioctl only")]
    // SAFETY: the descriptor is open, and `struct mtpos` is one long.
    unsafe { mtiocpos(device.as_raw_fd(), &raw mut block) }.map(drop)
}
