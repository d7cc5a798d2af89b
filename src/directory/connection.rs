//! Connections to the directory: opened when needed, shared, replaced when they die.
//!
//! Owns: ldap3's handles. Called by: `client`, `admin`. Never: interprets entries.
//! Spec: RFC 4511; RFC 4513 section 5.2.3 (SASL EXTERNAL).

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex as BlockingMutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use ldap3::asn1::{ASNTag, OctetString, Sequence, Tag, write};
use ldap3::controls::{Control, ControlType, PagedResults, RawControl};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchOptions, SearchResult, StdStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::entry::Entry;
use super::error::DirectoryError;
use super::relay;
use super::tls::Way;
use super::vocabulary as names;
use crate::config::address::SocketAddress;
use crate::config::secret::SecretText;
use crate::net::Stream;

/// Connections on which searches are multiplexed. A server works on one connection's requests in turn, so one would make everyone wait for the slowest.
const SEARCH_CONNECTIONS: usize = 4;
/// Idle connections kept for binds; more are opened when more logins come at once.
const BIND_CONNECTIONS_IDLE_MAX: usize = 8;

/// Entries of one page.
const PAGE_ENTRIES: i32 = 1000;

/// As whom to search.
pub(super) enum Identity {
    /// SASL EXTERNAL over a unix socket and between hosts of the site, else anonymous.
    Own,
    /// Simple bind.
    Simple { dn: String, password: SecretText },
}

pub(super) struct Pool {
    servers: Vec<SocketAddress>,
    identity: Identity,
    timeout: Duration,
    way: Way,
    searching: [Mutex<Slot>; SEARCH_CONNECTIONS],
    next: AtomicUsize,
    binding: BlockingMutex<Vec<Ldap>>,
}

/// The handle, and how often it was replaced: whoever saw it fail replaces that one only.
#[derive(Default)]
struct Slot {
    handle: Option<Ldap>,
    generation: u64,
}

/// What a bind said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// The server knows the user and will not let him in (unwillingToPerform and the like).
    Unwilling,
    /// The server looks at no password of this account or from this network for a while.
    TooManyFailures,
}

impl Pool {
    /// Opens nothing yet. `servers`: unix paths already absolute.
    pub(super) fn new(servers: Vec<SocketAddress>, identity: Identity, timeout: Duration, way: Way) -> Self {
        let searching = std::array::from_fn(|_| Mutex::default());
        let binding = BlockingMutex::default();
        Self { servers, identity, timeout, way, searching, next: AtomicUsize::new(0), binding }
    }

    pub(super) fn set_way(&mut self, way: Way) {
        self.way = way;
    }

