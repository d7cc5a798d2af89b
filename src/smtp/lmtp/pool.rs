//! Connections to the LMTP server: opened when needed, used again, watched while the server is away.
//!
//! Owns: the sockets, how many there are, whether the server is there. Called by: `smtp::delivery`, `smtp::runner`.
//! Never: keeps a message; what was not taken is the caller's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::base::address::Address;
use crate::base::clock;
use crate::config::address::SocketAddress;
use crate::net::tls::Connector;
use crate::net::{Shutdown, Stream, site};
use crate::smtp::client::connection::Text;
use crate::smtp::client::{Begin, Client, Connection, Dialect, Lost, Target, Timeouts, Wishes};
use crate::smtp::envelope::Message;
use crate::smtp::reply::Reply;

/// Connections at a time. Each has one message under way, and all of them share the store's group commit.
const CONNECTIONS_MAX: usize = 64;
/// Recipients of one transaction, at most; more are handed over in several.
const RECIPIENTS_MAX: usize = 1000;
/// How long a server may take to greet, to answer recipients, or to take a message, until it counts as away. Longer than a role takes to be started
/// again, for while it is, a message that waits is delivered once for sure.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server may take over a whole message (RFC 5321 section 4.5.3.2.6 has ten minutes; the sender behind us waits too).
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(300);
const TIMEOUTS: Timeouts = Timeouts { reply: PATIENCE, outcome: OUTCOME_TIMEOUT };
/// A connection unused for so long is closed: servers close theirs after five minutes.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Wait between attempts to reach a server that is away.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The server said so.
    Answered(Reply),
    /// The server has not got the message.
    NotTried,
    /// The server got the message, and the connection was lost before the reply.
    Unknown,
}

/// The way to one server. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    server: SocketAddress,
    /// For a server on another host of the site.
    tls: Option<Connector>,
    hostname: String,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    away: watch::Sender<bool>,
}

impl Pool {
    /// The server at this address, on another host of the site by `tls`; nothing is opened yet. `hostname` is by what we greet. Watches over the server until shutdown; must be called inside a runtime.
    #[must_use]
    pub fn new(server: SocketAddress, tls: Option<Connector>, hostname: String, shutdown: Shutdown) -> Self {
        let (away, watcher) = watch::channel(false);
        let (idle, permits) = (Mutex::default(), Semaphore::new(CONNECTIONS_MAX));
        let pool = Self { inner: Arc::new(Inner { server, tls, hostname, idle, permits, away }) };
        tokio::spawn(probe(pool.clone(), watcher, shutdown));
        pool
    }

    /// Whether the server is away, as far as is known; changes are seen on it.
    #[must_use]
    pub fn away(&self) -> watch::Receiver<bool> {
        self.inner.away.subscribe()
    }

    /// Hands the message over to these mailboxes; gives the fate of each, in order.
    ///
    /// While the server is known to be away, nothing is tried.
    pub async fn deliver(&self, message: &Message, mailboxes: &[&Address]) -> Vec<Fate> {
        let mut fates = Vec::with_capacity(mailboxes.len());
        for portion in mailboxes.chunks(RECIPIENTS_MAX) {
            let end = fates.len() + portion.len();
            fates.extend(self.transact(message, portion).await);
            fates.resize(end, Fate::NotTried);
        }
        fates
    }

    /// One transaction; at most one connection that turns out to be dead is replaced. Gives nothing when nothing was handed over.
    async fn transact(&self, message: &Message, mailboxes: &[&Address]) -> Vec<Fate> {
        let Ok(_permit) = self.inner.permits.acquire().await else { return Vec::new() };
        if *self.inner.away.borrow() {
            return Vec::new();
        }
        if let Some(mut connection) = self.inner.take_idle() {
            match transact(&mut connection, message, mailboxes).await {
                Ok(replies) => return self.inner.finished(connection, replies),
                Err(lost) if connection.is_message_sent() => return doubtful(connection, &lost),
                Err(Lost::Timeout(patience)) => {
                    self.inner.set_away(&Lost::Timeout(patience));
                    return Vec::new();
                }
                Err(lost) => {
                    debug!(%lost, "idle LMTP connection was dead");
                    self.inner.forget_idle();
                }
            }
        }
        let mut connection = match self.inner.connect().await {
            Ok(connection) => connection,
            Err(lost) => {
                self.inner.set_away(&lost);
                return Vec::new();
            }
        };
        match transact(&mut connection, message, mailboxes).await {
            Ok(replies) => self.inner.finished(connection, replies),
            Err(lost) if connection.is_message_sent() => doubtful(connection, &lost),
            Err(lost) => {
                self.inner.set_away(&lost);
                Vec::new()
            }
        }
    }
}

