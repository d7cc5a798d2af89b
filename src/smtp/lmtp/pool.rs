//! Connections to the LMTP server: opened when needed, used again, watched while the server is away.
//!
//! Owns: the sockets, how many there are, whether the server is there. Called by: `smtp::delivery`, `smtp::runner`.
//! Never: keeps a message; what was not taken is the caller's.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::client::{Client, Event, Fault, Framing};
use crate::base::address::Address;
use crate::base::clock;
use crate::config::address::SocketAddress;
use crate::message::dot::DotWriter;
use crate::net::{Shutdown, Stream};
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
/// A connection that answered so recently gets the message along with the commands. Under load every one is; else a server that was just stopped is found out
/// before it has the message.
const FRESH: Duration = Duration::from_millis(100);
/// A connection unused for so long is closed: servers close theirs after five minutes.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Wait between attempts to reach a server that is away.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// Up to this size commands and message are copied together and written at once.
const ONE_WRITE_LEN_MAX: usize = 64 * 1024;

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
    hostname: String,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    away: watch::Sender<bool>,
}

struct Connection {
    stream: Stream,
    client: Client,
    answered_at: Instant,
}

/// Why a transaction did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl Pool {
    /// The server at this address; nothing is opened yet. `hostname` is by what we greet. Watches over the server until shutdown; must be called inside a runtime.
    #[must_use]
    pub fn new(server: SocketAddress, hostname: String, shutdown: Shutdown) -> Self {
        let (away, watcher) = watch::channel(false);
        let (idle, permits) = (Mutex::default(), Semaphore::new(CONNECTIONS_MAX));
        let pool = Self { inner: Arc::new(Inner { server, hostname, idle, permits, away }) };
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
            match connection.transact(message, mailboxes).await {
                Ok(replies) => return self.inner.finished(connection, replies),
                Err(lost) if connection.client.is_message_sent() => return doubtful(connection, &lost),
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
        match connection.transact(message, mailboxes).await {
            Ok(replies) => self.inner.finished(connection, replies),
            Err(lost) if connection.client.is_message_sent() => doubtful(connection, &lost),
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
    let known = connection.client.abandon().into_iter();
    known.map(|outcome| outcome.map_or(Fate::Unknown, Fate::Answered)).collect()
}

impl Inner {
    /// An idle connection that still lives, as far as can be seen.
    fn take_idle(&self) -> Option<Connection> {
        let now = clock::monotonic();
        loop {
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            // Anything to read now is the end of the connection, or nothing that belongs there.
            let silent = connection.stream.read(&mut [0; 1]).now_or_never().is_none();
            if silent && now.saturating_duration_since(connection.answered_at) < IDLE_MAX {
                return Some(connection);
            }
        }
    }

    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn finished(&self, mut connection: Connection, replies: Vec<Reply>) -> Vec<Fate> {
        connection.answered_at = clock::monotonic();
        let now = connection.answered_at;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|other| now.saturating_duration_since(other.answered_at) < IDLE_MAX);
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
            let client = Client::new(self.hostname.clone());
            let mut connection = Connection { stream, client, answered_at: clock::monotonic() };
            connection.event().await?;
            Ok(connection)
        };
        timeout(PATIENCE, opened).await.unwrap_or(Err(Lost::Timeout(PATIENCE)))
    }
}

impl Connection {
    /// Sends the message to these mailboxes, and waits for the last reply.
    async fn transact(&mut self, message: &Message, mailboxes: &[&Address]) -> Result<Vec<Reply>, Lost> {
        let fresh = clock::monotonic().saturating_duration_since(self.answered_at) < FRESH;
        let reverse_path = message.envelope.reverse_path.as_ref();
        if self.client.begin(reverse_path, mailboxes, message.size(), fresh) {
            self.send(message, Framing::Chunk).await?;
            self.client.message_sent();
        }
        let patience = if self.client.is_message_sent() { OUTCOME_TIMEOUT } else { PATIENCE };
        loop {
            match timeout(patience, self.event()).await.unwrap_or(Err(Lost::Timeout(patience)))? {
                Event::Ready => {}
                Event::Finished(replies) => return Ok(replies),
                Event::SendMessage(framing) => {
                    self.send(message, framing).await?;
                    self.client.message_sent();
                    return self.outcomes().await;
                }
            }
        }
    }

    async fn outcomes(&mut self) -> Result<Vec<Reply>, Lost> {
        loop {
            match timeout(OUTCOME_TIMEOUT, self.event()).await.unwrap_or(Err(Lost::Timeout(OUTCOME_TIMEOUT)))? {
                Event::Finished(replies) => return Ok(replies),
                Event::Ready | Event::SendMessage(_) => {}
            }
        }
    }

    /// Sends what stands in the output, and the message.
    async fn send(&mut self, message: &Message, framing: Framing) -> Result<(), Lost> {
        let output = self.client.output();
        match framing {
            Framing::Chunk if message.size() <= ONE_WRITE_LEN_MAX => {
                output.extend_from_slice(&message.trace);
                output.extend_from_slice(&message.content);
            }
            Framing::Chunk => {
                self.flush().await?;
                self.write(&message.trace).await?;
                return self.write(&message.content).await;
            }
            Framing::Dots => {
                let mut writer = DotWriter::new();
                writer.write(&message.trace, output);
                writer.write(&message.content, output);
                writer.finish(output);
            }
            Framing::Nothing => output.extend_from_slice(b".\r\n"),
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Lost> {
        let output = std::mem::take(self.client.output());
        self.write(&output).await
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Lost> {
        let written = timeout(OUTCOME_TIMEOUT, self.stream.write_all(octets)).await;
        Ok(written.map_err(|_| Lost::Timeout(OUTCOME_TIMEOUT))??)
    }

    /// Sends what is to be sent and reads up to the next event.
    async fn event(&mut self) -> Result<Event, Lost> {
        let mut buffer = [0; 4096];
        loop {
            if !self.client.output().is_empty() {
                self.flush().await?;
            }
            let len = self.stream.read(&mut buffer).await?;
            if len == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let input = buffer.get(..len).unwrap_or_default();
            let (used, event) = self.client.receive(input)?;
            match event {
                // Replies beyond the event answer nothing that was asked.
                Some(_) if used < len => return Err(Fault::Malformed("more replies than commands").into()),
                Some(event) => return Ok(event),
                None => {}
            }
        }
    }
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
