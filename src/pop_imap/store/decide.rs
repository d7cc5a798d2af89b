//! Deciding: a request becomes changes with UIDs, modseqs and ids, before anything is written.
//!
//! Owns: the accounts in the writer's memory, the counters, the rules of each request. Called by: `writer`.
//! Never: writes; waits; knows what came of a change (see `apply`).
//! Spec: RFC 9051 sections 6.3.4 to 6.3.9 (CREATE, DELETE, RENAME, SUBSCRIBE), 2.3.1.1 (UIDs, UIDVALIDITY).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::account::{Account, Mailbox};
use super::error::StoreError;
use super::flags::{Flag, FlagChange, Flags};
use super::name::{self, FIRST_MAILBOXES, INBOX, MAILBOXES_MAX, SUBSCRIPTIONS_MAX, SpecialUse};
use super::record::{Act, Change, Counters, NamedFlags, NewMailbox};
use super::repeats::{DeliveryKey, Repeats};
use super::tables::Readers;
use super::view::{MessageId, Row};
use super::{AccountId, Delivered, Delivery, MailboxId};
use crate::base::clock;
use crate::ledger::Prepared;

/// Accounts that the writer keeps in memory; above this, those without changes under way are dropped.
const ACCOUNTS_MAX: usize = 10_000;

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) id: MessageId,
    /// The message record; the changes follow it.
    pub(super) record: Prepared,
    pub(super) size: u32,
    pub(super) structure: Vec<u8>,
    /// Seconds since 1970.
    pub(super) internal_date: i64,
}

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// Let the account come into being if it is new.
    Ensure(AccountId),
    Deliver(Incoming, Vec<Delivery>),
    Append(Incoming, AccountId, String, Vec<Flag>),
    Create(AccountId, String, Option<SpecialUse>),
    Delete(AccountId, String),
    Rename(AccountId, String, String),
    Subscribe(AccountId, String, bool),
    Flags(AccountId, MailboxId, FlagChange, Vec<Flag>, Option<u64>, Vec<u32>),
    Expunge(AccountId, MailboxId, Vec<u32>),
    /// The last one: whether the originals are removed.
    Copy(AccountId, MailboxId, Vec<u32>, String, bool),
    /// Begin another segment of the ledger, so that this one can be compacted.
    NextSegment,
}

/// What a decision promises; the outcome of the last change completes it.
#[derive(Debug, Clone)]
pub(super) enum Promise {
    Nothing,
    /// None: delivered before.
    Delivered(Vec<Option<Delivered>>),
    Created(MailboxId),
    Flags {
        modseq: u64,
    },
    Copied {
        uid_validity: u32,
    },
}

/// A decided request. Its changes are to be written even when the promise is an error: they let a new account be.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) changes: Vec<Change>,
    pub(super) message: Option<Incoming>,
    pub(super) promise: Result<Promise, StoreError>,
}

/// The writer's memory.
#[derive(Debug)]
pub(super) struct Decider {
    readers: Arc<Readers>,
    accounts: HashMap<AccountId, Account>,
    /// `seq` is that of the last change decided; `message_next` is kept elsewhere (ids are taken before requests queue).
    pub(super) counters: Counters,
    repeats: Repeats,
    /// Changes of the request in hand.
    changes: Vec<Change>,
}

impl Decider {
    pub(super) fn new(readers: Arc<Readers>, counters: Counters, repeats: Repeats) -> Self {
        Self { readers, accounts: HashMap::new(), counters, repeats, changes: Vec::new() }
    }

    /// Drops accounts that have no change under way when there are too many. `applied`: the last change that the view has.
    pub(super) fn trim(&mut self, applied: u64) {
        if self.accounts.len() > ACCOUNTS_MAX {
            self.accounts.retain(|_, account| account.last_seq > applied);
        }
    }

    /// Forgets what was decided but could not be written. All that was written must have been applied.
    pub(super) fn forget(&mut self, changes: &[Change]) {
        for change in changes {
            self.accounts.remove(&change.account);
        }
        self.repeats.forget(changes);
    }