    /// Entries below `base` that the filter fits; at most `entries_max`, more are an error only for the server to tell.
    pub(super) async fn search(
        &self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &'static [&'static str],
        entries_max: i32,
    ) -> Result<Vec<Entry>, DirectoryError> {
        let answer = self
            .call(|mut ldap| async move {
                ldap.with_search_options(SearchOptions::new().sizelimit(entries_max))
                    .search(base, scope, filter, attributes)
                    .await
            })
            .await?;
        let SearchResult(found, result) = answer;
        match result.rc {
            // RFC 4511 section 4.1.9: success; noSuchObject: the base itself is not there (yet).
            0 => {}
            32 => return Ok(Vec::new()),
            code => return Err(DirectoryError::Refused { code, text: result.text }),
        }
        let read = |found: ldap3::ResultEntry| Entry::from_ber(found.0);
        let entries = found.into_iter().filter(|found| !found.is_ref() && !found.is_intermediate()).map(read);
        entries.collect::<Option<Vec<_>>>().ok_or(DirectoryError::Malformed("search result entry"))
    }

    /// One page of a search (RFC 2696) and the cookie of the next one; empty after the last. For fife's own server, which keeps no
    /// page for a connection.
    pub(super) async fn page(
        &self,
        base: &str,
        filter: &str,
        attributes: &'static [&'static str],
        cookie: Vec<u8>,
    ) -> Result<(Vec<Entry>, Vec<u8>), DirectoryError> {
        let answer = self
            .call(|mut ldap| {
                let cookie = cookie.clone();
                async move {
                    ldap.with_controls(PagedResults { size: PAGE_ENTRIES, cookie })
                        .search(base, Scope::Subtree, filter, attributes)
                        .await
                }
            })
            .await?;
        let SearchResult(found, result) = answer;
        if result.rc != 0 {
            return Err(DirectoryError::Refused { code: result.rc, text: result.text });
        }
        let next = result.ctrls.iter().find_map(|control| match control {
            Control(Some(ControlType::PagedResults), raw) => {
                raw.val.as_ref().map(|_| raw.parse::<PagedResults>().cookie)
            }
            Control(..) => None,
        });
        let entries = found.into_iter().filter(|found| !found.is_ref() && !found.is_intermediate());
        let entries = entries.map(|found| Entry::from_ber(found.0)).collect::<Option<Vec<_>>>();
        Ok((entries.ok_or(DirectoryError::Malformed("search result entry"))?, next.unwrap_or_default()))
    }

    /// Makes a request on a shared connection; once more on a new one when the first turns out to be dead.
    ///
    /// For requests that may be made twice: searches, and changes that say "exists" or "not there" the second time.
    pub(super) async fn call<T, F, Answer>(&self, request: F) -> Result<T, DirectoryError>
    where
        F: Fn(Ldap) -> Answer,
        Answer: Future<Output = Result<T, LdapError>>,
    {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % SEARCH_CONNECTIONS;
        let Some(slot) = self.searching.get(index) else {
            return Err(DirectoryError::Unreachable { reason: "no connection".to_owned() });
        };
        let twice = async {
            let (ldap, generation) = self.shared(slot).await?;
            match guarded(request(ldap)).await? {
                Err(error) if is_dead(&error) => {
                    self.drop_shared(slot, generation).await;
                    let (ldap, _) = self.shared(slot).await?;
                    guarded(request(ldap)).await?.map_err(unreachable)
                }
                other => other.map_err(unreachable),
            }
        };
        match timeout(self.timeout, twice).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                // A server that hangs on one request may hang on all: the next caller gets a new connection.
                if let Ok(mut slot) = slot.try_lock() {
                    slot.handle = None;
                }
                Err(DirectoryError::Timeout(self.timeout))
            }
        }
    }

    /// Binds as `dn` on a connection of its own. The password must not be empty: that would be an
    /// unauthenticated bind, which succeeds (RFC 4513 section 5.1.2). `client`: for whom; the server counts failures by it.
    pub(super) async fn bind(
        &self,
        dn: &str,
        password: &SecretText,
        client: Option<IpAddr>,
    ) -> Result<Verdict, DirectoryError> {
        if password.reveal().is_empty() {
            return Ok(Verdict::Wrong);
        }
        let attempt = async {
            while let Some(mut idle) = self.idle_binding() {
                match guarded(idle.with_controls(tracking(client, dn)).simple_bind(dn, password.reveal())).await? {
                    Err(error) if is_dead(&error) => {}
                    answer => return Ok((answer.map_err(unreachable)?, idle)),
                }
            }
            // As a service first: a server believes for whom we ask only when it knows who asks.
            let mut ldap = self.open_as_identity().await?;
            let bind = ldap.with_controls(tracking(client, dn)).simple_bind(dn, password.reveal());
            let answer = guarded(bind).await?.map_err(unreachable)?;
            Ok((answer, ldap))
        };
        let (result, ldap) =
            timeout(self.timeout, attempt).await.map_err(|_| DirectoryError::Timeout(self.timeout))??;
        self.keep_binding(ldap);
        match result.rc {
            0 => Ok(Verdict::Right),
            // inappropriateAuthentication (entry has no password), invalidCredentials, noSuchObject, invalidDNSyntax
            48 | 49 | 32 | 34 => Ok(Verdict::Wrong),
            // constraintViolation: what fife and 389 Directory Server say after too many failures
            19 => Ok(Verdict::TooManyFailures),
            // insufficientAccessRights, unwillingToPerform
            50 | 53 => Ok(Verdict::Unwilling),
            code => Err(DirectoryError::Refused { code, text: result.text }),
        }
    }

    async fn shared(&self, slot: &Mutex<Slot>) -> Result<(Ldap, u64), DirectoryError> {
        let mut slot = slot.lock().await;
        if let Some(handle) = slot.handle.as_mut()
            && !handle.is_closed()
        {
            return Ok((handle.clone(), slot.generation));
        }
        let ldap = self.open_as_identity().await?;
        slot.generation += 1;
        slot.handle = Some(ldap.clone());
        Ok((ldap, slot.generation))
    }

    async fn drop_shared(&self, slot: &Mutex<Slot>, generation: u64) {
        let mut slot = slot.lock().await;
        if slot.generation == generation {
            slot.handle = None;
        }
    }

    fn idle_binding(&self) -> Option<Ldap> {
        self.binding.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep_binding(&self, ldap: Ldap) {
        let mut idle = self.binding.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < BIND_CONNECTIONS_IDLE_MAX {
            idle.push(ldap);
        }
    }

    async fn open_as_identity(&self) -> Result<Ldap, DirectoryError> {
        let mut ldap = self.open().await?;
        let local = matches!(self.servers.first(), Some(SocketAddress::Unix(_)));
        let is_known = local || self.way.proves_who_we_are();
        let result = match &self.identity {
            Identity::Simple { dn, password } => ldap.simple_bind(dn, password.reveal()).await,
            Identity::Own if is_known => ldap.sasl_external_bind().await,
            Identity::Own => return Ok(ldap),
        };
        let result = result.map_err(unreachable)?;
        if result.rc == 0 { Ok(ldap) } else { Err(DirectoryError::Refused { code: result.rc, text: result.text }) }
    }

    async fn connect(&self, server: &SocketAddress) -> Result<Ldap, String> {
        let told = |error: std::io::Error| error.to_string();
        let stream = match server {
            SocketAddress::Tcp(address) => {
                let stream = Stream::from(TcpStream::connect(address).await.map_err(told)?);
                self.way.secure(stream, *address, self.timeout).await.map_err(|error| error.to_string())?
            }
            SocketAddress::Unix(path) => UnixStream::connect(path).await.map_err(told)?.into(),
        };
        let relayed = relay::before(stream, self.timeout).map_err(told)?;
        open_stream(relayed).await.map_err(|error| error.to_string())
    }

    /// A new connection to the first server that takes one.
    async fn open(&self) -> Result<Ldap, DirectoryError> {
        let mut failures = Vec::new();
        for server in &self.servers {
            match self.connect(server).await {
                Ok(ldap) => return Ok(ldap),
                Err(reason) => failures.push(format!("{server}: {reason}")),
            }
        }
        if failures.is_empty() {
            failures.push("no server is configured in [directory] servers".to_owned());
        }
        Err(DirectoryError::Unreachable { reason: failures.join("; ") })
    }
}

