//! TLS on the way to a directory elsewhere.
//!
//! Owns: whom to trust there, StartTLS. Called by: `connection`. Never: opens a file; certificates come as PEM text.
//! Spec: RFC 4511 section 4.14 (StartTLS); RFC 4513 section 3 (the name that the certificate must have); RFC 8446.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ldap3_proto::LdapCodec;
use ldap3_proto::proto::{LdapExtendedRequest, LdapMsg, LdapOp, LdapResultCode};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};

use super::frame::{self, FrameError};
use crate::config::directory::Tls as Mode;
use crate::config::secret::SecretText;
use crate::net::Stream;
use crate::net::site::{self, SiteTls};
use crate::net::tls::Connector;

const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// Octets of the answer to StartTLS, at most.
const ANSWER_LEN_MAX: usize = 4096;
/// Octets to read at a time while one waits for it.
const READ_LEN: usize = 512;

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecureError {
    #[error("{0}")]
    NoTrust(String),
    #[error("the server does not speak TLS: {0:?}")]
    Refused(LdapResultCode),
    #[error("the answer to StartTLS is unusable: {0}")]
    Frame(#[from] FrameError),
    #[error("the answer to StartTLS is something else")]
    Answer,
    /// Somebody on the way wants it to be taken for what comes by TLS.
    #[error("octets in the clear behind the answer to StartTLS")]
    Injection,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How TCP servers are spoken with.
pub(super) struct Way {
    mode: Mode,
    /// The name that the certificate must have; empty: the server's address.
    name: String,
    /// Or why there is no TLS.
    connector: Result<Connector, String>,
}

impl Way {
    pub(super) fn new(mode: Mode, name: &str, authority: Option<&SecretText>, site: Option<&SiteTls>) -> Self {
        let connector = match (mode, authority, site) {
            (Mode::Site, _, Some(site)) => site.connector().map_err(|error| error.to_string()),
            (Mode::Site, _, None) => Err("[site] secret is not there".to_owned()),
            (_, None, _) => Err("[directory] tls-ca is not there".to_owned()),
            (_, Some(pem), _) => config(pem.reveal()).map(Connector::of),
        };
        let name = if mode == Mode::Site { site::NAME } else { name };
        Self { mode, name: name.to_owned(), connector }
    }

    /// The server sees by our certificate who we are: SASL EXTERNAL works (RFC 4513 section 5.2.3).
    pub(super) fn proves_who_we_are(&self) -> bool {
        self.mode == Mode::Site
    }

    /// Makes of a connection to the server at this address one that requests may be made on. A handshake may take `patience`.
    pub(super) async fn secure(
        &self,
        mut stream: Stream,
        address: std::net::SocketAddr,
        patience: Duration,
    ) -> Result<Stream, SecureError> {
        if self.mode == Mode::None {
            return Ok(stream);
        }
        let connector = self.connector.as_ref().map_err(|reason| SecureError::NoTrust(reason.clone()))?;
        if self.mode == Mode::StartTls {
            start_tls(&mut stream).await?;
        }
        // The address is connected to; the name is what the certificate is compared with.
        let name = if self.name.is_empty() { address.ip().to_string() } else { self.name.clone() };
        Ok(stream.connect_tls(connector, &name, patience).await?)
    }
}

/// Asks for TLS, and reads the answer and nothing else: what stands behind it came in the clear (RFC 4511 section 4.14.2).
async fn start_tls(stream: &mut Stream) -> Result<(), SecureError> {
    let (mut request, mut codec) = (BytesMut::new(), LdapCodec::default());
    let operation = LdapOp::ExtendedRequest(LdapExtendedRequest { name: START_TLS.to_owned(), value: None });
    codec.encode(LdapMsg::new(1, operation), &mut request)?;
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut answer = BytesMut::new();
    loop {
        if let Some(frame) = frame::first(&answer, ANSWER_LEN_MAX)? {
            if answer.len() > frame.len {
                return Err(SecureError::Injection);
            }
            break;
        }
        answer.reserve(READ_LEN);
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    match codec.decode(&mut answer).ok().flatten() {
        Some(LdapMsg { msgid: 1, op: LdapOp::ExtendedResponse(response), .. }) => {
            let code = response.res.code;
            if code == LdapResultCode::Success { Ok(()) } else { Err(SecureError::Refused(code)) }
        }
        Some(_) | None => Err(SecureError::Answer),
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

#[cfg(test)]
mod tests;
