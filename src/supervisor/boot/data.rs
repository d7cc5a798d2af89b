//! The data partition: checked when it was not left in order, mounted, told when it cannot be.
//!
//! Owns: what e2fsck is asked and what its answer means, the flags of both mounts. Called by: boot; `disks`, for e2fsck. Never: answers a question of
//! e2fsck with yes on its own (`fife.fsck=yes` does); mounts anything else in place of a partition that cannot be had.
//! Spec: e2fsck(8) for the exit codes; ext4(5).

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::mount::MsFlags;

use super::mounts;
use crate::appliance::superblock::{Condition, Superblock, System};

/// Where the partition with `fife.toml` and the two slots of the system is.
pub(super) const BOOT: &str = "/boot";
/// Where everything is that the site keeps.
pub(super) const DATA: &str = "/data";
const E2FSCK: &str = "/sbin/e2fsck";
/// e2fsck: errors were corrected (2: and a mounted root would need a reboot, which ours is not).
const CORRECTED: i32 = 3;
/// What of e2fsck's words is shown, at most; the last ones say how it ended.
const WORDS_LINES_MAX: usize = 12;

/// Why there is no data.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataError {
    #[error("{}: cannot be read: {source}", .device.display())]
    Read { device: PathBuf, source: io::Error },
    #[error("{}: there is no ext4 file system on it", .0.display())]
    NoExt4(PathBuf),
    #[error("{}: e2fsck cannot be started: {source}", .device.display())]
    NoCheck { device: PathBuf, source: io::Error },
    #[error(
        "{}: e2fsck cannot repair it without a decision (exit {code}). Copy the disk if you can; then boot with `fife.fsck=yes` added to the kernel's arguments.\n{words}",
        .device.display()
    )]
    Broken { device: PathBuf, code: i32, words: String },
    #[error("{}: cannot be mounted: {source}", .device.display())]
    Mount { device: PathBuf, source: io::Error },
    #[error("{} is read-only: mail cannot be kept. Is the disk write-protected, or failing?", .0.display())]
    ReadOnly(PathBuf),
}

/// Checks the file system if it was not left in order. What e2fsck did is in the text.
pub(super) fn check(device: &Path, answer_yes: bool) -> Result<Option<String>, DataError> {
    let read = |source| DataError::Read { device: device.to_owned(), source };
    let found = Superblock::read(device).map_err(read)?;
    let Some(System::Ext { condition, .. }) = found.map(|found| found.system) else {
        return Err(DataError::NoExt4(device.to_owned()));
    };
    if is_read_only(device) {
        // Nothing can be put right there; whether it can be read is the mount's to say.
        return Ok(None);
    }
    let how = match condition {
        _ if answer_yes => ["-f", "-y"].as_slice(),
        Condition::Clean => return Ok(None),
        Condition::Dirty | Condition::Errors => ["-p"].as_slice(),
    };
    let done = Command::new(E2FSCK).args(how).arg(device).output();
    let done = done.map_err(|source| DataError::NoCheck { device: device.to_owned(), source })?;
    let words = last_words(&done);
    match done.status.code() {
        Some(code) if code & !CORRECTED == 0 => Ok(Some(words)),
        code => Err(DataError::Broken { device: device.to_owned(), code: code.unwrap_or(-1), words }),
    }
}

fn last_words(done: &Output) -> String {
    let all = [done.stdout.as_slice(), &done.stderr].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    let lines: Vec<&str> = all.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(WORDS_LINES_MAX)..).unwrap_or_default().join("\n")
}

/// Mounts the data partition; a disk that cannot be written is mounted to be read, and that is an error all the same.
pub(super) fn mount(device: &Path) -> Result<(), DataError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    // Not trusted any more after an error: what is there can still be read.
    let mounted = |flags, options| mounts::mount_at(&device.to_string_lossy(), "ext4", Path::new(DATA), flags, options);
    if is_read_only(device) {
        // A journal that cannot be replayed would keep it from being mounted at all.
        return match mounted(flags | MsFlags::MS_RDONLY, "noload") {
            Ok(()) => Err(DataError::ReadOnly(device.to_owned())),
            Err(source) => Err(DataError::Mount { device: device.to_owned(), source }),
        };
    }
    mounted(flags, "data=ordered,errors=remount-ro")
        .map_err(|source| DataError::Mount { device: device.to_owned(), source })
}

/// Mounts the partition with `fife.toml`, to be read: whoever writes there makes it writable for that moment.
///
/// # Errors
/// What the kernel says of it, for people.
pub(super) fn mount_boot(device: &Path) -> Result<(), String> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Secrets may stand in fife.toml: nobody but root reads it.
    let options = "umask=0077,utf8=1";
    mounts::mount_at(&device.to_string_lossy(), "vfat", Path::new(BOOT), flags, options)
        .map_err(|error| format!("{}, which holds fife.toml, cannot be mounted: {error}", device.display()))
}

/// Whether the kernel lets nobody write to this block device.
pub(super) fn is_read_only(device: &Path) -> bool {
    let shown = Path::new("/sys/class/block").join(device.file_name().unwrap_or_default()).join("ro");
    std::fs::read_to_string(shown).is_ok_and(|text| text.trim() == "1")
}
