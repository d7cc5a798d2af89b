//! What a role process is given by the supervisor: settings, secrets, sockets.
//!
//! Owns: `Letter`, the JSON that travels in a memfd, and `Handover`, the same in the role's hands. Called by: the
//! supervisor (writes the letter), `fife role NAME` (receives), roles' `serve`. Never: reads the configuration file;
//! a role knows only what it was handed.
//!
//! Invariants: every descriptor named in a letter is owned by the handover alone; secrets travel only here and are
//! never printed; a listener is given out once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use axum::Router;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::listener::Listener;
use super::metrics::{self, Health};
use super::shutdown::{Shutdown, Stopper};
use super::site::SiteTls;
use super::tls::{Acceptor, Pem, TlsError};
use crate::config::Effective;
use crate::config::address::SocketAddress;
use crate::config::hosts::Role;
use crate::config::secret::SecretText;

/// Bytes of a letter, at most. A site's settings are some kilobytes.
const LETTER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a role writes into its ready pipe.
pub const READY: &[u8] = b"ready\n";

/// The letter in the memfd. Descriptors are numbers in the role's process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Letter {
    pub role: Role,
    pub effective: Effective,
    /// Absolute.
    pub state_dir: PathBuf,
    /// This machine's own; a sandboxed role cannot ask for them.
    pub addresses: Vec<IpAddr>,
    /// By TOML key, as "directory.bind-password".
    pub secrets: BTreeMap<String, Revealed>,
    pub tls: Option<Pem>,
    /// Towards other hosts of the site.
    pub site: Option<SiteTls>,
    pub listeners: Vec<HandedListener>,
    /// Where the role answers `/metrics` and `/health`: a listening unix socket.
    pub metrics: Option<RawFd>,
    /// Write end of the pipe on which the supervisor waits for `READY`.
    pub ready: Option<RawFd>,
    /// The log file, open for appending; none: standard error.
    pub log: Option<RawFd>,
}

/// A listening socket of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedListener {
    /// "smtp", "submission", "imaps", …
    pub service: String,
    pub fd: RawFd,
}

/// A secret on its way in the memfd. `Debug` hides it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revealed(pub String);

impl std::fmt::Debug for Revealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Letter {
    /// Writes the letter into a memfd, to be inherited by the role.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn write(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(c"fife-handover", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file.into())
    }
}

