//! Delivering what is in the queue.
//!
//! Owns: attempts, and when to give up. Called by: `smtp::serve`, one task.
//!
//! A recipient whom the LMTP server has acknowledged is recorded at once and before anything else, and never tried again. Left is the moment
//! between the acknowledgement and that record's `fdatasync` (about a millisecond): if this process, or the LMTP server between storing and
//! acknowledging, is killed then, the message is delivered once more. It carries the same id in `Received` and the same octets, by which a store can
//! know it again; pop-imap does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::bounce::{self, Failure};
use super::context::Context;
use super::delivery;
use super::lmtp::Fate;
use super::metrics::{LMTP_AWAY, QUEUE_AGE, QUEUE_MESSAGES, QUEUE_RECIPIENTS};
use super::queue::{Ending, Queued};
use super::reply::Reply;
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::net::Shutdown;

/// Messages under way at a time.
const ATTEMPTS_MAX: usize = 16;
/// How often the queue is looked at although nothing happened: for its metrics, and for what is too old.
const TICK: Duration = Duration::from_secs(5);
/// How often space is given back.
const COMPACT_EVERY: Duration = Duration::from_secs(60);
/// Wait before a record that cannot be written is tried again, or one that cannot be read.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
const UNREADABLE_PAUSE: Duration = Duration::from_secs(3600);
/// What the sender is told of a message that waited too long (RFC 3463: X.4.7).
const EXPIRED: Reply = Reply::new(550, 4, 7, "could not be delivered in time");

/// Delivers until shutdown, then finishes the attempts under way.
pub(super) async fn run(context: Arc<Context>, mut shutdown: Shutdown) {
    let mut away = context.lmtp.away();
    let room = Arc::new(Semaphore::new(ATTEMPTS_MAX));
    let mut attempts = JoinSet::new();
    let mut compacted_at = clock::monotonic();
    while !shutdown.is_stopping() {
        let changed = context.queue.changed();
        begin_attempts(&context, &room, &mut attempts, *away.borrow_and_update(), &shutdown);
        show(&context, *away.borrow());
        let now = clock::monotonic();
        if now.saturating_duration_since(compacted_at) >= COMPACT_EVERY {
            compacted_at = now;
            compact(&context).await;
        }
        let due = context.queue.next_due().filter(|_| !*away.borrow() && room.available_permits() > 0);
        let wake_at = due.map_or(now + TICK, |due| due.min(now + TICK));
        tokio::select! {
            () = shutdown.stopping() => {}
            () = changed => {}
            Some(ended) = attempts.join_next() => {
                if let Err(panic) = ended {
                    error!(%panic, "an attempt ended by a panic: this is a bug in fife");
                }
            }
            seen = away.changed() => {
                if seen.is_ok() && !*away.borrow_and_update() {
                    context.queue.wake(clock::monotonic());
                }
            }
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
    }
    while attempts.join_next().await.is_some() {}
}

/// Starts as many attempts as may run.
fn begin_attempts(
    context: &Arc<Context>,
    room: &Arc<Semaphore>,
    attempts: &mut JoinSet<()>,
    away: bool,
    shutdown: &Shutdown,
) {
    let lifetime = u64::try_from(context.settings.queue_lifetime.get().as_millis()).unwrap_or(u64::MAX);
    let too_old = clock::unix_millis().saturating_sub(lifetime);
    while let Ok(permit) = Arc::clone(room).try_acquire_owned() {
        let expired = context.queue.take_older(too_old);
        let is_expired = expired.is_some();
        let due = || if away { None } else { context.queue.take(clock::monotonic()) };
        let Some(id) = expired.or_else(due) else { return };
        let (context, shutdown) = (Arc::clone(context), shutdown.clone());
        attempts.spawn(async move {
            attempt(&context, id, is_expired, shutdown).await;
            drop(permit);
        });
    }
}

fn show(context: &Context, away: bool) {
    let age = context.queue.oldest_millis().map_or(0, |oldest| clock::unix_millis().saturating_sub(oldest) / 1000);
    QUEUE_MESSAGES.set(i64::try_from(context.queue.len()).unwrap_or(i64::MAX));
    QUEUE_AGE.set(i64::try_from(age).unwrap_or(i64::MAX));
    LMTP_AWAY.set(i64::from(away));
}

async fn compact(context: &Arc<Context>) {
    let context = Arc::clone(context);
    match tokio::task::spawn_blocking(move || context.queue.compact()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "space of delivered mail cannot be given back"),
        Err(panic) => error!(%panic, "compaction ended by a panic: this is a bug in fife"),
    }
}

