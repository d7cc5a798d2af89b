//! A role that is taken over: what it can still reach.
//!
//! Owns: the proof of the sandbox. fife's supervisor runs inside this test binary and starts its roles as it always does, by executing
//! itself: so this binary again, which takes the handover, enters the sandbox as `fife role` does, and then tries everything that an
//! intruder would try. Called by: `cargo test`. Never: tests what a healthy role does; all the other modules do.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fife::config::hosts::Role;
use fife::net::{Handover, sandbox};
use fife::supervisor::{Source, Supervisor};
use nix::unistd::geteuid;

use crate::harness::{Site, good, run, wait_for};

const ROLES: [&str; 3] = ["ldap-proxy", "pop-imap", "smtp"];
/// Stands in the TOML; a role may have only what it was handed.
const SECRET: &str = "secret of the directory";
/// Last line of a report.
const END: &str = "end";

/// Runs before the test harness does, in every process of this binary: some of them are no tests.
#[used]
#[expect(unsafe_code, reason = "the harness has the only main; what is not for it is taken from it before")]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let line = fs::read("/proc/self/cmdline").unwrap_or_default();
    let words: Vec<String> =
        line.split(|octet| *octet == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["fife", "role", role, "--handover", letter, ..] => taken_over(role, letter.parse().unwrap()),
        ["fife", "supervise", config, state, ..] => supervise(config, state),
        _ => return,
    }
    std::process::exit(0);
}

/// `fife run`, with this binary as its roles.
fn supervise(config: &str, state: &str) {
    let source = Source { config: config.into(), host: None, state_dir: state.into(), stand_in: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let supervisor = Supervisor::prepare(source, |_| {}).unwrap_or_else(|error| panic!("{error}"));
        supervisor.run().await.unwrap();
    });
}

/// A role, up to where it would serve; there an intruder goes on. What is to be attacked stands in `go`, when it may begin.
fn taken_over(role: &str, letter: i32) {
    let handover = Handover::receive(letter).unwrap();
    sandbox::enter(&handover).unwrap();
    let own = handover.role_dir();
    fs::write(own.join("mine"), role).unwrap();
    let go = loop {
        match fs::read_to_string(own.join("go")) {
            Ok(text) if text.ends_with(END) => break text,
            Ok(_) | Err(_) => pause(),
        }
    };
    let mut report = String::new();
    for (what, outcome) in needed(&handover) {
        writeln!(report, "needed {what}: {}", words(&outcome)).unwrap();
    }
    for (what, outcome) in attempts(&handover, &go) {
        writeln!(report, "attempt {what}: {}", words(&outcome)).unwrap();
    }
    report.push_str(END);
    fs::write(own.join("report"), report).unwrap();
    loop {
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a condition in another process's files is asked again")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn words(outcome: &io::Result<()>) -> String {
    match outcome {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("refused ({error})"),
    }
}

type Outcomes = Vec<(String, io::Result<()>)>;

/// What a role cannot work without.
fn needed(handover: &Handover) -> Outcomes {
    let own = handover.role_dir();
    let thread = || std::thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::Error::other("panicked"));
    let question = || UdpSocket::bind("0.0.0.0:0")?.connect("127.0.0.1:53");
    let dir = || {
        fs::create_dir(own.join("x"))?;
        fs::write(own.join("x/y"), "z")?;
        fs::rename(own.join("x/y"), own.join("y"))?;
        fs::remove_file(own.join("y"))
    };
    let door = || UnixStream::connect(handover.state_dir.join("run/ldap.sock")).map(drop);
    vec![
        ("its own directory".to_owned(), dir()),
        ("a thread".to_owned(), thread()),
        ("a question to DNS".to_owned(), question()),
        ("the directory's door".to_owned(), door()),
    ]
}

/// Everything that must fail.
fn attempts(handover: &Handover, go: &str) -> Outcomes {
    let mut outcomes = files(handover, go);
    let pids = go.lines().filter_map(|line| line.strip_prefix("pid ")).map(|pid| pid.parse::<i32>().unwrap());
    pids.for_each(|pid| outcomes.extend(processes(pid)));
    outcomes.extend(programs());
    outcomes.extend(network(&handover.role_dir()));
    outcomes.extend(control(&handover.state_dir));
    outcomes.extend(kernel());
    outcomes
}

