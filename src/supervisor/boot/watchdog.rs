//! The hardware watchdog: a machine whose supervisor hangs is reset.
//!
//! Owns: the open `/dev/watchdog` and its timeout. Called by: the supervisor's loop, which feeds it (a loop that hangs feeds nothing);
//! boot, which opens and disarms it. Never: fed from anywhere else.
//! Spec: the kernel's Documentation/watchdog/watchdog-api.rst.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use super::modules;

const DEVICE: &str = "/dev/watchdog";
/// Time in which the loop must have come round. A busy machine without a hung loop needs seconds at most.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What the last steps of a stop may take: writing back what is in memory to a slow disk.
const ENDING: Duration = Duration::from_secs(180);
/// Feedings within the timeout: one that is late does no harm.
const FEEDINGS: u32 = 4;
/// Pause between feedings where no watchdog is.
const IDLE: Duration = Duration::from_secs(3600);

nix::ioctl_readwrite!(
    /// Sets the seconds; the driver answers with what it made of them.
    set_timeout, b'W', 6, libc::c_int
);

/// The watchdog; without a device it does nothing.
#[derive(Debug)]
pub(in crate::supervisor) struct Watchdog {
    device: Option<File>,
    timeout: Duration,
}

impl Watchdog {
    /// Arms the machine's watchdog, or the kernel's own where the hardware has none.
    pub(super) fn arm() -> Self {
        if !Path::new(DEVICE).exists() {
            modules::load("softdog");
        }
        let mut watchdog = Self { device: None, timeout: IDLE * FEEDINGS };
        match OpenOptions::new().write(true).open(DEVICE) {
            Ok(device) => {
                watchdog.device = Some(device);
                watchdog.timeout = watchdog.change(TIMEOUT).unwrap_or(TIMEOUT);
                info!(timeout_secs = watchdog.timeout.as_secs(), "the watchdog is armed");
            }
            Err(error) => warn!(%error, "there is no watchdog: a hang is not noticed"),
        }
        watchdog
    }

    /// How often it is to be fed.
    pub(in crate::supervisor) fn interval(&self) -> Duration {
        (self.timeout / FEEDINGS).max(Duration::from_millis(100))
    }

    /// All is well.
    pub(in crate::supervisor) fn feed(&self) {
        // Any octet but 'V'. One that is not taken is followed by the next.
        self.write(b"\0");
    }

    /// The loop has ended and feeds no more: the last steps get time of their own, and are still watched.
    pub(super) fn watch_the_end(&self) {
        if let Err(error) = self.change(ENDING) {
            warn!(%error, "the watchdog keeps its timeout");
        }
        self.feed();
    }

    /// The machine stops in order: nothing is left to watch.
    pub(super) fn disarm(self) {
        // "Magic close": the letter before the close that the driver is to take for an end.
        self.write(b"V");
    }

    fn write(&self, octets: &[u8]) {
        if let Some(mut device) = self.device.as_ref() {
            device.write_all(octets).ok();
        }
    }

    /// Asks for a timeout, and answers the one that the driver has now.
    #[expect(unsafe_code, reason = "the watchdog's timeout is an ioctl")]
    fn change(&self, wanted: Duration) -> io::Result<Duration> {
        let device = self.device.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut seconds = libc::c_int::try_from(wanted.as_secs()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the descriptor is open, and the kernel reads and writes one int where `seconds` is.
        unsafe { set_timeout(device.as_raw_fd(), &raw mut seconds) }?;
        Ok(u64::try_from(seconds).map_or(wanted, Duration::from_secs))
    }
}
