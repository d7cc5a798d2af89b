//! The role: sockets, sessions, the loop between them and the directory.
//!
//! Owns: connections and their deadlines. Called by: `fife role ldap-proxy`. Calls: `session` (decides),
//! `engine` (does). Never: decides what a request means.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ldap3_proto::control::LdapControl;
use ldap3_proto::proto::{LdapMsg, LdapOp, LdapResultCode as Code};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use super::access::{Reads, Rights};
use super::dn::Dn;
use super::engine::{Begun, Engine};
use super::failures::{Failures, Tolerance};
use super::frame::Kind;
use super::hasher::Hasher;
use super::metrics;
use super::password::PasswordError;
use super::plan::Cursor;
use super::refusal::Refusal;
use super::search::Search;
use super::session::{self, Channel, Operation, Session, Step, Work};
use super::writer::{self, OpenError};
use crate::base::clock;
use crate::base::id::Id;
use crate::net::site::SiteTls;
use crate::net::tls::{Acceptor, TlsError};
use crate::net::{Handover, Health, Limits, Listener, Peer, Shutdown, Stream, accept_loop, identity, snapshot};

/// How long a request may take to come in, from its first octet.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to take what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a search may take for others than administrators.
const SEARCH_TIME_MAX: Duration = Duration::from_mins(1);
/// How long a client that does not take what is sent to it is waited for once the role is to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// Octets read at a time.
const READ_LEN: usize = 8 * 1024;
/// Octets of answers that wait to be sent; a client that sends requests and reads no answers gets no further.
const OUT_LEN_MAX: usize = 64 * 1024;
/// Entries asked of the directory at a time.
const STEP_ENTRIES: usize = 256;

/// Notice of disconnection (RFC 4511 section 4.4.1) with result busy, for connections over the limits.
pub(super) const BUSY: &[u8] =
    b"\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x33\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036";

