//! What a mailbox holds, as all sessions see it at one moment.
//!
//! Owns: `View`, an immutable snapshot, and `Rows`, its messages in UID order. Called by: the store
//! (makes new ones), IMAP and POP3 (read them). Never: touches a disk.
//!
//! Invariants: UIDs ascend strictly; no chunk is empty; `Placed::start` is the number of rows before the chunk.
//!
//! A new snapshot shares all chunks that did not change: a flag change in a mailbox of 100,000 messages
//! copies one chunk, and two snapshots are compared by looking only at chunks that are not the same memory.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::columns;
use super::flags::Flags;

/// Rows of a chunk when it is filled from the front; it is split when an insertion makes it twice as long.
pub(super) const CHUNK_ROWS: usize = 256;

/// Id of the bytes of a message; copies share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub(super) u64);

impl MessageId {
    /// The id as a number, stable for the life of the message.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// One message of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub uid: u32,
    /// Octets of what `Store::message` gives (RFC822.SIZE).
    pub size: u32,
    pub flags: Flags,
    pub modseq: u64,
    /// Seconds since 1970.
    pub internal_date: i64,
    pub message: MessageId,
}

/// A mailbox at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub uid_next: u32,
    pub highest_modseq: u64,
    /// Names of the keyword bits, in order. Only ever grows.
    pub keywords: Arc<Vec<String>>,
    pub messages: Rows,
}

/// What differs between two views of a mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Messages that are gone: their indexes (sequence number - 1) in the old view, ascending.
    pub expunged: Vec<usize>,
    /// Messages whose flags differ: their indexes in the new view, ascending.
    pub changed: Vec<usize>,
    /// Messages that were added; they are the last ones of the new view.
    pub added: usize,
}

impl View {
    /// What happened between `old` and this view.
    #[must_use]
    pub fn since(&self, old: &Self) -> Difference {
        self.messages.since(&old.messages)
    }
}

/// Rows that stand together; packed until someone looks at one of them.
#[derive(Debug)]
struct Chunk {
    first_uid: u32,
    len: usize,
    unseen: usize,
    rows: OnceLock<Vec<Row>>,
    packed: Bytes,
}

impl Chunk {
    fn new(rows: Vec<Row>) -> Arc<Self> {
        let unseen = rows.iter().filter(|row| !row.flags.contains(Flags::SEEN)).count();
        let first_uid = rows.first().map_or(u32::MAX, |row| row.uid);
        Arc::new(Self { first_uid, len: rows.len(), unseen, rows: rows.into(), packed: Bytes::new() })
    }

    fn rows(&self) -> &[Row] {
        self.rows.get_or_init(|| {
            // Whoever gave it packed has seen to it that it is what `columns` made.
            columns::unpack(&self.packed, self.len).unwrap_or_else(|error| {
                tracing::error!(%error, uid = self.first_uid, "rows of a mailbox cannot be unpacked");
                Vec::new()
            })
        })
    }
}

/// A chunk that is still packed, and what has to be known of it all the same.
#[derive(Debug)]
pub(super) struct PackedChunk {
    pub(super) first_uid: u32,
    pub(super) len: usize,
    pub(super) unseen: usize,
    pub(super) packed: Bytes,
}

/// A chunk and the number of rows before it.
#[derive(Debug, Clone)]
struct Placed {
    start: usize,
    chunk: Arc<Chunk>,
}

/// The messages of a view, in UID order. An index here is the IMAP sequence number less one.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    chunks: Vec<Placed>,
    len: usize,
    unseen: usize,
}

impl Rows {
    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many messages lack `\Seen`.
    #[must_use]
    pub fn unseen(&self) -> usize {
        self.unseen
    }

    /// Index of the first message that lacks `\Seen`.
    #[must_use]
    pub fn first_unseen(&self) -> Option<usize> {
        let placed = self.chunks.iter().find(|placed| placed.chunk.unseen > 0)?;
        let within = placed.chunk.rows().iter().position(|row| !row.flags.contains(Flags::SEEN))?;
        Some(placed.start + within)
    }

