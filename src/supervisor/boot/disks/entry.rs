//! One mount of the settings: made when what it needs is there, looked after, left when it is not wanted any more.
//!
//! Owns: its state, what consoles are told of it. Called by: `disks::keep`, which spawns it. Never: waits without listening to whether it
//! is still wanted.
//!
//! Whatever happens, the same is done again: is it mounted, and does it answer? If not, mount it; if that fails, wait, longer each time, or
//! until a disk turns up.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::super::data::{self, DataError};
use super::super::{lines, mounts};
use super::child::{self, Failure, Task};
use super::find::{FindError, Volume, choose, labels, volumes};
use super::{Shared, options};
use crate::appliance::superblock::{Condition, System};
use crate::config::hosts::HostAddress;
use crate::config::mounts::{Device, FileSystem, Mount};
use crate::net::dns;
use crate::supervisor::status::{MountState, MountStatus};

/// Time after start in which consoles do not hear that something is not there: sticks and networks take seconds.
const QUIET: Duration = Duration::from_secs(10);
/// Disks of one controller, and partitions of one disk, turn up together.
const GATHER: Duration = Duration::from_millis(300);
/// The wait after a failure; doubled with each further one, up to the longest.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The wait where trying again changes nothing before somebody has done something about it.
const BROKEN_WAIT: Duration = Duration::from_secs(3600);
/// How often it is looked whether what is mounted is well.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// How long a file server may take to answer that.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);
/// How long mounting may take: a disk may replay a long journal, a server may be silent.
const MOUNT_DISK_PATIENCE: Duration = Duration::from_secs(600);
const MOUNT_EXPORT_PATIENCE: Duration = Duration::from_secs(60);
/// How long leaving may take: what was written last is still on its way.
const LEAVE_PATIENCE: Duration = Duration::from_secs(120);
/// How often leaving is tried while somebody uses it.
const LEAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Addresses of a file server that are tried, at most.
const ADDRESSES_MAX: usize = 4;

/// What is mounted.
#[derive(Debug, Clone)]
struct Held {
    /// "/dev/sdb1 (ext4)", "nas:/export (nfs 4.2)".
    source: String,
    /// Its number, as mountinfo has it.
    number: String,
    /// Where the kernel shows the disk; none of a file server's directory.
    sys: Option<PathBuf>,
    /// It was mounted to be written.
    writable: bool,
    /// What is not as it should be although it is mounted.
    flaw: Option<String>,
}

/// Why it is not mounted.
#[derive(Debug)]
struct Trouble {
    words: String,
    /// A machine that has just started need not say so yet.
    early: bool,
    /// Somebody must do something about it first.
    broken: bool,
}

impl Trouble {
    fn new(words: String) -> Self {
        Self { words, early: false, broken: false }
    }

    fn early(words: String) -> Self {
        Self { early: true, ..Self::new(words) }
    }
}

/// The mount.
#[derive(Debug)]
pub(super) struct Entry {
    name: String,
    mount: Mount,
    at: PathBuf,
    shared: Arc<Shared>,
    /// Whether it is wanted.
    wished: watch::Receiver<bool>,
    begun: Instant,
    wait: Duration,
    held: Option<Held>,
    /// This task may have mounted something here.
    touched: bool,
    /// What consoles have heard last.
    said: Option<String>,
}

impl Entry {
    pub(super) fn new(name: String, mount: Mount, shared: Arc<Shared>, wished: watch::Receiver<bool>) -> Self {
        let (at, begun) = (mount.point(&name), Instant::now());
        Self { name, mount, at, shared, wished, begun, wait: WAIT_MIN, held: None, touched: false, said: None }
    }

    /// Keeps it until it is not wanted and was left; answers its name.
    pub(super) async fn keep(mut self) -> String {
        let (mut wished, mut announced) = (self.wished.clone(), self.shared.announced.clone());
        self.report(MountState::Trying, None);
        loop {
            announced.mark_unchanged();
            let wait = tokio::select! {
                () = becomes(&mut wished, false) => None,
                wait = self.round() => Some(wait),
            };
            if let Some(wait) = wait {
                tokio::select! {
                    () = becomes(&mut wished, false) => {}
                    () = sleep(wait) => continue,
                    Ok(()) = announced.changed() => {
                        sleep(GATHER).await;
                        continue;
                    }
                }
            }
            if self.leave(&mut wished).await {
                break;
            }
        }
        self.shared.report.send_modify(|report| drop(report.remove(&self.name)));
        self.name
    }

