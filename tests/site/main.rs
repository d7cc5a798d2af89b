//! The built binary, driven from outside by programs that nobody here wrote.
//!
//! Owns: one test binary for everything that needs a running site or looks at the
//! source tree. Called by: `cargo test`. Never: reaches into a role's rooms.

#![allow(unreachable_pub, reason = "the modules of a test binary are nobody else's")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a fault in a test's own set-up ends the test; a dialogue is as long as it is"
)]

mod appliance;
mod authentication;
mod backup;
mod bombs;
mod bounds;
mod clock;
mod config;
mod disk;
mod dns;
#[allow(dead_code, reason = "each helper serves some of the modules")]
mod harness;
mod hostile;
mod hosts;
mod house;
mod imap;
mod ldap;
mod ledger;
mod lmtp;
mod mail;
mod neighbours;
mod network;
mod outbound;
mod pop3;
mod queue;
mod readers;
mod sandbox;
mod smtp;
mod snapshot;
mod supervisor;
mod throttle;
