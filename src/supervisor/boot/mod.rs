//! Process 1 of the appliance: from the kernel's first call to a supervisor that serves, and back to the firmware.
//!
//! Owns: the order of a boot. Called by: `main`, when the kernel started the binary as `/init`. Never: ends, panics or waits in silence:
//! what cannot be done is said on every console, and the machine stays where somebody can mend it.
//!
//! In this order, each room one step:
//! - `mounts`: /proc, /sys, /dev, …; `modules`, `hotplug`: drivers for what is there, and for what turns up later;
//! - `partitions`: the disk that the machine was booted from; `data`: checked, mounted, grown;
//! - `clock`, `timed`: a clock that cannot be right is lifted before anything is dated; time servers are asked;
//! - `logs`, `rotation`: lines and the kernel's records to the data partition;
//! - `joined`: network and mounts follow the file; `network`: links, addresses, DHCP; `names`: host name, resolv.conf; `disks`: further
//!   disks and file servers;
//! - `settings`: which fife.toml; then the supervisor runs, fed `watchdog`, with `orphans` reaped;
//! - `trial`: a version that was just updated to is kept or given up;
//! - `consoles`: the menu there; `trouble`: when it cannot; `power`: the end; `lines`: what consoles are told.

pub mod clock;
mod consoles;
mod data;
pub mod disks;
mod hotplug;
mod joined;
mod lines;
mod logs;
pub mod modules;
mod mounts;
pub mod names;
pub mod network;
mod orphans;
mod partitions;
mod power;
mod rotation;
mod settings;
mod timed;
mod trial;
mod trouble;
mod watchdog;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, sethostname};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use self::clock::Begun;
use super::control::{Asked, Reply, Request};
use super::process::addresses;
use super::status::MountStatus;
use super::{Ending, Serving, Source, StartError, Supervisor};
use crate::base::clock::monotonic;
use disks::Disks;
use hotplug::Hotplug;
use joined::Joined;
use logs::Logs;
use partitions::SystemDisk;
use settings::{Chosen, Places};
use timed::Timed;
use trouble::Next;
use watchdog::Watchdog;

/// Time after which it is said that the disk is still missing. Controllers with many disks take longer to show them: it is waited on.
const DISK_PATIENCE: Duration = Duration::from_secs(20);
/// How often a disk is looked for when nothing is announced.
const DISK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the administrator's file is looked at while the last good one runs in its place.
const MEND_INTERVAL: Duration = Duration::from_secs(2);
/// Descriptors that this process and its children may have open.
const DESCRIPTORS_MAX: u64 = 1_048_576;
/// Settings of the kernel that the appliance needs otherwise than they come.
const KERNEL_SETTINGS: [(&str, &str); 2] = [
    // A service may be bound to an address that the network brings a moment later, or again after a cable was out.
    ("/proc/sys/net/ipv4/ip_nonlocal_bind", "1"),
    ("/proc/sys/net/ipv6/ip_nonlocal_bind", "1"),
];

/// What the supervisor is given when it is process 1.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    watchdog: Arc<Watchdog>,
    wishes: watch::Receiver<Option<Ending>>,
    followed: Arc<Notify>,
    joined: Joined,
    timed: Timed,
    mounts: watch::Receiver<BTreeMap<String, MountStatus>>,
}

impl Machine {
    /// What stands of its network, and of its clock.
    pub(super) fn reports(&self) -> (Option<network::Report>, clock::Report) {
        (self.joined.report(), self.timed.report())
    }

    /// Sets the clock; whoever asked hears what came of it.
    pub(super) fn set_clock(&self, unix_secs: u64, reply: oneshot::Sender<Reply>) {
        self.timed.set(unix_secs, reply);
    }

    /// How often `feed` is to be called.
    pub(super) fn feeding_interval(&self) -> Duration {
        self.watchdog.interval()
    }

    /// The supervisor's loop has come round.
    pub(super) fn feed(&self) {
        self.watchdog.feed();
    }

    /// Network and clock follow this file.
    fn follow(&self, source: &Source) {
        self.joined.follow(source);
        self.timed.follow(source);
    }

    /// The host follows a changed file.
    pub(super) fn followed(&self) {
        self.followed.notify_one();
    }

