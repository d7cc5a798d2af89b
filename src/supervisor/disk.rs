//! The disk under the state directory: how it is, and a reserve on it for when nothing else is free.
//!
//! Owns: `STATE/reserve`, what is said of a disk that is full, read-only or gone. Called by: the supervisor, before it starts roles and every
//! two seconds. Never: holds the supervisor up over a disk that does not answer.
//!
//! Mail is refused long before a disk is full (`free-space-min`), but others may fill it. Then the site cannot even record that mail was
//! deleted, and does not start: SQLite has to make files to open a view, a ledger grows by each change. So blocks are held in a file, and given
//! up while the disk is full. As the reserve is at most half of `free-space-min`, what was given up is never enough for new mail to be taken: it
//! serves those who read and delete, and compaction. (Blocks that ext4 reserves for a user or a group would not do: on the appliance all who
//! write are roles, and elsewhere the file system is not ours to make.)

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::{major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::Event;
use super::plan::Plan;
use super::status::DiskStatus;
use crate::base::durable;
use crate::config::hosts::Role;

/// How often the disk is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Octets of the reserve, at most: what opening and changing the views takes, and compaction of what is mostly dead.
const RESERVE_MAX: u64 = 64 << 20;
/// It takes at most this part of the disk.
const PART_OF_DISK: u64 = 16;
/// Less free space than this is none, whatever the reserve is.
const FREE_MIN: u64 = 64 << 10;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Pulled out, or its controller gave it up.
    Gone,
    /// The kernel lets nobody write any more.
    ReadOnly,
    Full,
}

/// A disk at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    size: u64,
    free: u64,
    reserve: u64,
    pub(super) trouble: Option<Trouble>,
}

impl Condition {
    /// What is wrong, for people.
    pub(super) fn words(&self) -> Option<String> {
        let (free, size) = (self.free >> 20, self.size >> 20);
        Some(match self.trouble? {
            Trouble::Gone => "the disk with the mail is gone: nothing can be kept. Is it pulled out, or broken? When it is back, this machine has to be started again".to_owned(),
            Trouble::ReadOnly => "the disk with the mail cannot be written any more: nothing can be kept. The kernel's log says why; if the disk is sound, a new start repairs it".to_owned(),
            Trouble::Full => format!("the disk is full ({free} of {size} MiB are free): mail is refused until there is room. It can be read and deleted"),
        })
    }

    pub(super) fn status(&self) -> DiskStatus {
        DiskStatus { size_bytes: self.size, free_bytes: self.free, reserve_bytes: self.reserve, trouble: self.words() }
    }
}

/// Half of the free space below which mail is refused on this host: what the reserve may take at most.
pub(super) fn reserve_max(plan: &Plan) -> u64 {
    let tables = &plan.effective.tables;
    let floors = plan.roles.keys().filter_map(|role| match role {
        Role::Smtp => Some(tables.smtp.free_space_min),
        Role::PopImap => Some(tables.pop_imap.free_space_min),
        Role::LdapProxy => None,
    });
    floors.map(|floor| floor.get() / 2).min().unwrap_or(RESERVE_MAX).min(RESERVE_MAX)
}

/// The disk, and the reserve on it.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    file: PathBuf,
    /// The block device in sysfs; none where there is none (tmpfs, overlays, containers that do not see it).
    device: Option<PathBuf>,
    /// ext4's count of errors, and what it was.
    errors: Option<(PathBuf, u64)>,
    /// Writing failed after there were more errors. The kernel is not asked again: it says something on the console each time.
    has_failed: bool,
    /// The file system has no means to allocate blocks ahead.
    is_unable: bool,
}

impl Disk {
    /// The disk under this directory.
    pub(super) fn under(dir: &Path) -> Self {
        let device = fs::metadata(dir)
            .ok()
            .map(|facts| PathBuf::from(format!("/sys/dev/block/{}:{}", major(facts.dev()), minor(facts.dev()))));
        let device = device.filter(|device| device.exists());
        let name = device.as_ref().and_then(|device| fs::read_link(device).ok()?.file_name().map(PathBuf::from));
        let errors = name.map(|name| Path::new("/sys/fs/ext4").join(name).join("errors_count"));
        let errors = errors.and_then(|file| Some((file.clone(), errors_in(&file)?)));
        Self { dir: dir.to_owned(), file: dir.join("reserve"), device, errors, has_failed: false, is_unable: false }
    }

