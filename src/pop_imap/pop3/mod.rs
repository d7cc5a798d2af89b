//! POP3: mail is read, and taken away.
//!
//! Owns: the protocol (`session`), its commands (`command`), the snapshot it works on (`maildrop`), one session a
//! maildrop (`lock`), sockets (`serve`). Called by: `pop_imap::serve`.
//! Spec: RFC 1939; RFC 2449 (CAPA), 2595 (STLS), 3206 (AUTH and SYS response codes), 5034 (AUTH), 6856 (UTF8).

mod command;
pub mod lock;
pub mod maildrop;
pub mod serve;
pub mod session;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg_attr(not(fuzzing), cfg(test))]
mod tests;