/// Why the role ended.
#[derive(Debug, thiserror::Error)]
pub enum LdapProxyError {
    #[error("the name at the top of the directory, {name:?}, is unusable")]
    Base { name: String },
    #[error("the directory cannot be opened: {0}")]
    Open(String),
    #[error("no password hash can be made: {0}")]
    Hash(String),
    #[error("TLS between the hosts of the site: {0}")]
    Site(#[from] TlsError),
    #[error("a listening socket is unusable: {0}")]
    Listen(#[from] io::Error),
    #[error("the directory is in trouble that only a new start cures; what it was stands in the log")]
    Stopped,
}

impl From<OpenError> for LdapProxyError {
    fn from(error: OpenError) -> Self {
        Self::Open(error.to_string())
    }
}

impl From<PasswordError> for LdapProxyError {
    fn from(error: PasswordError) -> Self {
        Self::Hash(error.to_string())
    }
}

/// How a listener is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// In the clear, StartTLS offered.
    Plain,
    /// TLS from the first octet.
    Tls,
    /// The same, for other hosts of the site only.
    Site,
}

/// What every session needs.
struct Shared {
    engine: Engine,
    tls: Option<Acceptor>,
    site: Option<Acceptor>,
    request_len_max: usize,
    entries_max: usize,
    idle_timeout: Duration,
    shutdown: Shutdown,
}

/// Serves until told to stop.
///
/// # Errors
/// When the directory cannot be opened or the sockets are unusable; when the directory is beyond repair while it runs.
pub async fn serve(mut handover: Handover) -> Result<(), LdapProxyError> {
    let settings = handover.effective.tables.ldap_proxy.clone();
    let name = handover.base_dn();
    let base = Dn::parse(&name).ok().filter(|base| !base.is_root()).ok_or(LdapProxyError::Base { name })?;
    let dir = handover.role_dir();
    let open = {
        let dir = dir.clone();
        let failures = Failures::new(Tolerance::of(&settings));
        move || -> Result<_, LdapProxyError> { Ok(Engine::open(&dir, base, Hasher::new()?, failures)?) }
    };
    let (engine, writer) =
        tokio::task::spawn_blocking(open).await.map_err(|error| LdapProxyError::Open(error.to_string()))??;
    let tls = match handover.tls() {
        Ok(tls) => Some(tls),
        Err(error) => {
            warn!(%error, "TLS is not offered");
            None
        }
    };
    let shared = Arc::new(Shared {
        engine,
        tls,
        site: handover.site.as_ref().map(SiteTls::acceptor).transpose()?,
        request_len_max: settings.message_size_max.as_len(),
        entries_max: usize::try_from(settings.search_entries_max).unwrap_or(usize::MAX),
        idle_timeout: settings.idle_timeout.get(),
        shutdown: handover.shutdown(),
    });
    let limits = Limits::new(settings.connections_max, settings.connections_per_client_max);
    let mut services = JoinSet::new();
    for (service, door) in [("ldap", Door::Plain), ("ldaps", Door::Tls), ("ldap-site", Door::Site)] {
        for listener in handover.listeners(service)? {
            services.spawn(listen(listener, Arc::clone(&shared), Arc::clone(&limits), door));
        }
    }
    for listener in handover.listeners(snapshot::SERVICE)? {
        let give = super::snapshot::of(writer::view_path(&dir), handover.site_hostname());
        services.spawn(snapshot::serve(listener, handover.shutdown(), give));
    }
    let health = Arc::downgrade(&shared);
    handover.serve_metrics(move || match health.upgrade() {
        Some(shared) if shared.engine.is_stopped() => Health::Bad("the directory takes no changes".to_owned()),
        Some(_) | None => Health::Good,
    });
    handover.ready().await;
    let outcome = tokio::select! {
        () = async { while services.join_next().await.is_some() {} } => Ok(()),
        () = shared.engine.stopped() => Err(LdapProxyError::Stopped),
    };
    drop(services);
    let is_last = Arc::into_inner(shared).is_some();
    if outcome.is_err() {
        // The ledger gives the view back; whether it was the view that was damaged does not matter.
        writer::throw_away(&writer::view_path(&dir))?;
        return outcome;
    }
    if is_last && tokio::task::spawn_blocking(move || writer.join()).await.is_err() {
        warn!("the directory's writer could not be waited for");
    }
    outcome
}

async fn listen(listener: Listener, shared: Arc<Shared>, limits: Arc<Limits>, door: Door) {
    let shutdown = shared.shutdown.clone();
    let session = move |stream: Stream, peer: Peer, _: Id| {
        let shared = Arc::clone(&shared);
        async move {
            if let Err(error) = converse(&shared, stream, peer, door).await {
                debug!(%error, "connection ended");
            }
        }
    };
    accept_loop(listener, limits, BUSY, shutdown, session).await;
}

/// One connection from its first octet to its last.
async fn converse(shared: &Shared, stream: Stream, peer: Peer, door: Door) -> io::Result<()> {
    let tls = match door {
        Door::Plain => None,
        Door::Tls => Some(&shared.tls),
        Door::Site => Some(&shared.site),
    };
    let stream = match tls {
        None => stream,
        Some(Some(tls)) => shake_hands(shared, stream, tls).await?,
        Some(None) => return Ok(()),
    };
    let channel = Channel {
        uid: peer.uid,
        is_owner: peer.uid.is_some_and(|uid| uid == 0 || uid == identity::own_uid()),
        role: peer.uid.and_then(identity::role_of),
        // The acceptor lets in nobody else.
        is_site: door == Door::Site,
        client: peer.ip().filter(|ip| !ip.is_loopback()),
        is_local: peer.is_local(),
        is_tls: stream.is_tls(),
        offers_tls: shared.tls.is_some() && peer.uid.is_none() && door == Door::Plain,
    };
    let session = Session::new(channel, shared.request_len_max);
    let mut connection = Connection { shared, stream: Some(stream), session, out: BytesMut::new() };
    connection.run().await
}

/// A handshake may take as long as any silence; a stop of the role ends it.
async fn shake_hands(shared: &Shared, stream: Stream, tls: &Acceptor) -> io::Result<Stream> {
    tokio::select! {
        stream = stream.start_tls(tls, HANDSHAKE_TIMEOUT.min(shared.idle_timeout)) => stream,
        () = async { shared.shutdown.clone().stopping().await } => Err(io::ErrorKind::Interrupted.into()),
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    /// None only while a TLS handshake has it.
    stream: Option<Stream>,
    session: Session,
    out: BytesMut,
}

impl Connection<'_> {
    async fn run(&mut self) -> io::Result<()> {
        // When the request that is coming in has begun.
        let mut begun: Option<Instant> = None;
        loop {
            if self.out.len() > OUT_LEN_MAX {
                self.flush().await?;
            }
            match self.session.next() {
                Step::More => {
                    self.flush().await?;
                    let now = clock::monotonic();
                    let deadline = if self.session.is_amid_request() {
                        *begun.get_or_insert(now) + REQUEST_TIMEOUT.min(self.shared.idle_timeout)
                    } else {
                        begun = None;
                        now + self.shared.idle_timeout
                    };
                    if !self.read(deadline).await? {
                        return Ok(());
                    }
                }
                Step::Reply(message) => {
                    begun = None;
                    self.put(message);
                }
                Step::Work(work) => {
                    begun = None;
                    self.work(work).await?;
                }
                Step::StartTls(message) => {
                    self.put(message);
                    self.flush().await?;
                    self.start_tls().await?;
                }
                Step::Close(message) => {
                    if let Some(message) = message {
                        metrics::MALFORMED.inc();
                        info!("connection closed: what came is not LDAP");
                        self.put(message);
                    }
                    return self.flush().await;
                }
            }
        }
    }

    /// Reads some octets; false when the connection is over: closed by the client, silent too long, or the role stops.
    async fn read(&mut self, deadline: Instant) -> io::Result<bool> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(false);
        };
        let mut octets = [0; READ_LEN];
        let mut shutdown = self.shared.shutdown.clone();
        let count = tokio::select! {
            count = stream.read(&mut octets) => count?,
            () = sleep_until(deadline.into()) => {
                debug!("connection closed: silent for too long");
                return Ok(false);
            }
            () = shutdown.stopping() => {
                self.put(session::notice(Code::Unavailable, "the server stops"));
                self.flush().await?;
                return Ok(false);
            }
        };
        self.session.receive(octets.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    fn put(&mut self, message: LdapMsg) {
        count(&message);
        session::encode(message, &mut self.out);
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let Some(stream) = self.stream.as_mut() else {
            return Ok(());
        };
        let send = async {
            stream.write_all(&self.out).await?;
            stream.flush().await
        };
        tokio::select! {
            biased;
            sent = timeout(WRITE_TIMEOUT.min(self.shared.idle_timeout), send) => sent??,
            () = self.shared.shutdown.clone().overdue(STOP_PATIENCE) => return Err(io::ErrorKind::Interrupted.into()),
        }
        self.out.clear();
        Ok(())
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        let (Some(tls), Some(stream)) = (&self.shared.tls, self.stream.take()) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.stream = Some(shake_hands(self.shared, stream, tls).await?);
        self.session.secured();
        Ok(())
    }

    async fn work(&mut self, work: Work) -> io::Result<()> {
        let Work { id, kind, operation } = work;
        let engine = &self.shared.engine;
        let client = self.session.channel().client;
        let message = match operation {
            Operation::Bind { dn, password, client } => {
                let name = dn.to_string();
                let outcome = engine.bind(dn, password, client).await;
                let client = client.map(|ip| ip.to_string());
                match &outcome {
                    Ok(_) => debug!(dn = %name, client, "bind"),
                    Err(refusal) => info!(dn = %name, client, code = ?refusal.code, "bind refused"),
                }
                self.session.bound(id, outcome)
            }
            Operation::Search(search) => return self.search(id, *search).await,
            Operation::Change(change) => session::answer(id, kind, engine.change(change, self.session.who()).await),
            Operation::Compare { dn, attribute, value } => {
                let outcome = engine.compare(&dn, &attribute, value, self.session.who(), client).await;
                // RFC 4511 section 4.10: the result is in the code.
                let told = outcome
                    .and_then(|same| Err(Refusal::new(if same { Code::CompareTrue } else { Code::CompareFalse }, "")));
                session::answer(id, kind, told)
            }
            Operation::SetPassword { dn, old, new } => {
                session::password_answer(id, engine.set_password(dn, old, new, self.session.who(), client).await)
            }
        };
        self.put(message);
        Ok(())
    }

    /// Sends what a search finds, step by step, and how it ended.
    async fn search(&mut self, id: i32, search: Search) -> io::Result<()> {
        let paged = search.page.is_some();
        let (outcome, next) = match self.find(id, search).await? {
            Ok(next) => (Ok(()), next),
            Err((refusal, next)) => (Err(refusal), next),
        };
        let mut message = session::answer(id, Kind::Search, outcome);
        if paged {
            let cookie = next.map(|cursor| cursor.to_cookie()).unwrap_or_default();
            message.ctrl.push(LdapControl::SimplePagedResults { size: 0, cookie });
        }
        self.put(message);
        Ok(())
    }

    async fn find(
        &mut self,
        id: i32,
        mut search: Search,
    ) -> io::Result<Result<Option<Cursor>, (Refusal, Option<Cursor>)>> {
        let engine = &self.shared.engine;
        let started = clock::monotonic();
        let rights = match engine.rights(self.session.who()).await {
            Ok(rights) => rights,
            Err(refusal) => return Ok(Err((refusal, None))),
        };
        let plan = match engine.begin(&mut search, &rights, self.session.channel()).await {
            Err(refusal) => return Ok(Err((refusal, None))),
            Ok(Begun::Own(entry)) => {
                if let Some(entry) = entry {
                    self.put(LdapMsg::new(id, LdapOp::SearchResultEntry(entry)));
                }
                return Ok(Ok(None));
            }
            Ok(Begun::Tree(plan)) => plan,
        };
        let bounds = Bounds::new(&search, &rights, self.shared.entries_max);
        let mut cursor = search.page.as_ref().map_or(Cursor::Start, |page| page.cursor.clone());
        let mut sent = 0;
        loop {
            // One more than allowed, to know whether there is one.
            let wanted = bounds.entries_max.saturating_add(1).min(bounds.page_size).saturating_sub(sent);
            if wanted == 0 {
                return Ok(Ok(Some(cursor)));
            }
            let step = match engine.step(&search, &plan, cursor, wanted.min(STEP_ENTRIES), &rights.reads).await {
                Ok(step) => step,
                Err(refusal) => return Ok(Err((refusal, None))),
            };
            for entry in step.entries {
                if sent >= bounds.entries_max {
                    return Ok(Err((Refusal::new(Code::SizeLimitExceeded, ""), None)));
                }
                sent += 1;
                self.put(LdapMsg::new(id, LdapOp::SearchResultEntry(entry)));
            }
            self.flush().await?;
            let Some(next) = step.next else {
                return Ok(Ok(None));
            };
            if clock::monotonic().duration_since(started) >= bounds.time_max {
                return Ok(Err((Refusal::new(Code::TimeLimitExceeded, ""), None)));
            }
            cursor = next;
        }
    }
}

/// How much a search may bring and how long it may take.
struct Bounds {
    entries_max: usize,
    page_size: usize,
    time_max: Duration,
}

impl Bounds {
    fn new(search: &Search, rights: &Rights, entries_max: usize) -> Self {
        let is_administrator = rights.may_bring_hashes();
        let (entries_max, time_max) = match (is_administrator, &rights.reads) {
            (true, _) => (usize::MAX, Duration::MAX),
            (false, Reads::Everything | Reads::AllButSecrets | Reads::Own { .. } | Reads::Nothing) => {
                (entries_max, SEARCH_TIME_MAX)
            }
        };
        Self {
            entries_max: search.entries_max.map_or(entries_max, |wanted| wanted.min(entries_max)),
            page_size: search.page.as_ref().map_or(usize::MAX, |page| page.size),
            time_max: search.time_max.map_or(time_max, |wanted| wanted.min(time_max)),
        }
    }
}

/// Counts an answer by what it answers and how.
fn count(message: &LdapMsg) {
    let (operation, result) = match &message.op {
        LdapOp::BindResponse(response) => ("bind", &response.res),
        LdapOp::SearchResultDone(result) => ("search", result),
        LdapOp::ModifyResponse(result) => ("modify", result),
        LdapOp::AddResponse(result) => ("add", result),
        LdapOp::DelResponse(result) => ("delete", result),
        LdapOp::ModifyDNResponse(result) => ("rename", result),
        LdapOp::CompareResult(result) => ("compare", result),
        LdapOp::ExtendedResponse(response) => ("extended", &response.res),
        // Entries are not counted one by one; requests are not sent.
        LdapOp::SearchResultEntry(_)
        | LdapOp::SearchResultReference(_)
        | LdapOp::IntermediateResponse(_)
        | LdapOp::BindRequest(_)
        | LdapOp::UnbindRequest
        | LdapOp::SearchRequest(_)
        | LdapOp::ModifyRequest(_)
        | LdapOp::AddRequest(_)
        | LdapOp::DelRequest(_)
        | LdapOp::ModifyDNRequest(_)
        | LdapOp::CompareRequest(_)
        | LdapOp::AbandonRequest(_)
        | LdapOp::ExtendedRequest(_) => return,
    };
    metrics::OPERATIONS.with_label_values(&[operation, &format!("{:?}", result.code)]).inc();
}
