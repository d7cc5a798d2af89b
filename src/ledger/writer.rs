//! The writer's thread, and the queue before it.
//!
//! Owns: gathering appends into groups, waking those who wait. Called by: `Ledger`. Never: compresses or hashes payloads
//! (their callers have done that on their own threads).

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::disk::Disk;
use super::record::Prepared;
use super::tail::Tail;
use super::{LedgerError, Position};
use crate::base::clock;

/// A group is not made larger than this.
const GROUP_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long a group waits for as many appends as the last one had. Those who were woken together come back together,
/// but not at the same instant; without this, the first of them would have a sync for itself.
const GATHER_MAX: Duration = Duration::from_micros(100);

/// One append on its way.
pub(super) struct Request {
    pub(super) records: Vec<Prepared>,
    pub(super) done: oneshot::Sender<Result<Vec<Position>, LedgerError>>,
    /// Its share of the queue, given back when it is done with.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Serves the queue until all senders are gone.
pub(super) fn run<D: Disk>(mut tail: Tail<D>, mut queue: UnboundedReceiver<Request>) {
    let mut group = Vec::new();
    let mut expected = 1;
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        gather(&mut queue, &mut group, expected);
        expected = group.len();
        let appends: Vec<&[Prepared]> = group.iter().map(|request| request.records.as_slice()).collect();
        let results = tail.commit(&appends);
        for (request, result) in group.drain(..).zip(results) {
            drop(request.permit);
            // Whoever does not wait any longer does not want to know.
            drop(request.done.send(result));
        }
    }
}

/// Adds what has come; waits a little for more when there were more the last time.
fn gather(queue: &mut UnboundedReceiver<Request>, group: &mut Vec<Request>, expected: usize) {
    let mut bytes: u64 = group.iter().map(Request::bytes).sum();
    let mut deadline = None;
    while bytes < GROUP_BYTES_MAX {
        if let Ok(request) = queue.try_recv() {
            bytes += request.bytes();
            group.push(request);
            continue;
        }
        if group.len() >= expected
            || clock::monotonic() >= *deadline.get_or_insert_with(|| clock::monotonic() + GATHER_MAX)
        {
            break;
        }
        thread::yield_now();
    }
}

impl Request {
    fn bytes(&self) -> u64 {
        self.records.iter().map(Prepared::bytes).sum()
    }
}