    /// Decides on a request.
    pub(super) fn decide(&mut self, request: Request) -> Decision {
        let mut message = None;
        let promise = match request {
            Request::Ensure(account) => self.ensure(account).map(|()| Promise::Nothing),
            Request::Deliver(incoming, deliveries) => self.deliver(message.insert(incoming), deliveries),
            Request::Append(incoming, account, mailbox, flags) => {
                self.append(message.insert(incoming), account, &mailbox, &flags)
            }
            Request::Create(account, name, special_use) => self.create(account, &name, special_use),
            Request::Delete(account, name) => self.delete(account, &name),
            Request::Rename(account, from, to) => self.rename(account, &from, &to),
            Request::Subscribe(account, name, subscribed) => self.subscribe(account, &name, subscribed),
            Request::Flags(account, mailbox, change, flags, since, uids) => {
                self.flags(account, mailbox, (change, &flags), since, uids)
            }
            Request::Expunge(account, mailbox, uids) => self.expunge(account, mailbox, uids),
            Request::Copy(account, source, uids, target, remove) => self.copy(account, source, uids, &target, remove),
            Request::NextSegment => Ok(Promise::Nothing),
        };
        // A message that all had before is not written again.
        let message = message.filter(|_| match &promise {
            Ok(Promise::Delivered(delivered)) => delivered.iter().any(Option::is_some),
            Ok(_) => true,
            Err(_) => false,
        });
        Decision { changes: std::mem::take(&mut self.changes), message, promise }
    }

    /// Numbers a change; it belongs to the request in hand.
    fn decided(&mut self, account: AccountId, act: Act) {
        self.counters.seq += 1;
        if let Some(held) = self.accounts.get_mut(&account) {
            held.last_seq = self.counters.seq;
        }
        self.changes.push(Change { account, act });
    }

    fn account(&mut self, id: AccountId) -> Result<&mut Account, StoreError> {
        if !self.accounts.contains_key(&id) {
            let loaded = self.readers.read(|sql| Ok(Account::load(sql, &id)?))?;
            self.accounts.insert(id, loaded);
        }
        self.accounts.get_mut(&id).ok_or(StoreError::Closed)
    }

    /// A UIDVALIDITY that no mailbox of that name ever had: the time, or the next number when time stands still
    /// (RFC 9051 section 2.3.1.1).
    fn take_uid_validity(&mut self) -> u32 {
        let now = u32::try_from(clock::unix_secs()).unwrap_or(u32::MAX);
        self.counters.uid_validity_last = now.max(self.counters.uid_validity_last.saturating_add(1));
        self.counters.uid_validity_last
    }

    /// Makes mailboxes.
    fn make(&mut self, account: AccountId, names: Vec<(String, Option<SpecialUse>)>) -> Result<(), StoreError> {
        let uid_validity = self.take_uid_validity();
        let mut made = Vec::with_capacity(names.len());
        for (name, special_use) in names {
            let id = MailboxId(self.counters.mailbox_next);
            self.counters.mailbox_next += 1;
            let mailbox = Mailbox { id, uid_validity, uid_next: 1, modseq: 1, keywords: Vec::new() };
            self.account(account)?.insert(name.clone(), mailbox);
            made.push(NewMailbox { id, name, uid_validity, special_use });
        }
        self.decided(account, Act::Create(made));
        Ok(())
    }

    /// Lets a new account come into being.
    fn ensure(&mut self, account: AccountId) -> Result<(), StoreError> {
        if !self.account(account)?.is_new() {
            return Ok(());
        }
        self.make(account, FIRST_MAILBOXES.map(|(name, special_use)| (name.to_owned(), special_use)).to_vec())?;
        for (name, _) in FIRST_MAILBOXES {
            self.account(account)?.subscriptions.insert(name.to_owned());
            self.decided(account, Act::Subscribe { name: name.to_owned(), subscribed: true });
        }
        Ok(())
    }

