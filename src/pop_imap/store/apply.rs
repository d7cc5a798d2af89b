//! Applying records to the view: the same at delivery, at replay and at rebuilding.
//!
//! Owns: what each change does to the tables, and what it means for open mailboxes. Called by: `applier`, `recovery`.
//! Never: touches the ledger; decides anything that the record does not say.
//!
//! Changes are applied leniently: one that speaks of a mailbox or message that is not there does nothing. At replay that
//! happens when a crash came between a failed append and its correction; live, when two sessions do things at once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::flags::{FlagChange, Flags, KEYWORDS_MAX};
use super::record::{Act, Change, NamedFlags, NewMailbox};
use super::repeats;
use super::roll::{Due, RollHead};
use super::tables::{from_sql, from_sql32, to_sql};
use super::view::{MessageId, Row};
use super::{MailboxId, name};
use crate::ledger::Position;

/// Mailbox heads that are kept between transactions.
const HEADS_MAX: usize = 10_000;

/// Bytes of a message that came with a batch.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) id: MessageId,
    pub(super) position: Position,
    pub(super) size: u32,
    pub(super) structure: Vec<u8>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Applied {
    Done,
    /// The mailbox is not there (any more).
    NoMailbox,
    /// Flags: messages left alone for `unchanged_since`.
    Modified(Vec<u32>),
    /// Copy: the UIDs of what was copied, and of the copies.
    Copied(Vec<u32>, Vec<u32>),
}

/// What the changes of a transaction mean for one mailbox that may be open.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) added: Vec<Row>,
    /// New flags and modseq, or gone.
    pub(super) edits: BTreeMap<u32, Option<(Flags, u64)>>,
    pub(super) uid_next: u32,
    pub(super) modseq: u64,
    pub(super) keywords: Option<Arc<Vec<String>>>,
    pub(super) deleted: bool,
}

/// A row of `mailbox` in memory, less what never changes.
#[derive(Debug, Clone)]
struct Head {
    uid_next: u32,
    modseq: u64,
    keywords: Arc<Vec<String>>,
    messages: i64,
    unseen: i64,
    deleted: i64,
    bytes: i64,
    /// No message got other flags or went after this modseq.
    edited: u64,
    roll: RollHead,
    dirty: bool,
}

/// Whether contents without a mailbox are removed at once, or swept at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    AtOnce,
    /// At rebuilding, a content may come before or after what refers to it.
    Later,
}

/// Applies changes within the transaction that its caller has open.
#[derive(Debug)]
pub(super) struct Apply {
    sweep: Sweep,
    heads: HashMap<MailboxId, Head>,
    effects: HashMap<MailboxId, Effects>,
    /// Mailboxes whose roll is due.
    due: Vec<(MailboxId, Due)>,
    /// Changes of `segment` (written, live), put into the table at `flush`.
    segments: HashMap<u64, (i64, i64)>,
    /// Keys of deliveries were added: the oldest are to go.
    remembered: bool,
}

type Sql<T> = rusqlite::Result<T>;

impl Apply {
    pub(super) fn new(sweep: Sweep) -> Self {
        Self {
            sweep,
            heads: HashMap::new(),
            effects: HashMap::new(),
            due: Vec::new(),
            segments: HashMap::new(),
            remembered: false,
        }
    }

    /// Forgets everything about a transaction that was rolled back.
    pub(super) fn abandon(&mut self) {
        self.heads.clear();
        self.effects.clear();
        self.due.clear();
        self.segments.clear();
        self.remembered = false;
    }

