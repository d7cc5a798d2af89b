//! LMTP: mail comes into the mailboxes.
//!
//! Owns: the protocol (`session`), trace headers (`trace`), what can be known again (`repeat`), sockets (`serve`). Called by: `pop_imap::serve`.
//! Spec: RFC 2033, with RFC 5321 for everything that it does not change; RFC 1870 (SIZE), 2034 (ENHANCEDSTATUSCODES),
//! 2920 (PIPELINING), 3030 (CHUNKING), 6152 (8BITMIME), 6531 (SMTPUTF8).

mod repeat;
pub mod serve;
pub mod session;
mod trace;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg_attr(not(fuzzing), cfg(test))]
mod tests;
