//! Ids, sizes, durations, mail addresses, durable file writes, the clock.
//!
//! Owns: the small types that every floor speaks in. Called by: everyone.
//! Never: knows of roles, configuration tables or sockets.

pub mod address;
pub mod clock;
pub mod durable;
pub mod duration;
pub mod id;
pub mod size;

#[cfg(test)]
mod tests;
