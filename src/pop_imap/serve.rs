//! The pop-imap role at work: store, directory, listeners.
//!
//! Owns: the order of start and stop. Called by: `fife role pop-imap`. Never: speaks a protocol.

use std::io;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tracing::{error, info};

use super::context::Context;
use super::pop3::lock::Maildrops;
use super::room::Rooms;
use super::store::{Settings, Store, StoreError};
use super::{imap, lmtp, metrics, pop3};
use crate::base::id::Id;
use crate::config::pop_imap::PopImap;
use crate::directory::Directory;
use crate::net::metrics::Health;
use crate::net::site::SiteTls;
use crate::net::tls::TlsError;
use crate::net::{Handover, Limits, Listener, Peer, Shutdown, Stream, accept_loop, snapshot};

/// Octets of messages that come in by APPEND, all sessions together; beyond, messages are refused for the time being. LMTP has
/// its own: users shall not be able to keep mail out.
const APPENDING_LEN_MAX: usize = 512 << 20;
/// The same for the sessions of one account.
const APPENDING_ACCOUNT_LEN_MAX: usize = 128 << 20;

/// Why the role does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the mailbox store does not open: {0}")]
    Store(#[from] StoreError),
    #[error("the mailbox store cannot go on")]
    StoreFailed,
    #[error("the mailbox store was closed by a failure of the disk, which is well again: it is opened anew")]
    StoreClosed,
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("a listening socket is not usable: {0}")]
    Listener(#[from] io::Error),
    #[error("a task of the role broke: {0}")]
    Task(#[from] JoinError),
}

/// Serves until the supervisor wants the role to stop, or the store cannot go on.
///
/// # Errors
/// When something that the role needs is missing at the start, or the store fails later: the supervisor starts the role
/// again, which repairs the store.
pub async fn serve(mut handover: Handover) -> Result<(), Error> {
    let settings = handover.effective.tables.pop_imap.clone();
    let dir = handover.role_dir();
    let store_settings = Settings { free_space_min: settings.free_space_min, ..Settings::default() };
    // Opening may replay much of the ledger.
    let store = tokio::task::spawn_blocking(move || Store::open(&dir, store_settings)).await??;
    let context = Arc::new(Context {
        store: store.clone(),
        directory: directory(&handover),
        tls: tls(&handover)?,
        site: handover.site.as_ref().map(SiteTls::acceptor).transpose()?,
        shutdown: handover.shutdown(),
        hostname: handover.site_hostname(),
        rooms: rooms(&settings),
        maildrops: Maildrops::default(),
        settings,
    });
    metrics::show();
    let is_closed = store.watch_closed();
    handover.serve_metrics(move || match is_closed() {
        true => Health::Bad("the disk under the mailboxes has failed: nothing is taken or changed".into()),
        false => Health::Good,
    });
    let mut services = start(&mut handover, &context)?;
    for listener in handover.listeners(snapshot::SERVICE)? {
        let give = super::snapshot::of(store.clone(), handover.site_hostname());
        services.spawn(snapshot::serve(listener, handover.shutdown(), give));
    }
    handover.ready().await;
    info!("serving");
    let ended = tokio::select! {
        ended = finish(&mut services, context.shutdown.clone()) => ended,
        () = store.failed() => {
            error!("the mailbox store has failed; the role ends, to be started again");
            Err(Error::StoreFailed)
        }
        () = store.can_be_opened_anew() => Err(Error::StoreClosed),
    };
    services.shutdown().await;
    // The last handles to the store: dropping them closes it, which writes to the disk.
    tokio::task::spawn_blocking(move || drop((context, store))).await?;
    ended
}

/// Waits until all services have ended, which they do on shutdown. There may be none: the store is kept all the same.
async fn finish(services: &mut JoinSet<()>, mut shutdown: Shutdown) -> Result<(), Error> {
    while let Some(ended) = services.join_next().await {
        ended?;
    }
    shutdown.stopping().await;
    Ok(())
}

fn directory(handover: &Handover) -> Directory {
    let password = handover.secret("directory.bind-password").cloned();
    let settings = &handover.effective.tables.directory;
    Directory::connect(settings, &handover.base_dn(), &handover.state_dir, password)
        .with_authority(settings, handover.secret("directory.tls-ca"), handover.site.as_ref())
        .with_login_domain(handover.effective.site.domain.clone())
}

/// One message of the largest size fits in, whatever that is.
fn rooms(settings: &PopImap) -> Rooms {
    let account_max = APPENDING_ACCOUNT_LEN_MAX.max(settings.message_size_max.as_len().saturating_add(1 << 20));
    Rooms::new(APPENDING_LEN_MAX.max(account_max), account_max)
}

/// No certificate is no fault: TLS is then not offered.
fn tls(handover: &Handover) -> Result<Option<crate::net::tls::Acceptor>, TlsError> {
    match handover.tls() {
        Ok(acceptor) => Ok(Some(acceptor)),
        Err(TlsError::None) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Starts the accept loops: one row per service.
fn start(handover: &mut Handover, context: &Arc<Context>) -> Result<JoinSet<()>, Error> {
    let limits = Limits::new(context.settings.connections_max, context.settings.connections_per_client_max);
    let mut services = JoinSet::new();
    let mut start = |service: &str, busy: &'static [u8], session: Session| -> Result<(), Error> {
        for listener in handover.listeners(service)? {
            let run = accept(listener, Arc::clone(&limits), busy, Arc::clone(context), session);
            services.spawn(run);
        }
        Ok(())
    };
    start("lmtp", b"421 4.3.2 too many connections\r\n", |context, stream, peer, _| {
        Box::pin(lmtp::serve::session(context, stream, peer))
    })?;
    start("lmtp-site", b"", |context, stream, peer, _| {
        Box::pin(async move {
            match context.start_site_tls(stream).await {
                Ok(stream) => lmtp::serve::session(context, stream, peer).await,
                Err(error) => info!(%error, peer = %peer, "not a host of the site"),
            }
        })
    })?;
    let busy = b"* BYE [UNAVAILABLE] Too many connections\r\n";
    start("imap", busy, |context, stream, peer, _| Box::pin(imap::serve::session(context, stream, peer)))?;
    start("imaps", b"", |context, stream, peer, _| {
        Box::pin(async move {
            if let Some(stream) = secure(&context, stream).await {
                imap::serve::session(context, stream, peer).await;
            }
        })
    })?;
    let busy = b"-ERR [SYS/TEMP] too many connections\r\n";
    start("pop3", busy, |context, stream, peer, _| Box::pin(pop3::serve::session(context, stream, peer)))?;
    // Before the handshake there is no way to say why.
    start("pop3s", b"", |context, stream, peer, _| {
        Box::pin(async move {
            if let Some(stream) = secure(&context, stream).await {
                pop3::serve::session(context, stream, peer).await;
            }
        })
    })?;
    Ok(services)
}

/// What runs for a connection.
type Session = fn(Arc<Context>, Stream, Peer, Id) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn accept(listener: Listener, limits: Arc<Limits>, busy: &'static [u8], context: Arc<Context>, session: Session) {
    let shutdown = context.shutdown.clone();
    accept_loop(listener, limits, busy, shutdown, move |stream, peer, id| {
        session(Arc::clone(&context), stream, peer, id)
    })
    .await;
}

/// Implicit TLS (RFC 8314 section 3): the handshake comes first.
async fn secure(context: &Context, stream: Stream) -> Option<Stream> {
    match context.start_tls(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            info!(%error, "TLS handshake failed");
            None
        }
    }
}

#[cfg(test)]
mod tests;
