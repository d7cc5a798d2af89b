//! The DKIM keys of a domain, as data of the domain: made, written into the directory, read again.
//!
//! Owns: `DomainKey`, its form as a value of `fifeDkimKey`, the record that is published for it, and what `rotate`, `activate` and
//! `remove` mean. Called by: `admin` (the domain's entry), `client` (smtp signs with them), `fife dkim`. Never: prints a private key.
//! Spec: RFC 6376 section 3.6.1 (record), RFC 8301 (key lengths), RFC 8463 (Ed25519).
//!
//! A value is `SELECTOR ALGORITHM STATE KEY`: algorithm `rsa` or `ed25519`; state `waiting`, `active` or `retired`; the key in base64, DER, RSA
//! as PKCS#1 and Ed25519 as PKCS#8, both of which `openssl pkey` reads.
//!
//! Keys live in pairs, one of each algorithm: who cannot verify Ed25519 yet verifies RSA (RFC 8463 section 3). A pair is born `waiting`
//! (published, not yet used), becomes `active` (signs), then `retired` (mail under way still needs its record), and is removed.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use mail_auth::common::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::common::to_a_label;
use mail_auth::dkim::generate::DkimKeyPair;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer};

use crate::base::address::Domain;
use crate::config::secret::SecretText;

/// RFC 8301 section 3.2: at least 1024, should be 2048.
const RSA_BITS: usize = 2048;
/// Keys of a domain, at most: who rotates more often than he removes is told.
pub const KEYS_MAX: usize = 12;
/// Octets of a character-string in a TXT record (RFC 1035 section 3.3).
const STRING_LEN_MAX: usize = 255;
/// A label of a domain name (RFC 1035 section 2.3.4).
const SELECTOR_LEN_MAX: usize = 63;

/// What signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rsa,
    Ed25519,
}

impl Algorithm {
    /// The word of the `k=` tag (RFC 6376 section 3.6.1, RFC 8463 section 4).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Both, in the order in which they are made and shown.
    const ALL: [Self; 2] = [Self::Rsa, Self::Ed25519];

    fn letter(self) -> char {
        match self {
            Self::Rsa => 'r',
            Self::Ed25519 => 'e',
        }
    }
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// To be published; does not sign yet.
    Waiting,
    /// Signs.
    Active,
    /// Signs no more; its record is still needed for mail under way.
    Retired,
}

impl KeyState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

