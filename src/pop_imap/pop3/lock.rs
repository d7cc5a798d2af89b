//! One POP3 session a maildrop.
//!
//! Owns: `Maildrops`, the accounts that have one open. Called by: `pop3::serve`. Never: keeps IMAP or LMTP out: a session
//! works on a snapshot, which others may empty (RETR then answers that the message is gone) but not change.
//! Spec: RFC 1939 section 4 (exclusive access), RFC 2449 section 8.1.2 (IN-USE).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Account ids with an open maildrop.
#[derive(Debug, Clone, Default)]
pub struct Maildrops(Arc<Mutex<HashSet<[u8; 16]>>>);

/// Holds a maildrop; lets it go when dropped.
#[derive(Debug)]
pub(super) struct Held {
    maildrops: Maildrops,
    account: [u8; 16],
}

impl Maildrops {
    /// Takes a maildrop; none when another session has it.
    pub(super) fn take(&self, account: [u8; 16]) -> Option<Held> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(account).then(|| Held { maildrops: self.clone(), account })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.maildrops.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.account);
    }
}
