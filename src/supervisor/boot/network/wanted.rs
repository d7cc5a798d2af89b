//! What the settings make of the links that are there.
//!
//! Owns: `Wanted`, finding the link that a table means. Called by: `keeper`. Never: asks the kernel; `difference` says what is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Settings;
use super::dhcp::Lease;
use super::present::{Address, Kind, Link, Present, Route};
use crate::config::network::{BondMode, Interface, LinkName, Prefix};

/// Metric of IPv6 routes that are given: before those of router advertisements (1024).
const METRIC_V6: u32 = 512;
/// Metric of routes by DHCP, with the link's number added so that two links can both have one: after those that are given.
const METRIC_DHCP: u32 = 1024;

/// What is to stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Links that are not there, or are there otherwise.
    pub(crate) made: BTreeMap<String, Made>,
    /// Names of all links that are to be made or kept.
    pub(crate) kept: BTreeSet<String>,
    /// Links that are there, by number.
    pub(crate) links: BTreeMap<u32, WantedLink>,
    pub(crate) addresses: BTreeSet<Address>,
    pub(crate) routes: BTreeSet<Route>,
    /// Links on which it is asked by DHCP, now that they have a carrier.
    pub(crate) dhcp: BTreeSet<u32>,
    /// Tables that mean no link of this machine, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

/// A link that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Made {
    Bond { mode: BondMode, monitoring_ms: u32 },
    Vlan { of: u32, id: u16 },
}

/// A link that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WantedLink {
    /// Its name in the TOML; the kernel's where it has none.
    pub(crate) label: String,
    pub(crate) mtu: Option<u32>,
    pub(crate) controller: Option<u32>,
    /// Whether the kernel makes addresses and routes of router advertisements.
    pub(crate) routers: bool,
    /// Whether it is asked by DHCP as soon as there is a carrier.
    pub(crate) dhcp: bool,
    pub(crate) monitoring_ms: Option<u32>,
}

/// What these settings, leases (by link) and links are to become.
pub(crate) fn wanted(settings: &Settings, present: &Present, leases: &BTreeMap<u32, &Lease>) -> Wanted {
    let mut wanted = Wanted::default();
    for link in present.links.iter().filter(|link| link.kind == Kind::Loopback) {
        wanted.links.insert(link.index, WantedLink { label: link.name.clone(), ..WantedLink::default() });
    }
    let automatic = Interface::default();
    let found: Vec<(String, &Interface, Option<&Link>)> = if settings.interfaces.is_empty() {
        let cards = present.links.iter().filter(|link| link.kind == Kind::Card && link.controller.is_none());
        cards.map(|link| (link.name.clone(), &automatic, Some(link))).collect()
    } else {
        let one = |(label, interface)| (String::clone(label), interface, find(settings, present, label, interface));
        settings.interfaces.iter().map(one).collect()
    };
    for (label, interface, link) in &found {
        make(&mut wanted, settings, present, label, interface, *link);
        if let Some(link) = link {
            let is_other = matches!((interface.bond.is_empty(), link.kind), (false, kind) if !matches!(kind, Kind::Bond { .. }))
                || (interface.vlan.is_some() && !matches!(link.kind, Kind::Vlan { .. }));
            if is_other {
                let why = format!("the machine has another interface of the name {}", link.name);
                wanted.missing.insert(label.clone(), why);
                continue;
            }
            join(&mut wanted, label, interface, link, leases.get(&link.index).copied());
        } else if interface.bond.is_empty() && interface.vlan.is_none() {
            let why = interface.mac.map_or_else(
                || format!("no card has the name {label}"),
                |mac| format!("no card has the address {mac}"),
            );
            wanted.missing.insert(label.clone(), why);
        }
    }
    for (label, interface, link) in &found {
        carry(&mut wanted, settings, present, label, interface, *link);
    }
    wanted
}

/// The link that the table means.
fn find<'a>(settings: &Settings, present: &'a Present, label: &str, interface: &Interface) -> Option<&'a Link> {
    if !interface.bond.is_empty() || interface.vlan.is_some() {
        return present.named(label);
    }
    let is_card = |link: &&Link| matches!(link.kind, Kind::Card | Kind::Other);
    if let Some(mac) = interface.mac {
        return present.links.iter().filter(is_card).find(|link| link.own_mac == Some(mac));
    }
    // A card that another table means by its address is not this one, though its name is.
    let is_claimed =
        |link: &Link| settings.interfaces.values().any(|other| other.mac.is_some() && other.mac == link.own_mac);
    present.named(label).filter(is_card).filter(|link| !is_claimed(link))
}

/// The link that another table speaks of.
fn resolve<'a>(settings: &Settings, present: &'a Present, name: &LinkName) -> Option<&'a Link> {
    match settings.interfaces.get(name.as_str()) {
        Some(interface) => find(settings, present, name.as_str(), interface),
        None => present.named(name.as_str()).filter(|link| matches!(link.kind, Kind::Card | Kind::Other)),
    }
}

