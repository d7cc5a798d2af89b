//! What every task of the role shares.
//!
//! Owns: the wiring of queue, LMTP, directory and limits. Called by: `smtp::serve` (makes it), delivery, runner, sessions' loops.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::authentication::Authentication;
use super::lmtp;
use super::outbound::dial::Outbound;
use super::outbound::route::Routes;
use super::queue::{Queue, Room};
use crate::base::address::{Address, Domain};
use crate::config::smtp::Smtp;
use crate::directory::Directory;

/// How often free space is looked at. At full speed a disk takes a few hundred megabytes in the meantime, which `free-space-min` leaves.
pub(super) const SPACE_CHECK_EVERY: Duration = Duration::from_secs(1);
/// Unit in which memory for messages is counted.
pub(super) const MEMORY_UNIT: usize = 1024;
/// Memory for messages under way in all sessions together; at least two of the largest size.
const MEMORY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// What every task of the role shares.
pub(super) struct Context {
    pub settings: Smtp,
    pub hostname: String,
    /// The site's domain, where mail for `<Postmaster>` goes.
    pub domain: Option<Domain>,
    pub directory: Directory,
    pub authentication: Authentication,
    pub queue: Queue,
    pub routes: Arc<Routes>,
    pub outbound: Outbound,
    pub lmtp: lmtp::Pool,
    pub space: Space,
    /// Memory for messages, in units of `MEMORY_UNIT`.
    pub memory: Semaphore,
}

impl Context {
    /// Units of memory for messages that the role gives out.
    #[must_use]
    pub(super) fn memory_units(settings: &Smtp) -> usize {
        let two = settings.message_size_max.as_len().saturating_mul(2);
        (MEMORY_BYTES_MAX.max(two) / MEMORY_UNIT).min(Semaphore::MAX_PERMITS)
    }

    /// This local part in the site's domain; none when the site has no domain.
    #[must_use]
    pub(super) fn site_address(&self, local: &str) -> Option<Address> {
        let domain = self.domain.as_ref()?;
        format!("{local}@{domain}").parse().ok()
    }
}

/// Whether there is room on the disk under the queue.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    free_min: u64,
    is_short: AtomicBool,
}

impl Space {
    /// Room in this directory; less than `free_min` octets is none.
    #[must_use]
    pub(super) fn new(dir: PathBuf, free_min: u64) -> Self {
        let space = Self { dir, free_min, is_short: AtomicBool::new(false) };
        space.look();
        space
    }

    /// Whether there is too little, as of the last look.
    #[must_use]
    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// What there is, now; none at all when that cannot be told.
    pub(super) fn room(&self) -> Room {
        let free = self.free().unwrap_or(0);
        Room { free, is_short: self.is_short() }
    }

    fn free(&self) -> nix::Result<u64> {
        statvfs(&self.dir).map(|found| found.blocks_available().saturating_mul(found.fragment_size()))
    }

    /// Looks again, and says so when it changed.
    pub(super) fn look(&self) {
        let free = match self.free() {
            Ok(free) => free,
            Err(error) => return warn!(%error, "free space cannot be told"),
        };
        let short = free < self.free_min;
        if self.is_short.swap(short, Ordering::Relaxed) != short {
            if short {
                warn!(free, wanted = self.free_min, "too little free space: mail is refused for the time being");
            } else {
                info!(free, "free space again: mail is taken");
            }
        }
    }
}
