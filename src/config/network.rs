//! `[hosts.NAME.network.INTERFACE]`: how a host that boots fife itself is joined to the network.
//!
//! Owns: `Interface` and what it is made of. Called by: loading, `supervisor::boot::network`.
//! Never: looks at the machine. What is wrong with one interface beside another is found by `rules`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hosts::{MacAddress, text_type};
use crate::base::duration::Span;

/// Octets of a link's name, at most: IFNAMSIZ without the final NUL (netdevice(7)).
const LINK_NAME_LEN_MAX: usize = 15;
/// VLAN ids that can be used: 0 and 4095 are reserved (IEEE 802.1Q).
const VLAN_IDS: std::ops::RangeInclusive<u16> = 1..=4094;
const VLAN_ID: &str = "a VLAN id from 1 to 4094";
const GATEWAY: &str = "the address of a router such as \"192.0.2.1\", or a list of two: one of IPv4 and one of IPv6";

/// INTERFACE is the kernel's name (eth0, eth1, … in the order in which the cards were found) when nothing else is said; any name of your choice with `mac`, which is safer with more than one card; the name that a `bond` or `vlan` is to get. A host without any such table asks by DHCP, and listens to IPv6 routers, on each card with a cable in it. Only where fife runs the machine (the disk image); elsewhere the system sets up its network itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Interface {
    /// Hardware address of the card that is meant, whatever the kernel calls it. (Restarts nothing.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Its addresses, each with the length of the network's prefix: `address = ["192.0.2.11/24", "2001:db8::11/64"]`. An address that stays is not touched when others change. (Restarts nothing.)
    pub address: Vec<InterfaceAddress>,
    /// The router to everywhere else: one address, or one of IPv4 and one of IPv6. (Restarts nothing.)
    #[serde(skip_serializing_if = "Gateways::is_empty")]
    #[schemars(extend("x-example" = "192.0.2.1"))]
    pub gateway: Gateways,
    /// Whether to ask for an address by DHCP (IPv4). Not set: when no `address` is given. (Restarts nothing.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Whether to take addresses and router from IPv6 router advertisements (SLAAC). Not set: when no `address` is given. (Restarts nothing.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_advertisements: Option<bool>,
    /// Octets of a packet, at most. Not set: what the card has. (Restarts nothing.)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 9216))]
    pub mtu: Option<u32>,
    /// Makes this interface of others, which get no addresses of their own: `bond = ["eth0", "eth1"]`. (Restarts nothing.)
    pub bond: Vec<LinkName>,
    /// How the members of a `bond` share the work. A change takes the bond down for a moment. (Restarts nothing.)
    pub bond_mode: BondMode,
    /// How often the cables of a bond's members are looked at. (Restarts nothing.)
    #[schemars(extend("x-min" = "10ms"), extend("x-max" = "10s"))]
    pub bond_monitoring_interval: Span,
    /// Makes this interface a VLAN on another one: `vlan = { of = "bond0", id = 10 }`. (Restarts nothing.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// Networks behind other routers than `gateway`: `routes = [{ to = "10.0.0.0/8", via = "192.0.2.254" }]`. (Restarts nothing.)
    pub routes: Vec<StaticRoute>,
}

impl Default for Interface {
    fn default() -> Self {
        Self {
            mac: None,
            address: Vec::new(),
            gateway: Gateways::default(),
            dhcp: None,
            router_advertisements: None,
            mtu: None,
            bond: Vec::new(),
            bond_mode: BondMode::ActiveBackup,
            bond_monitoring_interval: Span::millis(100),
            vlan: None,
            routes: Vec::new(),
        }
    }
}

impl Interface {
    /// Whether it asks by DHCP, if it is no bond's member.
    #[must_use]
    pub fn asks_dhcp(&self) -> bool {
        self.dhcp.unwrap_or(self.address.is_empty())
    }

    /// Whether it takes what IPv6 routers advertise, if it is no bond's member.
    #[must_use]
    pub fn hears_routers(&self) -> bool {
        self.router_advertisements.unwrap_or(self.address.is_empty())
    }
}

/// How the members of a bond share the work (the kernel's `bonding` modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BondMode {
    /// One works, another takes over when its cable fails. Asks nothing of the switch.
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// All work (LACP). The switch must be set up for it.
    #[serde(rename = "802.3ad")]
    Lacp,
}

/// A VLAN on another interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vlan {
    /// The interface that carries it.
    pub of: LinkName,
    /// Its number, from 1 to 4094.
    pub id: VlanId,
}

/// A network behind a router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StaticRoute {
    /// The network.
    pub to: Prefix,
    /// The router, in a network of this interface.
    pub via: IpAddr,
}