fn files(handover: &Handover, go: &str) -> Outcomes {
    let state = &handover.state_dir;
    let read = |path: PathBuf| (format!("read {}", path.display()), fs::read(&path).map(drop));
    let write = |path: PathBuf| (format!("write {}", path.display()), fs::write(&path, ""));
    let mut outcomes = Outcomes::new();
    for path in ["/etc/shadow", "/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", "/dev/sda", "/bin/true"] {
        outcomes.push(read(path.into()));
    }
    for line in go.lines().filter_map(|line| line.strip_prefix("file ")) {
        outcomes.push(read(line.into()));
    }
    outcomes.push(read(state.join("tls/key.pem")));
    for role in ROLES.into_iter().filter(|role| *role != handover.role.name()) {
        let other = state.join(role);
        outcomes.push(read(other.join("mine")));
        outcomes.push((format!("list {role}"), fs::read_dir(&other).map(drop)));
        outcomes.push((format!("write into {role}"), fs::write(other.join("new"), "")));
        outcomes.push((format!("remove from {role}"), fs::remove_file(other.join("mine"))));
        let link = handover.role_dir().join(role);
        outcomes.push((format!("link to {role}"), fs::hard_link(other.join("mine"), &link)));
        drop(std::os::unix::fs::symlink(other.join("mine"), &link));
        outcomes.push((format!("read {role} by a link"), fs::read(&link).map(drop)));
        let around = handover.role_dir().join("..").join(role).join("mine");
        outcomes.push((format!("read {role} by .."), fs::read(around).map(drop)));
    }
    outcomes.push(write(state.join("run/new")));
    outcomes.push(write(state.join("new")));
    outcomes.push(write("/tmp/fife-was-here".into()));
    outcomes.push(write("/dev/shm/fife-was-here".into()));
    outcomes.push(("remove a socket".to_owned(), fs::remove_file(state.join("run/ldap.sock"))));
    outcomes.push(("list the root".to_owned(), fs::read_dir("/").map(drop)));
    if handover.role == Role::LdapProxy {
        // It has no use for the password with which others knock at its door.
        let absent = handover.secret("directory.bind-password").is_none();
        let outcome = if absent { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) };
        outcomes.push(("the secret of others".to_owned(), outcome));
    }
    outcomes
}

fn processes(pid: i32) -> Outcomes {
    let pid_long = i64::from(pid);
    let mut outcomes = Outcomes::new();
    for file in ["environ", "mem", "maps", "cmdline", "fd", "root/etc/shadow", "cwd/mine"] {
        outcomes.push((format!("/proc/{pid}/{file}"), fs::File::open(format!("/proc/{pid}/{file}")).map(drop)));
    }
    let mut octet = 0_u8;
    let local = libc::iovec { iov_base: std::ptr::from_mut(&mut octet).cast(), iov_len: 1 };
    let vector = std::ptr::from_ref(&local) as i64;
    for (what, number, arguments) in [
        ("signal", libc::SYS_kill, [pid_long, 0, 0, 0, 0]),
        ("kill", libc::SYS_kill, [pid_long, 9, 0, 0, 0]),
        ("signal the group of", libc::SYS_kill, [-pid_long, 0, 0, 0, 0]),
        ("signal a thread of", libc::SYS_tgkill, [pid_long, pid_long, 0, 0, 0]),
        ("queue a signal to", libc::SYS_rt_sigqueueinfo, [pid_long, 0, vector, 0, 0]),
        ("trace", libc::SYS_ptrace, [16, pid_long, 0, 0, 0]), // PTRACE_ATTACH
        ("seize", libc::SYS_ptrace, [0x4206, pid_long, 0, 0, 0]),
        ("read the memory of", libc::SYS_process_vm_readv, [pid_long, vector, 1, vector, 1]),
        ("write the memory of", libc::SYS_process_vm_writev, [pid_long, vector, 1, vector, 1]),
        ("open", libc::SYS_pidfd_open, [pid_long, 0, 0, 0, 0]),
        ("limit", libc::SYS_prlimit64, [pid_long, 7, 0, vector, 0]),
    ] {
        outcomes.push((format!("{what} {pid}"), call(number, arguments)));
    }
    outcomes
}

