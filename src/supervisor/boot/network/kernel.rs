//! The kernel's side: reading what stands, doing one thing after the other, hearing of changes.
//!
//! Owns: the netlink connection, `/proc/sys/net` of a link. Called by: `keeper`. Never: decides what is to be done.
//! Spec: rtnetlink(7); the kernel's Documentation/networking/{bonding,ip-sysctl}.rst.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::pin::Pin;

use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    BondMode as KernelBondMode, InfoBond, InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{AddressMessageBuilder, Handle, LinkBond, LinkUnspec, LinkVlan, MulticastGroup, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::difference::Action;
use super::present::{Address, Kind, Link, Present, Route};
use super::routers;
use super::wanted::Made;
use crate::config::hosts::MacAddress;
use crate::config::network::{BondMode, Prefix};

/// What is heard of.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Loads a module of the kernel by name; what it needs and may lack shows when the thing itself is tried.
pub type LoadModule = fn(&str);

/// A connection to the kernel.
pub(crate) struct Kernel {
    handle: Handle,
    changes: Changes,
    connection: JoinHandle<()>,
    load_module: LoadModule,
}

type Changes = Pin<Box<dyn Stream<Item = ()> + Send + Sync>>;

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kernel {
    /// Connects to the kernel, in the network namespace of this thread.
    ///
    /// # Errors
    /// The system denies the socket.
    pub(crate) fn connect(load_module: LoadModule) -> io::Result<Self> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
        let connection = tokio::spawn(connection);
        // Deleting an address must not take with it the others of its network.
        write_sysctl("ipv4/conf/all/promote_secondaries", "1").ok();
        Ok(Self { handle, changes: Box::pin(messages.map(|_| ())), connection, load_module })
    }

    /// Waits until the kernel says that something has changed; what exactly is read anew.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        self.changes.next().await.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Takes what was said meanwhile.
    pub(crate) fn drain(&mut self) {
        while let Some(Some(())) = self.changes.next().now_or_never() {}
    }

    /// What stands.
    ///
    /// # Errors
    /// The kernel does not answer as it should.
    pub(crate) async fn read(&self) -> io::Result<Present> {
        let mut present = Present::default();
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.map_err(to_io)?;
        present.links = links.iter().map(link).collect();
        present.links.sort_by_key(|link| link.index);
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(to_io)?;
        for message in &addresses {
            take_address(&mut present, message);
        }
        for request in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let routes: Vec<RouteMessage> =
                self.handle.route().get(request).execute().try_collect().await.map_err(to_io)?;
            for message in &routes {
                take_route(&mut present, message);
            }
        }
        Ok(present)
    }

    /// Does it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) async fn act(&self, action: &Action) -> io::Result<()> {
        let index = LinkUnspec::new_with_index;
        match action {
            Action::Delete { link, .. } => gone_is_good(self.handle.link().del(*link).execute().await),
            Action::Make { name, what } => self.make(name, what).await,
            Action::Down { link } => self.change(index(*link).down().build()).await,
            Action::Up { link } => self.change(index(*link).up().build()).await,
            Action::Mtu { link, mtu } => self.change(index(*link).mtu(*mtu).build()).await,
            Action::Join { link, bond } => self.change(index(*link).controller(bond.unwrap_or(0)).build()).await,
            Action::Monitor { link, millis } => {
                let bond = rtnetlink::LinkMessageBuilder::<LinkBond>::new_with_info_kind(InfoKind::Bond);
                self.change(bond.index(*link).miimon(*millis).build()).await
            }
            Action::Routers { name, listen, .. } => set_routers(name, *listen),
            Action::Solicit { link } => routers::solicit(*link),
            Action::AddAddress(address) => {
                let request = self.handle.address().add(address.link, address.ip, address.bits);
                match request.execute().await.map_err(to_io) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    outcome => outcome,
                }
            }
            Action::RemoveAddress(address) => {
                let message = match address.ip {
                    IpAddr::V4(ip) => {
                        AddressMessageBuilder::<Ipv4Addr>::new().index(address.link).address(ip, address.bits).build()
                    }
                    IpAddr::V6(ip) => {
                        AddressMessageBuilder::<Ipv6Addr>::new().index(address.link).address(ip, address.bits).build()
                    }
                };
                gone_is_good(self.handle.address().del(message).execute().await)
            }
            Action::AddRoute { route, on_link } => {
                let message = route_message(route, *on_link)?;
                self.handle.route().add(message).replace().execute().await.map_err(to_io)
            }
            Action::RemoveRoute(route) => {
                let mut message = route_message(route, false)?;
                // Whoever made it.
                message.header.protocol = RouteProtocol::Unspec;
                gone_is_good(self.handle.route().del(message).execute().await)
            }
        }
    }

    async fn change(&self, message: LinkMessage) -> io::Result<()> {
        self.handle.link().change(message).execute().await.map_err(to_io)
    }

    async fn make(&self, name: &str, what: &Made) -> io::Result<()> {
        let message = match what {
            Made::Bond { mode, monitoring_ms } => {
                (self.load_module)("bonding");
                LinkBond::new(name).mode(to_kernel(*mode)).miimon(*monitoring_ms).build()
            }
            Made::Vlan { of, id } => {
                (self.load_module)("8021q");
                LinkVlan::new(name, *of, *id).build()
            }
        };
        self.handle.link().add(message).execute().await.map_err(to_io)
    }
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error { message.to_io() } else { io::Error::other(error) }
}