    /// Looks once; answers how long nothing is to be done.
    async fn round(&mut self) -> Duration {
        let done = match self.held.clone() {
            Some(held) => self.look_after(held).await,
            None => self.try_to_mount().await,
        };
        match done {
            Ok(held) => {
                self.wait = WAIT_MIN;
                self.tell_held(&held);
                self.held = Some(held);
                LOOK_INTERVAL
            }
            Err(trouble) => {
                self.held = None;
                self.tell(&trouble.words, trouble.early);
                self.report(MountState::Waiting, Some(trouble.words));
                let wait = if trouble.broken { BROKEN_WAIT } else { self.wait };
                self.wait = (self.wait * 2).min(WAIT_MAX);
                wait
            }
        }
    }

    async fn try_to_mount(&mut self) -> Result<Held, Trouble> {
        if mounts::is_mounted(&self.at) {
            return Err(Trouble::new(format!("something else is mounted at {}", self.at.display())));
        }
        match self.mount.device.clone() {
            Some(Device::Export { server, path: _ }) => self.mount_export(&server).await,
            Some(device) => self.mount_disk(&device).await,
            // Loading has refused it.
            None => Err(Trouble { broken: true, ..Trouble::new("no device".to_owned()) }),
        }
    }

    async fn mount_disk(&mut self, device: &Device) -> Result<Held, Trouble> {
        let Volume { device, superblock, .. } = self.find(device).await?;
        let system = self.mount.type_.or_else(|| superblock.as_ref().map(|found| system_of(found.system)));
        let system = system.ok_or_else(|| {
            Trouble::new(format!("there is no file system on {} that fife knows (ext4, XFS, FAT)", device.display()))
        })?;
        let protected = data::is_read_only(&device);
        let (flags, data) = options::of_disk(system, &self.mount.options, protected);
        if flags.contains(MsFlags::MS_RDONLY) {
            // Nothing is put right there.
        } else if let Some(System::Ext { condition: Condition::Dirty | Condition::Errors, .. }) =
            superblock.map(|found| found.system)
        {
            self.check(&device).await?;
        }
        self.mount_it(&device.to_string_lossy(), system.name(), (flags, &data), MOUNT_DISK_PATIENCE)
            .await
            .map_err(|failure| Trouble::new(format!("{} cannot be mounted: {failure}", device.display())))?;
        let asked_for = self.mount.options.iter().any(|option| option.as_str() == "ro");
        let flaw =
            (protected && !asked_for).then(|| format!("{} is write-protected: it can be read", device.display()));
        let source = format!("{} ({})", device.display(), system.name());
        let mut held = self.held(source, flags, flaw)?;
        held.sys = Some(sys_of(&held.number).ok_or_else(|| vanished(&held))?);
        Ok(held)
    }

    async fn find(&self, device: &Device) -> Result<Volume, Trouble> {
        // The guard goes along: who is not waited for any more still looks, and others wait for that.
        let looking = Arc::clone(&self.shared.looking).lock_owned().await;
        let own = self.shared.own.clone();
        let seen = tokio::task::spawn_blocking(move || (volumes(&own), looking)).await;
        let (seen, _) = seen.map_err(|error| Trouble::new(error.to_string()))?;
        choose(device, &seen).cloned().map_err(|error| match error {
            FindError::Absent(_) => {
                // Once consoles have heard it, it is no news.
                if matches!(device, Device::Label(_)) && self.said.is_none() {
                    info!(mount = self.name, %device, labels = labels(&seen).join(", "), "not there");
                }
                Trouble::early(error.to_string())
            }
            FindError::Several { .. } => Trouble::new(error.to_string()),
        })
    }

    /// Has e2fsck put an ext4 in order. That may take hours.
    async fn check(&self, device: &Path) -> Result<(), Trouble> {
        self.report(MountState::Trying, Some(format!("{} was not left in order: e2fsck checks it", device.display())));
        let own = device.to_owned();
        let checked = tokio::task::spawn_blocking(move || data::check(&own, false)).await;
        match checked.map_err(|error| Trouble::new(error.to_string()))? {
            Ok(words) => {
                let words = words.unwrap_or_default();
                words.lines().for_each(|line| lines::say(format_args!("mount {}: e2fsck: {line}", self.name)));
                Ok(())
            }
            Err(DataError::Broken { code, words, .. }) => {
                let device = device.display();
                let words = format!(
                    "{device}: e2fsck cannot repair it without a decision (exit {code}). Copy the disk if you can; then, in the rescue shell: e2fsck -y {device}\n{words}"
                );
                Err(Trouble { broken: true, ..Trouble::new(words) })
            }
            Err(error) => Err(Trouble::new(error.to_string())),
        }
    }

