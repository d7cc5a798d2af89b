//! The one client that drives every contender: raw sockets, few allocations, one thread.
//!
//! Owns: a connection's buffer. Called by: the rows. Never: has its own cost counted; it does the same to everybody.

mod imap;
mod pop3;
mod smtp;

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use self::imap::Imap;
pub(crate) use self::pop3::Pop3;
pub(crate) use self::smtp::Smtp;

use crate::Failure;

/// Room that is made for one read.
const READ_BYTES: usize = 64 * 1024;

/// A connection and what has been read of it.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    async fn connect(addr: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(addr).await.map_err(|error| format!("{addr}: {error}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(8 * 1024) })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes).await?)
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        self.buffer.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<BytesMut, Failure> {
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', self.buffer.get(seen..).unwrap_or_default()) {
                let mut line = self.buffer.split_to(seen + at + 1);
                line.truncate(line.strip_suffix(b"\r\n").unwrap_or(&line).len());
                return Ok(line);
            }
            seen = self.buffer.len();
            self.fill().await?;
        }
    }

    /// Passes over so many bytes.
    async fn skip(&mut self, mut bytes: usize) -> Result<(), Failure> {
        loop {
            let now = bytes.min(self.buffer.len());
            self.buffer.advance(now);
            bytes -= now;
            if bytes == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }
}
