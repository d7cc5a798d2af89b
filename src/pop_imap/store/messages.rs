//! Messages in a mailbox that is open: flags, removal, copies, reading, search.
//!
//! Owns: the operations on UIDs and what they answer. Called by: IMAP, POP3. Never: asks for more at once than its bounds.
//! Spec: RFC 9051 section 6.4 (SEARCH to UID), RFC 4315 (COPYUID), RFC 7162 section 3.1.3 (MODIFIED).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::decide::Request;
use super::read::Reading;
use super::search::Needle;
use super::{AccountId, Flag, FlagChange, MailboxId, OpenMailbox, Outcome, Row, Store, StoreError};
use crate::message::structure::{Envelope, Structure};

/// UIDs of one change; callers with more call again (no IMAP command that changes is atomic over its messages).
pub const UIDS_PER_CHANGE_MAX: usize = 2_000;
/// UIDs of one question for envelopes or structures; callers with more call again and so stream their answer.
pub const UIDS_PER_READ_MAX: usize = 2_000;
/// UIDs that one blocking piece of a text search looks at.
const SEARCH_CHUNK: usize = 200;
/// Such pieces of one search that are looked at together: one searcher is not to have all processors.
const SEARCH_CHUNKS_AT_ONCE: usize = 2;

/// What COPY and MOVE did (COPYUID, RFC 4315 section 3). Messages that were gone already are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyUid {
    pub uid_validity: u32,
    /// As many as `target`, ascending.
    pub source: Vec<u32>,
    pub target: Vec<u32>,
}

/// What STORE did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagsSet {
    /// Messages left alone because they changed after `unchanged_since` (MODIFIED, RFC 7162 section 3.1.3).
    pub modified: Vec<u32>,
    /// The mailbox's highest modseq after the change.
    pub modseq: u64,
}

/// Where `search_text` looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// Decoded value of the header fields of this name. An empty needle finds all that have the field (RFC 9051 section 6.4.4).
    Header(String),
    /// Decoded text of the body.
    Body,
    /// Decoded header and body.
    Text,
}

impl Store {
    /// Changes flags of at most `UIDS_PER_CHANGE_MAX` messages; with `unchanged_since` only of those whose modseq is not above it.
    ///
    /// # Errors
    /// `NoSuchMailbox` when it was deleted meanwhile, `Limit` (keywords), or when the ledger cannot be written.
    pub async fn set_flags(
        &self,
        mailbox: &OpenMailbox,
        uids: &[u32],
        change: FlagChange,
        flags: &[Flag],
        unchanged_since: Option<u64>,
    ) -> Result<FlagsSet, StoreError> {
        check_uids(uids)?;
        let request =
            Request::Flags(mailbox.account(), mailbox.id(), change, flags.to_vec(), unchanged_since, uids.to_vec());
        let Outcome::Flags(set) = self.ask(request, uids.len() * 4).await? else { return Err(StoreError::Closed) };
        Ok(set)
    }

