//! DKIM signatures.
//!
//! Owns: which header fields are signed, how. Called by: `signers`. Never: looks for keys.
//! Spec: RFC 6376 section 5, RFC 8463 section 3 (both algorithms), RFC 8301 (SHA-256 only).

use mail_auth::common::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::common::to_a_label;
use mail_auth::dkim::{DkimSigner, Done};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer};

use crate::base::address::Domain;
use crate::directory::dkim::{Algorithm, DomainKey, KeyError, KeyState};

/// Fields that are signed wherever they are (RFC 6376 section 5.4.1). Those that come twice are signed once more than they are there, so that
/// none can be added (RFC 6376 section 8.15): what a reader is shown, and what says how the body is to be read.
const FIELDS: [&str; 34] = [
    "From",
    "From",
    "To",
    "To",
    "Cc",
    "Cc",
    "Subject",
    "Subject",
    "Date",
    "Date",
    "Message-ID",
    "Message-ID",
    "Reply-To",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "MIME-Version",
    "Content-Type",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Transfer-Encoding",
    "Sender",
    "Resent-Date",
    "Resent-From",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
];

/// The keys of a domain that sign now. Signing a message of 10 KB with both costs one to two
/// milliseconds of computing, nearly all of it RSA's, and about 5 ms more for each MiB.
pub struct Signers {
    signers: Vec<Signer>,
}

enum Signer {
    Rsa(Box<DkimSigner<RsaKey<Sha256>, Done>>),
    Ed25519(Box<DkimSigner<Ed25519Key, Done>>),
}

impl Signers {
    /// From the domain's keys.
    ///
    /// # Errors
    /// An active key is none.
    pub fn new(domain: &Domain, keys: &[DomainKey]) -> Result<Self, KeyError> {
        let active = keys.iter().filter(|key| key.state == KeyState::Active);
        let signers = active.map(|key| Signer::new(domain, key)).collect::<Result<_, _>>()?;
        Ok(Self { signers })
    }

    /// No key signs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.signers.is_empty()
    }

    /// `DKIM-Signature` fields, one of each key, over a message whose first header lines are `trace`.
    ///
    /// # Errors
    /// Something is wrong with a key.
    pub fn sign(&self, trace: &[u8], content: &[u8]) -> mail_auth::Result<Vec<u8>> {
        let mut fields = Vec::with_capacity(2048);
        for signer in &self.signers {
            let parts = [trace, content];
            let signature = match signer {
                Signer::Rsa(signer) => signer.sign_chained(parts),
                Signer::Ed25519(signer) => signer.sign_chained(parts),
            };
            signature?.write_header(&mut fields);
        }
        Ok(fields)
    }
}

impl Signer {
    fn new(domain: &Domain, key: &DomainKey) -> Result<Self, KeyError> {
        let unusable = |error: mail_auth::Error| KeyError::Unusable(error.to_string());
        let der = key.private_der()?;
        // RFC 6376 section 3.5: d= is in the form of the DNS.
        let (domain, selector) = (to_a_label(domain.as_str()).into_owned(), key.selector.clone());
        Ok(match key.algorithm {
            Algorithm::Rsa => {
                let der = PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der));
                let key = RsaKey::<Sha256>::from_key_der(der).map_err(unusable)?;
                Self::Rsa(Box::new(DkimSigner::from_key(key).domain(domain).selector(selector).headers(FIELDS)))
            }
            Algorithm::Ed25519 => {
                let key = Ed25519Key::from_pkcs8_der(&der).map_err(unusable)?;
                Self::Ed25519(Box::new(DkimSigner::from_key(key).domain(domain).selector(selector).headers(FIELDS)))
            }
        })
    }
}