    /// How the further disks and file servers' directories are.
    pub(super) fn mounts(&self) -> Vec<MountStatus> {
        self.mounts.borrow().values().cloned().collect()
    }

    /// The next wish for the end of the machine; never, where there is none.
    pub(super) async fn wish(machine: &mut Option<Self>) -> Ending {
        match machine {
            Some(machine) => trouble::wish(&mut machine.wishes).await,
            None => std::future::pending().await,
        }
    }
}

/// Tells consoles what is wrong with the disk; without words, that nothing is any more.
pub(super) fn tell_of_disk(words: Option<&str>) {
    match words {
        Some(words) => lines::trouble(words),
        None => lines::say("the disk is well again"),
    }
}

/// What is to be ended in order, whatever happens.
#[derive(Debug, Default)]
struct Held {
    logs: Option<Logs>,
    watchdog: Option<Arc<Watchdog>>,
    timed: Option<Timed>,
}

/// Whether the kernel started this process as the first one. In a container `fife run` may be process 1 too: it has another name.
#[must_use]
pub fn is_init() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    std::process::id() == 1 && Path::new(&name).file_name().is_some_and(|name| name == "init")
}

/// Boots, runs and stops the machine.
pub fn boot() -> ! {
    let mut held = Held::default();
    let ending = catch_unwind(AssertUnwindSafe(|| run(&mut held))).unwrap_or_else(|_| {
        lines::trouble("a fault of fife itself (above); the machine starts again");
        Ending::Reboot
    });
    held.timed.iter().for_each(Timed::end);
    // Others that held it have ended with the event loop.
    power::down(ending, held.logs, held.watchdog.and_then(Arc::into_inner))
}

fn run(held: &mut Held) -> Ending {
    let faults = mounts::early();
    take_console();
    let arguments = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    lines::say(lines::starting(argument(&arguments, "fife.slot=")));
    faults.iter().for_each(lines::trouble);
    let mut begun = Begun::of_the_machine();
    set_up_kernel();
    let hotplug = start_modules();
    mounts::firmware();
    let disk = find_disk(&arguments, hotplug.as_ref());
    let (announce, announced) = watch::channel(0);
    if let Some(hotplug) = hotplug
        && let Err(error) = hotplug.attend(announce)
    {
        lines::trouble(format_args!("new devices are not noticed: {error}"));
    }
    lines::say(lines::disk(&disk));
    match disk.esp.as_deref().map(data::mount_boot) {
        Some(Ok(())) => {}
        Some(Err(error)) => lines::trouble(error),
        None => lines::trouble("the disk has no partition for fife.toml"),
    }
    let data = prepare_data(&disk, argument(&arguments, "fife.fsck=") == Some("yes"));
    // All places to mount at are there.
    if let Err(error) = mounts::seal() {
        lines::trouble(format_args!("the system's directories can be written: {error}"));
    }
    timed::begin(&mut begun, data.is_ok().then_some(Path::new(data::DATA)));
    if data.is_ok() {
        match Logs::start(Path::new(data::DATA)) {
            Ok(logs) => held.logs = Some(logs),
            Err(error) => lines::trouble(format_args!("log lines are shown here and not kept: {error}")),
        }
    }
    drop(rustls::crypto::ring::default_provider().install_default());
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ending = runtime.block_on(async {
                tokio::spawn(trial::watch(arguments));
                host(held, &disk, announced, data, begun).await
            });
            runtime.shutdown_background();
            ending
        }
        Err(error) => {
            lines::trouble(format_args!("no event loop: {error}"));
            Ending::Reboot
        }
    }
}

/// The value of a kernel argument, the last one if it is given several times.
fn argument<'a>(arguments: &'a str, name: &str) -> Option<&'a str> {
    arguments.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)).next_back()
}

/// Output goes to the console that the kernel has chosen, also when it could not open it before /dev was there. Input is nobody's: what is
/// typed belongs to the menu.
fn take_console() {
    if let Ok(console) = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open("/dev/console") {
        dup2_stdout(&console).and_then(|()| dup2_stderr(&console)).ok();
    }
    if let Ok(nothing) = fs::File::open("/dev/null") {
        dup2_stdin(&nothing).ok();
    }
}

