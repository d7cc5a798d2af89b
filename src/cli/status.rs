//! `fife status`: what runs on this host, and how it is.
//!
//! Owns: the table. Called by: `cli`. Exit: 0 all good, 1 some role is not, 3 nothing runs.

use super::{Exit, Global, complain, print};
use crate::supervisor::control::{self, AskError, Reply, Request};
use crate::supervisor::status::Status;

pub(super) fn run(global: &Global) -> Exit {
    let reply = match ask(global, Request::Status) {
        Ok(reply) => reply,
        Err(exit) => return exit,
    };
    let Reply::Status(status) = reply else {
        complain(format_args!("unexpected answer: {reply:?}"));
        return Exit::Failed;
    };
    if global.json {
        super::print_json(&status);
    } else {
        print(table(&status));
    }
    if status.good { Exit::Done } else { Exit::Failed }
}

/// Asks the running fife; says what is wrong when there is no reply.
pub(super) fn ask(global: &Global, request: Request) -> Result<Reply, Exit> {
    match control::ask(&global.state_dir()?, request) {
        Ok(reply) => Ok(reply),
        Err(error) => {
            complain(&error);
            Err(if matches!(error, AskError::Unreachable { .. }) { Exit::Unreachable } else { Exit::Failed })
        }
    }
}

/// The status for people.
pub(super) fn table(status: &Status) -> String {
    let Status { host, version, pid, uptime_secs, .. } = status;
    let health = if status.good { "good" } else { "not good" };
    let mut lines = vec![
        format!("host {host}: {health}; fife {version}, pid {pid}, up {}", span(*uptime_secs)),
        format!(
            "{:<12} {:<9} {:>8} {:>10} {:>8} {:>9}  listens on",
            "role", "state", "pid", "up", "restarts", "memory"
        ),
    ];
    for role in &status.roles {
        let pid = role.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let memory = role.rss_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let listeners: Vec<_> =
            role.listeners.iter().map(|listener| format!("{} {}", listener.service, listener.address)).collect();
        lines.push(format!(
            "{:<12} {:<9} {pid:>8} {:>10} {:>8} {memory:>9}  {}",
            role.role.name(),
            role.state.name(),
            span(role.uptime_secs),
            role.restarts,
            listeners.join(", ")
        ));
        lines.extend(role.reason.iter().map(|reason| format!("{:<12} {reason}", "")));
    }
    if let Some(disk) = &status.disk {
        let mib = |bytes: u64| bytes >> 20;
        lines.push(format!("disk: {} of {} MiB free", mib(disk.free_bytes), mib(disk.size_bytes)));
        lines.extend(disk.trouble.iter().map(|trouble| format!("{:<12} {trouble}", "")));
    }
    if let Some(network) = &status.network {
        lines.extend(network.interfaces.iter().map(|interface| format!("network: {interface}")));
        lines.extend(network.faults.iter().map(|fault| format!("{:<12} {fault}", "")));
    }
    if let Some(clock) = &status.clock {
        lines.push(format!("clock: {clock}"));
        let silent = clock.servers.iter().filter_map(|one| Some(format!("{}: {}", one.server, one.fault.as_ref()?)));
        lines.extend(silent.chain(clock.troubles.clone()).map(|line| format!("{:<12} {line}", "")));
    }
    for mount in &status.mounts {
        let source = mount.source.as_ref().unwrap_or(&mount.device);
        lines.push(format!("mount {:<12} {:<8} {source} at {}", mount.name, mount.state.name(), mount.at));
        lines.extend(mount.reason.iter().map(|reason| format!("{:<12} {reason}", "")));
    }
    if !status.metrics.is_empty() {
        lines.push(format!("metrics and health: {}", status.metrics.join(", ")));
    }
    lines.join("\n")
}

/// Seconds for people: "3d 4h", "5m 6s".
fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m {}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h {}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d {}h", secs / 86_400, secs / 3600 % 24),
    }
}
