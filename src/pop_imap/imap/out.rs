//! The way to the client: a bounded buffer before the socket.
//!
//! Owns: what was written and not yet sent. Called by: `imap::serve`, `imap::run`. Never: holds more than a buffer and one
//! message; a client that does not read makes its own commands wait (backpressure), and is given up after a time, soon when the
//! role is to stop.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::write;
use crate::net::Shutdown;
use crate::pop_imap::context::STOP_PATIENCE;

/// The buffer is sent when it holds this much.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bodies of this length are sent from where they are, not by way of the buffer.
const DIRECT_BYTES_MIN: usize = 16 * 1024;
/// A client that takes not one byte for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// A writer with its buffer.
#[derive(Debug)]
pub(super) struct Out<W> {
    pub(super) writer: W,
    /// Responses are appended here.
    pub(super) buffer: Vec<u8>,
    patience: Patience,
}

/// How long a client is waited for that takes not one octet.
#[derive(Debug)]
struct Patience {
    time: Duration,
    /// None: nobody stops it (tests).
    shutdown: Option<Shutdown>,
}

impl<W: AsyncWrite + Unpin> Out<W> {
    /// Nothing written yet. `patience`: the longest silence that a client is granted otherwise.
    pub(super) fn new(writer: W, patience: Duration, shutdown: Option<Shutdown>) -> Self {
        let patience = Patience { time: patience.min(WRITE_TIMEOUT), shutdown };
        Self { writer, buffer: Vec::new(), patience }
    }

    /// Sends what there is when it has become much.
    pub(super) async fn relieve(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER_BYTES_MAX { self.send().await } else { Ok(()) }
    }

    /// Sends all, and gives the buffer back: the next thing is to wait for the client.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.send().await?;
        self.buffer = Vec::new();
        self.patience.within(self.writer.flush()).await
    }

    async fn send(&mut self) -> io::Result<()> {
        write_all(&mut self.writer, &self.patience, &self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }

    /// A literal. A long one goes out uncopied.
    pub(super) async fn literal(&mut self, bytes: &Bytes) -> io::Result<()> {
        if bytes.len() < DIRECT_BYTES_MIN || bytes.contains(&0) {
            write::literal(&mut self.buffer, bytes);
            return self.relieve().await;
        }
        write::literal_head(&mut self.buffer, bytes.len());
        self.send().await?;
        write_all(&mut self.writer, &self.patience, bytes).await
    }
}

async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, patience: &Patience, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = patience.within(writer.write(bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

impl Patience {
    async fn within<T>(&self, writing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let overdue = async {
            match &self.shutdown {
                Some(shutdown) => shutdown.clone().overdue(STOP_PATIENCE).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            written = writing => written,
            () = tokio::time::sleep(self.time) => Err(io::ErrorKind::TimedOut.into()),
            () = overdue => Err(io::ErrorKind::Interrupted.into()),
        }
    }
}
