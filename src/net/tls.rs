//! TLS as the server: the certificate of the host, versions, resumption.
//!
//! Owns: `Acceptor`, `Pem`. Called by: sessions (STARTTLS, implicit TLS), the supervisor (checks what it
//! hands over). Never: opens a file; certificates come as PEM text.
//! Spec: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 7468 (PEM).

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stream::Stream;

/// TLS sessions that can be resumed without a ticket (TLS 1.2 session ids).
const SESSIONS_CACHED_MAX: usize = 4096;

/// A certificate chain and its key as PEM text. `Debug` hides the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pem {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no certificate was handed to this role")]
    None,
    #[error("the certificate file is not PEM text: {0}")]
    Certificate(pem::Error),
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    #[error("the key file holds no usable private key: {0}")]
    Key(pem::Error),
    #[error("certificate and key do not work: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Shakes hands as the server. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// From PEM text. TLS 1.2 and 1.3; sessions can be resumed, by ticket too.
    ///
    /// # Errors
    /// The text holds no certificate or key, or the two do not belong together.
    pub fn from_pem(pem: &Pem) -> Result<Self, TlsError> {
        let certificates = CertificateDer::pem_slice_iter(pem.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(TlsError::Certificate)?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(TlsError::Key)?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        config.ticketer = ring::Ticketer::new()?;
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS_CACHED_MAX);
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands. Without a bound in time: `Stream::start_tls` has one.
    pub(super) async fn accept(&self, stream: Stream) -> io::Result<TlsStream<Stream>> {
        self.0.accept(stream).await
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}
