//! The state directory: its tree, owners, modes, and the lock that keeps a second supervisor out.
//!
//! Owns: `StateDir`. Called by: the supervisor, at start and when a role is added. Never: looks into a role's directory.
//!
//! As root, roles have users of their own and must reach the tree. Where a directory above is closed to them (a checkout
//! in /root), each role gets a view of the tree at `VIEW`, in a mount namespace of its own.
//!
//!     state/            0711   passable, not readable
//!     state/run/        0711   sockets
//!     state/tls/        0700   the self-signed certificate
//!     state/<role>/     0700   the role's own, by its uid when fife runs as root

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::config::hosts::Role;
use crate::config::log::Log;
use crate::net::identity;

/// Where a role sees the state directory when the way to it is closed: a directory that every Linux has (FHS section 3.12),
/// covered in the role's own namespace only.
const VIEW: &str = "/mnt";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another `fife run` uses the state directory {}", .0.display())]
    Taken(PathBuf),
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "roles run under users of their own and cannot reach the state directory: {} has mode {mode:03o}; give it x for others, or use another --state",
        .path.display()
    )]
    Unreachable { path: PathBuf, mode: u32 },
}

/// The state directory, locked.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// fife runs as root: roles get users of their own.
    privileged: bool,
    /// Roles cannot walk to `path`: they are given a view.
    hidden: bool,
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes what is missing and takes the lock. `path` is absolute.
    pub(super) fn prepare(path: &Path) -> Result<Self, StateError> {
        let privileged = identity::own_uid() == 0;
        make(path, 0o711)?;
        let hidden = privileged && is_hidden(path)?;
        let run = path.join("run");
        make(&run, 0o711)?;
        let lock_path = run.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(io_at(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == Errno::EWOULDBLOCK {
                StateError::Taken(path.to_owned())
            } else {
                StateError::Io { path: lock_path, source: errno.into() }
            }
        })?;
        make(&path.join("tls"), 0o700)?;
        make(&path.join("tls/site"), 0o700)?;
        Ok(Self { path: path.to_owned(), privileged, hidden, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where roles see it.
    pub(super) fn path_for_roles(&self) -> &Path {
        if self.hidden { Path::new(VIEW) } else { &self.path }
    }

    /// What is to be mounted where before a role can see it.
    pub(super) fn mount_for_roles(&self) -> Option<(CString, CString)> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
        self.hidden.then(|| text(&self.path).zip(text(self.path_for_roles()))).flatten()
    }

    /// The uid that a role is to run under; none when it runs as we do.
    pub(super) fn uid_of(&self, role: Role) -> Option<u32> {
        self.privileged.then(|| identity::uid_of(role))
    }

    /// Makes the role's directory, or puts its owner and mode right.
    pub(super) fn prepare_role(&self, role: Role) -> Result<(), StateError> {
        let path = self.path.join(role.name());
        make(&path, 0o700)?;
        if let Some(uid) = self.uid_of(role) {
            chown(&path, Some(uid), Some(uid)).map_err(io_at(&path))?;
        }
        Ok(())
    }

    /// Opens the log file of these settings for appending; none when lines go to standard error.
    pub(super) fn open_log(&self, log: &Log) -> Result<Option<File>, StateError> {
        let Some(path) = log.file.as_ref().map(|path| self.path.join(path)) else { return Ok(None) };
        let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(&path);
        opened.map(Some).map_err(io_at(&path))
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, source }
}

/// The directory, with this mode.
fn make(path: &Path, mode: u32) -> Result<(), StateError> {
    fs::create_dir_all(path).map_err(io_at(path))?;
    let current = fs::metadata(path).map_err(io_at(path))?.mode() & 0o7777;
    if current != mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io_at(path))?;
    }
    Ok(())
}

/// Whether a directory above lets no strangers through, so that a role's uid would get nowhere.
fn is_hidden(path: &Path) -> Result<bool, StateError> {
    for above in path.ancestors().skip(1) {
        let mode = fs::metadata(above).map_err(io_at(above))?.mode() & 0o777;
        if mode & 0o001 == 0 {
            // Root in a container may not mount.
            if caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false) {
                return Ok(true);
            }
            return Err(StateError::Unreachable { path: above.to_owned(), mode });
        }
    }
    Ok(false)
}
