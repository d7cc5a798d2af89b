//! The disk as the ledger sees it: one directory with files in it.
//!
//! Owns: the seam `Disk`, and the real disk behind it. Called by: `tail`, `recovery`, `reader`, `check`.
//! The other implementor is the false disk of `simulation`, which loses, tears and reorders what was not synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::base::{clock, durable};

/// How long a lock is waited for.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two attempts meanwhile.
const LOCK_ASK_AGAIN: Duration = Duration::from_millis(5);

/// A directory. Names are plain file names in it. Nothing done here holds after a power cut before `sync`.
pub(super) trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names in the directory.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes an empty file, in place of any of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name, in place of any of that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file. After a failed sync, nothing is known of what was written since the last good one.
pub(super) trait DiskFile: Send + Sync + 'static {
    fn bytes(&self) -> io::Result<u64>;
    /// Reads into the buffer; less than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;
    /// Makes the content durable, and the length as far as it is needed to read it.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync_all(&self) -> io::Result<()>;
}

/// A directory of this machine.
#[derive(Debug, Clone)]
pub(super) struct RealDisk {
    path: PathBuf,
    /// For syncing the directory.
    handle: Arc<File>,
}

impl RealDisk {
    /// Opens the directory, and makes it (0700) if it is not there.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            durable::sync_parent(path)?;
        }
        Ok(Self { path: path.to_owned(), handle: Arc::new(File::open(path)?) })
    }

    /// Takes the directory for this process alone; nothing if another one has it. Held until the file is dropped.
    ///
    /// A lock that has just been given up may stand for a moment longer: a process that was forked meanwhile holds a copy
    /// of it until it executes its program. So it is asked for again, for so long.
    #[expect(clippy::disallowed_methods, reason = "flock has no wait with a deadline: asked again")]
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let path = self.path.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let deadline = clock::monotonic() + LOCK_WAIT_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(fs::TryLockError::WouldBlock) if clock::monotonic() < deadline => thread::sleep(LOCK_ASK_AGAIN),
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600).open(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..)
            && !rest.is_empty()
        {
            let at = offset + u64::try_from(done).unwrap_or(u64::MAX);
            match FileExt::read_at(self, rest, at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}
