//! One role as the supervisor sees it: what its process is doing, and since when.
//!
//! Owns: `Unit`, `Phase`. Called by: the supervisor's loop. Never: starts or signals by itself.
//!
//! Invariant: an event that carries another generation than the unit's is of a former process, and means nothing.

use std::time::Instant;

use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::process::Order;
use super::status::State;

/// A role on this host.
#[derive(Debug)]
pub(super) struct Unit {
    /// Counts the processes of this role.
    pub(super) generation: u64,
    pub(super) phase: Phase,
    pub(super) backoff: Backoff,
    /// Times that it was started again after it had ended by itself.
    pub(super) restarts: u64,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// A process runs.
    Running(Process),
    /// None runs; one is started when the wait is over.
    Waiting { reason: String },
}

/// The running process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) since: Instant,
    /// It has said that it serves.
    pub(super) ready: bool,
    /// It was told to stop, and this is what comes after.
    pub(super) stopping: Option<Afterwards>,
    pub(super) orders: mpsc::Sender<Order>,
}

/// What follows on a stop that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// A new process, with the present plan.
    Start,
    /// Nothing; the role is no longer wanted.
    Nothing,
}

impl Unit {
    pub(super) fn new() -> Self {
        let phase = Phase::Waiting { reason: "not started yet".to_owned() };
        Self { generation: 0, phase, backoff: Backoff::default(), restarts: 0 }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.phase {
            Phase::Running(process) => Some(process),
            Phase::Waiting { .. } => None,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.process().is_some_and(|process| process.ready && process.stopping.is_none())
    }

    /// What can be said without asking the role; `Good` still has to be asked for.
    pub(super) fn state(&self) -> (State, Option<String>) {
        match &self.phase {
            Phase::Waiting { reason } => (State::Backoff, Some(reason.clone())),
            Phase::Running(process) if process.stopping.is_some() => (State::Stopping, None),
            Phase::Running(process) if !process.ready => (State::Starting, None),
            Phase::Running(_) => (State::Good, None),
        }
    }
}