fn programs() -> Outcomes {
    let mut outcomes = Outcomes::new();
    for program in ["/bin/true", "/bin/sh", "/proc/self/exe"] {
        outcomes.push((format!("start {program}"), Command::new(program).status().map(drop)));
        outcomes.push((format!("become {program}"), Err(Command::new(program).exec())));
    }
    let memory = nix::sys::memfd::memfd_create(c"program", nix::sys::memfd::MFdFlags::empty()).unwrap();
    let script = c"";
    let arguments = [i64::from(memory.as_raw_fd()), script.as_ptr() as i64, 0, 0, i64::from(libc::AT_EMPTY_PATH)];
    outcomes.push(("become what stands in memory".to_owned(), call(libc::SYS_execveat, arguments)));
    let sigchld = i64::from(libc::SIGCHLD);
    for (what, number, first) in [
        ("fork", libc::SYS_fork, 0),
        ("vfork", libc::SYS_vfork, 0),
        ("clone a process", libc::SYS_clone, sigchld),
        ("clone3", libc::SYS_clone3, 0),
        ("fork by x32", libc::SYS_fork + 0x4000_0000, 0),
        ("execve by x32", 520 + 0x4000_0000, 0),
    ] {
        outcomes.push((what.to_owned(), call(number, [first, 0, 0, 0, 0])));
    }
    let execute = i64::from(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    let private = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    outcomes.push(("memory to be executed".to_owned(), call(libc::SYS_mmap, [0, 4096, execute, private, -1])));
    let page = vec![0_u8; 8192];
    let aligned = (page.as_ptr() as i64 + 4095) & !4095;
    let protect = i64::from(libc::PROT_READ | libc::PROT_EXEC);
    outcomes.push(("data to be executed".to_owned(), call(libc::SYS_mprotect, [aligned, 1, protect, 0, 0])));
    outcomes
}

fn network(own: &Path) -> Outcomes {
    let mut outcomes = vec![
        ("listen on a port".to_owned(), TcpListener::bind("127.0.0.1:0").map(drop)),
        ("listen on a unix socket".to_owned(), UnixListener::bind(own.join("s")).map(drop)),
    ];
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::empty(),
        None,
    );
    let fd = i64::from(socket.unwrap().as_raw_fd());
    outcomes.push(("listen without a bind".to_owned(), call(libc::SYS_listen, [fd, 1, 0, 0, 0])));
    for (what, family, kind) in [
        ("a packet socket", libc::AF_PACKET, libc::SOCK_RAW),
        ("a netlink socket", libc::AF_NETLINK, libc::SOCK_RAW),
        ("a raw socket", libc::AF_INET, libc::SOCK_RAW),
        ("a vsock", libc::AF_VSOCK, libc::SOCK_STREAM),
        ("the kernel's ciphers", libc::AF_ALG, libc::SOCK_SEQPACKET),
    ] {
        let outcome = call(libc::SYS_socket, [i64::from(family), i64::from(kind), 1, 0, 0]);
        outcomes.push((what.to_owned(), outcome));
    }
    outcomes
}

