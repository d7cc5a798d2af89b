//! The status of the host, put together from what the supervisor knows and what roles say.
//!
//! Owns: filling a `Status`. Called by: the supervisor's loop, for `fife status` and the merged pages. Never: waits for
//! a role in the loop itself.

use tokio::sync::oneshot;

use super::control::Reply;
use super::status::{self, ListenerStatus, RoleStatus, State, Status};
use super::unit::Unit;
use super::{Progress, Serving, Supervisor, answer, boot, observe};
use crate::base::clock;
use crate::config::hosts::Role;

impl<F: FnOnce(Serving<'_>)> Supervisor<F> {
    /// Fills the status in a task: roles are asked how they are.
    pub(super) fn answer_status(&self, reply: oneshot::Sender<Reply>) {
        let mut status = self.status();
        let run_dir = self.state.path().join("run");
        tokio::spawn(async move {
            for role in status.roles.iter_mut().filter(|role| role.state == State::Good) {
                (role.state, role.reason) = observe::examine(&run_dir.join(observe::socket_name(role.role))).await;
            }
            let disk_is_good = status.disk.as_ref().is_none_or(|disk| disk.trouble.is_none());
            status.good = disk_is_good && status.roles.iter().all(|role| role.state == State::Good);
            answer(reply, Reply::Status(Box::new(status)));
        });
    }

    /// What is known without asking the roles.
    fn status(&self) -> Status {
        let now = clock::monotonic();
        let role_status = |(role, unit): (&Role, &Unit)| {
            let (mut state, mut reason) = unit.state();
            if *role == Role::LdapProxy && state == State::Good && self.founding != Progress::Done {
                (state, reason) = (State::Starting, Some("the first administrator is being made".to_owned()));
            }
            let process = unit.process();
            let listeners = self.plan.roles.get(role).map(|plan| plan.listeners.as_slice()).unwrap_or_default();
            let listeners = listeners.iter().map(|listener| ListenerStatus {
                service: listener.service.to_owned(),
                address: listener.address.to_string(),
            });
            RoleStatus {
                role: *role,
                state,
                reason,
                pid: process.map(|process| process.pid),
                uptime_secs: process.map_or(0, |process| (now - process.since).as_secs()),
                restarts: unit.restarts,
                rss_bytes: process.and_then(|process| status::rss_bytes(process.pid)),
                listeners: listeners.collect(),
            }
        };
        let (network, clock) = self.machine.as_ref().map(boot::Machine::reports).unzip();
        Status {
            host: self.plan.effective.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_secs: (now - self.since).as_secs(),
            state_dir: self.state.path().display().to_string(),
            good: false,
            roles: self.units.iter().map(role_status).collect(),
            disk: self.disk_condition.map(|condition| condition.status()),
            metrics: self.plan.metrics.iter().map(ToString::to_string).collect(),
            network: network.flatten(),
            clock,
            mounts: self.machine.as_ref().map(boot::Machine::mounts).unwrap_or_default(),
        }
    }
}