/// Why a role has no handover.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("`fife role` is started by `fife run` only: {0}")]
    Read(#[from] io::Error),
    #[error("the handover is not what this version of fife writes: {0}")]
    Letter(#[from] serde_json::Error),
    #[error("the handover names descriptor {0}, which is not open or named twice")]
    Descriptor(RawFd),
}

/// What a role has to work with.
#[derive(Debug)]
pub struct Handover {
    pub role: Role,
    /// The host's settings. Secrets in it are hidden: ask `secret`.
    pub effective: Effective,
    /// The site's state directory; a role may touch only `role_dir` in it.
    pub state_dir: PathBuf,
    /// The addresses that this machine had when the role was started.
    pub addresses: Vec<IpAddr>,
    secrets: BTreeMap<String, SecretText>,
    pem: Option<Pem>,
    /// What other hosts are shown, and must show; none on a site without a secret.
    pub site: Option<SiteTls>,
    acceptor: OnceLock<Acceptor>,
    listeners: Vec<(String, OwnedFd)>,
    metrics: Option<OwnedFd>,
    ready: Mutex<Option<File>>,
    log: Option<File>,
    stopper: Option<Stopper>,
    shutdown: Shutdown,
}

impl Handover {
    /// Takes what the supervisor left at this descriptor. To be called once, first thing in the process.
    ///
    /// # Errors
    /// There is nothing, or nothing that this version wrote.
    pub fn receive(letter: RawFd) -> Result<Self, HandoverError> {
        let mut taken = Vec::new();
        let mut text = Vec::new();
        File::from(adopt(letter, &mut taken)?).take(LETTER_BYTES_MAX).read_to_end(&mut text)?;
        let letter: Letter = serde_json::from_slice(&text)?;
        metrics::label(letter.role.name());
        let mut handover = Self::bare(letter.role, letter.effective, letter.state_dir);
        handover.addresses = letter.addresses;
        handover.secrets = letter.secrets.into_iter().map(|(key, text)| (key, SecretText::new(text.0))).collect();
        handover.pem = letter.tls;
        handover.site = letter.site;
        for listener in letter.listeners {
            handover.listeners.push((listener.service, adopt(listener.fd, &mut taken)?));
        }
        handover.metrics = letter.metrics.map(|fd| adopt(fd, &mut taken)).transpose()?;
        handover.log = letter.log.map(|fd| adopt(fd, &mut taken)).transpose()?.map(File::from);
        let ready = letter.ready.map(|fd| adopt(fd, &mut taken)).transpose()?;
        handover.ready = Mutex::new(ready.map(File::from));
        Ok(handover)
    }

    /// A handover without a supervisor, for a role that runs within another process (tests, simulations). The
    /// stopper takes SIGTERM's place. Makes the role's directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn in_process(role: Role, effective: Effective, state_dir: &Path) -> io::Result<(Self, Stopper)> {
        let mut handover = Self::bare(role, effective, state_dir.to_path_buf());
        std::fs::create_dir_all(handover.role_dir())?;
        let (stopper, shutdown) = Shutdown::pair();
        (handover.stopper, handover.shutdown) = (None, shutdown);
        Ok((handover, stopper))
    }

    /// Adds a listening socket, for `in_process`.
    #[must_use]
    pub fn with_listener(mut self, service: &str, listener: impl Into<OwnedFd>) -> Self {
        self.listeners.push((service.to_owned(), listener.into()));
        self
    }

    /// Adds a secret, for `in_process`.
    #[must_use]
    pub fn with_secret(mut self, key: &str, text: &str) -> Self {
        self.secrets.insert(key.to_owned(), SecretText::new(text.to_owned()));
        self
    }

    /// Adds the certificate, for `in_process`.
    #[must_use]
    pub fn with_tls(mut self, pem: Pem) -> Self {
        self.pem = Some(pem);
        self
    }

    fn bare(role: Role, effective: Effective, state_dir: PathBuf) -> Self {
        let (stopper, shutdown) = Shutdown::pair();
        Self {
            role,
            effective,
            state_dir,
            addresses: Vec::new(),
            secrets: BTreeMap::new(),
            pem: None,
            site: None,
            acceptor: OnceLock::new(),
            listeners: Vec::new(),
            metrics: None,
            ready: Mutex::new(None),
            log: None,
            stopper: Some(stopper),
            shutdown,
        }
    }

    /// The role's own directory: exists, mode 0700, nobody else's.
    #[must_use]
    pub fn role_dir(&self) -> PathBuf {
        self.state_dir.join(self.role.name())
    }

    /// The listening sockets of a service; empty when it has none, or they were taken before.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A socket cannot be registered with the runtime.
    pub fn listeners(&mut self, service: &str) -> io::Result<Vec<Listener>> {
        let (wanted, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.listeners).into_iter().partition(|(name, _)| name == service);
        self.listeners = rest;
        wanted.into_iter().map(|(_, fd)| Listener::from_fd(fd)).collect()
    }

    /// A secret by its TOML key, as "directory.bind-password".
    #[must_use]
    pub fn secret(&self, key: &str) -> Option<&SecretText> {
        self.secrets.get(key)
    }

    /// The TLS side of a server with the host's certificate. Cheap after the first call; share what it returns among
    /// services, so that sessions are resumed.
    ///
    /// # Errors
    /// The supervisor handed no certificate, or an unusable one.
    pub fn tls(&self) -> Result<Acceptor, TlsError> {
        if let Some(acceptor) = self.acceptor.get() {
            return Ok(acceptor.clone());
        }
        let acceptor = Acceptor::from_pem(self.pem.as_ref().ok_or(TlsError::None)?)?;
        Ok(self.acceptor.get_or_init(|| acceptor).clone())
    }

    /// Watches for the wish to stop. Clone it freely.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Makes SIGTERM the wish to stop. Called once, by `fife role`, inside the runtime.
    ///
    /// # Errors
    /// The handler could not be set up.
    pub fn stop_on_signal(&mut self) -> io::Result<()> {
        self.stopper.take().map_or(Ok(()), Stopper::stop_on_signal)
    }

    /// The host's full name, for greetings: its name in `[hosts]` and the site's domain.
    #[must_use]
    pub fn site_hostname(&self) -> String {
        match &self.effective.site.domain {
            Some(domain) => format!("{}.{domain}", self.effective.host),
            None => self.effective.host.clone(),
        }
    }

    /// The DN at the top of the directory: `[directory] base`, or `o=` and the site's name.
    #[must_use]
    pub fn base_dn(&self) -> String {
        base_dn(&self.effective)
    }

    /// An address with a relative unix path put into the state directory.
    #[must_use]
    pub fn path_of(&self, address: &SocketAddress) -> SocketAddress {
        address.in_dir(&self.state_dir)
    }

    /// Answers `/metrics` and `/health` to the supervisor from now on, in a task. Must be called inside a runtime.
    pub fn serve_metrics(&mut self, health: impl Fn() -> Health + Send + Sync + 'static) {
        self.serve_metrics_and(health, Router::new());
    }

    /// The same, and more on the same socket, which only root and the user that fife runs as can reach.
    pub fn serve_metrics_and(&mut self, health: impl Fn() -> Health + Send + Sync + 'static, more: Router) {
        let Some(fd) = self.metrics.take() else { return };
        match Listener::from_fd(fd) {
            Ok(listener) => {
                tokio::spawn(metrics::serve(listener, health, more, self.shutdown()));
            }
            Err(error) => warn!(%error, "metrics are not served"),
        }
    }

    /// Tells the supervisor that the role serves now. Once; later calls do nothing.
    pub async fn ready(&self) {
        let pipe = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A pipe that nobody has written to before takes six bytes without waiting.
        if let Some(mut pipe) = pipe
            && let Err(error) = pipe.write_all(READY)
        {
            warn!(%error, "cannot tell the supervisor that the role is ready");
        }
    }

    /// Waits until no other process works in the role's directory, and keeps it for this one. A former process of this
    /// role that was killed may take a moment to be gone, and two must never write one store.
    ///
    /// # Errors
    /// The directory is not there or not ours.
    pub fn lock_dir(&self) -> io::Result<Flock<File>> {
        let directory = File::open(self.role_dir())?;
        Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// The log file, for `net::log`; once.
    pub fn take_log_file(&mut self) -> Option<File> {
        self.log.take()
    }
}

/// The DN at the top of the directory of a site.
#[must_use]
pub fn base_dn(effective: &Effective) -> String {
    match effective.tables.directory.base.as_str() {
        "" => format!("o={}", escape_dn_value(&effective.site.name)),
        base => base.to_owned(),
    }
}

/// A value within a DN (RFC 4514 section 2.4).
fn escape_dn_value(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (index, char) in value.chars().enumerate() {
        let special = matches!(char, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=')
            || (index == 0 && matches!(char, ' ' | '#'))
            || (index == last && char == ' ');
        if special {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

/// Takes over a descriptor that was inherited, and keeps it from being inherited further.
#[expect(unsafe_code, reason = "descriptors cross exec as numbers; there is no safe way to own one")]
fn adopt(fd: RawFd, taken: &mut Vec<RawFd>) -> Result<OwnedFd, HandoverError> {
    // Standard input, output and error are not the letter's to give.
    if fd <= io::stderr().as_raw_fd() || taken.contains(&fd) {
        return Err(HandoverError::Descriptor(fd));
    }
    // SAFETY: only looked at while borrowed; that it is open is what the call finds out.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| HandoverError::Descriptor(fd))?;
    taken.push(fd);
    // SAFETY: open (just seen), inherited over exec so that nothing in this process owns it, and adopted once (`taken`).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
