//! What `fife status` tells.
//!
//! Owns: `Status`, the JSON of the control socket and of `fife status --json`. Called by: the supervisor
//! (fills it), the command (prints it), tests and monitors (read it: names here are a promise).

use std::fs;

use serde::{Deserialize, Serialize};

use super::boot;
use crate::config::hosts::Role;

/// A host at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub host: String,
    pub version: String,
    /// The supervisor's.
    pub pid: u32,
    pub uptime_secs: u64,
    pub state_dir: String,
    /// Every role is good, and so is the disk.
    pub good: bool,
    pub roles: Vec<RoleStatus>,
    /// The disk under the state directory; none when nothing can be told of it.
    pub disk: Option<DiskStatus>,
    /// Where the host's metrics are answered.
    pub metrics: Vec<String>,
    /// Of the appliance: its network and its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<boot::network::Report>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<boot::clock::Report>,
    /// Further disks and file servers' directories. Only of a machine that fife runs.
    #[serde(default)]
    pub mounts: Vec<MountStatus>,
}

/// A mount of `[hosts.NAME.mounts]` at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    pub name: String,
    /// As the TOML has it.
    pub device: String,
    /// Where it appears.
    pub at: String,
    /// What is mounted, with its file system: "/dev/sdb1 (ext4)".
    pub source: Option<String>,
    pub state: MountState,
    /// What is wrong with it, or what is being done.
    pub reason: Option<String>,
}

impl MountStatus {
    /// Mounted, and nothing is wrong with it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.state == MountState::Mounted && self.reason.is_none()
    }
}

/// How it stands with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountState {
    Mounted,
    /// Is looked for, checked, mounted.
    Trying,
    /// Not there, or cannot be mounted; tried again.
    Waiting,
    /// Not wanted any more, and still in use.
    Leaving,
}

impl MountState {
    /// The word in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mounted => "mounted",
            Self::Trying => "trying",
            Self::Waiting => "waiting",
            Self::Leaving => "leaving",
        }
    }
}

/// A disk at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiskStatus {
    pub size_bytes: u64,
    pub free_bytes: u64,
    /// Held for when nothing else is free; 0 when it was given up.
    pub reserve_bytes: u64,
    /// What is wrong with it, for people.
    pub trouble: Option<String>,
}

/// A role at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoleStatus {
    pub role: Role,
    pub state: State,
    /// Why it is not good.
    pub reason: Option<String>,
    /// None while no process runs.
    pub pid: Option<u32>,
    /// Of the process; 0 while none runs.
    pub uptime_secs: u64,
    /// Times that it was started again since `fife run`, after it had ended by itself.
    pub restarts: u64,
    /// Memory that the process holds (resident set).
    pub rss_bytes: Option<u64>,
    pub listeners: Vec<ListenerStatus>,
}

/// A service's address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerStatus {
    pub service: String,
    pub address: String,
}

/// What a role is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Runs, does not serve yet.
    Starting,
    /// Serves, and says that it is well.
    Good,
    /// Serves, and says that it is not well, or says nothing.
    Bad,
    /// Ended; is started again after a wait.
    Backoff,
    /// Was told to stop.
    Stopping,
}

impl State {
    /// The word in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
        }
    }
}

/// Resident memory of a process in bytes, as `/proc` tells it.
pub(super) fn rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_rss(&status)
}

pub(super) fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
