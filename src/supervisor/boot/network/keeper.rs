//! The loop that keeps the network as it is wanted.
//!
//! Owns: leases, what is ours, the report. Called by: `Network`, which spawns it. Never: undoes more than a change asks for.
//!
//! Whatever happens (a cable, a lease, other settings, somebody's hand), the same is done: read what stands, work out what is
//! wanted, do the difference, and again until there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mozim::DhcpV4Lease;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::super::names;
use super::dhcp::{Asker, Asking, Heard, Lease};
use super::difference::{Action, Ours, difference};
use super::kernel::Kernel;
use super::present::{Address, Kind, Link, Present};
use super::report::{DhcpReport, InterfaceReport, Report};
use super::routers::{Routers, Said};
use super::wanted::{Wanted, WantedLink, wanted};
use super::{Options, Settings};

/// Rounds until the difference must be none; a bond with VLANs takes four.
const ROUNDS_MAX: usize = 10;
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(30);
/// When what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is looked although nothing was heard.
const PERIOD: Duration = Duration::from_secs(30);
/// Leases that may wait to be looked at.
const HEARD_MAX: usize = 16;
/// DNS servers that are named, at most; resolv.conf(5) has room for three.
const DNS_MAX: usize = 6;

/// A lease that holds.
struct Held {
    lease: Lease,
    answer: DhcpV4Lease,
    /// None: for ever.
    until: Option<Instant>,
}

pub(super) struct Keeper {
    options: Options,
    settings: watch::Receiver<Settings>,
    report: watch::Sender<Report>,
    kernel: Kernel,
    routers: Routers,
    heard: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    asking: BTreeMap<u32, Asking>,
    leases: BTreeMap<u32, Held>,
    /// DNS servers that routers name, by link, and until when.
    advertised_dns: BTreeMap<(u32, Ipv6Addr), Instant>,
    ours: Ours,
    named: Option<String>,
    dns: Option<Vec<IpAddr>>,
}

impl Keeper {
    /// Connects to the kernel.
    ///
    /// # Errors
    /// The system denies it.
    pub(super) fn new(
        settings: watch::Receiver<Settings>,
        report: watch::Sender<Report>,
        options: Options,
    ) -> io::Result<Self> {
        Ok(Self {
            kernel: Kernel::connect(options.load_module)?,
            options,
            settings,
            report,
            routers: Routers::listen()?,
            heard: mpsc::channel(HEARD_MAX),
            asking: BTreeMap::new(),
            leases: BTreeMap::new(),
            advertised_dns: BTreeMap::new(),
            ours: Ours::default(),
            named: None,
            dns: None,
        })
    }