/// ldap3 on this end of a relay.
async fn open_stream(relayed: std::os::unix::net::UnixStream) -> Result<Ldap, LdapError> {
    let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(relayed));
    let (connection, ldap) = LdapConnAsync::with_settings(settings, "ldapi:///").await?;
    tokio::spawn(async move {
        match guarded(connection.drive()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "connection to the directory ended"),
            Err(error) => tracing::warn!(%error, "connection to the directory closed"),
        }
    });
    Ok(ldap)
}

/// For whom a bind is (draft-wahl-ldap-session section 2): address, host name, kind and text of an identifier. Not critical: a server that
/// does not know the control checks the password all the same.
fn tracking(client: Option<IpAddr>, user: &str) -> Vec<RawControl> {
    let Some(client) = client else { return Vec::new() };
    let text = |text: &str| Tag::OctetString(OctetString { inner: text.into(), ..OctetString::default() });
    let inner = vec![text(&client.to_string()), text(""), text(names::SESSION_TRACKING_USERNAME), text(user)];
    let mut octets = BytesMut::new();
    let value = Tag::Sequence(Sequence { inner, ..Sequence::default() }).into_structure();
    match write::encode_into(&mut octets, value) {
        Ok(()) => {
            vec![RawControl { ctype: names::SESSION_TRACKING.to_owned(), crit: false, val: Some(octets.to_vec()) }]
        }
        // Writing into memory does not fail.
        Err(_) => Vec::new(),
    }
}

/// ldap3 panics on answers that are not LDAP results; that must end this request, not the caller's session.
async fn guarded<T>(request: impl Future<Output = T>) -> Result<T, DirectoryError> {
    AssertUnwindSafe(request).catch_unwind().await.map_err(|_| DirectoryError::Malformed("an answer"))
}

/// The connection is of no use any more; a new one may be.
fn is_dead(error: &LdapError) -> bool {
    matches!(
        error,
        LdapError::Io { .. } | LdapError::OpSend { .. } | LdapError::ResultRecv { .. } | LdapError::EndOfStream
    )
}

fn unreachable(error: LdapError) -> DirectoryError {
    if let LdapError::LdapResult { result } = error {
        return DirectoryError::Refused { code: result.rc, text: result.text };
    }
    DirectoryError::Unreachable { reason: error.to_string() }
}
