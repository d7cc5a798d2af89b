//! Password hashes: made, brought in, verified.
//!
//! Owns: the schemes of `userPassword`. Called by: `hasher` (on threads of its own: a hash costs milliseconds and
//! megabytes), `change` (what may be brought in). Never: logs a password or a hash.
//! Spec: RFC 2307 section 5.3 (`{SCHEME}`), RFC 9106 (Argon2), the crypt strings `$6$`, `$5$`, `$2b$`.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest;
use subtle::ConstantTimeEq;

/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;
const ARGON2_LANES: u32 = 1;
/// What a hash that is brought in may cost, so that nobody's login stops the server.
const ARGON2_MEMORY_KIB_MAX: u32 = 128 * 1024;
const ARGON2_PASSES_MAX: u32 = 10;
const ARGON2_LANES_MAX: u32 = 16;
const BCRYPT_COST_MAX: u32 = 14;
const SHA_CRYPT_ROUNDS_MAX: u32 = 1_000_000;
/// Octets of a password, at most.
pub(super) const PASSWORD_LEN_MAX: usize = 1024;
/// Octets of a hash, at most.
const HASH_LEN_MAX: usize = 512;

/// Why a hash cannot be brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PasswordError {
    #[error(
        "unknown password scheme; known are {{ARGON2}}, {{CRYPT}} ($argon2id$, $6$, $5$, $2b$, $2y$), {{SSHA}}, {{SSHA512}}, {{MD5}}"
    )]
    Scheme,
    #[error("the password hash is malformed")]
    Malformed,
    #[error("verifying this password hash would cost too much")]
    TooCostly,
    #[error("a password has 1 to {PASSWORD_LEN_MAX} octets")]
    Length,
    #[error("the password could not be hashed")]
    Hashing,
}

/// What a value of `userPassword` that a client sends is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A password to be hashed.
    Clear,
    /// A hash to be kept as it is.
    Hashed,
}

/// Tells a hash from a password, and whether the hash is one that can be verified.
pub(super) fn examine(value: &[u8]) -> Result<Given, PasswordError> {
    let Some((scheme, rest)) = std::str::from_utf8(value).ok().and_then(split_scheme) else {
        let fits = !value.is_empty() && value.len() <= PASSWORD_LEN_MAX;
        return if fits { Ok(Given::Clear) } else { Err(PasswordError::Length) };
    };
    if value.len() > HASH_LEN_MAX {
        return Err(PasswordError::Malformed);
    }
    match scheme.as_str() {
        "ARGON2" => examine_argon2(rest)?,
        "CRYPT" => examine_crypt(rest)?,
        "SSHA" => drop(salted(rest, 20)?),
        "SSHA512" => drop(salted(rest, 64)?),
        "MD5" => drop(unsalted(rest, 16)?),
        _ => return Err(PasswordError::Scheme),
    }
    Ok(Given::Hashed)
}

/// A new hash: `{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$…`, the form of OpenLDAP's argon2 module.
pub(super) fn hash(password: &[u8]) -> Result<String, PasswordError> {
    if password.is_empty() || password.len() > PASSWORD_LEN_MAX {
        return Err(PasswordError::Length);
    }
    let hash = argon2()?.hash_password(password).map_err(|_| PasswordError::Hashing)?;
    Ok(format!("{{ARGON2}}{hash}"))
}

/// Whether the hash is as `hash` makes them: verifying it takes the usual time, and there is nothing to improve.
pub(super) fn is_current(stored: &[u8]) -> bool {
    let Some((scheme, rest)) = std::str::from_utf8(stored).ok().and_then(split_scheme) else {
        return false;
    };
    scheme == "ARGON2"
        && rest.starts_with("$argon2id$")
        && PasswordHash::new(rest).ok().and_then(|parsed| Params::try_from(&parsed).ok()).is_some_and(|params| {
            params.m_cost() >= ARGON2_MEMORY_KIB && params.t_cost() >= ARGON2_PASSES && params.p_cost() >= ARGON2_LANES
        })
}

