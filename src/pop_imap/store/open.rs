//! A mailbox in memory, shared by all sessions that have it open.
//!
//! Owns: `OpenMailbox`: its present view, and the wake-up of those who watch it. Called by: IMAP, POP3 (read);
//! the store (publishes new views). Never: touches a disk.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::view::View;
use super::{AccountId, MailboxId};

/// A mailbox that someone has open. Dropped with its last `Arc`.
#[derive(Debug)]
pub struct OpenMailbox {
    id: MailboxId,
    account: AccountId,
    uid_validity: u32,
    view: Mutex<Arc<View>>,
    changes: watch::Sender<u64>,
}

impl OpenMailbox {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> MailboxId {
        self.id
    }

    /// The account that it belongs to.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// UIDVALIDITY; never changes while it is open.
    #[must_use]
    pub fn uid_validity(&self) -> u32 {
        self.uid_validity
    }

    /// What it holds now. Later changes make a new view; this one stays as it is.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes when there is a new view; the value is its highest modseq. `u64::MAX`: the mailbox was deleted.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the mailbox was deleted while it was open.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        *self.changes.borrow() == u64::MAX
    }
}
