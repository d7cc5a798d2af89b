//! Writing to the ESP, which is mounted read-only except for the moment of a write.
//!
//! Owns: remounting, the lock, the syncs. Called by: `slots`; the console, which saves `fife.toml`. Never: decides what is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MsFlags, mount};
use nix::unistd::syncfs;

use super::{SlotError, Source, Step};

/// Octets of a small file, at most; what is longer is none of ours.
const SMALL_LEN_MAX: u64 = 64 * 1024;
/// Files in a directory of ours that are looked at, at most.
const LISTED_MAX: usize = 256;
/// Octets of a large file that are written between syncs. FAT has no journal: of clusters that are taken for a file and not
/// yet named by its directory entry, a power cut leaves so many lost.
const SYNC_EVERY: usize = 4 << 20;
const COPY_LEN: usize = 256 * 1024;

/// The text of a small file; none when it is not there or no text.
pub(super) fn read(root: &Path, path: &str) -> Option<String> {
    let mut octets = Vec::new();
    File::open(root.join(path)).ok()?.take(SMALL_LEN_MAX).read_to_end(&mut octets).ok()?;
    String::from_utf8(octets).ok()
}

/// Names in a directory.
pub(super) fn list(root: &Path, path: &str) -> Result<Vec<String>, SlotError> {
    let path = root.join(path);
    let entries = fs::read_dir(&path).map_err(|source| SlotError::Io { path, source })?;
    Ok(entries.flatten().take(LISTED_MAX).filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Carries the steps out, in their order.
pub(super) fn carry_out(root: &Path, steps: &[Step]) -> Result<(), SlotError> {
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| SlotError::Io { path, source }
    };
    let writable = Writable::new(root).map_err(fault(root))?;
    for step in steps {
        match step {
            Step::Remove(path) => remove(&root.join(path)).map_err(fault(&root.join(path)))?,
            Step::Write { path, source } => {
                write(&root.join(path), source).map_err(fault(&root.join(path)))?;
            }
            Step::Rename { from, to } => fs::rename(root.join(from), root.join(to)).map_err(fault(&root.join(to)))?,
            Step::Overwrite { path, octets } => overwrite(&root.join(path), octets).map_err(fault(&root.join(path)))?,
            Step::Sync => writable.sync().map_err(fault(root))?,
        }
        // What is wrong must be known before a loader is told of it.
        if let Step::Write { path, source } = step
            && !is_as_written(&root.join(path), source).map_err(fault(&root.join(path)))?
        {
            return Err(SlotError::NotAsWritten(path.clone()));
        }
    }
    Ok(())
}

/// Puts a new `fife.toml` in place of the old one, which stays until the new one is whole; on the ESP of the appliance or anywhere else.
///
/// # Errors
/// Whatever the system says; the old file then holds.
pub fn write_settings(path: &Path, text: &str) -> Result<(), SlotError> {
    let root = path.parent().unwrap_or(Path::new("/"));
    let write = || {
        let writable = Writable::new(root)?;
        crate::base::durable::replace(path, text.as_bytes(), 0o600)?;
        writable.sync()
    };
    write().map_err(|source| SlotError::Io { path: path.to_owned(), source })
}

/// The volume while it may be written to: one writer at a time, read-only again afterwards.
struct Writable {
    root: Flock<File>,
    /// The mount point that was read-only, and with which flags.
    remounted: Option<(PathBuf, MsFlags)>,
}

impl Writable {
    fn new(root: &Path) -> io::Result<Self> {
        let lock = Flock::lock(File::open(root)?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let remounted = read_only_mount(&table, &fs::canonicalize(root)?);
        if let Some((point, flags)) = &remounted {
            remount(point, *flags)?;
        }
        Ok(Self { root: lock, remounted })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&*self.root)?)
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        if let Some((point, flags)) = &self.remounted
            && let Err(error) = remount(point, *flags | MsFlags::MS_RDONLY)
        {
            tracing::warn!(%error, mount = %point.display(), "is not read-only again");
        }
    }
}

fn remount(point: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, point, None::<&str>, flags | MsFlags::MS_REMOUNT, None::<&str>)
}

/// The mount that `path` lies in, when it is a read-only one; with its other flags, which a remount would lose.
pub(super) fn read_only_mount(table: &str, path: &Path) -> Option<(PathBuf, MsFlags)> {
    let field = |line: &'_ str, at: usize| line.split(' ').nth(at).map(str::to_owned);
    let mounts = table.lines().filter_map(|line| Some((PathBuf::from(field(line, 4)?), field(line, 5)?)));
    // Of mounts over each other the last is seen.
    let (point, options) = mounts.filter(|(point, _)| path.starts_with(point)).fold(None, |best, one| {
        let depth = |mount: &(PathBuf, String)| mount.0.components().count();
        if best.as_ref().is_some_and(|best| depth(best) > depth(&one)) { best } else { Some(one) }
    })?;
    let flag = |name: &str| match name {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    };
    let read_only = options.split(',').any(|name| name == "ro");
    read_only.then(|| (point, options.split(',').map(flag).collect()))
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Writes over what is there and cuts off what is left: the file keeps its clusters, and a power cut loses none.
fn write(path: &Path, source: &Source) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let mut unsynced = 0;
    each_piece(source, |piece| {
        file.write_all(piece)?;
        unsynced += piece.len();
        if unsynced >= SYNC_EVERY {
            unsynced = 0;
            file.sync_all()?;
        }
        Ok(true)
    })?;
    let end = file.stream_position()?;
    file.set_len(end)?;
    file.sync_all()
}

fn overwrite(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(octets)?;
    file.sync_all()
}

/// Reads it back, from the disk and not from memory.
fn is_as_written(path: &Path, source: &Source) -> io::Result<bool> {
    let mut file = File::open(path)?;
    match posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut read = vec![0; COPY_LEN];
    let mut same = true;
    each_piece(source, |piece| {
        let there = read.get_mut(..piece.len()).ok_or(io::ErrorKind::InvalidData)?;
        same = match file.read_exact(there) {
            Ok(()) => there == piece,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        Ok(same)
    })?;
    Ok(same && file.read(&mut [0])? == 0)
}

/// What is to be written, in pieces of at most `COPY_LEN`, until `each` has enough.
fn each_piece(source: &Source, mut each: impl FnMut(&[u8]) -> io::Result<bool>) -> io::Result<()> {
    let mut reader: Box<dyn Read + '_> = match source {
        Source::Octets(octets) => Box::new(octets.as_slice()),
        Source::File(path) => Box::new(File::open(path)?),
    };
    let mut piece = vec![0; COPY_LEN];
    loop {
        let count = reader.read(&mut piece)?;
        let read = piece.get(..count).unwrap_or_default();
        if read.is_empty() || !each(read)? {
            return Ok(());
        }
    }
}
