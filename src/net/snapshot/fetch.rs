//! Taking a snapshot from the role that gives it.
//!
//! Owns: `fetch`. Called by: backup-to-tape, from a thread for blocking work. Never: takes a stream for whole that was broken off.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::is_token;

/// How long a role may be silent: before the first octet it looks through the whole of its view.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The role is down, or does not run on this host.
    #[error("{socket}: {source}", socket = .socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    /// It cannot go on from the token: a full snapshot has to be made.
    #[error("the role cannot go on from where the last backup ended")]
    Gone,
    /// Too many are being made already.
    #[error("the role is giving as many snapshots as it can at a time")]
    Busy,
    /// This process is not let in.
    #[error("the role gives its snapshot to root and to backup-to-tape only")]
    Refused,
    /// The role's log says more.
    #[error("the role answers {0}")]
    Status(StatusCode),
    /// What came is no answer.
    #[error("the role broke off before it answered: {0}")]
    Early(String),
}

/// A snapshot that is coming in. Reading fails with `UnexpectedEof` when the role broke off, with `TimedOut` when nothing more comes.
#[derive(Debug)]
pub struct Snapshot {
    runtime: Runtime,
    body: Incoming,
    rest: Bytes,
}

/// Asks the role at this socket for everything, or for what has changed since `since`. Blocks, also later when read; not to be called from a task.
///
/// # Errors
/// See there.
pub fn fetch(socket: &Path, since: Option<&str>) -> Result<Snapshot, FetchError> {
    let unreachable = |source| FetchError::Unreachable { socket: socket.to_owned(), source };
    if since.is_some_and(|token| !is_token(token)) {
        return Err(FetchError::Gone);
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
    let stream = runtime.block_on(UnixStream::connect(socket)).map_err(unreachable)?;
    let answer = runtime.block_on(async { timeout(SILENCE_MAX, ask(stream, since)).await });
    let answer = answer.map_err(|_| FetchError::Early("it is silent".to_owned()))?.map_err(FetchError::Early)?;
    match answer.status() {
        StatusCode::OK => Ok(Snapshot { runtime, body: answer.into_body(), rest: Bytes::new() }),
        StatusCode::GONE => Err(FetchError::Gone),
        StatusCode::FORBIDDEN => Err(FetchError::Refused),
        StatusCode::SERVICE_UNAVAILABLE => Err(FetchError::Busy),
        status => Err(FetchError::Status(status)),
    }
}

async fn ask(stream: UnixStream, since: Option<&str>) -> Result<Response<Incoming>, String> {
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    // It ends with the answer's body; it runs while that is read.
    tokio::spawn(connection);
    let query = since.map(|token| format!("?since={token}")).unwrap_or_default();
    let request =
        Request::get(format!("/snapshot{query}")).header(header::HOST, "localhost").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    sender.send_request(request).await.map_err(|error| error.to_string())
}

impl Read for Snapshot {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let frame = self.runtime.block_on(async { timeout(SILENCE_MAX, self.body.frame()).await });
            let frame = frame.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the role gives nothing more"))?;
            let Some(frame) = frame else { return Ok(0) };
            let broken = |error| io::Error::new(io::ErrorKind::UnexpectedEof, format!("the role broke off: {error}"));
            if let Ok(octets) = frame.map_err(broken)?.into_data() {
                self.rest = octets;
            }
        }
        let len = self.rest.len().min(to.len());
        self.rest.copy_to_slice(to.get_mut(..len).unwrap_or_default());
        Ok(len)
    }
}
