//! Going through the queue: sessions to destinations, what is late, what is too old.
//!
//! Owns: when sessions are opened, attempts at our own mailboxes, giving up, warnings of delay, when pauses are put on record. Called by: `smtp::serve`, one task.
//! Calls: `outbound` for other sites.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::bounce::{self, Fact, Kind};
use super::context::Context;
use super::lmtp::Fate;
use super::metrics::{LMTP_AWAY, QUEUE_AGE, QUEUE_MESSAGES};
use super::outbound;
use super::outbound::route::Key;
use super::queue::{Ending, Queued, Taken};
use super::reply::Reply;
use super::settling::{self, Hop, settle};
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::net::Shutdown;

/// Messages under way to our own mailboxes at a time.
pub(super) const MAILBOX_SESSIONS_MAX: usize = 16;
/// How often the queue is looked at although nothing happened: for its metrics, for what is late and what is too old.
const TICK: Duration = Duration::from_secs(5);
/// How often space is given back.
const COMPACT_EVERY: Duration = Duration::from_secs(60);
/// The same while there is too little free space.
const COMPACT_EVERY_SHORT: Duration = Duration::from_secs(5);
/// Messages that are given up, or warned of, in one go.
const LATE_COUNT: usize = 1000;
/// Wait before a message is tried again that cannot be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(3600);
/// How long sessions may go on with the message in hand when the role stops. (The supervisor's patience is 30 s.)
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// What the sender is told of a message that waited too long (RFC 3463: X.4.7), and of one that is late.
const EXPIRED: Reply = Reply::new(550, 4, 7, "could not be delivered in time");
const LATE: Reply = Reply::new(450, 4, 7, "not delivered yet");

/// Delivers until shutdown, then finishes the attempts under way.
pub(super) async fn run(context: Arc<Context>, mut shutdown: Shutdown) {
    let mut away = context.lmtp.away();
    let mut sessions = JoinSet::new();
    let start = clock::monotonic();
    let (mut ticks_at, mut compacted_at) = (start, start);
    while !shutdown.is_stopping() {
        let now = clock::monotonic();
        if now >= ticks_at {
            ticks_at = now + TICK;
            show(&context, *away.borrow_and_update());
            give_up(&context, &shutdown).await;
            warn_late(&context).await;
            note_pauses(&context).await;
        }
        let pause = if context.space.is_short() { COMPACT_EVERY_SHORT } else { COMPACT_EVERY };
        if now - compacted_at >= pause {
            compacted_at = now;
            compact(&context).await;
        }
        open_sessions(&context, &mut sessions, &shutdown);
        let next = context.queue.next_at(now).filter(|at| *at > now);
        let wake_at = next.map_or(ticks_at, |at| at.min(ticks_at));
        tokio::select! {
            () = shutdown.stopping() => {}
            () = context.queue.changed() => {}
            Some(ended) = sessions.join_next() => {
                if let Err(panic) = ended {
                    error!(%panic, "a session ended by a panic: this is a bug in fife");
                }
            }
            seen = away.changed() => {
                if seen.is_ok() && !*away.borrow_and_update() {
                    context.queue.wake(Some(&Key::Mailboxes), clock::monotonic());
                }
            }
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
    }
    let finish = async { while sessions.join_next().await.is_some() {} };
    if timeout(STOP_PATIENCE, finish).await.is_err() {
        warn!("sessions that other servers keep waiting are broken off");
    }
    note_pauses(&context).await;
}

/// Writes down what failed lately, and when it is tried again.
async fn note_pauses(context: &Context) {
    if let Err(error) = context.queue.note_pauses(clock::unix_millis(), clock::monotonic()).await {
        warn!(%error, "cannot note when mail is tried again: after a restart it would be tried earlier");
    }
}

/// Opens as many sessions as there may be.
fn open_sessions(context: &Arc<Context>, sessions: &mut JoinSet<()>, shutdown: &Shutdown) {
    let sessions_max = usize::try_from(context.outbound.settings.sessions_max).unwrap_or(usize::MAX);
    while let Some(key) = context.queue.open_session(clock::monotonic(), sessions_max) {
        let (context, shutdown) = (Arc::clone(context), shutdown.clone());
        sessions.spawn(async move {
            let open = Open { context: &context, key: &key };
            match key {
                Key::Mailboxes => to_mailboxes(&context, shutdown).await,
                Key::Route(_) | Key::Domain(_) => outbound::session::run(&context, &key, shutdown).await,
            }
            drop(open);
        });
    }
}

/// An open session; closed when dropped, however it ended.
struct Open<'a> {
    context: &'a Context,
    key: &'a Key,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.context.queue.close_session(self.key, clock::monotonic());
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
    let compact = move || context.queue.compact(context.space.room(), clock::unix_millis(), clock::monotonic());
    match tokio::task::spawn_blocking(compact).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "space of delivered mail cannot be given back"),
        Err(panic) => error!(%panic, "compaction ended by a panic: this is a bug in fife"),
    }
}

