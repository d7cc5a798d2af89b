//! One connection: the socket around a session.
//!
//! Owns: reading, writing, deadlines, memory for the message, the answers to what the session asks. Called by: `smtp::serve`.
//! Never: decides what is said.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::SemaphorePermit;
use tokio::time::{timeout, timeout_at};
use tracing::{debug, info};

use super::context::{Context, MEMORY_UNIT};
use super::envelope::Personality;
use super::session::{Ask, Client, Now, Session, Settings};
use super::{delivery, recipients, reply};
use crate::base::clock;
use crate::base::id::Id;
use crate::net::tls::Acceptor;
use crate::net::{Peer, Shutdown, Stream};

/// Octets to read at a time, at first and at most: a buffer that was filled grows.
const READ_LEN_MIN: usize = 4 * 1024;
const READ_LEN_MAX: usize = 64 * 1024;
/// How long a client may take to read what we say.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const TLS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client that we say goodbye to may go on sending: closing earlier would take our last words from it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_LEN_MAX: usize = 1024 * 1024;
/// How long a message in hand may take when the server stops. (The supervisor's patience is 30 s.)
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// What a service is.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// As in the handover: `smtp`, `submission`, `submissions`.
    pub name: &'static str,
    pub personality: Personality,
    /// TLS before the first octet (RFC 8314 section 3).
    pub implicit_tls: bool,
    pub settings: Arc<Settings>,
    pub tls: Option<Acceptor>,
}

/// Why a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    ByClient,
    TimedOut,
    Stopped,
    Broken,
}

/// From the first octet to the close.
pub(super) async fn hold(
    context: Arc<Context>,
    service: Service,
    stream: Stream,
    peer: Peer,
    id: Id,
    shutdown: Shutdown,
) {
    let (mut stream, mut shutdown) = (stream, shutdown);
    if service.implicit_tls {
        let Some(acceptor) = &service.tls else { return };
        stream = match shake_hands(stream, acceptor, &mut shutdown).await {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "TLS handshake failed"),
        };
    }
    let client = Client { address: peer.ip(), is_local: peer.is_local(), tls: stream.tls_description() };
    let session = Session::new(Arc::clone(&service.settings), service.personality, client, id, &now());
    let mut conversation = Conversation {
        context: &context,
        service: &service,
        stream: Some(stream),
        session,
        shutdown,
        memory: None,
        stop_at: None,
        messages: 0,
        client: peer.ip(),
    };
    let end = conversation.run().await;
    let user = conversation.session.account().map(|account| account.address.to_string()).unwrap_or_default();
    info!(service = service.name, ?end, messages = conversation.messages, user, "session");
    if end != End::Broken
        && let Some(stream) = conversation.stream
    {
        linger(stream).await;
    }
}

/// Begins TLS. Nothing is in hand then that would be lost: when the server stops, so does this.
async fn shake_hands(stream: Stream, acceptor: &Acceptor, shutdown: &mut Shutdown) -> io::Result<Stream> {
    tokio::select! {
        biased;
        secured = stream.start_tls(acceptor, TLS_TIMEOUT) => secured,
        () = shutdown.stopping() => Err(io::Error::new(io::ErrorKind::Interrupted, "the server stops")),
    }
}

/// Reads and forgets for a moment, so that our last words are not lost to a reset connection.
async fn linger(mut stream: Stream) {
    let drain = async {
        stream.shutdown().await?;
        let mut buffer = [0; READ_LEN_MIN];
        let mut left = LINGER_LEN_MAX;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
        }
        io::Result::Ok(())
    };
    // However it ends, the connection is closed now.
    drop(timeout(LINGER, drain).await);
}

fn now() -> Now {
    Now { monotonic: clock::monotonic(), unix_secs: clock::unix_secs() }
}

struct Conversation<'a> {
    context: &'a Context,
    service: &'a Service,
    /// None only while TLS is being started, and after that failed.
    stream: Option<Stream>,
    session: Session,
    shutdown: Shutdown,
    /// Memory that the message in hand takes.
    memory: Option<SemaphorePermit<'a>>,
    /// When to stop, the message in hand notwithstanding.
    stop_at: Option<Instant>,
    messages: u64,
    /// The client's address, for TCP.
    client: Option<IpAddr>,
}

