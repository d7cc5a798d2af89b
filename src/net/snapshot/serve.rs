//! Giving a snapshot: HTTP around what the role writes.
//!
//! Owns: the request, who may ask, the bounds, the channel between the role's thread and the connection. Called by: roles' `serve`.
//! Never: holds more of the stream than the channel takes; ends a stream well that the role did not.

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tracing::{debug, info, warn};

use super::{GiveError, is_token};
use crate::net::{Limits, Listener, Peer, Shutdown, Stream, accept_loop};

/// Snapshots of a role that are given at a time: one for the schedule, one by hand. Each reads the disk as fast as it can.
const SNAPSHOTS_MAX: usize = 2;
/// Connections at a time, those included that are told to come later.
const CONNECTIONS_MAX: u32 = 16;
/// Octets that go through the channel at once, and how many of those wait in it: 4 MiB.
const CHUNK_LEN: usize = 256 << 10;
const CHUNKS_MAX: usize = 16;
/// How long a reader has for its request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a reader may take nothing. Somebody may have to be called and drive to the tape; who takes longer than half a day is not coming, and
/// space that was expunged meanwhile is to come back some day.
const STALL_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// What writes a role's snapshot: called on a thread for blocking work with the token to go on from. What fails before the first
/// octet has left is told by the status of the answer.
pub type Give = dyn Fn(Option<&str>, &mut Outlet) -> Result<(), GiveError> + Send + Sync;

/// What comes through the channel. Without `End`, or after `Failed`, the stream is not whole.
enum Piece {
    Octets(Bytes),
    Failed(GiveError),
    End,
}

/// Where a role writes its snapshot. Waits for the reader; fails when that has gone, or the role is to stop.
#[derive(Debug)]
pub struct Outlet {
    pieces: mpsc::Sender<Piece>,
    buffer: BytesMut,
    shutdown: Shutdown,
    octets: u64,
}

impl Outlet {
    fn new(pieces: mpsc::Sender<Piece>, shutdown: Shutdown) -> Self {
        Self { pieces, buffer: BytesMut::with_capacity(CHUNK_LEN), shutdown, octets: 0 }
    }

    /// For a role's own tests: what was written is read there.
    #[cfg(test)]
    pub(crate) fn into_vec(give: impl FnOnce(&mut Self) -> Result<(), GiveError>) -> Result<Vec<u8>, GiveError> {
        let (_stopper, shutdown) = Shutdown::pair();
        let (pieces, mut received) = mpsc::channel(CHUNKS_MAX);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            while let Some(piece) = received.blocking_recv() {
                if let Piece::Octets(octets) = piece {
                    all.extend_from_slice(&octets);
                }
            }
            all
        });
        let mut outlet = Self::new(pieces, shutdown);
        let given = give(&mut outlet).and_then(|()| Ok(outlet.flush()?));
        drop(outlet);
        let all = reader.join().unwrap_or_default();
        given.map(|()| all)
    }

    /// For who has much to do before there is anything to write.
    ///
    /// # Errors
    /// The role is to stop.
    pub fn check(&self) -> io::Result<()> {
        if self.shutdown.is_stopping() { Err(io::Error::other("the role is to stop")) } else { Ok(()) }
    }

    fn send(&mut self, piece: Piece) -> io::Result<()> {
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_LEN.saturating_sub(self.buffer.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() >= CHUNK_LEN {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let octets = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK_LEN)).freeze();
        self.octets = self.octets.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        self.send(Piece::Octets(octets))
    }
}

/// Gives snapshots on this socket until shutdown, which breaks off those that are being given.
pub async fn serve(listener: Listener, shutdown: Shutdown, give: Arc<Give>) {
    let limits = Limits::new(CONNECTIONS_MAX, CONNECTIONS_MAX);
    let slots = Arc::new(Semaphore::new(SNAPSHOTS_MAX));
    let until = shutdown.clone();
    accept_loop(listener, limits, b"", until, move |stream, peer, _| {
        session(stream, peer, Arc::clone(&slots), Arc::clone(&give), shutdown.clone())
    })
    .await;
}