    /// Writes what was gathered in memory; to be called before the commit.
    pub(super) fn flush(&mut self, sql: &Connection) -> Sql<()> {
        let mut update = sql.prepare_cached(
            "UPDATE mailbox SET uid_next = ?2, modseq = ?3, keywords = ?4, messages = ?5, unseen = ?6, deleted = ?7, bytes = ?8 \
             WHERE id = ?1",
        )?;
        for (id, head) in self.heads.iter_mut().filter(|(_, head)| head.dirty) {
            update.execute((
                to_sql(id.0),
                head.uid_next,
                to_sql(head.modseq),
                head.keywords.join(" "),
                head.messages,
                head.unseen,
                head.deleted,
                head.bytes,
            ))?;
            head.dirty = false;
            self.due.extend(head.roll.due(from_sql32(head.messages)).map(|due| (*id, due)));
        }
        if self.heads.len() > HEADS_MAX {
            self.heads.clear();
        }
        let mut update = sql.prepare_cached(
            "INSERT INTO segment VALUES (?1, ?2, ?3) \
             ON CONFLICT (id) DO UPDATE SET written = written + excluded.written, live = live + excluded.live",
        )?;
        for (id, (written, live)) in self.segments.drain() {
            update.execute((to_sql(id), written, live))?;
        }
        if std::mem::take(&mut self.remembered) {
            repeats::trim(sql)?;
        }
        Ok(())
    }

    /// What the transaction meant for open mailboxes; to be called after the commit.
    pub(super) fn take_effects(&mut self) -> HashMap<MailboxId, Effects> {
        std::mem::take(&mut self.effects)
    }

    /// Mailboxes whose roll is due; to be called after the commit.
    pub(super) fn take_due(&mut self) -> Vec<(MailboxId, Due)> {
        std::mem::take(&mut self.due)
    }

    /// What is known of a mailbox's roll; none when the mailbox is gone, or one of its messages changed after `modseq`.
    pub(super) fn roll_head(
        &mut self,
        sql: &Connection,
        mailbox: MailboxId,
        modseq: u64,
    ) -> Sql<Option<&mut RollHead>> {
        let head = self.head(sql, mailbox)?.filter(|head| head.edited <= modseq);
        Ok(head.map(|head| &mut head.roll))
    }

    /// Notes where the bytes of a message stand. One that is known already has moved.
    pub(super) fn content(&mut self, sql: &Connection, content: &Content, may_be_known: bool) -> Sql<()> {
        let size = i64::from(content.size);
        if may_be_known {
            let mut known = sql.prepare_cached("SELECT segment FROM content WHERE id = ?1")?;
            if let Some(segment) = known.query_row([to_sql(content.id.0)], |row| row.get(0)).optional()? {
                self.segments.entry(from_sql(segment)).or_default().1 -= size;
            }
        }
        let mut insert = sql.prepare_cached("INSERT OR REPLACE INTO content VALUES (?1, ?2, ?3, ?4, ?5)")?;
        insert.execute((
            to_sql(content.id.0),
            to_sql(content.position.segment),
            to_sql(content.position.offset),
            size,
            content.structure.as_slice(),
        ))?;
        let segment = self.segments.entry(content.position.segment).or_default();
        segment.0 += size;
        segment.1 += size;
        Ok(())
    }

    /// The bytes of a message stand in another segment now.
    pub(super) fn count_move(&mut self, from: u64, to: u64, size: i64) {
        self.segments.entry(from).or_default().1 -= size;
        let to = self.segments.entry(to).or_default();
        to.0 += size;
        to.1 += size;
    }

    /// Applies one change.
    pub(super) fn change(&mut self, sql: &Connection, change: &Change) -> Sql<Applied> {
        match &change.act {
            Act::Create(mailboxes) => {
                for new in mailboxes {
                    self.create(sql, &change.account, new)?;
                }
                Ok(Applied::Done)
            }
            Act::Deliver { mailbox, row, flags, trace, key } => {
                if let Some(key) = key {
                    self.remember(sql, *key)?;
                }
                self.deliver(sql, *mailbox, row, flags, trace)
            }
            Act::Flags { mailbox, modseq, change, flags, unchanged_since, uids } => {
                self.flags(sql, *mailbox, *modseq, (*change, flags), *unchanged_since, uids)
            }
            Act::Expunge { mailbox, modseq, uids } => self.expunge(sql, *mailbox, *modseq, uids),
            Act::Copy { source, target, modseq, first, uids, remove } => {
                self.copy(sql, (*source, *target), *modseq, *first, uids, *remove)
            }
            Act::MoveAll { source, target, source_modseq, target_modseq } => {
                self.move_all(sql, (*source, *source_modseq), (*target, *target_modseq))
            }
            Act::Delete { mailbox } => self.delete(sql, *mailbox),
            Act::Rename(names) => {
                let mut update = sql.prepare_cached("UPDATE mailbox SET name = ?2 WHERE id = ?1")?;
                for (id, name) in names {
                    update.execute((to_sql(id.0), name))?;
                }
                Ok(Applied::Done)
            }
            Act::Subscribe { name, subscribed } => {
                let text = if *subscribed {
                    "INSERT OR IGNORE INTO subscription VALUES (?1, ?2)"
                } else {
                    "DELETE FROM subscription WHERE account = ?1 AND name = ?2"
                };
                sql.prepare_cached(text)?.execute((&change.account, name))?;
                Ok(Applied::Done)
            }
        }
    }

