//! The supervisor: sockets, role processes, privileges, reload, control.
//!
//! Owns: the plan of this host and the processes that carry it out. Called by: `fife run`. Never: parses bytes from
//! the network, except the requests for its own metrics (axum); knows roles by name only.
//!
//! One loop owns everything and is told what happened (`Event`); tasks around it wait: for processes, signals, control
//! connections, timers.
//!
//! - `plan`: what is to run, and what a reload changes; `certificate`: the self-signed one; `site`: the one for other hosts;
//! - `state`: the state directory; `disk`: the one under it, and a reserve there; `sockets`: what is listened on;
//! - `process`: between fork and exec, and until the end; `unit`, `backoff`: one role over its processes;
//! - `reload`: following the changed file; `report`: the status;
//! - `boot`: what only process 1 of the appliance does, before and after;
//! - `control`, `status`: `fife status|reload|stop`; `observe`: metrics and health; `founding`: the first administrator.

mod backoff;
pub mod boot;
mod certificate;
pub mod control;
mod disk;
mod founding;
mod observe;
mod plan;
mod process;
mod reload;
mod report;
mod site;
mod sockets;
mod state;
pub mod status;
mod unit;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::base::clock;
use crate::config::address::SocketAddress;
use crate::config::hosts::Role;
use crate::net::{Listener, Shutdown, Stopper, log};

use control::{Asked, Reply, Request, RolePids};
use disk::{Condition, Disk};
pub use founding::FirstAdministrator;
use founding::Founding;
use plan::Plan;
pub use plan::{PlanError, Source};
use process::{Order, STOP_PATIENCE};
use reload::PendingReload;
use sockets::{Access, BindFaults, PREDECESSOR_WAIT_MAX, Sockets};
use state::{StateDir, StateError};
use unit::{Afterwards, Phase, Process, Unit};

/// Events that may wait; who has more to say waits too.
const EVENTS_MAX: usize = 64;
/// How often it is looked whether the self-signed certificate must be made anew.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// Why the supervisor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Bind(#[from] BindFaults),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What is told to whoever called `fife run`, once, when every role serves.
#[derive(Debug)]
pub struct Serving<'a> {
    pub host: &'a str,
    /// The site's first mail domain.
    pub domain: String,
    /// Service and address.
    pub listeners: Vec<(&'static str, SocketAddress)>,
    /// Made just now; none on later starts.
    pub first_administrator: Option<FirstAdministrator>,
}

/// What was wished for when the supervisor was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// On the appliance: switch the machine off.
    Stop,
    /// Start the machine again.
    Reboot,
}

/// Something happened.
#[derive(Debug)]
enum Event {
    /// The process has said that it serves.
    Ready(Role, u64),
    /// The process has ended.
    Ended(Role, u64, String),
    /// The wait before the next process is over.
    StartAgain(Role, u64),
    /// The directory has an administrator.
    Founded(Option<FirstAdministrator>),
    /// A reload has waited long enough for its roles.
    ReloadOverdue(u64),
    /// How the disk is now.
    Disk(Condition),
}

/// Whether the directory of this host has its first administrator. Until it has, the site does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Begins when ldap-proxy serves.
    Wanted,
    UnderWay,
    Done,
}

impl Progress {
    fn of(plan: &Plan, state: &StateDir) -> Self {
        if Founding::of(plan, state.path()).is_some() {
            return Self::Wanted;
        }
        if plan.roles.contains_key(&Role::LdapProxy) {
            warn!("[ldap-proxy] listen has no unix socket: the directory is given no first administrator");
        }
        Self::Done
    }
}

