//! What the console asks of the machine and does to it.
//!
//! Owns: the way to the supervisor, the file, the log, the shell. Called by: `console`. Never: asks questions;
//! what it says in the end is one text.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::menu::{Action, Network, Password};
use super::screen::{Overview, printable};
use crate::cli::{Global, block_on};
use crate::config::address::SocketAddress;
use crate::config::directory::Directory as Settings;
use crate::config::secret::SecretText;
use crate::directory::{AuthError, Directory};
use crate::net::handover::base_dn;
use crate::supervisor::control::{self, AskError, Reply, Request};

/// Lines of the log that are shown: a screen.
const LOG_LINES: usize = 20;
/// How the kernel names disks, and what is as good as one.
const DISKS: [&str; 5] = ["sd", "vd", "nvme", "mmcblk", "xvd"];
const BUSYBOX: &str = "/bin/busybox";

/// The machine's network cards.
pub(super) fn interfaces() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name != "lo");
    names.sort();
    names
}

/// The machine's disks. That of the running system is among them: `fife install` tells why not that one.
pub(super) fn disks() -> Vec<String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| DISKS.iter().any(|kind| name.starts_with(kind)));
    names.sort();
    names
}

/// The state of things now.
pub(super) fn overview(global: &Global) -> Overview {
    let loaded = crate::config::load(&global.config);
    let domain = loaded.as_ref().ok().and_then(|loaded| {
        let site = &loaded.effectives().values().next()?.site;
        site.domain.as_ref().map(ToString::to_string)
    });
    let answer = global.state.as_deref().map(|state| control::ask(state, Request::Status));
    let mut overview = match answer {
        Some(Ok(Reply::Status(status))) => Overview::of(&status, domain.as_deref()),
        Some(Ok(other)) => trouble(format!("unexpected answer: {other:?}")),
        Some(Err(AskError::Unreachable { .. })) => {
            trouble("no service runs: the machine is starting, or has said above what it lacks".to_owned())
        }
        Some(Err(error)) => trouble(error.to_string()),
        None => trouble("no --state was given".to_owned()),
    };
    if let Err(faults) = loaded {
        overview.troubles.push(faults.render(false));
    }
    overview.addresses = addresses();
    overview
}

fn trouble(text: String) -> Overview {
    Overview { version: env!("CARGO_PKG_VERSION").to_owned(), troubles: vec![text], ..Overview::default() }
}

fn addresses() -> Vec<String> {
    let found = getifaddrs().into_iter().flatten().filter(|entry| !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK));
    let show = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let ip = address.as_sockaddr_in().map(|v4| std::net::IpAddr::V4(v4.ip()));
        let ip = ip.or_else(|| address.as_sockaddr_in6().map(|v6| std::net::IpAddr::V6(v6.ip())))?;
        let is_link_local = matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
        (!is_link_local).then(|| format!("{ip} ({})", entry.interface_name))
    };
    found.filter_map(show).collect()
}

/// Does it, and says what came of it.
pub(super) fn perform(global: &Global, action: Action, tty: &Path) -> String {
    let done = match action {
        Action::SetNetwork(network) => set_network(global, &network),
        Action::ShowLog => show_log(global),
        Action::SetTime(unix_secs) => ask(global, Request::SetTime { unix_secs }),
        Action::Reboot => ask(global, Request::Reboot),
        Action::PowerOff => ask(global, Request::Stop),
        Action::Check => fife(global, &["preflight"], tty),
        Action::Install(disk) => fife(global, &["install", &format!("/dev/{disk}")], tty),
        Action::Shell(administrator, password) => shell(global, &administrator, password, tty),
    };
    done.unwrap_or_else(|reason| format!("this failed: {reason}"))
}