    fn deliver(&mut self, incoming: &Incoming, deliveries: Vec<Delivery>) -> Result<Promise, StoreError> {
        // All that can be refused comes first: a delivery is for all or for none.
        for delivery in &deliveries {
            self.ensure(delivery.account)?;
            incoming.size_with(&delivery.trace)?;
            if !self.account(delivery.account)?.named_or_inbox(&delivery.mailbox)?.has_room() {
                return Err(StoreError::Limit("Mailbox has no more UIDs"));
            }
        }
        let mut delivered = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            if delivery.key.is_some_and(|key| self.repeats.knows(key)) {
                delivered.push(None);
                continue;
            }
            let mailbox = self.account(delivery.account)?.named_or_inbox(&delivery.mailbox)?;
            // A mailbox that knows too many keywords takes the message without flags.
            let flags = mailbox.name_flags(&delivery.flags).unwrap_or_default();
            let (act, done) = incoming.put_into(mailbox, flags, delivery.trace, delivery.key)?;
            self.decided(delivery.account, act);
            if let Some(key) = delivery.key {
                self.repeats.note(key);
            }
            delivered.push(Some(done));
        }
        Ok(Promise::Delivered(delivered))
    }

    fn append(
        &mut self,
        incoming: &Incoming,
        account: AccountId,
        name: &str,
        flags: &[Flag],
    ) -> Result<Promise, StoreError> {
        let name = name::canonical(name)?;
        self.ensure(account)?;
        let mailbox = self.account(account)?.named(&name)?;
        let flags = mailbox.name_flags(flags)?;
        let (act, done) = incoming.put_into(mailbox, flags, Bytes::new(), None)?;
        self.decided(account, act);
        Ok(Promise::Delivered(vec![Some(done)]))
    }

    /// RFC 9051 section 6.3.4: the levels above come into being too.
    fn create(
        &mut self,
        account: AccountId,
        name: &str,
        special_use: Option<SpecialUse>,
    ) -> Result<Promise, StoreError> {
        let name = name::canonical(name)?;
        self.ensure(account)?;
        let held = self.account(account)?;
        if held.contains(&name) {
            return Err(StoreError::MailboxExists);
        }
        let mut names = with_ancestors(held, &name)?;
        if let Some(last) = names.last_mut() {
            last.1 = special_use;
        }
        self.make(account, names)?;
        Ok(Promise::Created(self.account(account)?.named(&name)?.id))
    }

    fn delete(&mut self, account: AccountId, name: &str) -> Result<Promise, StoreError> {
        let name = name::canonical(name)?;
        if name == INBOX {
            return Err(StoreError::Refused("INBOX cannot be deleted"));
        }
        self.ensure(account)?;
        let mailbox = self.account(account)?.remove(&name).ok_or(StoreError::NoSuchMailbox)?;
        self.decided(account, Act::Delete { mailbox: mailbox.id });
        Ok(Promise::Nothing)
    }

    fn rename(&mut self, account: AccountId, from: &str, to: &str) -> Result<Promise, StoreError> {
        let (from, to) = (name::canonical(from)?, name::canonical(to)?);
        self.ensure(account)?;
        let held = self.account(account)?;
        if !held.contains(&from) {
            return Err(StoreError::NoSuchMailbox);
        }
        if held.contains(&to) {
            return Err(StoreError::MailboxExists);
        }
        if from == INBOX {
            return self.rename_inbox(account, &to);
        }
        if name::below(&to, &from).is_some() {
            return Err(StoreError::Refused("A mailbox cannot be renamed into itself"));
        }
        let mut moves = vec![(from.clone(), to.clone())];
        for child in held.children(&from) {
            let below = name::below(&child, &from).unwrap_or_default();
            let moved = name::canonical(&format!("{to}{}{below}", name::SEPARATOR))?;
            moves.push((child, moved));
        }
        // Names below the new one may be there already though it is not itself.
        if moves.iter().any(|(_, to)| held.contains(to)) {
            return Err(StoreError::MailboxExists);
        }
        let mut above = with_ancestors(held, &to)?;
        above.pop();
        let mut names = Vec::with_capacity(moves.len());
        for (from, to) in moves {
            if let Some(mailbox) = held.remove(&from) {
                names.push((mailbox.id, to.clone()));
                held.insert(to, mailbox);
            }
        }
        if !above.is_empty() {
            self.make(account, above)?;
        }
        self.decided(account, Act::Rename(names));
        Ok(Promise::Nothing)
    }

    /// RFC 9051 section 6.3.6: the messages go to a new mailbox; INBOX stays and is empty, its children stay.
    fn rename_inbox(&mut self, account: AccountId, to: &str) -> Result<Promise, StoreError> {
        let names = with_ancestors(self.account(account)?, to)?;
        self.make(account, names)?;
        let held = self.account(account)?;
        let inbox = held.named(INBOX)?;
        let (source, source_modseq, next) = (inbox.id, inbox.take_modseq(), inbox.uid_next);
        let keywords = inbox.keywords.clone();
        let target = held.named(to)?;
        // The messages keep their UIDs: how many there are is not known before the change is applied.
        target.uid_next = next;
        target.keywords = keywords;
        let act = Act::MoveAll { source, target: target.id, source_modseq, target_modseq: target.take_modseq() };
        self.decided(account, act);
        Ok(Promise::Nothing)
    }

    fn subscribe(&mut self, account: AccountId, name: &str, subscribed: bool) -> Result<Promise, StoreError> {
        let name = name::canonical(name)?;
        self.ensure(account)?;
        let held = self.account(account)?;
        if subscribed && held.subscriptions.len() >= SUBSCRIPTIONS_MAX && !held.subscriptions.contains(&name) {
            return Err(StoreError::Limit("Account has too many subscriptions"));
        }
        if subscribed {
            held.subscriptions.insert(name.clone());
        } else {
            held.subscriptions.remove(&name);
        }
        self.decided(account, Act::Subscribe { name, subscribed });
        Ok(Promise::Nothing)
    }

    fn flags(
        &mut self,
        account: AccountId,
        id: MailboxId,
        (change, flags): (FlagChange, &[Flag]),
        unchanged_since: Option<u64>,
        uids: Vec<u32>,
    ) -> Result<Promise, StoreError> {
        let mailbox = self.account(account)?.with_id(id)?;
        let flags = mailbox.name_flags(flags)?;
        let modseq = mailbox.take_modseq();
        self.decided(account, Act::Flags { mailbox: id, modseq, change, flags, unchanged_since, uids });
        Ok(Promise::Flags { modseq })
    }

    fn expunge(&mut self, account: AccountId, id: MailboxId, uids: Vec<u32>) -> Result<Promise, StoreError> {
        let modseq = self.account(account)?.with_id(id)?.take_modseq();
        self.decided(account, Act::Expunge { mailbox: id, modseq, uids });
        Ok(Promise::Nothing)
    }

    fn copy(
        &mut self,
        account: AccountId,
        source: MailboxId,
        uids: Vec<u32>,
        target: &str,
        remove: bool,
    ) -> Result<Promise, StoreError> {
        let target = name::canonical(target)?;
        let held = self.account(account)?;
        let keywords = held.with_id(source)?.keywords.clone();
        let to = held.named(&target)?;
        let first = to.take_uids(uids.len())?;
        // Which keywords the copies have shows when the change is applied; here all that fit are taken to be there.
        for word in keywords {
            drop(to.name_flags(&[Flag::Keyword(word)]));
        }
        let (target, uid_validity, modseq) = (to.id, to.uid_validity, to.take_modseq());
        let remove = if remove { Some(held.with_id(source)?.take_modseq()) } else { None };
        self.decided(account, Act::Copy { source, target, modseq, first, uids, remove });
        Ok(Promise::Copied { uid_validity })
    }
}