impl Conversation<'_> {
    async fn run(&mut self) -> End {
        let mut buffer = vec![0; READ_LEN_MIN];
        loop {
            if self.send().await.is_err() {
                return End::Broken;
            }
            let len = match self.read(&mut buffer).await {
                Ok(0) => return End::ByClient,
                Ok(len) => len,
                Err(end) => {
                    // The session has given its last words; if they cannot be sent, that is the end too.
                    return self.send().await.map_or(End::Broken, |()| end);
                }
            };
            match self.receive(buffer.get(..len).unwrap_or_default()).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => {
                    debug!(%error, "connection lost");
                    return End::Broken;
                }
            }
            if len == buffer.len() && len < READ_LEN_MAX {
                buffer.resize(READ_LEN_MAX, 0);
            }
        }
    }

    /// Waits for octets; not beyond the session's deadline, nor for a new command when the server stops.
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, End> {
        loop {
            let Some(stream) = &mut self.stream else { return Ok(0) };
            if self.shutdown.is_stopping() {
                let stop_at = *self.stop_at.get_or_insert_with(|| clock::monotonic() + STOP_PATIENCE);
                if self.session.is_idle() || clock::monotonic() >= stop_at {
                    self.session.stop();
                    return Err(End::Stopped);
                }
            }
            let stopping = self.stop_at.is_some();
            let deadline = self.stop_at.map_or(self.session.deadline(), |at| at.min(self.session.deadline()));
            tokio::select! {
                biased;
                read = timeout_at(deadline.into(), stream.read(buffer)) => match read {
                    Ok(Ok(len)) => return Ok(len),
                    Ok(Err(error)) => {
                        debug!(%error, "connection lost");
                        return Ok(0);
                    }
                    Err(_) if stopping => {}
                    Err(_) => {
                        self.session.time_out();
                        return Err(End::TimedOut);
                    }
                },
                () = self.shutdown.stopping(), if !stopping => {}
            }
        }
    }

    /// Gives octets to the session and answers what it asks, until all are used.
    async fn receive(&mut self, input: &[u8]) -> io::Result<Option<End>> {
        let mut rest = input;
        loop {
            let (used, ask) = self.session.receive(rest, &now());
            rest = rest.get(used..).unwrap_or_default();
            self.account_for_memory(matches!(ask, Some(Ask::Deliver(_))));
            match ask {
                Some(Ask::Close) => {
                    self.send().await?;
                    return Ok(Some(End::Closed));
                }
                Some(Ask::StartTls) => self.start_tls().await?,
                Some(ask) => self.answer(ask).await?,
                None => return Ok(None),
            }
        }
    }

    async fn answer(&mut self, ask: Ask) -> io::Result<()> {
        match ask {
            Ask::Sender(sender) => {
                let account = self.session.account().map(Arc::as_ref);
                let verdict = recipients::sender(self.context, account, sender.as_ref()).await;
                self.session.sender_is(verdict.map(|()| Id::new()), &now());
            }
            Ask::Recipient(path) => {
                let verdict = recipients::recipient(self.context, self.service.personality, path).await;
                self.session.recipient_is(verdict, &now());
            }
            Ask::SignIn(credentials) => {
                let verdict = recipients::sign_in(self.context, &credentials, self.client).await;
                self.session.sign_in_is(verdict, &now());
            }
            Ask::Deliver(message) => {
                // Replies to commands that came with the message (BDAT) need not wait for it.
                self.send().await?;
                let reply = delivery::hand_over(self.context, &self.session.origin(), *message).await;
                self.memory = None;
                self.messages += u64::from(reply.is_positive());
                self.session.message_is(&reply, &now());
            }
            Ask::StartTls | Ask::Close => {}
        }
        Ok(())
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        self.send().await?;
        let acceptor = self.service.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        let stream = shake_hands(stream, acceptor, &mut self.shutdown).await?;
        self.session.tls_started(stream.tls_description().unwrap_or_default(), &now());
        self.stream = Some(stream);
        Ok(())
    }

    /// Memory for the message in hand; when there is none, the message is refused at its end. A message that is whole keeps what it has until it is handed over.
    fn account_for_memory(&mut self, is_whole: bool) {
        let wanted = self.session.buffered().div_ceil(MEMORY_UNIT);
        if wanted == 0 && !is_whole {
            self.memory = None;
        }
        let held = self.memory.as_ref().map_or(0, SemaphorePermit::num_permits);
        let Some(more) = wanted.checked_sub(held).filter(|more| *more > 0) else { return };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        match (self.context.memory.try_acquire_many(more), &mut self.memory) {
            (Ok(permit), Some(held)) => held.merge(permit),
            (Ok(permit), none) => *none = Some(permit),
            (Err(_), _) => {
                self.session.refuse_message(reply::NO_MEMORY);
                self.memory = None;
            }
        }
    }

    /// Sends what the session has to say.
    async fn send(&mut self) -> io::Result<()> {
        let output = self.session.output();
        if output.is_empty() {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let sent = async {
            stream.write_all(output).await?;
            stream.flush().await
        };
        let sent = timeout(WRITE_TIMEOUT, sent).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        output.clear();
        sent
    }
}