/// A network: its first address and the length of its prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Everywhere: the default route of IPv4 or IPv6.
    #[must_use]
    pub const fn everywhere(v6: bool) -> Self {
        let address = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        Self { address, len: 0 }
    }

    /// The network of this length that holds the address; `None` for a length that its family does not have.
    #[must_use]
    pub fn around(address: IpAddr, len: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { address, len })
    }

    /// Its first address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Bits of the prefix.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.len
    }

    /// Whether it is everywhere.
    #[must_use]
    pub const fn is_everywhere(self) -> bool {
        self.len == 0
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        Self::around(address, self.len) == Some(self)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = split_prefix(text).ok_or(PrefixError)?;
        // Set bits behind the prefix: an address was meant, or another length.
        Self::around(address, len).filter(|prefix| prefix.address == address).ok_or(PrefixError)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// The text is no network.
#[derive(Debug, thiserror::Error)]
#[error("expected a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"")]
pub struct PrefixError;

text_type!(Prefix, "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", no bits set behind the prefix");

/// An address of an interface, with the length of its network's prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceAddress {
    ip: IpAddr,
    len: u8,
}

impl InterfaceAddress {
    /// The address; `None` when no interface can have it.
    #[must_use]
    pub fn new(ip: IpAddr, len: u8) -> Option<Self> {
        let net = Prefix::around(ip, len).filter(|_| len > 0)?;
        let is_of_a_host = match ip {
            IpAddr::V4(v4) => {
                let last = u32::from(v4) | u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                // RFC 3021: networks of two addresses have neither a name nor a broadcast address.
                let is_special = len < 31 && (net.address == ip || u32::from(v4) == last);
                !is_special && !v4.is_broadcast() && v4.octets().first().is_some_and(|first| *first != 0)
            }
            IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none(),
        };
        (is_of_a_host && !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified()).then_some(Self { ip, len })
    }

    /// Without the prefix.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.ip
    }

    /// Bits of the prefix.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.len
    }

    /// The network that it is in.
    #[must_use]
    pub fn network(self) -> Prefix {
        Prefix::around(self.ip, self.len).unwrap_or(Prefix { address: self.ip, len: self.len })
    }
}

impl FromStr for InterfaceAddress {
    type Err = InterfaceAddressError;

    fn from_str(text: &str) -> Result<Self, InterfaceAddressError> {
        let (ip, len) = split_prefix(text).ok_or(InterfaceAddressError)?;
        Self::new(ip, len).ok_or(InterfaceAddressError)
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

/// The text is no address of an interface.
#[derive(Debug, thiserror::Error)]
#[error("expected an address with the length of its network's prefix, such as \"192.0.2.11/24\"")]
pub struct InterfaceAddressError;

text_type!(
    InterfaceAddress,
    "an address of a host with the length of its network's prefix, such as \"192.0.2.11/24\" or \"2001:db8::11/64\""
);

/// `ADDRESS/LENGTH`; the length is not compared with the family.
fn split_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, len) = text.split_once('/')?;
    let is_plain = !len.is_empty() && len.len() <= 3 && len.bytes().all(|octet| octet.is_ascii_digit());
    Some((ip.parse().ok()?, is_plain.then(|| len.parse().ok()).flatten()?))
}

/// The name of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName(String);

impl LinkName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the kernel gives such names to Ethernet cards itself.
    #[must_use]
    pub fn is_of_a_card(&self) -> bool {
        self.0.strip_prefix("eth").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_digit()))
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;

    /// Letters, digits, and `-`, `_`, `.` inside: what the kernel and `/proc/sys/net` both take.
    fn from_str(text: &str) -> Result<Self, LinkNameError> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = (1..=LINK_NAME_LEN_MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(inner)
            && !matches!(text, "lo" | "all" | "default");
        if is_name { Ok(Self(text.to_owned())) } else { Err(LinkNameError) }
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no name for an interface.
#[derive(Debug, thiserror::Error)]
#[error("expected {LINK_NAME}")]
pub struct LinkNameError;

/// What a name of an interface looks like.
pub const LINK_NAME: &str =
    "the name of an interface such as \"eth0\": letters, digits, hyphens, underscores and dots, at most 15";

text_type!(LinkName, LINK_NAME);

/// The number of a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct VlanId(u16);

impl VlanId {
    /// The number; `None` for one that is reserved or too large.
    #[must_use]
    pub fn new(id: u16) -> Option<Self> {
        VLAN_IDS.contains(&id).then_some(Self(id))
    }

    /// The number, from 1 to 4094.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl<'de> Deserialize<'de> for VlanId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let id = u16::try_from(number).ok().and_then(Self::new);
        id.ok_or_else(|| de::Error::invalid_value(de::Unexpected::Signed(number), &VLAN_ID))
    }
}

impl JsonSchema for VlanId {
    fn schema_name() -> Cow<'static, str> {
        "VlanId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": VLAN_ID, "type": "integer", "minimum": 1, "maximum": 4094 })
    }
}

/// Routers to everywhere else: at most one a family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Gateways(Vec<IpAddr>);

impl Gateways {
    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().copied()
    }
}

impl<'de> Deserialize<'de> for Gateways {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(IpAddr),
            Several(Vec<IpAddr>),
        }
        let wrong = || de::Error::custom(format!("expected {GATEWAY}"));
        let list = match Written::deserialize(deserializer).map_err(|_| wrong())? {
            Written::One(one) => vec![one],
            Written::Several(list) => list,
        };
        let of = |v6: bool| list.iter().filter(|ip| ip.is_ipv6() == v6).count();
        let is_router = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
        if of(false) > 1 || of(true) > 1 || !list.iter().all(is_router) { Err(wrong()) } else { Ok(Self(list)) }
    }
}

impl JsonSchema for Gateways {
    fn schema_name() -> Cow<'static, str> {
        "Gateways".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = serde_json::json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] });
        let list = serde_json::json!({ "type": "array", "items": one, "maxItems": 2 });
        json_schema!({ "description": GATEWAY, "anyOf": [one, list] })
    }
}
