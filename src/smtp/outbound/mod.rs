//! Mail that leaves for other sites.
//!
//! Owns: the plan of the room. Called by: `smtp::runner` (sessions), the queue (`route`).
//!
//! - `route`: which way mail for a domain goes, by settings;
//! - `exchanger`: which hosts take mail for a domain, by DNS;
//! - `dial`: a connection to the first of them that answers as it should;
//! - `session`: messages over that connection, one after the other;
//! - `seven_bit`: messages for servers that do not take 8-bit text.

pub(super) mod dial;
pub mod exchanger;
pub mod route;
pub(super) mod session;
pub mod seven_bit;

#[cfg(test)]
mod tests;
