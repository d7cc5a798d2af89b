//! A site to test against: its own state, its own loopback address, the real binary.
//!
//! Owns: starting, stopping, killing and asking `fife run`; running other programs
//! with a deadline. Called by: every module of this test binary. Never: waits for a time; it waits for conditions.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The binary under test.
pub const FIFE: &str = env!("CARGO_BIN_EXE_fife");
/// How long anything in these tests may take before it counts as hanging.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Service names and the ports that they have in the demo; every site has its own address.
const PORTS: [(&str, u16); 11] = [
    ("smtp", 2525),
    ("submission", 2587),
    ("submissions", 2465),
    ("imap", 2143),
    ("imaps", 2993),
    ("pop3", 2110),
    ("pop3s", 2995),
    ("lmtp", 2424),
    ("ldap", 2389),
    ("ldaps", 2636),
    ("metrics", 2090),
];

/// A running site; killed and removed when dropped.
pub struct Site {
    dir: tempfile::TempDir,
    ip: Ipv4Addr,
    /// Which of the file's hosts it is; the file tells when there is one only.
    host: Option<&'static str>,
    child: Option<Child>,
}

impl Site {
    /// A site with every role, started and healthy.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more TOML after the usual text (tables that the usual text does not have).
    pub fn start_with(more: &str) -> Self {
        let mut site = Self::prepare(more);
        site.launch();
        site
    }

    /// Writes the configuration, starts nothing.
    pub fn prepare(more: &str) -> Self {
        // Short path: a unix socket's name has 107 bytes.
        let dir = tempfile::Builder::new().prefix("fife").tempdir_in("/tmp").unwrap();
        // Roles run under uids of their own and must reach the state directory.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let ip = own_address();
        let site = Self { dir, ip, host: None, child: None };
        std::fs::write(site.config(), format!("{}\n{more}", usual_toml(ip, &site.state()))).unwrap();
        site
    }

    /// Makes it this host of the file.
    pub fn be(&mut self, host: &'static str) {
        self.host = Some(host);
    }

    /// Starts `fife run` and waits until every role is healthy.
    pub fn launch(&mut self) {
        self.spawn();
        self.wait_healthy();
    }

    /// Starts `fife run` and waits for nothing.
    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let child = Command::new(FIFE)
            .args(self.flags("run"))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(self.told_path()).unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("fife starts");
        self.child = Some(child);
    }

    /// Waits until `fife status` says that all is well.
    pub fn wait_healthy(&self) {
        wait_for("every role to be healthy", || self.fife(&["status"]).status.success(), || self.log_tail());
    }

    /// Adds `NAME@example.test` with this password.
    pub fn user(&self, name: &str, password: &str) {
        let address = format!("{name}@example.test");
        let mut args = self.flags("user");
        args.extend(["add".into(), address, "--password-stdin".into()]);
        let output = run_with_input(FIFE, &args, password.as_bytes());
        assert!(output.status.success(), "user add: {}\n{}", text(&output), self.log_tail());
    }

    /// Runs `fife COMMAND --config … --state … REST…`.
    pub fn fife(&self, args: &[&str]) -> Output {
        let (command, rest) = args.split_first().expect("a command");
        let mut all = self.flags(command);
        all.extend(rest.iter().map(|arg| (*arg).to_owned()));
        run_with_input(FIFE, &all, b"")
    }

    /// What `fife status --json` prints.
    pub fn status(&self) -> serde_json::Value {
        let output = self.fife(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("status: {error}: {}", text(&output)))
    }

    /// Address of a service; see `PORTS` for the names.
    pub fn addr(&self, service: &str) -> SocketAddr {
        (self.ip, port(service)).into()
    }

    /// `IP:PORT` of a service.
    pub fn at(&self, service: &str) -> String {
        self.addr(service).to_string()
    }

    /// The site's own loopback address.
    pub fn ip(&self) -> String {
        self.ip.to_string()
    }

    /// Port of a service as text.
    pub fn port(&self, service: &str) -> String {
        port(service).to_string()
    }

    /// The directory that holds everything of this site.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The TOML.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("fife.toml")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Everything that `fife run` and its roles have logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log, for failure reports.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(40)).fold(String::new(), |all, line| all + line + "\n")
    }

    /// Process id of the supervisor.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().expect("running").id()).unwrap())
    }

    /// Process id of a role, as `fife status` tells it; none while it is down.
    pub fn role_pid(&self, role: &str) -> Option<Pid> {
        let status = self.status();
        let entry = status.get("roles")?.as_array()?.iter().find(|entry| entry["role"] == role)?.clone();
        entry.get("pid")?.as_i64().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
    }

    /// kill -9 of one role; returns its former pid.
    pub fn kill_role(&self, role: &str) -> Pid {
        let pid = self.role_pid(role).expect("role is up");
        kill(pid, Signal::SIGKILL).unwrap();
        pid
    }

    /// kill -9 of the supervisor's process group, roles included; nothing of it runs when this returns.
    pub fn kill_all(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let roles: Vec<Pid> = children_of(group);
            // The group may be gone already: then there is nothing to kill.
            killpg(group, Signal::SIGKILL).ok();
            child.wait().unwrap();
            for role in roles {
                wait_for("role to be gone", || !is_running(role), String::new);
            }
        }
    }

    /// SIGTERM to the supervisor; waits for it; true when it ended well.
    pub fn stop(&mut self) -> bool {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let mut child = self.child.take().unwrap();
        let mut code = None;
        wait_for(
            "fife to stop",
            || {
                code = child.try_wait().unwrap();
                code.is_some()
            },
            || self.log_tail(),
        );
        code.is_some_and(|code| code.success())
    }

    /// `--config`, `--state` for this site behind a command's name.
    fn flags(&self, command: &str) -> Vec<String> {
        let (config, state) = (self.config().display().to_string(), self.state().display().to_string());
        let mut flags = vec![command.to_owned(), "--config".into(), config, "--state".into(), state];
        flags.extend(self.host.into_iter().flat_map(|host| ["--host".to_owned(), host.to_owned()]));
        flags
    }

    /// What the last `fife run` has told people on standard output.
    pub fn told(&self) -> String {
        std::fs::read_to_string(self.told_path()).unwrap()
    }

    fn told_path(&self) -> PathBuf {
        self.dir.path().join("told")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.dir.path().display(), self.log_tail());
        }
    }
}