    /// Removes at most `UIDS_PER_CHANGE_MAX` messages, whatever their flags; those that are gone already do nothing.
    ///
    /// # Errors
    /// `NoSuchMailbox` when it was deleted meanwhile, or when the ledger cannot be written.
    pub async fn expunge(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<(), StoreError> {
        check_uids(uids)?;
        self.ask(Request::Expunge(mailbox.account(), mailbox.id(), uids.to_vec()), uids.len() * 4).await.map(drop)
    }

    /// Copies at most `UIDS_PER_CHANGE_MAX` messages with flags and dates to a mailbox of the same account, all or none.
    ///
    /// # Errors
    /// `NoSuchMailbox`, `Full`, `Limit`; `Refused` when `account` is not the mailbox's.
    pub async fn copy(
        &self,
        mailbox: &OpenMailbox,
        uids: &[u32],
        account: AccountId,
        target: &str,
    ) -> Result<CopyUid, StoreError> {
        self.copy_or_move(mailbox, uids, account, target, false).await
    }

    /// As `copy`, and expunges the originals in the same change.
    ///
    /// # Errors
    /// As `copy`.
    pub async fn move_(
        &self,
        mailbox: &OpenMailbox,
        uids: &[u32],
        account: AccountId,
        target: &str,
    ) -> Result<CopyUid, StoreError> {
        self.copy_or_move(mailbox, uids, account, target, true).await
    }

    async fn copy_or_move(
        &self,
        mailbox: &OpenMailbox,
        uids: &[u32],
        account: AccountId,
        target: &str,
        remove: bool,
    ) -> Result<CopyUid, StoreError> {
        check_uids(uids)?;
        if account != mailbox.account() {
            return Err(StoreError::Refused("Messages are copied within one account only"));
        }
        self.check_room()?;
        let request = Request::Copy(account, mailbox.id(), uids.to_vec(), target.to_owned(), remove);
        let Outcome::Copied(copied) = self.ask(request, uids.len() * 4).await? else { return Err(StoreError::Closed) };
        Ok(copied)
    }

    /// The exact bytes of a message: trace, then message. `None` when the mailbox does not have it (any more).
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub async fn message(&self, mailbox: &OpenMailbox, uid: u32) -> Result<Option<Bytes>, StoreError> {
        Ok(self.messages(mailbox, &[uid]).await?.pop().flatten())
    }

    /// As `message` for many: answers for as many of `uids`, from the first on, as fit `MESSAGES_READ_LEN_MAX` (at
    /// least one); call again for the rest. Much cheaper than one by one.
    ///
    /// # Errors
    /// When one cannot be read or is damaged.
    pub async fn messages(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.about(mailbox, uids, Reading::messages).await
    }

    /// Header blocks (trace, then the message's own, blank line included) of at most `UIDS_PER_READ_MAX` messages, in the order asked for.
    ///
    /// # Errors
    /// When one cannot be read or is damaged.
    pub async fn headers(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.about(mailbox, uids, Reading::headers).await
    }

    /// Envelopes of at most `UIDS_PER_READ_MAX` messages, in the order asked for; no message is read.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn envelopes(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<Vec<Option<Envelope>>, StoreError> {
        self.about(mailbox, uids, Reading::envelopes).await
    }

    /// Envelope and MIME structure of at most `UIDS_PER_READ_MAX` messages, in the order asked for; no message is read. Offsets are those of `message`.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn structures(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<Vec<Option<Structure>>, StoreError> {
        self.about(mailbox, uids, Reading::structures).await
    }

    /// Which of `uids` have `needle` where asked, without regard to letter case, charsets and transfer encodings decoded.
    ///
    /// # Errors
    /// When a message cannot be read.
    pub async fn search_text(
        &self,
        mailbox: &OpenMailbox,
        uids: &[u32],
        needle: &str,
        place: &Where,
    ) -> Result<Vec<u32>, StoreError> {
        let needle = Arc::new(Needle::new(needle));
        let piece = |chunk: &[u32]| {
            let (needle, place) = (Arc::clone(&needle), place.clone());
            self.about(mailbox, chunk, move |reading, id, rows| {
                let (mut rows, mut hits) = (rows.to_vec(), Vec::new());
                while !rows.is_empty() {
                    let messages = reading.messages(id, &rows)?;
                    for (row, message) in rows.drain(..messages.len()).zip(messages) {
                        let hit = message.is_some_and(|message| needle.matches(&message, &place));
                        hits.extend(row.filter(|_| hit).map(|row| row.uid));
                    }
                }
                Ok(hits)
            })
        };
        let pieces: Vec<_> = uids.chunks(SEARCH_CHUNK).map(piece).collect();
        let found: Vec<Vec<u32>> = stream::iter(pieces).buffered(SEARCH_CHUNKS_AT_ONCE).try_collect().await?;
        Ok(found.concat())
    }

    /// Reads about these UIDs, at most `UIDS_PER_READ_MAX`, by their rows as the mailbox has them now.
    fn about<'s, T, R>(
        &'s self,
        mailbox: &OpenMailbox,
        uids: &[u32],
        read: R,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<'s, T, R>
    where
        T: Send + 'static,
        R: FnOnce(&Reading, MailboxId, &[Option<Row>]) -> Result<T, StoreError> + Send + 'static,
    {
        let (id, view) = (mailbox.id(), mailbox.view());
        let rows: Vec<Option<Row>> =
            uids.iter().take(UIDS_PER_READ_MAX).map(|uid| view.messages.by_uid(*uid).copied()).collect();
        self.read(move |reading| read(reading, id, &rows))
    }
}

fn check_uids(uids: &[u32]) -> Result<(), StoreError> {
    if uids.len() > UIDS_PER_CHANGE_MAX { Err(StoreError::Limit("Too many messages at once")) } else { Ok(()) }
}
