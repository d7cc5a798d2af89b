//! The file systems that a running Linux needs, and their end.
//!
//! Owns: the table of them, mounting and unmounting by name. Called by: boot. Never: touches a disk's content (`data` decides what of
//! a disk is mounted).
//! Spec: mount(2), proc_pid_mountinfo(5), Filesystem Hierarchy Standard 3.0 for the places.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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

/// A mount, as /proc/self/mountinfo lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: PathBuf,
    /// Number of the device, "253:3".
    pub(super) device: String,
    /// The file system itself takes no writes; not only here.
    pub(super) read_only: bool,
}

/// All that is mounted, in the order in which it was.
pub(super) fn table() -> Vec<Line> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn parse(table: &str) -> Vec<Line> {
    let line = |line: &str| {
        let (here, system) = line.split_once(" - ")?;
        let mut fields = here.split(' ').skip(2);
        let (device, at) = (fields.next()?.to_owned(), fields.nth(1)?);
        let read_only = system.split(' ').nth(2)?.split(',').any(|option| option == "ro");
        Some(Line { at: unescaped(at), device, read_only })
    };
    table.lines().filter_map(line).collect()
}

/// A path as the table has it: blanks and backslashes are written as a backslash and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((octet, after)) = rest.split_first() {
        let escaped = after.first_chunk::<3>().filter(|_| *octet == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        path.push(escaped.unwrap_or(*octet));
        rest = if escaped.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    PathBuf::from(OsString::from_vec(path))
}

/// Whether something is mounted exactly there.
pub(super) fn is_mounted(at: &Path) -> bool {
    table().iter().any(|line| line.at == at)
}

/// Changes a mounted file system between read-only and writable.
///
/// # Errors
/// What the kernel says: a disk may not be writable.
pub(super) fn remount(at: &Path, flags: MsFlags) -> io::Result<()> {
    let nothing: Option<&str> = None;
    Ok(mount(nothing, at, nothing, MsFlags::MS_REMOUNT | flags, nothing)?)
}

/// Whether the system's own directories are read-only by now.
static SEALED: AtomicBool = AtomicBool::new(false);

/// From now on nobody writes to the system's own directories, also not who is root: they lie in memory, and what is written there would be
/// lost at the next boot, and take room from the roles until then.
///
/// # Errors
/// What the kernel says.
pub(super) fn seal() -> io::Result<()> {
    SEALED.store(true, Ordering::Relaxed);
    remount(Path::new("/"), MsFlags::MS_BIND | MsFlags::MS_RDONLY)
}

/// Makes or removes a directory of the system. Only process 1 has one to make: a place to mount at.
pub(super) fn unsealed<T>(work: impl FnOnce() -> T) -> T {
    let sealed = SEALED.load(Ordering::Relaxed);
    if sealed {
        // Not possible: then the work says that it cannot write.
        remount(Path::new("/"), MsFlags::MS_BIND).ok();
    }
    let done = work();
    if sealed && let Err(error) = remount(Path::new("/"), MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
        tracing::warn!(%error, "the system's directories can be written");
    }
    done
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

#[cfg(test)]
mod tests {
    use super::{Line, parse, table};
    use std::path::Path;

    #[test]
    fn mountinfo_is_read_with_blanks_in_names_and_without_trust() {
        let text = "24 1 0:22 / /proc rw,nosuid - proc proc rw\n\
            36 24 254:17 / /mnt/old\\040disk\\134 rw,noatime shared:1 - ext4 /dev/vdb1 ro,errors=remount-ro\n\
            37 24 0:40 /a /mnt/nas ro - nfs4 nas:/a rw,vers=4.2\nnonsense\n38 24 0:41 - x\n";
        let line = |at: &str, device: &str, read_only: bool| Line { at: at.into(), device: device.into(), read_only };
        let expected =
            [line("/proc", "0:22", false), line("/mnt/old disk\\", "254:17", true), line("/mnt/nas", "0:40", false)];
        assert_eq!(parse(text), expected);
        assert!(table().iter().any(|line| line.at == Path::new("/proc")));
    }
}