    /// The message at an index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Row> {
        let placed = self.chunk_of_index(index)?;
        placed.chunk.rows().get(index - placed.start)
    }

    /// The first message.
    #[must_use]
    pub fn first(&self) -> Option<&Row> {
        self.get(0)
    }

    /// The message with the highest UID.
    #[must_use]
    pub fn last(&self) -> Option<&Row> {
        self.chunks.last()?.chunk.rows().last()
    }

    /// Index of the message with this UID.
    #[must_use]
    pub fn position(&self, uid: u32) -> Option<usize> {
        let index = self.lower_bound(uid);
        (self.get(index)?.uid == uid).then_some(index)
    }

    /// The message with this UID.
    #[must_use]
    pub fn by_uid(&self, uid: u32) -> Option<&Row> {
        self.get(self.lower_bound(uid)).filter(|row| row.uid == uid)
    }

    /// How many messages have a UID below `uid`: the index of the first one that has not.
    #[must_use]
    pub fn lower_bound(&self, uid: u32) -> usize {
        let after = self.chunks.partition_point(|placed| placed.chunk.first_uid < uid);
        match after.checked_sub(1).and_then(|at| self.chunks.get(at)) {
            None => 0,
            Some(placed) => placed.start + placed.chunk.rows().partition_point(|row| row.uid < uid),
        }
    }

    /// All messages in UID order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.chunks.iter().flat_map(|placed| placed.chunk.rows().iter())
    }

    /// The messages from an index on. Finding the first costs a search, each further one nothing.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = &Row> {
        let at = self.chunks.partition_point(|placed| placed.start <= index).saturating_sub(1);
        let rest = self.chunks.get(at..).unwrap_or_default();
        let skip = rest.first().map_or(0, |placed| index - placed.start);
        rest.iter().flat_map(|placed| placed.chunk.rows().iter()).skip(skip)
    }

    fn chunk_of_index(&self, index: usize) -> Option<&Placed> {
        let after = self.chunks.partition_point(|placed| placed.start <= index);
        self.chunks.get(after.checked_sub(1)?)
    }

    /// All rows, given in UID order.
    pub(super) fn from_sorted(rows: &[Row]) -> Self {
        let mut out = Self::default();
        out.rebuild(rows.chunks(CHUNK_ROWS).map(|rows| Chunk::new(rows.to_vec())).collect());
        out
    }

    /// As `from_sorted`, in chunks that are packed: they are unpacked when someone looks at their rows.
    pub(super) fn from_packed(chunks: Vec<PackedChunk>) -> Self {
        let chunk = |PackedChunk { first_uid, len, unseen, packed }| {
            Arc::new(Chunk { first_uid, len, unseen, rows: OnceLock::new(), packed })
        };
        let mut out = Self::default();
        out.rebuild(chunks.into_iter().map(chunk).collect());
        out
    }

    /// Places the chunks anew.
    fn rebuild(&mut self, chunks: Vec<Arc<Chunk>>) {
        self.len = 0;
        self.unseen = 0;
        self.chunks = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let start = self.len;
            self.len += chunk.len;
            self.unseen += chunk.unseen;
            self.chunks.push(Placed { start, chunk });
        }
    }

    /// Puts rows at the end; their UIDs are above all others and ascend.
    pub(super) fn push_all(&mut self, mut rows: &[Row]) {
        if let Some(last) = self.chunks.last()
            && last.chunk.len < CHUNK_ROWS
            && let Some((fill, rest)) = rows.split_at_checked(rows.len().min(CHUNK_ROWS - last.chunk.len))
        {
            let mut filled = Vec::with_capacity(CHUNK_ROWS);
            filled.extend_from_slice(last.chunk.rows());
            filled.extend_from_slice(fill);
            let start = last.start;
            self.unseen -= last.chunk.unseen;
            self.len = start;
            self.chunks.pop();
            self.place(Chunk::new(filled));
            rows = rest;
        }
        for rows in rows.chunks(CHUNK_ROWS) {
            self.place(Chunk::new(rows.to_vec()));
        }
    }

    fn place(&mut self, chunk: Arc<Chunk>) {
        let start = self.len;
        self.len += chunk.len;
        self.unseen += chunk.unseen;
        self.chunks.push(Placed { start, chunk });
    }

    /// Gives the rows of these UIDs new flags and modseqs, or takes them away (`None`). UIDs that are not here do nothing.
    pub(super) fn edit(&mut self, edits: &BTreeMap<u32, Option<(Flags, u64)>>) {
        let mut chunks = Vec::with_capacity(self.chunks.len());
        for (at, placed) in self.chunks.iter().enumerate() {
            let first = placed.chunk.first_uid;
            let end = self.chunks.get(at + 1).map_or(u32::MAX, |next| next.chunk.first_uid);
            let mut mine = edits.range(first..end).peekable();
            if mine.peek().is_none() {
                chunks.push(Arc::clone(&placed.chunk));
                continue;
            }
            let edited = |row: &Row| match edits.get(&row.uid) {
                None => Some(*row),
                Some(None) => None,
                Some(Some((flags, modseq))) => Some(Row { flags: *flags, modseq: *modseq, ..*row }),
            };
            let rows: Vec<Row> = placed.chunk.rows().iter().filter_map(edited).collect();
            if !rows.is_empty() {
                chunks.push(Chunk::new(rows));
            }
        }
        self.rebuild(chunks);
    }

    /// What happened between `old` and these rows.
    pub(super) fn since(&self, old: &Self) -> Difference {
        let mut difference = Difference::default();
        let (mut was, mut is) = (Cursor::new(old), Cursor::new(self));
        loop {
            if let (Some(before), Some(now)) = (was.whole_chunk(), is.whole_chunk())
                && Arc::ptr_eq(before, now)
            {
                was.skip_chunk();
                is.skip_chunk();
                continue;
            }
            match (was.row(), is.row()) {
                (Some(before), Some(now)) if before.uid == now.uid => {
                    if before.flags != now.flags {
                        difference.changed.push(is.index);
                    }
                    was.step();
                    is.step();
                }
                (Some(before), Some(now)) if before.uid > now.uid => {
                    // A UID between old ones cannot come into being: only ascending ones are given out.
                    difference.added += 1;
                    is.step();
                }
                (Some(_), _) => {
                    difference.expunged.push(was.index);
                    was.step();
                }
                (None, Some(_)) => {
                    difference.added = self.len - is.index;
                    return difference;
                }
                (None, None) => return difference,
            }
        }
    }
}

/// A place in `Rows` that can step by row and by whole chunk.
struct Cursor<'a> {
    rows: &'a Rows,
    chunk: usize,
    within: usize,
    index: usize,
}

impl<'a> Cursor<'a> {
    fn new(rows: &'a Rows) -> Self {
        Self { rows, chunk: 0, within: 0, index: 0 }
    }

    fn row(&self) -> Option<&'a Row> {
        self.rows.chunks.get(self.chunk)?.chunk.rows().get(self.within)
    }

    /// The chunk, when the cursor stands at its start.
    fn whole_chunk(&self) -> Option<&'a Arc<Chunk>> {
        if self.within == 0 { self.rows.chunks.get(self.chunk).map(|placed| &placed.chunk) } else { None }
    }

    fn skip_chunk(&mut self) {
        self.chunk += 1;
        self.within = 0;
        self.index = self.rows.chunks.get(self.chunk).map_or(self.rows.len, |placed| placed.start);
    }

    fn step(&mut self) {
        self.within += 1;
        self.index += 1;
        if self.rows.chunks.get(self.chunk).is_none_or(|placed| self.within >= placed.chunk.len) {
            self.chunk += 1;
            self.within = 0;
        }
    }
}