/// What is to be removed may have gone by itself, with something else.
fn gone_is_good(outcome: Result<(), rtnetlink::Error>) -> io::Result<()> {
    match outcome.map_err(to_io) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENOENT)
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

const fn to_kernel(mode: BondMode) -> KernelBondMode {
    match mode {
        BondMode::ActiveBackup => KernelBondMode::ActiveBackup,
        BondMode::Lacp => KernelBondMode::Ieee8023Ad,
    }
}

fn route_message(route: &Route, on_link: bool) -> io::Result<RouteMessage> {
    let is_v6 = route.to.address().is_ipv6();
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.to.address(), route.to.bits())
        .map_err(io::Error::other)?
        .output_interface(route.link);
    if let Some(via) = route.via {
        builder = builder.gateway(via).map_err(io::Error::other)?;
    } else if !is_v6 {
        builder = builder.scope(netlink_packet_route::route::RouteScope::Link);
    }
    if on_link {
        builder = builder.onlink();
    }
    if route.metric != 0 {
        builder = builder.priority(route.metric);
    }
    Ok(builder.build())
}

/// IPv6 without the kernel's help is not there; whoever has none of it wants none.
fn set_routers(name: &str, listen: bool) -> io::Result<()> {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    let value = if listen { "1" } else { "0" };
    write_sysctl(&format!("ipv6/conf/{name}/accept_ra"), value)?;
    write_sysctl(&format!("ipv6/conf/{name}/autoconf"), value)
}

fn write_sysctl(path: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys/net").join(path), value)
}

fn mac(octets: &[u8]) -> Option<MacAddress> {
    <[u8; 6]>::try_from(octets).ok().filter(|octets| octets.iter().any(|octet| *octet != 0)).map(MacAddress::from)
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        own_mac: None,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        kind: if flags.contains(LinkFlags::Loopback) { Kind::Loopback } else { Kind::Other },
        controller: None,
        mtu: 0,
    };
    let (mut permanent, mut of, mut info) = (None, None, None);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel tells much more of a link than is asked")]
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(octets) => link.mac = mac(octets),
            LinkAttribute::PermAddress(octets) => permanent = mac(octets),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.controller = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Link(index) => of = Some(*index),
            LinkAttribute::LinkInfo(list) => info = Some(list),
            _ => {}
        }
    }
    link.own_mac = permanent.or(link.mac);
    if is_ethernet && link.kind == Kind::Other {
        link.kind = kind(info.map_or(&[], Vec::as_slice), of);
    }
    link
}

/// A card is Ethernet that the kernel did not make up; one end of a veth pair is as good as a card (containers).
fn kind(info: &[LinkInfo], of: Option<u32>) -> Kind {
    let name = info.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
    let data = info.iter().find_map(|info| if let LinkInfo::Data(data) = info { Some(data) } else { None });
    match (name, data) {
        (None | Some(InfoKind::Veth), _) => Kind::Card,
        (Some(InfoKind::Bond), Some(InfoData::Bond(data))) => {
            let mut mode = None;
            let mut monitoring_ms = 0;
            for one in data {
                if let InfoBond::Mode(own) = one {
                    mode = [BondMode::ActiveBackup, BondMode::Lacp].into_iter().find(|mode| to_kernel(*mode) == *own);
                } else if let InfoBond::MiiMon(millis) = one {
                    monitoring_ms = *millis;
                }
            }
            Kind::Bond { mode, monitoring_ms }
        }
        (Some(InfoKind::Vlan), Some(InfoData::Vlan(data))) => {
            let id = data.iter().find_map(|one| if let InfoVlan::Id(id) = one { Some(*id) } else { None });
            id.zip(of).map_or(Kind::Other, |(id, of)| Kind::Vlan { of, id })
        }
        (Some(_), _) => Kind::Other,
    }
}

fn take_address(present: &mut Present, message: &AddressMessage) {
    let (mut local, mut peer) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            local = Some(*ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            peer = Some(*ip);
        } else if let AddressAttribute::Flags(all) = attribute {
            flags = *all;
        }
    }
    let Some(ip) = local.or(peer) else { return };
    let address = Address { link: message.header.index, ip, bits: message.header.prefix_len };
    if flags.contains(AddressFlags::Dadfailed) {
        present.doubled.insert(address);
    } else if flags.contains(AddressFlags::Tentative) {
        present.tentative.insert(address);
    }
    let is_global = message.header.scope == AddressScope::Universe;
    if ip.is_ipv6() && is_global && !flags.contains(AddressFlags::Permanent) {
        present.advertised.insert(address);
    } else {
        present.addresses.insert(address);
    }
}

fn take_route(present: &mut Present, message: &RouteMessage) {
    let header = &message.header;
    let is_ours = header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast;
    if !is_ours || header.protocol == RouteProtocol::Kernel {
        return;
    }
    let is_v6 = header.address_family == AddressFamily::Inet6;
    let (mut to, mut via, mut link, mut metric) = (Prefix::everywhere(is_v6).address(), None, None, 0);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel tells much more of a route than is asked")]
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address).unwrap_or(to),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let (Some(link), Some(to)) = (link, Prefix::around(to, header.destination_prefix_length)) else { return };
    let route = Route { link, to, via, metric };
    if header.protocol == RouteProtocol::Ra {
        present.advertised_routes.insert(route);
    } else {
        present.routes.insert(route);
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(ip) = address {
        Some(IpAddr::V4(*ip))
    } else if let RouteAddress::Inet6(ip) = address {
        Some(IpAddr::V6(*ip))
    } else {
        None
    }
}
