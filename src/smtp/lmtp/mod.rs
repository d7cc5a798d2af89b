//! LMTP client: the way to the mailboxes.
//!
//! Owns: connections and their reuse (`pool`); the protocol is in `smtp::client`. Called by: `smtp::delivery`, `smtp::runner`.
//! Never: decides what becomes of a recipient that was not taken.
//! Spec: RFC 2033 (LMTP), RFC 2920 (PIPELINING), RFC 3030 (CHUNKING).

pub mod pool;

#[cfg(test)]
mod tests;

pub use pool::{Fate, Pool};