/// Bonds and VLANs that have to be made.
fn make(
    wanted: &mut Wanted,
    settings: &Settings,
    present: &Present,
    label: &str,
    interface: &Interface,
    link: Option<&Link>,
) {
    if !interface.bond.is_empty() {
        wanted.kept.insert(label.to_owned());
        let monitoring_ms = millis(interface);
        let mode = interface.bond_mode;
        // One that came with the kernel's module is made anew too when it is otherwise.
        let is_same = matches!(link.map(|link| link.kind), Some(Kind::Bond { mode: own, .. }) if own == Some(mode));
        if !is_same {
            wanted.made.insert(label.to_owned(), Made::Bond { mode, monitoring_ms });
        }
    } else if let Some(vlan) = &interface.vlan {
        wanted.kept.insert(label.to_owned());
        let Some(of) = resolve(settings, present, &vlan.of).map(|link| link.index) else {
            // A bond that is made in this round carries it in the next one.
            if settings.interfaces.get(vlan.of.as_str()).is_none_or(|of| of.bond.is_empty()) {
                wanted.missing.insert(label.to_owned(), format!("{}, which carries it, is not there", vlan.of));
            }
            return;
        };
        let id = vlan.id.get();
        if link.map(|link| link.kind) != Some(Kind::Vlan { of, id }) {
            wanted.made.insert(label.to_owned(), Made::Vlan { of, id });
        }
    }
}

/// Addresses, routes and properties of a link of its own.
fn join(wanted: &mut Wanted, label: &str, interface: &Interface, link: &Link, lease: Option<&Lease>) {
    let dhcp = interface.asks_dhcp();
    wanted.links.insert(
        link.index,
        WantedLink {
            label: label.to_owned(),
            mtu: interface.mtu,
            controller: None,
            routers: interface.hears_routers(),
            dhcp,
            monitoring_ms: (!interface.bond.is_empty()).then(|| millis(interface)),
        },
    );
    let index = link.index;
    for address in &interface.address {
        wanted.addresses.insert(Address { link: index, ip: address.ip(), bits: address.bits() });
    }
    let metric = |ip: IpAddr| if ip.is_ipv6() { METRIC_V6 } else { 0 };
    let everywhere = |via: IpAddr| (Prefix::everywhere(via.is_ipv6()), via);
    let routes = interface.routes.iter().map(|route| (route.to, route.via));
    for (to, via) in interface.gateway.iter().map(everywhere).chain(routes) {
        wanted.routes.insert(Route { link: index, to, via: Some(via), metric: metric(via) });
    }
    if dhcp && link.carrier {
        wanted.dhcp.insert(index);
    }
    if let Some(lease) = lease.filter(|_| dhcp) {
        let ip = lease.address.ip();
        wanted.addresses.insert(Address { link: index, ip, bits: lease.address.bits() });
        let has_gateway = interface.gateway.iter().any(|gateway| gateway.is_ipv4());
        for (to, via) in &lease.routes {
            // A router that is given comes before the one that DHCP names.
            if !(to.is_everywhere() && has_gateway) {
                let metric = METRIC_DHCP.saturating_add(index);
                wanted.routes.insert(Route { link: index, to: *to, via: via.map(IpAddr::V4), metric });
            }
        }
    }
}

/// Links that carry this one: switched on, and without addresses of their own unless a table gives them some.
fn carry(
    wanted: &mut Wanted,
    settings: &Settings,
    present: &Present,
    label: &str,
    interface: &Interface,
    link: Option<&Link>,
) {
    if let Some(of) = interface.vlan.as_ref().and_then(|vlan| resolve(settings, present, &vlan.of)) {
        wanted.links.entry(of.index).or_insert_with(|| WantedLink { label: of.name.clone(), ..WantedLink::default() });
    }
    for name in &interface.bond {
        let Some(member) = resolve(settings, present, name) else {
            wanted.missing.insert(name.to_string(), format!("the machine has no such member for {label}"));
            continue;
        };
        let mtu = interface.mtu.or_else(|| settings.interfaces.get(name.as_str())?.mtu);
        let member_link = WantedLink {
            label: name.to_string(),
            mtu,
            controller: link.map(|bond| bond.index),
            ..WantedLink::default()
        };
        wanted.links.insert(member.index, member_link);
        wanted.dhcp.remove(&member.index);
        wanted.addresses.retain(|address| address.link != member.index);
        wanted.routes.retain(|route| route.link != member.index);
    }
}

fn millis(interface: &Interface) -> u32 {
    u32::try_from(interface.bond_monitoring_interval.get().as_millis()).unwrap_or(u32::MAX)
}
