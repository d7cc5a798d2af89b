//! FETCH: what is asked of messages, read from the store in batches and written as it comes.
//!
//! Owns: the plan of what must be read, the batches, `\Seen`. Called by: `imap::run`. Never: holds the answer to a whole
//! FETCH: batches are bounded, and the next is read when the client has taken the one before.
//! Spec: RFC 3501 section 6.4.5 and 7.4.2, RFC 7162 section 3.1.4 (CHANGEDSINCE).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::warn;

use super::{Done, RunError, Work, ok};
use crate::message::structure::{Envelope, Structure};
use crate::pop_imap::imap::command::{FetchRequest, Item};
use crate::pop_imap::imap::out::Out;
use crate::pop_imap::imap::section::Section;
use crate::pop_imap::imap::{envelope, selected, structure, write};
use crate::pop_imap::store::{Flag, FlagChange, Flags, OpenMailbox, Row, Store, StoreError, View};

/// Messages of one batch.
const BATCH_MAX: usize = 500;

/// What must be read to answer.
#[derive(Debug, Default, Clone, Copy)]
struct Plan {
    envelope: bool,
    structure: bool,
    header: bool,
    message: bool,
    /// What is read counts as seen.
    seen: bool,
}

impl Plan {
    fn of(items: &[Item]) -> Self {
        let mut plan = Self::default();
        for item in items {
            match item {
                Item::Flags | Item::Uid | Item::InternalDate | Item::Size | Item::ModSeq => {}
                Item::Envelope => plan.envelope = true,
                Item::Body | Item::BodyStructure => plan.structure = true,
                Item::Section { section, peek, .. } | Item::Rfc822 { section, peek, .. } => {
                    plan.structure |= section.needs_structure();
                    plan.header |= section.needs_header_only();
                    plan.message |= !section.needs_header_only();
                    plan.seen |= !peek;
                }
            }
        }
        // The structure has the envelope, the message has the header.
        plan.envelope &= !plan.structure;
        plan.header &= !plan.message;
        plan
    }

    fn reads(self) -> bool {
        self.envelope || self.structure || self.header || self.message
    }
}

/// What was read of one message.
#[derive(Debug, Default)]
struct Content {
    envelope: Option<Envelope>,
    structure: Option<Structure>,
    /// The message, or its header block when no more is asked for.
    text: Option<Bytes>,
}

/// One message to answer for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Sequence number less one, as the session counts.
    index: usize,
    row: Row,
    /// Its flags changed by this command, so they are told.
    tell_flags: bool,
}