/// The fates when the connection was lost after the message was sent.
fn doubtful(connection: Connection, lost: &Lost) -> Vec<Fate> {
    warn!(%lost, "LMTP connection lost before the reply: the outcome is unknown");
    let known = connection.abandon().into_iter();
    known.map(|outcome| outcome.map_or(Fate::Unknown, Fate::Answered)).collect()
}

impl Inner {
    /// An idle connection that still lives, as far as can be seen.
    fn take_idle(&self) -> Option<Connection> {
        let now = clock::monotonic();
        loop {
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            // Anything to read now is the end of the connection, or nothing that belongs there.
            let silent = connection.is_silent();
            if silent && now.saturating_duration_since(connection.answered_at()) < IDLE_MAX {
                return Some(connection);
            }
        }
    }

    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn finished(&self, connection: Connection, replies: Vec<Reply>) -> Vec<Fate> {
        let now = connection.answered_at();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|other| now.saturating_duration_since(other.answered_at()) < IDLE_MAX);
        idle.push(connection);
        drop(idle);
        replies.into_iter().map(Fate::Answered).collect()
    }

    fn set_away(&self, lost: &Lost) {
        self.forget_idle();
        if !self.away.send_replace(true) {
            warn!(server = %self.server, %lost, "LMTP server is away: mail is queued");
        }
    }

    /// A new connection on which LHLO was answered.
    async fn connect(&self) -> Result<Connection, Lost> {
        let opened = async {
            let stream = match &self.server {
                SocketAddress::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Stream::from(stream)
                }
                SocketAddress::Unix(path) => Stream::from(UnixStream::connect(path).await?),
            };
            let stream = match &self.tls {
                Some(tls) => stream.connect_tls(tls, site::NAME, PATIENCE).await?,
                None => stream,
            };
            let client = Client::new(Dialect::Lmtp, self.hostname.clone(), Wishes::default(), false);
            Connection::greet(stream, client, TIMEOUTS, None).await
        };
        timeout(PATIENCE, opened).await.unwrap_or(Err(Lost::Timeout(PATIENCE)))
    }
}

/// Sends the message to these mailboxes.
async fn transact(connection: &mut Connection, message: &Message, mailboxes: &[&Address]) -> Result<Vec<Reply>, Lost> {
    let targets: Vec<Target<'_>> = mailboxes.iter().map(|mailbox| Target::new(mailbox)).collect();
    let begin = Begin {
        reverse_path: message.envelope.reverse_path.as_ref(),
        targets: &targets,
        message_len: message.size(),
        eight_bit: true,
        smtputf8: false,
        reports: None,
        eager: false,
    };
    connection.transact(Text(&message.trace, &message.content), &begin).await
}

/// While the server is away, tries to reach it, and says when it is back.
async fn probe(pool: Pool, mut away: watch::Receiver<bool>, mut shutdown: Shutdown) {
    let work = async {
        while away.wait_for(|away| *away).await.is_ok() {
            match pool.inner.connect().await {
                Ok(connection) => {
                    pool.inner.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                    pool.inner.away.send_replace(false);
                    info!(server = %pool.inner.server, "LMTP server is back");
                }
                Err(lost) => {
                    debug!(%lost, "LMTP server is still away");
                    tokio::time::sleep(PROBE_EVERY).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.stopping() => {}
    }
}
