//! One connection to a server: the socket around a client session.
//!
//! Owns: reading, writing, how long a server may take. Called by: `lmtp::pool`, `outbound`. Never: connects, chooses a server.
//! Spec: RFC 5321 section 4.5.3.2 (timeouts).

use std::io;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::session::{Begin, Capabilities, Client, Event, Fault, Framing};
use crate::base::clock;
use crate::message::dot::DotWriter;
use crate::net::Stream;
use crate::net::tls::Connector;
use crate::smtp::reply::Reply;

/// A connection that answered so recently gets the message along with the commands. Under load every one is; else a server that was just stopped is found out
/// before it has the message.
const FRESH: Duration = Duration::from_millis(100);
/// Up to this size commands and message are copied together and written at once; and up to this size a message goes along with its commands.
const ONE_WRITE_LEN_MAX: usize = 64 * 1024;
/// Octets to read at a time.
const READ_LEN: usize = 4096;
/// How long a server may take to take leave.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Over a reply to a command, and the greeting.
    pub reply: Duration,
    /// Over a whole message, and to read what we write.
    pub outcome: Duration,
}

impl Timeouts {
    /// RFC 5321 sections 4.5.3.2.1 to 4.5.3.2.6.
    pub const SMTP: Self = Self { reply: Duration::from_secs(300), outcome: Duration::from_secs(600) };
}

/// The parts of a message, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a [u8], pub &'a [u8]);

impl Text<'_> {
    /// Octets.
    #[must_use]
    pub fn size(self) -> usize {
        self.0.len() + self.1.len()
    }
}

/// Why a transaction did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("TLS: {0}")]
    Tls(io::Error),
}

/// A connection on which the greeting was answered.
pub struct Connection {
    stream: Stream,
    client: Client,
    timeouts: Timeouts,
    answered_at: Instant,
}

impl Connection {
    /// Greets, and does what the client wishes. `connector` and the server's name are for STARTTLS.
    ///
    /// # Errors
    /// The server is not there for us; `Tls`: it is, but TLS failed.
    pub async fn greet(
        stream: Stream,
        client: Client,
        timeouts: Timeouts,
        tls: Option<(&Connector, &str)>,
    ) -> Result<Self, Lost> {
        let mut connection = Self { stream, client, timeouts, answered_at: clock::monotonic() };
        loop {
            match connection.event().await? {
                Event::StartTls => {
                    let (connector, name) = tls.ok_or(Lost::Tls(io::ErrorKind::Unsupported.into()))?;
                    let Self { stream, mut client, .. } = connection;
                    let stream = stream.connect_tls(connector, name, timeouts.reply).await.map_err(Lost::Tls)?;
                    client.tls_started();
                    connection = Self { stream, client, timeouts, answered_at: clock::monotonic() };
                }
                Event::Ready => {
                    connection.answered_at = clock::monotonic();
                    return Ok(connection);
                }
                Event::SendMessage(_) | Event::Finished(_) => {
                    return Err(Fault::Malformed("a reply to nothing").into());
                }
            }
        }
    }

    /// What the server announced.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.client.capabilities()
    }

    /// Version and cipher suite, when TLS runs.
    #[must_use]
    pub fn tls_description(&self) -> Option<String> {
        self.stream.tls_description()
    }

    /// When the server answered last.
    #[must_use]
    pub fn answered_at(&self) -> Instant {
        self.answered_at
    }

    /// Whether nothing came since the last reply: neither the end of the connection, nor what does not belong there.
    pub fn is_silent(&mut self) -> bool {
        self.stream.read(&mut [0; 1]).now_or_never().is_none()
    }

    /// Whether all of the message may have reached the server: after that a lost connection leaves doubt.
    #[must_use]
    pub fn is_message_sent(&self) -> bool {
        self.client.is_message_sent()
    }

    /// What is known of each recipient, when the connection is lost.
    #[must_use]
    pub fn abandon(self) -> Vec<Option<Reply>> {
        self.client.abandon()
    }

    /// Sends a message, and waits for the last reply. `eager` in `begin` is set here.
    ///
    /// # Errors
    /// The connection is of no more use; `is_message_sent` and `abandon` tell what is known.
    pub async fn transact(&mut self, text: Text<'_>, begin: &Begin<'_>) -> Result<Vec<Reply>, Lost> {
        let fresh = clock::monotonic().saturating_duration_since(self.answered_at) < FRESH;
        let eager = fresh && text.size() <= ONE_WRITE_LEN_MAX;
        if self.client.begin(&Begin { eager, ..*begin }) {
            self.send(text, Framing::Chunk).await?;
        }
        loop {
            match self.event().await? {
                Event::Ready | Event::StartTls => return Err(Fault::Malformed("a reply to nothing").into()),
                Event::SendMessage(framing) => self.send(text, framing).await?,
                Event::Finished(replies) => {
                    self.answered_at = clock::monotonic();
                    return Ok(replies);
                }
            }
        }
    }

    /// Takes leave.
    pub async fn quit(mut self) {
        self.client.quit();
        let leave = async {
            self.flush().await?;
            Ok::<_, Lost>(self.stream.shutdown().await?)
        };
        // However it ends, the connection is closed now.
        drop(timeout(QUIT_TIMEOUT, leave).await);
    }

    /// Sends what stands in the output, and the message.
    async fn send(&mut self, text: Text<'_>, framing: Framing) -> Result<(), Lost> {
        let output = self.client.output();
        match framing {
            Framing::Chunk if text.size() <= ONE_WRITE_LEN_MAX => {
                output.extend_from_slice(text.0);
                output.extend_from_slice(text.1);
            }
            Framing::Chunk => {
                self.flush().await?;
                self.write(text.0).await?;
                self.write(text.1).await?;
            }
            Framing::Dots => {
                let mut writer = DotWriter::new();
                writer.write(text.0, output);
                writer.write(text.1, output);
                writer.finish(output);
            }
            Framing::Nothing => output.extend_from_slice(b".\r\n"),
        }
        self.flush().await?;
        // As long as a write fails, the server lacks the end of the message.
        self.client.message_sent();
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Lost> {
        let output = std::mem::take(self.client.output());
        self.write(&output).await?;
        Ok(self.stream.flush().await?)
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Lost> {
        let patience = self.timeouts.outcome;
        let written = timeout(patience, self.stream.write_all(octets)).await;
        Ok(written.map_err(|_| Lost::Timeout(patience))??)
    }

    /// Sends what is to be sent and reads up to the next event.
    async fn event(&mut self) -> Result<Event, Lost> {
        let mut buffer = [0; READ_LEN];
        loop {
            if !self.client.output().is_empty() {
                self.flush().await?;
            }
            let patience = if self.client.is_message_sent() { self.timeouts.outcome } else { self.timeouts.reply };
            let read = timeout(patience, self.stream.read(&mut buffer)).await;
            let len = read.map_err(|_| Lost::Timeout(patience))??;
            if len == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let input = buffer.get(..len).unwrap_or_default();
            let (used, event) = self.client.receive(input)?;
            match event {
                // Replies beyond the event answer nothing that was asked; after STARTTLS they were put in by another.
                Some(_) if used < len => return Err(Fault::Malformed("more replies than commands").into()),
                Some(event) => return Ok(event),
                None => {}
            }
        }
    }
}
