//! `[dns]`: who answers for the names of other servers.
//!
//! Owns: `Dns`, `DnsServer`. Called by: `net::dns`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::base::duration::Span;

/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;
const EXPECTED: &str = "a DNS server such as \"192.0.2.53\", \"192.0.2.53:5353\" or \"[2001:db8::53]:53\"";

/// Who answers for the names of other servers: MX records, addresses, keys and policies of mail domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Dns {
    /// Recursive DNS servers. None: those of /etc/resolv.conf. (Restarts smtp.)
    pub servers: Vec<DnsServer>,
    /// How long a server may take to answer one question. (Restarts smtp.)
    #[schemars(extend("x-min" = "100ms"), extend("x-max" = "1m"))]
    pub timeout: Span,
    /// How often a question is asked again that got no answer. (Restarts smtp.)
    #[schemars(range(min = 0, max = 10))]
    pub retries: u32,
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Span::secs(5), retries: 2 }
    }
}

/// A DNS server: an IP address, with port or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsServer(SocketAddr);

impl DnsServer {
    /// Where it is asked, by UDP and TCP.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

impl From<IpAddr> for DnsServer {
    fn from(ip: IpAddr) -> Self {
        Self(SocketAddr::new(ip, PORT))
    }
}

/// The text is no such address.
#[derive(Debug, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct DnsServerError;

impl FromStr for DnsServer {
    type Err = DnsServerError;

    fn from_str(text: &str) -> Result<Self, DnsServerError> {
        let ip = text.parse::<IpAddr>().map(Self::from);
        ip.or_else(|_| text.parse().map(Self)).map_err(|_| DnsServerError)
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == PORT { self.0.ip().fmt(f) } else { self.0.fmt(f) }
    }
}

impl Serialize for DnsServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DnsServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &EXPECTED))
    }
}

impl JsonSchema for DnsServer {
    fn schema_name() -> Cow<'static, str> {
        "DnsServer".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": EXPECTED, "type": "string" })
    }
}
