//! IMAP: commands and their responses, literals included.
//!
//! Owns: one session. Called by: the rows that read or append. Spec: RFC 3501, RFC 2177 (IDLE).

use std::net::SocketAddr;

use super::Wire;
use crate::Failure;

pub(crate) struct Imap {
    wire: Wire,
}

/// What a command brought.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Brought {
    /// Untagged responses.
    pub(crate) responses: u64,
}

impl Imap {
    pub(crate) async fn login(addr: SocketAddr, user: &str, password: &str) -> Result<Self, Failure> {
        let mut session = Self { wire: Wire::connect(addr).await? };
        session.wire.line().await?;
        session.run(&format!("LOGIN {user} {password}")).await?;
        Ok(session)
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&mut self, command: &str) -> Result<Brought, Failure> {
        self.exchange(command, |_| ()).await
    }

    /// Messages in INBOX, by STATUS.
    pub(crate) async fn count(&mut self) -> Result<u64, Failure> {
        let mut found = None;
        self.exchange("STATUS INBOX (MESSAGES)", |line| {
            let text = String::from_utf8_lossy(line);
            let number = text.rsplit_once("MESSAGES ").map(|(_, rest)| rest.trim_end_matches(')'));
            found = number.and_then(|number| number.parse().ok()).or(found);
        })
        .await?;
        found.ok_or_else(|| "no count in the STATUS response".into())
    }

    /// Appends a message to INBOX, by a literal that waits to be asked for.
    pub(crate) async fn append(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.wire.send(format!("a APPEND INBOX {{{}}}\r\n", text.len()).as_bytes()).await?;
        let line = self.wire.line().await?;
        if !line.starts_with(b"+") {
            return Err(String::from_utf8_lossy(&line).into());
        }
        self.wire.send(text).await?;
        self.wire.send(b"\r\n").await?;
        self.finish(|_| ()).await.map(|_| ())
    }

    /// Begins IDLE and leaves it so.
    pub(crate) async fn idle(&mut self) -> Result<(), Failure> {
        self.wire.send(b"a IDLE\r\n").await?;
        let line = self.wire.line().await?;
        if line.starts_with(b"+") { Ok(()) } else { Err(String::from_utf8_lossy(&line).into()) }
    }

    async fn exchange(&mut self, command: &str, seen: impl FnMut(&[u8])) -> Result<Brought, Failure> {
        self.wire.send(format!("a {command}\r\n").as_bytes()).await?;
        self.finish(seen).await.map_err(|error| format!("{command}: {error}").into())
    }

    /// Reads to the tagged response. `seen` is shown the lines; literals are passed over.
    async fn finish(&mut self, mut seen: impl FnMut(&[u8])) -> Result<Brought, Failure> {
        let mut brought = Brought::default();
        // Whether the line goes on after a literal, and so is not a response of its own.
        let mut inside = false;
        loop {
            let line = self.wire.line().await?;
            if !inside {
                if let Some(rest) = line.strip_prefix(b"a ") {
                    return if rest.starts_with(b"OK") {
                        Ok(brought)
                    } else {
                        Err(String::from_utf8_lossy(rest).into())
                    };
                }
                brought.responses += 1;
            }
            seen(&line);
            let literal = literal_octets(&line);
            if let Some(octets) = literal {
                self.wire.skip(octets).await?;
            }
            inside = literal.is_some();
        }
    }
}

/// `{123}` at the end of a line.
fn literal_octets(line: &[u8]) -> Option<usize> {
    let inner = line.strip_suffix(b"}")?;
    let open = memchr::memrchr(b'{', inner)?;
    std::str::from_utf8(inner.get(open + 1..)?).ok()?.parse().ok()
}
