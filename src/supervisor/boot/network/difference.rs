//! What has to be done so that what is wanted stands, and nothing else of ours.
//!
//! Owns: `Action`, `Ours`, their order. Called by: `keeper`. Never: touches what somebody else gave a link, or what
//! stands as it is wanted: a connection over an address that stays does not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::present::{Address, Kind, Link, Present, Route};
use super::wanted::{Made, Wanted, WantedLink};
use crate::config::network::Prefix;

/// One thing to ask of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Delete {
        link: u32,
        name: String,
    },
    Make {
        name: String,
        what: Made,
    },
    Down {
        link: u32,
    },
    /// Into a bond, or out of any.
    Join {
        link: u32,
        bond: Option<u32>,
    },
    Mtu {
        link: u32,
        mtu: u32,
    },
    Monitor {
        link: u32,
        millis: u32,
    },
    /// Whether the kernel listens to IPv6 routers there.
    Routers {
        link: u32,
        name: String,
        listen: bool,
    },
    Up {
        link: u32,
    },
    /// Ask the IPv6 routers, which would otherwise speak when they like.
    Solicit {
        link: u32,
    },
    AddAddress(Address),
    RemoveAddress(Address),
    AddRoute {
        route: Route,
        on_link: bool,
    },
    RemoveRoute(Route),
}

impl fmt::Display for Action {
    /// What cannot be done, when it cannot be done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete { name, .. } => write!(f, "interface {name} cannot be taken away"),
            Self::Make { name, what: Made::Bond { .. } } => write!(f, "bond {name} cannot be made"),
            Self::Make { name, what: Made::Vlan { id, .. } } => write!(f, "VLAN {name} ({id}) cannot be made"),
            Self::Down { link } => write!(f, "link {link} cannot be switched off"),
            Self::Up { link } => write!(f, "link {link} cannot be switched on"),
            Self::Join { link, .. } => write!(f, "link {link} cannot change its bond"),
            Self::Mtu { link, mtu } => write!(f, "link {link} does not take packets of {mtu} octets"),
            Self::Monitor { link, .. } => write!(f, "bond {link} cannot be watched so often"),
            Self::Routers { name, .. } => write!(f, "{name} cannot be told about IPv6 routers"),
            Self::Solicit { link } => write!(f, "IPv6 routers of link {link} cannot be asked"),
            Self::AddAddress(address) => write!(f, "address {}/{} cannot be given", address.ip, address.bits),
            Self::RemoveAddress(address) => write!(f, "address {}/{} cannot be taken away", address.ip, address.bits),
            Self::AddRoute { route, .. } => write!(f, "route to {} cannot be made", route.to),
            Self::RemoveRoute(route) => write!(f, "route to {} cannot be taken away", route.to),
        }
    }
}

/// What we have made of the machine's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ours {
    /// Links that we made, by name.
    pub(crate) made: BTreeSet<String>,
    /// Links that we switched on.
    pub(crate) up: BTreeSet<u32>,
    /// Links that we put into a bond.
    pub(crate) members: BTreeSet<u32>,
    /// Links whose mtu we set, and what it was.
    pub(crate) mtus: BTreeMap<u32, u32>,
    /// Links that were told whether to listen to routers.
    pub(crate) routers: BTreeMap<u32, bool>,
    pub(crate) addresses: BTreeSet<Address>,
    pub(crate) routes: BTreeSet<Route>,
}

