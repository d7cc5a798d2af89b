//! The state of a machine that cannot run its roles: it has said why, stays reachable for who mends it, and goes on when that was done.
//!
//! Owns: the wait for a changed `fife.toml`, for the end, or for requests of the control socket meanwhile. Called by: boot. Never: ends by
//! itself.

use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::settings::Places;
use super::{Machine, data, lines, mounts};
use crate::base::clock;
use crate::net::Listener;
use crate::supervisor::control::{self, Asked, Reply, Request};
use crate::supervisor::sockets::{Access, Sockets};
use crate::supervisor::state::StateDir;
use crate::supervisor::{Ending, answer, control_address};

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After this everything is tried again: what stood in the way may have gone by itself.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// What comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    TryAgain,
    End(Ending),
}

/// Waits. With `places`, for what may be mended while the machine runs; without (no data partition), for the end only.
pub(super) async fn wait(what: &str, machine: &Machine, places: Option<&Places>, esp: Option<&Path>) -> Next {
    let mut wishes = machine.wishes.clone();
    let mut feeding = interval(machine.watchdog.interval());
    let mut look = interval(LOOK_INTERVAL);
    let mut retry = tokio::time::interval_at(tokio::time::Instant::now() + RETRY_INTERVAL, RETRY_INTERVAL);
    let mut door = places.and_then(Door::open);
    let stamp = places.and_then(Places::stamp);
    loop {
        tokio::select! {
            ending = wish(&mut wishes) => return Next::End(ending),
            _ = feeding.tick() => machine.watchdog.feed(),
            _ = look.tick(), if places.is_some() => {
                if let Some(esp) = esp.filter(|_| !mounts::is_mounted(Path::new(data::BOOT))) {
                    // Someone may have put a file system there by now; that there is none was said.
                    data::mount_boot(esp).ok();
                }
                if places.and_then(Places::stamp) != stamp {
                    lines::say("fife.toml has changed: it is tried");
                    return Next::TryAgain;
                }
            }
            _ = retry.tick(), if places.is_some() => return Next::TryAgain,
            (request, reply) = Door::asked(&mut door) => match request {
                Request::Status => answer(reply, Reply::Refused(what.to_owned())),
                Request::Reload => {
                    answer(reply, Reply::Refused("it is tried; the console says how it went".to_owned()));
                    return Next::TryAgain;
                }
                Request::SetTime { unix_secs } => machine.set_clock(unix_secs, reply),
                Request::Stop | Request::Reboot => {
                    answer(reply, Reply::Stopping);
                    return Next::End(if request == Request::Stop { Ending::Stop } else { Ending::Reboot });
                }
            },
        }
    }
}

/// The next wish for the end.
pub(super) async fn wish(wishes: &mut watch::Receiver<Option<Ending>>) -> Ending {
    loop {
        if wishes.changed().await.is_err() {
            // Nobody is left who could wish.
            std::future::pending::<()>().await;
        }
        if let Some(ending) = *wishes.borrow_and_update() {
            return ending;
        }
    }
}

/// The control socket, while no supervisor serves it. Closed when dropped.
struct Door {
    _state: StateDir,
    sockets: Sockets,
    server: JoinHandle<()>,
    asked: mpsc::Receiver<Asked>,
}

impl Door {
    /// None where the state directory cannot be had: that may be the very trouble.
    fn open(places: &Places) -> Option<Self> {
        let state = StateDir::prepare(&places.state).ok()?;
        let address = control_address(&state);
        let mut sockets = Sockets::default();
        sockets.bind([(address.clone(), Access::Own)], clock::monotonic()).ok()?;
        let listener = Listener::from_fd(sockets.get(&address)?.try_clone_to_owned().ok()?).ok()?;
        let (ask, asked) = mpsc::channel(1);
        Some(Self {
            _state: state,
            sockets,
            server: tokio::spawn(control::serve(listener, ask, control::RolePids::default())),
            asked,
        })
    }

    async fn asked(door: &mut Option<Self>) -> Asked {
        let next = match door {
            Some(door) => door.asked.recv().await,
            None => None,
        };
        match next {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.server.abort();
        self.sockets.close_all();
    }
}
