//! The mailbox store: messages, mailboxes, flags; durable before anyone is told so.
//!
//! Owns: the ledger of messages and changes, the SQLite view of it, the mailboxes open in memory.
//! Called by: LMTP, IMAP, POP3 of this role. Never: speaks a protocol; no one else opens its directory.
//! Spec: RFC 9051 section 2.3 (UIDs, flags), RFC 7162 (modseqs).
//!
//! - `delivery`, `mailboxes`, `messages`: what can be asked of the store, each with what it answers.
//! - `name`, `flags`, `view`, `open`, `error`: what callers see; `read`, `search`, `check`: questions.
//! - `record`: what stands in the ledger; `tables`: what stands in the view; `apply`: from one to the other.
//! - `writer` (with `decide`, `account`): requests become records, one append for all that wait; `applier`: records become
//!   rows, new views of open mailboxes, and answers.
//! - `roll` (with `columns`): the rows of a large mailbox in one piece, for opening it.
//! - `snapshot`: all that the store has at one moment, or what has changed since another, to be backed up.
//! - `repeats`: deliveries that came before. `recovery`: opening; `compaction`, `upkeep`: giving space back, in the background.
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
mod columns;
mod compaction;
mod decide;
mod delivery;
pub mod error;
pub mod flags;
mod mailboxes;
mod messages;
pub mod name;
pub mod open;
mod read;
mod record;
mod recovery;
mod repeats;
mod roll;
mod search;
pub mod snapshot;
mod tables;
mod upkeep;
pub mod view;
mod writer;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;

pub use check::CheckReport;
pub use delivery::{Appended, DELIVERIES_MAX, Delivered, Delivery, MESSAGE_LEN_MAX, TRACE_LEN_MAX};
pub use error::StoreError;
pub use flags::{Flag, FlagChange, Flags};
pub use mailboxes::MailboxInfo;
pub use messages::{CopyUid, FlagsSet, UIDS_PER_CHANGE_MAX, UIDS_PER_READ_MAX, Where};
pub use name::SpecialUse;
pub use open::OpenMailbox;
pub use read::MESSAGES_READ_LEN_MAX;
pub use repeats::{DeliveryKey, REPEATS_MAX};
pub use view::{Difference, MessageId, Row, Rows, View};

use applier::{Applier, Progressed, Work};
use compaction::Compactor;
use decide::{Decider, Request};
use open::Registry;
use read::Reading;
use repeats::Repeats;
use tables::{Readers, VIEW_FILE};
use upkeep::Upkeep;
use writer::{Queue, Writer};

use crate::base::size::Size;
use crate::ledger::{self, Ledger};

/// Batches that wait for the applier; the writer waits when there are more.
const APPLIER_QUEUE_MAX: usize = 8;

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

/// What the writer answers.
type Answer = Result<Outcome, StoreError>;

/// What came of a request.
#[derive(Debug)]
enum Outcome {
    Nothing,
    Delivered(Vec<Option<Delivered>>),
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
        let repeats = Repeats::load(&connection)?;
        let shared = Shared {
            readers: Arc::new(Readers::new(dir.join(VIEW_FILE))),
            progressed: Arc::new(Progressed::new(counters.seq)),
            message_next: Arc::new(AtomicU64::new(counters.message_next)),
        };
        // Whoever asks first finds a connection that knows the tables.
        shared.readers.read(|sql| Ok(tables::read_progress(sql)?))?;
        let decider = Decider::new(Arc::clone(&shared.readers), counters, repeats);
        let registry = Arc::new(Registry::default());
        let (to_applier, work) = mpsc::sync_channel::<Work>(APPLIER_QUEUE_MAX);
        let (failed_sender, failed) = watch::channel(false);
        let (stop, stopped) = mpsc::channel();
        let (writer, queue) = Writer::new(ledger.clone(), &shared, decider, to_applier.clone());
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
            queue: queue.clone(),
            free_space_min: settings.free_space_min.get(),
            was_short: false,
            rejected: HashMap::new(),
            held: Arc::default(),
        }));
        let upkeep = Upkeep {
            readers: Arc::clone(&shared.readers),
            registry: Arc::clone(&registry),
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

    /// Writes the rolls that are due, as the upkeep does from time to time.
    #[cfg(test)]
    fn write_rolls(&self) -> Result<(), StoreError> {
        let compactor = self.inner.compactor.as_ref().ok_or(StoreError::Closed)?;
        let applier = compactor.lock().unwrap_or_else(PoisonError::into_inner).applier.clone();
        upkeep::write_rolls(&self.inner.registry, &self.inner.shared.readers, &applier, true)
    }

    /// Resolves when the store cannot go on (its view is damaged): the role should end and be started again, which repairs it.
    pub async fn failed(&self) {
        let mut failed = self.inner.failed.clone();
        // The sender goes only when the applier has ended, for whatever reason.
        drop(failed.wait_for(|failed| *failed).await);
    }

    /// Tells whether a failure of the disk has closed it for changes; is no handle that would keep it open.
    pub fn watch_closed(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        self.inner.ledger.watch_closed()
    }

    /// Resolves when it is closed, and the disk is well again: then it is to be opened anew.
    pub async fn can_be_opened_anew(&self) {
        self.inner.ledger.can_be_opened_anew().await;
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
        let free = free_space(&self.inner.dir)?;
        if free < self.inner.settings.free_space_min.get() { Err(StoreError::Full) } else { Ok(()) }
    }
}

/// Octets that are free on the disk under this path.
fn free_space(path: &Path) -> Result<u64, StoreError> {
    let disk = nix::sys::statvfs::statvfs(path).map_err(std::io::Error::from)?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    Ok(thread::Builder::new().name(name.to_owned()).spawn(run)?)
}
