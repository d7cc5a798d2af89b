//! What stands of the network, to be shown.
//!
//! Owns: `Report`, the words of it. Called by: `keeper` (fills it), the console, the status, `boot::clock` (time servers).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub interfaces: Vec<InterfaceReport>,
    /// Routers to everywhere.
    pub gateways: Vec<IpAddr>,
    /// Who answers for names.
    pub dns: Vec<IpAddr>,
    /// Who tells the time, as DHCP names them.
    pub time_servers: Vec<IpAddr>,
    /// What could not be done, or what is not there, in words.
    pub faults: Vec<String>,
    /// Every interface with a carrier has what it is to have, and one has a carrier.
    pub settled: bool,
}

/// An interface at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name in the TOML; the kernel's where it has none.
    pub name: String,
    /// What the kernel calls it.
    pub link: String,
    pub mac: Option<String>,
    /// There is a cable in it with somebody at the other end.
    pub carrier: bool,
    /// Each with the length of its network's prefix; IPv6 link-local ones are left out.
    pub addresses: Vec<String>,
    pub mtu: u32,
    pub dhcp: DhcpReport,
    /// The bond that it is a member of.
    pub bond: Option<String>,
}

/// How it stands with DHCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum DhcpReport {
    /// Not asked.
    Off,
    /// There is nobody to ask.
    NoCarrier,
    /// No server has answered yet.
    Asking,
    /// A server has given an address.
    Leased { server: IpAddr },
}

impl fmt::Display for InterfaceReport {
    /// One line for a console.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if self.link != self.name {
            write!(f, " ({})", self.link)?;
        }
        write!(f, ": {}", if self.carrier { "up" } else { "no cable" })?;
        if let Some(bond) = &self.bond {
            return write!(f, ", member of {bond}");
        }
        if !self.addresses.is_empty() {
            write!(f, ", {}", self.addresses.join(" "))?;
        }
        match &self.dhcp {
            DhcpReport::Off | DhcpReport::NoCarrier => Ok(()),
            DhcpReport::Asking => f.write_str(", no DHCP server answers"),
            DhcpReport::Leased { server } => write!(f, " by DHCP from {server}"),
        }
    }
}

impl Report {
    /// Every usable address of the host, without prefix.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let all = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        all.filter_map(|address| address.split('/').next()?.parse().ok()).collect()
    }
}
