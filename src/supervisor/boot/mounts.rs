//! The file systems that a running Linux needs, and their end.
//!
//! Owns: the table of them, mounting and unmounting by name. Called by: boot. Never: touches a disk's content (`data` decides what of
//! a disk is mounted).
//! Spec: mount(2), Filesystem Hierarchy Standard 3.0 for the places.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// One file system that is no disk.
struct Row {
    kind: &'static str,
    at: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NOTHING_SPECIAL: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// In this order: later ones lie in earlier ones.
const TABLE: [Row; 7] = [
    Row { kind: "proc", at: "/proc", flags: NOTHING_SPECIAL, options: "" },
    Row { kind: "sysfs", at: "/sys", flags: NOTHING_SPECIAL, options: "" },
    Row { kind: "devtmpfs", at: "/dev", flags: DEVICES, options: "mode=0755" },
    Row { kind: "devpts", at: "/dev/pts", flags: DEVICES, options: "gid=5,mode=0620,ptmxmode=0666" },
    // What lies there is small; without a bound a runaway would take the memory of the roles.
    Row { kind: "tmpfs", at: "/run", flags: NOTHING_SPECIAL, options: "mode=0755,size=32m" },
    Row { kind: "tmpfs", at: "/tmp", flags: NOTHING_SPECIAL, options: "mode=1777,size=64m" },
    Row { kind: "securityfs", at: "/sys/kernel/security", flags: NOTHING_SPECIAL, options: "" },
];

/// Mounts all of the table; says of each that could not be mounted why. Some may be there already.
pub(super) fn early() -> Vec<String> {
    let one = |row: &Row| {
        mount_at(row.kind, row.kind, Path::new(row.at), row.flags, row.options)
            .err()
            .map(|error| format!("{} cannot be mounted: {error}", row.at))
    };
    TABLE.iter().filter_map(one).collect()
}

/// The firmware's variables, where the firmware is UEFI. The kernel answers ENODEV where it is not.
pub(super) fn firmware() {
    let at = Path::new("/sys/firmware/efi/efivars");
    if at.exists() {
        mount_at("efivarfs", "efivarfs", at, NOTHING_SPECIAL, "").ok();
    }
}

/// Mounts a file system at a directory, which is made when it is missing. Mounted there already: good.
///
/// # Errors
/// What the kernel says.
pub(super) fn mount_at(source: &str, kind: &str, at: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    // sysfs and the like let nobody make directories; then mount(2) says what is missing.
    fs::create_dir_all(at).ok();
    match mount(Some(source), at, Some(kind), flags, Some(options)) {
        Err(Errno::EBUSY) if is_mounted(at) => Ok(()),
        done => Ok(done?),
    }
}

/// Whether something is mounted exactly there.
pub(super) fn is_mounted(at: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter_map(|line| line.split(' ').nth(1)).any(|place| Path::new(place) == at)
}

/// Changes a mounted file system between read-only and writable.
///
/// # Errors
/// What the kernel says: a disk may not be writable.
pub(super) fn remount(at: &Path, flags: MsFlags) -> io::Result<()> {
    let nothing: Option<&str> = None;
    Ok(mount(nothing, at, nothing, MsFlags::MS_REMOUNT | flags, nothing)?)
}

/// Unmounts; where something still uses it, makes it read-only, so that what was written is on the disk and it is marked clean.
///
/// # Errors
/// Neither was possible.
pub(super) fn leave(at: &Path) -> io::Result<()> {
    match umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
        // Not mounted.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(_) => remount(at, MsFlags::MS_RDONLY),
    }
}