/// The names that have to be made so that `name` exists: those above it that do not, then itself.
fn with_ancestors(account: &Account, name: &str) -> Result<Vec<(String, Option<SpecialUse>)>, StoreError> {
    let above = name::ancestors(name).filter(|name| !account.contains(name));
    let names: Vec<_> = above.chain([name]).map(|name| (name.to_owned(), None)).collect();
    if account.len() + names.len() > MAILBOXES_MAX {
        return Err(StoreError::Limit("Account has too many mailboxes"));
    }
    Ok(names)
}

impl Incoming {
    /// Octets of the message with the recipient's header fields before it.
    fn size_with(&self, trace: &[u8]) -> Result<u32, StoreError> {
        let size = u32::try_from(trace.len()).ok().and_then(|trace| self.size.checked_add(trace));
        size.ok_or(StoreError::Limit("Message is too large"))
    }

    /// Puts the message into a mailbox.
    fn put_into(
        &self,
        mailbox: &mut Mailbox,
        flags: NamedFlags,
        trace: Bytes,
        key: Option<DeliveryKey>,
    ) -> Result<(Act, Delivered), StoreError> {
        let row = Row {
            size: self.size_with(&trace)?,
            uid: mailbox.take_uids(1)?,
            flags: Flags::NONE,
            modseq: mailbox.take_modseq(),
            internal_date: self.internal_date,
            message: self.id,
        };
        let done = Delivered { mailbox: mailbox.id, uid_validity: mailbox.uid_validity, uid: row.uid };
        Ok((Act::Deliver { mailbox: mailbox.id, row, flags, trace, key }, done))
    }
}
