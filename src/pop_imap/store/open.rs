//! Mailboxes in memory, shared by all sessions that have them open.
//!
//! Owns: `OpenMailbox`: its present view, and the wake-up of those who watch it; the registry of open mailboxes.
//! Called by: IMAP, POP3 (read); the store (opens), the applier (publishes new views). Never: writes.
//!
//! Invariant: a loaded mailbox shows the view as of `Loaded::seq`, and each transaction after that is published to it
//! once: whoever loads it holds its lock from before reading the sequence number until the rows are in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rusqlite::OptionalExtension;
use tokio::sync::watch;

use super::apply::Effects;
use super::error::StoreError;
use super::roll::{self, Due};
use super::tables::{Readers, from_sql, from_sql32, read_progress};
use super::view::View;
use super::{AccountId, MailboxId};

/// Mailboxes kept in memory though nobody has them open, because they were open lately.
const WARM_MAILBOXES_MAX: usize = 1_000;
/// Messages of those, all together (40 bytes each).
const WARM_ROWS_MAX: usize = 500_000;

/// A mailbox that someone has open.
#[derive(Debug)]
pub struct OpenMailbox {
    id: MailboxId,
    account: AccountId,
    uid_validity: u32,
    loaded: Mutex<Option<Loaded>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Loaded {
    /// The change after which the view is as it is.
    seq: u64,
    view: Arc<View>,
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
        self.loaded().as_ref().map(|loaded| Arc::clone(&loaded.view)).unwrap_or_default()
    }

    /// Wakes when there is a new view; the value is its highest modseq. `u64::MAX`: the mailbox was deleted.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the mailbox was deleted while it was open. Its last view stays.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        *self.changes.borrow() == u64::MAX
    }

    fn loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the mailbox if nobody has yet, and says whether its roll is due.
    fn load(&self, readers: &Readers) -> Result<Option<Due>, StoreError> {
        let mut loaded = self.loaded();
        if loaded.is_some() {
            return Ok(None);
        }
        let (seq, (view, due)) = readers.read(|sql| {
            let seq = read_progress(sql)?.counters.seq;
            Ok((seq, roll::read_view(sql, self.id)?.ok_or(StoreError::NoSuchMailbox)?))
        })?;
        self.changes.send_replace(view.highest_modseq);
        *loaded = Some(Loaded { seq, view: Arc::new(view) });
        Ok(due)
    }

    /// Makes the next view. A view that was read after the change has it already.
    fn publish(&self, effects: &Effects, seq: u64) {
        let mut guard = self.loaded();
        if effects.deleted {
            self.changes.send_replace(u64::MAX);
            return;
        }
        let Some(loaded) = guard.as_mut().filter(|loaded| loaded.seq < seq) else { return };
        loaded.seq = seq;
        // Sessions hold the old view: only its list of chunks is copied, not the rows.
        let view = Arc::make_mut(&mut loaded.view);
        view.messages.push_all(&effects.added);
        if !effects.edits.is_empty() {
            view.messages.edit(&effects.edits);
        }
        view.uid_next = view.uid_next.max(effects.uid_next);
        view.highest_modseq = view.highest_modseq.max(effects.modseq);
        if let Some(keywords) = &effects.keywords {
            view.keywords = Arc::clone(keywords);
        }
        let modseq = view.highest_modseq;
        drop(guard);
        self.changes.send_replace(modseq);
    }
}

/// The open mailboxes of the store.
#[derive(Debug, Default)]
pub(super) struct Registry {
    open: Mutex<HashMap<MailboxId, Weak<OpenMailbox>>>,
    /// The mailboxes opened last, newest first.
    warm: Mutex<VecDeque<Arc<OpenMailbox>>>,
    /// Mailboxes whose roll is due.
    due: Mutex<BTreeMap<MailboxId, Due>>,
}

impl Registry {
    /// Opens a mailbox of an account by name; none when there is none. Blocks.
    pub(super) fn open(
        &self,
        readers: &Readers,
        account: AccountId,
        name: &str,
    ) -> Result<Option<Arc<OpenMailbox>>, StoreError> {
        let found = readers.read(|sql| {
            let mut select =
                sql.prepare_cached("SELECT id, uid_validity FROM mailbox WHERE account = ?1 AND name = ?2")?;
            let found = select
                .query_row((&account, name), |row| Ok((MailboxId(from_sql(row.get(0)?)), from_sql32(row.get(1)?))));
            Ok(found.optional()?)
        })?;
        let Some((id, uid_validity)) = found else { return Ok(None) };
        let mailbox = self.enter(id, account, uid_validity);
        if let Some(due) = mailbox.load(readers)? {
            self.note_due([(id, due)]);
        }
        self.keep_warm(&mailbox);
        Ok(Some(mailbox))
    }

    /// The one entry for a mailbox.
    fn enter(&self, id: MailboxId, account: AccountId, uid_validity: u32) -> Arc<OpenMailbox> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailbox) = open.get(&id).and_then(Weak::upgrade) {
            return mailbox;
        }
        // Entries that nobody holds any more go when their number has doubled.
        if open.len() == open.capacity() {
            open.retain(|_, mailbox| mailbox.strong_count() > 0);
        }
        let (changes, _) = watch::channel(0);
        let mailbox = Arc::new(OpenMailbox { id, account, uid_validity, loaded: Mutex::new(None), changes });
        open.insert(id, Arc::downgrade(&mailbox));
        mailbox
    }

    fn keep_warm(&self, mailbox: &Arc<OpenMailbox>) {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        if warm.front().is_some_and(|front| Arc::ptr_eq(front, mailbox)) {
            return;
        }
        warm.retain(|other| !Arc::ptr_eq(other, mailbox) && !other.is_deleted());
        warm.push_front(Arc::clone(mailbox));
        let mut rows = 0;
        let fits = |mailbox: &Arc<OpenMailbox>| {
            rows += mailbox.view().messages.len();
            rows <= WARM_ROWS_MAX
        };
        let keep = warm.iter().take(WARM_MAILBOXES_MAX).map(fits).take_while(|fits| *fits).count();
        warm.truncate(keep);
    }

    /// Notes mailboxes whose rolls are due.
    pub(super) fn note_due(&self, mailboxes: impl IntoIterator<Item = (MailboxId, Due)>) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        for (mailbox, when) in mailboxes {
            due.entry(mailbox).and_modify(|known| *known = when.max(*known)).or_insert(when);
        }
    }

    /// Takes the mailboxes whose rolls are due, at most `count`, at leisure only when there is some.
    pub(super) fn take_due(&self, leisure: bool, count: usize) -> Vec<MailboxId> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = due.iter().filter(|(_, when)| leisure || **when == Due::Soon);
        let taken: Vec<MailboxId> = wanted.map(|(mailbox, _)| *mailbox).take(count).collect();
        for mailbox in &taken {
            due.remove(mailbox);
        }
        taken
    }

    /// Shows an open mailbox what a transaction did to it.
    pub(super) fn publish(&self, id: MailboxId, effects: &Effects, seq: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mailbox = open.get(&id).and_then(Weak::upgrade);
        if effects.deleted {
            open.remove(&id);
        }
        drop(open);
        if let Some(mailbox) = mailbox {
            mailbox.publish(effects, seq);
        }
    }
}
