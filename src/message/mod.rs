//! What a message is made of, for the roles that carry, show, file and search mail.
//!
//! Owns: message text on the wire (`dot`), header blocks and fields (`header`), addresses as IMAP envelopes have
//! them (`address`), MIME header fields (`mime`), structure and envelope (`structure`), the compact byte coding in which derived facts
//! are kept (`pack`), mailboxes in a backup (`snapshot`). Called by: roles. Never: does I/O, knows of a role, trusts a length, recurses without bound.
//! Spec: RFC 5322 (messages), RFC 2045 to 2047 and 2231 (MIME), RFC 9051 section 7.5.2 (what IMAP wants of both).

pub mod address;
pub mod dot;
pub mod header;
pub mod mime;
pub mod pack;
pub mod snapshot;
pub mod structure;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
