//! The role in its process: sockets, queue, LMTP, directory, wired together.
//!
//! Owns: the order of start and stop. Called by: `fife role smtp`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::net::NetError;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::authentication::Authentication;
use super::context::{Context, SPACE_CHECK_EVERY, Space};
use super::conversation::{self, Service};
use super::envelope::Personality;
use super::metrics::SESSIONS;
use super::outbound::dial::Outbound;
use super::outbound::exchanger::Own;
use super::outbound::route::Routes;
use super::queue::{Queue, QueueError};
use super::session::Settings;
use super::{desk, lmtp, runner};
use crate::base::clock;
use crate::config::address::SocketAddress;
use crate::config::material::route_password;
use crate::directory::Directory;
use crate::net::dns;
use crate::net::metrics::Health;
use crate::net::tls::{Connector, TlsError};
use crate::net::{Handover, Limits, Listener, Shutdown, accept_loop, snapshot};

/// Written to a connection over the limits.
const BUSY: &[u8] = b"421 4.4.5 too many connections, try again later\r\n";
/// Where the queue lies in the role's directory.
const QUEUE_DIR: &str = "queue";

/// Why the role could not start.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    #[error("cannot take over the listening sockets: {0}")]
    Listeners(#[from] io::Error),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the queue was closed by a failure of the disk, which is well again: it is opened anew")]
    QueueClosed,
    #[error("no DNS resolver: {0}")]
    Dns(#[from] NetError),
    #[error("cannot do TLS as a client: {0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Bug(#[from] tokio::task::JoinError),
}

/// Serves until shutdown: sessions on all listeners, the queue.
///
/// # Errors
/// The role could not start, or has to be started again.
pub async fn serve(mut handover: Handover) -> Result<(), SmtpError> {
    let shutdown = handover.shutdown();
    let context = context(&handover).await?;
    let services = services(&handover, &context);
    let limits = Limits::new(context.settings.connections_max, context.settings.connections_per_client_max);
    let mut loops = JoinSet::new();
    for service in services {
        for listener in handover.listeners(service.name)? {
            loops.spawn(accept(listener, Arc::clone(&limits), service.clone(), Arc::clone(&context), shutdown.clone()));
        }
    }
    for listener in handover.listeners(snapshot::SERVICE)? {
        let give = super::snapshot::of(Arc::clone(&context), handover.site_hostname());
        loops.spawn(snapshot::serve(listener, handover.shutdown(), give));
    }
    loops.spawn(runner::run(Arc::clone(&context), shutdown.clone()));
    loops.spawn(watch_space(Arc::clone(&context), shutdown));
    let watched = Arc::clone(&context);
    handover.serve_metrics_and(move || health(&watched), desk::router(Arc::clone(&context)));
    handover.ready().await;
    loop {
        tokio::select! {
            ended = loops.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(panic)) => {
                    error!(%panic, "a task of the role ended by a panic: this is a bug in fife");
                    return Err(panic.into());
                }
            },
            () = context.queue.can_be_opened_anew() => return Err(SmtpError::QueueClosed),
        }
    }
}