impl Ours {
    /// Notes what has been done; `present` is from before.
    pub(crate) fn note(&mut self, action: &Action, present: &Present) {
        match action {
            Action::Delete { name, .. } => drop(self.made.remove(name)),
            Action::Make { name, .. } => drop(self.made.insert(name.clone())),
            Action::Down { link } => drop(self.up.remove(link)),
            Action::Join { link, bond: Some(_) } => drop(self.members.insert(*link)),
            Action::Join { link, bond: None } => drop(self.members.remove(link)),
            Action::Mtu { link, mtu } => {
                let was = present.link(*link).map_or(*mtu, |link| link.mtu);
                let first = *self.mtus.entry(*link).or_insert(was);
                if first == *mtu {
                    self.mtus.remove(link);
                }
            }
            Action::Monitor { .. } | Action::Solicit { .. } => {}
            Action::Routers { link, listen, .. } => drop(self.routers.insert(*link, *listen)),
            Action::Up { link } => drop(self.up.insert(*link)),
            Action::AddAddress(address) => drop(self.addresses.insert(*address)),
            Action::RemoveAddress(address) => drop(self.addresses.remove(address)),
            Action::AddRoute { route, .. } => drop(self.routes.insert(*route)),
            Action::RemoveRoute(route) => drop(self.routes.remove(route)),
        }
    }

    /// Forgets what is gone.
    pub(crate) fn prune(&mut self, present: &Present) {
        let stands = |index: &u32| present.link(*index).is_some();
        self.made.retain(|name| present.named(name).is_some());
        self.up.retain(stands);
        self.members.retain(stands);
        self.mtus.retain(|index, _| stands(index));
        self.routers.retain(|index, _| stands(index));
        self.addresses.retain(|address| present.addresses.contains(address));
        self.routes.retain(|route| present.routes.contains(route));
    }
}

/// What has to be done next, in this order. Links first: while one has to be made or deleted, nothing else is said,
/// for what depends on it is known only afterwards.
/// What was refused is not asked again.
pub(crate) fn difference(ours: &Ours, wanted: &Wanted, present: &Present, refused: &[&Action]) -> Vec<Action> {
    let mut actions = links_made(ours, wanted, present);
    actions.retain(|action| !refused.contains(&action));
    if !actions.is_empty() {
        return actions;
    }
    for link in &present.links {
        match wanted.links.get(&link.index) {
            Some(wanted) => properties(&mut actions, ours, wanted, link),
            None => release(&mut actions, ours, link),
        }
    }
    addresses(&mut actions, ours, wanted, present);
    routes(&mut actions, ours, wanted, present);
    actions.retain(|action| !refused.contains(&action));
    actions
}

fn links_made(ours: &Ours, wanted: &Wanted, present: &Present) -> Vec<Action> {
    let delete = |link: &Link| Action::Delete { link: link.index, name: link.name.clone() };
    let is_made = |link: &&Link| matches!(link.kind, Kind::Bond { .. } | Kind::Vlan { .. });
    let gone = ours.made.iter().filter(|name| !wanted.kept.contains(*name)).filter_map(|name| present.named(name));
    let otherwise = wanted.made.keys().filter_map(|name| present.named(name)).filter(is_made);
    let mut deleted: Vec<&Link> = gone.chain(otherwise).collect();
    // What is carried before what carries it.
    deleted.sort_by_key(|link| !matches!(link.kind, Kind::Vlan { .. }));
    let make = |(name, what): (&String, &Made)| Action::Make { name: name.clone(), what: what.clone() };
    let free = wanted.made.iter().filter(|(name, _)| present.named(name).is_none_or(|link| is_made(&link)));
    deleted.into_iter().map(delete).chain(free.map(make)).collect()
}

