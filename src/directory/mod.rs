//! Who is this user: the typed LDAP client of the roles.
//!
//! Owns: the vocabulary of the directory, the connections to it, what is remembered of it for
//! seconds. Called by: smtp (recipients, AUTH), pop-imap (LMTP recipients, logins), web, the
//! commands and the supervisor (first domain and administrator).
//! Never: knows which server answers; fife's own ldap-proxy and OpenLDAP are the same to it.
//! Spec: RFC 4511 (protocol), RFC 4515 (filters), RFC 4514 (names), inetOrgPerson (RFC 2798),
//! qmail-ldap's schema. What an entry holds: `docs/directory.md`.
//!
//! - `account`: what a role learns;
//! - `client`: `Directory`, the questions;
//! - `dkim`: the keys of a domain, made, written and read;
//! - `admin`: the changes that commands make; `bootstrap`: the first of them;
//! - `frame`: what is safe to be parsed; `relay`: nothing else reaches the client;
//! - `connection`, `tls`, `entry`, `cache`, `remembered`: the plumbing.

mod account;
pub mod admin;
mod bootstrap;
mod cache;
mod client;
mod connection;
pub mod dkim;
mod entry;
mod error;
pub mod frame;
mod relay;
mod remembered;
mod tls;
pub mod vocabulary;

#[cfg(test)]
mod tests;

pub use account::{Account, AccountStatus, Expansion, Forwarding, Recipient};
pub use bootstrap::bootstrap;
pub use client::Directory;
pub use error::{AdminError, AuthError, DirectoryError};
