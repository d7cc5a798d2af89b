//! An account as the writer sees it: names, next UIDs and modseqs, decided but perhaps not yet applied.
//!
//! Owns: `Account`, its loading from the view, and the decisions on names and numbers. Called by: `decide`.
//! Never: knows messages or flags; those are met when a change is applied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Connection;

use super::apply::split_keywords;
use super::error::StoreError;
use super::flags::{Flag, KEYWORDS_MAX};
use super::name::{self, INBOX};
use super::record::NamedFlags;
use super::tables::{from_sql, from_sql32};
use super::{AccountId, MailboxId};

/// UIDs at the end of a mailbox's range that one delivery may need.
const UIDS_KEPT_BACK: u32 = 10_000;

/// What the writer has to know of a mailbox.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    pub(super) id: MailboxId,
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) modseq: u64,
    pub(super) keywords: Vec<String>,
}

/// What the writer has to know of an account.
#[derive(Debug, Default)]
pub(super) struct Account {
    names: BTreeMap<String, Mailbox>,
    by_id: HashMap<MailboxId, String>,
    pub(super) subscriptions: BTreeSet<String>,
    /// Number of the last change that was decided for it.
    pub(super) last_seq: u64,
}

impl Account {
    /// The account as the view has it. All its changes must have been applied.
    pub(super) fn load(sql: &Connection, account: &AccountId) -> rusqlite::Result<Self> {
        let mut loaded = Self::default();
        let mut select = sql.prepare_cached(
            "SELECT id, name, uid_validity, uid_next, modseq, keywords FROM mailbox WHERE account = ?1",
        )?;
        let mut rows = select.query([account])?;
        while let Some(row) = rows.next()? {
            let mailbox = Mailbox {
                id: MailboxId(from_sql(row.get(0)?)),
                uid_validity: from_sql32(row.get(2)?),
                uid_next: from_sql32(row.get(3)?),
                modseq: from_sql(row.get(4)?),
                keywords: split_keywords(row.get_ref(5)?.as_str()?),
            };
            loaded.insert(row.get(1)?, mailbox);
        }
        let mut select = sql.prepare_cached("SELECT name FROM subscription WHERE account = ?1")?;
        loaded.subscriptions = select.query_map([account], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(loaded)
    }

    /// Whether it has never been used.
    pub(super) fn is_new(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn insert(&mut self, name: String, mailbox: Mailbox) {
        self.by_id.insert(mailbox.id, name.clone());
        self.names.insert(name, mailbox);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Mailbox> {
        let mailbox = self.names.remove(name)?;
        self.by_id.remove(&mailbox.id);
        Some(mailbox)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn named(&mut self, name: &str) -> Result<&mut Mailbox, StoreError> {
        self.names.get_mut(name).ok_or(StoreError::NoSuchMailbox)
    }

    /// The mailbox of that name, or else INBOX.
    pub(super) fn named_or_inbox(&mut self, name: &str) -> Result<&mut Mailbox, StoreError> {
        let name = name::canonical(name).ok().filter(|name| self.contains(name)).unwrap_or_else(|| INBOX.to_owned());
        self.named(&name)
    }

    pub(super) fn with_id(&mut self, id: MailboxId) -> Result<&mut Mailbox, StoreError> {
        let name = self.by_id.get(&id).ok_or(StoreError::NoSuchMailbox)?;
        self.names.get_mut(name).ok_or(StoreError::NoSuchMailbox)
    }

    /// The names below `name`.
    pub(super) fn children(&self, name: &str) -> Vec<String> {
        let prefix = format!("{name}{}", name::SEPARATOR);
        let from = self.names.range(prefix.clone()..).map(|(name, _)| name);
        from.take_while(|name| name.starts_with(&prefix)).cloned().collect()
    }
}

impl Mailbox {
    /// Whether at least one more message can come in.
    pub(super) fn has_room(&self) -> bool {
        self.uid_next < u32::MAX - UIDS_KEPT_BACK
    }

    /// The next `count` UIDs; the first of them is given.
    pub(super) fn take_uids(&mut self, count: usize) -> Result<u32, StoreError> {
        let first = self.uid_next;
        let count = u32::try_from(count).map_err(|_| StoreError::Limit("Too many messages at once"))?;
        // RFC 9051 section 2.3.1.1: UIDs are 32 bits; a mailbox that has used them up takes no more.
        self.uid_next = first.checked_add(count).ok_or(StoreError::Limit("Mailbox has no more UIDs"))?;
        Ok(first)
    }

    /// The next modseq.
    pub(super) fn take_modseq(&mut self) -> u64 {
        self.modseq += 1;
        self.modseq
    }

    /// The flags as a record has them; refused when the mailbox would know too many keywords.
    pub(super) fn name_flags(&mut self, flags: &[Flag]) -> Result<NamedFlags, StoreError> {
        let mut named = NamedFlags::default();
        for flag in flags {
            match (flag.system_bit(), flag) {
                (Some(bit), _) => named.system = named.system.with(bit),
                (None, Flag::Keyword(word)) => {
                    if Flag::parse(word).is_none() {
                        return Err(StoreError::Refused("Not a keyword"));
                    }
                    if !self.keywords.iter().any(|known| known.eq_ignore_ascii_case(word)) {
                        if self.keywords.len() >= KEYWORDS_MAX {
                            return Err(StoreError::Limit("Mailbox has too many keywords"));
                        }
                        self.keywords.push(word.clone());
                    }
                    named.keywords.push(word.clone());
                }
                (None, _) => {}
            }
        }
        Ok(named)
    }
}
