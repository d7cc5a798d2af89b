//! The scoreboard: fife beside Debian's Postfix and Dovecot, on the same machine, driven by the same client.
//!
//! `cargo bench --bench scoreboard` installs the peers when they are missing (as root), starts one contender after the
//! other with a configuration and state of its own on loopback, measures, prints one table, and writes it with the curves,
//! the costs and the machine to docs/performance.md. A row that fails says so; the others go on.
//!
//!     cargo bench --bench scoreboard                 everything at the usual sizes, under 15 minutes
//!     cargo bench --bench scoreboard -- --full       with 2 million messages and 100,000 accounts
//!     cargo bench --bench scoreboard -- --quick      small sizes; writes nothing unless --out is given
//!     cargo bench --bench scoreboard -- --only delivery,idle --against fife
//!
//! Rooms: `server` (a contender: `fife`, `peer`), `client` (the one client), `mail` (what is sent), `gauge` (CPU, fsyncs,
//! memory), `rows` (what is measured), `profile` (where the time goes), `machine`, `report`.

#![expect(clippy::print_stdout, reason = "the table is the purpose")]

mod client;
mod fife;
mod gauge;
mod machine;
mod mail;
mod peer;
mod profile;
mod report;
mod rows;
mod server;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use ::fife::base::clock;

use crate::client::Imap;
use crate::profile::Cost;
use crate::report::Report;
use crate::rows::delivery::Load;
use crate::rows::{Board, delivery, growth, idle, mailbox, outbound};
use crate::server::{Kind, Server, Service};

pub(crate) type Failure = Box<dyn std::error::Error>;

pub(crate) const DOMAIN: &str = "bench.test";
pub(crate) const PASSWORD: &str = "measured-not-secret";
/// How long any one thing may take; with `--full`, 2 million deliveries are one thing.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1800);
/// Octets of a delivered message.
const OCTETS: usize = 10_000;
/// Octets of a message in the large mailbox.
const LARGE_MAILBOX_OCTETS: usize = 2_000;
/// Accounts that mail is delivered to; those behind them hold what is read.
const RECEIVERS: u64 = 100;
const LARGE_MAILBOX: u64 = RECEIVERS;
const POP3_MAILBOX: u64 = RECEIVERS + 1;
const ACCOUNTS: u64 = RECEIVERS + 2;
/// Open files of the client and, inherited, of the servers.
const OPEN_FILES: u64 = 100_000;

/// Parts of the scoreboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Delivery,
    Append,
    Read,
    Pop3,
    Idle,
    Outbound,
    Growth,
    Profile,
}

#[derive(Debug, Parser)]
struct Arguments {
    /// Also the sizes that take long: 2 million messages, 100,000 accounts.
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Small sizes, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only these contenders.
    #[arg(long, value_delimiter = ',')]
    against: Vec<Kind>,
    /// Where state is kept while it runs: the disk that is measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Where the page is written. Without it: docs/performance.md, if nothing was left out.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave the page cache alone: "cold" is then a restart of the server only.
    #[arg(long)]
    keep_caches: bool,
    /// Another build of fife to measure.
    #[arg(long)]
    fife: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn runs(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn meets(&self, kind: Kind) -> bool {
        self.against.is_empty() || self.against.contains(&kind)
    }
}

/// How much of everything.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    /// Messages delivered by a run: fife's, and a peer's, which takes its time.
    delivered: [u64; 2],
    appended: [u64; 2],
    large_mailbox: u64,
    pop3: u64,
    sessions: u64,
    outbound: u64,
    growth_delivered: [u64; 2],
    messages: Vec<u64>,
    accounts: Vec<u64>,
    drop_caches: bool,
}

impl Sizes {
    fn new(arguments: &Arguments) -> Self {
        let drop_caches = !arguments.keep_caches && nix::unistd::geteuid().is_root();
        let usual = Self {
            delivered: [20_000, 4_000],
            appended: [10_000, 3_000],
            large_mailbox: 100_000,
            pop3: 5_000,
            sessions: 2_000,
            outbound: 5_000,
            growth_delivered: [6_000, 1_500],
            messages: vec![1_000, 100_000],
            accounts: vec![10, 1_000, 10_000],
            drop_caches,
        };
        if arguments.full {
            Self { messages: vec![1_000, 100_000, 2_000_000], accounts: vec![10, 1_000, 10_000, 100_000], ..usual }
        } else if arguments.quick {
            Self {
                delivered: [1_000, 400],
                appended: [400, 400],
                large_mailbox: 2_000,
                pop3: 300,
                sessions: 100,
                outbound: 500,
                growth_delivered: [500, 300],
                messages: vec![1_000, 3_000],
                accounts: vec![10, 200],
                drop_caches,
            }
        } else {
            usual
        }
    }

    fn of(sizes: [u64; 2], kind: Kind) -> u64 {
        let [fife, peer] = sizes;
        if kind == Kind::Fife { fife } else { peer }
    }