/// 127.A.B.C, unique to this process and call: no two sites ever share a port.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let byte = |number: u32| u8::try_from(number % 250 + 2).unwrap();
    Ipv4Addr::new(127, byte(pid), byte(pid / 250 + nth / 250), byte(nth))
}

fn port(service: &str) -> u16 {
    PORTS.iter().find(|(name, _)| *name == service).unwrap_or_else(|| panic!("no service {service}")).1
}

fn usual_toml(ip: Ipv4Addr, state: &Path) -> String {
    let at = |service: &str| format!("\"{ip}:{}\"", port(service));
    format!(
        r#"[site]
name = "demo"
domain = "example.test"
state = "{state}"

[hosts.demo]
roles = ["ldap-proxy", "pop-imap", "smtp"]

[hosts.demo.metrics]
listen = [{metrics}]

[hosts.demo.smtp]
listen = [{smtp}]
listen-submission = [{submission}]
listen-submissions = [{submissions}]
connections-per-client-max = 1000
free-space-min = "4 MiB"

[hosts.demo.pop-imap]
listen-imap = [{imap}]
listen-imaps = [{imaps}]
listen-pop3 = [{pop3}]
listen-pop3s = [{pop3s}]
listen-lmtp = ["unix:run/lmtp.sock", {lmtp}]
connections-per-client-max = 1000
free-space-min = "4 MiB"

[hosts.demo.ldap-proxy]
listen = ["unix:run/ldap.sock", {ldap}]
listen-tls = [{ldaps}]
"#,
        state = state.display(),
        metrics = at("metrics"),
        smtp = at("smtp"),
        submission = at("submission"),
        submissions = at("submissions"),
        imap = at("imap"),
        imaps = at("imaps"),
        pop3 = at("pop3"),
        pop3s = at("pop3s"),
        lmtp = at("lmtp"),
        ldap = at("ldap"),
        ldaps = at("ldaps"),
    )
}

/// Asks again until the condition holds; past the deadline it fails and shows `context`.
#[expect(clippy::disallowed_methods, reason = "a poll needs a pause and a deadline")]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool, context: impl FnOnce() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}\n{}", context());
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Runs a program to its end, or kills it at the deadline.
pub fn run(program: &str, args: &[&str], input: &[u8]) -> Output {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    run_with_input(program, &args, input)
}

/// Runs Python's `script` with these arguments.
pub fn python(script: &str, args: &[&str]) -> Output {
    let mut all = vec!["-"];
    all.extend(args);
    run("python3", &all, script.as_bytes())
}

/// Fails with everything that the program printed unless it ended with 0; gives its standard output.
pub fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit status and both outputs, for reports.
pub fn text(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", output.status)
}

fn run_with_input(program: &str, args: &[String], input: &[u8]) -> Output {
    let mut child = Command::new("timeout")
        .args(["--kill-after=5", "120", program])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // It may say much before it has read all. One that does not read its input closes the pipe: not this function's business.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Processes whose parent this is, whichever of its threads started them.
fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let list = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let lists: Vec<String> = threads.filter_map(Result::ok).map(list).collect();
    lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Whether the process runs: a zombie that nobody has waited for yet does not.
fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
