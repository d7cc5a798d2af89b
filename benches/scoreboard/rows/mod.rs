//! What is measured.
//!
//! Owns: the rows, their units, and what fife has promised on each. Called by: `main`, `report`.
//!
//! - `delivery`: mail in by SMTP until IMAP shows it; `mailbox`: reading and appending; `idle`: memory of idle sessions;
//! - `outbound`: mail out through the queue; `growth`: the same with more in the store.

pub(crate) mod delivery;
pub(crate) mod growth;
pub(crate) mod idle;
pub(crate) mod mailbox;
pub(crate) mod outbound;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::server::Kind;
use crate::{Failure, WAIT_MAX, clock};

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// More is better; else less.
    pub(crate) more: bool,
    /// By how much fife is to be ahead of the best peer. 1: ahead at all; 0: nothing was promised.
    pub(crate) ahead: f64,
    /// What fife's own figure is to reach.
    pub(crate) own: Option<f64>,
}

const fn row(title: &'static str, unit: &'static str, more: bool, ahead: f64, own: Option<f64>) -> Row {
    Row { title, unit, more, ahead, own }
}

/// Every row, in the order of the table. `main` and the rows' rooms name them by their title.
pub(crate) const ROWS: &[Row] = &[
    row("accepted, 20 connections", "/s", true, 1.0, None),
    row("delivered, 20 connections", "/s", true, 5.0, None),
    row("CPU a message, 20 connections", "ms", false, 3.0, Some(1.0)),
    row("fsyncs a message, 20 connections", "", false, 1.0, Some(0.1)),
    row("accepted, 200 connections", "/s", true, 1.0, None),
    row("delivered, 200 connections", "/s", true, 5.0, None),
    row("CPU a message, 200 connections", "ms", false, 3.0, Some(1.0)),
    row("fsyncs a message, 200 connections", "", false, 1.0, Some(0.1)),
    row("APPEND, 20 sessions", "/s", true, 1.0, None),
    row("SELECT, cold", "ms", false, 1.0, None),
    row("SELECT, warm", "ms", false, 1.0, None),
    row("FETCH 1:* (UID FLAGS)", "ms", false, 1.0, None),
    row("FETCH 1:* (ENVELOPE)", "ms", false, 1.0, None),
    row("SEARCH TEXT", "ms", false, 1.0, None),
    row("POP3 RETR, pipelined", "/s", true, 1.0, None),
    row("memory of an idle IMAP session", "KiB", false, 1.0, None),
    row("outbound, 1 domain", "/s", true, 3.0, None),
    row("outbound CPU a message, 1 domain", "ms", false, 3.0, None),
    row("outbound fsyncs a message, 1 domain", "", false, 1.0, None),
    row("outbound, 50 domains", "/s", true, 3.0, None),
    row("outbound CPU a message, 50 domains", "ms", false, 3.0, None),
    row("outbound fsyncs a message, 50 domains", "", false, 1.0, None),
];

/// What came out, by row and contender.
#[derive(Debug)]
pub(crate) struct Board {
    /// When the run began.
    start: Instant,
    values: BTreeMap<(&'static str, Kind), f64>,
    /// What went wrong, in order.
    pub(crate) failures: Vec<String>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { start: clock::monotonic(), values: BTreeMap::new(), failures: Vec::new() }
    }

    /// Time since the run began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notes a value, and shows it.
    pub(crate) fn put(&mut self, kind: Kind, title: &str, value: f64) {
        let Some(row) = ROWS.iter().find(|row| row.title == title) else {
            self.failures.push(format!("no such row: {title}"));
            return;
        };
        println!("  {:6.1} s  {kind}: {title}: {value:.3} {}", self.start.elapsed().as_secs_f64(), row.unit);
        self.values.insert((row.title, kind), value);
    }

    pub(crate) fn get(&self, row: &Row, kind: Kind) -> Option<f64> {
        self.values.get(&(row.title, kind)).copied()
    }

    /// Notes a failure, and goes on.
    pub(crate) fn note(&mut self, kind: Kind, what: &str, outcome: Result<(), Failure>) {
        if let Err(error) = outcome {
            println!("  {kind}: {what} failed: {error}");
            self.failures.push(format!("{kind}, {what}: {error}"));
        }
    }
}

/// Runs a future to its end on this thread, within the time that anything may take.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async { tokio::time::timeout(WAIT_MAX, work).await });
    done.map_err(|_| format!("took longer than {WAIT_MAX:?}"))?
}

/// `count` in this time, a second.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    float(count) / time.as_secs_f64().max(1e-9)
}

/// This time over `count`, in milliseconds.
pub(crate) fn millis_each(time: Duration, count: u64) -> f64 {
    millis(time) / float(count.max(1))
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Exact up to 2^53, which no count here reaches.
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