/// Time in milliseconds since 1970, so long ago.
fn ago(span: Duration) -> u64 {
    clock::unix_millis().saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Gives up what is too old.
async fn give_up(context: &Arc<Context>, shutdown: &Shutdown) {
    let too_old = ago(context.settings.queue_lifetime.get());
    for taken in context.queue.take_older(too_old, LATE_COUNT, clock::monotonic()) {
        let Some(queued) = load(context, &taken).await else { continue };
        let reply = match why(context, &taken) {
            Some(why) => EXPIRED.with_text(format!("{}; last: {why}", EXPIRED.text())),
            None => EXPIRED,
        };
        let fates = vec![Fate::Answered(reply); queued.places.len()];
        settle(context, &taken, &queued, &fates, &Hop::default(), Ending::Expired, shutdown.clone()).await;
    }
}

/// Why it was not delivered so far.
fn why(context: &Context, taken: &Taken) -> Option<Arc<str>> {
    let down = || context.queue.destination(&taken.key, clock::monotonic())?.down.map(|(_, reason)| reason);
    taken.reason().or_else(down)
}

/// Tells senders once that their mail is late (RFC 3461 section 4.1: DELAY).
async fn warn_late(context: &Arc<Context>) {
    let after = context.outbound.settings.delay_warning_after.get();
    if after.is_zero() {
        return;
    }
    for id in context.queue.take_unwarned(ago(after), LATE_COUNT) {
        let reader = Arc::clone(context);
        let Ok(Ok(queued)) = tokio::task::spawn_blocking(move || reader.queue.load_all(id)).await else { continue };
        let lifetime = context.settings.queue_lifetime.get().as_secs();
        let until_secs = (queued.arrived_millis / 1000).saturating_add(lifetime);
        let recipients = queued.message.envelope.recipients.iter();
        let facts = recipients.map(|recipient| Fact::own(recipient.clone(), late(context, id))).collect();
        let report = match bounce::report(context, &queued.message, Kind::Delay { until_secs }, facts).await {
            Ok(report) => report,
            Err(error) => {
                // Told once, or, when the directory is away at that moment, not at all: a warning is not worth more.
                warn!(message = %id, %error, "the sender is not told that the message is late");
                None
            }
        };
        if let Err(error) = context.queue.warned(id, report, clock::unix_millis(), clock::monotonic()).await {
            warn!(message = %id, %error, "cannot note that the sender was told of a delay");
        }
    }
}

/// What is known of the delay.
fn late(context: &Context, id: Id) -> Reply {
    let now = clock::monotonic();
    let state = context.queue.state(id, now);
    let reason = state.into_iter().flat_map(|state| state.parts).find_map(|part| {
        let down = || context.queue.destination(&part.destination, now)?.down.map(|(_, reason)| reason);
        part.reason.or_else(down)
    });
    reason.map_or(LATE, |reason| LATE.with_text(format!("{}: {reason}", LATE.text())))
}

/// The message of what was taken; none when it cannot be read, for which it waits.
pub(super) async fn load(context: &Arc<Context>, taken: &Taken) -> Option<Queued> {
    let loaded = if taken.is_in_memory() {
        context.queue.load(taken)
    } else {
        tokio::task::block_in_place(|| context.queue.load(taken))
    };
    loaded
        .inspect_err(|error| {
            error!(message = %taken.id, %error, "cannot be read from the queue");
            let now = clock::monotonic();
            context.queue.put_back(taken.id, &taken.key, now + UNREADABLE_PAUSE, Some("cannot be read"), now);
        })
        .ok()
}

/// A session to our own mailboxes: as long as there is something to deliver, and somebody to take it.
async fn to_mailboxes(context: &Arc<Context>, shutdown: Shutdown) {
    while !shutdown.is_stopping() {
        if *context.lmtp.away().borrow() {
            // The runner wakes us all when it is back.
            context.queue.is_down(&Key::Mailboxes, "LMTP server is away", &|_| UNREADABLE_PAUSE, clock::monotonic());
            if !*context.lmtp.away().borrow() {
                context.queue.wake(Some(&Key::Mailboxes), clock::monotonic());
            }
            return;
        }
        let Some(taken) = context.queue.take(&Key::Mailboxes, clock::monotonic()) else { return };
        let Some(queued) = load(context, &taken).await else { continue };
        let recipients = &queued.message.envelope.recipients;
        let mailboxes: Vec<&Address> = recipients.iter().map(|recipient| &recipient.mailbox).collect();
        let fates = context.lmtp.deliver(&queued.message, &mailboxes).await;
        settle(context, &taken, &queued, &fates, &Hop::default(), Ending::Refused, shutdown.clone()).await;
        if fates.iter().any(|fate| matches!(fate, Fate::Answered(_))) {
            context.queue.is_good(&Key::Mailboxes, clock::monotonic());
        }
    }
}

/// Notes that a destination cannot be reached, and gives back what was taken for it.
pub(super) fn set_down(context: &Context, taken: &Taken, reason: &str, now: Instant) {
    let pause = |failures| settling::pause(context, failures);
    if let Some(pause) = context.queue.is_down(&taken.key, reason, &pause, now) {
        let destination = context.routes.name(&taken.key);
        info!(destination, reason, ?pause, "destination is not reachable");
    }
    context.queue.put_back(taken.id, &taken.key, now, None, now);
}
