//! Mailboxes as a whole: listing, making, renaming, deleting, opening them.
//!
//! Owns: `MailboxInfo`, the operations on names and subscriptions. Called by: IMAP, POP3. Never: looks at a message.
//! Spec: RFC 9051 section 6.3 (CREATE to STATUS).

use std::sync::Arc;

use super::decide::Request;
use super::{AccountId, MailboxId, OpenMailbox, Outcome, SpecialUse, Store, StoreError, name};

/// A mailbox as LIST and STATUS show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxInfo {
    pub id: MailboxId,
    /// UTF-8, levels parted by `/`.
    pub name: String,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub highest_modseq: u64,
    pub subscribed: bool,
    pub special_use: Option<SpecialUse>,
    pub has_children: bool,
    pub messages: u32,
    pub unseen: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Always 0: RFC 9051 has removed `\Recent`.
    pub recent: u32,
    /// Octets of all messages (STATUS SIZE, RFC 8438; POP3 STAT).
    pub size: u64,
}

impl Store {
    /// All mailboxes of an account, sorted by name, INBOX first. An account that is not known yet comes into being.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxInfo>, StoreError> {
        let mailboxes = self.read(move |reading| reading.mailboxes(&account)).await?;
        if !mailboxes.is_empty() {
            return Ok(mailboxes);
        }
        self.ask(Request::Ensure(account), 0).await?;
        self.read(move |reading| reading.mailboxes(&account)).await
    }

    /// One mailbox (STATUS).
    ///
    /// # Errors
    /// `NoSuchMailbox`, or when the view cannot be read.
    pub async fn mailbox(&self, account: AccountId, name: &str) -> Result<MailboxInfo, StoreError> {
        let name = name::canonical(name)?;
        let wanted = name.clone();
        if let Some(info) = self.read(move |reading| reading.mailbox(&account, &wanted)).await? {
            return Ok(info);
        }
        self.ask(Request::Ensure(account), 0).await?;
        let info = self.read(move |reading| reading.mailbox(&account, &name)).await?;
        info.ok_or(StoreError::NoSuchMailbox)
    }

    /// Subscribed names (LSUB); some may be no mailboxes (RFC 9051 section 6.3.7).
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn subscriptions(&self, account: AccountId) -> Result<Vec<String>, StoreError> {
        self.read(move |reading| reading.subscriptions(&account)).await
    }

    /// Makes a mailbox, and those above it that do not exist (RFC 9051 section 6.3.4).
    ///
    /// # Errors
    /// `MailboxExists`, `Name`, `Limit`, `Full`.
    pub async fn create(
        &self,
        account: AccountId,
        name: &str,
        special_use: Option<SpecialUse>,
    ) -> Result<MailboxId, StoreError> {
        self.check_room()?;
        let Outcome::Created(id) = self.ask(Request::Create(account, name.to_owned(), special_use), name.len()).await?
        else {
            return Err(StoreError::Closed);
        };
        Ok(id)
    }

    /// Deletes a mailbox with its messages; its children stay (RFC 9051 section 6.3.5).
    ///
    /// # Errors
    /// `NoSuchMailbox`; `Refused` for INBOX.
    pub async fn delete(&self, account: AccountId, name: &str) -> Result<(), StoreError> {
        self.ask(Request::Delete(account, name.to_owned()), name.len()).await.map(drop)
    }

    /// Renames a mailbox and its children. INBOX stays, its messages move to the new name (RFC 9051 section 6.3.6).
    ///
    /// # Errors
    /// `NoSuchMailbox`, `MailboxExists`, `Name`, `Refused` (into itself), `Limit`.
    pub async fn rename(&self, account: AccountId, from: &str, to: &str) -> Result<(), StoreError> {
        let request = Request::Rename(account, from.to_owned(), to.to_owned());
        self.ask(request, from.len() + to.len()).await.map(drop)
    }

    /// Puts a name on the list of subscriptions or takes it off.
    ///
    /// # Errors
    /// `Name`, `Limit`, or when the ledger cannot be written.
    pub async fn subscribe(&self, account: AccountId, name: &str, subscribed: bool) -> Result<(), StoreError> {
        self.ask(Request::Subscribe(account, name.to_owned(), subscribed), name.len()).await.map(drop)
    }

    /// Opens a mailbox: in memory, shared by all who have it open.
    ///
    /// # Errors
    /// `NoSuchMailbox`, or when the view cannot be read.
    pub async fn select(&self, account: AccountId, name: &str) -> Result<Arc<OpenMailbox>, StoreError> {
        let name = name::canonical(name)?;
        if let Some(mailbox) = self.open_mailbox(account, name.clone()).await? {
            return Ok(mailbox);
        }
        self.ask(Request::Ensure(account), 0).await?;
        self.open_mailbox(account, name).await?.ok_or(StoreError::NoSuchMailbox)
    }

    async fn open_mailbox(&self, account: AccountId, name: String) -> Result<Option<Arc<OpenMailbox>>, StoreError> {
        let registry = Arc::clone(&self.inner.registry);
        self.read(move |reading| registry.open(&reading.readers, account, &name)).await
    }
}
