//! The applier: brings the view and the open mailboxes up to what the ledger has, then answers.
//!
//! Owns: the view's writing connection, its thread. Called by: `writer` (batches), `compaction` and `upkeep` (tasks).
//! Never: loses a batch: a view that cannot be written for want of room is tried again until there is, and one
//! that is damaged fails the store, which makes it anew from the ledger when it is opened again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::apply::{Applied, Apply, Content, Effects, Sweep};
use super::decide::Promise;
use super::error::StoreError;
use super::open::Registry;
use super::record::{Change, Counters};
use super::tables::{self, Progress};
use super::{Answer, CopyUid, FlagsSet, MailboxId, Outcome, recovery};
use crate::ledger::Position;

/// Batches that one transaction takes.
const TRANSACTION_BATCHES_MAX: usize = 32;
/// How long to wait before a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// Who waits for a request.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) promise: Result<Promise, StoreError>,
    pub(super) answer: oneshot::Sender<Answer>,
    /// The waiter's changes end here in the batch's; they begin where those of the waiter before end.
    pub(super) changes: usize,
    /// The request's share of the queue, given back with the answer.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Changes that are in the ledger, or about to be.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) contents: Vec<Content>,
    pub(super) changes: Vec<Change>,
    pub(super) waiters: Vec<Waiter>,
    /// The last record of the batch; none when nothing had to be written.
    pub(super) position: Option<Position>,
    /// After the last change.
    pub(super) counters: Counters,
}

impl Batch {
    /// Answers all with an error; those who are refused anyway with theirs.
    pub(super) fn fail(self, error: impl Fn() -> StoreError) {
        for waiter in self.waiters {
            drop(waiter.answer.send(Err(waiter.promise.err().unwrap_or_else(&error))));
        }
    }

    /// Answers all by what came of their changes.
    fn answer(self, applied: &[Applied]) {
        let mut begin = 0;
        for waiter in self.waiters {
            let mine = applied.get(begin..waiter.changes).unwrap_or_default();
            begin = waiter.changes;
            let answer = match waiter.promise {
                Ok(_) if mine.contains(&Applied::NoMailbox) => Err(StoreError::NoSuchMailbox),
                Ok(promise) => Ok(keep(promise, mine)),
                Err(error) => Err(error),
            };
            drop(waiter.permit);
            // Whoever does not wait any longer does not want to know.
            drop(waiter.answer.send(answer));
        }
    }
}

/// What a promise has become.
fn keep(promise: Promise, applied: &[Applied]) -> Outcome {
    match (promise, applied.last()) {
        (Promise::Flags { modseq }, Some(Applied::Modified(modified))) => {
            Outcome::Flags(FlagsSet { modified: modified.clone(), modseq })
        }
        (Promise::Copied { uid_validity }, Some(Applied::Copied(source, target))) => {
            Outcome::Copied(CopyUid { uid_validity, source: source.clone(), target: target.clone() })
        }
        (Promise::Delivered(delivered), _) => Outcome::Delivered(delivered),
        (Promise::Created(id), _) => Outcome::Created(id),
        (Promise::Nothing | Promise::Flags { .. } | Promise::Copied { .. }, _) => Outcome::Nothing,
    }
}

/// What the applier can be asked to do with the view's writing connection.
pub(super) type Task = Box<dyn FnOnce(&mut Connection, &mut Apply) -> rusqlite::Result<()> + Send>;

/// What comes to the applier.
pub(super) enum Work {
    Batch(Batch),
    /// Work on the view, in a transaction of its own; the answer says whether it was done.
    Task(Task, SyncSender<Result<(), StoreError>>),
    /// Says when all that came before is applied.
    Drained(SyncSender<()>),
}

/// How far the view is, for all to see.
#[derive(Debug, Default)]
pub(super) struct Progressed(AtomicU64);

impl Progressed {
    pub(super) fn new(seq: u64) -> Self {
        Self(AtomicU64::new(seq))
    }