/// What is wrong with keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not a DKIM key: {0}")]
    Malformed(&'static str),
    #[error("the key cannot be used: {0}")]
    Unusable(String),
    #[error("the key could not be made: {0}")]
    NotMade(String),
    #[error("keys are waiting already: activate or remove them first")]
    WaitingAlready,
    #[error("no keys are waiting: rotate first")]
    NoneWaiting,
    #[error("the domain has {KEYS_MAX} keys, as many as it may: remove retired ones first")]
    TooMany,
    #[error("no key has the selector {0}")]
    NoSuchSelector(String),
    #[error("{0} signs now: rotate and activate first")]
    InUse(String),
    #[error("nothing is retired")]
    NoneRetired,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainKey {
    pub selector: String,
    pub algorithm: Algorithm,
    pub state: KeyState,
    /// Base64 of the DER.
    private: SecretText,
}

impl DomainKey {
    /// The private key, DER.
    ///
    /// # Errors
    /// It is not base64.
    pub fn private_der(&self) -> Result<Vec<u8>, KeyError> {
        BASE64.decode(self.private.reveal()).map_err(|_| KeyError::Malformed("the key is not base64"))
    }

    /// The value of `p=`: RSA as SubjectPublicKeyInfo, which every verifier reads; Ed25519 as its 32 octets (RFC 8463 section 4).
    ///
    /// # Errors
    /// The private key is none.
    pub fn public(&self) -> Result<String, KeyError> {
        let der = self.private_der()?;
        let octets = match self.algorithm {
            Algorithm::Rsa => {
                let key = RsaKey::<Sha256>::from_key_der(PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)));
                subject_public_key_info(&key.map_err(unusable)?.public_key())
            }
            Algorithm::Ed25519 => Ed25519Key::from_pkcs8_der(&der).map_err(unusable)?.public_key(),
        };
        Ok(BASE64.encode(octets))
    }

    /// The text of the TXT record.
    ///
    /// # Errors
    /// The private key is none.
    pub fn record(&self) -> Result<String, KeyError> {
        Ok(format!("v=DKIM1; k={}; p={}", self.algorithm.as_str(), self.public()?))
    }

    /// Whether a published text is this key's record: the same algorithm and key, whatever else it says (RFC 6376 sections 3.2 and 3.6.1).
    ///
    /// # Errors
    /// The private key is none.
    pub fn is_published_as(&self, text: &str) -> Result<bool, KeyError> {
        let tag = |name: &str| {
            let tags = text.split(';').filter_map(|tag| tag.split_once('='));
            let mut values = tags.filter(|(key, _)| key.trim() == name).map(|(_, value)| value);
            values.next().map(|value| value.split_whitespace().collect::<String>())
        };
        let algorithm = tag("k").unwrap_or_else(|| Algorithm::Rsa.as_str().to_owned());
        let own = self.public()?;
        Ok(algorithm == self.algorithm.as_str() && tag("p").is_some_and(|key| key == own))
    }

    /// The name under which the record is published, in the form of the DNS.
    #[must_use]
    pub fn name(&self, domain: &Domain) -> String {
        format!("{}._domainkey.{}", self.selector, to_a_label(domain.as_str()))
    }

    /// The form in the directory. It is secret.
    #[must_use]
    pub(super) fn to_value(&self) -> String {
        format!("{} {} {} {}", self.selector, self.algorithm.as_str(), self.state.as_str(), self.private.reveal())
    }
}

fn unusable(error: impl fmt::Display) -> KeyError {
    KeyError::Unusable(error.to_string())
}

impl FromStr for DomainKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut words = text.split_ascii_whitespace();
        let mut word = |what| words.next().ok_or(KeyError::Malformed(what));
        let selector = word("no selector")?;
        if !is_selector(selector) {
            return Err(KeyError::Malformed("the selector is no label"));
        }
        let algorithm = match word("no algorithm")? {
            "rsa" => Algorithm::Rsa,
            "ed25519" => Algorithm::Ed25519,
            _ => return Err(KeyError::Malformed("the algorithm is not known")),
        };
        let state = match word("no state")? {
            "waiting" => KeyState::Waiting,
            "active" => KeyState::Active,
            "retired" => KeyState::Retired,
            _ => return Err(KeyError::Malformed("the state is not known")),
        };
        let private = SecretText::new(word("no key")?.to_owned());
        Ok(Self { selector: selector.to_owned(), algorithm, state, private })
    }
}

fn is_selector(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= SELECTOR_LEN_MAX && text.chars().all(good)
}

/// A pair of keys, made now: tens of milliseconds to seconds of computing. Their selectors are the date and a letter, and differ from those that are taken.
///
/// # Errors
/// There is no randomness to be had.
pub fn make_pair(taken: &[DomainKey], state: KeyState, unix_secs: u64) -> Result<Vec<DomainKey>, KeyError> {
    let stem = stem(taken, unix_secs);
    let made = |algorithm| {
        let pair = match algorithm {
            Algorithm::Rsa => DkimKeyPair::generate_rsa(RSA_BITS),
            Algorithm::Ed25519 => DkimKeyPair::generate_ed25519(),
        };
        let pair = pair.map_err(|error| KeyError::NotMade(error.to_string()))?;
        let selector = format!("{stem}{}", algorithm.letter());
        let private = SecretText::new(BASE64.encode(pair.private_key()));
        Ok(DomainKey { selector, algorithm, state, private })
    };
    Algorithm::ALL.into_iter().map(made).collect()
}

