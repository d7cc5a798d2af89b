//! Mail out: taken by SMTP, through the durable queue, to Debian's `smtp-sink`.
//!
//! Owns: the sinks, one for each domain, and this row. Called by: `main`. The clock stops when the sinks have everything.

use std::cell::Cell;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::try_join_all;

use super::{Board, block_on, float, millis_each, rate};
use crate::client::Smtp;
use crate::gauge::{self, Syncs};
use crate::mail::{self, Mail};
use crate::server::{Kind, Server, Service, wait_for};
use crate::{Failure, PASSWORD, clock};

const SENDERS: u64 = 20;
const SINK_PORT: u16 = 2526;

/// Sends `messages` to `domains` domains, in turn.
pub(crate) fn row(
    board: &mut Board,
    kind: Kind,
    dir: &Path,
    domains: u8,
    messages: u64,
    octets: usize,
) -> Result<(), Failure> {
    let (server, sinks) = start(kind, dir, domains, octets)?;
    let syncs = Syncs::start(&server.roots(), server.dir());
    let (start, cpu) = (clock::monotonic(), gauge::cpu(&server.roots()));
    through(&server, &sinks, messages, octets)?;
    let time = start.elapsed();
    let cpu = gauge::cpu(&server.roots()).saturating_sub(cpu);
    let syncs = syncs.map(Syncs::read).transpose()?;
    let what = if domains == 1 { "1 domain".to_owned() } else { format!("{domains} domains") };
    board.put(kind, &format!("outbound, {what}"), rate(messages, time));
    board.put(kind, &format!("outbound CPU a message, {what}"), millis_each(cpu, messages));
    if let Some(syncs) = syncs {
        board.put(kind, &format!("outbound fsyncs a message, {what}"), float(syncs) / float(messages));
    }
    Ok(())
}

/// A server with a sink for each domain. Connections, processes and caches are there when this returns.
pub(crate) fn start(kind: Kind, dir: &Path, domains: u8, octets: usize) -> Result<(Server, Sinks), Failure> {
    let sinks = Sinks::start(crate::place(dir)?.keep().as_path(), domains)?;
    let server = Server::start(kind, dir, 1, &sinks.routes())?;
    through(&server, &sinks, u64::from(domains) * 4, octets)?;
    Ok((server, sinks))
}

/// Sends so many messages and waits until the sinks have them.
pub(crate) fn through(server: &Server, sinks: &Sinks, messages: u64, octets: usize) -> Result<(), Failure> {
    let before = sinks.messages();
    send(server, sinks, messages, octets)?;
    sinks.wait(before + messages)
}

/// Postfix takes mail for others from this machine on port 25; fife from a user who has signed in.
fn send(server: &Server, sinks: &Sinks, messages: u64, octets: usize) -> Result<(), Failure> {
    let next = Cell::new(0);
    let sender = || async {
        let mut templates: Vec<Mail> = Mail::templates(8, octets).into_iter().map(Mail::for_data).collect();
        let service = if server.kind == Kind::Fife { Service::Submission } else { Service::Smtp };
        let mut session = Smtp::connect(server.addr(service), "EHLO").await?;
        if server.kind == Kind::Fife {
            session.sign_in(&mail::address(0), PASSWORD).await?;
        }
        while next.get() < messages {
            let number = next.get();
            next.set(number + 1);
            let domain = domain(number % u64::try_from(sinks.all.len())?);
            let to = format!("somebody@{domain}");
            session.send(&mail::address(0), &to, mail::pick(&mut templates, number)?).await?;
        }
        session.quit().await
    };
    block_on(async { try_join_all((0..SENDERS).map(|_| sender())).await.map(|_| ()) })
}

fn domain(number: u64) -> String {
    format!("d{number}.sink.test")
}

/// The running `smtp-sink`s; stopped when dropped.
pub(crate) struct Sinks {
    all: Vec<Sink>,
}

struct Sink {
    child: Child,
    addr: SocketAddr,
    /// Where it writes its counters, over and over.
    counters: PathBuf,
}

impl Sinks {
    fn start(dir: &Path, domains: u8) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for number in 0..domains {
            let addr: SocketAddr = (Ipv4Addr::new(127, 92, 0, number + 1), SINK_PORT).into();
            let counters = dir.join(format!("sink-{number}"));
            let child = Command::new("smtp-sink")
                .args(["-c", "-u", "nobody", "-h", &domain(number.into()), &format!("inet:{addr}"), "1000"])
                .stdin(Stdio::null())
                .stdout(File::create(&counters)?)
                .stderr(Stdio::null())
                .spawn()?;
            all.push(Sink { child, addr, counters });
        }
        let sinks = Self { all };
        for sink in &sinks.all {
            wait_for("smtp-sink to answer", || std::net::TcpStream::connect(sink.addr).is_ok())?;
        }
        Ok(sinks)
    }

    fn routes(&self) -> Vec<(String, SocketAddr)> {
        (0..).zip(&self.all).map(|(number, sink)| (domain(number), sink.addr)).collect()
    }

    fn wait(&self, messages: u64) -> Result<(), Failure> {
        block_on(async {
            while self.messages() < messages {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        })
        .map_err(|error| format!("{} of {messages} messages arrived: {error}", self.messages()).into())
    }

    fn messages(&self) -> u64 {
        self.all.iter().map(Sink::messages).sum()
    }
}

impl Sink {
    /// Messages so far: the second of the last counters, which follow each other on one line by carriage returns.
    fn messages(&self) -> u64 {
        let text = std::fs::read_to_string(&self.counters).unwrap_or_default();
        let last = text.rsplit('\r').find(|piece| piece.contains("mesg=")).unwrap_or_default();
        let number = last.split("mesg=").nth(1).and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        for sink in &mut self.all {
            // Gone already: nothing to stop.
            sink.child.kill().ok();
            sink.child.wait().ok();
        }
    }
}
