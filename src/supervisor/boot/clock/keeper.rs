//! The loop that keeps the clock right.
//!
//! Owns: when servers are asked, what comes of their answers, the state that is told. Called by: `Clock`, which spawns it. Never: steps
//! the clock once servers have been followed, but for a person who sets it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at, sleep_until};
use tracing::{info, warn};

use super::book::Book;
use super::decision::{self, Agreed, Decision, Sample};
use super::device::Timepiece;
use super::report::{Report, ServerReport, Source, date, span};
use super::servers::{self, AskError};
use crate::config::hosts::HostAddress;
use crate::config::site::{TIME_SERVERS_MAX, TimeServer};
use crate::supervisor::boot::network;

/// A server that asks to be left alone is (RFC 4330 section 8). Not for ever: anybody can send such an answer in its name.
const SHUN: Duration = Duration::from_secs(3600);
/// How often the time is noted down for a boot without a hardware clock.
const NOTE_INTERVAL: Duration = Duration::from_secs(3600);
/// How often the hardware clock is set by one that is right.
const HARDWARE_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// An answer that is older says little: seven rounds have failed.
const SYNCHRONISED_FOR: Duration = Duration::from_secs(2 * 3600);
/// Time after which it is a trouble that no server has answered.
const PATIENCE: Duration = Duration::from_secs(120);

/// A person sets the clock, and hears what came of it.
pub(super) type Order = (SystemTime, oneshot::Sender<Result<String, String>>);

/// What the keeper knows.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) source: Source,
    /// Of the last answer that was followed.
    offset_secs: Option<f64>,
    answered: Option<Instant>,
    servers: Vec<ServerReport>,
    asking_since: Instant,
    /// Rounds of questions since the start.
    pub(super) rounds: u64,
    /// Times that the clock was set at once.
    pub(super) steps: u64,
    /// What was wrong with the hardware clock at boot.
    lost: Option<String>,
    /// Why the servers are not followed.
    refused: Option<String>,
}

impl State {
    pub(super) fn new(lost: Option<String>) -> Self {
        Self {
            source: if lost.is_some() { Source::LastKnown } else { Source::Hardware },
            offset_secs: None,
            answered: None,
            servers: Vec::new(),
            asking_since: Instant::now(),
            rounds: 0,
            steps: 0,
            lost,
            refused: None,
        }
    }

    pub(super) fn is_synchronised(&self, now: Instant) -> bool {
        self.answered.is_some_and(|answered| now - answered <= SYNCHRONISED_FOR)
    }

    /// As it is shown, at this moment, when the clock says `clock`.
    pub(super) fn report(&self, now: Instant, clock: SystemTime) -> Report {
        let synchronised = self.is_synchronised(now);
        let lost = self.lost.clone().filter(|_| self.source == Source::LastKnown);
        let is_silent = !self.servers.is_empty()
            && !synchronised
            && self.refused.is_none()
            && now - self.answered.unwrap_or(self.asking_since) > PATIENCE;
        let silent = is_silent.then(|| {
            let faults = self.servers.iter().filter_map(|one| Some(format!("{} {}", one.server, one.fault.as_ref()?)));
            format!("no time server answers: {}", faults.collect::<Vec<_>>().join("; "))
        });
        Report {
            unix_secs: clock.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            source: self.source,
            synchronised,
            offset_secs: self.offset_secs,
            answer_age_secs: self.answered.map(|answered| (now - answered).as_secs()),
            servers: self.servers.clone(),
            troubles: lost.into_iter().chain(self.refused.clone()).chain(silent).collect(),
        }
    }
}

pub(super) struct Keeper {
    pub(super) timepiece: Arc<dyn Timepiece>,
    pub(super) book: Arc<Book>,
    pub(super) state: watch::Sender<State>,
    pub(super) settings: watch::Receiver<Vec<TimeServer>>,
    /// None: nobody names servers but the settings.
    pub(super) network: Option<watch::Receiver<network::Report>>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) schedule: Schedule,
}

