//! The smtp role: mail from other servers and from users, handed on to the mailboxes.
//!
//! Owns: the plan of the role. Called by: `fife role smtp`. Never: imports another role; mailboxes are reached by LMTP.
//!
//! - `session` decides what is said, on `line`, `command`, `sasl`, `extension`, `reply`; makes an `envelope` and a message, with
//!   `header` and `trace`. None of them does I/O.
//! - `conversation` is the socket around a session; `recipients` asks the directory.
//! - `authentication` signs what users send, and checks what other servers bring.
//! - `delivery` hands a message to the mailboxes while its sender waits, by `lmtp`; what cannot be handed over, and what is for other sites, goes into
//!   the `queue`, out of which the `runner` has it delivered, by `lmtp` or by `outbound`, both on `client`; `settling` notes how it ended; what nobody
//!   will take goes back by `bounce`. The `desk` is where an administrator looks at the queue, the `snapshot` what of it
//!   is backed up.
//! - `serve` wires it all together, `context` is what its tasks share, `metrics` what they count.

pub mod authentication;
mod bounce;
pub mod client;
pub mod command;
mod context;
mod conversation;
mod delivery;
pub mod desk;
pub mod envelope;
pub mod extension;
pub mod header;
pub mod line;
pub mod lmtp;
mod metrics;
pub mod outbound;
pub mod queue;
mod recipients;
pub mod reply;
mod runner;
pub mod sasl;
mod serve;
pub mod session;
mod settling;
mod snapshot;
pub mod trace;
pub mod xtext;

pub use serve::{SmtpError, serve};
