//! POP3, with RETR pipelined.
//!
//! Owns: one session. Called by: the mailbox rows. Spec: RFC 1939, RFC 2449 section 6.6 (PIPELINING).

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Buf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{READ_BYTES, Wire};
use crate::Failure;

/// Ends a response of several lines.
const END: &[u8] = b"\r\n.\r\n";

pub(crate) struct Pop3 {
    wire: Wire,
}

impl Pop3 {
    pub(crate) async fn login(addr: SocketAddr, user: &str, password: &str) -> Result<Self, Failure> {
        let mut session = Self { wire: Wire::connect(addr).await? };
        session.good().await?;
        session.wire.send(format!("USER {user}\r\n").as_bytes()).await?;
        session.good().await?;
        session.wire.send(format!("PASS {password}\r\n").as_bytes()).await?;
        session.good().await?;
        Ok(session)
    }

    /// Messages in the mailbox.
    pub(crate) async fn count(&mut self) -> Result<u64, Failure> {
        self.wire.send(b"STAT\r\n").await?;
        let answer = self.good().await?;
        let number = answer.split(' ').nth(1).and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("no count: {answer}").into())
    }

    /// Fetches messages 1 to `count`, all asked for at once.
    pub(crate) async fn retrieve(&mut self, count: u64) -> Result<(), Failure> {
        let mut commands = String::new();
        for number in 1..=count {
            write!(commands, "RETR {number}\r\n")?;
        }
        let (mut reader, mut writer) = self.wire.stream.split();
        let buffer = &mut self.wire.buffer;
        let read = async {
            let mut ends = 0;
            while ends < count {
                let found = memchr::memmem::find_iter(buffer, END);
                let mut used = 0;
                for at in found {
                    ends += 1;
                    used = at + END.len();
                }
                // The rest may hold the start of an end.
                let keep = (buffer.len() - used).min(END.len() - 1);
                buffer.advance(buffer.len() - keep);
                if ends == count {
                    break;
                }
                buffer.reserve(READ_BYTES);
                if reader.read_buf(buffer).await? == 0 {
                    return Err::<(), Failure>("the server closed the connection".into());
                }
            }
            Ok(())
        };
        let write = async { Ok::<(), Failure>(writer.write_all(commands.as_bytes()).await?) };
        let (read, write) = tokio::join!(read, write);
        write?;
        read
    }

    pub(crate) async fn quit(mut self) -> Result<(), Failure> {
        self.wire.send(b"QUIT\r\n").await?;
        self.good().await.map(|_| ())
    }

    async fn good(&mut self) -> Result<String, Failure> {
        let line = self.wire.line().await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with("+OK") { Ok(line) } else { Err(line.into()) }
    }
}
