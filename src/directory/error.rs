//! What can go wrong with the directory, by whose fault it is.
//!
//! Owns: `DirectoryError` (the server or the way to it), `AuthError` (a login), `AdminError` (a change).

use std::time::Duration;

use super::dkim::KeyError;

/// The directory gave no usable answer. Always temporary: callers answer 451, `[UNAVAILABLE]`, `-ERR [SYS/TEMP]`.
///
/// Cheap to clone, so that one failure can be told to several who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    #[error("the directory is not reachable: {reason}")]
    Unreachable { reason: String },
    #[error("the directory did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The server answered, with an error that is not about what was asked (busy, unavailable, not allowed to search).
    #[error("the directory refused the request: LDAP result {code}, {text:?}")]
    Refused { code: u32, text: String },
    /// The server sent something that is not LDAP, or not what was asked for.
    #[error("the directory sent something unusable: {0}")]
    Malformed(&'static str),
    /// An alias leads through more levels or to more addresses than are followed.
    #[error("the alias {address} leads through more than {depth_max} levels or to more than {targets_max} addresses")]
    AliasTooLarge { address: String, depth_max: usize, targets_max: usize },
}

/// Why a login was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No such user or wrong password; the two must not be told apart.
    #[error("user name or password is wrong")]
    Refused,
    /// The password is right, the account may not log in.
    #[error("the account is suspended")]
    Suspended,
    /// Too many logins have failed there lately: the password was not looked at. Temporary.
    #[error("too many failed logins")]
    TooManyFailures,
    #[error(transparent)]
    Unavailable(#[from] DirectoryError),
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    #[error("{0} already exists")]
    Exists(String),
    #[error("{0} does not exist")]
    NotFound(String),
    /// The server understood and would not: against the schema, address taken, domain not empty.
    #[error("the directory refused the change: {text} (LDAP result {code})")]
    Rejected { code: u32, text: String },
    /// The first administrator's password could not be kept, so the administrator was not made.
    #[error("cannot keep the first administrator's password: {0}")]
    Keep(String),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}