async fn context(handover: &Handover) -> Result<Arc<Context>, SmtpError> {
    let tables = &handover.effective.tables;
    let settings = tables.smtp.clone();
    let hostname = settings.hostname.as_ref().map_or_else(|| handover.site_hostname(), ToString::to_string);
    let domain = handover.effective.site.domain.clone();
    let password = handover.secret("directory.bind-password").cloned();
    let directory = Directory::connect(&tables.directory, &handover.base_dn(), &handover.state_dir, password)
        .with_authority(&tables.directory, handover.secret("directory.tls-ca"), handover.site.as_ref())
        .with_login_domain(domain.clone());
    let resolver = dns::resolver(&tables.dns)?;
    let authentication = Authentication::new(
        tables.smtp_authentication.clone(),
        hostname.clone(),
        domain.clone(),
        directory.clone(),
        resolver.clone(),
    );
    let (queue_dir, size_max) = (handover.role_dir().join(QUEUE_DIR), settings.message_size_max.get());
    let password = |at| handover.secret(&route_password(at)).cloned();
    let routes = Arc::new(Routes::new(&tables.smtp_outbound, runner::MAILBOX_SESSIONS_MAX, &password));
    let queue_routes = Arc::clone(&routes);
    let open = move || Queue::open(&queue_dir, size_max, queue_routes, clock::unix_millis(), clock::monotonic());
    let queue = tokio::task::spawn_blocking(open).await??;
    let site = match (settings.lmtp_site, &handover.site) {
        (false, _) => None,
        (true, Some(site)) => Some(site.connector()?),
        // Never in the clear instead.
        (true, None) => return Err(TlsError::None.into()),
    };
    let lmtp = lmtp::Pool::new(handover.path_of(&settings.lmtp), site, hostname.clone(), handover.shutdown());
    let space = Space::new(handover.role_dir(), settings.free_space_min.get());
    let memory = Semaphore::new(Context::memory_units(&settings));
    let outbound = Outbound {
        settings: tables.smtp_outbound.clone(),
        resolver,
        own: Own { hostname: hostname.clone(), listening: own_addresses(&settings.listen, &handover.addresses) },
        unverified: Connector::unverified()?,
        verified: Connector::verified()?,
    };
    info!(hostname, queued = queue.len(), "smtp serves");
    Ok(Arc::new(Context {
        settings,
        hostname,
        domain,
        directory,
        authentication,
        queue,
        routes,
        outbound,
        lmtp,
        space,
        memory,
    }))
}

/// Where other servers reach this one: what it listens on, with every address of this machine in place of "any".
fn own_addresses(listen: &[SocketAddress], machine: &[IpAddr]) -> Vec<SocketAddr> {
    let expand = |address: &SocketAddress| match address {
        SocketAddress::Tcp(address) if address.ip().is_unspecified() => {
            machine.iter().map(|ip| SocketAddr::new(*ip, address.port())).collect()
        }
        SocketAddress::Tcp(address) => vec![SocketAddr::new(address.ip().to_canonical(), address.port())],
        SocketAddress::Unix(_) => Vec::new(),
    };
    listen.iter().flat_map(expand).collect()
}

/// What is offered on which listeners.
fn services(handover: &Handover, context: &Context) -> Vec<Service> {
    let tls = handover.tls().inspect_err(|error| warn!(%error, "TLS is not offered")).ok();
    let settings = Settings {
        hostname: context.hostname.clone(),
        message_size_max: context.settings.message_size_max.as_len(),
        recipients_max: usize::try_from(context.settings.recipients_max).unwrap_or(usize::MAX),
        hops_max: context.settings.hops_max,
        idle_timeout: context.settings.idle_timeout.get(),
        cleartext_login: context.settings.cleartext_login,
        tls_available: tls.is_some(),
    };
    let settings = Arc::new(settings);
    let service = |name, personality, implicit_tls| Service {
        name,
        personality,
        implicit_tls,
        settings: Arc::clone(&settings),
        tls: tls.clone(),
    };
    vec![
        service("smtp", Personality::Mx, false),
        service("submission", Personality::Submission, false),
        service("submissions", Personality::Submission, true),
    ]
}

async fn accept(listener: Listener, limits: Arc<Limits>, service: Service, context: Arc<Context>, shutdown: Shutdown) {
    let watch = shutdown.clone();
    accept_loop(listener, limits, BUSY, shutdown, move |stream, peer, id| {
        SESSIONS.with_label_values(&[service.name]).inc();
        conversation::hold(Arc::clone(&context), service.clone(), stream, peer, id, watch.clone())
    })
    .await;
}

/// Looks at the free space now and then.
async fn watch_space(context: Arc<Context>, mut shutdown: Shutdown) {
    while !shutdown.is_stopping() {
        tokio::select! {
            () = shutdown.stopping() => {}
            () = tokio::time::sleep(SPACE_CHECK_EVERY) => context.space.look(),
        }
    }
}

fn health(context: &Context) -> Health {
    if context.queue.is_closed() {
        return Health::Bad("the disk under the queue has failed: mail is refused".into());
    }
    if context.space.is_short() {
        return Health::Bad("too little free space: mail is refused".into());
    }
    Health::Good
}
