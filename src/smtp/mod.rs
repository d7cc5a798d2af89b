//! The smtp role: mail from other servers and from users, handed on to the mailboxes.
//!
//! Owns: the plan of the role. Called by: `fife role smtp`. Never: imports another role; mailboxes are reached by LMTP.
//!
//! - `session` decides what is said, on `line`, `command`, `sasl`, `extension`, `reply`; makes an `envelope` and a message, with
//!   `header` and `trace`. None of them does I/O.

pub mod command;
pub mod envelope;
pub mod extension;
pub mod header;
pub mod line;
pub mod reply;
pub mod sasl;
pub mod session;
pub mod trace;