    /// Notes the key of a delivery.
    pub(super) fn remember(&mut self, sql: &Connection, key: repeats::DeliveryKey) -> Sql<()> {
        self.remembered = true;
        repeats::remember(sql, key)
    }

    /// The head of a mailbox; none when it is not there.
    fn head(&mut self, sql: &Connection, id: MailboxId) -> Sql<Option<&mut Head>> {
        let vacant = match self.heads.entry(id) {
            Entry::Occupied(known) => return Ok(Some(known.into_mut())),
            Entry::Vacant(vacant) => vacant,
        };
        let mut select = sql.prepare_cached(
            "SELECT uid_next, modseq, keywords, messages, unseen, deleted, bytes FROM mailbox WHERE id = ?1",
        )?;
        let roll = RollHead::load(sql, id)?;
        let head = select.query_row([to_sql(id.0)], |row| {
            Ok(Head {
                uid_next: from_sql32(row.get(0)?),
                modseq: from_sql(row.get(1)?),
                keywords: Arc::new(split_keywords(row.get_ref(2)?.as_str()?)),
                messages: row.get(3)?,
                unseen: row.get(4)?,
                deleted: row.get(5)?,
                bytes: row.get(6)?,
                // Nobody knows any more; later it was not.
                edited: from_sql(row.get(1)?),
                roll,
                dirty: false,
            })
        });
        Ok(head.optional()?.map(|head| vacant.insert(head)))
    }

    /// The flags as bits of this mailbox; keywords that it does not know yet are added to its list.
    fn bits(&mut self, sql: &Connection, id: MailboxId, flags: &NamedFlags) -> Sql<Option<Flags>> {
        let Some(head) = self.head(sql, id)? else { return Ok(None) };
        let mut bits = flags.system;
        let mut grown = None;
        for word in &flags.keywords {
            let at = head.keywords.iter().position(|known| known.eq_ignore_ascii_case(word));
            let at = at.unwrap_or_else(|| {
                if head.keywords.len() < KEYWORDS_MAX {
                    Arc::make_mut(&mut head.keywords).push(word.clone());
                    head.dirty = true;
                    grown = Some(());
                    head.keywords.len() - 1
                } else {
                    KEYWORDS_MAX
                }
            });
            bits = bits.with(Flags::keyword(at));
        }
        let keywords = grown.map(|()| Arc::clone(&head.keywords));
        if keywords.is_some() {
            self.effects.entry(id).or_default().keywords = keywords;
        }
        Ok(Some(bits))
    }

    /// Notes the mailbox's new numbers, for those who have it open.
    fn touched(&mut self, id: MailboxId) -> &mut Effects {
        let effects = self.effects.entry(id).or_default();
        if let Some(head) = self.heads.get(&id) {
            effects.uid_next = head.uid_next;
            effects.modseq = head.modseq;
        }
        effects
    }

    pub(super) fn create(&mut self, sql: &Connection, account: &[u8; 16], new: &NewMailbox) -> Sql<()> {
        let mut insert =
            sql.prepare_cached("INSERT OR REPLACE INTO mailbox VALUES (?1, ?2, ?3, ?4, 1, 1, ?5, '', 0, 0, 0, 0)")?;
        let special_use = new.special_use.map_or(0, name::SpecialUse::code);
        insert.execute((to_sql(new.id.0), account, &new.name, new.uid_validity, special_use))?;
        self.heads.remove(&new.id);
        Ok(())
    }