/// Whether the password is the one behind the hash. A hash that cannot be verified is nobody's.
pub(super) fn verify(password: &[u8], stored: &[u8]) -> bool {
    if password.is_empty() || password.len() > PASSWORD_LEN_MAX {
        return false;
    }
    let Some((scheme, rest)) = std::str::from_utf8(stored).ok().and_then(split_scheme) else {
        return false;
    };
    match scheme.as_str() {
        "ARGON2" => verify_argon2(password, rest),
        "CRYPT" => verify_crypt(password, rest),
        "SSHA" => salted(rest, 20).is_ok_and(|(digest, salt)| {
            same(&digest, &sha1::Sha1::new().chain_update(password).chain_update(salt).finalize())
        }),
        "SSHA512" => salted(rest, 64).is_ok_and(|(digest, salt)| {
            same(&digest, &sha2::Sha512::new().chain_update(password).chain_update(salt).finalize())
        }),
        "MD5" => unsalted(rest, 16).is_ok_and(|digest| same(&digest, &md5::Md5::digest(password))),
        _ => false,
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params =
        Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, None).map_err(|_| PasswordError::Hashing)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// `{SCHEME}rest`; the scheme in upper case.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.strip_prefix('{')?.split_once('}')?;
    let good = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "-./_".contains(c));
    good.then(|| (scheme.to_ascii_uppercase(), rest))
}

fn examine_argon2(hash: &str) -> Result<(), PasswordError> {
    let parsed = PasswordHash::new(hash).map_err(|_| PasswordError::Malformed)?;
    let params = Params::try_from(&parsed).map_err(|_| PasswordError::Malformed)?;
    if parsed.hash.is_none() || parsed.salt.is_none() {
        return Err(PasswordError::Malformed);
    }
    let affordable = params.m_cost() <= ARGON2_MEMORY_KIB_MAX
        && params.t_cost() <= ARGON2_PASSES_MAX
        && params.p_cost() <= ARGON2_LANES_MAX;
    if affordable { Ok(()) } else { Err(PasswordError::TooCostly) }
}

fn verify_argon2(password: &[u8], hash: &str) -> bool {
    examine_argon2(hash).is_ok()
        && PasswordHash::new(hash).is_ok_and(|parsed| Argon2::default().verify_password(password, &parsed).is_ok())
}

fn examine_crypt(hash: &str) -> Result<(), PasswordError> {
    if hash.starts_with("$argon2") {
        return examine_argon2(hash);
    }
    if is_bcrypt(hash) {
        let parts = hash.parse::<bcrypt::HashParts>().map_err(|_| PasswordError::Malformed)?;
        return if parts.get_cost() <= BCRYPT_COST_MAX { Ok(()) } else { Err(PasswordError::TooCostly) };
    }
    if !is_sha_crypt(hash) {
        return Err(PasswordError::Scheme);
    }
    let mut fields = hash.split('$').skip(2).peekable();
    if let Some(rounds) = fields.peek().and_then(|field| field.strip_prefix("rounds=")) {
        let rounds: u32 = rounds.parse().map_err(|_| PasswordError::Malformed)?;
        if rounds > SHA_CRYPT_ROUNDS_MAX {
            return Err(PasswordError::TooCostly);
        }
        fields.next();
    }
    let digest_len = if hash.starts_with("$6$") { 86 } else { 43 };
    let salt = fields.next().ok_or(PasswordError::Malformed)?;
    let digest = fields.next().ok_or(PasswordError::Malformed)?;
    let good = salt.len() <= 16 && digest.len() == digest_len && fields.next().is_none();
    if good { Ok(()) } else { Err(PasswordError::Malformed) }
}

fn verify_crypt(password: &[u8], hash: &str) -> bool {
    if examine_crypt(hash).is_err() {
        return false;
    }
    if hash.starts_with("$argon2") {
        return verify_argon2(password, hash);
    }
    if is_bcrypt(hash) {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    sha_crypt::ShaCrypt::default().verify_password(password, hash).is_ok()
}

fn is_bcrypt(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix))
}

fn is_sha_crypt(hash: &str) -> bool {
    hash.starts_with("$6$") || hash.starts_with("$5$")
}

/// Digest and salt out of `base64(digest salt)`.
fn salted(text: &str, digest_len: usize) -> Result<(Vec<u8>, Vec<u8>), PasswordError> {
    let mut digest = STANDARD.decode(text).map_err(|_| PasswordError::Malformed)?;
    if digest.len() <= digest_len {
        return Err(PasswordError::Malformed);
    }
    let salt = digest.split_off(digest_len);
    Ok((digest, salt))
}

fn unsalted(text: &str, digest_len: usize) -> Result<Vec<u8>, PasswordError> {
    let digest = STANDARD.decode(text).map_err(|_| PasswordError::Malformed)?;
    if digest.len() == digest_len { Ok(digest) } else { Err(PasswordError::Malformed) }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