    /// The last change that is applied.
    pub(super) fn seq(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The applier's side.
pub(super) struct Applier {
    pub(super) work: Receiver<Work>,
    pub(super) connection: Connection,
    pub(super) registry: Arc<Registry>,
    pub(super) progressed: Arc<Progressed>,
    /// Becomes true when the store cannot go on.
    pub(super) failed: watch::Sender<bool>,
    /// Of the store.
    pub(super) dir: PathBuf,
}

impl Applier {
    /// Serves until the writer and all others are gone.
    pub(super) fn run(mut self) {
        let mut apply = Apply::new(Sweep::AtOnce);
        let mut next = self.work.recv().ok();
        while let Some(work) = next.take() {
            let done = match work {
                Work::Batch(first) => {
                    let mut batches = vec![first];
                    while batches.len() < TRANSACTION_BATCHES_MAX {
                        match self.work.try_recv() {
                            Ok(Work::Batch(batch)) => batches.push(batch),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.batches(&mut apply, batches)
                }
                Work::Task(task, answer) => self.task(&mut apply, task, &answer),
                Work::Drained(done) => {
                    // Whoever asked may be gone.
                    done.send(()).unwrap_or_default();
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::error!(%error, "the view of the store cannot be written; it is made anew at the next start");
                recovery::mark_damaged(&self.dir);
                self.failed.send_replace(true);
                return;
            }
            next = next.or_else(|| self.work.recv().ok());
        }
    }

    /// Applies batches in one transaction; tries again while the disk is full.
    fn batches(&mut self, apply: &mut Apply, batches: Vec<Batch>) -> Result<(), StoreError> {
        loop {
            match transact(&mut self.connection, apply, &batches) {
                Ok(applied) => {
                    if let Some(last) = last_written(&batches) {
                        self.publish(apply.take_effects(), last.counters.seq);
                        self.registry.note_due(apply.take_due());
                    }
                    for (batch, applied) in batches.into_iter().zip(applied) {
                        batch.answer(&applied);
                    }
                    return Ok(());
                }
                Err(error) if is_full(&error) => {
                    apply.abandon();
                    tracing::error!(%error, "no room for the view; trying again");
                    wait(FULL_RETRY);
                }
                Err(error) => {
                    apply.abandon();
                    for batch in batches {
                        batch.fail(|| StoreError::Closed);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Shows the open mailboxes what happened to them.
    fn publish(&self, effects: HashMap<MailboxId, Effects>, seq: u64) {
        self.progressed.0.store(seq, Ordering::Release);
        for (mailbox, effects) in effects {
            self.registry.publish(mailbox, &effects, seq);
        }
    }

    fn task(
        &mut self,
        apply: &mut Apply,
        task: Task,
        answer: &SyncSender<Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let result = task(&mut self.connection, apply);
        if result.is_err() {
            apply.abandon();
        }
        let failed = result.as_ref().is_err_and(is_damage);
        drop(answer.send(result.map_err(StoreError::from)));
        if failed { Err(StoreError::Malformed("view")) } else { Ok(()) }
    }
}

/// The last batch that is in the ledger.
fn last_written(batches: &[Batch]) -> Option<&Batch> {
    batches.iter().rfind(|batch| batch.position.is_some())
}

/// One transaction for many batches; what came of each change.
fn transact(connection: &mut Connection, apply: &mut Apply, batches: &[Batch]) -> rusqlite::Result<Vec<Vec<Applied>>> {
    let Some(last) = last_written(batches) else { return Ok(batches.iter().map(|_| Vec::new()).collect()) };
    let transaction = connection.transaction()?;
    let mut outcomes = Vec::with_capacity(batches.len());
    for batch in batches {
        for content in &batch.contents {
            apply.content(&transaction, content, false)?;
        }
        let applied: rusqlite::Result<Vec<Applied>> =
            batch.changes.iter().map(|change| apply.change(&transaction, change)).collect();
        outcomes.push(applied?);
    }
    apply.flush(&transaction)?;
    tables::write_progress(&transaction, &Progress { position: last.position, counters: last.counters })?;
    transaction.commit()?;
    Ok(outcomes)
}

/// Whether an error goes away when there is room again.
fn is_full(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::DatabaseBusy | ErrorCode::OutOfMemory)
    )
}

/// Whether the view itself is damaged.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Waits on a channel that nothing is sent to: a wait that is not a sleep in the middle of work that others wait for.
fn wait(duration: Duration) {
    let (_open, never) = mpsc::channel::<()>();
    if let Err(RecvTimeoutError::Disconnected) = never.recv_timeout(duration) {
        tracing::warn!("waiting ended early");
    }
}