    fn deliver(
        &mut self,
        sql: &Connection,
        mailbox: MailboxId,
        row: &Row,
        flags: &NamedFlags,
        trace: &[u8],
    ) -> Sql<Applied> {
        let Some(flags) = self.bits(sql, mailbox, flags)? else { return Ok(Applied::NoMailbox) };
        let row = Row { flags, ..*row };
        self.insert(sql, mailbox, &row, trace)?;
        Ok(Applied::Done)
    }

    /// A new message in a mailbox that is there.
    pub(super) fn insert(&mut self, sql: &Connection, mailbox: MailboxId, row: &Row, trace: &[u8]) -> Sql<()> {
        sql.prepare_cached("INSERT OR REPLACE INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute((
            to_sql(mailbox.0),
            row.uid,
            to_sql(row.flags.to_raw()),
            to_sql(row.modseq),
            row.size,
            row.internal_date,
            to_sql(row.message.0),
        ))?;
        if !trace.is_empty() {
            let mut insert = sql.prepare_cached("INSERT OR REPLACE INTO trace VALUES (?1, ?2, ?3)")?;
            insert.execute((to_sql(mailbox.0), row.uid, trace))?;
        }
        if let Some(head) = self.head(sql, mailbox)? {
            head.count(row.flags, row.size, 1);
            head.uid_next = head.uid_next.max(row.uid.saturating_add(1));
            head.modseq = head.modseq.max(row.modseq);
            // UIDs ascend: this one is not in the roll's range. Were it, the roll would lack it.
            if row.uid < head.roll.below {
                head.roll.forget(sql, mailbox)?;
            }
        }
        self.touched(mailbox).added.push(*row);
        Ok(())
    }

    fn flags(
        &mut self,
        sql: &Connection,
        mailbox: MailboxId,
        modseq: u64,
        (change, flags): (FlagChange, &NamedFlags),
        unchanged_since: Option<u64>,
        uids: &[u32],
    ) -> Sql<Applied> {
        let Some(bits) = self.bits(sql, mailbox, flags)? else { return Ok(Applied::NoMailbox) };
        let mut select =
            sql.prepare_cached("SELECT flags, modseq, size FROM message WHERE mailbox = ?1 AND uid = ?2")?;
        let mut update =
            sql.prepare_cached("UPDATE message SET flags = ?3, modseq = ?4 WHERE mailbox = ?1 AND uid = ?2")?;
        let mut modified = Vec::new();
        for &uid in uids {
            let found = select.query_row((to_sql(mailbox.0), uid), |row| {
                Ok((Flags::from_raw(from_sql(row.get(0)?)), from_sql(row.get(1)?), from_sql32(row.get(2)?)))
            });
            let Some((old, old_modseq, size)) = found.optional()? else { continue };
            if unchanged_since.is_some_and(|since| old_modseq > since) {
                modified.push(uid);
                continue;
            }
            let new = old.changed(change, bits);
            if new == old {
                continue;
            }
            update.execute((to_sql(mailbox.0), uid, to_sql(new.to_raw()), to_sql(modseq)))?;
            if let Some(head) = self.head(sql, mailbox)? {
                head.count(old, size, -1);
                head.count(new, size, 1);
                head.modseq = head.modseq.max(modseq);
                head.edited = head.edited.max(modseq);
                head.roll.changed(sql, mailbox, uid, Some((new, modseq)))?;
            }
            self.touched(mailbox).edits.insert(uid, Some((new, modseq)));
        }
        Ok(Applied::Modified(modified))
    }

    fn expunge(&mut self, sql: &Connection, mailbox: MailboxId, modseq: u64, uids: &[u32]) -> Sql<Applied> {
        if self.head(sql, mailbox)?.is_none() {
            return Ok(Applied::NoMailbox);
        }
        for &uid in uids {
            self.remove(sql, mailbox, modseq, uid)?;
        }
        Ok(Applied::Done)
    }

    /// Takes one message out of a mailbox; its bytes too when no other mailbox has them.
    fn remove(&mut self, sql: &Connection, mailbox: MailboxId, modseq: u64, uid: u32) -> Sql<()> {
        let mut delete =
            sql.prepare_cached("DELETE FROM message WHERE mailbox = ?1 AND uid = ?2 RETURNING flags, size, content")?;
        let gone = delete.query_row((to_sql(mailbox.0), uid), |row| {
            Ok((Flags::from_raw(from_sql(row.get(0)?)), from_sql32(row.get(1)?), MessageId(from_sql(row.get(2)?))))
        });
        let Some((flags, size, content)) = gone.optional()? else { return Ok(()) };
        sql.prepare_cached("DELETE FROM trace WHERE mailbox = ?1 AND uid = ?2")?.execute((to_sql(mailbox.0), uid))?;
        if let Some(head) = self.head(sql, mailbox)? {
            head.count(flags, size, -1);
            head.modseq = head.modseq.max(modseq);
            head.edited = head.edited.max(modseq);
            head.roll.changed(sql, mailbox, uid, None)?;
        }
        self.touched(mailbox).edits.insert(uid, None);
        if self.sweep == Sweep::AtOnce { self.sweep_content(sql, content) } else { Ok(()) }
    }

    /// Forgets the bytes of a message when no mailbox has it; compaction gives their space back.
    pub(super) fn sweep_content(&mut self, sql: &Connection, content: MessageId) -> Sql<()> {
        let mut used = sql.prepare_cached("SELECT 1 FROM message WHERE content = ?1 LIMIT 1")?;
        if used.exists([to_sql(content.0)])? {
            return Ok(());
        }
        let mut delete = sql.prepare_cached("DELETE FROM content WHERE id = ?1 RETURNING segment, size")?;
        let gone = delete.query_row([to_sql(content.0)], |row| Ok((from_sql(row.get(0)?), row.get::<_, i64>(1)?)));
        if let Some((segment, size)) = gone.optional()? {
            self.segments.entry(segment).or_default().1 -= size;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        sql: &Connection,
        (source, target): (MailboxId, MailboxId),
        modseq: u64,
        first: u32,
        uids: &[u32],
        remove: Option<u64>,
    ) -> Sql<Applied> {
        if self.head(sql, source)?.is_none() || self.head(sql, target)?.is_none() {
            return Ok(Applied::NoMailbox);
        }
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (uid, copy) in uids.iter().copied().zip(first..) {
            // Copied onto itself, a mailbox has the copies made so far too: they are not what was meant.
            if source == target && uid >= first {
                continue;
            }
            let Some(row) = select_row(sql, source, uid)? else { continue };
            let trace = select_trace(sql, source, uid)?;
            let named = self.named(sql, source, row.flags)?;
            let Some(flags) = self.bits(sql, target, &named)? else { continue };
            self.insert(sql, target, &Row { uid: copy, flags, modseq, ..row }, &trace)?;
            if let Some(remove) = remove {
                self.remove(sql, source, remove, uid)?;
            }
            from.push(uid);
            to.push(copy);
        }
        // The UIDs are used up even when what they were meant for was gone.
        let used = first.saturating_add(u32::try_from(uids.len()).unwrap_or(u32::MAX));
        if let Some(head) = self.head(sql, target)? {
            head.uid_next = head.uid_next.max(used);
            head.dirty = true;
        }
        self.touched(target);
        Ok(Applied::Copied(from, to))
    }

    fn named(&mut self, sql: &Connection, mailbox: MailboxId, flags: Flags) -> Sql<NamedFlags> {
        let words = self.head(sql, mailbox)?.map(|head| Arc::clone(&head.keywords)).unwrap_or_default();
        let set = |index: &usize| flags.contains(Flags::keyword(*index));
        let keywords = words.iter().enumerate().filter(|(index, _)| set(index)).map(|(_, word)| word.clone()).collect();
        Ok(NamedFlags { system: flags.system(), keywords })
    }

    fn move_all(
        &mut self,
        sql: &Connection,
        (source, source_modseq): (MailboxId, u64),
        (target, target_modseq): (MailboxId, u64),
    ) -> Sql<Applied> {
        if self.head(sql, source)?.is_none() || self.head(sql, target)?.is_none() {
            return Ok(Applied::NoMailbox);
        }
        let mut select = sql.prepare_cached("SELECT uid FROM message WHERE mailbox = ?1 ORDER BY uid")?;
        let uids: Sql<Vec<u32>> = select.query_map([to_sql(source.0)], |row| row.get(0))?.collect();
        for uid in uids? {
            self.copy(sql, (source, target), target_modseq, uid, &[uid], Some(source_modseq))?;
        }
        let next = self.head(sql, source)?.map_or(1, |head| head.uid_next);
        if let Some(head) = self.head(sql, target)? {
            head.uid_next = head.uid_next.max(next);
            head.dirty = true;
        }
        self.touched(target);
        Ok(Applied::Done)
    }

    fn delete(&mut self, sql: &Connection, mailbox: MailboxId) -> Sql<Applied> {
        let Some(head) = self.head(sql, mailbox)? else { return Ok(Applied::NoMailbox) };
        head.roll.forget(sql, mailbox)?;
        self.clear(sql, mailbox)?;
        sql.prepare_cached("DELETE FROM mailbox WHERE id = ?1")?.execute([to_sql(mailbox.0)])?;
        self.heads.remove(&mailbox);
        self.effects.entry(mailbox).or_default().deleted = true;
        Ok(Applied::Done)
    }

    /// Takes all messages out of a mailbox that will not be used any more.
    fn clear(&mut self, sql: &Connection, mailbox: MailboxId) -> Sql<()> {
        let id = to_sql(mailbox.0);
        let mut delete = sql.prepare_cached("DELETE FROM message WHERE mailbox = ?1 RETURNING content")?;
        let gone: Sql<Vec<i64>> = delete.query_map([id], |row| row.get(0))?.collect();
        sql.prepare_cached("DELETE FROM trace WHERE mailbox = ?1")?.execute([id])?;
        if self.sweep == Sweep::AtOnce {
            for content in gone? {
                self.sweep_content(sql, MessageId(from_sql(content)))?;
            }
        }
        Ok(())
    }

    /// Gives a mailbox the numbers that its state record says.
    pub(super) fn set_head(&mut self, sql: &Connection, id: MailboxId, state: &super::record::StateMailbox) -> Sql<()> {
        if let Some(head) = self.head(sql, id)? {
            head.uid_next = state.uid_next;
            head.modseq = state.modseq;
            head.keywords = Arc::new(state.keywords.clone());
            head.dirty = true;
        }
        Ok(())
    }
}

