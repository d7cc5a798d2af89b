//! A small HTTP server for machines: metrics and health.
//!
//! Owns: the bounds around axum (connections at a time, life of a connection). Called by: roles'
//! `/metrics`, the supervisor's merged one. Never: serves people; that is the web role's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tracing::warn;

use super::listener::Listener;
use super::shutdown::Shutdown;
use super::stream::Stream;

/// Connections at a time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 32;
/// Life of a connection: who has not sent its request and taken the answer by then is cut off.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(10);
/// Wait after a failed accept, in place of spinning.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// Serves until shutdown.
pub async fn serve(listener: Listener, router: Router, mut shutdown: Shutdown) {
    let bounded = Bounded { listener, slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    let served = axum::serve(bounded, router).with_graceful_shutdown(async move { shutdown.stopping().await });
    if let Err(error) = served.await {
        warn!(%error, "metrics are no longer served");
    }
}

/// An answer in the Prometheus text format.
#[must_use]
pub fn prometheus(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

struct Bounded {
    listener: Listener,
    slots: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Mortal;
    type Addr = String;

    async fn accept(&mut self) -> (Mortal, String) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                // The semaphore is never closed.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let death = Box::pin(tokio::time::sleep(CONNECTION_LIFE_MAX));
                    return (Mortal { stream, death, _slot: slot }, peer.to_string());
                }
                Err(error) => {
                    warn!(%error, "cannot accept connections for metrics");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.listener.local_address())
    }
}

/// A stream that fails after `CONNECTION_LIFE_MAX`.
struct Mortal {
    stream: Stream,
    death: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Mortal {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.death.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Mortal {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
