//! Reload: the host follows the changed file, and only what the change concerns is touched.
//!
//! Owns: the order of a change, the answer to whoever asked for it. Called by: the supervisor's loop. Never: changes
//! anything when the file is broken or an address cannot be had.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, info};

use super::control::{Reloaded, Reply};
use super::plan::{Change, Plan};
use super::process::{self, STOP_PATIENCE};
use super::unit::{Afterwards, Phase, Unit};
use super::{Event, Progress, Serving, StartError, Supervisor, answer, wanted_sockets};
use crate::base::clock;
use crate::config::hosts::Role;
use crate::net::log;

/// How long the answer to a reload waits for the restarted roles to serve.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// A reload that waits for its roles before it is answered.
#[derive(Debug)]
pub(super) struct PendingReload {
    pub(super) number: u64,
    reloaded: Reloaded,
    pub(super) waiting_for: BTreeSet<Role>,
    reply: Option<oneshot::Sender<Reply>>,
}

impl<F: FnOnce(Serving<'_>)> Supervisor<F> {
    /// Reads the file again and makes the host follow it. Whatever is wrong with it is told, and nothing changes.
    pub(super) fn reload(&mut self, reply: Option<oneshot::Sender<Reply>>) {
        let refuse = |reply: Option<oneshot::Sender<Reply>>, reason: String| {
            error!(reason, "reload refused: what runs, runs on");
            if let Some(reply) = reply {
                answer(reply, Reply::Refused(reason));
            }
        };
        if self.stop_by.is_some() {
            return refuse(reply, "fife is stopping".to_owned());
        }
        let new = match self.source.read() {
            Ok(new) => new,
            Err(error) => return refuse(reply, error.to_string()),
        };
        if new.effective.host != self.plan.effective.host {
            return refuse(reply, format!("this machine would be another host, {}", new.effective.host));
        }
        let change = Change::between(&self.plan, &new);
        if let Err(error) = self.prepare_change(&change, &new) {
            return refuse(reply, error.to_string());
        }
        self.plan = new;
        self.reserve_max.send_replace(super::disk::reserve_max(&self.plan));
        self.follow(change, reply);
    }

    /// Everything in a change that can fail; nothing that runs is touched.
    fn prepare_change(&mut self, change: &Change, new: &Plan) -> Result<(), StartError> {
        for role in &change.start {
            self.state.prepare_role(*role)?;
        }
        let log_file = self.state.open_log(&new.effective.tables.log)?;
        self.sockets.bind(wanted_sockets(new, &self.state), clock::monotonic())?;
        log::change(&new.effective.tables.log, log_file);
        Ok(())
    }

    /// Carries out a change; the plan is the new one already.
    fn follow(&mut self, change: Change, reply: Option<oneshot::Sender<Reply>>) {
        let by = Instant::now() + STOP_PATIENCE;
        for role in &change.stop {
            self.order_stop(*role, by, Afterwards::Nothing);
            self.sockets.close(&process::metrics_address(*role, &self.state));
        }
        for role in &change.restart {
            self.order_stop(*role, by, Afterwards::Start);
        }
        if change.start.contains(&Role::LdapProxy) {
            self.founding = Progress::of(&self.plan, &self.state);
        }
        for role in &change.start {
            // One that is still ending from an earlier change is started when it has.
            match self.units.get_mut(role).map(|unit| &mut unit.phase) {
                Some(Phase::Running(process)) => process.stopping = Some(Afterwards::Start),
                Some(Phase::Waiting { .. }) | None => {
                    self.units.insert(*role, Unit::new());
                    self.start(*role);
                }
            }
        }
        for address in &change.close {
            self.metrics.remove(address);
            self.sockets.close(address);
        }
        self.serve_metrics();
        let names = |roles: &[Role]| roles.iter().map(ToString::to_string).collect::<Vec<_>>();
        let reloaded = Reloaded {
            restarted: names(&change.restart),
            started: names(&change.start),
            stopped: names(&change.stop),
            not_ready: Vec::new(),
        };
        self.machine.iter().for_each(super::boot::Machine::followed);
        info!(
            restarted = reloaded.restarted.join(" "),
            started = reloaded.started.join(" "),
            stopped = reloaded.stopped.join(" "),
            "reloaded"
        );
        self.reloads_begun += 1;
        let number = self.reloads_begun;
        let waiting_for = change.restart.into_iter().chain(change.start).collect();
        self.reloads.push(PendingReload { number, reloaded, waiting_for, reply });
        self.answer_reloads(|reload| reload.waiting_for.is_empty());
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RELOAD_PATIENCE).await;
            drop(events.send(Event::ReloadOverdue(number)).await);
        });
    }

    /// Answers the reloads that are due.
    pub(super) fn answer_reloads(&mut self, due: impl Fn(&PendingReload) -> bool) {
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.reloads).into_iter().partition(due);
        self.reloads = rest;
        for PendingReload { mut reloaded, waiting_for, reply, .. } in due {
            reloaded.not_ready = waiting_for.iter().map(ToString::to_string).collect();
            if let Some(reply) = reply {
                answer(reply, Reply::Reloaded(reloaded));
            }
        }
    }
}