impl Head {
    /// A message with these flags comes (1) or goes (-1).
    fn count(&mut self, flags: Flags, size: u32, by: i64) {
        self.messages += by;
        self.bytes += by * i64::from(size);
        if !flags.contains(Flags::SEEN) {
            self.unseen += by;
        }
        if flags.contains(Flags::DELETED) {
            self.deleted += by;
        }
        self.dirty = true;
    }
}

/// Keywords out of their column.
pub(super) fn split_keywords(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// A row of `message`.
pub(super) fn read_row(row: &rusqlite::Row<'_>) -> Sql<Row> {
    Ok(Row {
        uid: from_sql32(row.get(0)?),
        flags: Flags::from_raw(from_sql(row.get(1)?)),
        modseq: from_sql(row.get(2)?),
        size: from_sql32(row.get(3)?),
        internal_date: row.get(4)?,
        message: MessageId(from_sql(row.get(5)?)),
    })
}

pub(super) fn select_row(sql: &Connection, mailbox: MailboxId, uid: u32) -> Sql<Option<Row>> {
    let mut select = sql.prepare_cached(
        "SELECT uid, flags, modseq, size, internal_date, content FROM message WHERE mailbox = ?1 AND uid = ?2",
    )?;
    select.query_row((to_sql(mailbox.0), uid), read_row).optional()
}

/// The header fields put before a message for its recipient.
pub(super) fn select_trace(sql: &Connection, mailbox: MailboxId, uid: u32) -> Sql<Vec<u8>> {
    let mut select = sql.prepare_cached("SELECT bytes FROM trace WHERE mailbox = ?1 AND uid = ?2")?;
    Ok(select.query_row((to_sql(mailbox.0), uid), |row| row.get(0)).optional()?.unwrap_or_default())
}