impl<W: AsyncWrite + Unpin + Send> Work<'_, W> {
    pub(super) async fn fetch(
        &mut self,
        request: &FetchRequest,
        known: &mut Vec<(u32, Flags)>,
    ) -> Result<Done, RunError> {
        let modseq = request.changed_since.is_some() || request.items.contains(&Item::ModSeq);
        // RFC 7162 section 3.1: both enable CONDSTORE.
        self.session.condstore |= modseq;
        let telling = self.session.telling(false, request.uid);
        let Some(selected) = self.session.selected() else { return Ok(Done::Bad("Select a mailbox first")) };
        selected.catch_up(&mut self.out.buffer, telling, &[]);
        let (open, view) = (Arc::clone(&selected.open), Arc::clone(&selected.view));
        let plan = Plan::of(&request.items);
        let seen = plan.seen && !selected.read_only;
        let items = effective_items(request, modseq);
        let mut gone = false;
        for ranges in batches(request.set.positions(&view, request.uid)) {
            // Flags may have changed, and messages gone, since the session was last told; what is told is the truth now.
            let mut now = open.view();
            let mut batch = Vec::with_capacity(BATCH_MAX);
            let rows = ranges.into_iter().flat_map(|range| range.clone().zip(view.messages.iter_from(range.start)));
            for (index, row) in rows {
                let row = if Arc::ptr_eq(&view, &now) { Some(row) } else { now.messages.by_uid(row.uid) };
                match row {
                    Some(row) if request.changed_since.is_some_and(|since| row.modseq <= since) => {}
                    Some(row) => batch.push(Wanted { index, row: *row, tell_flags: false }),
                    None => gone = true,
                }
            }
            if seen {
                now = self.mark_seen(&open, &mut batch, known).await.unwrap_or(now);
            }
            if plan.reads() {
                gone |= self.answer_read(&open, plan, &batch, &items, &now).await?;
            } else {
                for wanted in &batch {
                    write_rows(&mut self.out.buffer, &items, wanted, &now);
                }
                self.out.relieve().await?;
            }
        }
        known.sort_unstable_by_key(|&(uid, _)| uid);
        // RFC 3501 section 6.4.8: UIDs that do not exist are no fault.
        if gone && !request.uid {
            // RFC 2180 section 4.1.2, RFC 5530: gone by another session; EXPUNGE comes when it may.
            return Ok(Done::No("[EXPUNGEISSUED] Some of the messages are gone".to_owned()));
        }
        Ok(ok("Fetch completed"))
    }

    /// Sets `\Seen` where it is missing (RFC 3501 section 6.4.5). A store that cannot (disk full) does not keep mail from being read.
    async fn mark_seen(
        &mut self,
        open: &Arc<OpenMailbox>,
        batch: &mut [Wanted],
        known: &mut Vec<(u32, Flags)>,
    ) -> Option<Arc<View>> {
        let unseen: Vec<u32> = batch
            .iter()
            .filter(|wanted| !wanted.row.flags.contains(Flags::SEEN))
            .map(|wanted| wanted.row.uid)
            .collect();
        if unseen.is_empty() {
            return None;
        }
        if let Err(error) = self.store.set_flags(open, &unseen, FlagChange::Add, &[Flag::Seen], None).await {
            warn!(%error, "messages could not be marked as seen");
            return None;
        }
        let now = open.view();
        for wanted in batch {
            let Some(row) = now.messages.by_uid(wanted.row.uid) else { continue };
            if row.flags != wanted.row.flags {
                wanted.row = *row;
                wanted.tell_flags = true;
                known.push((row.uid, row.flags));
            }
        }
        Some(now)
    }

    /// Answers for a batch with what the store reads; true when some were gone.
    async fn answer_read(
        &mut self,
        open: &OpenMailbox,
        plan: Plan,
        mut batch: &[Wanted],
        items: &[Item],
        now: &View,
    ) -> Result<bool, RunError> {
        let mut gone = false;
        while !batch.is_empty() {
            let uids: Vec<u32> = batch.iter().map(|wanted| wanted.row.uid).collect();
            let contents = read(self.store, open, plan, &uids).await?;
            // The store answers for as many as fit its bound on memory, at least one.
            let (answered, rest) = batch.split_at_checked(contents.len().max(1)).unwrap_or((batch, &[]));
            for (wanted, content) in answered.iter().zip(&contents) {
                match content {
                    Some(content) => write_message(self.out, items, wanted, now, content).await?,
                    None => gone = true,
                }
            }
            batch = rest;
        }
        Ok(gone)
    }
}

/// The items, and UID and MODSEQ when the command implies them (RFC 3501 section 6.4.8, RFC 7162 section 3.1.4.1).
fn effective_items(request: &FetchRequest, modseq: bool) -> Vec<Item> {
    let mut items = Vec::with_capacity(request.items.len() + 2);
    if request.uid {
        items.push(Item::Uid);
    }
    for item in &request.items {
        if !items.contains(item) {
            items.push(item.clone());
        }
    }
    if modseq && !items.contains(&Item::ModSeq) {
        items.push(Item::ModSeq);
    }
    items
}

