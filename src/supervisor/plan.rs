//! What this host is to run, and what a reload changes.
//!
//! Owns: `Source` (where the plan comes from), `Plan`, `Change`. Called by: the supervisor, at start and
//! reload. Never: binds or starts; it only says what is to be bound and started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use super::certificate::{self, CertificateError};
use super::site;
use crate::config::address::SocketAddress;
use crate::config::hosts::{HostAddress, Role};
use crate::config::identity::{HostError, Identity};
use crate::config::load::Loaded;
use crate::config::material::{Material, RoleView, role_view};
use crate::config::{Effective, Faults};
use crate::net::dns;
use crate::net::handover::base_dn;
use crate::net::site::SiteTls;
use crate::net::tls::Pem;

/// Where plans come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The TOML.
    pub config: PathBuf,
    /// `--host`.
    pub host: Option<String>,
    /// Absolute.
    pub state_dir: PathBuf,
    /// Taken for the file's text at start, while the file itself is broken or missing. A reload reads the file.
    pub stand_in: Option<String>,
}

/// What this host is to run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) effective: Effective,
    pub(super) material: Material,
    pub(super) roles: BTreeMap<Role, RolePlan>,
    /// Where the host's own `/metrics` and `/health` are answered.
    pub(super) metrics: Vec<SocketAddress>,
}

/// What one role is given; when it differs, the role is started anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RolePlan {
    pub(super) view: RoleView,
    /// The door takes it from `[directory]`, which otherwise concerns only those who ask.
    pub(super) base_dn: String,
    pub(super) tls: Pem,
    /// Towards other hosts; none without `[site] secret`.
    pub(super) site: Option<SiteTls>,
    pub(super) listeners: Vec<PlannedListener>,
}

/// A service's address, unix paths absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedListener {
    pub(super) service: &'static str,
    pub(super) address: SocketAddress,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{}", .0.render(false))]
    Faults(Faults),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the site has no host `{0}`")]
    NoHost(String),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Source {
    /// Reads the file.
    pub(super) fn load(&self) -> Result<Loaded, PlanError> {
        let loaded = match &self.stand_in {
            Some(text) => crate::config::load::load_text(&self.config, text),
            None => crate::config::load(&self.config),
        };
        loaded.map_err(PlanError::Faults)
    }

    /// Whether a plan can be made: the file is good, this machine is one of its hosts, and the files that it names are there.
    pub(super) fn check(&self) -> Result<(), PlanError> {
        let loaded = self.load()?;
        let host = loaded.this_host(self.host.as_deref(), &Identity::read())?;
        loaded.material(&host).map_err(PlanError::Faults)?;
        Ok(())
    }

    /// Reads the file and makes the plan of it.
    pub(super) fn read(&self) -> Result<Plan, PlanError> {
        self.plan(&self.load()?)
    }

    /// The plan of a loaded file. Makes the self-signed certificate when one is needed.
    pub(super) fn plan(&self, loaded: &Loaded) -> Result<Plan, PlanError> {
        let host = loaded.this_host(self.host.as_deref(), &Identity::read())?;
        let mut effective = loaded.effective(&host).ok_or_else(|| PlanError::NoHost(host.clone()))?.clone();
        // Whom the network names may change while fife runs; a role that is handed them is restarted then.
        if effective.tables.dns.servers.is_empty() {
            effective.tables.dns.servers = dns::named_servers();
        }
        let material = loaded.material(&host).map_err(PlanError::Faults)?;
        let tls = match &material.certificate {
            Some(given) => Pem { certificate: given.chain.clone(), key: given.key.reveal().to_owned() },
            None => {
                let addresses = loaded.hosts().get(&host).map(|host| host.addresses.as_slice()).unwrap_or_default();
                certificate::self_signed(&self.state_dir.join("tls"), &names(&effective, addresses))?
            }
        };
        let site = match material.secrets.get("site.secret") {
            Some(secret) => Some(site::tls(&self.state_dir.join("tls/site"), &effective.site.name, &host, secret)?),
            None => None,
        };
        let plan = |role: &Role| RolePlan {
            view: role_view(&effective, *role, &material),
            base_dn: base_dn(&effective),
            tls: tls.clone(),
            site: site.clone(),
            listeners: self.listeners(&effective, *role),
        };
        let roles = effective.roles.iter().map(|role| (*role, plan(role))).collect();
        let metrics = effective.listening(None).map(|one| one.address.in_dir(&self.state_dir)).collect();
        Ok(Plan { effective, material, roles, metrics })
    }

    fn listeners(&self, effective: &Effective, role: Role) -> Vec<PlannedListener> {
        let listeners = effective.listening(Some(role)).map(|listening| PlannedListener {
            service: listening.service,
            address: listening.address.in_dir(&self.state_dir),
        });
        listeners.collect()
    }
}

/// What a self-signed certificate of this host is for: its names and addresses.
fn names(effective: &Effective, addresses: &[HostAddress]) -> BTreeSet<String> {
    let mut names = BTreeSet::from(["localhost".to_owned()]);
    if let Some(domain) = &effective.site.domain {
        names.extend([domain.to_string(), format!("{}.{domain}", effective.host)]);
    }
    names.extend(effective.tables.smtp.hostname.as_ref().map(ToString::to_string));
    names.extend(addresses.iter().map(ToString::to_string));
    for listening in effective.listening_all() {
        if let SocketAddress::Tcp(address) = listening.address {
            match address.ip() {
                // Any address: those that it surely has.
                ip if ip.is_unspecified() => names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]),
                ip => drop(names.insert(IpAddr::to_canonical(&ip).to_string())),
            }
        }
    }
    names
}

/// What changes from one plan to the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) bind: BTreeSet<SocketAddress>,
    pub(super) close: BTreeSet<SocketAddress>,
    pub(super) start: Vec<Role>,
    pub(super) restart: Vec<Role>,
    pub(super) stop: Vec<Role>,
}

impl Change {
    pub(super) fn between(old: &Plan, new: &Plan) -> Self {
        let (before, after) = (old.addresses(), new.addresses());
        let fate = |fate: fn(Option<&RolePlan>, Option<&RolePlan>) -> bool| {
            Role::ALL.into_iter().filter(|role| fate(old.roles.get(role), new.roles.get(role))).collect()
        };
        Self {
            bind: after.difference(&before).cloned().collect(),
            close: before.difference(&after).cloned().collect(),
            start: fate(|old, new| old.is_none() && new.is_some()),
            restart: fate(|old, new| old.is_some() && new.is_some() && old != new),
            stop: fate(|old, new| old.is_some() && new.is_none()),
        }
    }
}

impl Plan {
    /// Every address that is listened on, metrics included.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddress> {
        let of_roles = self.roles.values().flat_map(|role| &role.listeners).map(|listener| &listener.address);
        of_roles.chain(&self.metrics).cloned().collect()
    }
}
