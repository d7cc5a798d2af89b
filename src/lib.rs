//! fife: the rooms of the house, lowest floor first.
//!
//! Owns: the list of rooms. Called by: `src/main.rs`, `tests/`, `benches/`, `fuzz/`.
//!
//! Rules of the house (held by `tests/site/house.rs`):
//! - a room imports only rooms on its own floor or below (roles: only below);
//! - no role imports another role: roles meet over standard protocols;
//! - protocol rooms (`session`, codecs, formats) never open a socket or a file
//!   and never read the clock: time is an argument;
//! - one room reads the clock: `base::clock`.

#![cfg_attr(fuzzing, expect(dead_code, unused_imports, reason = "of the tests only their worlds are used"))]

// floor 0: what everyone stands on
pub mod base;
// floor 1: the one TOML, and the log under everything durable
pub mod config;
pub mod ledger;
// floor 2: sockets, TLS, handover from the supervisor, metrics; the appliance's own disk
pub mod appliance;
pub mod net;
// floor 3: who is this user; what is in this message
pub mod directory;
pub mod message;
// floor 4: roles
pub mod backup_to_tape;
pub mod ldap_proxy;
pub mod pop_imap;
pub mod smtp;
// floor 5: processes
pub mod supervisor;
// floor 6: commands
pub mod cli;
// above all: hostile input for each of them (tests and fuzzing only)
#[cfg_attr(not(fuzzing), cfg(test))]
pub mod fuzz;
