//! The mailbox store: messages, mailboxes, flags; durable before anyone is told so.
//!
//! Owns: the ledger of messages and changes, the SQLite view of it, the mailboxes open in memory.
//! Called by: LMTP, IMAP, POP3 of this role. Never: speaks a protocol; no one else opens its directory.
//! Spec: RFC 9051 section 2.3 (UIDs, flags), RFC 7162 (modseqs).
//!
//! - `name`, `flags`, `view`, `open`, `error`: what callers see; `read`, `search`, `check`: questions.
//! - `record`: what stands in the ledger; `tables`: what stands in the view; `apply`: from one to the other.
//! - `writer` (with `decide`, `account`): requests become records, one append for all that wait; `applier`: records become
//!   rows, new views of open mailboxes, and answers.
//! - `recovery`: opening; `compaction`, `upkeep`: giving space back, in the background.
//!
//! Invariants:
//! - nothing is answered before it is in the ledger (durable) and in the view (visible);
//! - the view can be deleted: all that it has follows from the ledger;
//! - changes have ascending numbers, and are applied in their order; a number is applied once;
//! - a UID, a mailbox id, a message id is given out once, whatever crashes or fails.

mod account;
mod applier;
mod apply;
pub mod check;
mod compaction;
mod decide;
pub mod error;
pub mod flags;
pub mod name;
pub mod open;
mod read;
mod record;
mod recovery;
mod search;
mod tables;
mod upkeep;
pub mod view;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;

pub use check::CheckReport;
pub use error::StoreError;
pub use flags::{Flag, FlagChange, Flags};
pub use name::SpecialUse;
pub use open::OpenMailbox;
pub use read::MESSAGES_READ_LEN_MAX;
pub use view::{Difference, MessageId, Row, Rows, View};

use applier::{Applier, Progressed, Work};
use compaction::Compactor;
use decide::{Incoming, Request};
use open::Registry;
use read::Reading;
use search::Needle;
use tables::{Readers, VIEW_FILE};
use upkeep::Upkeep;
use writer::{Queue, Writer};

use crate::base::size::Size;
use crate::ledger::{self, Ledger};
use crate::message::structure::{Envelope, Structure};

/// Recipients of one delivery.
pub const DELIVERIES_MAX: usize = 1_000;
/// UIDs of one change; callers with more call again (no IMAP command that changes is atomic over its messages).
pub const UIDS_PER_CHANGE_MAX: usize = 2_000;
/// UIDs of one question for envelopes or structures; callers with more call again and so stream their answer.
pub const UIDS_PER_READ_MAX: usize = 2_000;
/// Octets of one message: it has to fit in a segment of the ledger.
pub const MESSAGE_LEN_MAX: usize = 200 << 20;
/// Octets of the trace of one recipient.
pub const TRACE_LEN_MAX: usize = 64 << 10;
/// Messages larger than this are taken apart on a thread for blocking work.
const PARSE_INLINE_LEN_MAX: usize = 128 << 10;
/// Batches that wait for the applier; the writer waits when there are more.
const APPLIER_QUEUE_MAX: usize = 8;
/// UIDs that one blocking piece of a text search looks at.
const SEARCH_CHUNK: usize = 200;

/// Id of an account: its directory entry's entryUUID.
pub type AccountId = [u8; 16];

/// Id of a mailbox, stable over renames, never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxId(u64);

impl MailboxId {
    /// The id as a number (for logs and RFC 8474 MAILBOXID).
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// How a store is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Free space below which nothing that takes room is accepted.
    pub free_space_min: Size,
    /// Size of a segment of the ledger; space comes back by whole segments.
    pub segment_size: Size,
}

impl Default for Settings {
    fn default() -> Self {
        Self { free_space_min: Size::mib(256), segment_size: Size::mib(256) }
    }
}

/// One recipient of a message.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub account: AccountId,
    /// Where it goes; when that does not exist (any more), to INBOX.
    pub mailbox: String,
    /// Header fields for this recipient, each with its CRLF; they are put before the message.
    pub trace: Bytes,
    pub flags: Vec<Flag>,
}

/// Where a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    pub mailbox: MailboxId,
    pub uid_validity: u32,
    pub uid: u32,
}

/// Where an appended message went (APPENDUID, RFC 4315 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub uid_validity: u32,
    pub uid: u32,
}

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

/// What the writer answers.
type Answer = Result<Outcome, StoreError>;

/// What came of a request.
#[derive(Debug)]
enum Outcome {
    Nothing,
    Delivered(Vec<Delivered>),
    Created(MailboxId),
    Flags(FlagsSet),
    Copied(CopyUid),
}

/// What the threads and the handles of a store have in common.
#[derive(Debug, Clone)]
struct Shared {
    readers: Arc<Readers>,
    progressed: Arc<Progressed>,
    /// Ids of messages are taken before their requests queue.
    message_next: Arc<AtomicU64>,
}

