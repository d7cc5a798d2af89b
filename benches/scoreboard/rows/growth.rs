//! What it costs when there is more: in the store, in the directory.
//!
//! Owns: the curves. Called by: `main`. Deliveries go to the same mailboxes, SELECTs to a mailbox of the same size; what
//! grows lies elsewhere.

use std::path::Path;

use super::delivery::{self, Load};
use super::mailbox;
use crate::Failure;
use crate::server::{Kind, Server};

/// Messages in the mailbox that SELECT is measured on.
const PROBE_MESSAGES: u64 = 1000;
/// Its account.
const PROBE: u64 = 0;
/// Accounts that get mail, at most.
const RECEIVERS_MAX: u64 = 100;
const OCTETS: usize = 10_000;
/// Octets of the messages that are only there.
const FILL_OCTETS: usize = 1000;
const CONNECTIONS: u64 = 20;

/// One place on a curve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) kind: Kind,
    /// Messages in the store, or accounts.
    pub(crate) size: u64,
    pub(crate) delivered: f64,
    pub(crate) cpu_millis: f64,
    pub(crate) select_cold_millis: f64,
    pub(crate) select_warm_millis: f64,
}

/// With so many messages in the store.
pub(crate) fn messages(
    points: &mut Vec<Point>,
    kind: Kind,
    dir: &Path,
    sizes: &[u64],
    each: u64,
    drop_caches: bool,
) -> Result<(), Failure> {
    // Accounts: the probe, the receivers, and as many again that hold what fills the store.
    let mut server = Server::start(kind, dir, 1 + 2 * RECEIVERS_MAX, &[])?;
    server.fill(PROBE..PROBE + 1, PROBE_MESSAGES, FILL_OCTETS)?;
    let mut filled = PROBE_MESSAGES;
    for size in sizes {
        if *size > filled {
            // Maildirs cannot be filled twice by the same names: each step has accounts of its own among the fillers.
            server.fill(fillers(sizes, *size), *size - filled, FILL_OCTETS)?;
            filled = *size;
        }
        let receivers = (1..=RECEIVERS_MAX).collect();
        points.push(point(&mut server, *size, receivers, each, drop_caches)?);
    }
    Ok(())
}

/// With so many accounts.
pub(crate) fn accounts(
    points: &mut Vec<Point>,
    kind: Kind,
    dir: &Path,
    sizes: &[u64],
    each: u64,
    drop_caches: bool,
) -> Result<(), Failure> {
    let mut server = Server::start(kind, dir, 1, &[])?;
    server.fill(PROBE..PROBE + 1, PROBE_MESSAGES, FILL_OCTETS)?;
    let mut made = 1;
    for size in sizes {
        server.accounts(made, *size)?;
        made = (*size).max(made);
        // Spread over all of them.
        let receivers = RECEIVERS_MAX.min(*size - 1);
        let receivers = (0..receivers).map(|nth| 1 + nth * (*size - 1) / receivers).collect();
        points.push(point(&mut server, *size, receivers, each, drop_caches)?);
    }
    Ok(())
}

fn fillers(sizes: &[u64], size: u64) -> std::ops::Range<u64> {
    let step = sizes.iter().position(|other| *other == size).and_then(|nth| u64::try_from(nth).ok()).unwrap_or(0);
    let share = RECEIVERS_MAX / u64::try_from(sizes.len()).unwrap_or(1).max(1);
    let from = 1 + RECEIVERS_MAX + step * share;
    from..from + share
}

fn point(server: &mut Server, size: u64, receivers: Vec<u64>, each: u64, drop_caches: bool) -> Result<Point, Failure> {
    let load = Load { connections: CONNECTIONS, messages: each, octets: OCTETS, accounts: receivers };
    let taken = delivery::deliver(server, &load)?;
    let (select_cold_millis, select_warm_millis) = mailbox::select(server, PROBE, drop_caches)?;
    let point = Point {
        kind: server.kind,
        size,
        delivered: taken.delivered,
        cpu_millis: taken.cpu_millis,
        select_cold_millis,
        select_warm_millis,
    };
    println!("  {point:?}");
    Ok(point)
}
