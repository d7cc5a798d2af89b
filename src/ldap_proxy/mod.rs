//! ldap-proxy: the directory door.
//!
//! Owns: the LDAP server and the embedded directory behind it. Called by: `fife role ldap-proxy`.
//! Never: knows what mail is; it knows entries, and how the site's entries go together.
//! What the directory holds: `docs/directory.md`.
//!
//! - `serve`: sockets and deadlines; `frame`, `session`: the protocol, no I/O;
//! - `access`: who may what; `engine`: does what was decided;
//! - `schema`, `dn`, `entry`, `filter`, `change`, `rules`: what entries are and how they change;
//! - `search`, `plan`, `view`: how they are found; `record`, `writer`, `compaction`: how they are kept; `load`: the view made anew;
//! - `password`, `hasher`: password hashes; `failures`: how often they were guessed at;
//! - `snapshot`: all of it as LDIF, to be backed up;
//! - `publish`: root DSE and schema; `metrics`: counters.

mod access;
mod change;
mod compaction;
mod dn;
mod engine;
mod entry;
mod failures;
mod filter;
mod frame;
mod hasher;
mod load;
mod metrics;
mod password;
mod plan;
mod publish;
mod record;
mod refusal;
mod rules;
mod schema;
mod search;
mod serve;
mod session;
mod snapshot;
mod view;
mod writer;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub use serve::{LdapProxyError, serve};
