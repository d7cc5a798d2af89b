//! The way to the client: a bounded buffer before the socket.
//!
//! Owns: what was written and not yet sent. Called by: `imap::serve`, `imap::run`. Never: holds more than a buffer and one
//! message; a client that does not read makes its own commands wait (backpressure), and is given up after a time.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::write;

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
}

impl<W: AsyncWrite + Unpin> Out<W> {
    /// Nothing written yet.
    pub(super) fn new(writer: W) -> Self {
        Self { writer, buffer: Vec::new() }
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
        within(self.writer.flush()).await
    }

    async fn send(&mut self) -> io::Result<()> {
        write_all(&mut self.writer, &self.buffer).await?;
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
        write_all(&mut self.writer, bytes).await
    }
}

async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = within(writer.write(bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

async fn within<T>(writing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(WRITE_TIMEOUT, writing).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
