//! `[smtp-authentication]`: who really sent it, said by us and asked of others.
//!
//! Owns: `SmtpAuthentication`, `Network`. Called by: the smtp role.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::base::duration::Span;

const EXPECTED: &str = "a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", or one address";

/// Signing what users send (DKIM); checking what other servers bring (SPF, DKIM, DMARC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SmtpAuthentication {
    /// Sign users' mail with the keys of their domain, which `fife dkim` shows and changes. (Restarts smtp.)
    pub sign: bool,
    /// What is done about mail from other servers. (Restarts smtp.)
    pub dmarc: DmarcMode,
    /// What happens to mail whose sender's policy cannot be learned because DNS gives no answer. (Restarts smtp.)
    pub dns_failure: DnsFailure,
    /// How long all questions to DNS for one message may take together. (Restarts smtp.)
    #[schemars(extend("x-min" = "100ms"), extend("x-max" = "1m"))]
    pub time_max: Span,
    /// Clients whose mail is not checked: own machines, relays that have checked it. (Restarts smtp.)
    pub trusted_networks: Vec<Network>,
}

impl Default for SmtpAuthentication {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1"];
        Self {
            sign: true,
            dmarc: DmarcMode::Obey,
            dns_failure: DnsFailure::Accept,
            time_max: Span::secs(10),
            trusted_networks: loopback.iter().filter_map(|text| text.parse().ok()).collect(),
        }
    }
}

/// What is done about mail from other servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DmarcMode {
    /// Note the results in Authentication-Results; refuse mail when the policy of its author's domain says so (RFC 9989).
    Obey,
    /// Note the results, refuse nothing.
    Mark,
    /// Check nothing.
    Off,
}

/// What happens when DNS gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DnsFailure {
    /// Take the mail, and note a temporary error.
    Accept,
    /// Tell the client to come again later (451).
    Defer,
}

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it. An IPv4 address is in no IPv6 network.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_prefix(u128::from(own.to_bits()) << 96, u128::from(other.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same_prefix(own.to_bits(), other.to_bits(), self.bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    fn bits_max(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }
}

/// Whether the first bits of two numbers are the same.
fn same_prefix(a: u128, b: u128, bits: u8) -> bool {
    // A shift by all 128 bits is none that the type has: no bits count, all are the same.
    (a ^ b).checked_shr(128 - u32::from(bits)).is_none_or(|rest| rest == 0)
}

/// The text is no such network.
#[derive(Debug, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let bits_max = Self::bits_max(address);
        let bits = bits.map_or(Ok(bits_max), str::parse).map_err(|_| NetworkError)?;
        if bits > bits_max {
            return Err(NetworkError);
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == Self::bits_max(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &EXPECTED))
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": EXPECTED, "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn a_network_holds_the_addresses_that_begin_alike() {
        let check = |network: &str, address: &str, expected| {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{address} in {network}");
        };
        check("192.0.2.0/24", "192.0.2.255", true);
        check("192.0.2.0/24", "192.0.3.0", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.6", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("192.0.2.128/25", "192.0.2.127", false);
        check("2001:db8::/32", "2001:db8:ffff::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("::/0", "192.0.2.1", false);
        check("::1", "::1", true);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "example.test", "192.0.2.0/33", "::/129", "192.0.2.0/", "192.0.2.0/-1", "/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