async fn session(stream: Stream, peer: Peer, slots: Arc<Semaphore>, give: Arc<Give>, mut shutdown: Shutdown) {
    let watched = shutdown.clone();
    let service = service_fn(|request| {
        let (slots, give, shutdown) = (Arc::clone(&slots), Arc::clone(&give), watched.clone());
        async move { Ok::<_, Infallible>(answer(&request, &peer, slots, give, shutdown).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            info!(%error, "snapshot broken off");
        },
        () = shutdown.stopping() => debug!("the role stops"),
    }
}

async fn answer(
    request: &Request<Incoming>,
    peer: &Peer,
    slots: Arc<Semaphore>,
    give: Arc<Give>,
    shutdown: Shutdown,
) -> Response<Body> {
    if !peer.may_back_up() {
        warn!("a stranger asked for a snapshot");
        return refuse(StatusCode::FORBIDDEN);
    }
    if request.uri().path() != "/snapshot" {
        return refuse(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED);
    }
    let query = request.uri().query().unwrap_or_default();
    let since = query.split('&').find_map(|pair| pair.strip_prefix("since=")).map(str::to_owned);
    if since.as_deref().is_some_and(|token| !is_token(token)) {
        return refuse(StatusCode::GONE);
    }
    let Ok(slot) = slots.try_acquire_owned() else { return refuse(StatusCode::SERVICE_UNAVAILABLE) };
    let (sender, mut pieces) = mpsc::channel(CHUNKS_MAX);
    info!(since, "snapshot begins");
    let mut outlet = Outlet::new(sender, shutdown);
    tokio::task::spawn_blocking(move || {
        write(give.as_ref(), since.as_deref(), &mut outlet);
        drop(slot);
    });
    match pieces.recv().await {
        Some(Piece::Octets(first)) => stream_of(first, pieces),
        Some(Piece::Failed(GiveError::Gone)) => refuse(StatusCode::GONE),
        // The log says why.
        Some(Piece::Failed(_) | Piece::End) | None => refuse(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Has the role write, and says how it ended.
fn write(give: &Give, since: Option<&str>, outlet: &mut Outlet) {
    let given = give(since, outlet).and_then(|()| Ok(outlet.flush()?));
    let last = match given {
        Ok(()) => {
            info!(octets = outlet.octets, "snapshot given");
            Piece::End
        }
        Err(error) => {
            match error {
                GiveError::Source(_) => warn!(%error, octets = outlet.octets, "snapshot failed"),
                GiveError::Gone | GiveError::Cut(_) => info!(%error, octets = outlet.octets, "no snapshot"),
            }
            Piece::Failed(error)
        }
    };
    if outlet.send(last).is_err() {
        debug!("the reader of the snapshot has gone");
    }
}

fn stream_of(first: Bytes, pieces: mpsc::Receiver<Piece>) -> Response<Body> {
    let rest = stream::unfold(Some((Some(first), pieces)), |state| async move {
        let (first, mut pieces) = state?;
        if let Some(octets) = first {
            return Some((Ok(octets), Some((None, pieces))));
        }
        match pieces.recv().await {
            Some(Piece::Octets(octets)) => Some((Ok(octets), Some((None, pieces)))),
            Some(Piece::End) => None,
            // An error ends the connection without a last chunk: that is how the reader knows (RFC 9112 section 8).
            Some(Piece::Failed(error)) => Some((Err(error), None)),
            None => Some((Err(GiveError::Source("the role's thread broke".to_owned())), None)),
        }
    });
    let mut response = Response::new(Body::from_stream(rest));
    let kind = header::HeaderValue::from_static("application/x-tar");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn refuse(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

/// A connection that fails when its reader takes nothing for `STALL_MAX`.
struct Patient {
    stream: Stream,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    const fn new(stream: Stream) -> Self {
        Self { stream, stalled: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALL_MAX)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
