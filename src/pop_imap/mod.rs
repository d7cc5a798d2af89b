//! The pop-imap role: mailboxes.
//!
//! Owns: the list of its rooms. Called by: `main.rs` through `serve`.
//!
//! - `serve`: takes what the supervisor handed over, opens store and directory, runs the listeners; `context`: what every session shares;
//! - `lmtp`: mail comes in; `imap`, `pop3`: it is read; each with `session` (no I/O) and `serve` (sockets);
//! - `line`, `wire`: command lines and connections of LMTP and POP3; `room`: what APPEND may hold in memory; `metrics`: counters;
//! - `store`: the mailboxes themselves; `snapshot`: all of them as a stream, to be backed up.

pub mod context;
pub mod imap;
pub mod lmtp;
pub mod metrics;
pub mod pop3;
mod room;
pub mod serve;
mod snapshot;
pub mod store;

mod line;
mod wire;