/// When what is next.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Nobody has been followed since boot, or since a person set the clock.
    first: bool,
    /// Between the last two rounds.
    wait: Duration,
    /// The next round.
    due: Instant,
    asked: Option<Instant>,
    /// Servers that asked to be left alone, and until when.
    shunned: BTreeMap<TimeServer, Instant>,
    hardware_due: Instant,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { first: true, wait: Duration::ZERO, due: now, asked: None, shunned: BTreeMap::new(), hardware_due: now }
    }

    #[cfg(test)]
    pub(super) fn is_shunned(&self, server: &TimeServer) -> bool {
        self.shunned.contains_key(server)
    }

    /// As soon as it is decent.
    fn hurry(&mut self, now: Instant) {
        self.wait = Duration::ZERO;
        self.due = self.asked.map_or(now, |asked| now.max(asked + decision::WAIT_MIN));
    }
}

/// The servers that are asked: those of the settings, or else those that the network names.
pub(super) fn asked(settings: &[TimeServer], named: &[IpAddr]) -> Vec<TimeServer> {
    if !settings.is_empty() {
        return settings.to_vec();
    }
    named.iter().take(TIME_SERVERS_MAX).map(|ip| TimeServer { host: HostAddress::Ip(*ip), port: None }).collect()
}

impl Keeper {
    /// Keeps the clock until `Clock` is dropped.
    pub(super) async fn run(mut self) {
        let mut noting = interval_at(Instant::now() + NOTE_INTERVAL, NOTE_INTERVAL);
        loop {
            let servers = self.servers();
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some((to, reply)) => drop(reply.send(self.obey(to, Instant::now()))),
                    None => return,
                },
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.settings.borrow_and_update();
                    self.schedule.due = Instant::now();
                    self.schedule.wait = Duration::ZERO;
                    self.state.send_modify(|state| {
                        state.servers.clear();
                        state.refused = None;
                        state.asking_since = Instant::now();
                    });
                },
                () = changed(&mut self.network) => if !self.state.borrow().is_synchronised(Instant::now()) {
                    self.schedule.hurry(Instant::now());
                },
                _ = noting.tick() => self.book.note(self.timepiece.now()),
                () = sleep_until(self.schedule.due), if !servers.is_empty() => self.round(&servers).await,
            }
        }
    }

    fn servers(&self) -> Vec<TimeServer> {
        let named = self.network.as_ref().map(|network| network.borrow().time_servers.clone()).unwrap_or_default();
        asked(&self.settings.borrow(), &named)
    }

    /// Asks all that may be asked, and does what their answers say. Nobody else sets the clock meanwhile: what they say of it holds.
    async fn round(&mut self, servers: &[TimeServer]) {
        let now = Instant::now();
        self.schedule.asked = Some(now);
        self.schedule.shunned.retain(|_, until| *until > now);
        let asked: Vec<&TimeServer> =
            servers.iter().filter(|server| !self.schedule.shunned.contains_key(server)).collect();
        let answers = servers::ask(&asked).await;
        let answers = asked.into_iter().cloned().zip(answers).collect();
        self.take(servers, answers, Instant::now());
    }

    /// Does what these answers say.
    pub(super) fn take(
        &mut self,
        servers: &[TimeServer],
        answers: BTreeMap<TimeServer, Result<Sample, AskError>>,
        now: Instant,
    ) {
        for (server, answer) in &answers {
            if let Err(AskError::Kiss(_)) = answer {
                self.schedule.shunned.insert(server.clone(), now + SHUN);
            }
        }
        let samples: Vec<Sample> = answers.values().filter_map(|answer| answer.as_ref().ok().copied()).collect();
        let agreed = decision::agree(&samples);
        let outcome = match &agreed {
            Some(agreed) => self.follow(agreed, now),
            None if samples.is_empty() => Ok(()),
            None => Err("the time servers disagree: none has most of them on its side".to_owned()),
        };
        let followed = agreed.filter(|_| outcome.is_ok());
        self.schedule.wait = decision::wait_after(self.schedule.wait, followed.map(|agreed| agreed.offset_secs));
        self.schedule.due = now + self.schedule.wait;
        let faults = self.faults(servers, &answers, agreed.as_ref());
        self.state.send_modify(|state| {
            for fault in faults.iter().filter(|fault| !state.servers.contains(fault)) {
                match &fault.fault {
                    Some(reason) => info!(server = fault.server, reason, "a time server does not count"),
                    None => info!(server = fault.server, "a time server answers"),
                }
            }
            state.servers = faults;
            // Nobody answered: what was wrong with the last answers still is.
            state.refused = if samples.is_empty() { state.refused.take() } else { outcome.err() };
            state.rounds += 1;
            if let Some(agreed) = followed {
                (state.source, state.offset_secs, state.answered) =
                    (Source::Servers, Some(agreed.offset_secs), Some(now));
            }
        });
    }

    /// Each server, and why it does not count.
    fn faults(
        &self,
        servers: &[TimeServer],
        answers: &BTreeMap<TimeServer, Result<Sample, AskError>>,
        agreed: Option<&Agreed>,
    ) -> Vec<ServerReport> {
        let before = self.state.borrow();
        let fault = |server: &TimeServer| match answers.get(server) {
            Some(Ok(sample)) if agreed.is_some_and(|agreed| !sample.allows(agreed.at_secs)) => {
                Some("says another time than most".to_owned())
            }
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(error.to_string()),
            // Shunned: what it said last.
            None => {
                before.servers.iter().find(|one| one.server == server.to_string()).and_then(|one| one.fault.clone())
            }
        };
        servers.iter().map(|server| ServerReport { server: server.to_string(), fault: fault(server) }).collect()
    }

    /// Has the clock follow what servers agree on.
    ///
    /// # Errors
    /// It does not, and why.
    fn follow(&mut self, agreed: &Agreed, now: Instant) -> Result<(), String> {
        let Agreed { offset_secs, servers, .. } = *agreed;
        let failed = |error| format!("the clock cannot be set: {error}");
        match decision::decide(offset_secs, self.schedule.first, self.timepiece.now(), &self.book.bounds()) {
            Decision::Refuse(refusal) => return Err(refusal.to_string()),
            Decision::Slew => self.timepiece.slew(offset_secs).map_err(failed)?,
            Decision::Step(to) => {
                self.timepiece.set(to).map_err(failed)?;
                info!(
                    offset_secs,
                    servers,
                    to = date(to),
                    "the clock was off by {} and is set",
                    span(offset_secs.abs())
                );
                self.schedule.hardware_due = now;
                self.state.send_modify(|state| state.steps += 1);
            }
        }
        self.book.trust(self.timepiece.now());
        if self.schedule.first {
            info!(offset_secs, servers, "the clock follows time servers");
            self.schedule.first = false;
            self.book.write();
        }
        if now >= self.schedule.hardware_due {
            self.schedule.hardware_due = now + HARDWARE_INTERVAL;
            if let Err(error) = self.timepiece.keep() {
                warn!(%error, "the hardware clock is not set");
            }
        }
        Ok(())
    }

    /// Sets the clock for a person. Servers may still say otherwise, and are asked soon.
    pub(super) fn obey(&mut self, to: SystemTime, now: Instant) -> Result<String, String> {
        let bounds = self.book.bounds();
        if to < bounds.built || to > bounds.latest() {
            return Err(format!("{} cannot be: this version was built at {}", date(to), date(bounds.built)));
        }
        self.timepiece.set(to).map_err(|error| error.to_string())?;
        info!(to = date(to), "the clock was set by hand");
        self.book.take(to);
        self.book.write();
        self.schedule.first = true;
        self.schedule.hurry(now);
        self.state.send_modify(|state| {
            (state.source, state.offset_secs, state.answered) = (Source::Hand, None, None);
            state.refused = None;
            state.asking_since = now;
            state.steps += 1;
        });
        match self.timepiece.keep() {
            Ok(()) => Ok("the clock is set".to_owned()),
            Err(error) => {
                warn!(%error, "the hardware clock is not set");
                Ok(format!("the clock is set, but not the one that goes on without power: {error}"))
            }
        }
    }
}

/// The next change of the network; never, where nobody tells.
async fn changed(network: &mut Option<watch::Receiver<network::Report>>) {
    let gone = match network {
        Some(watch) => watch.changed().await.is_err(),
        None => std::future::pending().await,
    };
    if gone {
        *network = None;
    } else if let Some(watch) = network {
        watch.borrow_and_update();
    }
}
