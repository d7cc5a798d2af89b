//! Between ldap3 and the server: nothing that a server sends reaches ldap3 before it was looked at.
//!
//! Owns: the bounds on answers, the task that carries octets to and fro. Called by: `connection`. Calls: `frame`. Never: knows what an
//! answer means.
//! Spec: RFC 4511 sections 4.1.1 and 4.5.2.
//!
//! ldap3 takes messages of any length and depth and keeps every entry of a search until its end: with it alone, whoever answers in a
//! directory's place could take all memory or the whole stack. So it speaks with one end of a socket pair; at the other end stands
//! this, which passes on what is whole and within bounds, and closes otherwise.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::frame::{self, Frame, FrameError};
use crate::net::Stream;

/// Octets of an answer, at most: an entry with the attributes that are asked for has a few thousand.
const ANSWER_LEN_MAX: usize = 1 << 20;
/// Octets of memory that entries may take whose search is not done, at most, all searches of a connection together.
const UNFINISHED_LEN_MAX: usize = 64 << 20;
/// Octets that ldap3 makes of each element, about.
const ELEMENT_LEN: usize = 100;
/// Octets to read at a time.
const READ_LEN: usize = 8 * 1024;

/// SearchResultEntry, SearchResultReference, IntermediateResponse: those that do not end what they answer.
const UNFINISHED: [u8; 3] = [0x64, 0x73, 0x79];

/// Why the server is spoken with no more.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("the directory sent something unusable: {0}")]
    Frame(#[from] FrameError),
    #[error("the directory sent more than {UNFINISHED_LEN_MAX} octets of entries, and no end")]
    TooMuch,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The end that ldap3 is given, in place of the server's. `patience`: how long either side may take to take what is passed on to it.
pub(super) fn before(server: Stream, patience: Duration) -> io::Result<std::os::unix::net::UnixStream> {
    let (near, far) = UnixStream::pair()?;
    tokio::spawn(async move {
        match carry(server, far, patience).await {
            Ok(()) => {}
            Err(RelayError::Io(error)) => tracing::debug!(%error, "connection to the directory ended"),
            Err(error) => tracing::warn!(%error, "connection to the directory closed"),
        }
    });
    near.into_std()
}

/// Carries until one side closes.
async fn carry(server: Stream, client: UnixStream, patience: Duration) -> Result<(), RelayError> {
    let (answers, requests) = tokio::io::split(server);
    let (asked, told) = client.into_split();
    tokio::select! {
        ended = pass_on(answers, told, patience) => ended,
        ended = ask(asked, requests, patience) => Ok(ended?),
    }
}

/// Passes on what ldap3 asks, as it is.
async fn ask(
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    patience: Duration,
) -> io::Result<()> {
    let mut requests = BytesMut::with_capacity(READ_LEN);
    while client.read_buf(&mut requests).await? > 0 {
        let send = async {
            server.write_all(&requests).await?;
            server.flush().await
        };
        timeout(patience, send).await??;
        requests.clear();
        requests.reserve(READ_LEN);
    }
    Ok(())
}

/// Passes on whole messages, until the server has closed.
async fn pass_on(
    mut server: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    patience: Duration,
) -> Result<(), RelayError> {
    let (mut input, mut unfinished) = (BytesMut::new(), Unfinished::default());
    loop {
        while let Some(frame) = frame::first(&input, ANSWER_LEN_MAX)? {
            unfinished.count(&frame)?;
            let message = input.split_to(frame.len);
            timeout(patience, client.write_all(&message)).await.map_err(io::Error::from)??;
        }
        input.reserve(READ_LEN);
        if server.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// What ldap3 holds of searches that are not done, by messageID.
#[derive(Debug, Default)]
struct Unfinished {
    searches: HashMap<i32, usize>,
    len: usize,
}

impl Unfinished {
    fn count(&mut self, frame: &Frame<'_>) -> Result<(), RelayError> {
        if !UNFINISHED.contains(&frame.tag) {
            self.len -= self.searches.remove(&frame.id).unwrap_or_default();
            return Ok(());
        }
        let len = frame.len + frame.elements * ELEMENT_LEN;
        *self.searches.entry(frame.id).or_default() += len;
        self.len += len;
        if self.len > UNFINISHED_LEN_MAX { Err(RelayError::TooMuch) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
