//! A new version on trial: it is kept when this host is in good health with it, and given up when that does not come.
//!
//! Owns: the wait for health, and how long it may take. Called by: boot. Never: judges by anything but what `fife status` shows. What does
//! not come so far (a kernel that panics, a first process that hangs until the watchdog bites) is counted by the loaders, which take the
//! old version after three tries.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::{info, warn};

use super::{data, lines};
use crate::appliance::slots::{Esp, Slot};
use crate::base::clock;
use crate::supervisor::control::{self, Reply, Request};

/// How often it is asked how the host is.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long it must be in good health without interruption.
const GOOD_TIME: Duration = Duration::from_secs(10);
/// What it may take until then. Stores that are replayed after a power cut are ready within this.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is to be done about the version on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Wait,
    Keep,
    GiveUp,
}

/// How the host has been so far.
#[derive(Debug)]
struct Trial {
    begun: Instant,
    good_since: Option<Instant>,
}

impl Trial {
    fn judge(&mut self, now: Instant, good: bool) -> Verdict {
        let since = *self.good_since.get_or_insert(now);
        if !good {
            self.good_since = None;
        } else if now - since >= GOOD_TIME {
            return Verdict::Keep;
        }
        if now - self.begun >= PATIENCE { Verdict::GiveUp } else { Verdict::Wait }
    }
}

/// Watches over the version that runs, if it is on trial. Ends with a verdict that has been carried out.
pub(super) async fn watch(arguments: String) {
    let Some(running) = Slot::running(&arguments) else { return };
    let esp = Esp::at(data::BOOT);
    match esp.is_on_trial(running) {
        // Also puts down that the other slot's version has used up its tries, when it has.
        Ok(false) => return kept(esp.keep(running), running),
        Ok(true) => lines::say(format_args!("slot {running} is on trial: it is kept if this host is in good health")),
        Err(error) => {
            return lines::trouble(format_args!("whether slot {running} is on trial cannot be read: {error}"));
        }
    }
    let mut trial = Trial { begun: clock::monotonic(), good_since: None };
    loop {
        tokio::time::sleep(INTERVAL).await;
        match trial.judge(clock::monotonic(), is_good().await) {
            Verdict::Wait => {}
            Verdict::Keep => {
                lines::say(format_args!("slot {running} is in good health and is kept"));
                return kept(esp.keep(running), running);
            }
            Verdict::GiveUp => match esp.give_up(running) {
                Ok(()) => {
                    lines::trouble(format_args!("slot {running} was not in good health: the other slot is started"));
                    // As whoever wishes for a new start: roles finish what is in hand.
                    if let Err(error) = kill(Pid::this(), Signal::SIGTERM) {
                        warn!(%error, "the machine does not start again");
                    }
                    return;
                }
                Err(error) => {
                    return lines::trouble(format_args!("slot {running} is not in good health, but stays: {error}"));
                }
            },
        }
    }
}

fn kept(kept: Result<(), crate::appliance::slots::SlotError>, running: Slot) {
    match kept {
        Ok(()) => info!(slot = %running, "this slot is booted from now on"),
        Err(error) => lines::trouble(format_args!("that slot {running} is good cannot be written: {error}")),
    }
}

async fn is_good() -> bool {
    // It blocks; the supervisor answers from this thread.
    let asked = tokio::task::spawn_blocking(|| control::ask(Path::new(data::DATA), Request::Status)).await;
    matches!(asked, Ok(Ok(Reply::Status(status))) if status.good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_health_must_last_and_must_come_in_time() {
        let begun = clock::monotonic();
        let check = |seen: &[(u64, bool)], expected: Verdict| {
            let mut trial = Trial { begun, good_since: None };
            let verdicts = seen.iter().map(|(at, good)| trial.judge(begun + Duration::from_secs(*at), *good));
            assert_eq!(verdicts.last(), Some(expected), "{seen:?}");
        };
        check(&[(1, true)], Verdict::Wait);
        check(&[(1, true), (11, true)], Verdict::Keep);
        check(&[(1, true), (5, false), (11, true)], Verdict::Wait);
        check(&[(1, true), (5, false), (11, true), (21, true)], Verdict::Keep);
        check(&[(299, false)], Verdict::Wait);
        check(&[(300, false)], Verdict::GiveUp);
        check(&[(295, true), (301, true)], Verdict::GiveUp);
        check(&[(295, true), (305, true)], Verdict::Keep);
    }
}
