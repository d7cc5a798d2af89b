//! The listening sockets of this host. They live as long as the supervisor, whatever becomes of the roles.
//!
//! Owns: `Sockets`. Called by: the supervisor. Never: accepts; a client that comes while a role is down waits in
//! the backlog.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, Socket, Type};

use crate::base::clock;
use crate::config::address::SocketAddress;
use crate::net::identity;

/// Connections that wait for a role, at most (the kernel's own maximum is 4096).
const BACKLOG: i32 = 4096;
/// How long the roles of a supervisor that was killed may take to be gone, all addresses together. To be waited at the start only:
/// whatever has an address later is no predecessor, and the supervisor has more to do.
pub(super) const PREDECESSOR_WAIT_MAX: Duration = Duration::from_secs(3);
/// Between two attempts meanwhile.
const PREDECESSOR_ASK_AGAIN: Duration = Duration::from_millis(20);

/// Who may connect to a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Only the user that fife runs as.
    Own,
    /// The roles too.
    Roles,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindFault {
    address: SocketAddress,
    reason: String,
}

/// Every fault at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct BindFaults(pub Vec<BindFault>);

/// What is bound, by address.
#[derive(Debug, Default)]
pub(super) struct Sockets(BTreeMap<SocketAddress, OwnedFd>);

impl Sockets {
    /// Binds all of these or none; what is bound already stays as it is. Occupied addresses are waited for until then.
    pub(super) fn bind(
        &mut self,
        wanted: impl IntoIterator<Item = (SocketAddress, Access)>,
        deadline: Instant,
    ) -> Result<(), BindFaults> {
        let (mut bound, mut faults) = (Self::default(), Vec::new());
        for (address, access) in wanted {
            if self.0.contains_key(&address) || bound.0.contains_key(&address) {
                continue;
            }
            match listen_by(deadline, &address, access) {
                Ok(fd) => drop(bound.0.insert(address, fd)),
                Err(error) => faults.push(BindFault { reason: explain(&error), address }),
            }
        }
        if faults.is_empty() {
            self.0.append(&mut bound.0);
            Ok(())
        } else {
            bound.close_all();
            Err(BindFaults(faults))
        }
    }

    /// The descriptor of an address.
    pub(super) fn get(&self, address: &SocketAddress) -> Option<BorrowedFd<'_>> {
        self.0.get(address).map(AsFd::as_fd)
    }

    /// Its number, which a role inherits.
    pub(super) fn raw(&self, address: &SocketAddress) -> Option<RawFd> {
        self.0.get(address).map(AsRawFd::as_raw_fd)
    }

    /// Closes it; roles that still run keep their copy.
    pub(super) fn close(&mut self, address: &SocketAddress) {
        if self.0.remove(address).is_some()
            && let SocketAddress::Unix(path) = address
        {
            // Gone already is as good.
            drop(fs::remove_file(path));
        }
    }

    /// Closes all.
    pub(super) fn close_all(&mut self) {
        let all: Vec<SocketAddress> = self.0.keys().cloned().collect();
        all.iter().for_each(|address| self.close(address));
    }
}

/// Listens as soon as the address is free, if that is before the deadline: a killed supervisor's roles die with it, but
/// their last thread, and with it their sockets, may outlive it by a moment.
#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when an address becomes free: asked again")]
fn listen_by(deadline: Instant, address: &SocketAddress, access: Access) -> io::Result<OwnedFd> {
    loop {
        match listen(address, access) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock::monotonic() < deadline => {
                thread::sleep(PREDECESSOR_ASK_AGAIN);
            }
            outcome => return outcome,
        }
    }
}

fn listen(address: &SocketAddress, access: Access) -> io::Result<OwnedFd> {
    match address {
        SocketAddress::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
            // A restarted supervisor must not wait for the last connections of the former one to time out.
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                // "[::]:25" takes IPv4 too, whatever the machine's default.
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        }
        SocketAddress::Unix(path) => listen_unix(path, access),
    }
}

fn listen_unix(path: &Path, access: Access) -> io::Result<OwnedFd> {
    remove_stale(path)?;
    // Born closed to everyone else: there is no moment in which a stranger could connect.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    if access == Access::Roles && identity::own_uid() == 0 {
        chown(path, None, Some(identity::ROLES_GID))?;
        fs::set_permissions(path, Permissions::from_mode(0o660))?;
    }
    Ok(listener.into())
}

/// Removes a socket that nobody answers on any more. Anything else that lies there is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket lies there"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on this socket")),
        Err(error) => Err(error),
    }
}

/// What the system says, and what that usually means.
fn explain(error: &io::Error) -> String {
    let hints = [
        (io::ErrorKind::PermissionDenied, "; ports below 1024 need root (or CAP_NET_BIND_SERVICE)"),
        (io::ErrorKind::AddrInUse, "; another program listens there (`ss -lntp` shows which)"),
        (io::ErrorKind::AddrNotAvailable, "; this machine does not have the address"),
    ];
    let hint = hints.iter().find(|(kind, _)| *kind == error.kind()).map(|(_, hint)| *hint).unwrap_or_default();
    format!("{error}{hint}")
}
