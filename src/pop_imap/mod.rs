//! The pop-imap role: mailboxes.

pub mod store;
