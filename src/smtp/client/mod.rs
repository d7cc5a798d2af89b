//! Client of SMTP and LMTP servers.
//!
//! Owns: the protocol (`session`), the socket around it (`connection`). Called by: `smtp::lmtp` (the mailboxes), `smtp::outbound` (other sites).
//! Never: decides what becomes of a recipient that was not taken, nor which server is asked.

pub mod connection;
pub mod session;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Lost, Timeouts};
pub use session::{Begin, Client, Credentials, Dialect, Target, Wishes};