/// One attempt with one message.
async fn attempt(context: &Arc<Context>, id: Id, is_expired: bool, shutdown: Shutdown) {
    let loader = Arc::clone(context);
    let queued = match tokio::task::spawn_blocking(move || loader.queue.load(id)).await {
        Ok(Ok(queued)) => queued,
        Ok(Err(error)) => {
            error!(message = %id, %error, "cannot be read from the queue");
            return context.queue.put_back(id, clock::monotonic() + UNREADABLE_PAUSE, true);
        }
        Err(panic) => {
            error!(message = %id, %panic, "reading ended by a panic: this is a bug in fife");
            return context.queue.put_back(id, clock::monotonic() + UNREADABLE_PAUSE, true);
        }
    };
    let settling = Settling { context, queued: &queued, shutdown };
    if is_expired {
        let all = (0..queued.places.len()).map(|at| (at, EXPIRED)).collect();
        settling.failed(all, Ending::Expired).await;
        return;
    }
    let recipients = &queued.message.envelope.recipients;
    let mailboxes: Vec<&Address> = recipients.iter().map(|recipient| &recipient.mailbox).collect();
    let fates = context.lmtp.deliver(&queued.message, &mailboxes).await;
    let sorted = Sorted::of(&fates);
    let stored = fates.iter().find_map(delivery::positive).map_or("", Reply::text);
    settling.delivered(&sorted.delivered, stored).await;
    if sorted.deferred > 0 {
        QUEUE_RECIPIENTS.with_label_values(&["deferred"]).inc_by(sorted.deferred);
    }
    settling.failed(sorted.failed, Ending::Refused).await;
    if sorted.deferred > 0 {
        let pause = pause(context, queued.attempts);
        info!(message = %id, recipients = sorted.deferred, pause = ?pause, "not delivered yet");
        context.queue.put_back(id, clock::monotonic() + pause, true);
    }
}

/// Fates by what follows from them; numbers are places in the list of fates.
#[derive(Debug, Default)]
struct Sorted {
    delivered: Vec<usize>,
    failed: Vec<(usize, Reply)>,
    deferred: u64,
}

impl Sorted {
    fn of(fates: &[Fate]) -> Self {
        let mut sorted = Self::default();
        for (at, fate) in fates.iter().enumerate() {
            match fate {
                Fate::Answered(reply) if reply.is_positive() => sorted.delivered.push(at),
                Fate::Answered(reply) if reply.is_permanent() => sorted.failed.push((at, reply.clone())),
                Fate::Answered(_) | Fate::NotTried | Fate::Unknown => sorted.deferred += 1,
            }
        }
        sorted
    }
}

/// Wait before the next attempt; the last in the list repeats.
fn pause(context: &Context, attempts: u32) -> Duration {
    let pauses = &context.settings.retry_after;
    let at = usize::try_from(attempts).unwrap_or(usize::MAX);
    pauses.get(at).or(pauses.last()).map_or(TROUBLE_PAUSE, |pause| pause.get())
}

/// Writing down how an attempt ended.
struct Settling<'a> {
    context: &'a Context,
    queued: &'a Queued,
    shutdown: Shutdown,
}

impl Settling<'_> {
    async fn delivered(&self, at: &[usize], stored: &str) {
        if at.is_empty() {
            return;
        }
        let id = self.queued.message.envelope.id;
        self.record(at, Ending::Delivered, Vec::new()).await;
        let waited = clock::unix_millis().saturating_sub(self.queued.arrived_millis);
        info!(message = %id, outcome = "delivered", recipients = at.len(), waited_millis = waited, stored, "message");
        QUEUE_RECIPIENTS.with_label_values(&["delivered"]).inc_by(u64::try_from(at.len()).unwrap_or(u64::MAX));
    }

    async fn failed(&self, failed: Vec<(usize, Reply)>, ending: Ending) {
        if failed.is_empty() {
            return;
        }
        let label = if ending == Ending::Expired { "expired" } else { "refused" };
        QUEUE_RECIPIENTS.with_label_values(&[label]).inc_by(u64::try_from(failed.len()).unwrap_or(u64::MAX));
        let at: Vec<usize> = failed.iter().map(|(at, _)| *at).collect();
        let recipient = |at: usize| self.queued.message.envelope.recipients.get(at).cloned();
        let failures: Vec<Failure> = failed
            .into_iter()
            .filter_map(|(at, reply)| recipient(at).map(|recipient| Failure { recipient, reply }))
            .collect();
        let bounce = bounce::for_failures(self.context, &self.queued.message, &failures).await;
        self.record(&at, ending, bounce.into_iter().collect()).await;
    }

    /// Notes an ending, again and again until it is noted: what is not on record would be done twice.
    async fn record(&self, at: &[usize], ending: Ending, bounces: Vec<super::envelope::Message>) {
        let id = self.queued.message.envelope.id;
        let places: Vec<u32> = at.iter().filter_map(|at| self.queued.places.get(*at)).copied().collect();
        loop {
            let now: (u64, Instant) = (clock::unix_millis(), clock::monotonic());
            let noted = self.context.queue.settle(id, places.clone(), ending, bounces.clone(), now.0, now.1).await;
            let Err(error) = noted else { return };
            warn!(message = %id, %error, "cannot note how it ended");
            let mut shutdown = self.shutdown.clone();
            tokio::select! {
                () = shutdown.stopping() => return,
                () = tokio::time::sleep(TROUBLE_PAUSE) => {}
            }
        }
    }
}