/// The supervisor of this host.
pub struct Supervisor<F> {
    source: Source,
    plan: Plan,
    state: StateDir,
    /// Kept by a task of its own once the host runs.
    disk: Option<Disk>,
    /// As of the last look; none when nothing can be told.
    disk_condition: Option<Condition>,
    /// What the reserve on the disk may take, for that task.
    reserve_max: watch::Sender<u64>,
    sockets: Sockets,
    units: BTreeMap<Role, Unit>,
    role_pids: RolePids,
    /// Counts processes of all roles.
    generations: u64,
    events: mpsc::Sender<Event>,
    asked: mpsc::Sender<Asked>,
    inbox: (mpsc::Receiver<Event>, mpsc::Receiver<Asked>),
    metrics: BTreeMap<SocketAddress, Stopper>,
    reloads: Vec<PendingReload>,
    reloads_begun: u64,
    since: std::time::Instant,
    /// By when everything must have ended; none while it runs.
    stop_by: Option<Instant>,
    ending: Ending,
    /// Of the appliance, whose process 1 this is.
    machine: Option<boot::Machine>,
    founding: Progress,
    first_administrator: Option<FirstAdministrator>,
    /// Called once, when all serve.
    on_serving: Option<F>,
}

impl<F: FnOnce(Serving<'_>)> Supervisor<F> {
    /// Reads the file, takes the state directory, binds. To be called inside a runtime on the thread that will run it: roles
    /// die with the thread that started them.
    ///
    /// # Errors
    /// Everything that stands in the way; nothing has been started then.
    pub fn prepare(mut source: Source, on_serving: F) -> Result<Self, StartError> {
        // What is made without a mode of its own is nobody else's to read.
        umask(Mode::from_bits_truncate(0o077));
        // Before anything is made on disk: a mistyped file leaves nothing behind.
        let loaded = source.load()?;
        source.stand_in = None;
        // Before anything is made there: a disk may be so full that nothing can be.
        Disk::under(&source.state_dir).look_first();
        let state = StateDir::prepare(&source.state_dir)?;
        let plan = source.plan(&loaded)?;
        let log_file = state.open_log(&plan.effective.tables.log)?;
        log::init("supervisor", &plan.effective.host, &plan.effective.tables.log, log_file);
        let mut sockets = Sockets::default();
        let control = [(control_address(&state), Access::Own)];
        let deadline = clock::monotonic() + PREDECESSOR_WAIT_MAX;
        sockets.bind(control.into_iter().chain(wanted_sockets(&plan, &state)), deadline)?;
        for role in plan.roles.keys() {
            state.prepare_role(*role)?;
        }
        let mut disk = Disk::under(state.path());
        let (reserve_max, _) = watch::channel(disk::reserve_max(&plan));
        let disk_condition = disk.look(*reserve_max.borrow());
        let (events, event_inbox) = mpsc::channel(EVENTS_MAX);
        let (asked, asked_inbox) = mpsc::channel(EVENTS_MAX);
        Ok(Self {
            founding: Progress::of(&plan, &state),
            source,
            plan,
            state,
            disk: Some(disk),
            disk_condition,
            reserve_max,
            sockets,
            units: BTreeMap::new(),
            role_pids: RolePids::default(),
            generations: 0,
            events,
            asked,
            inbox: (event_inbox, asked_inbox),
            metrics: BTreeMap::new(),
            reloads: Vec::new(),
            reloads_begun: 0,
            since: clock::monotonic(),
            stop_by: None,
            ending: Ending::Stop,
            machine: None,
            first_administrator: None,
            on_serving: Some(on_serving),
        })
    }

    /// Runs the host until it is told to stop; answers what was wished for.
    ///
    /// # Errors
    /// The system denies what the loop itself needs; roles' troubles are met, not returned.
    pub async fn run(mut self) -> io::Result<Ending> {
        raise_descriptor_limit();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let on_terminal = io::stdin().is_terminal();
        let mut renewal = tokio::time::interval(RENEWAL_INTERVAL);
        renewal.tick().await;
        let mut feeding =
            tokio::time::interval(self.machine.as_ref().map_or(RENEWAL_INTERVAL, boot::Machine::feeding_interval));
        self.serve_control()?;
        self.serve_metrics();
        info!(version = env!("CARGO_PKG_VERSION"), state = %self.state.path().display(), "starting");
        if let Some(disk) = self.disk.take() {
            tokio::spawn(disk::keep(disk, self.reserve_max.subscribe(), self.events.clone()));
        }
        self.tell_of_disk(None);
        // Each asks only those before it, and what it asks waits in the sockets: no need to wait for one another.
        for role in Role::ALL.into_iter().filter(|role| self.plan.roles.contains_key(role)).collect::<Vec<_>>() {
            self.units.insert(role, Unit::new());
            self.start(role);
        }
        while !(self.stop_by.is_some() && self.units.is_empty()) {
            let (events, asked) = &mut self.inbox;
            tokio::select! {
                Some(event) = events.recv() => self.on_event(event),
                Some((request, reply)) = asked.recv() => self.on_request(request, reply),
                // To process 1 they mean something else, and are wishes.
                () = any(&mut terminate, &mut interrupt), if self.machine.is_none() => self.stop(),
                ending = boot::Machine::wish(&mut self.machine) => self.end(ending),
                _ = feeding.tick() => self.machine.iter().for_each(boot::Machine::feed),
                // What we were started from is gone: nobody sees us run any more. Otherwise somebody wants a reload.
                _ = hangup.recv() => if on_terminal && !io::stdin().is_terminal() { self.stop() } else { self.reload(None) },
                _ = renewal.tick() => self.reload(None),
            }
        }
        self.sockets.close_all();
        info!("stopped");
        Ok(self.ending)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Ready(role, generation) => self.on_ready(role, generation),
            Event::Ended(role, generation, how) => self.on_ended(role, generation, &how),
            Event::StartAgain(role, generation) => {
                let due = self.units.get(&role).is_some_and(|unit| unit.generation == generation);
                if due && self.stop_by.is_none() {
                    self.start(role);
                }
            }
            Event::Founded(made) => {
                self.founding = Progress::Done;
                if let Some(made) = &made {
                    info!(address = %made.address, file = %made.file.display(), "made the first administrator");
                }
                self.first_administrator = made;
                self.tell_when_serving();
            }
            Event::ReloadOverdue(number) => self.answer_reloads(|reload| reload.number == number),
            Event::Disk(condition) => {
                let before = self.disk_condition.replace(condition);
                self.tell_of_disk(before.and_then(|before| before.trouble));
            }
        }
    }

    /// Says what is wrong with the disk now, or that nothing is, when that was otherwise before.
    fn tell_of_disk(&self, before: Option<disk::Trouble>) {
        let Some(now) = self.disk_condition.filter(|now| now.trouble != before) else { return };
        let words = now.words();
        match &words {
            Some(words) => error!("{words}"),
            None => info!("the disk is well again"),
        }
        if self.machine.is_some() {
            boot::tell_of_disk(words.as_deref());
        }
    }

    fn on_request(&mut self, request: Request, reply: oneshot::Sender<Reply>) {
        match request {
            Request::Status => self.answer_status(reply),
            Request::Reload => self.reload(Some(reply)),
            Request::Stop => {
                answer(reply, Reply::Stopping);
                self.end(Ending::Stop);
            }
            Request::SetTime { unix_secs } => match &self.machine {
                Some(machine) => machine.set_clock(unix_secs, reply),
                None => answer(
                    reply,
                    Reply::Refused("this is no appliance: fife does not set other people's clocks".to_owned()),
                ),
            },
            Request::Reboot if self.machine.is_none() => {
                answer(
                    reply,
                    Reply::Refused("this is no appliance: fife does not reboot other people's machines".to_owned()),
                );
            }
            Request::Reboot => {
                answer(reply, Reply::Stopping);
                self.end(Ending::Reboot);
            }
        }
    }

    /// Starts the role's process, or sees to it that it is tried again.
    fn start(&mut self, role: Role) {
        self.generations += 1;
        let generation = self.generations;
        let Some(unit) = self.units.get_mut(&role) else { return };
        unit.generation = generation;
        let running = match process::start(role, &self.plan, &self.sockets, &self.state) {
            Ok(running) => running,
            Err(error) => {
                let reason = format!("cannot be started: {error}");
                return self.start_later(role, Duration::ZERO, &reason);
            }
        };
        let (orders, order_inbox) = mpsc::channel(4);
        let pid = running.pid;
        self.role_pids.insert(pid);
        info!(started = %role, pid, "role started");
        unit.phase = Phase::Running(Process { pid, since: clock::monotonic(), ready: false, stopping: None, orders });
        let (events, role_pids) = (self.events.clone(), self.role_pids.clone());
        tokio::spawn(async move {
            let ready_events = events.clone();
            let on_ready = move || {
                tokio::spawn(async move { ready_events.send(Event::Ready(role, generation)).await });
            };
            let how = running.attend(order_inbox, on_ready).await;
            role_pids.remove(pid);
            // An error: the supervisor itself is ending.
            drop(events.send(Event::Ended(role, generation, how)).await);
        });
    }

    /// Starts the role again when its backoff is over.
    fn start_later(&mut self, role: Role, uptime: Duration, reason: &str) {
        let Some(unit) = self.units.get_mut(&role) else { return };
        let wait = unit.backoff.after(uptime);
        unit.restarts += 1;
        let generation = unit.generation;
        error!(ended = %role, reason, uptime_secs = uptime.as_secs(), wait_secs = wait.as_secs(), "role is started again");
        unit.phase = Phase::Waiting { reason: reason.to_owned() };
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            drop(events.send(Event::StartAgain(role, generation)).await);
        });
        // A reload that waits for this role need not wait for its backoff too.
        self.answer_reloads(|reload| reload.waiting_for.contains(&role));
    }

    fn on_ready(&mut self, role: Role, generation: u64) {
        let Some(unit) = self.units.get_mut(&role).filter(|unit| unit.generation == generation) else { return };
        if let Phase::Running(process) = &mut unit.phase {
            process.ready = true;
            info!(serves = %role, pid = process.pid, "role serves");
        }
        if role == Role::LdapProxy
            && self.founding == Progress::Wanted
            && let Some(founding) = Founding::of(&self.plan, self.state.path())
        {
            // Once: two at a time would each make a password.
            self.founding = Progress::UnderWay;
            let events = self.events.clone();
            tokio::spawn(async move { events.send(Event::Founded(founding.found().await)).await });
        }
        for reload in &mut self.reloads {
            reload.waiting_for.remove(&role);
        }
        self.answer_reloads(|reload| reload.waiting_for.is_empty());
        self.tell_when_serving();
    }

    fn on_ended(&mut self, role: Role, generation: u64, how: &str) {
        let Some(unit) = self.units.get_mut(&role).filter(|unit| unit.generation == generation) else { return };
        let (uptime, afterwards) = unit
            .process()
            .map_or((Duration::ZERO, None), |process| (clock::monotonic() - process.since, process.stopping));
        match afterwards {
            Some(_) if self.stop_by.is_some() => {
                info!(stopped = %role, how, "role stopped");
                self.units.remove(&role);
                self.stop_next();
            }
            Some(Afterwards::Start) => self.start(role),
            Some(Afterwards::Nothing) => {
                info!(stopped = %role, how, "role stopped");
                self.units.remove(&role);
            }
            None if self.stop_by.is_some() => {
                warn!(stopped = %role, how, "role ended before it was told to");
                self.units.remove(&role);
                self.stop_next();
            }
            None => self.start_later(role, uptime, how),
        }
    }

    /// Tells a role's process to end.
    fn order_stop(&mut self, role: Role, by: Instant, afterwards: Afterwards) {
        let Some(unit) = self.units.get_mut(&role) else { return };
        match &mut unit.phase {
            Phase::Running(process) => {
                process.stopping = Some(afterwards);
                // Full: it was told before. Closed: it has ended, and that event is on its way.
                process.orders.try_send(Order::Stop(by)).ok();
            }
            Phase::Waiting { .. } if afterwards == Afterwards::Start => {
                unit.backoff = backoff::Backoff::default();
                self.start(role);
            }
            Phase::Waiting { .. } => drop(self.units.remove(&role)),
        }
    }

    /// Begins to stop everything; afterwards this.
    fn end(&mut self, ending: Ending) {
        self.ending = ending;
        self.stop();
    }

    /// Begins to stop everything. Asked for a second time: at once.
    fn stop(&mut self) {
        let now = Instant::now();
        let by = if self.stop_by.is_some() { now } else { now + STOP_PATIENCE };
        info!(patience_secs = (by - now).as_secs(), "stopping");
        if self.stop_by.replace(by).is_some() {
            for role in self.units.keys().copied().collect::<Vec<_>>() {
                self.order_stop(role, by, Afterwards::Nothing);
            }
        }
        self.metrics.clear();
        self.stop_next();
    }

    /// Stops the last one in the order of starting: it may still need those before it to finish what is in hand.
    fn stop_next(&mut self) {
        let Some(by) = self.stop_by else { return };
        while let Some(role) = self.units.keys().next_back().copied() {
            if self.units.get(&role).and_then(Unit::process).is_some_and(|process| process.stopping.is_some()) {
                return;
            }
            self.order_stop(role, by, Afterwards::Nothing);
        }
    }

    /// Tells the caller of `fife run`, the first time that all serve.
    fn tell_when_serving(&mut self) {
        if !(self.founding == Progress::Done && self.units.values().all(Unit::is_ready)) {
            return;
        }
        let Some(on_serving) = self.on_serving.take() else { return };
        let listeners = self.plan.roles.values().flat_map(|role| &role.listeners);
        let mut listeners: Vec<_> = listeners.map(|listener| (listener.service, listener.address.clone())).collect();
        listeners.extend(self.plan.metrics.iter().map(|address| ("metrics", address.clone())));
        on_serving(Serving {
            host: &self.plan.effective.host,
            domain: self.plan.effective.site.domain.as_ref().map(ToString::to_string).unwrap_or_default(),
            listeners,
            first_administrator: self.first_administrator.take(),
        });
    }

    fn serve_control(&self) -> io::Result<()> {
        let fd = self.sockets.get(&control_address(&self.state)).ok_or(io::ErrorKind::NotFound)?;
        let listener = Listener::from_fd(fd.try_clone_to_owned()?)?;
        tokio::spawn(control::serve(listener, self.asked.clone(), self.role_pids.clone()));
        Ok(())
    }

    /// Answers on every metrics address of the plan that is not answered on yet.
    fn serve_metrics(&mut self) {
        for address in &self.plan.metrics {
            if self.metrics.contains_key(address) {
                continue;
            }
            let listener = self.sockets.get(address).and_then(|fd| fd.try_clone_to_owned().ok());
            match listener.map(Listener::from_fd) {
                Some(Ok(listener)) => {
                    let (stopper, shutdown) = Shutdown::pair();
                    let source = observe::Source { asked: self.asked.clone(), run_dir: self.state.path().join("run") };
                    tokio::spawn(observe::serve(listener, source, shutdown));
                    self.metrics.insert(address.clone(), stopper);
                }
                Some(Err(_)) | None => warn!(%address, "metrics are not served"),
            }
        }
    }
}

/// Everything that a plan listens on, and who may connect.
fn wanted_sockets(plan: &Plan, state: &StateDir) -> Vec<(SocketAddress, Access)> {
    let services = plan.addresses().into_iter().map(|address| (address, Access::Roles));
    let questions = plan.roles.keys().map(|role| (process::metrics_address(*role, state), Access::Own));
    services.chain(questions).collect()
}

fn control_address(state: &StateDir) -> SocketAddress {
    SocketAddress::Unix(state.path().join("run/control.sock"))
}

/// Whoever asked may be gone.
fn answer(reply: oneshot::Sender<Reply>, with: Reply) {
    drop(reply.send(with));
}

async fn any(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => (),
        _ = other.recv() => (),
    }
}

/// The supervisor holds every listening socket; the system's usual soft limit is low.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%error, "the limit of open descriptors stays at {soft}");
    }
}