    async fn mount_export(&mut self, server: &HostAddress) -> Result<Held, Trouble> {
        let addresses = self.resolve(server).await?;
        let device = self.mount.device.as_ref().map(ToString::to_string).unwrap_or_default();
        let given = self.mount.options.clone();
        let mut failure = None;
        for address in addresses {
            for version in options::versions(&given) {
                let (flags, data) = options::of_export(&given, address, version);
                let mounted = self.mount_it(&device, "nfs", (flags, &data), MOUNT_EXPORT_PATIENCE).await;
                let Err(refused) = mounted else {
                    return self.held(format!("{device} (nfs {version})"), flags, None);
                };
                // The server speaks no such version, or the kernel does not.
                let is_next =
                    matches!(refused, Failure::Refused(Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::EOPNOTSUPP));
                failure = Some(refused);
                if !is_next {
                    break;
                }
            }
        }
        let why = failure.map_or_else(|| "the server has no address".to_owned(), |failure| failure.to_string());
        Err(Trouble::early(format!("{device} cannot be mounted: {why}; it is tried again")))
    }

    async fn resolve(&self, server: &HostAddress) -> Result<Vec<IpAddr>, Trouble> {
        let name = match server {
            HostAddress::Ip(ip) => return Ok(vec![*ip]),
            HostAddress::Name(name) => name,
        };
        let unknown = |why: String| Trouble::early(format!("the name {name} is not known: {why}; it is asked again"));
        let settings = self.shared.settings.borrow().dns.clone();
        let resolver = dns::resolver(&settings).map_err(|error| unknown(error.to_string()))?;
        // Complete as it stands: no search domain is appended.
        let found = resolver.lookup_ip(format!("{name}.")).await.map_err(|error| unknown(error.to_string()))?;
        Ok(found.iter().take(ADDRESSES_MAX).collect())
    }

    async fn mount_it(
        &mut self,
        source: &str,
        kind: &str,
        (flags, data): (MsFlags, &str),
        patience: Duration,
    ) -> Result<(), Failure> {
        self.touched = true;
        let at = self.at.clone();
        mounts::unsealed(|| fs::create_dir_all(&at))
            .map_err(|error| Failure::Process(format!("{}: {error}", at.display())))?;
        let mounted = child::run(Task::Mount { source, kind, at: &at, flags, data }, patience).await;
        // A process that was ended may have done it before.
        self.touched = mounted.is_ok() || mounts::is_mounted(&at);
        self.remove_point();
        mounted
    }

    /// The directory is there while something is mounted on it and no longer: what is written there must not end up in memory.
    fn remove_point(&self) {
        if !mounts::is_mounted(&self.at) {
            // Somebody may have put something there all the same; that stays.
            mounts::unsealed(|| fs::remove_dir(&self.at)).ok();
        }
    }

    /// What stands here now.
    fn held(&self, source: String, flags: MsFlags, flaw: Option<String>) -> Result<Held, Trouble> {
        let table = mounts::table();
        let line = table.iter().rev().find(|line| line.at == self.at);
        let line = line.ok_or_else(|| Trouble::new(format!("{source} is not mounted any more")))?;
        let writable = !flags.contains(MsFlags::MS_RDONLY);
        Ok(Held { source, number: line.device.clone(), sys: None, writable, flaw })
    }

    /// Whether what was mounted is well.
    async fn look_after(&mut self, mut held: Held) -> Result<Held, Trouble> {
        let table = mounts::table();
        let Some(line) = table.iter().rev().find(|line| line.at == self.at && line.device == held.number) else {
            warn!(mount = self.name, "somebody has unmounted it: it is mounted again");
            return self.try_to_mount().await;
        };
        match &held.sys {
            Some(sys) if sys_of(&held.number).as_ref() != Some(sys) => {
                // Whoever has a file open there gets errors and may close it; for all others the place is free for the next disk.
                child::run(Task::Leave { at: &self.at, how: MntFlags::MNT_DETACH }, LEAVE_PATIENCE).await.ok();
                self.remove_point();
                return Err(vanished(&held));
            }
            Some(_) if held.writable && line.read_only => {
                held.flaw = Some(format!("{} has errors, and is read-only since: see kernel.log", held.source));
            }
            Some(_) => {}
            None => {
                let looked = child::run(Task::Look { at: &self.at }, LOOK_PATIENCE).await;
                held.flaw = looked.err().map(|failure| format!("{}: {failure}", held.source));
            }
        }
        Ok(held)
    }