    /// What the rows mean, for below the table.
    pub(crate) fn explain(&self) -> String {
        let cold = if self.drop_caches {
            "a restart with the page cache dropped"
        } else {
            "a restart, the page cache left alone"
        };
        format!(
            "- Delivered: seen by IMAP STATUS, from the first byte sent until the last message is seen. {} ({} for the peers)\n  \
               messages of {} KB, all different, to {RECEIVERS} mailboxes. Postfix hands over to Dovecot by LMTP.\n\
             - APPEND: messages of 10 KB, 20 sessions, each to a mailbox of its own, by synchronising literals.\n\
             - SELECT, FETCH and SEARCH: a mailbox of {} messages of 2 KB; cold is the first after {cold};\n  \
               warm with a session on it open. TEXT finds one message. Medians of three runs after one that is not counted.\n\
             - POP3: RETR of {} messages of 10 KB on one connection, all asked for at once.\n\
             - Idle sessions: {} in IDLE, INBOX selected, over {RECEIVERS} accounts; PSS of all processes.\n\
             - Outbound: {} messages of 10 KB by 20 connections, through the queue to Debian's `smtp-sink`, one for each\n  \
               domain, until the sinks have all of them. fife takes them from a user who signed in, Postfix by address.\n\
             - fife neither signs mail (DKIM) nor checks it (SPF, DKIM, DMARC) here, as Postfix does not.\n\
             - `fife / best peer` is a plain quotient; whether more or less is better is for the row to say.\n",
            self.delivered[0],
            self.delivered[1],
            OCTETS / 1000,
            self.large_mailbox,
            self.pop3,
            self.sessions,
            self.outbound,
        )
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = Arguments::parse();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).ok();
    if let Some(binary) = arguments.fife.take() {
        fife::BINARY.get_or_init(|| binary);
    }
    let mut board = Board::new();
    let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| arguments.meets(*kind)).collect();
    if let Err(error) = peer::install() {
        println!("no peers: {error}");
        board.failures.push(format!("no peers: {error}"));
        kinds.retain(|kind| *kind == Kind::Fife);
    }
    let sizes = Sizes::new(&arguments);
    let facts = machine::facts(&arguments.dir);
    // Removed at the very end.
    let place = place(&arguments.dir)?;
    arguments.dir = place.path().to_owned();
    let mut report = Report {
        facts,
        sizes,
        board,
        by_messages: Vec::new(),
        by_accounts: Vec::new(),
        costs: Vec::new(),
        minutes: 0.0,
    };
    for kind in kinds {
        println!("{kind}");
        measure(&arguments, &mut report, kind);
    }
    if arguments.runs(Part::Profile) && arguments.meets(Kind::Fife) {
        let outcome = profile(&arguments, &mut report);
        report.board.note(Kind::Fife, "profile", outcome);
    }
    report.minutes = report.board.elapsed().as_secs_f64() / 60.0;
    println!("\n{}", report.table()?);
    for failure in &report.board.failures {
        println!("failed: {failure}");
    }
    let whole = arguments.only.is_empty() && arguments.against.is_empty() && !arguments.quick;
    match &arguments.out {
        Some(path) => report.write(path),
        None if whole => report.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md")),
        None => Ok(()),
    }
}

/// Everything of one contender.
fn measure(arguments: &Arguments, report: &mut Report, kind: Kind) {
    let (dir, sizes) = (&arguments.dir, report.sizes.clone());
    let parts = [Part::Delivery, Part::Append, Part::Read, Part::Pop3, Part::Idle];
    if parts.into_iter().any(|part| arguments.runs(part)) {
        let outcome = at_home(arguments, &mut report.board, &sizes, kind);
        report.board.note(kind, "mailboxes", outcome);
    }
    // What leaves is Postfix's work alone: once is enough.
    if arguments.runs(Part::Outbound) && kind != Kind::Sdbox {
        for domains in [1, 50] {
            let outcome = outbound::row(&mut report.board, kind, dir, domains, sizes.outbound, OCTETS);
            report.board.note(kind, &format!("outbound, {domains} domains"), outcome);
        }
    }
    if arguments.runs(Part::Growth) && kind != Kind::Sdbox {
        let each = Sizes::of(sizes.growth_delivered, kind);
        let drop = sizes.drop_caches;
        let outcome = growth::messages(&mut report.by_messages, kind, dir, &sizes.messages, each, drop);
        report.board.note(kind, "growth by messages", outcome);
        let outcome = growth::accounts(&mut report.by_accounts, kind, dir, &sizes.accounts, each, drop);
        report.board.note(kind, "growth by accounts", outcome);
    }
}

