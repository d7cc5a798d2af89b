//! Who is at the other end of a connection.
//!
//! Owns: `Peer`. Called by: the accept loop, sessions. Never: asks DNS.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::identity;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address, for TCP. IPv4 written as IPv6 (`::ffff:192.0.2.1`) is given as IPv4.
    pub address: Option<SocketAddr>,
    /// Its user, for a unix socket (peer credentials).
    pub uid: Option<u32>,
    /// Its process when it connected, for a unix socket; none when it is in another pid namespace.
    pub pid: Option<u32>,
}

/// What connections are counted by: an IPv4 address, or the /64 that an IPv6 host can pick addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientKey(IpAddr);

impl Peer {
    /// The peer of a TCP connection.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self { address: Some(SocketAddr::new(address.ip().to_canonical(), address.port())), uid: None, pid: None }
    }

    /// The peer of a unix socket.
    #[must_use]
    pub fn unix(uid: Option<u32>) -> Self {
        Self { address: None, uid, pid: None }
    }

    /// Its IP address, for TCP.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }

    /// On this machine: loopback or unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }

    /// Came over a unix socket from fife itself or its administrator: root, the user that this process runs as, or
    /// the user of one of the roles.
    #[must_use]
    pub fn is_site(&self) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == identity::own_uid() || identity::role_of(uid).is_some())
    }

    /// May be given all that a role has: root, the user that this process runs as, and the role that makes backups.
    #[must_use]
    pub fn may_back_up(&self) -> bool {
        let backs_up = |uid| identity::role_of(uid).is_some_and(|role| role.name() == "backup-to-tape");
        self.uid.is_some_and(|uid| uid == 0 || uid == identity::own_uid() || backs_up(uid))
    }

    /// What its connections are counted by; none for unix sockets, which only this machine reaches.
    pub(super) fn client_key(&self) -> Option<ClientKey> {
        self.ip().map(|ip| match ip {
            IpAddr::V4(_) => ClientKey(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                ClientKey(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.uid) {
            (Some(address), _) => write!(f, "{address}"),
            (None, Some(uid)) => write!(f, "unix:uid={uid}"),
            (None, None) => f.write_str("unix"),
        }
    }
}
