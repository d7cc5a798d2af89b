//! Upkeep: what has to be done from time to time, by nobody who is waited for.
//!
//! Owns: the thread that checkpoints the view and compacts the ledger. Called by: `Store`. Never: keeps anyone waiting
//! longer than one piece of work takes.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::applier::{Progressed, Work};
use super::compaction::Compactor;
use super::error::StoreError;
use super::tables;

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(500);
/// A checkpoint is made after so many changes, or before that when nothing more comes.
const CHECKPOINT_CHANGES: u64 = 2_000;
/// Pages of SQLite's log after which the applier itself makes a checkpoint, between two batches, so that the log begins anew.
const LOG_PAGES_MAX: i64 = 8_192;
/// Looks between two looks for a segment to compact: once a minute.
const COMPACT_EVERY: u64 = 120;

/// The upkeep's side.
pub(super) struct Upkeep {
    pub(super) view: PathBuf,
    pub(super) progressed: Arc<Progressed>,
    pub(super) applier: SyncSender<Work>,
    pub(super) compactor: Arc<Mutex<Compactor>>,
    /// Ends the thread when its other side is dropped.
    pub(super) stop: Receiver<()>,
}

impl Upkeep {
    pub(super) fn run(self) {
        let mut checkpointed = self.progressed.seq();
        let mut seen = checkpointed;
        for round in 1_u64.. {
            if !matches!(self.stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
                return;
            }
            let now = self.progressed.seq();
            let quiet = now == seen;
            seen = now;
            if now - checkpointed >= CHECKPOINT_CHANGES || (quiet && now > checkpointed) {
                checkpointed = now;
                if let Err(error) = self.checkpoint() {
                    tracing::warn!(%error, "checkpoint of the view");
                }
            }
            if round.is_multiple_of(COMPACT_EVERY) {
                self.compact();
            }
        }
    }

    /// Moves what SQLite's log has into the database file. On a connection of its own: batches go on meanwhile.
    fn checkpoint(&self) -> Result<(), StoreError> {
        let connection = tables::open_writer(&self.view)?;
        let pages: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
        if pages < LOG_PAGES_MAX {
            return Ok(());
        }
        // Little is left to do now; between two batches nobody writes, and the log can begin anew.
        let (answer, done) = sync_channel(1);
        let task: super::applier::Task =
            Box::new(|connection, _| connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
        self.applier.send(Work::Task(task, answer)).map_err(|_| StoreError::Closed)?;
        done.recv().map_err(|_| StoreError::Closed)?
    }

    fn compact(&self) {
        loop {
            // One segment at a time: others may ask for it too.
            let compacted = self.compactor.lock().unwrap_or_else(PoisonError::into_inner).compact_one();
            match compacted {
                Ok(Some(_)) if matches!(self.stop.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "compaction");
                    return;
                }
            }
        }
    }
}
