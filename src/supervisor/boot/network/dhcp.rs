//! Asking by DHCP on one link, for as long as it has a carrier.
//!
//! Owns: `Lease` (what we believe of an answer), the task that asks. Called by: `keeper`. Never: gives the link its address;
//! gives up: a server that says nothing is asked again, ever less often (RFC 2131 section 4.1).
//! Spec: RFC 2131, RFC 2132, RFC 3442 (mozim does the protocol). What an answer holds is checked here: it comes from anybody.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::super::names;
use crate::config::hosts::MacAddress;
use crate::config::network::{InterfaceAddress, Prefix};

/// Servers of each kind that are taken from an answer, at most.
const SERVERS_MAX: usize = 6;
/// Routes that are taken from an answer, at most.
const ROUTES_MAX: usize = 32;
/// A lease time that never ends (RFC 2131 section 3.3).
const FOREVER_SECS: u32 = u32::MAX;
/// Wait after the client itself failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(5);

/// What a server has given, as far as it can be believed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lease {
    pub(crate) address: InterfaceAddress,
    /// Everywhere and elsewhere: the network, and the router to it (none: on the link itself).
    pub(crate) routes: Vec<(Prefix, Option<Ipv4Addr>)>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) time_servers: Vec<IpAddr>,
    pub(crate) host_name: Option<String>,
    /// Who gave it.
    pub(crate) server: Ipv4Addr,
    /// How long it holds; none: for ever.
    pub(crate) holds: Option<Duration>,
}

impl Lease {
    /// Reads an answer; `None` when no host can have such an address.
    pub(crate) fn read(answer: &DhcpV4Lease) -> Option<Self> {
        let mask = u32::from(answer.subnet_mask);
        // A mask has its ones in front; without one, the network is that of the address's class (RFC 950).
        let bits = match (mask.leading_ones(), mask.count_ones()) {
            (0, 0) => class_bits(answer.yiaddr),
            (leading, all) if leading == all => all,
            _ => return None,
        };
        let address = InterfaceAddress::new(IpAddr::V4(answer.yiaddr), u8::try_from(bits).ok()?)?;
        let servers = |list: &Option<Vec<Ipv4Addr>>| {
            let good = list.iter().flatten().filter(|ip| is_host(**ip)).map(|ip| IpAddr::V4(*ip));
            let mut seen = BTreeSet::new();
            good.filter(|ip| seen.insert(*ip)).take(SERVERS_MAX).collect::<Vec<IpAddr>>()
        };
        Some(Self {
            address,
            routes: routes(answer),
            dns: servers(&answer.dns_srvs),
            time_servers: servers(&answer.ntp_srvs),
            host_name: answer.host_name.as_deref().and_then(names::host_name),
            server: answer.srv_id,
            holds: (answer.lease_time_sec != FOREVER_SECS).then(|| Duration::from_secs(answer.lease_time_sec.into())),
        })
    }
}

/// RFC 3442: where there are classless routes, the router option is not looked at.
fn routes(answer: &DhcpV4Lease) -> Vec<(Prefix, Option<Ipv4Addr>)> {
    let everywhere = |via: &Ipv4Addr| (Prefix::everywhere(false), Some(*via));
    let Some(classless) = &answer.classless_routes else {
        let router = answer.gateways.iter().flatten().find(|ip| is_host(**ip));
        return router.map(everywhere).into_iter().collect();
    };
    let route = |route: &mozim::DhcpV4ClasslessRoute| {
        let to = Prefix::around(IpAddr::V4(route.destination), route.prefix_length)?;
        // 0.0.0.0: the network is on the link itself.
        let via = (!route.router.is_unspecified()).then_some(route.router);
        let is_good = via.is_none_or(is_host) && !(to.is_everywhere() && via.is_none());
        let is_elsewhere = !to.address().is_loopback() && !to.address().is_multicast();
        (is_good && is_elsewhere).then_some((to, via))
    };
    classless.iter().filter_map(route).take(ROUTES_MAX).collect()
}

fn is_host(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !ip.is_broadcast()
}

fn class_bits(ip: Ipv4Addr) -> u32 {
    match ip.octets().first() {
        Some(0..=127) => 8,
        Some(128..=191) => 16,
        _ => 24,
    }
}

/// What the task on a link has heard.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) link: u32,
    pub(crate) lease: Lease,
    /// To be shown to the next task, which asks for it to be confirmed (RFC 2131 section 4.4.2).
    pub(crate) answer: Box<DhcpV4Lease>,
}

/// The task that asks on a link; it ends with this.
#[derive(Debug)]
pub(crate) struct Asking {
    /// With which address of the card.
    pub(crate) mac: MacAddress,
    task: JoinHandle<()>,
}

impl Asking {
    /// Whether the task still runs. One that panicked (over an answer that mozim does not survive) has to be started anew.
    pub(crate) fn runs(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// On which link, in whose name, and what was known before.
pub(crate) struct Asker {
    pub(crate) link: u32,
    pub(crate) name: String,
    pub(crate) mac: MacAddress,
    pub(crate) host: Option<String>,
    pub(crate) before: Option<DhcpV4Lease>,
}

impl Asker {
    /// Begins to ask. Every lease is told, a renewed one too.
    pub(crate) fn begin(self, heard: mpsc::Sender<Heard>) -> Asking {
        let mac = self.mac;
        Asking { mac, task: tokio::spawn(self.ask(heard)) }
    }

    async fn ask(mut self, heard: mpsc::Sender<Heard>) {
        loop {
            if let Err(error) = self.ask_until_error(&heard).await {
                info!(interface = self.name, %error, "DHCP failed and is tried again");
            }
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }

    async fn ask_until_error(&mut self, heard: &mpsc::Sender<Heard>) -> Result<(), mozim::DhcpError> {
        let mut config = DhcpV4Config::new(&self.name);
        config.set_iface_index(self.link);
        config.set_iface_mac_raw(&self.mac.octets())?;
        if let Some(host) = &self.host {
            config.set_host_name(host);
        }
        let mut client = DhcpV4Client::init(config, self.before.take()).await?;
        loop {
            let DhcpV4State::Done(answer) = client.run().await? else { continue };
            match Lease::read(&answer) {
                Some(lease) => {
                    self.before = Some((*answer).clone());
                    // Closed: whoever asked has ended.
                    if heard.send(Heard { link: self.link, lease, answer }).await.is_err() {
                        return Ok(());
                    }
                }
                None => {
                    warn!(interface = self.name, address = %answer.yiaddr, mask = %answer.subnet_mask, server = %answer.srv_id,
                        "a DHCP server offers an address that no host can have");
                    client.clean_up();
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }
}
