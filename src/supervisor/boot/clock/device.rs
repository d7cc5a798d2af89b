//! The machine's two clocks: the kernel's, which everything reads, and the one on the board that runs without power.
//!
//! Owns: `Timepiece`, `Device`. Called by: `clock`, `keeper`. Never: sets a clock for anybody but process 1 of the appliance.
//! Spec: clock_settime(2), adjtimex(2), rtc(4).
//!
//! The kernel (CONFIG_RTC_HCTOSYS, with the CMOS driver built in) has set its clock by the board's before process 1 starts. It would write
//! it back every eleven minutes while STA_UNSYNC is cleared (CONFIG_RTC_SYSTOHC), but neither at once after a step, nor when a person has set
//! the time, nor at the end of the machine. So it is left out of this, and we write the board's clock by ioctl in all three cases and once a day.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, Timelike, Utc};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::base::clock;

const HARDWARE_CLOCK: &str = "/dev/rtc0";

/// A clock that can be set. Tests have one of their own.
pub trait Timepiece: fmt::Debug + Send + Sync {
    /// What it says.
    fn now(&self) -> SystemTime;

    /// Sets it, at once.
    ///
    /// # Errors
    /// What the system says.
    fn set(&self, to: SystemTime) -> io::Result<()>;

    /// Lets it run a little faster or slower until it has gained so many seconds. What was still to be gained by an earlier call is dropped.
    ///
    /// # Errors
    /// What the system says.
    fn slew(&self, by_secs: f64) -> io::Result<()>;

    /// Has the clock on the board say the same, to a second.
    ///
    /// # Errors
    /// There is none, or it does not take the time.
    fn keep(&self) -> io::Result<()>;
}

/// The machine's.
#[derive(Debug)]
pub(super) struct Device;

/// `struct rtc_time` of rtc(4).
#[repr(C)]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RtcTime {
    sec: libc::c_int,
    min: libc::c_int,
    hour: libc::c_int,
    mday: libc::c_int,
    /// From 0.
    mon: libc::c_int,
    /// Since 1900.
    year: libc::c_int,
    /// These are not used.
    wday: libc::c_int,
    yday: libc::c_int,
    isdst: libc::c_int,
}

nix::ioctl_write_ptr!(rtc_set_time, b'p', 0x0a, RtcTime);

impl RtcTime {
    /// None beyond the years that there are.
    pub(super) fn of(time: SystemTime) -> Option<Self> {
        let time = DateTime::<Utc>::from(time);
        let number = |number: u32| libc::c_int::try_from(number).ok();
        Some(Self {
            sec: number(time.second())?,
            min: number(time.minute())?,
            hour: number(time.hour())?,
            mday: number(time.day())?,
            mon: number(time.month0())?,
            year: time.year().checked_sub(1900)?,
            wday: 0,
            yday: 0,
            isdst: 0,
        })
    }
}

/// Whatever goes wrong in a test or a command, no other machine's clock is touched.
fn is_ours() -> io::Result<()> {
    if crate::supervisor::boot::is_init() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

impl Timepiece for Device {
    fn now(&self) -> SystemTime {
        clock::wall()
    }

    fn set(&self, to: SystemTime) -> io::Result<()> {
        is_ours()?;
        let since = to.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since))?)
    }

    #[expect(unsafe_code, reason = "nix has no adjtimex")]
    fn slew(&self, by_secs: f64) -> io::Result<()> {
        is_ours()?;
        let size = Duration::try_from_secs_f64(by_secs.abs()).map_err(io::Error::other)?;
        let micros = libc::c_long::try_from(size.as_micros()).map_err(io::Error::other)?;
        // SAFETY: timex is numbers only; all bits zero is a value of it.
        let mut wanted: libc::timex = unsafe { std::mem::zeroed() };
        // As adjtime(3): frequency and status stay as they are.
        wanted.modes = libc::ADJ_OFFSET_SINGLESHOT;
        wanted.offset = if by_secs < 0.0 { -micros } else { micros };
        // SAFETY: the kernel reads and writes one timex where `wanted` is.
        let done = unsafe { libc::adjtimex(&raw mut wanted) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    #[expect(unsafe_code, reason = "the clock on the board is set by ioctl only")]
    fn keep(&self) -> io::Result<()> {
        is_ours()?;
        let wanted = RtcTime::of(self.now()).ok_or(io::ErrorKind::InvalidInput)?;
        let device = File::open(HARDWARE_CLOCK)?;
        // SAFETY: the descriptor is open, and the kernel reads one rtc_time where `wanted` is.
        unsafe { rtc_set_time(device.as_raw_fd(), &raw const wanted) }?;
        Ok(())
    }
}
