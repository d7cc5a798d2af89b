//! What a host's interfaces and mounts cannot be beside each other.
//!
//! Owns: faults of `[hosts.NAME.network.…]` and `[hosts.NAME.mounts.…]`. Called by: the rules. Never: looks at the machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::document::Node;
use super::super::fault::{Fault, Place};
use super::super::hosts::Host;
use super::super::mounts::{Device, FileSystem};
use super::super::network::{Interface, LinkName};
use super::super::schema::Section;
use super::{Site, pairs};

/// Members of a bond, at most: more ports than a server has.
const MEMBERS_MAX: usize = 16;

/// What is wrong, at which interface, at which of its settings.
type Wrong = (String, &'static str, String);

impl Site<'_> {
    pub(super) fn machines(&self, faults: &mut Vec<Fault>) {
        for (name, host) in self.hosts {
            // Of a host with a fault in one interface, the others are not understood.
            if !self.is_any_faulty(name, &Section::Interface) {
                let wrongs = [members, vlans, gateways, twice].into_iter().flat_map(|find| find(&host.network));
                faults.extend(wrongs.map(|(interface, key, message)| {
                    Fault::new(self.at(name, &Section::Interface, &interface, key), message)
                }));
            }
            if !self.is_any_faulty(name, &Section::Mount) {
                self.mounts(name, host, faults);
            }
        }
        for (a, b) in pairs(self.hosts.iter()) {
            let (own, other) = (ips(&a.1.network), ips(&b.1.network));
            for (interface, ip) in other.iter().filter(|(_, ip)| own.iter().any(|(_, own)| own == ip)) {
                let message = format!("hosts `{}` and `{}` have one address: {ip}", a.0, b.0);
                faults.push(Fault::new(self.at(b.0, &Section::Interface, interface, "address"), message));
            }
        }
    }

    fn is_any_faulty(&self, host: &str, section: &Section) -> bool {
        self.walk.faulty.iter().any(|(of, at, _)| of.as_deref() == Some(host) && at == section)
    }

    /// Where a setting of one of the host's named tables stands; the table itself when it does not.
    fn at(&self, host: &str, section: &Section, name: &str, key: &str) -> Place {
        let table = |node: &Node| node.get("hosts")?.get(host)?.get(section.name())?.get(name).cloned();
        let Some(table) = table(self.root) else { return self.host_place(host) };
        Place::File(table.get(key).map_or_else(|| table.key.clone(), |node| node.value.clone()))
    }

    fn mounts(&self, name: &str, host: &Host, faults: &mut Vec<Fault>) {
        let mut wrong = |mount: &str, key: &str, message: String| {
            faults.push(Fault::new(self.at(name, &Section::Mount, mount, key), message));
        };
        for (key, mount) in &host.mounts {
            match (&mount.device, mount.file_system()) {
                (None, _) => wrong(key, "device", format!("`device` is missing in mount `{key}`")),
                (Some(Device::Export { .. }), Some(type_)) if type_ != FileSystem::Nfs => {
                    wrong(key, "type", format!("mount `{key}`: a file server's directory is of type \"nfs\""));
                }
                (
                    Some(Device::Label(_) | Device::Uuid(_) | Device::PartUuid(_) | Device::Path(_)),
                    Some(FileSystem::Nfs),
                ) => {
                    wrong(key, "device", format!("mount `{key}`: \"nfs\" needs a device SERVER:/PATH"));
                }
                (Some(_), _) => {}
            }
        }
        for (a, b) in pairs(host.mounts.iter()) {
            let (first, second) = (a.1.point(a.0), b.1.point(b.0));
            if first.starts_with(&second) || second.starts_with(&first) {
                let message = format!("mounts `{}` and `{}` lie over each other: {}", a.0, b.0, second.display());
                wrong(b.0, "where", message);
            }
        }
    }
}

/// Every address that the host gives itself.
fn ips(network: &BTreeMap<String, Interface>) -> Vec<(String, IpAddr)> {
    let of = |(name, interface): (&String, &Interface)| {
        interface.address.iter().map(|address| (name.clone(), address.ip())).collect::<Vec<_>>()
    };
    network.iter().flat_map(of).collect()
}

/// The bond that the interface is a member of.
fn bond_of<'a>(network: &'a BTreeMap<String, Interface>, name: &str) -> Option<&'a String> {
    let is_of = |(_, bond): &(&String, &Interface)| bond.bond.iter().any(|member| member.as_str() == name);
    network.iter().find(is_of).map(|(bond, _)| bond)
}