/// The mailbox store. Cheap to clone; the last clone to go closes it, after all that was asked is done.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    settings: Settings,
    ledger: Ledger,
    shared: Shared,
    registry: Arc<Registry>,
    failed: watch::Receiver<bool>,
    /// Taken when the store closes: it can reach the applier.
    compactor: Option<Arc<Mutex<Compactor>>>,
    /// Taken when the store closes, so that the writer ends.
    queue: Option<Queue>,
    /// Dropped when the store closes, so that the upkeep ends.
    stop: Option<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        self.stop = None;
        self.compactor = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Store {
    /// Opens the store in `dir`, makes one when there is none, repairs what a crash left. Blocks.
    ///
    /// # Errors
    /// When the disk cannot be read or written, an acknowledged record is damaged, or another process has the store open.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, StoreError> {
        let options = ledger::Options { segment_bytes: settings.segment_size.get(), ..ledger::Options::default() };
        let (ledger, _) = Ledger::open(&dir.join("ledger"), options)?;
        let (connection, progress) = recovery::open(dir, &ledger)?;
        let counters = progress.counters;
        let shared = Shared {
            readers: Arc::new(Readers::new(dir.join(VIEW_FILE))),
            progressed: Arc::new(Progressed::new(counters.seq)),
            message_next: Arc::new(AtomicU64::new(counters.message_next)),
        };
        let registry = Arc::new(Registry::default());
        let (to_applier, work) = mpsc::sync_channel::<Work>(APPLIER_QUEUE_MAX);
        let (failed_sender, failed) = watch::channel(false);
        let (stop, stopped) = mpsc::channel();
        let (writer, queue) = Writer::new(ledger.clone(), &shared, counters, to_applier.clone());
        let applier = Applier {
            work,
            connection,
            registry: Arc::clone(&registry),
            progressed: Arc::clone(&shared.progressed),
            failed: failed_sender,
            dir: dir.to_owned(),
        };
        let compactor = Arc::new(Mutex::new(Compactor {
            ledger: ledger.clone(),
            readers: Arc::clone(&shared.readers),
            applier: to_applier.clone(),
            view: dir.join(VIEW_FILE),
            rejected: HashMap::new(),
        }));
        let upkeep = Upkeep {
            view: dir.join(VIEW_FILE),
            progressed: Arc::clone(&shared.progressed),
            applier: to_applier,
            compactor: Arc::clone(&compactor),
            stop: stopped,
        };
        let threads = vec![
            spawn("store-writer", move || writer.run())?,
            spawn("store-applier", move || applier.run())?,
            spawn("store-upkeep", move || upkeep.run())?,
        ];
        let (dir, compactor, queue, stop) = (dir.to_owned(), Some(compactor), Some(queue), Some(stop));
        let inner = Inner { dir, settings, ledger, shared, registry, failed, compactor, queue, stop, threads };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.inner.settings
    }

    /// Records, groups (each one flush) and bytes written since it was opened.
    #[must_use]
    pub fn statistics(&self) -> ledger::Statistics {
        self.inner.ledger.statistics()
    }

    /// Gives the space of dead records back, as the upkeep does from time to time; says how many segments were removed.
    /// Blocks.
    ///
    /// # Errors
    /// When the disk cannot be read or written, or a record is damaged: then nothing is removed.
    pub fn compact(&self) -> Result<usize, StoreError> {
        let compactor = self.inner.compactor.as_ref().ok_or(StoreError::Closed)?;
        let mut removed = 0;
        while compactor.lock().unwrap_or_else(PoisonError::into_inner).compact_one()?.is_some() {
            removed += 1;
        }
        Ok(removed)
    }

    /// Resolves when the store cannot go on (its view is damaged): the role should end and be started again, which repairs it.
    pub async fn failed(&self) {
        let mut failed = self.inner.failed.clone();
        // The sender goes only when the applier has ended, for whatever reason.
        drop(failed.wait_for(|failed| *failed).await);
    }

    async fn ask(&self, request: Request, bytes: usize) -> Answer {
        match &self.inner.queue {
            Some(queue) => queue.ask(request, bytes).await,
            None => Err(StoreError::Closed),
        }
    }

    fn reading(&self) -> Reading {
        Reading { readers: Arc::clone(&self.inner.shared.readers), ledger: self.inner.ledger.clone() }
    }

    /// Reads on a thread for blocking work.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reading) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reading = self.reading();
        tokio::task::spawn_blocking(move || read(&reading)).await.map_err(|_| StoreError::Closed)?
    }

    /// Refuses what takes room while there is too little.
    fn check_room(&self) -> Result<(), StoreError> {
        let disk = nix::sys::statvfs::statvfs(&self.inner.dir).map_err(std::io::Error::from)?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < self.inner.settings.free_space_min.get() { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Takes a message apart and makes its record.
    async fn incoming(&self, message: Bytes, internal_date: i64) -> Result<Incoming, StoreError> {
        if message.len() > MESSAGE_LEN_MAX {
            return Err(StoreError::Limit("Message is too large"));
        }
        let id = MessageId(self.inner.shared.message_next.fetch_add(1, Ordering::Relaxed));
        let small = message.len() <= PARSE_INLINE_LEN_MAX;
        let make = move || Incoming {
            id,
            record: record::message(id, &message),
            size: u32::try_from(message.len()).unwrap_or(u32::MAX),
            structure: Structure::parse(&message).encode(),
            internal_date,
        };
        if small { Ok(make()) } else { tokio::task::spawn_blocking(make).await.map_err(|_| StoreError::Closed) }
    }

    /// Delivers one message to many. Durable and visible to all sessions when it resolves: all or none.
    ///
    /// # Errors
    /// `Full`, `Limit`, or when the ledger cannot be written.
    pub async fn deliver(
        &self,
        message: Bytes,
        deliveries: Vec<Delivery>,
        received: SystemTime,
    ) -> Result<Vec<Delivered>, StoreError> {
        if deliveries.len() > DELIVERIES_MAX {
            return Err(StoreError::Limit("Too many recipients at once"));
        }
        if deliveries.iter().any(|delivery| delivery.trace.len() > TRACE_LEN_MAX) {
            return Err(StoreError::Limit("Trace is too long"));
        }
        self.check_room()?;
        let secs = received.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let traces: usize = deliveries.iter().map(|delivery| delivery.trace.len() + 128).sum();
        let bytes = message.len() + traces;
        let incoming = self.incoming(message, i64::try_from(secs).unwrap_or(i64::MAX)).await?;
        let Outcome::Delivered(delivered) = self.ask(Request::Deliver(incoming, deliveries), bytes).await? else {
            return Err(StoreError::Closed);
        };
        Ok(delivered)
    }

    /// Puts a message into a mailbox that must exist. `internal_date`: seconds since 1970.
    ///
    /// # Errors
    /// `NoSuchMailbox`, `Full`, `Limit`, or when the ledger cannot be written.
    pub async fn append(
        &self,
        account: AccountId,
        mailbox: &str,
        message: Bytes,
        flags: &[Flag],
        internal_date: i64,
    ) -> Result<Appended, StoreError> {
        self.check_room()?;
        let bytes = message.len();
        let incoming = self.incoming(message, internal_date).await?;
        let request = Request::Append(incoming, account, mailbox.to_owned(), flags.to_vec());
        let Outcome::Delivered(delivered) = self.ask(request, bytes).await? else { return Err(StoreError::Closed) };
        let done = delivered.first().ok_or(StoreError::Closed)?;
        Ok(Appended { uid_validity: done.uid_validity, uid: done.uid })
    }

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
        let (id, rows) = (mailbox.id(), wanted(mailbox, uids));
        self.read(move |reading| reading.messages(id, &rows)).await
    }

    /// Header blocks (trace, then the message's own, blank line included) of at most `UIDS_PER_READ_MAX` messages, in the order asked for.
    ///
    /// # Errors
    /// When one cannot be read or is damaged.
    pub async fn headers(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let (id, rows) = (mailbox.id(), wanted(mailbox, uids));
        self.read(move |reading| reading.headers(id, &rows)).await
    }

    /// Envelopes of at most `UIDS_PER_READ_MAX` messages, in the order asked for; no message is read.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn envelopes(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<Vec<Option<Envelope>>, StoreError> {
        let (id, rows) = (mailbox.id(), wanted(mailbox, uids));
        self.read(move |reading| reading.envelopes(id, &rows)).await
    }

    /// Envelope and MIME structure of at most `UIDS_PER_READ_MAX` messages, in the order asked for; no message is read. Offsets are those of `message`.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub async fn structures(&self, mailbox: &OpenMailbox, uids: &[u32]) -> Result<Vec<Option<Structure>>, StoreError> {
        let (id, rows) = (mailbox.id(), wanted(mailbox, uids));
        self.read(move |reading| reading.structures(id, &rows)).await
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
        let mut found = Vec::new();
        for chunk in uids.chunks(SEARCH_CHUNK) {
            let (id, mut rows, needle, place) =
                (mailbox.id(), wanted(mailbox, chunk), Arc::clone(&needle), place.clone());
            let hits = self.read(move |reading| {
                let mut hits = Vec::new();
                while !rows.is_empty() {
                    let messages = reading.messages(id, &rows)?;
                    for (row, message) in rows.drain(..messages.len()).zip(messages) {
                        let hit = message.is_some_and(|message| needle.matches(&message, &place));
                        hits.extend(row.filter(|_| hit).map(|row| row.uid));
                    }
                }
                Ok(hits)
            });
            found.extend(hits.await?);
        }
        Ok(found)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    Ok(thread::Builder::new().name(name.to_owned()).spawn(run)?)
}

fn check_uids(uids: &[u32]) -> Result<(), StoreError> {
    if uids.len() > UIDS_PER_CHANGE_MAX { Err(StoreError::Limit("Too many messages at once")) } else { Ok(()) }
}

/// The rows of these UIDs, as the mailbox has them now; at most `UIDS_PER_READ_MAX`.
fn wanted(mailbox: &OpenMailbox, uids: &[u32]) -> Vec<Option<Row>> {
    let view = mailbox.view();
    uids.iter().take(UIDS_PER_READ_MAX).map(|uid| view.messages.by_uid(*uid).copied()).collect()
}