fn set_up_kernel() {
    for (file, value) in KERNEL_SETTINGS {
        // A kernel without IPv6 has no file for it.
        fs::write(file, value).ok();
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX, DESCRIPTORS_MAX) {
        lines::trouble(format_args!("few descriptors: {error}"));
    }
}

/// Loads the drivers of all devices that are there, and of those that these bring.
fn start_modules() -> Option<Hotplug> {
    if let Err(error) = modules::answer_the_kernel() {
        lines::trouble(format_args!("the kernel gets no modules: {error}"));
    }
    let modules = modules::Modules::of_this_kernel();
    if modules.is_empty() {
        lines::trouble("the image has no modules for this kernel");
    }
    // Before the walk: what turns up during it is announced.
    let hotplug = Hotplug::listen();
    modules.load_for(&modules::devices()).iter().for_each(lines::trouble);
    match hotplug {
        Ok(hotplug) => {
            // A driver shows devices of its own (the power button's input, a bus behind a bus), which want drivers in turn.
            while let Ok(Some(new)) = hotplug.next(Duration::ZERO) {
                modules.load_for(&new.devices).iter().for_each(lines::trouble);
            }
            Some(hotplug)
        }
        Err(error) => {
            lines::trouble(format_args!("new devices are not noticed: {error}"));
            None
        }
    }
}

/// Waits for the disk that the machine was booted from, as long as it takes.
fn find_disk(arguments: &str, hotplug: Option<&Hotplug>) -> SystemDisk {
    let begun = monotonic();
    let mut said = false;
    loop {
        if let Some(disk) = partitions::find(arguments) {
            return disk;
        }
        if !said && monotonic() - begun >= DISK_PATIENCE {
            said = true;
            lines::trouble(format_args!(
                "the disk that this machine was booted from does not show up; there is: {}. It is waited for",
                partitions::seen()
            ));
        }
        let new = match hotplug.map(|hotplug| hotplug.next(DISK_INTERVAL)) {
            Some(Ok(new)) => new.unwrap_or_default().devices,
            Some(Err(_)) | None => {
                std::thread::park_timeout(DISK_INTERVAL);
                modules::devices()
            }
        };
        modules::Modules::of_this_kernel().load_for(&new).iter().for_each(lines::trouble);
    }
}

/// Checks, mounts and grows the data partition.
///
/// # Errors
/// There is no data: what is wrong, for people.
fn prepare_data(disk: &SystemDisk, answer_yes: bool) -> Result<(), String> {
    let data = disk.data.as_ref().ok_or_else(|| format!("{} has no data partition", disk.disk.display()))?;
    let checked = data::check(&data.device, answer_yes).map_err(|error| error.to_string())?;
    if let Some(words) = checked {
        words.lines().for_each(|line| lines::say(format_args!("e2fsck: {line}")));
    }
    data::mount(&data.device).map_err(|error| error.to_string())?;
    match crate::appliance::disk::grow(Path::new(data::DATA)) {
        Ok(None) => {}
        Ok(Some(grown)) => lines::say(lines::grown(&grown)),
        // What there is can be used.
        Err(error) => lines::trouble(format_args!("the data partition stays as it is: {error}")),
    }
    Ok(())
}

