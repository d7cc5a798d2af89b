//! Mail in: by SMTP from many connections, until IMAP shows all of it.
//!
//! Owns: the senders and those who watch. Called by: `main`, `growth`.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::{Board, block_on, float, millis_each, rate};
use crate::client::{Imap, Smtp};
use crate::gauge::{self, Syncs};
use crate::mail::{self, Mail};
use crate::server::{Server, Service};
use crate::{Failure, PASSWORD, clock};

/// Mailboxes whose messages are counted; the others are taken to be like them.
const WATCHED_MAX: usize = 100;
/// Between two looks at a mailbox that is not complete.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const SENDER: &str = "sender@client.bench.test";

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) connections: u64,
    pub(crate) messages: u64,
    pub(crate) octets: usize,
    /// Who gets it, in turn.
    pub(crate) accounts: Vec<u64>,
}

/// What it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// 250 for messages, a second.
    pub(crate) accepted: f64,
    /// Seen by STATUS, a second, from the first byte sent to the last message seen.
    pub(crate) delivered: f64,
    /// CPU of all of the server's processes.
    pub(crate) cpu_millis: f64,
    pub(crate) syncs: Option<f64>,
}

/// The rows of one number of connections.
pub(crate) fn row(board: &mut Board, server: &Server, load: &Load) -> Result<(), Failure> {
    let taken = deliver(server, load)?;
    let (kind, connections) = (server.kind, load.connections);
    board.put(kind, &format!("accepted, {connections} connections"), taken.accepted);
    board.put(kind, &format!("delivered, {connections} connections"), taken.delivered);
    board.put(kind, &format!("CPU a message, {connections} connections"), taken.cpu_millis);
    if let Some(syncs) = taken.syncs {
        board.put(kind, &format!("fsyncs a message, {connections} connections"), syncs);
    }
    Ok(())
}

/// Delivers, and waits until all of it is seen. Mailboxes exist and are known to the servers when the clock starts.
pub(crate) fn deliver(server: &Server, load: &Load) -> Result<Taken, Failure> {
    block_on(async {
        let mut watchers = watch(server, load).await?;
        let warm_up = Load { messages: u64::try_from(load.accounts.len())?, ..load.clone() };
        send(server, &warm_up).await?;
        arrive(&mut watchers, &warm_up).await?;

        let syncs = Syncs::start(&server.roots(), server.dir());
        let (start, cpu) = (clock::monotonic(), gauge::cpu(&server.roots()));
        send(server, load).await?;
        let accepted = start.elapsed();
        arrive(&mut watchers, load).await?;
        let delivered = start.elapsed();
        let cpu = gauge::cpu(&server.roots()).saturating_sub(cpu);
        let syncs = syncs.map(Syncs::read).transpose()?;
        Ok(Taken {
            accepted: rate(load.messages, accepted),
            delivered: rate(load.messages, delivered),
            cpu_millis: millis_each(cpu, load.messages),
            syncs: syncs.map(|syncs| float(syncs) / float(load.messages)),
        })
    })
}

/// A mailbox that is watched, and how many messages were last known to be in it.
struct Watcher {
    session: Imap,
    count: u64,
}

async fn watch(server: &Server, load: &Load) -> Result<Vec<Watcher>, Failure> {
    let mut watchers = Vec::new();
    for account in load.accounts.iter().take(WATCHED_MAX) {
        let mut session = Imap::login(server.addr(Service::Imap), &mail::address(*account), PASSWORD).await?;
        let count = session.count().await?;
        watchers.push(Watcher { session, count });
    }
    Ok(watchers)
}

/// Waits until the mailboxes that are watched hold what was sent to them.
async fn arrive(watchers: &mut [Watcher], load: &Load) -> Result<(), Failure> {
    let accounts = u64::try_from(load.accounts.len())?;
    for (nth, watcher) in watchers.iter_mut().enumerate() {
        let nth = u64::try_from(nth)?;
        // Message `n` goes to account `n` modulo their number.
        watcher.count += load.messages / accounts + u64::from(nth < load.messages % accounts);
        while watcher.session.count().await? < watcher.count {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}

async fn send(server: &Server, load: &Load) -> Result<(), Failure> {
    let next = Cell::new(0);
    let sender = || async {
        let mut templates: Vec<Mail> = Mail::templates(8, load.octets).into_iter().map(Mail::for_data).collect();
        let mut session = Smtp::connect(server.addr(Service::Smtp), "EHLO").await?;
        loop {
            let number = next.get();
            if number >= load.messages {
                return session.quit().await;
            }
            next.set(number + 1);
            let nth = usize::try_from(number)? % load.accounts.len().max(1);
            let account = load.accounts.get(nth).ok_or("nobody to send to")?;
            session.send(SENDER, &mail::address(*account), mail::pick(&mut templates, number)?).await?;
        }
    };
    try_join_all((0..load.connections).map(|_| sender())).await.map(|_| ())
}