    /// Keeps the network until `Network` is dropped. What has been set up stays.
    pub(super) async fn run(mut self) {
        loop {
            self.expire(Instant::now());
            let wait = match self.converge().await {
                Ok(true) => PERIOD,
                Ok(false) => RETRY,
                Err(error) => {
                    error!(%error, "the kernel does not tell of its network");
                    RETRY
                }
            };
            let ends = self.leases.values().filter_map(|held| held.until).chain(self.advertised_dns.values().copied());
            let wake = ends.min().map_or(Instant::now() + wait, |end| end.min(Instant::now() + wait));
            tokio::select! {
                changed = self.kernel.changed() => match changed {
                    Ok(()) => {
                        tokio::time::sleep(GATHER).await;
                        self.kernel.drain();
                    }
                    Err(error) => self.connect_again(&error).await,
                },
                changed = self.settings.changed() => if changed.is_err() { return },
                Some(heard) = self.heard.1.recv() => self.take_lease(heard),
                said = self.routers.next() => match said {
                    Ok(said) => said.into_iter().for_each(|said| self.take_dns(&said)),
                    Err(error) => self.connect_again(&error).await,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn connect_again(&mut self, error: &io::Error) {
        error!(%error, "the connection to the kernel's network broke and is made anew");
        tokio::time::sleep(RETRY).await;
        match Kernel::connect(self.options.load_module).and_then(|kernel| Ok((kernel, Routers::listen()?))) {
            Ok((kernel, routers)) => (self.kernel, self.routers) = (kernel, routers),
            Err(error) => error!(%error, "there is no connection to the kernel's network"),
        }
    }

    fn take_lease(&mut self, heard: Heard) {
        let Heard { link, lease, answer } = heard;
        let until = lease.holds.map(|holds| Instant::now() + holds);
        let address = lease.address;
        let before = self.leases.insert(link, Held { lease, answer: *answer, until });
        if before.is_none_or(|before| before.lease.address != address) {
            info!(link, %address, "DHCP gives an address");
        }
    }

    fn take_dns(&mut self, said: &Said) {
        let until = Instant::now() + Duration::from_secs(said.lifetime_secs.into());
        for server in &said.servers {
            self.advertised_dns.insert((said.link, *server), until);
        }
        self.expire(Instant::now());
        while self.advertised_dns.len() > DNS_MAX {
            self.advertised_dns.pop_last();
        }
    }

    /// Forgets what holds no longer. A lease that has run out takes its address with it (RFC 2131 section 4.4.5).
    fn expire(&mut self, now: Instant) {
        self.leases.retain(|link, held| {
            let holds = held.until.is_none_or(|until| until > now);
            if !holds {
                warn!(link, address = %held.lease.address, "the DHCP lease has run out");
            }
            holds
        });
        self.advertised_dns.retain(|_, until| *until > now);
    }

    /// Does what is to be done. False: something failed and is to be tried again.
    async fn converge(&mut self) -> io::Result<bool> {
        let settings = self.settings.borrow_and_update().clone();
        let mut failed: Vec<(Action, io::Error)> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let present = self.kernel.read().await?;
            self.ours.prune(&present);
            let leases = self.leases.iter().map(|(link, held)| (*link, &held.lease)).collect();
            let wanted = wanted(&settings, &present, &leases);
            let refused: Vec<&Action> = failed.iter().map(|(action, _)| action).collect();
            let actions = difference(&self.ours, &wanted, &present, &refused);
            if actions.is_empty() {
                self.finish(&settings, &wanted, &present, &failed);
                return Ok(failed.is_empty());
            }
            for action in actions {
                match self.kernel.act(&action).await {
                    Ok(()) => {
                        info!(?action, "network changed");
                        self.ours.note(&action, &present);
                    }
                    Err(error) => failed.push((action, error)),
                }
            }
        }
        warn!("the network does not come to rest");
        Ok(false)
    }

    /// Everything stands that can: asks where it is to be asked, tells the others.
    fn finish(&mut self, settings: &Settings, wanted: &Wanted, present: &Present, failed: &[(Action, io::Error)]) {
        self.leases.retain(|link, _| wanted.links.get(link).is_some_and(|link| link.dhcp));
        self.ask(settings, wanted, present);
        let report = self.describe(settings, wanted, present, failed);
        if self.dns.as_ref() != Some(&report.dns) {
            if let Err(error) = names::write_resolv_conf(&self.options.resolv_conf, &report.dns) {
                warn!(%error, path = %self.options.resolv_conf.display(), "the DNS servers cannot be written down");
            }
            self.dns = Some(report.dns.clone());
        }
        let given = self.leases.values().find_map(|held| held.lease.host_name.clone());
        let name = settings.host.clone().or(given);
        if name != self.named
            && let Some(name) = &name
            && let Err(error) = (self.options.set_host_name)(name)
        {
            warn!(%error, name, "the host name cannot be set");
        }
        self.named = name;
        let known = self.report.borrow().faults.clone();
        for fault in report.faults.iter().filter(|fault| !known.contains(fault)) {
            warn!(fault, "network");
        }
        self.report.send_if_modified(|before| {
            let is_other = *before != report;
            *before = report;
            is_other
        });
    }

    /// Asks by DHCP where it is to be asked now, and nowhere else.
    fn ask(&mut self, settings: &Settings, wanted: &Wanted, present: &Present) {
        let askers: BTreeMap<u32, (&Link, _)> = wanted
            .dhcp
            .iter()
            .filter_map(|index| {
                let link = present.link(*index)?;
                Some((*index, (link, link.mac?)))
            })
            .collect();
        // A card with another address (a bond with other members) is another client; a task that ended failed.
        self.asking
            .retain(|index, asking| asking.runs() && askers.get(index).is_some_and(|(_, mac)| *mac == asking.mac));
        for (index, (link, mac)) in askers {
            if self.asking.contains_key(&index) {
                continue;
            }
            let asker = Asker {
                link: index,
                name: link.name.clone(),
                mac,
                host: settings.host.clone(),
                before: self.leases.get(&index).map(|held| held.answer.clone()),
            };
            info!(interface = link.name, "asking by DHCP");
            self.asking.insert(index, asker.begin(self.heard.0.clone()));
        }
    }

    fn describe(
        &self,
        settings: &Settings,
        wanted: &Wanted,
        present: &Present,
        failed: &[(Action, io::Error)],
    ) -> Report {
        let listed: Vec<(&Link, &WantedLink)> = present
            .links
            .iter()
            .filter(|link| link.kind != Kind::Loopback)
            .filter_map(|link| Some((link, wanted.links.get(&link.index)?)))
            .collect();
        let mut interfaces: Vec<InterfaceReport> =
            listed.iter().map(|(link, wanted)| self.describe_link(present, link, wanted)).collect();
        interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        let is_default = |route: &&super::present::Route| route.to.is_everywhere();
        let routes = present.routes.iter().chain(&present.advertised_routes).filter(is_default);
        let gateways: BTreeSet<IpAddr> = routes.filter_map(|route| route.via).collect();
        let leased = || self.leases.values().map(|held| &held.lease);
        let dns = if settings.dns.is_empty() {
            let advertised = self.advertised_dns.keys().map(|(_, ip)| IpAddr::V6(*ip));
            let mut seen = BTreeSet::new();
            let all = leased().flat_map(|lease| lease.dns.clone()).chain(advertised);
            all.filter(|ip| seen.insert(*ip)).take(DNS_MAX).collect()
        } else {
            settings.dns.clone()
        };
        let words = |(action, error): &(Action, io::Error)| format!("{action}: {error}");
        let missing = wanted.missing.iter().map(|(label, why)| format!("{label}: {why}"));
        let doubled = present.doubled.iter().map(|address| format!("{} is another machine's address too", address.ip));
        let carriers: Vec<_> = listed.iter().filter(|(link, _)| link.carrier).collect();
        let is_complete = |(link, wanted): &&(&Link, &WantedLink)| self.is_complete(present, link, wanted);
        Report {
            interfaces,
            gateways: gateways.into_iter().collect(),
            dns,
            time_servers: leased().flat_map(|lease| lease.time_servers.clone()).collect(),
            faults: failed.iter().map(words).chain(missing).chain(doubled).collect(),
            settled: failed.is_empty() && !carriers.is_empty() && carriers.iter().copied().all(|one| is_complete(&one)),
        }
    }

    /// Whether a link has what it is to have.
    fn is_complete(&self, present: &Present, link: &Link, wanted: &WantedLink) -> bool {
        let has_lease = self.leases.contains_key(&link.index);
        let is_advertised = present.advertised.iter().any(|address| address.link == link.index);
        let hears = wanted.dhcp && has_lease || wanted.routers && is_advertised;
        let is_waiting = (wanted.dhcp || wanted.routers) && !hears;
        let mut public = public_addresses(present, link).peekable();
        let has_none = public.peek().is_none();
        // Roles can listen on an address of which it is not yet known whether another machine has it (ip_nonlocal_bind); one that
        // can be used is enough to go on.
        !is_waiting && (has_none || public.any(|address| !present.tentative.contains(address)))
    }

    fn describe_link(&self, present: &Present, link: &Link, wanted: &WantedLink) -> InterfaceReport {
        let dhcp = match (wanted.dhcp, self.leases.get(&link.index)) {
            (false, _) => DhcpReport::Off,
            (true, Some(held)) => DhcpReport::Leased { server: IpAddr::V4(held.lease.server) },
            (true, None) if link.carrier => DhcpReport::Asking,
            (true, None) => DhcpReport::NoCarrier,
        };
        InterfaceReport {
            name: wanted.label.clone(),
            link: link.name.clone(),
            mac: link.own_mac.map(|mac| mac.to_string()),
            carrier: link.carrier,
            addresses: public_addresses(present, link)
                .map(|address| format!("{}/{}", address.ip, address.bits))
                .collect(),
            mtu: link.mtu,
            dhcp,
            bond: link.controller.and_then(|index| Some(present.link(index)?.name.clone())),
        }
    }
}

/// The addresses of a link, less those that reach no further than it.
fn public_addresses<'a>(present: &'a Present, link: &'a Link) -> impl Iterator<Item = &'a Address> {
    let is_local = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let all = present.addresses.iter().chain(&present.advertised);
    all.filter(move |address| address.link == link.index && !is_local(address.ip))
}
