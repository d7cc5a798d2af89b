//! Sockets, TLS, handover, limits, metrics, logging: what is common to all services.
//!
//! Owns: what a role process is given by the supervisor (`Handover`), the streams that sessions
//! speak over, the accept loop, TLS, DNS, `/metrics` and `/health`, log lines, the sandbox.
//! Called by: roles, the supervisor, commands. Never: knows a mail protocol, or opens a
//! listening socket (the supervisor binds; roles are handed what it bound).

mod accept;
pub mod dns;
pub mod handover;
pub mod http;
pub mod identity;
mod limits;
mod listener;
pub mod log;
pub mod metrics;
mod pace;
mod peer;
pub mod sandbox;
mod shutdown;
pub mod site;
pub mod snapshot;
mod stream;
pub mod tls;

#[cfg(test)]
mod tests;

pub use accept::accept_loop;
pub use handover::Handover;
pub use limits::{Limits, Permit};
pub use listener::Listener;
pub use metrics::Health;
pub use pace::{OCTETS_PER_SEC_MIN, Pace};
pub use peer::Peer;
pub use shutdown::{Shutdown, Stopper};
pub use stream::Stream;