/// The rows that one state serves.
fn at_home(arguments: &Arguments, board: &mut Board, sizes: &Sizes, kind: Kind) -> Result<(), Failure> {
    let mut server = Server::start(kind, &arguments.dir, ACCOUNTS, &[])?;
    let failures = board.failures.len();
    if arguments.runs(Part::Delivery) {
        for connections in [20, 200] {
            let load = Load {
                connections,
                messages: Sizes::of(sizes.delivered, kind),
                octets: OCTETS,
                accounts: (0..RECEIVERS).collect(),
            };
            let outcome = delivery::row(board, &server, &load);
            board.note(kind, &format!("delivery, {connections} connections"), outcome);
        }
    }
    if arguments.runs(Part::Append) {
        let outcome = mailbox::append(board, &server, Sizes::of(sizes.appended, kind), OCTETS);
        board.note(kind, "APPEND", outcome);
    }
    if arguments.runs(Part::Pop3) {
        let outcome = server.fill(POP3_MAILBOX..POP3_MAILBOX + 1, sizes.pop3, OCTETS);
        let outcome = outcome.and_then(|()| mailbox::pop3(board, &server, POP3_MAILBOX));
        board.note(kind, "POP3", outcome);
    }
    if arguments.runs(Part::Idle) {
        let outcome = idle::row(board, &mut server, sizes.sessions, RECEIVERS);
        board.note(kind, "idle sessions", outcome);
    }
    if arguments.runs(Part::Read) {
        let outcome = server.fill(LARGE_MAILBOX..LARGE_MAILBOX + 1, sizes.large_mailbox, LARGE_MAILBOX_OCTETS);
        let outcome = outcome
            .and_then(|()| mailbox::read(board, &mut server, LARGE_MAILBOX, sizes.large_mailbox, sizes.drop_caches));
        board.note(kind, "SELECT, FETCH, SEARCH", outcome);
    }
    if board.failures.len() > failures {
        println!("--- log of {kind}\n{}", server.log_tail());
    }
    Ok(())
}

/// The costs of fife's four paths.
fn profile(arguments: &Arguments, report: &mut Report) -> Result<(), Failure> {
    let (dir, sizes) = (&arguments.dir, &report.sizes);
    let scratch = tempfile::tempdir_in(dir)?;
    let mut server = Server::start(Kind::Fife, dir, ACCOUNTS, &[])?;
    let mut costs: Vec<(&'static str, Vec<Cost>)> = Vec::new();
    // Passwords are verified, mailboxes made.
    let first = Load { connections: 20, messages: RECEIVERS, octets: OCTETS, accounts: (0..RECEIVERS).collect() };
    delivery::deliver(&server, &first)?;
    let load =
        Load { connections: 20, messages: sizes.delivered[0], octets: OCTETS, accounts: (0..RECEIVERS).collect() };
    let delivery = profile::record(&mut server, scratch.path(), |server| delivery::deliver(server, &load).map(|_| ()));
    costs.push(("Delivery: SMTP, LMTP, store", delivery?));
    server.fill(LARGE_MAILBOX..LARGE_MAILBOX + 1, sizes.large_mailbox / 4, LARGE_MAILBOX_OCTETS)?;
    let fetch = |command: &'static str, times: u32| {
        move |server: &mut Server| {
            rows::block_on(async {
                let user = mail::address(LARGE_MAILBOX);
                let mut session = Imap::login(server.addr(Service::Imap), &user, PASSWORD).await?;
                session.run("SELECT INBOX").await?;
                for _ in 0..times {
                    session.run(command).await?;
                }
                Ok(())
            })
        }
    };
    costs.push((
        "IMAP FETCH 1:* (ENVELOPE)",
        profile::record(&mut server, scratch.path(), fetch("FETCH 1:* (ENVELOPE)", 10))?,
    ));
    costs.push((
        "IMAP FETCH 1:* (UID FLAGS)",
        profile::record(&mut server, scratch.path(), fetch("FETCH 1:* (UID FLAGS)", 300))?,
    ));
    server.fill(POP3_MAILBOX..POP3_MAILBOX + 1, sizes.pop3, OCTETS)?;
    let pop3 = profile::record(&mut server, scratch.path(), |server| {
        (0..5).try_for_each(|_| mailbox::pop3(&mut Board::new(), server, POP3_MAILBOX))
    });
    costs.push(("POP3 RETR", pop3?));
    drop(server);
    report.costs = costs;
    let (mut server, sinks) = outbound::start(Kind::Fife, dir, 10, OCTETS)?;
    let outbound = profile::record(&mut server, scratch.path(), |server| {
        outbound::through(server, &sinks, sizes.outbound, OCTETS)
    });
    report.costs.push(("Outbound: submission, queue, SMTP", outbound?));
    Ok(())
}

/// A directory of its own below `dir`, which servers that have given up root can reach.
pub(crate) fn place(dir: &Path) -> Result<tempfile::TempDir, Failure> {
    let dir = tempfile::Builder::new().prefix("fife-bench-").tempdir_in(dir)?;
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
    Ok(dir)
}
