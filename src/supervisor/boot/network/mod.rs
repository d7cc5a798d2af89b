//! The machine's network, made and kept as the TOML says: links, addresses, routes, bonds, VLANs, DHCP, router advertisements.
//!
//! Owns: `Network`, `Settings`, `Options`. Called by: boot, at start and at every reload. Never: touches what somebody else
//! set up; takes anything down when it ends.
//!
//! The way of a change: `keeper` waits for one and reads what stands (`kernel` into `present`), `wanted` says what the settings and
//! the leases (`dhcp`) make of it, `difference` what is to be done, `kernel` does it, `report` tells it.
//! `routers`: what IPv6 routers say of DNS.

mod dhcp;
mod difference;
mod keeper;
mod kernel;
mod present;
mod report;
mod routers;
mod wanted;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use kernel::LoadModule;
pub use report::{DhcpReport, InterfaceReport, Report};

use super::names;
use crate::config::load::Loaded;
use crate::config::network::Interface;
use keeper::Keeper;

/// The port of DNS; resolv.conf(5) knows no other.
const DNS_PORT: u16 = 53;

/// How the network is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What the machine is called, also towards DHCP servers; none: as a DHCP server calls it.
    pub host: Option<String>,
    /// None: DHCP and router advertisements on every card with a carrier.
    pub interfaces: BTreeMap<String, Interface>,
    /// Who answers for names; none: whom the network names.
    pub dns: Vec<IpAddr>,
}

impl Settings {
    /// As the file has it for this host.
    #[must_use]
    pub fn of(loaded: &Loaded, host: &str) -> Self {
        let dns = loaded.effective(host).map(|effective| effective.tables.dns.servers.as_slice()).unwrap_or_default();
        let dns = dns.iter().map(|server| server.address()).filter(|address| address.port() == DNS_PORT);
        Self {
            host: names::host_name(host),
            interfaces: loaded.hosts().get(host).map(|host| host.network.clone()).unwrap_or_default(),
            dns: dns.map(|address| address.ip()).collect(),
        }
    }

    /// Without a file that says anything: DHCP and router advertisements on every card.
    #[must_use]
    pub fn automatic() -> Self {
        Self::default()
    }
}

/// What of the machine is used, beside its network.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the DNS servers are written down.
    pub resolv_conf: PathBuf,
    pub set_host_name: fn(&str) -> io::Result<()>,
    pub load_module: LoadModule,
}

/// The network, kept by a task until this is dropped.
#[derive(Debug)]
pub struct Network {
    settings: watch::Sender<Settings>,
    report: watch::Receiver<Report>,
    task: JoinHandle<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// Begins; returns at once. To be called inside a runtime.
    ///
    /// # Errors
    /// The system denies the sockets to the kernel.
    pub fn start(settings: Settings, options: Options) -> io::Result<Self> {
        let (settings, inbox) = watch::channel(settings);
        let (outbox, report) = watch::channel(Report::default());
        let keeper = Keeper::new(inbox, outbox, options)?;
        Ok(Self { settings, report, task: tokio::spawn(keeper.run()) })
    }

    /// Follows other settings. What does not differ is not touched.
    pub fn change(&self, settings: Settings) {
        self.settings.send_if_modified(|before| {
            let is_other = *before != settings;
            *before = settings;
            is_other
        });
    }

    /// What stands.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// What stands, and a word whenever it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }

    /// Waits until every interface with a cable in it has what it is to have; not longer than this.
    pub async fn settled(&self, at_most: Duration) -> Report {
        let mut report = self.report.clone();
        // Late, or the task has ended: what stands then is told either way.
        drop(tokio::time::timeout(at_most, report.wait_for(|report| report.settled)).await);
        self.report()
    }
}
