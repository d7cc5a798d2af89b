//! A listening socket, bound by the supervisor.
//!
//! Owns: `Listener`. Called by: the accept loop, the HTTP server. Never: binds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive};
use tokio::net::{TcpListener, UnixListener};

use super::peer::Peer;
use super::stream::Stream;

/// Silence after which the kernel asks whether the peer still lives: an IMAP session idles for hours, and a machine
/// that was switched off never says goodbye.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(300);

/// A listening socket.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Takes over a socket that listens. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// It is no TCP or unix stream socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        let domain = socket.domain()?;
        if domain == Domain::UNIX {
            UnixListener::from_std(OwnedFd::from(socket).into()).map(|unix| Self(Kind::Unix(unix)))
        } else if domain == Domain::IPV4 || domain == Domain::IPV6 {
            TcpListener::from_std(OwnedFd::from(socket).into()).map(|tcp| Self(Kind::Tcp(tcp)))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a TCP nor a unix socket"))
        }
    }

    /// Waits for the next connection. Safe to drop while it waits.
    ///
    /// # Errors
    /// Whatever the system says; see `accept_loop` for what passes and what does not.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Both fail on a connection that was reset meanwhile; the session will find that out.
                stream.set_nodelay(true).ok();
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER)).ok();
                Ok((Stream::Tcp(stream), Peer::tcp(address)))
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without credentials the peer is nobody that is trusted.
                let credentials = stream.peer_cred().ok();
                let uid = credentials.map(|credentials| credentials.uid());
                let pid =
                    credentials.and_then(|credentials| u32::try_from(credentials.pid()?).ok()).filter(|&pid| pid > 0);
                Ok((Stream::Unix(stream), Peer { pid, ..Peer::unix(uid) }))
            }
        }
    }

    /// Where it listens, for log lines and tests.
    #[must_use]
    pub fn local_address(&self) -> String {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map_or_else(|_| "tcp".into(), |address| address.to_string()),
            Kind::Unix(listener) => listener
                .local_addr()
                .ok()
                .and_then(|address| address.as_pathname().map(|path| format!("unix:{}", path.display())))
                .unwrap_or_else(|| "unix".into()),
        }
    }
}