/// Runs the host until the machine is to end.
async fn host(
    held: &mut Held,
    disk: &SystemDisk,
    announced: watch::Receiver<u64>,
    data: Result<(), String>,
    begun: Begun,
) -> Ending {
    let wishes = match power::listen() {
        Ok(wishes) => wishes,
        Err(error) => {
            lines::trouble(format_args!("no signals: {error}"));
            return Ending::Reboot;
        }
    };
    let watchdog = Arc::new(Watchdog::arm());
    held.watchdog = Some(Arc::clone(&watchdog));
    tokio::spawn(orphans::reap());
    let places = Places {
        config: Path::new(data::BOOT).join("fife.toml"),
        last_good: Path::new(data::DATA).join("config/last-good.toml"),
        state: PathBuf::from(data::DATA),
    };
    consoles::keep(&places);
    let source = places.choose().ok().map(|chosen| chosen.source);
    let disks = Arc::new(Disks::start(disk, announced));
    let mounts = disks.watch();
    let joined = Joined::start(source.as_ref(), disks);
    joined.settled().await;
    let timed = Timed::start(begun, source.as_ref(), &joined);
    held.timed = Some(timed.clone());
    timed.asked(source.as_ref(), &joined).await;
    let machine = Machine { watchdog, wishes, followed: Arc::new(Notify::new()), joined, timed, mounts };
    tokio::spawn(keep_good(places.clone(), machine.clone()));
    let mut said = String::new();
    loop {
        let trouble = match &data {
            Err(trouble) => trouble.clone(),
            Ok(()) => match places.choose() {
                Err(trouble) => trouble,
                Ok(chosen) => match serve(chosen, &places, &machine).await {
                    Ok(ending) => return ending,
                    Err(error) => error.to_string(),
                },
            },
        };
        if trouble != said {
            lines::trouble(format_args!("this machine does not serve:\n{trouble}"));
            said.clone_from(&trouble);
        }
        let mendable = data.is_ok().then_some(&places);
        match trouble::wait(&trouble, &machine, mendable, disk.esp.as_deref()).await {
            Next::TryAgain => {}
            Next::End(ending) => return ending,
        }
    }
}

async fn serve(chosen: Chosen, places: &Places, machine: &Machine) -> Result<Ending, StartError> {
    machine.follow(&chosen.source);
    if let Some(fault) = &chosen.fault {
        lines::trouble(format_args!("the last good fife.toml runs, because of the present one:\n{fault}"));
    }
    let followed = Arc::clone(&machine.followed);
    let mut supervisor = Supervisor::prepare(chosen.source, move |serving: Serving<'_>| {
        let addresses = addresses().iter().filter(|ip| !ip.is_loopback()).map(ToString::to_string).collect::<Vec<_>>();
        lines::say(lines::serving(&serving, &addresses));
        logs::note("serving");
        followed.notify_one();
    })?;
    supervisor.machine = Some(machine.clone());
    if let Err(error) = sethostname(&supervisor.plan.effective.host) {
        warn!(%error, "the host name stays as it is");
    }
    let mending = chosen.fault.is_some().then(|| tokio::spawn(mend(places.clone(), supervisor.asked.clone())));
    let door = || supervisor.asked.clone();
    let telling = [
        tokio::spawn(machine.joined.clone().tell_roles(door())),
        tokio::spawn(machine.timed.clone().tell_roles(door())),
    ];
    let ending = supervisor.run().await;
    telling.iter().for_each(JoinHandle::abort);
    if let Some(mending) = mending {
        mending.abort();
    }
    Ok(ending?)
}

/// Keeps what serves as the last good configuration.
async fn keep_good(places: Places, machine: Machine) {
    loop {
        machine.followed.notified().await;
        if let Ok(chosen) = places.choose() {
            machine.follow(&chosen.source);
        }
        if let Err(error) = places.keep() {
            warn!(%error, "the last good configuration is not kept");
        }
    }
}

/// Makes the host follow the administrator's file as soon as that is good again.
async fn mend(places: Places, door: mpsc::Sender<Asked>) {
    let mut stamp = places.stamp();
    loop {
        tokio::time::sleep(MEND_INTERVAL).await;
        let now = places.stamp();
        if now == stamp || now.is_none() {
            continue;
        }
        stamp = now;
        let (reply, replied) = oneshot::channel();
        if door.send((Request::Reload, reply)).await.is_err() {
            return;
        }
        match replied.await {
            Ok(Reply::Reloaded(_)) => {
                lines::say("fife.toml is good now, and runs");
                return info!("the host follows the mended fife.toml");
            }
            Ok(Reply::Refused(reason)) => lines::trouble(format_args!("fife.toml has changed, but:\n{reason}")),
            Ok(Reply::Status(_) | Reply::Stopping | Reply::Done(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::argument;

    #[test]
    fn the_last_kernel_argument_of_a_name_counts() {
        let check = |arguments: &str, expected: Option<&str>| assert_eq!(argument(arguments, "fife.slot="), expected);
        check("quiet fife.slot=a x fife.slot=b\n", Some("b"));
        check("quiet xfife.slot=a\n", None);
        check("fife.slot=", Some(""));
    }
}
