//! Upkeep: what has to be done from time to time, by nobody who is waited for.
//!
//! Owns: the thread that checkpoints the view, writes rolls of mailboxes and compacts the ledger. Called by: `Store`. Never: keeps anyone waiting
//! longer than one piece of work takes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::applier::{Progressed, Task, Work};
use super::compaction::Compactor;
use super::error::StoreError;
use super::open::Registry;
use super::roll::Roll;
use super::tables::Readers;

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(500);
/// A checkpoint is made after so many changes, or before that when nothing more comes.
const CHECKPOINT_CHANGES: u64 = 2_000;
/// Rolls that are written at one look.
const ROLLS_MAX: usize = 64;
/// Looks between two looks for a segment to compact: once a minute.
const COMPACT_EVERY: u64 = 120;
/// The same while there is too little free space: every five seconds.
const COMPACT_EVERY_SHORT: u64 = 10;

/// The upkeep's side.
pub(super) struct Upkeep {
    pub(super) readers: Arc<Readers>,
    pub(super) registry: Arc<Registry>,
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
                // So that the next start is a quick one.
                self.write_rolls(true);
                return;
            }
            let now = self.progressed.seq();
            let quiet = now == seen;
            seen = now;
            self.write_rolls(quiet);
            if now - checkpointed >= CHECKPOINT_CHANGES || (quiet && now > checkpointed) {
                checkpointed = now;
                // Under the compactor's lock: SQLite refuses a checkpoint while another is made, at once.
                if let Err(error) = self.compactor.lock().unwrap_or_else(PoisonError::into_inner).move_log() {
                    tracing::warn!(%error, "checkpoint of the view");
                }
            }
            if round.is_multiple_of(COMPACT_EVERY) || (round.is_multiple_of(COMPACT_EVERY_SHORT) && self.is_short()) {
                self.compact();
            }
        }
    }

    /// Writes the rolls that are due, those that have time too when there is leisure.
    fn write_rolls(&self, leisure: bool) {
        if let Err(error) = write_rolls(&self.registry, &self.readers, &self.applier, leisure) {
            tracing::warn!(%error, "rolls of mailboxes");
        }
    }

    fn is_short(&self) -> bool {
        self.compactor.lock().unwrap_or_else(PoisonError::into_inner).is_short()
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

/// Writes the rolls that are due: read on a connection of its own, put in place by the applier between two batches.
pub(super) fn write_rolls(
    registry: &Registry,
    readers: &Readers,
    applier: &SyncSender<Work>,
    leisure: bool,
) -> Result<(), StoreError> {
    for mailbox in registry.take_due(leisure, ROLLS_MAX) {
        let Some(roll) = readers.read(|sql| Ok(Roll::of(sql, mailbox)?))? else { continue };
        let (answer, done) = sync_channel(1);
        // What could not be put in place is due at the mailbox's next change.
        let task: Task = Box::new(move |connection, apply| roll.put(connection, apply).map(drop));
        applier.send(Work::Task(task, answer)).map_err(|_| StoreError::Closed)?;
        done.recv().map_err(|_| StoreError::Closed)??;
    }
    Ok(())
}
