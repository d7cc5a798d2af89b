//! A contender: what is started, asked, stopped and filled.
//!
//! Owns: which contenders there are, their addresses. Called by: the rows. Calls: `fife`, `peer`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fife::Fife;
use crate::peer::Peer;
use crate::{Failure, WAIT_MAX, clock};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    Fife,
    Maildir,
    Sdbox,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Fife, Self::Maildir, Self::Sdbox];

    fn ip(self) -> Ipv4Addr {
        match self {
            Self::Fife => Ipv4Addr::new(127, 91, 0, 1),
            Self::Maildir => Ipv4Addr::new(127, 91, 0, 2),
            Self::Sdbox => Ipv4Addr::new(127, 91, 0, 3),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fife => "fife",
            Self::Maildir => "Postfix + Dovecot maildir",
            Self::Sdbox => "Postfix + Dovecot sdbox",
        })
    }
}

/// What a server listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Smtp,
    Submission,
    Lmtp,
    Imap,
    Pop3,
    Metrics,
}

impl Service {
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Smtp => 2525,
            Self::Submission => 2587,
            Self::Lmtp => 2424,
            Self::Imap => 2143,
            Self::Pop3 => 2110,
            Self::Metrics => 2090,
        }
    }
}

enum Engine {
    Fife(Fife),
    Peer(Peer),
}

/// A running contender with a state of its own; stopped when dropped. Its files stay until the whole run is over: to
/// remove 100,000 of them disturbs whoever is measured next.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    engine: Engine,
    dir: PathBuf,
}

impl Server {
    /// An empty one below `dir`, with the accounts u0 to u(`accounts`-1). `routes`: domains and where their mail goes.
    pub(crate) fn start(
        kind: Kind,
        dir: &Path,
        accounts: u64,
        routes: &[(String, SocketAddr)],
    ) -> Result<Self, Failure> {
        let dir = crate::place(dir)?.keep();
        let ip = kind.ip();
        let engine = match kind {
            Kind::Fife => Engine::Fife(Fife::start(&dir, ip, routes)?),
            Kind::Maildir | Kind::Sdbox => Engine::Peer(Peer::start(&dir, ip, kind, routes)?),
        };
        let mut server = Self { kind, engine, dir };
        server.accounts(0, accounts)?;
        Ok(server)
    }

    /// Adds the accounts `from` to `to` - 1.
    pub(crate) fn accounts(&mut self, from: u64, to: u64) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Fife(fife) => fife.accounts(from, to),
            Engine::Peer(peer) => peer.accounts(to),
        }
    }

    pub(crate) fn addr(&self, service: Service) -> SocketAddr {
        (self.kind.ip(), service.port()).into()
    }

    /// Processes above all others of this server.
    pub(crate) fn roots(&self) -> Vec<i32> {
        match &self.engine {
            Engine::Fife(fife) => fife.roots(),
            Engine::Peer(peer) => peer.roots(),
        }
    }

    /// Where it keeps its files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts messages of `octets` into the mailboxes of these accounts, in turn, the fastest way there is.
    pub(crate) fn fill(&mut self, accounts: std::ops::Range<u64>, count: u64, octets: usize) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Fife(fife) => fife.fill(accounts, count, octets),
            Engine::Peer(peer) => peer.fill(accounts, count, octets),
        }
    }

    /// Stops it, drops what the kernel has cached (where `drop_caches`), starts it again.
    pub(crate) fn restart(&mut self, drop_caches: bool) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Fife(fife) => fife.stop()?,
            Engine::Peer(peer) => peer.stop()?,
        }
        if drop_caches {
            nix::unistd::sync();
            std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        }
        match &mut self.engine {
            Engine::Fife(fife) => fife.launch(),
            Engine::Peer(peer) => peer.launch(),
        }
    }

    /// What it has logged last, for reports of failures.
    pub(crate) fn log_tail(&self) -> String {
        let logs: [PathBuf; 3] = ["log", "postfix/log", "dovecot/log"].map(|name| self.dir.join(name));
        let tail = |path: &PathBuf| {
            let text = String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            Some(lines.iter().skip(lines.len().saturating_sub(8)).fold(String::new(), |all, line| all + line + "\n"))
        };
        logs.iter().filter_map(tail).collect()
    }
}

/// Runs a shell command when this program ends without having dropped it, by whatever signal: no server outlives us.
pub(crate) struct Guard(Child);

impl Guard {
    pub(crate) fn new(command: &str) -> Result<Self, Failure> {
        let child = Command::new("sh")
            // Its input ends when we do.
            .args(["-c", &format!("cat > /dev/null; {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It is there: only we end it.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks again until the condition holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) -> Result<(), Failure> {
    let start = clock::monotonic();
    while !condition() {
        if start.elapsed() > WAIT_MAX {
            return Err(format!("waited {WAIT_MAX:?} for {what}").into());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// Runs a program to its end and gives its standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{command:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
    }
}