/// `20261124`, or `20261124-2` when there are keys of that day.
fn stem(taken: &[DomainKey], unix_secs: u64) -> String {
    let time = i64::try_from(unix_secs).ok().and_then(|secs| DateTime::from_timestamp(secs, 0)).unwrap_or_default();
    let day = time.format("%Y%m%d").to_string();
    let is_free = |stem: &String| {
        Algorithm::ALL.iter().all(|one| {
            let selector = format!("{stem}{}", one.letter());
            taken.iter().all(|key| key.selector != selector)
        })
    };
    let numbered = (2..).map(|number: u32| format!("{day}-{number}"));
    std::iter::once(day.clone()).chain(numbered).find(is_free).unwrap_or(day)
}

/// With a new pair beside the old keys: waiting, or active when there is none yet that signs.
///
/// # Errors
/// A pair is waiting already; there are too many keys.
pub fn rotated(mut keys: Vec<DomainKey>, unix_secs: u64) -> Result<Vec<DomainKey>, KeyError> {
    let has = |state| keys.iter().any(|key| key.state == state);
    if has(KeyState::Waiting) {
        return Err(KeyError::WaitingAlready);
    }
    if keys.len() + Algorithm::ALL.len() > KEYS_MAX {
        return Err(KeyError::TooMany);
    }
    let state = if has(KeyState::Active) { KeyState::Waiting } else { KeyState::Active };
    let pair = make_pair(&keys, state, unix_secs)?;
    keys.extend(pair);
    Ok(keys)
}

/// With what was waiting active, and what was active retired.
///
/// # Errors
/// Nothing is waiting.
pub fn activated(mut keys: Vec<DomainKey>) -> Result<Vec<DomainKey>, KeyError> {
    if !keys.iter().any(|key| key.state == KeyState::Waiting) {
        return Err(KeyError::NoneWaiting);
    }
    for key in &mut keys {
        key.state = match key.state {
            KeyState::Waiting => KeyState::Active,
            KeyState::Active | KeyState::Retired => KeyState::Retired,
        };
    }
    Ok(keys)
}

/// Without the key of this selector, or without all that are retired.
///
/// # Errors
/// There is no such key, or it signs.
pub fn removed(keys: Vec<DomainKey>, selector: Option<&str>) -> Result<Vec<DomainKey>, KeyError> {
    let goes = |key: &DomainKey| match selector {
        Some(selector) => key.selector == selector,
        None => key.state == KeyState::Retired,
    };
    let (gone, kept): (Vec<_>, Vec<_>) = keys.into_iter().partition(goes);
    if let Some(key) = gone.iter().find(|key| key.state == KeyState::Active) {
        return Err(KeyError::InUse(key.selector.clone()));
    }
    match selector {
        _ if !gone.is_empty() => Ok(kept),
        Some(selector) => Err(KeyError::NoSuchSelector(selector.to_owned())),
        None => Err(KeyError::NoneRetired),
    }
}

/// A TXT record in the form of a zone file (RFC 1035 section 5.1), in strings of at most 255 octets. The text must be ASCII without quotes.
#[must_use]
pub fn zone_line(name: &str, text: &str) -> String {
    let mut strings = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (string, more) = rest.split_at_checked(STRING_LEN_MAX).unwrap_or((rest, ""));
        strings.push(format!("\"{string}\""));
        rest = more;
    }
    match strings.as_slice() {
        [one] => format!("{name}. IN TXT {one}"),
        several => format!("{name}. IN TXT ( {} )", several.join("\n    ")),
    }
}

/// RFC 5280 section 4.1: the algorithm rsaEncryption (RFC 3279 section 2.3.1) and the RSAPublicKey as a bit string.
fn subject_public_key_info(rsa_public_key: &[u8]) -> Vec<u8> {
    const ALGORITHM: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    // The first octet of a bit string counts unused bits.
    let bits = der(BIT_STRING, &[&[0], rsa_public_key].concat());
    der(SEQUENCE, &[ALGORITHM, &bits].concat())
}

/// Tag, length, content (X.690 section 8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|octet| *octet == 0).collect();
    let mut out = vec![tag];
    match length.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        // At most eight octets of length.
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests;