fn properties(actions: &mut Vec<Action>, ours: &Ours, wanted: &WantedLink, link: &Link) {
    let index = link.index;
    if let Some(mtu) = wanted.mtu.or_else(|| ours.mtus.get(&index).copied()).filter(|mtu| *mtu != link.mtu) {
        actions.push(Action::Mtu { link: index, mtu });
    }
    let is_up = link.up && ours.up.contains(&index);
    if link.kind != Kind::Loopback && ours.routers.get(&index) != Some(&wanted.routers) {
        actions.push(Action::Routers { link: index, name: link.name.clone(), listen: wanted.routers });
        if wanted.routers && is_up {
            actions.push(Action::Solicit { link: index });
        }
    }
    if let (Some(wanted_ms), Kind::Bond { monitoring_ms, .. }) = (wanted.monitoring_ms, link.kind)
        && wanted_ms != monitoring_ms
    {
        actions.push(Action::Monitor { link: index, millis: wanted_ms });
    }
    let mut is_down = !link.up;
    if wanted.controller != link.controller && (wanted.controller.is_some() || ours.members.contains(&index)) {
        // A bond takes only what is switched off, and switches it on itself.
        if wanted.controller.is_some() && link.up {
            actions.push(Action::Down { link: index });
        }
        actions.push(Action::Join { link: index, bond: wanted.controller });
        is_down = true;
    }
    if is_down || !ours.up.contains(&index) {
        actions.push(Action::Up { link: index });
    }
}

/// A link that no table means any more.
fn release(actions: &mut Vec<Action>, ours: &Ours, link: &Link) {
    if ours.members.contains(&link.index) && link.controller.is_some() {
        actions.push(Action::Join { link: link.index, bond: None });
    }
    if let Some(mtu) = ours.mtus.get(&link.index) {
        actions.push(Action::Mtu { link: link.index, mtu: *mtu });
    }
    if ours.up.contains(&link.index) && link.up {
        actions.push(Action::Down { link: link.index });
    }
}

fn addresses(actions: &mut Vec<Action>, ours: &Ours, wanted: &Wanted, present: &Present) {
    let missing = wanted.addresses.difference(&present.addresses);
    let old = ours.addresses.iter().filter(|address| present.addresses.contains(address));
    let mut removed: Vec<&Address> = old.filter(|address| !wanted.addresses.contains(address)).collect();
    // What the kernel made of advertisements goes when they are no longer listened to.
    let deaf = |link: &u32| wanted.links.get(link).is_some_and(|link| !link.routers);
    removed.extend(present.advertised.iter().filter(|address| deaf(&address.link)));
    // IPv6 does not take an address twice, with another prefix: there the old one has to go first.
    let (first, last): (Vec<&Address>, Vec<&Address>) = removed.into_iter().partition(|old| {
        old.ip.is_ipv6() && wanted.addresses.iter().any(|new| new.link == old.link && new.ip == old.ip)
    });
    actions.extend(first.into_iter().map(|address| Action::RemoveAddress(*address)));
    actions.extend(missing.map(|address| Action::AddAddress(*address)));
    actions.extend(last.into_iter().map(|address| Action::RemoveAddress(*address)));
}

fn routes(actions: &mut Vec<Action>, ours: &Ours, wanted: &Wanted, present: &Present) {
    let is_near = |link: u32, via: IpAddr| {
        let of_link = wanted.addresses.iter().filter(|address| address.link == link);
        let mut nets = of_link.filter_map(|address| Prefix::around(address.ip, address.bits));
        nets.any(|net| net.contains(via)) || matches!(via, IpAddr::V6(v6) if v6.is_unicast_link_local())
    };
    // Routes without a router come first: others may need them.
    let mut missing: Vec<&Route> = wanted.routes.difference(&present.routes).collect();
    missing.sort_by_key(|route| route.via.is_some());
    actions.extend(missing.into_iter().map(|route| {
        // The kernel refuses a router that it has no way to, unless it is told that it is on the link.
        let on_link = route.via.is_some_and(|via| !is_near(route.link, via));
        Action::AddRoute { route: *route, on_link }
    }));
    let old = ours.routes.iter().filter(|route| !wanted.routes.contains(route) && present.routes.contains(route));
    let deaf = |link: &u32| wanted.links.get(link).is_some_and(|link| !link.routers);
    let advertised = present.advertised_routes.iter().filter(|route| deaf(&route.link));
    actions.extend(old.chain(advertised).map(|route| Action::RemoveRoute(*route)));
}
