//! The machine's network and mounts follow whichever `fife.toml` is run, and consoles hear of it.
//!
//! Owns: the one `Network` of the machine; what both are told. Called by: boot. Never: decides which file is run (`settings` does).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::disks::Disks;
use super::network::{Network, Options, Report, Settings};
use super::{disks, lines, modules, names};
use crate::config::identity::Identity;
use crate::supervisor::Source;
use crate::supervisor::control::{Asked, Request};

/// Where `/etc/resolv.conf` of the image leads.
const RESOLV_CONF: &str = "/run/resolv.conf";
/// How long the roles wait for the network: with a cable and a server it takes a second or two, and they do without.
const PATIENCE: Duration = Duration::from_secs(5);

/// The network of the machine, none where the kernel denies it; its mounts.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    network: Option<Arc<Network>>,
    disks: Arc<Disks>,
}

impl Joined {
    /// Sets up the network as the file has it; without one, as an installer expects: by DHCP. Begins to mount what the file names.
    pub(super) fn start(source: Option<&Source>, disks: Arc<Disks>) -> Self {
        let options = Options {
            resolv_conf: RESOLV_CONF.into(),
            set_host_name: names::set_host_name,
            load_module: modules::load,
        };
        let (network, mounts) =
            source.and_then(settings).unwrap_or_else(|| (Settings::automatic(), Default::default()));
        disks.follow(mounts);
        let network = match Network::start(network, options) {
            Ok(network) => {
                tokio::spawn(tell(network.watch()));
                Some(Arc::new(network))
            }
            Err(error) => {
                lines::trouble(format_args!("no network: {error}"));
                None
            }
        };
        Self { network, disks }
    }

    /// Follows the file; one that cannot be read changes nothing.
    pub(super) fn follow(&self, source: &Source) {
        let Some((network, mounts)) = settings(source) else { return };
        if let Some(own) = &self.network {
            own.change(network);
        }
        self.disks.follow(mounts);
    }

    /// What stands.
    pub(super) fn report(&self) -> Option<Report> {
        self.network.as_ref().map(|network| network.report())
    }

    /// What stands, and a word whenever it changes.
    pub(super) fn watch(&self) -> Option<watch::Receiver<Report>> {
        self.network.as_ref().map(|network| network.watch())
    }

    /// Waits until it stands, or for a few seconds.
    pub(super) async fn settled(&self) {
        if let Some(network) = &self.network {
            network.settled(PATIENCE).await;
        }
    }

    /// Has the roles told whenever other DNS servers are named.
    pub(super) async fn tell_roles(self, door: mpsc::Sender<Asked>) {
        let Some(network) = &self.network else { return };
        let mut watch = network.watch();
        let mut known = watch.borrow_and_update().dns.clone();
        while watch.changed().await.is_ok() {
            let dns = watch.borrow_and_update().dns.clone();
            if dns != known {
                known = dns;
                let (reply, replied) = oneshot::channel();
                if door.send((Request::Reload, reply)).await.is_err() {
                    return;
                }
                // Refused: the supervisor has said why.
                drop(replied.await);
            }
        }
    }
}

/// The settings of this machine in the file; none when it does not say which host this is.
fn settings(source: &Source) -> Option<(Settings, disks::Settings)> {
    let loaded = source.load().ok()?;
    match loaded.this_host(source.host.as_deref(), &Identity::read()) {
        Ok(host) => Some((Settings::of(&loaded, &host), disks::Settings::of(&loaded, &host))),
        Err(error) => {
            warn!(%error, "the network is set up by DHCP");
            None
        }
    }
}

/// Says on the consoles what has changed.
async fn tell(mut watch: watch::Receiver<Report>) {
    let mut said = BTreeSet::new();
    while watch.changed().await.is_ok() {
        let report = watch.borrow_and_update().clone();
        let interfaces: BTreeSet<String> = report.interfaces.iter().map(|one| format!("network: {one}")).collect();
        let faults: BTreeSet<String> = report.faults.iter().map(|fault| format!("network: {fault}")).collect();
        interfaces.difference(&said).for_each(lines::say);
        faults.difference(&said).for_each(lines::trouble);
        said = interfaces.into_iter().chain(faults).collect();
    }
}
