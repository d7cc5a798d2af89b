//! The site's own authority, and this host's certificate of it.
//!
//! Owns: `state/tls/site/`. Called by: the plan. Never: gives the authority's key to anybody; it is made from `[site]
//! secret` whenever it is needed, on every host the same, and is kept nowhere.
//! Spec: RFC 8410 (Ed25519 in certificates), RFC 9106 (Argon2).

use std::collections::BTreeSet;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SerialNumber, date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::certificate::{self, CertificateError, DAY_SECS, Made};
use crate::base::clock;
use crate::config::secret::SecretText;
use crate::net::site::{NAME, SiteTls};
use crate::net::tls::Pem;

/// Life of a host's certificate. It is made anew when a third of it is left, which starts the roles again.
const LIFE_DAYS: u64 = 90;
/// Certificates name what they are made with: who changes how the key is made counts this up.
const SALT: &str = "fife site authority 1";
/// An Ed25519 private key of 32 octets in PKCS #8 follows this (RFC 8410 section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const SEED_LEN: usize = 32;

/// What this host shows the others of its site, and whom it believes. Kept in `dir`, made now when there is none,
/// when the secret is another, or when its life ends soon.
pub(super) fn tls(dir: &Path, site: &str, host: &str, secret: &SecretText) -> Result<SiteTls, CertificateError> {
    let now = clock::unix_secs();
    let (authority, issuer) = authority(site, secret)?;
    let made_for = BTreeSet::from([host.to_owned(), blake3::hash(authority.as_bytes()).to_hex().to_string()]);
    let expires = now + LIFE_DAYS * DAY_SECS;
    if let Some(own) = certificate::kept(dir, &made_for, now, expires) {
        return Ok(SiteTls { own, authority });
    }
    let own = of_host(host, expires, &issuer)?;
    let made = Made { names: made_for, expires, hash: certificate::hash(&own) };
    certificate::keep(dir, &own, &made).map_err(|source| CertificateError::Keep { path: dir.to_owned(), source })?;
    tracing::info!(host, "made this host's certificate for the other hosts of the site");
    Ok(SiteTls { own, authority })
}

/// The authority's certificate in PEM, octet for octet the same on every host, and what signs with its key.
///
/// Whoever sees a certificate of a host can try secrets against it as fast as his machine goes: Argon2 makes that slow for
/// a secret that somebody has thought up.
fn authority(site: &str, secret: &SecretText) -> Result<(String, Issuer<'static, KeyPair>), CertificateError> {
    let mut key = [0; PKCS8_ED25519.len() + SEED_LEN];
    let (head, seed) = key.split_at_mut(PKCS8_ED25519.len());
    head.copy_from_slice(&PKCS8_ED25519);
    let salt = format!("{SALT}\0{site}");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
        .hash_password_into(secret.reveal().as_bytes(), salt.as_bytes(), seed)
        .map_err(|error| CertificateError::Secret(error.to_string()))?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key.as_slice()), &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("fife site {site}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(SerialNumber::from(1));
    params.not_before = date_time_ymd(1970, 1, 1);
    Ok((params.self_signed(&key)?.pem(), Issuer::new(params, key)))
}

fn of_host(host: &str, expires: u64, issuer: &Issuer<'_, KeyPair>) -> Result<Pem, rcgen::Error> {
    let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, host);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    // Always begun: a host whose clock has lost its battery still finds the others.
    params.not_before = date_time_ymd(1970, 1, 1);
    let (year, month, day) = certificate::date(expires);
    params.not_after = date_time_ymd(year, month, day);
    let key = KeyPair::generate()?;
    Ok(Pem { certificate: params.signed_by(&key, issuer)?.pem(), key: key.serialize_pem() })
}
