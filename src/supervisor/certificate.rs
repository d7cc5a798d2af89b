//! The self-signed certificate of a host that was given none.
//!
//! Owns: `state/tls/certificate.pem`, `key.pem` and `made.json`, which says what they are for. Called by: the plan.
//! Never: touches a certificate that was given.
//! Spec: RFC 5280 (certificates), RFC 6125 (names in them).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Datelike};
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use serde::{Deserialize, Serialize};

use crate::base::{clock, durable};
use crate::net::tls::Pem;

pub(super) const DAY_SECS: u64 = 24 * 3600;
/// Life of a certificate: what Apple's clients accept at most of a certificate that the user trusted by hand.
const LIFE_DAYS: u64 = 825;
/// Rest of its life at which it is made anew.
const RENEW_DAYS: u64 = 30;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot keep the certificate in {path}: {source}", path = .path.display())]
    Keep { path: PathBuf, source: io::Error },
    #[error("`[site] secret` is unusable: {0}")]
    Secret(String),
}

/// What the certificate beside it was made for. Written last: without it, or with another hash in it, all is made anew.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) names: BTreeSet<String>,
    /// End of its life, seconds since 1970.
    pub(super) expires: u64,
    /// BLAKE3 of certificate and key.
    pub(super) hash: String,
}

/// The certificate kept in `dir`, made now when there is none, when it does not name these `names`, or when its life
/// ends soon.
pub(super) fn self_signed(dir: &Path, names: &BTreeSet<String>) -> Result<Pem, CertificateError> {
    let now = clock::unix_secs();
    let expires = now + LIFE_DAYS * DAY_SECS;
    if let Some(pem) = kept(dir, names, now, expires) {
        return Ok(pem);
    }
    let pem = make(names, now, expires)?;
    let made = Made { names: names.clone(), expires, hash: hash(&pem) };
    keep(dir, &pem, &made).map_err(|source| CertificateError::Keep { path: dir.to_owned(), source })?;
    tracing::info!(names = names.iter().cloned().collect::<Vec<_>>().join(" "), "made a self-signed certificate");
    Ok(pem)
}

/// What is kept, if it still serves. `latest`: when one that is made now expires.
pub(super) fn kept(dir: &Path, names: &BTreeSet<String>, now: u64, latest: u64) -> Option<Pem> {
    let made: Made = serde_json::from_slice(&fs::read(dir.join("made.json")).ok()?).ok()?;
    let pem = Pem {
        certificate: fs::read_to_string(dir.join("certificate.pem")).ok()?,
        key: fs::read_to_string(dir.join("key.pem")).ok()?,
    };
    // One that lives longer was made when the clock was ahead, and may not have begun yet.
    let lives = now + RENEW_DAYS * DAY_SECS < made.expires && made.expires <= latest + DAY_SECS;
    let serves = made.names == *names && made.hash == hash(&pem) && lives;
    serves.then_some(pem)
}

fn make(names: &BTreeSet<String>, now: u64, expires: u64) -> Result<Pem, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    let title = names.iter().find(|name| name.contains('.') && name.parse::<std::net::IpAddr>().is_err());
    params.distinguished_name.push(DnType::CommonName, title.map_or("localhost", String::as_str));
    // From yesterday: clients' clocks are not all right.
    let (year, month, day) = date(now.saturating_sub(DAY_SECS));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(expires);
    params.not_after = date_time_ymd(year, month, day);
    let key = KeyPair::generate()?;
    Ok(Pem { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Year, month and day of a time.
pub(super) fn date(unix_secs: u64) -> (i32, u8, u8) {
    let day = i64::try_from(unix_secs).ok().and_then(|secs| DateTime::from_timestamp(secs, 0)).unwrap_or_default();
    (day.year(), u8::try_from(day.month()).unwrap_or(1), u8::try_from(day.day()).unwrap_or(1))
}

pub(super) fn hash(pem: &Pem) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(pem.certificate.as_bytes());
    hasher.update(pem.key.as_bytes());
    hasher.finalize().to_hex().to_string()
}

pub(super) fn keep(dir: &Path, pem: &Pem, made: &Made) -> io::Result<()> {
    durable::replace(&dir.join("key.pem"), pem.key.as_bytes(), 0o600)?;
    durable::replace(&dir.join("certificate.pem"), pem.certificate.as_bytes(), 0o600)?;
    durable::replace(&dir.join("made.json"), &serde_json::to_vec(made)?, 0o600)
}
