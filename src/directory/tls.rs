//! TLS on the way to a directory elsewhere.
//!
//! Owns: whom to trust there. Called by: `connection`. Never: opens a file; certificates come as PEM text.
//! Spec: RFC 4513 section 3 (StartTLS, whose name the certificate must have); RFC 8446.

use std::sync::Arc;

use ldap3::LdapConnSettings;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::directory::Tls as Mode;
use crate::config::secret::SecretText;
use crate::net::site::{self, SiteTls};

/// How TCP servers are spoken with.
pub(super) struct Way {
    mode: Mode,
    /// The name that the certificate must have; empty: the server's address.
    name: String,
    /// Or why there is no TLS.
    client: Result<Arc<ClientConfig>, String>,
}

impl Way {
    pub(super) fn new(mode: Mode, name: &str, authority: Option<&SecretText>, site: Option<&SiteTls>) -> Self {
        let client = match (mode, authority, site) {
            (Mode::Site, _, Some(site)) => site.client_config().map_err(|error| error.to_string()),
            (Mode::Site, _, None) => Err("[site] secret is not there".to_owned()),
            (_, None, _) => Err("[directory] tls-ca is not there".to_owned()),
            (_, Some(pem), _) => config(pem.reveal()),
        };
        let name = if mode == Mode::Site { site::NAME } else { name };
        Self { mode, name: name.to_owned(), client }
    }

    /// The server sees by our certificate who we are: SASL EXTERNAL works (RFC 4513 section 5.2.3).
    pub(super) fn proves_who_we_are(&self) -> bool {
        self.mode == Mode::Site
    }

    /// URL and settings for a server that has this address.
    pub(super) fn to(&self, address: std::net::SocketAddr) -> Result<(String, LdapConnSettings), String> {
        let settings = LdapConnSettings::new();
        let scheme = match self.mode {
            Mode::None => return Ok((format!("ldap://{address}"), settings)),
            Mode::StartTls => "ldap",
            Mode::Tls | Mode::Site => "ldaps",
        };
        let settings = settings.set_config(self.client.clone()?).set_starttls(self.mode == Mode::StartTls);
        // The address is connected to; the name is what the certificate is compared with.
        let host = if self.name.is_empty() { address.ip().to_string() } else { self.name.clone() };
        Ok((format!("{scheme}://{host}:{}", address.port()), settings))
    }
}

fn config(pem: &str) -> Result<Arc<ClientConfig>, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("[directory] tls-ca is unusable: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"it holds no certificate in PEM"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
