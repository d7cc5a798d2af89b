//! What every session of the role shares.
//!
//! Owns: `Context`, and logging in, which is the same for IMAP and POP3. Called by: `serve` (makes it), the protocols' `serve` rooms.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::metrics::LOGINS;
use super::pop3::lock::Maildrops;
use super::room::Rooms;
use super::store::Store;
use crate::config::pop_imap::PopImap;
use crate::config::secret::SecretText;
use crate::directory::{Account, AuthError, Directory};
use crate::net::tls::Acceptor;
use crate::net::{Peer, Shutdown, Stream};

/// How long a refused login is made to wait for its answer: guessing must not be cheap.
const LOGIN_REFUSED_DELAY: Duration = Duration::from_secs(2);

/// How long a peer that does not take what is sent to it is waited for once the role is to stop.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Who asks for a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Imap,
    Pop3,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
        }
    }
}

/// Shared by all sessions; one per process.
pub struct Context {
    pub store: Store,
    pub directory: Directory,
    pub settings: PopImap,
    /// None when the host has no certificate: TLS is then not offered.
    pub tls: Option<Acceptor>,
    /// For other hosts of the site; none on a site without a secret.
    pub site: Option<Acceptor>,
    pub shutdown: Shutdown,
    /// This host, for greetings and trace headers.
    pub hostname: String,
    /// For messages that come in by APPEND.
    pub rooms: Rooms,
    /// Maildrops that a POP3 session holds.
    pub maildrops: Maildrops,
}

impl Context {
    /// Whether a password may come over this connection: within TLS, from this machine, or from anywhere when so configured.
    #[must_use]
    pub fn may_log_in(&self, stream: &Stream, peer: &Peer) -> bool {
        stream.is_tls() || peer.is_local() || self.settings.cleartext_login
    }

    /// Shakes hands (TLS), within the time for logging in; a stop of the role ends it.
    ///
    /// # Errors
    /// What the peer did wrong, or `TimedOut`, `Interrupted` (the role stops), `Unsupported` (no certificate).
    pub async fn start_tls(&self, stream: Stream) -> io::Result<Stream> {
        self.shake_hands(stream, self.tls.as_ref()).await
    }

    /// The same with another host of the site, and nobody else.
    ///
    /// # Errors
    /// As `start_tls`; also when the peer is not of the site.
    pub async fn start_site_tls(&self, stream: Stream) -> io::Result<Stream> {
        self.shake_hands(stream, self.site.as_ref()).await
    }

    async fn shake_hands(&self, stream: Stream, acceptor: Option<&Acceptor>) -> io::Result<Stream> {
        let acceptor = acceptor.ok_or(io::ErrorKind::Unsupported)?;
        let mut shutdown = self.shutdown.clone();
        tokio::select! {
            stream = stream.start_tls(acceptor, self.settings.login_timeout.get()) => stream,
            () = shutdown.stopping() => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Asks the directory whether the login is right; counts and logs. A refusal comes late. `client`: the peer's address.
    ///
    /// # Errors
    /// `Refused`, `Suspended`, `TooManyFailures`, or `Unavailable` when the directory gives no answer.
    pub async fn log_in(
        &self,
        protocol: Protocol,
        login: &str,
        password: &SecretText,
        client: Option<IpAddr>,
    ) -> Result<Arc<Account>, AuthError> {
        let answer = self.directory.authenticate(login, password, client).await;
        let result = match &answer {
            Ok(account) => {
                info!(account = %account.address, "logged in");
                "good"
            }
            Err(AuthError::Refused) => {
                info!(login, "login refused");
                "refused"
            }
            Err(AuthError::Suspended) => {
                info!(login, "login refused: the account is suspended");
                "suspended"
            }
            Err(AuthError::TooManyFailures) => {
                info!(login, "login refused: too many failed lately");
                "throttled"
            }
            Err(AuthError::Unavailable(error)) => {
                warn!(login, %error, "login not possible");
                "unavailable"
            }
        };
        LOGINS.with_label_values(&[protocol.name(), result]).inc();
        if matches!(answer, Err(AuthError::Refused | AuthError::Suspended | AuthError::TooManyFailures)) {
            tokio::time::sleep(LOGIN_REFUSED_DELAY).await;
        }
        answer
    }
}