fn ask(global: &Global, request: Request) -> Result<String, String> {
    let state = global.state.as_deref().ok_or("no --state was given")?;
    match control::ask(state, request).map_err(|error| error.to_string())? {
        Reply::Stopping => Ok("stopping".to_owned()),
        Reply::Reloaded(_) => Ok("done".to_owned()),
        Reply::Done(said) => Ok(said),
        Reply::Refused(reason) => Err(reason),
        Reply::Status(_) => Err("an unexpected answer".to_owned()),
    }
}

/// Another command of fife's on this terminal; it says and asks what it has to.
fn fife(global: &Global, arguments: &[&str], tty: &Path) -> Result<String, String> {
    let terminal = || File::options().read(true).write(true).open(tty).map_err(|error| error.to_string());
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).arg("--config").arg(&global.config);
    if let Some(state) = &global.state {
        command.arg("--state").arg(state);
    }
    let ended = command.stdin(terminal()?).stdout(terminal()?).stderr(terminal()?).status();
    ended.map(|_| String::new()).map_err(|error| error.to_string())
}

fn set_network(global: &Global, network: &Network) -> Result<String, String> {
    let text = fs::read_to_string(&global.config).map_err(|error| error.to_string())?;
    let host = match crate::config::load(&global.config) {
        Ok(loaded) => global.this_host(&loaded).map_err(|_| "this machine is none of the file's hosts")?,
        Err(faults) => return Err(faults.render(false)),
    };
    let text = super::network::edit(&global.config, &text, &host, network)?;
    crate::appliance::slots::write_settings(&global.config, &text).map_err(|error| error.to_string())?;
    ask(global, Request::Reload)
}

/// The end of the newest log file.
fn show_log(global: &Global) -> Result<String, String> {
    let dir = global.state.as_deref().ok_or("no --state was given")?.join("log");
    let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?.flatten();
    let newest = entries.max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok());
    let path: PathBuf = newest.ok_or("there is none yet")?.path();
    let file = File::open(&path).map_err(|error| error.to_string())?;
    let mut last = VecDeque::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        if last.len() == LOG_LINES {
            last.pop_front();
        }
        last.push_back(printable(&String::from_utf8_lossy(&line)));
    }
    Ok(Vec::from(last).join("\n"))
}

/// A shell on this terminal until it ends, for who proves to be an administrator.
fn shell(global: &Global, administrator: &str, password: Password, tty: &Path) -> Result<String, String> {
    let loaded = crate::config::load(&global.config).map_err(|faults| faults.render(false))?;
    let host = global.this_host(&loaded).map_err(|_| "this machine is none of the file's hosts")?;
    let effective = loaded.effective(&host).ok_or("this machine is none of the file's hosts")?;
    let state = global.state.as_deref().ok_or("no --state was given")?;
    let local = effective.tables.ldap_proxy.listen.iter().find(|address| matches!(address, SocketAddress::Unix(_)));
    let settings = match local {
        Some(socket) => Settings { servers: vec![socket.clone()], ..effective.tables.directory.clone() },
        None => effective.tables.directory.clone(),
    };
    let directory = Directory::connect(&settings, &base_dn(effective), state, None)
        .with_login_domain(effective.site.domain.clone());
    let answer = block_on(directory.authenticate(administrator, &SecretText::new(password.0), None));
    match answer.map_err(|error| error.to_string())? {
        Ok(account) if account.admin => {}
        Ok(_) => return Err("this is no administrator".to_owned()),
        Err(AuthError::Refused) => return Err("wrong address or password".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    tracing::warn!(administrator, "rescue shell");
    let terminal = || File::options().read(true).write(true).open(tty).map_err(|error| error.to_string());
    let ended = Command::new(BUSYBOX)
        .args(["setsid", "-c", BUSYBOX, "sh", "-l"])
        .env("PATH", "/bin:/sbin:/usr/bin")
        .env("TERM", "linux")
        .current_dir("/")
        .stdin(terminal()?)
        .stdout(terminal()?)
        .stderr(terminal()?)
        .status();
    ended.map(|_| "the shell has ended".to_owned()).map_err(|error| format!("{BUSYBOX}: {error}"))
}
