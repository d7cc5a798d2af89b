//! Mutual TLS between the hosts of a site.
//!
//! Owns: `SiteTls`, what a host shows the others and what they must show. Called by: roles, for the seams that cross
//! hosts (LMTP, LDAP). Never: holds the site's secret or the key of its authority; those stay with the supervisor.
//!
//! Every host shows a certificate of the site's own authority, and believes nobody who does not. Which host it is makes no
//! difference: whoever has the site's secret is of the site.
//! Spec: RFC 8446 section 4.3.2 (the server asks for a certificate), RFC 5280.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};

use super::tls::{Acceptor, Connector, Pem, TlsError};

/// The name that every host's certificate has: hosts are known by their authority, addresses may change.
pub const NAME: &str = "host.site.internal";

/// What this host shows, and the authority that others' certificates must come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteTls {
    pub own: Pem,
    /// The authority's certificate in PEM.
    pub authority: String,
}

impl SiteTls {
    /// For servers: lets in other hosts of the site only.
    ///
    /// # Errors
    /// What the supervisor handed over is unusable.
    pub fn acceptor(&self) -> Result<Acceptor, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider));
        let verifier =
            verifier.build().map_err(|error| TlsError::Unusable(rustls::Error::General(error.to_string())))?;
        let (chain, key) = self.identity()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        Ok(Acceptor::of(config))
    }

    /// For clients: speaks to other hosts of the site only, who are to be asked for by `NAME`.
    ///
    /// # Errors
    /// As `acceptor`.
    pub fn connector(&self) -> Result<Connector, TlsError> {
        let (chain, key) = self.identity()?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?;
        Ok(Connector::of(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).map_err(TlsError::Certificate)?)?;
        Ok(roots)
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let own = CertificateDer::from_pem_slice(self.own.certificate.as_bytes()).map_err(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(self.own.key.as_bytes()).map_err(TlsError::Key)?;
        Ok((vec![own], key))
    }
}
