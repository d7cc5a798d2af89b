//! IMAP4rev1: people read their mail.
//!
//! Owns: the IMAP side of the role. Called by: `pop_imap::serve`, one `serve::session` a connection. Never: knows LMTP or POP3.
//! Spec: RFC 3501; what else is spoken is announced in `session`'s capabilities.
//!
//! From the wire inwards, each room tested alone:
//! - `frame`: bytes to whole commands, within bounds; `command` (with `cursor`, `list`, `search`, `set`, `name`, `section`): commands to what is asked;
//! - `session`: what is allowed in which state; `selected`: how one session numbers a mailbox's messages;
//! - `run`: carries out what is asked; `write`, `envelope`, `structure`: responses; `out`: the bounded way to the client;
//! - `serve`: the connection.

pub mod command;
pub mod cursor;
mod envelope;
pub mod frame;
pub mod list;
pub mod name;
mod out;
mod run;
pub mod search;
pub mod section;
pub mod selected;
pub(super) mod serve;
pub mod session;
pub mod set;
pub mod status;
mod structure;
mod write;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
