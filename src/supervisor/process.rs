//! One role process: started with what it may have and nothing else, attended until it ends.
//!
//! Owns: the steps between fork and exec (descriptors, limits, user, death with the parent), stopping with
//! patience. Called by: the supervisor. Never: decides when to start again.
//! Spec: prctl(2), credentials(7), capabilities(7), execve(2).

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::ifaddrs::getifaddrs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::SockaddrStorage;
use nix::unistd::{Gid, Pid, Uid, chdir, getpid, getppid, pipe2, setgroups, setresgid, setresuid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::observe;
use super::plan::{Plan, RolePlan};
use super::sockets::Sockets;
use super::state::StateDir;
use crate::config::address::SocketAddress;
use crate::config::hosts::Role;
use crate::net::handover::{HandedListener, Letter, READY, Revealed};
use crate::net::identity;

/// The program that is running, also after its file was replaced.
const SELF: &str = "/proc/self/exe";
/// Descriptors that a role may have open, as far as the system lets us.
const DESCRIPTORS_MAX: u64 = 262_144;
/// The last capability that any kernel knows is below this (capabilities(7): 40 in Linux 6).
const CAPABILITIES_MAX: libc::c_ulong = 64;

/// A process that was started.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: u32,
    child: Child,
    ready: pipe::Receiver,
}

/// What a running process is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// SIGTERM now, SIGKILL when it is still there by then.
    Stop(Instant),
}

/// Starts a role.
pub(super) fn start(role: Role, plan: &Plan, sockets: &Sockets, state: &StateDir) -> io::Result<Running> {
    let role_plan = plan.roles.get(&role).ok_or(io::ErrorKind::NotFound)?;
    let log = state.open_log(&plan.effective.tables.log).map_err(io::Error::other)?;
    let (ready_read, ready_write) = pipe2(OFlag::O_CLOEXEC)?;
    let letter = letter(role, plan, role_plan, sockets, state, log.as_ref(), &ready_write);
    let memory = letter.write()?;
    let mut keep: Vec<RawFd> = letter.listeners.iter().map(|listener| listener.fd).collect();
    keep.extend(letter.metrics);
    keep.extend(letter.log);
    keep.extend([ready_write.as_raw_fd(), memory.as_raw_fd()]);
    let child = spawn(role, &memory, keep, state)?;
    let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
    let ready = pipe::Receiver::from_owned_fd(ready_read)?;
    Ok(Running { pid, child, ready })
}

fn letter(
    role: Role,
    plan: &Plan,
    role_plan: &RolePlan,
    sockets: &Sockets,
    state: &StateDir,
    log: Option<&File>,
    ready: &OwnedFd,
) -> Letter {
    let listeners = role_plan.listeners.iter().filter_map(|listener| {
        let fd = sockets.raw(&listener.address)?;
        Some(HandedListener { service: listener.service.to_owned(), fd })
    });
    // The directory's own door has no use for the password with which others knock.
    let secrets: BTreeMap<String, Revealed> = plan
        .material
        .secrets_of(role)
        .map(|(key, secret)| (key.to_owned(), Revealed(secret.reveal().to_owned())))
        .collect();
    Letter {
        role,
        effective: plan.effective.clone(),
        state_dir: state.path_for_roles().to_owned(),
        addresses: addresses(),
        secrets,
        tls: Some(role_plan.tls.clone()),
        site: role_plan.site.clone(),
        listeners: listeners.collect(),
        metrics: sockets.raw(&metrics_address(role, state)),
        ready: Some(ready.as_raw_fd()),
        log: log.map(AsRawFd::as_raw_fd),
    }
}

