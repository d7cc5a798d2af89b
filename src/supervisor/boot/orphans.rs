//! Processes whose parent has ended: they are this process's children now, and somebody must take note of their end.
//!
//! Owns: reaping of those that nobody waits for. Called by: boot, as a task. Never: takes the end of a child that a room waits for:
//! that room gets `PATIENCE` to take it. An orphan's end tells nobody anything, so it can wait; no room need register its children.
//! Spec: wait(2), credentials(7); proc_pid_stat(5).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tracing::debug;

use crate::base::clock;

/// Time in which whoever waits for a child has taken its end: rooms wait in this same event loop or in a blocking call of their own.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked while some have ended.
const INTERVAL: Duration = Duration::from_millis(500);

/// Ended children that nobody has taken yet, and since when that is known.
#[derive(Debug, Default)]
struct Ended(BTreeMap<i32, Instant>);

impl Ended {
    /// Notes who has ended by now, and answers those that nobody has taken for `PATIENCE`.
    fn due(&mut self, ended: &[i32], now: Instant) -> Vec<i32> {
        self.0.retain(|pid, _| ended.contains(pid));
        for pid in ended {
            self.0.entry(*pid).or_insert(now);
        }
        self.0.iter().filter(|(_, since)| now - **since >= PATIENCE).map(|(pid, _)| *pid).collect()
    }
}

/// Takes note of orphans' ends until the machine stops.
///
/// # Errors
/// The system gives no signal.
pub(super) async fn reap() -> io::Result<()> {
    let mut child_ended = signal(SignalKind::child())?;
    let mut ended = Ended::default();
    loop {
        if any_ended() {
            let due = ended.due(&zombies(), clock::monotonic());
            for pid in &due {
                waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG)).ok();
            }
            if !due.is_empty() {
                debug!(count = due.len(), "orphans have ended");
            }
            tokio::time::sleep(INTERVAL).await;
        } else {
            ended.0.clear();
            child_ended.recv().await;
        }
    }
}

/// Whether any child has ended that nobody has taken yet: one cheap call.
fn any_ended() -> bool {
    let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::All, how), Ok(WaitStatus::StillAlive) | Err(_))
}

/// Our children that have ended, from /proc: waitid(2) tells the first only.
fn zombies() -> Vec<i32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_zombie_of(&stat, own)))
        .collect()
}

/// The name, in parentheses, may hold anything, also parentheses.
fn is_zombie_of(stat: &str, parent: u32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    fields.next() == Some("Z") && fields.next().and_then(|field| field.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::{Ended, PATIENCE, any_ended, is_zombie_of, zombies};
    use crate::base::clock;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_that_its_room_waits_for_is_left_to_it() {
        let start = clock::monotonic();
        let mut ended = Ended::default();
        assert!(ended.due(&[7, 8], start).is_empty());
        // 7 was taken, and another child has its number now.
        assert!(ended.due(&[8], start + PATIENCE / 2).is_empty());
        assert_eq!(ended.due(&[7, 8], start + PATIENCE), [8]);
        assert_eq!(ended.due(&[7], start + PATIENCE * 3 / 2 + PATIENCE), [7]);
    }

    #[test]
    fn zombies_are_known_by_state_and_parent() {
        let check = |stat: &str, expected: bool| assert_eq!(is_zombie_of(stat, 1), expected, "{stat}");
        check("12 (sh) Z 1 12 0 0", true);
        check("12 (sh) S 1 12 0 0", false);
        check("12 (sh) Z 11 12 0 0", false);
        check("12 (a) Z 2 b) Z 1 0", true);
        check("", false);
    }

    #[test]
    fn the_systems_own_words_are_understood() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let deadline = clock::monotonic() + PATIENCE * 5;
        while !(any_ended() && zombies().contains(&pid)) {
            assert!(clock::monotonic() < deadline, "it never ended");
            std::thread::yield_now();
        }
        // Looking has not taken it.
        assert!(child.wait().unwrap().success());
        assert!(!zombies().contains(&pid));
    }
}
