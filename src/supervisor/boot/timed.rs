//! The machine's clock follows whichever `fife.toml` is run, and consoles and roles hear of it.
//!
//! Owns: the one `Clock` of the machine. Called by: boot. Never: decides what time it is (`clock` does).

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::clock::{Begun, Clock, Report};
use super::joined::Joined;
use super::{lines, logs};
use crate::config::identity::Identity;
use crate::config::site::TimeServer;
use crate::supervisor::control::{Asked, Reply, Request};
use crate::supervisor::{Source, answer};

/// How long the roles wait for the time: certificates and dates that they make with a wrong one stay wrong.
const PATIENCE: Duration = Duration::from_secs(4);

/// The clock of the machine.
#[derive(Debug, Clone)]
pub(super) struct Timed(Arc<Clock>);

/// Lifts a clock that cannot be right to the last time that was noted on the data partition, and says so.
pub(super) fn begin(begun: &mut Begun, data: Option<&Path>) {
    if let Some(data) = data {
        begun.remember(data);
    }
    begun.trouble().iter().for_each(|trouble| lines::trouble(told(trouble)));
}

impl Timed {
    /// Asks the servers that the file names, or the network.
    pub(super) fn start(begun: Begun, source: Option<&Source>, joined: &Joined) -> Self {
        let clock = Arc::new(Clock::start(begun, source.and_then(servers).unwrap_or_default(), joined.watch()));
        let said = clock.report().troubles;
        // The consoles know it already; meanwhile there is a log.
        said.iter().for_each(|trouble| logs::note(&told(trouble)));
        tokio::spawn(tell(Arc::clone(&clock), said.iter().map(told).collect()));
        Self(clock)
    }

    /// Follows the file; one that cannot be read changes nothing.
    pub(super) fn follow(&self, source: &Source) {
        if let Some(servers) = servers(source) {
            self.0.change(servers);
        }
    }

    /// Waits a little until it is right, where somebody is asked.
    pub(super) async fn asked(&self, source: Option<&Source>, joined: &Joined) {
        let is_named = source.and_then(servers).is_some_and(|servers| !servers.is_empty());
        if is_named || joined.report().is_some_and(|network| !network.time_servers.is_empty()) {
            self.0.asked(PATIENCE).await;
        }
    }

    /// How it stands.
    pub(super) fn report(&self) -> Report {
        self.0.report()
    }

    /// Sets it for a person, in a task.
    pub(super) fn set(&self, unix_secs: u64, reply: oneshot::Sender<Reply>) {
        let clock = Arc::clone(&self.0);
        tokio::spawn(async move {
            let set = match UNIX_EPOCH.checked_add(Duration::from_secs(unix_secs)) {
                Some(to) => clock.set(to).await,
                None => Err("this is no time".to_owned()),
            };
            answer(reply, set.map_or_else(Reply::Refused, Reply::Done));
        });
    }

    /// Has certificates looked at whenever the clock was set: by another time they may be over, or not have begun.
    pub(super) async fn tell_roles(self, door: mpsc::Sender<Asked>) {
        let mut watch = self.0.watch();
        let mut known = watch.steps();
        loop {
            let steps = watch.changed().await;
            if steps != known {
                known = steps;
                let (reply, replied) = oneshot::channel();
                if door.send((Request::Reload, reply)).await.is_err() {
                    return;
                }
                // Refused: the supervisor has said why.
                drop(replied.await);
            }
        }
    }

    /// The machine stops.
    pub(super) fn end(&self) {
        self.0.end();
    }
}

/// The time servers of this machine in the file; none when it does not say which host this is.
fn servers(source: &Source) -> Option<Vec<TimeServer>> {
    let loaded = source.load().ok()?;
    let host = loaded.this_host(source.host.as_deref(), &Identity::read()).ok()?;
    Some(loaded.effective(&host)?.site.time_servers.clone())
}

fn told(trouble: impl Display) -> String {
    format!("clock: {trouble}")
}

/// Says on the consoles what has changed.
async fn tell(clock: Arc<Clock>, mut said: BTreeSet<String>) {
    let mut watch = clock.watch();
    let mut steps = watch.steps();
    loop {
        let report = clock.report();
        let troubles: BTreeSet<String> = report.troubles.iter().map(told).collect();
        for trouble in troubles.difference(&said) {
            lines::trouble(trouble);
            logs::note(trouble);
        }
        said = troubles;
        let stepped = watch.changed().await;
        if stepped != steps {
            steps = stepped;
            let line = lines::clock(&clock.report());
            lines::say(&line);
            logs::note(&line);
        }
    }
}