    /// How it is. Takes a reserve of up to so many octets when there is room for two, gives it up when nothing else is left. None: that cannot
    /// be told. Blocks.
    pub(super) fn look(&mut self, reserve_max: u64) -> Option<Condition> {
        let found = statvfs(&self.dir).ok()?;
        let unit = found.fragment_size();
        let (size, free) = (found.blocks().saturating_mul(unit), found.blocks_available().saturating_mul(unit));
        let mut condition = Condition { size, free, reserve: self.held(), trouble: None };
        if self.device.as_ref().is_some_and(|device| !device.exists()) {
            condition.trouble = Some(Trouble::Gone);
        } else if found.flags().contains(FsFlags::ST_RDONLY) || self.fails() {
            condition.trouble = Some(Trouble::ReadOnly);
        } else {
            self.balance(&mut condition, reserve_max.min(size / PART_OF_DISK));
        }
        Some(condition)
    }

    /// The same before the settings are known: a reserve that is there is given up when that is needed, none is taken.
    pub(super) fn look_first(&mut self) -> Option<Condition> {
        let held = self.held();
        self.look(held)
    }

    /// Whether nothing can be written since an error. A kernel that gives a file system up (ext4's `errors=remount-ro`) does not show it as
    /// read-only any more.
    fn fails(&mut self) -> bool {
        if let Some((file, known)) = &mut self.errors
            && !self.has_failed
            && let Some(errors) = errors_in(file)
            && errors != std::mem::replace(known, errors)
        {
            let probe = self.dir.join("run/probe");
            let probed = durable::replace(&probe, b"", 0o600).and_then(|()| fs::remove_file(&probe));
            // A full disk is another matter.
            self.has_failed = probed.is_err_and(|error| error.kind() != io::ErrorKind::StorageFull);
        }
        self.has_failed
    }

    /// Octets that the reserve holds. A file that was copied may be a hole.
    fn held(&self) -> u64 {
        let facts = fs::symlink_metadata(&self.file).ok().filter(fs::Metadata::is_file);
        facts.filter(|facts| facts.blocks().saturating_mul(512) >= facts.len()).map_or(0, |facts| facts.len())
    }

    fn balance(&mut self, now: &mut Condition, wanted: u64) {
        let is_low = now.free < (now.reserve.max(wanted) / 4).max(FREE_MIN);
        // File systems that share a pool tell another size each time: a reserve that is somewhat smaller than it could be stays.
        let is_right = (wanted / 2..=wanted).contains(&now.reserve);
        let mut outcome = Ok(());
        if is_low || !is_right {
            outcome = self.give_up().map(|()| now.free += std::mem::take(&mut now.reserve));
        }
        if outcome.is_ok() && now.reserve == 0 && !is_low && now.free >= wanted.saturating_mul(2) && !self.is_unable {
            outcome = self.take(wanted).map(|taken| {
                now.reserve = taken;
                now.free -= taken;
            });
        }
        if let Err(error) = outcome {
            warn!(%error, file = %self.file.display(), "the reserve on the disk stays as it is");
        }
        if is_low || (now.reserve == 0 && wanted > 0 && !self.is_unable) {
            now.trouble = Some(Trouble::Full);
        }
    }

    /// What was taken: all, or nothing.
    fn take(&mut self, len: u64) -> io::Result<u64> {
        if len == 0 {
            return Ok(0);
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file)?;
        match fallocate(&file, FallocateFlags::empty(), 0, i64::try_from(len).unwrap_or(i64::MAX)) {
            Ok(()) => return Ok(len),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.is_unable = true,
            // Somebody was quicker: next time.
            Err(Errno::ENOSPC) => {}
            Err(error) => warn!(%error, "no reserve on the disk"),
        }
        self.give_up()?;
        Ok(0)
    }

    /// The blocks are free for others when this returns: a file system with a journal frees them when it is written.
    fn give_up(&self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => durable::sync_parent(&self.file),
        }
    }
}

/// The number in ext4's count of errors.
fn errors_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Looks again and again, and tells the supervisor, until that has ended.
pub(super) async fn keep(mut disk: Disk, reserve_max: watch::Receiver<u64>, events: mpsc::Sender<Event>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let reserve_max = *reserve_max.borrow();
        let look = move || {
            let condition = disk.look(reserve_max);
            (disk, condition)
        };
        // A disk that does not answer (NFS) keeps this task waiting, and nobody else.
        let Ok((looked, condition)) = tokio::task::spawn_blocking(look).await else { return };
        disk = looked;
        if let Some(condition) = condition
            && events.send(Event::Disk(condition)).await.is_err()
        {
            return;
        }
    }
}
