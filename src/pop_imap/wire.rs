//! The connection of a line protocol: what has come and was not used yet, reading and writing in bounded time.
//!
//! Owns: `Wire`. Called by: `lmtp::serve`, `pop3::serve`. Never: knows what the octets mean.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::context::{Context, STOP_PATIENCE};
use crate::net::{Pace, Shutdown, Stream};

/// Answers beyond this much are sent before more input is used.
pub(super) const OUT_LEN_MAX: usize = 64 * 1024;

/// How long, and for how many octets, a connection that was closed on this side is still read.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_LEN: usize = 256 * 1024;

/// How a read ended.
#[derive(Debug)]
pub(super) enum Read {
    /// There is more input.
    More,
    /// The peer has closed, or the connection is broken.
    Closed,
    /// Nothing came in time.
    TimedOut,
    /// The role is to stop.
    Stopping,
}

/// A connection and its input.
pub(super) struct Wire {
    /// None only when a handshake has failed.
    stream: Option<Stream>,
    input: BytesMut,
    /// Octets to ask for at a time.
    piece: usize,
    shutdown: Shutdown,
    /// How fast the input comes.
    pub(super) pace: Pace,
}

impl Wire {
    /// Reads up to `piece` octets at a time.
    pub(super) fn new(stream: Stream, piece: usize, shutdown: Shutdown) -> Self {
        Self { stream: Some(stream), input: BytesMut::new(), piece, shutdown, pace: Pace::default() }
    }

    /// Input that was not used yet.
    pub(super) fn input(&self) -> &[u8] {
        &self.input
    }

    /// So many octets of the input are done with.
    pub(super) fn used(&mut self, octets: usize) {
        self.input.advance(octets);
        if self.input.is_empty() && self.input.capacity() > self.piece {
            // An idle session keeps little memory.
            self.input = BytesMut::new();
        }
    }

    /// Waits for more input until the deadline. With a `shutdown` its wish ends the wait.
    pub(super) async fn read(&mut self, deadline: Instant, shutdown: Option<&mut Shutdown>) -> Read {
        let Some(stream) = &mut self.stream else { return Read::Closed };
        self.input.reserve(self.piece);
        let stopping = async {
            match shutdown {
                Some(shutdown) => shutdown.stopping().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = stream.read_buf(&mut self.input) => match read {
                Ok(0) | Err(_) => Read::Closed,
                Ok(octets) => {
                    self.pace.received(octets);
                    Read::More
                }
            },
            () = stopping => Read::Stopping,
            () = tokio::time::sleep_until(deadline.into()) => Read::TimedOut,
        }
    }

    /// Sends all of `out` and empties it. A peer that does not read is given up after `patience`, soon when the role is to stop.
    pub(super) async fn write(&mut self, out: &mut Vec<u8>, patience: Duration) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let sending = async {
            stream.write_all(out).await?;
            stream.flush().await
        };
        tokio::select! {
            biased;
            sent = sending => sent?,
            () = tokio::time::sleep(patience) => return Err(io::ErrorKind::TimedOut.into()),
            () = self.shutdown.clone().overdue(STOP_PATIENCE) => return Err(io::ErrorKind::Interrupted.into()),
        }
        out.clear();
        if out.capacity() > 2 * OUT_LEN_MAX {
            *out = Vec::new();
        }
        Ok(())
    }

    /// Shakes hands. Clear text that came before is thrown away.
    pub(super) async fn start_tls(&mut self, context: &Context) -> io::Result<()> {
        self.input = BytesMut::new();
        let stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        self.stream = Some(context.start_tls(stream).await?);
        Ok(())
    }

    /// Says that nothing more will come, and lets the peer read that.
    ///
    /// What it still sends is read for a moment and thrown away: closed with input unread, the kernel would break the
    /// connection and the last answer could be lost on the way.
    pub(super) async fn close(mut self) {
        let Some(stream) = &mut self.stream else { return };
        let lingering = async {
            stream.shutdown().await?;
            let mut left = LINGER_LEN;
            let mut scrap = BytesMut::with_capacity(4096);
            while left > 0 {
                scrap.clear();
                match stream.read_buf(&mut scrap).await? {
                    0 => break,
                    octets => left = left.saturating_sub(octets),
                }
            }
            io::Result::Ok(())
        };
        // Whatever happens now, the session is over.
        drop(tokio::time::timeout(LINGER, lingering).await);
    }
}
