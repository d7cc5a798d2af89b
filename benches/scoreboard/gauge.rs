//! What a server costs: CPU time, fsyncs, memory.
//!
//! Owns: reading /proc, running `perf stat`. Called by: the rows. Never: counts the client.
//!
//! CPU time is `utime + stime` of every process below the server's roots, plus that of children they have waited for.
//! fsyncs are the system calls fsync and fdatasync, counted by the kernel (`perf stat` on its trace points).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::Failure;

/// How long `perf` gets to attach itself.
const ATTACH_TRIES: u32 = 200;

/// Fields of /proc/PID/stat that are used.
struct Stat {
    parent: i32,
    ticks: u64,
}

/// Every process below the roots, the roots included.
pub(crate) fn processes(roots: &[i32]) -> Vec<i32> {
    tree(roots).into_iter().map(|(pid, _)| pid).collect()
}

/// CPU time that they have used so far.
pub(crate) fn cpu(roots: &[i32]) -> Duration {
    let ticks: u64 = tree(roots).iter().map(|(_, stat)| stat.ticks).sum();
    let per_sec = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(100);
    Duration::from_millis(ticks * 1000 / per_sec.max(1))
}

/// Memory that is theirs, in KiB: private pages, and their share of shared ones (PSS).
pub(crate) fn memory_kib(roots: &[i32]) -> u64 {
    let of = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    processes(roots).into_iter().filter_map(of).sum()
}

fn tree(roots: &[i32]) -> Vec<(i32, Stat)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: HashMap<i32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let below = |pid: i32| {
        let mut at = pid;
        while at > 1 {
            if roots.contains(&at) {
                return true;
            }
            match all.get(&at) {
                Some(stat) => at = stat.parent,
                None => return false,
            }
        }
        false
    };
    let found: Vec<i32> = all.keys().copied().filter(|pid| below(*pid)).collect();
    let mut all = all;
    found.into_iter().filter_map(|pid| Some((pid, all.remove(&pid)?))).collect()
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields are numbered from 3 behind it (man 5 proc).
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// Waits until `perf` has its counters open: their number is above 0 and grows no more. False when it gave up.
pub(crate) fn attached(perf: &mut Child) -> bool {
    let pid = perf.id();
    let counters = || {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let links = entries.filter_map(Result::ok).filter_map(|entry| std::fs::read_link(entry.path()).ok());
        Some(links.filter(|path| path.to_string_lossy().contains("perf_event")).count())
    };
    let mut before = 0;
    for _ in 0..ATTACH_TRIES {
        std::thread::park_timeout(Duration::from_millis(25));
        if perf.try_wait().ok().flatten().is_some() {
            return false;
        }
        match counters() {
            Some(now) if now > 0 && now == before => return true,
            Some(now) => before = now,
            None => return false,
        }
    }
    false
}

/// Counts fsyncs from its start until it is read.
pub(crate) struct Syncs {
    perf: Child,
    out: PathBuf,
}

impl Syncs {
    /// None where the kernel or the missing right does not let it count.
    pub(crate) fn start(roots: &[i32], dir: &Path) -> Option<Self> {
        let out = dir.join("perf-stat");
        std::fs::remove_file(&out).ok();
        let pids: Vec<String> = processes(roots).iter().map(i32::to_string).collect();
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync", "-o"])
            .arg(&out)
            .args(["-p", &pids.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut syncs = Self { perf, out };
        if attached(&mut syncs.perf) { Some(syncs) } else { None }
    }

    /// How many there were.
    pub(crate) fn read(mut self) -> Result<u64, Failure> {
        kill(Pid::from_raw(i32::try_from(self.perf.id())?), Signal::SIGINT)?;
        self.perf.wait()?;
        let text = std::fs::read_to_string(&self.out)?;
        let counts: Vec<u64> = text.lines().filter_map(|line| line.split(',').next()?.parse().ok()).collect();
        if counts.len() == 2 { Ok(counts.iter().sum()) } else { Err(format!("perf stat wrote: {text}").into()) }
    }
}

impl Drop for Syncs {
    fn drop(&mut self) {
        // Gone already when it was read.
        self.perf.kill().ok();
        self.perf.wait().ok();
    }
}