/// What the supervisor does for its owner.
fn control(state: &Path) -> Outcomes {
    let ask = |command: &str| -> io::Result<()> {
        let mut stream = UnixStream::connect(state.join("run/control.sock"))?;
        stream.write_all(format!("{{\"command\":\"{command}\"}}\n").as_bytes())?;
        match BufReader::new(stream).lines().next() {
            Some(answer) => answer.map(drop),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    };
    let questions = ["status", "reload", "stop"].into_iter();
    questions.map(|command| (format!("ask for {command}"), ask(command))).collect()
}

fn kernel() -> Outcomes {
    let path = CString::new("/").unwrap();
    let root = path.as_ptr() as i64;
    [
        ("mount", libc::SYS_mount, [root, root, 0, 4096, 0]),
        ("umount", libc::SYS_umount2, [root, 2, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [-100, root, 1, 0, 0]),
        ("chroot", libc::SYS_chroot, [root, 0, 0, 0, 0]),
        ("unshare users", libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [0, 0, 0, 0, 0]),
        ("a device", libc::SYS_mknodat, [-100, root, 0o20_666, 0x103, 0]),
        ("become root", libc::SYS_setuid, [0, 0, 0, 0, 0]),
        ("become root thrice", libc::SYS_setresuid, [0, 0, 0, 0, 0]),
        ("a module", libc::SYS_finit_module, [0, root, 0, 0, 0]),
        ("another kernel", libc::SYS_kexec_load, [0, 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0]),
        ("the kernel's log", libc::SYS_syslog, [10, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0]),
        ("perf", libc::SYS_perf_event_open, [0, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0]),
        ("keys", libc::SYS_keyctl, [0, -3, 1, 0, 0]),
        ("io_uring", libc::SYS_io_uring_setup, [1, root, 0, 0, 0]),
        ("personality", libc::SYS_personality, [0, 0, 0, 0, 0]),
        ("the clock", libc::SYS_clock_settime, [0, 0, 0, 0, 0]),
        ("the host's name", libc::SYS_sethostname, [root, 1, 0, 0, 0]),
    ]
    .into_iter()
    .map(|(what, number, arguments)| (what.to_owned(), call(number, arguments)))
    .collect()
}

/// A system call as an intruder makes it.
#[expect(unsafe_code, reason = "an intruder asks nobody")]
fn call(number: i64, [a, b, c, d, e]: [i64; 5]) -> io::Result<()> {
    // SAFETY: every call here is one that must be refused; if one is not, the process is done with all the same, and the test fails.
    let outcome = unsafe { libc::syscall(number, a, b, c, d, e) };
    if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The supervisor in a process of its own; its roles die with it.
struct Supervised(Child);

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Pids of the roles by name: children of this process.
fn roles_of(supervisor: u32) -> BTreeMap<String, u32> {
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
    let named = children.split_whitespace().filter_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((name.trim_end().strip_prefix("fife-")?.to_owned(), pid.parse().ok()?))
    });
    named.collect()
}

/// What each role reported.
fn play(site: &Site, binary: &Path, uid: Option<u32>) -> BTreeMap<&'static str, String> {
    let mut command = Command::new(binary);
    command.arg0("fife").arg("supervise").arg(site.config()).arg(site.state());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let log = fs::File::create(site.dir().join("log")).unwrap();
    let child = command.env("NOT_FOR_ROLES", SECRET).stdin(Stdio::null()).stderr(log).spawn().unwrap();
    let supervised = Supervised(child);
    let supervisor = supervised.0.id();
    let state = site.state();
    let all_have = |file: &str| ROLES.iter().all(|role| state.join(role).join(file).exists());
    wait_for("roles in their sandboxes", || all_have("mine") && roles_of(supervisor).len() == 3, || site.log_tail());
    let pids = roles_of(supervisor);
    for role in ROLES {
        let mut go = format!("file {}\npid {supervisor}\n", site.config().display());
        for (_, pid) in pids.iter().filter(|(name, _)| *name != role) {
            writeln!(go, "pid {pid}").unwrap();
        }
        fs::write(state.join(role).join("go"), go + END).unwrap();
        fs::set_permissions(state.join(role).join("go"), PermissionsExt::from_mode(0o644)).unwrap();
    }
    let report = |role: &str| fs::read_to_string(state.join(role).join("report")).unwrap_or_default();
    wait_for("reports", || ROLES.iter().all(|role| report(role).ends_with(END)), || site.log_tail());
    assert_eq!(roles_of(supervisor), pids, "nobody was hurt");
    ROLES.into_iter().map(|role| (role, report(role))).collect()
}

fn check(reports: &BTreeMap<&'static str, String>) {
    for (role, report) in reports {
        let lines = |start: &str| report.lines().filter(|line| line.starts_with(start)).count();
        assert!(lines("attempt ") > 110 && lines("needed ") == 4, "{role}: {report}");
        for line in report.lines() {
            let good = line == END
                || (line.starts_with("needed ") && line.ends_with(": done"))
                || (line.starts_with("attempt ") && line.contains(": refused"));
            assert!(good, "{role}: {line}");
        }
    }
}

fn prepared() -> Site {
    let site = Site::prepare("");
    let toml = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), format!("{toml}\n[directory]\nbind-dn = \"uid=x\"\nbind-password = \"{SECRET}\"\n"))
        .unwrap();
    site
}

#[test]
fn a_role_that_is_taken_over_reaches_nothing_of_the_others() {
    let site = prepared();
    check(&play(&site, &std::env::current_exe().unwrap(), None));
}

#[test]
fn without_root_a_role_that_is_taken_over_reaches_nothing_of_the_others_either() {
    const USER: u32 = 65_534;
    if !geteuid().is_root() {
        return; // The test above has shown it.
    }
    let site = prepared();
    for path in [site.dir().to_owned(), site.config()] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    // The path to the built binary may be closed to others.
    let binary = site.dir().join("site");
    // By another process: one that a test next door has just forked from this one would hold a descriptor that writes, and the copy could
    // not be executed.
    let own = std::env::current_exe().unwrap();
    good(&run("cp", &[own.to_str().unwrap(), binary.to_str().unwrap()], b""));
    check(&play(&site, &binary, Some(USER)));
}
