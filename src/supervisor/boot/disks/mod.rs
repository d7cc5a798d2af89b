//! Further disks and file servers' directories, mounted as the TOML says, whenever they are there.
//!
//! Owns: `Disks`. Called by: boot (`joined` at start and at every reload, `power` at the end). Never: keeps anything from starting; mounts
//! over what somebody else has mounted; touches the disk that the machine was booted from.
//!
//! Each mount of the settings is kept by a task of its own (`entry`): a disk that is checked for an hour and a server that is silent
//! keep no other waiting. `find` says which disk is meant, `options` what the kernel is told. What may hang is done by a process of its
//! own (`child`), which is ended when it takes too long. `leave` is the end of all of them.
//!
//! They stand in the namespace of process 1. Roles see none of them: Landlock shows a role its own directory below the state
//! directory (`net::sandbox`), and no mount can lie there (`config::mounts`).

mod child;
mod entry;
mod find;
mod leave;
mod options;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

pub use child::{child, is_child};
pub(super) use leave::leave_all;

use super::partitions::SystemDisk;
use crate::config::dns::Dns;
use crate::config::load::Loaded;
use crate::config::mounts::Mount;
use crate::supervisor::status::MountStatus;
use entry::Entry;

/// What is to be mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    mounts: BTreeMap<String, Mount>,
    /// Who answers for the names of file servers.
    dns: Dns,
}

impl Settings {
    /// As the file has it for this host.
    pub(super) fn of(loaded: &Loaded, host: &str) -> Self {
        Self {
            mounts: loaded.hosts().get(host).map(|host| host.mounts.clone()).unwrap_or_default(),
            dns: loaded.effective(host).map(|effective| effective.tables.dns.clone()).unwrap_or_default(),
        }
    }
}

/// How each mount is, by its name.
type Report = BTreeMap<String, MountStatus>;

/// What the tasks have in common.
#[derive(Debug)]
struct Shared {
    /// Partitions that are in use by the system.
    own: Vec<PathBuf>,
    settings: watch::Receiver<Settings>,
    /// Moves whenever a disk comes or goes.
    announced: watch::Receiver<u64>,
    report: watch::Sender<Report>,
    /// Held while all disks are looked at: one that hangs is then waited for once.
    looking: Arc<Mutex<()>>,
}

/// The mounts, kept by tasks until the event loop ends.
#[derive(Debug)]
pub(super) struct Disks {
    settings: watch::Sender<Settings>,
    report: watch::Receiver<Report>,
}

impl Disks {
    /// Begins; returns at once. To be called inside a runtime. `announced` moves whenever a disk comes or goes.
    pub(super) fn start(system: &SystemDisk, announced: watch::Receiver<u64>) -> Self {
        let (settings, inbox) = watch::channel(Settings::default());
        let (outbox, report) = watch::channel(Report::new());
        let data = system.data.as_ref().map(|data| data.device.clone());
        let shared = Shared {
            own: system.esp.iter().cloned().chain(data).collect(),
            settings: inbox,
            announced,
            report: outbox,
            looking: Arc::new(Mutex::new(())),
        };
        tokio::spawn(keep(Arc::new(shared)));
        Self { settings, report }
    }

    /// Follows other settings. What does not differ is not touched.
    pub(super) fn follow(&self, settings: Settings) {
        self.settings.send_if_modified(|before| {
            let is_other = *before != settings;
            *before = settings;
            is_other
        });
    }

    /// How they are, and a word whenever that changes.
    pub(super) fn watch(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }
}

/// One task for each mount that is wanted, or that is not wanted any more and still in use.
async fn keep(shared: Arc<Shared>) {
    let mut settings = shared.settings.clone();
    let mut running: BTreeMap<String, (Mount, watch::Sender<bool>)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = settings.borrow_and_update().mounts.clone();
        for (name, (mount, wish)) in &running {
            // One that came back before it could be left stays.
            wish.send_replace(wanted.get(name) == Some(mount));
        }
        for (name, mount) in wanted {
            if !running.contains_key(&name) {
                let (wish, wished) = watch::channel(true);
                running.insert(name.clone(), (mount.clone(), wish));
                tasks.spawn(Entry::new(name, mount, Arc::clone(&shared), wished).keep());
            }
        }
        tokio::select! {
            changed = settings.changed() => if changed.is_err() { return },
            // With other settings it begins anew. One that failed has said so, and is begun again too.
            Some(ended) = tasks.join_next() => match ended {
                Ok(name) => drop(running.remove(&name)),
                Err(_) => return,
            },
        }
    }
}
