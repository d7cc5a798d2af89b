//! `[hosts.NAME]`: a machine, how it knows itself, its roles.
//!
//! Owns: `Host`, `Match`, `HostAddress`, `MacAddress`, `Role`. Called by: loading, the supervisor, commands.
//! Overrides (`[hosts.NAME.smtp]` and the like) are merged into the host's `Tables` by `load`; they are not kept here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::mounts::Mount;
use super::network::Interface;
use crate::base::address::Domain;

/// One machine of the site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Host {
    /// How the machine recognises itself; all that is given must fit. `--host` and the kernel argument `fife.host=` come before it.
    #[serde(rename = "match", skip_serializing_if = "Match::is_empty")]
    pub match_: Match,
    /// What the machine runs. Required. (Restarts the roles that came or went.)
    pub roles: Vec<Role>,
    /// Addresses at which the other hosts reach it: names or IP addresses. (Restarts every role.)
    pub addresses: Vec<HostAddress>,
    /// Its network interfaces, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub network: BTreeMap<String, Interface>,
    /// Further disks and directories of file servers, by a name of your choice.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, Mount>,
}

/// How a machine recognises itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Match {
    /// Hardware address of one of its network interfaces. (Read at start.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// System serial number as the firmware tells it (DMI). (Read at start.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Host name as the kernel has it. (Read at start.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

impl Match {
    /// Nothing given: recognises no machine.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mac.is_none() && self.serial.is_none() && self.hostname.is_none()
    }

    /// Whether one machine could be both: something given in both is equal, and nothing given in both differs.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        fn both<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> Option<bool> {
            Some(a? == b?)
        }
        let compared = [
            both(self.mac.as_ref(), other.mac.as_ref()),
            both(self.serial.as_ref(), other.serial.as_ref()),
            both(self.hostname.as_ref(), other.hostname.as_ref()),
        ];
        compared.contains(&Some(true)) && !compared.contains(&Some(false))
    }
}

/// A name or an IP address without port, at which a host is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostAddress {
    Ip(IpAddr),
    Name(Domain),
}

impl FromStr for HostAddress {
    type Err = HostAddressError;

    fn from_str(text: &str) -> Result<Self, HostAddressError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        // Something of digits and dots only is a mistyped address, not a name (RFC 1123 section 2.1).
        if text.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Err(HostAddressError);
        }
        text.parse().map(Self::Name).map_err(|_| HostAddressError)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// Hardware address of a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Its octets, in the order in which they are written.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    /// Six bytes in hexadecimal, with colons or hyphens between.
    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let mut bytes = [0; 6];
        let mut groups = text.split([':', '-']);
        for byte in &mut bytes {
            let group = groups.next().filter(|group| group.len() == 2).ok_or(MacAddressError)?;
            *byte = group
                .bytes()
                .all(|c| c.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(group, 16).ok())
                .flatten()
                .ok_or(MacAddressError)?;
        }
        if groups.next().is_some() { Err(MacAddressError) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is neither a name nor an IP address.
#[derive(Debug, thiserror::Error)]
#[error("expected a name such as \"mail1.example.edu.cn\" or an IP address without port")]
pub struct HostAddressError;

/// The text is no hardware address.
#[derive(Debug, thiserror::Error)]
#[error("expected a hardware address such as \"52:54:00:00:00:01\"")]
pub struct MacAddressError;

macro_rules! text_type {
    ($type:ident, $expected:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &$expected))
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "description": $expected, "type": "string" })
            }
        }
    };
}

pub(super) use text_type;

text_type!(HostAddress, "a name such as \"mail1.example.edu.cn\" or an IP address without port");
text_type!(MacAddress, "a hardware address such as \"52:54:00:00:00:01\"");

/// What a host can be given to do. In the order in which roles are started: each asks only those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The directory door.
    LdapProxy,
    /// Mailboxes.
    PopImap,
    /// Receiving, submission, queue.
    Smtp,
}

impl Role {
    /// Every role, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::LdapProxy, Self::PopImap, Self::Smtp];

    /// The name in the TOML, in `fife role NAME`, in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LdapProxy => "ldap-proxy",
            Self::PopImap => "pop-imap",
            Self::Smtp => "smtp",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
