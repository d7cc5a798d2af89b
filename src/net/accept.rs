//! The accept loop that every service runs.
//!
//! Owns: letting connections in, sending the surplus away, one task a session, waiting for
//! sessions at the end. Called by: roles' `serve`. Never: reads from a connection.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::{IntCounter, IntGauge};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, error, info_span, warn};

use super::limits::Limits;
use super::listener::Listener;
use super::metrics;
use super::peer::Peer;
use super::shutdown::Shutdown;
use super::stream::Stream;
use crate::base::id::Id;

/// Wait after an error that only time can cure (no descriptors, no memory), in place of spinning.
const PAUSE_WHEN_SHORT: Duration = Duration::from_millis(500);

static ACCEPTED: LazyLock<IntCounter> = LazyLock::new(|| {
    metrics::counter("fife_net_connections_accepted_total", "Connections that were let in, all services of the role.")
});
static REFUSED: LazyLock<IntCounter> = LazyLock::new(|| {
    metrics::counter("fife_net_connections_refused_total", "Connections that were sent away because of a limit.")
});
static FAILED: LazyLock<IntCounter> =
    LazyLock::new(|| metrics::counter("fife_net_accept_errors_total", "Connections that could not be accepted."));
static PANICS: LazyLock<IntCounter> = LazyLock::new(|| {
    metrics::counter("fife_net_session_panics_total", "Sessions that ended by a bug of fife; each is logged.")
});
static OPEN: LazyLock<IntGauge> =
    LazyLock::new(|| metrics::gauge("fife_net_connections_open", "Connections at present, all services of the role."));

/// Accepts until shutdown, gives each connection an `Id` and runs `session` for it in a task of its own, then waits
/// until all sessions have ended (they watch `Shutdown` themselves; the supervisor's patience is the last bound).
///
/// A connection over the limits is given `busy` as far as it takes it at once, and closed. A session that panics is
/// logged and counted, and hurts no other. Log lines within a session carry `session` and `peer`.
pub async fn accept_loop<F, Fut>(
    listener: Listener,
    limits: Arc<Limits>,
    busy: &'static [u8],
    mut shutdown: Shutdown,
    session: F,
) where
    F: Fn(Stream, Peer, Id) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.stopping() => break,
            // Reaps ended sessions, so that the set holds only living ones.
            Some(_) = sessions.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match limits.admit(&peer) {
                Some(permit) => {
                    ACCEPTED.inc();
                    OPEN.inc();
                    let id = Id::new();
                    let future = guarded(AssertUnwindSafe(session(stream, peer, id)));
                    let span = info_span!("session", session = %id, %peer);
                    sessions.spawn(
                        async move {
                            future.await;
                            OPEN.dec();
                            drop(permit);
                        }
                        .instrument(span),
                    );
                }
                None => {
                    REFUSED.inc();
                    debug!(%peer, "connection refused: limit reached");
                    stream.write_now(busy);
                }
            },
            Err(error) => {
                FAILED.inc();
                if !passes(&error) {
                    warn!(%error, listener = listener.local_address(), "cannot accept connections");
                    tokio::time::sleep(PAUSE_WHEN_SHORT).await;
                }
            }
        }
    }
    // Closed first: what still stands in the backlog is for the next process of this role, which shares the socket.
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

/// Runs a session; a panic in it ends here.
async fn guarded<Fut: Future<Output = ()>>(session: AssertUnwindSafe<Fut>) {
    if session.catch_unwind().await.is_err() {
        PANICS.inc();
        // Where it happened was logged by the panic hook (`net::log`), which knows the line.
        error!("session ended by a panic: this is a bug in fife");
    }
}

/// An error of this one connection, which is gone; the next accept may well succeed (accept(2), "Error handling").
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests;
