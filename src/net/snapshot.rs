//! What a role gives to be backed up: a tar stream, from the process that owns the data to the one that puts it on tape.
//!
//! - `archive`: the members of the stream; `spool`: what is kept on disk meanwhile; `serve`: giving it over HTTP; `fetch`: taking it.
//!
//! Called by: roles (give), backup-to-tape (takes). Never: knows what is in the stream; keeps more than some megabytes of it.
//!
//! `GET /snapshot` on the role's socket of service `backup` gives all, `GET /snapshot?since=TOKEN` what has changed since the snapshot that named
//! this token. The answer is 200 with a pax tar whose first member, `.fife/snapshot.json`, is a [`Head`]; or 410 when the role cannot go on from the
//! token, and a full one is to be made; 403 to strangers; 503 while too many are being given.
//!
//! Invariant: a stream that is not whole has no last chunk (RFC 9112 section 7.1) and no end-of-archive blocks. Both are written
//! only when the role has said that it gave everything.
//!
//! Spec: RFC 9112 (HTTP/1.1), POSIX.1-2001 (pax interchange format).

pub mod archive;
mod fetch;
mod serve;
mod spool;

#[cfg(test)]
mod tests;

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::archive::Archive;
pub use self::fetch::{FetchError, Snapshot, fetch};
pub use self::serve::{Give, Outlet, serve};
pub use self::spool::Spool;

/// Service name of the sockets on which roles give snapshots.
pub const SERVICE: &str = "backup";
/// Octets of a token, at most.
pub const TOKEN_LEN_MAX: usize = 200;
/// Path of the first member.
pub const HEAD_PATH: &str = ".fife/snapshot.json";

/// What a stream says of itself, first of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The role.
    pub source: String,
    /// Full name of the host.
    pub host: String,
    /// The moment that it shows: RFC 3339, UTC.
    pub time: String,
    /// The token it goes on from; none: it is full.
    pub since: Option<String>,
    /// To be asked with for what has changed after this one.
    pub next: String,
}

impl Head {
    /// `time`: seconds since 1970.
    #[must_use]
    pub fn new(source: &str, host: &str, since: Option<&str>, next: &str, time: u64) -> Self {
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time)).to_string();
        let (source, host, since) = (source.to_owned(), host.to_owned(), since.map(str::to_owned));
        Self { source, host, time, since, next: next.to_owned() }
    }
}

/// Why a role did not give its snapshot to the end.
#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    /// Nothing can be told since that token: a full snapshot has to be made.
    #[error("the token is not one that can be gone on from")]
    Gone,
    /// The reader has gone, or the role is to stop.
    #[error("not taken to the end: {0}")]
    Cut(#[from] std::io::Error),
    /// The role cannot read what it has; says why.
    #[error("{0}")]
    Source(String),
}

/// Whether it can be a token: unreserved characters of a URI (RFC 3986 section 2.3), which need no escapes.
#[must_use]
pub fn is_token(text: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !text.is_empty() && text.len() <= TOKEN_LEN_MAX && text.bytes().all(unreserved)
}
