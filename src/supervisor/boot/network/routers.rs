//! IPv6 routers: asking them, and what they say of DNS. Addresses and routes of their advertisements are the kernel's affair.
//!
//! Owns: one solicitation, the socket on which the kernel passes on options. Called by: `kernel`, `keeper`. Never: parses an
//! advertisement itself; the kernel has checked that it comes from the link (RFC 4861 section 6.1.2).
//! Spec: RFC 4861 section 6.3.7; RFC 8106 section 5.1; rtnetlink's RTM_NEWNDUSEROPT (linux/rtnetlink.h, struct nduseroptmsg).

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr as NetlinkAddress, TokioSocket};
use socket2::{Domain, Protocol, Socket, Type};

/// All routers of the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Type 133, code 0; checksum (the kernel's) and reserved: no options.
const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];
/// RTNLGRP_ND_USEROPT, as a bit of the old mask.
const GROUP: u32 = 1 << 19;
const RTM_NEWNDUSEROPT: u16 = 68;
const NETLINK_HEADER_LEN: usize = 16;
const OPTION_HEADER_LEN: usize = 16;
/// Recursive DNS Server option.
const RDNSS: u8 = 25;
/// Servers that one option may name, at most.
const SERVERS_MAX: usize = 8;

/// Asks the routers of a link to say at once who they are.
pub(crate) fn solicit(link: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_if_v6(link)?;
    // RFC 4861 section 6.1.1: others are not believed.
    socket.set_multicast_hops_v6(255)?;
    let to = SocketAddr::V6(SocketAddrV6::new(ALL_ROUTERS, 0, 0, link));
    match socket.send_to(&SOLICITATION, &to.into()) {
        // No address on the link yet: the kernel asks by itself when it has one.
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// A router says who answers for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) link: u32,
    /// Of the whole option: all are to be forgotten at 0 (RFC 8106 section 5.1).
    pub(crate) lifetime_secs: u32,
    pub(crate) servers: Vec<Ipv6Addr>,
}

/// Where the kernel passes on what routers say.
pub(crate) struct Routers {
    socket: TokioSocket,
}

impl Routers {
    /// Begins to listen, in the network namespace of this thread.
    ///
    /// # Errors
    /// The system denies the socket.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&NetlinkAddress::new(0, GROUP))?;
        Ok(Self { socket })
    }

    /// The next thing said.
    ///
    /// # Errors
    /// The socket fails; that something was lost (ENOBUFS) is no failure, routers repeat themselves.
    pub(crate) async fn next(&self) -> io::Result<Vec<Said>> {
        match self.socket.recv_from_full().await {
            Ok((message, _)) => Ok(read(&message)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// What a datagram of netlink messages says of DNS.
pub(crate) fn read(mut datagram: &[u8]) -> Vec<Said> {
    let mut all = Vec::new();
    while let Some((message, rest)) = first_message(datagram) {
        all.extend(options(message));
        datagram = rest;
    }
    all
}

/// The first message, header included, and what is behind it.
fn first_message(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
    let message = datagram.get(..len).filter(|_| len >= NETLINK_HEADER_LEN)?;
    // Aligned to four octets; the last one need not be.
    Some((message, datagram.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

fn options(message: &[u8]) -> Vec<Said> {
    let read = || {
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        let head = message.get(NETLINK_HEADER_LEN..).filter(|_| kind == RTM_NEWNDUSEROPT)?;
        let len = usize::from(u16::from_ne_bytes(*head.get(2..)?.first_chunk()?));
        let link = u32::from_ne_bytes(*head.get(4..)?.first_chunk()?);
        let options = head.get(OPTION_HEADER_LEN..)?;
        Some((link, options.get(..len)?))
    };
    let Some((link, mut options)) = read() else { return Vec::new() };
    let mut all = Vec::new();
    while let [kind, eights, ..] = options {
        let len = usize::from(*eights) * 8;
        let Some(option) = options.get(..len).filter(|_| len > 0) else { break };
        if *kind == RDNSS
            && let Some((head, addresses)) = option.split_first_chunk::<8>()
            && let Some(lifetime) = head.last_chunk::<4>()
        {
            let servers = addresses.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets));
            let servers = servers.filter(|ip| !ip.is_multicast() && !ip.is_unspecified() && !ip.is_loopback());
            let servers = servers.take(SERVERS_MAX).collect();
            all.push(Said { link, lifetime_secs: u32::from_be_bytes(*lifetime), servers });
        }
        options = options.get(len..).unwrap_or_default();
    }
    all
}