/// The ranges in groups of at most `BATCH_MAX` positions.
fn batches(ranges: Vec<Range<usize>>) -> Vec<Vec<Range<usize>>> {
    let (mut groups, mut group, mut room) = (Vec::new(), Vec::new(), BATCH_MAX);
    for mut range in ranges {
        while !range.is_empty() {
            let cut = range.end.min(range.start + room);
            group.push(range.start..cut);
            room -= cut - range.start;
            range.start = cut;
            if room == 0 {
                groups.push(std::mem::take(&mut group));
                room = BATCH_MAX;
            }
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

/// The message that has this position in the session's view, as it is now.
pub(super) fn row_now(view: &Arc<View>, now: &Arc<View>, index: usize) -> Option<Row> {
    let row = view.messages.get(index)?;
    if Arc::ptr_eq(view, now) {
        return Some(*row);
    }
    now.messages.by_uid(row.uid).copied()
}

/// Reads what the plan wants of the first of these messages.
async fn read(store: &Store, open: &OpenMailbox, plan: Plan, uids: &[u32]) -> Result<Vec<Option<Content>>, StoreError> {
    let texts = if plan.message {
        Some(store.messages(open, uids).await?)
    } else if plan.header {
        Some(store.headers(open, uids).await?)
    } else {
        None
    };
    let count = texts.as_ref().map_or(uids.len(), Vec::len);
    let uids = uids.get(..count).unwrap_or(uids);
    let structures = if plan.structure { Some(store.structures(open, uids).await?) } else { None };
    let envelopes = if plan.envelope { Some(store.envelopes(open, uids).await?) } else { None };
    let (mut texts, mut structures, mut envelopes) =
        (texts.map(Vec::into_iter), structures.map(Vec::into_iter), envelopes.map(Vec::into_iter));
    let contents = (0..count).map(|_| {
        // What was asked for and is not there means that the message is gone.
        let text = match &mut texts {
            Some(texts) => Some(texts.next().flatten()?),
            None => None,
        };
        let structure = match &mut structures {
            Some(structures) => Some(structures.next().flatten()?),
            None => None,
        };
        let envelope = match &mut envelopes {
            Some(envelopes) => Some(envelopes.next().flatten()?),
            None => None,
        };
        Some(Content { envelope, structure, text })
    });
    Ok(contents.collect())
}

/// Writes one FETCH answer for which the row is enough.
fn write_rows(out: &mut Vec<u8>, items: &[Item], wanted: &Wanted, now: &View) {
    write_start(out, wanted);
    for (nth, item) in items.iter().enumerate() {
        if nth > 0 {
            out.push(b' ');
        }
        write_item(out, item, wanted, now, &Content::default());
    }
    out.extend_from_slice(b")\r\n");
}

/// Writes one FETCH answer.
async fn write_message<W: AsyncWrite + Unpin + Send>(
    out: &mut Out<W>,
    items: &[Item],
    wanted: &Wanted,
    now: &View,
    content: &Content,
) -> Result<(), RunError> {
    write_start(&mut out.buffer, wanted);
    for (nth, item) in items.iter().enumerate() {
        if nth > 0 {
            out.buffer.push(b' ');
        }
        if let Some(text) = write_item(&mut out.buffer, item, wanted, now, content) {
            match text {
                Some(bytes) => out.literal(&bytes).await?,
                None => write::nstring(&mut out.buffer, None),
            }
        }
    }
    if wanted.tell_flags && !items.contains(&Item::Flags) {
        out.buffer.push(b' ');
        selected::write_flags(&mut out.buffer, wanted.row.flags, &now.keywords);
    }
    out.buffer.extend_from_slice(b")\r\n");
    Ok(out.relieve().await?)
}

fn write_start(out: &mut Vec<u8>, wanted: &Wanted) {
    out.extend_from_slice(b"* ");
    write::number(out, u64::try_from(wanted.index + 1).unwrap_or(u64::MAX));
    out.extend_from_slice(b" FETCH (");
}

/// Writes one item. Some: its name only, and this text is still to follow (or NIL for no text).
fn write_item(
    buffer: &mut Vec<u8>,
    item: &Item,
    wanted: &Wanted,
    now: &View,
    content: &Content,
) -> Option<Option<Bytes>> {
    let row = &wanted.row;
    match item {
        Item::Flags => selected::write_flags(buffer, row.flags, &now.keywords),
        Item::Uid => number_item(buffer, b"UID ", u64::from(row.uid)),
        Item::Size => number_item(buffer, b"RFC822.SIZE ", u64::from(row.size)),
        Item::ModSeq => {
            number_item(buffer, b"MODSEQ (", row.modseq);
            buffer.push(b')');
        }
        Item::InternalDate => {
            buffer.extend_from_slice(b"INTERNALDATE ");
            write::date_time(buffer, row.internal_date);
        }
        Item::Envelope => {
            buffer.extend_from_slice(b"ENVELOPE ");
            let of_structure = content.structure.as_ref().map(|structure| &structure.envelope);
            if let Some(found) = content.envelope.as_ref().or(of_structure) {
                envelope::write(buffer, found);
            }
        }
        Item::Body | Item::BodyStructure => {
            let extended = matches!(item, Item::BodyStructure);
            buffer.extend_from_slice(if extended { b"BODYSTRUCTURE ".as_slice() } else { b"BODY " });
            if let Some(found) = &content.structure {
                structure::write(buffer, &found.root, extended);
            }
        }
        Item::Section { section, partial, .. } => {
            buffer.extend_from_slice(b"BODY");
            section.write(buffer);
            if let Some(partial) = partial {
                write::text(buffer, format_args!("<{}>", partial.offset));
            }
            buffer.push(b' ');
            let found = resolve(section, content);
            return Some(found.map(|bytes| partial.map_or_else(|| bytes.clone(), |partial| partial.cut(&bytes))));
        }
        Item::Rfc822 { section, word, .. } => {
            buffer.extend_from_slice(word.as_bytes());
            buffer.push(b' ');
            return Some(resolve(section, content));
        }
    }
    None
}

fn number_item(out: &mut Vec<u8>, word: &[u8], number: u64) {
    out.extend_from_slice(word);
    write::number(out, number);
}

fn resolve(section: &Section, content: &Content) -> Option<Bytes> {
    section.resolve(content.text.as_ref()?, content.structure.as_ref())
}