    /// Leaves it, as soon as nobody uses it. False: meanwhile it is wanted again, and stands.
    async fn leave(&mut self, wished: &mut watch::Receiver<bool>) -> bool {
        while self.touched && mounts::is_mounted(&self.at) {
            let at = self.at.clone();
            match child::run(Task::Leave { at: &at, how: MntFlags::empty() }, LEAVE_PATIENCE).await {
                Ok(()) => {
                    self.remove_point();
                    lines::say(format_args!("mount {}: {} is free", self.name, self.at.display()));
                    info!(mount = self.name, "unmounted");
                    break;
                }
                Err(Failure::Refused(Errno::EBUSY)) => {
                    let words = format!("{} is in use, and is left as soon as it is not", self.at.display());
                    self.tell(&words, false);
                    self.report(MountState::Leaving, Some(words));
                }
                Err(failure) => {
                    // A server that is gone. What waits for it is ended, and nobody can begin anything there.
                    warn!(mount = self.name, %failure, "cannot be left in order");
                    for how in [MntFlags::MNT_FORCE, MntFlags::MNT_DETACH] {
                        child::run(Task::Leave { at: &at, how }, LOOK_PATIENCE).await.ok();
                    }
                }
            }
            tokio::select! {
                () = sleep(LEAVE_INTERVAL) => {}
                () = becomes(wished, true), if self.held.is_some() => return false,
            }
        }
        self.remove_point();
        true
    }

    fn tell_held(&mut self, held: &Held) {
        match &held.flaw {
            Some(flaw) => self.tell(flaw, false),
            None => {
                let words = format!("{} at {}", held.source, self.at.display());
                if self.said.as_ref() != Some(&words) {
                    lines::say(format_args!("mount {}: {words}", self.name));
                    info!(mount = self.name, source = held.source, at = %self.at.display(), "mounted");
                    self.said = Some(words);
                }
            }
        }
        self.shared.report.send_if_modified(|report| {
            let status = self.status(MountState::Mounted, Some(held.source.clone()), held.flaw.clone());
            report.get(&self.name) != Some(&status) && {
                report.insert(self.name.clone(), status);
                true
            }
        });
    }

    /// Says what is wrong, once.
    fn tell(&mut self, words: &str, early: bool) {
        let is_early = early && self.begun.elapsed() < QUIET;
        if !is_early && self.said.as_deref() != Some(words) {
            lines::trouble(format_args!("mount {}: {words}", self.name));
            warn!(mount = self.name, reason = words, "not as it should be");
            self.said = Some(words.to_owned());
        }
    }

    fn report(&self, state: MountState, reason: Option<String>) {
        let source = self.held.as_ref().map(|held| held.source.clone());
        let status = self.status(state, source, reason);
        self.shared.report.send_modify(|report| drop(report.insert(self.name.clone(), status)));
    }

    fn status(&self, state: MountState, source: Option<String>, reason: Option<String>) -> MountStatus {
        MountStatus {
            name: self.name.clone(),
            device: self.mount.device.as_ref().map(ToString::to_string).unwrap_or_default(),
            at: self.at.display().to_string(),
            source,
            state,
            reason,
        }
    }
}

fn vanished(held: &Held) -> Trouble {
    Trouble::new(format!(
        "{} has vanished; what was not written yet is lost. It is mounted when it turns up",
        held.source
    ))
}

/// Where the kernel shows the disk of this number now.
fn sys_of(number: &str) -> Option<PathBuf> {
    fs::canonicalize(Path::new("/sys/dev/block").join(number)).ok()
}

const fn system_of(system: System) -> FileSystem {
    match system {
        System::Ext { .. } => FileSystem::Ext4,
        System::Xfs => FileSystem::Xfs,
        System::Fat => FileSystem::Vfat,
    }
}

/// Waits until the wish is so; for ever, when nobody is left who could wish.
async fn becomes(wished: &mut watch::Receiver<bool>, wanted: bool) {
    if wished.wait_for(|wish| *wish == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