fn members(network: &BTreeMap<String, Interface>) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    let mut seen: BTreeMap<&LinkName, &str> = BTreeMap::new();
    for (name, interface) in network.iter().filter(|(_, interface)| !interface.bond.is_empty()) {
        let mut wrong = |message: String| wrongs.push((name.clone(), "bond", message));
        if interface.bond.len() > MEMBERS_MAX {
            wrong(format!("bond `{name}` has more than {MEMBERS_MAX} members"));
        }
        if interface.vlan.is_some() {
            wrong(format!("`{name}` is a bond and a VLAN: give the VLAN an interface of its own"));
        }
        if interface.mac.is_some() {
            wrong(format!("`{name}` is a bond, and `mac` names a card: give `mac` to the members"));
        }
        for member in &interface.bond {
            if member.as_str() == name {
                wrong(format!("bond `{name}` is a member of itself"));
            } else if let Some(other) = seen.insert(member, name) {
                wrong(format!("`{member}` is a member of `{other}` and of `{name}`"));
            }
            let Some(own) = network.get(member.as_str()) else { continue };
            let plain = Interface { mac: own.mac, mtu: own.mtu, ..Interface::default() };
            if *own != (Interface { dhcp: own.dhcp, router_advertisements: own.router_advertisements, ..plain })
                || own.dhcp == Some(true)
                || own.router_advertisements == Some(true)
            {
                wrong(format!(
                    "`{member}` is a member of bond `{name}` and has settings of its own: only `mac` and `mtu` can be"
                ));
            }
        }
    }
    wrongs
}

fn vlans(network: &BTreeMap<String, Interface>) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    let vlans: Vec<_> =
        network.iter().filter_map(|(name, interface)| Some((name, interface, interface.vlan.as_ref()?))).collect();
    for (name, interface, vlan) in &vlans {
        let mut wrong = |message: String| wrongs.push(((*name).clone(), "vlan", message));
        let of = network.get(vlan.of.as_str());
        if vlan.of.as_str() == name.as_str() {
            wrong(format!("VLAN `{name}` is on itself"));
        } else if of.is_none() && !vlan.of.is_of_a_card() {
            wrong(format!("VLAN `{name}` is on `{}`, which the host does not have", vlan.of));
        } else if of.is_some_and(|of| of.vlan.is_some()) {
            wrong(format!("VLAN `{name}` is on another VLAN, `{}`", vlan.of));
        } else if let Some(bond) = bond_of(network, vlan.of.as_str()) {
            wrong(format!("VLAN `{name}` is on `{}`, a member of bond `{bond}`: put it on the bond", vlan.of));
        }
        if interface.mac.is_some() {
            wrong(format!("`{name}` is a VLAN, and `mac` names a card: give `mac` to `{}`", vlan.of));
        }
        if let (Some(own), Some(carrier)) = (interface.mtu, of.and_then(|of| of.mtu))
            && own > carrier
        {
            wrong(format!("VLAN `{name}` has a larger mtu than `{}`: {own}", vlan.of));
        }
    }
    for (a, b) in pairs(vlans.iter()) {
        if a.2 == b.2 {
            let message = format!("`{}` and `{}` are one VLAN: {} on `{}`", a.0, b.0, a.2.id.get(), a.2.of);
            wrongs.push((b.0.clone(), "vlan", message));
        }
    }
    wrongs
}

/// A router must be in a network of the interface; what DHCP and routers will tell is not known yet.
fn gateways(network: &BTreeMap<String, Interface>) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    let mut seen: BTreeMap<bool, &String> = BTreeMap::new();
    for (name, interface) in network {
        let reaches = |ip: IpAddr| match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => true,
            IpAddr::V6(_) if interface.hears_routers() => true,
            IpAddr::V4(_) if interface.asks_dhcp() => true,
            IpAddr::V4(_) | IpAddr::V6(_) => {
                interface.address.iter().any(|address| address.network().contains(ip) && address.ip() != ip)
            }
        };
        for gateway in interface.gateway.iter() {
            if !reaches(gateway) {
                let message = format!("gateway {gateway} of `{name}` is in none of its networks");
                wrongs.push((name.clone(), "gateway", message));
            }
            if let Some(other) = seen.insert(gateway.is_ipv6(), name) {
                let family = if gateway.is_ipv6() { "IPv6" } else { "IPv4" };
                let message = format!("`{other}` and `{name}` both have the {family} gateway to everywhere");
                wrongs.push((name.clone(), "gateway", message));
            }
        }
        for route in &interface.routes {
            let wrong = if route.to.address().is_ipv6() != route.via.is_ipv6() {
                Some(format!("route to {} of `{name}` goes by a router of the other family, {}", route.to, route.via))
            } else if route.to.is_everywhere() {
                Some(format!("a route to everywhere of `{name}`: that is its `gateway`"))
            } else if !reaches(route.via) {
                Some(format!("router {} of `{name}` is in none of its networks", route.via))
            } else {
                None
            };
            wrongs.extend(wrong.map(|message| (name.clone(), "routes", message)));
        }
    }
    wrongs
}

/// An address or a card that two interfaces claim.
fn twice(network: &BTreeMap<String, Interface>) -> Vec<Wrong> {
    let mut wrongs = Vec::new();
    for (a, b) in pairs(ips(network).into_iter()) {
        if a.1 == b.1 {
            let message = if a.0 == b.0 {
                format!("`{}` has an address twice: {}", a.0, a.1)
            } else {
                format!("`{}` and `{}` have one address: {}", a.0, b.0, a.1)
            };
            wrongs.push((b.0, "address", message));
        }
    }
    for (a, b) in pairs(network.iter()) {
        if a.1.mac.is_some() && a.1.mac == b.1.mac {
            wrongs.push((b.0.clone(), "mac", format!("`{}` and `{}` are one card", a.0, b.0)));
        }
    }
    wrongs
}
