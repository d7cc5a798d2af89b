//! TLS: the certificate of the host, whom we believe, versions, resumption.
//!
//! Owns: `Acceptor`, `Connector`, `Pem`. Called by: sessions (STARTTLS, implicit TLS), the supervisor (checks what it
//! hands over). Never: opens a file but the system's list of authorities; certificates come as PEM text.
//! Spec: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 7468 (PEM).

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::stream::Stream;

/// The authorities that this machine trusts; the sandbox leaves it readable.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
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
        Ok(Self::of(config))
    }

    pub(super) fn of(config: ServerConfig) -> Self {
        Self(TlsAcceptor::from(Arc::new(config)))
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

/// Shakes hands as the client. Cheap to clone.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// Believes whoever is there: for opportunistic TLS, which only keeps out those who listen (RFC 7435 section 3).
    ///
    /// # Errors
    /// `Unusable`: the TLS library does not do what it always does.
    pub fn unverified() -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Anyone(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Believes the authorities that this machine trusts. Without any, no server is believed.
    ///
    /// # Errors
    /// As `unverified`.
    pub fn verified() -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(AUTHORITIES).into_iter().flatten().flatten();
        roots.add_parsable_certificates(certificates);
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// With these settings.
    #[must_use]
    pub fn of(config: Arc<ClientConfig>) -> Self {
        Self(TlsConnector::from(config))
    }

    /// Shakes hands. Without a bound in time: `Stream::connect_tls` has one.
    pub(super) async fn connect(&self, stream: Stream, name: &str) -> io::Result<client::TlsStream<Stream>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// Asks for no proof of who the server is; that it holds the key of the certificate that it shows is proven all the same.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