/// The addresses of this machine. When they cannot be told, mail that would come back to us goes round until its hops are too many.
pub(super) fn addresses() -> Vec<IpAddr> {
    let ip_of = |address: SockaddrStorage| {
        let four = || address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        four().or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    match getifaddrs() {
        Ok(all) => all.filter_map(|one| ip_of(one.address?)).collect(),
        Err(error) => {
            warn!(%error, "cannot tell the addresses of this machine");
            Vec::new()
        }
    }
}

/// Where a role answers the supervisor's questions.
pub(super) fn metrics_address(role: Role, state: &StateDir) -> SocketAddress {
    SocketAddress::Unix(state.path().join("run").join(observe::socket_name(role)))
}

#[expect(
    unsafe_code,
    reason = "what a child gives up is given up between fork and exec; std offers only an unsafe hook"
)]
fn spawn(role: Role, memory: &OwnedFd, keep: Vec<RawFd>, state: &StateDir) -> io::Result<Child> {
    let mut command = Command::new(SELF);
    command
        .arg0("fife")
        .args(["role", role.name(), "--handover", &memory.as_raw_fd().to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let parent = getpid();
    let become_what = Become {
        uid: state.uid_of(role),
        mount: state.mount_for_roles(),
        directory: CString::new(state.path_for_roles().join(role.name()).as_os_str().as_bytes())?,
        keep,
    };
    // SAFETY: `become_role` only makes system calls on values that it owns; it takes no lock and no memory, so it does
    // not matter in what state another thread was at the fork.
    unsafe { command.pre_exec(move || become_role(parent, &become_what)) };
    command.spawn()
}

/// What a child needs to know; made before the fork, after which nothing can be.
struct Become {
    /// The user to run under; none: the one we have.
    uid: Option<u32>,
    /// What is bound where first, for this process only.
    mount: Option<(CString, CString)>,
    /// Where the process works.
    directory: CString,
    /// Descriptors that live through exec.
    keep: Vec<RawFd>,
}

/// In the child: gives up everything that a role must not have.
fn become_role(parent: Pid, role: &Become) -> io::Result<()> {
    close_the_rest();
    for fd in &role.keep {
        inherit(*fd)?;
    }
    limit()?;
    if let Some((from, to)) = &role.mount {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let nothing: Option<&CStr> = None;
        // Or the mount would be seen by the whole machine.
        mount(nothing, c"/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(Some(from.as_c_str()), to.as_c_str(), nothing, MsFlags::MS_BIND, nothing)?;
    }
    chdir(role.directory.as_c_str())?;
    if let Some(uid) = role.uid {
        drop_bounding_set();
        setgroups(&[Gid::from_raw(identity::ROLES_GID)])?;
        let gid = Gid::from_raw(uid);
        setresgid(gid, gid, gid)?;
        // Takes all capabilities away with it (capabilities(7), "Effect of user ID changes on capabilities").
        let uid = Uid::from_raw(uid);
        setresuid(uid, uid, uid)?;
    }
    nix::sys::prctl::set_no_new_privs()?;
    // After the change of user, which clears it. A supervisor that is killed takes its roles with it: none may go on
    // holding a store that the next supervisor's role opens.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // It died in between.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// Marks every descriptor to be closed by exec: ours are already, but whoever started us may have left some open.
#[expect(unsafe_code, reason = "nix has no close_range")]
fn close_the_rest() {
    let first = libc::c_uint::try_from(libc::STDERR_FILENO).unwrap_or(2) + 1;
    let how = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes plain numbers and closes nothing now. A kernel before 5.11 refuses; our own descriptors are
    // marked one by one all the same.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, how) };
}

/// Lets this descriptor live through exec.
#[expect(unsafe_code, reason = "the number is of this process's own table, but its owner is the parent's variable")]
fn inherit(fd: RawFd) -> io::Result<()> {
    // SAFETY: the parent holds every descriptor in `keep` open until after the fork.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    Ok(())
}

/// No core files, which would hold mail and keys; as many descriptors as we can have.
fn limit() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Raising the hard limit takes root; with less, what there is must do.
    if setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX, DESCRIPTORS_MAX.max(hard)).is_err() && soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// No program that the role could ever execute may bring a capability back.
#[expect(
    unsafe_code,
    reason = "nix has no PR_CAPBSET_DROP, and the caps crate allocates, which a forked child must not"
)]
fn drop_bounding_set() {
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: takes plain numbers; fails for those that the kernel does not know, and harmlessly so.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

impl Running {
    /// Waits until the process has said that it serves; false when it ended without.
    /// Then, until it ends, does as ordered. `on_ready` is called in between.
    pub(super) async fn attend(mut self, mut orders: mpsc::Receiver<Order>, on_ready: impl FnOnce()) -> String {
        let mut on_ready = Some(on_ready);
        let mut said = [0; READY.len()];
        let mut deadline: Option<Instant> = None;
        loop {
            let patience = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                status = self.child.wait() => return describe(status),
                Some(order) = orders.recv() => {
                    let Order::Stop(by) = order;
                    if deadline.is_none() {
                        self.signal(Signal::SIGTERM);
                    }
                    deadline = Some(by);
                }
                () = patience => {
                    warn!(pid = self.pid, "did not end in time: killed");
                    self.signal(Signal::SIGKILL);
                    return describe(self.child.wait().await);
                }
                read = self.ready.read_exact(&mut said), if on_ready.is_some() => {
                    let on_ready = on_ready.take();
                    if read.is_ok() && said == *READY && let Some(on_ready) = on_ready {
                        on_ready();
                    }
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // None once it has been waited for: the number may be another process's by then.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            warn!(pid, %signal, %error, "cannot signal");
        }
    }
}

/// How a process ended, in words.
fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("cannot be waited for: {error}"),
    }
}

/// Time that roles have to finish what is in hand.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(30);
