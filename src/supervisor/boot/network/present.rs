//! What the kernel has: links, addresses, routes, as plain values.
//!
//! Owns: `Present` and what it is made of. Called by: `kernel` (fills it), `wanted` and `difference` (read it).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::hosts::MacAddress;
use crate::config::network::{BondMode, Prefix};

/// Links, addresses and routes at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) links: Vec<Link>,
    /// Those that were given, by whomever.
    pub(crate) addresses: BTreeSet<Address>,
    /// Of all addresses, those that cannot be used yet: it is being looked whether another has them (RFC 4862 section 5.4).
    pub(crate) tentative: BTreeSet<Address>,
    /// Of all addresses, those that another machine has (RFC 4862 section 5.4.5).
    pub(crate) doubled: BTreeSet<Address>,
    /// Those that the kernel made of router advertisements.
    pub(crate) advertised: BTreeSet<Address>,
    /// Those of the main table, without what the kernel makes of addresses.
    pub(crate) routes: BTreeSet<Route>,
    /// Those that the kernel made of router advertisements.
    pub(crate) advertised_routes: BTreeSet<Route>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// The kernel's number for it, never used again while the system runs.
    pub(crate) index: u32,
    pub(crate) name: String,
    /// None: not Ethernet.
    pub(crate) mac: Option<MacAddress>,
    /// The card's own address, whatever it goes by now.
    pub(crate) own_mac: Option<MacAddress>,
    /// Switched on.
    pub(crate) up: bool,
    /// There is a cable in it with somebody at the other end.
    pub(crate) carrier: bool,
    pub(crate) kind: Kind,
    /// The bond that it is a member of.
    pub(crate) controller: Option<u32>,
    pub(crate) mtu: u32,
}

/// What sort of interface it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Loopback,
    /// Wired Ethernet.
    Card,
    /// `mode` is none for a mode that cannot be set here.
    Bond {
        mode: Option<BondMode>,
        monitoring_ms: u32,
    },
    Vlan {
        of: u32,
        id: u16,
    },
    Other,
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) ip: IpAddr,
    /// Bits of the network's prefix.
    pub(crate) bits: u8,
}

/// A route over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) link: u32,
    pub(crate) to: Prefix,
    /// None: whoever is there is on the link itself.
    pub(crate) via: Option<IpAddr>,
    /// The lowest one holds.
    pub(crate) metric: u32,
}

impl Present {
    /// The link of this number.
    pub(crate) fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The link that the kernel calls so.
    pub(crate) fn named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}
