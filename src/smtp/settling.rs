//! Writing down how an attempt ended.
//!
//! Owns: what follows from the fates of a queued message's recipients: records, reports, the next attempt. Called by: `smtp::runner` (mailboxes, what is too old),
//! `smtp::outbound` (other sites). Never: attempts anything.
//!
//! A recipient that the other side has acknowledged is recorded before anything is done about the others, and never tried again. Left is the moment
//! between the acknowledgement and that record's `fdatasync` (about a millisecond): if this process, or the other side between storing and
//! acknowledging, is killed then, the message is delivered once more (RFC 1047 tells why nobody can avoid that). It carries the same id in `Received`
//! and the same octets, by which a store can know it again; pop-imap does.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::bounce::{self, Fact, Kind};
use super::context::Context;
use super::envelope::Message;
use super::lmtp::Fate;
use super::metrics::QUEUE_RECIPIENTS;
use super::queue::{Ending, Queued, Taken};
use super::reply::Reply;
use crate::base::clock;
use crate::net::Shutdown;

/// Wait before a record that cannot be written is tried again.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// Wait before a failure is looked at again whose sender could not be told, for the directory is away.
const UNTOLD_PAUSE: Duration = Duration::from_secs(60);

/// Who was asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Hop {
    /// Name and address of the server; none: our own mailboxes.
    pub remote: Option<Arc<str>>,
    /// The server tells the sender itself what the sender wants to know (RFC 3461 section 6.2.3).
    pub dsn: bool,
}

/// Fates by what follows from them; numbers are places in the list of fates.
#[derive(Debug, Default)]
struct Sorted {
    delivered: Vec<(usize, Reply)>,
    failed: Vec<(usize, Reply)>,
    deferred: Vec<usize>,
    /// Why some are deferred.
    reason: Option<String>,
}

impl Sorted {
    fn of(fates: &[Fate]) -> Self {
        let mut sorted = Self::default();
        for (at, fate) in fates.iter().enumerate() {
            let reason = match fate {
                Fate::Answered(reply) if reply.is_positive() => {
                    sorted.delivered.push((at, reply.clone()));
                    continue;
                }
                Fate::Answered(reply) if reply.is_permanent() => {
                    sorted.failed.push((at, reply.clone()));
                    continue;
                }
                Fate::Answered(reply) => reply.to_string(),
                Fate::NotTried => "not tried".to_owned(),
                Fate::Unknown => "connection lost before the reply".to_owned(),
            };
            sorted.deferred.push(at);
            sorted.reason.get_or_insert(reason);
        }
        sorted
    }
}

/// Notes the fates of all recipients of what was taken. `failure`: what those who failed for good died of.
pub(super) async fn settle(
    context: &Context,
    taken: &Taken,
    queued: &Queued,
    fates: &[Fate],
    hop: &Hop,
    failure: Ending,
    shutdown: Shutdown,
) {
    let mut sorted = Sorted::of(fates);
    let id = taken.id;
    let fact = |(at, reply): &(usize, Reply)| {
        let recipient = queued.message.envelope.recipients.get(*at)?.clone();
        Some(Fact { recipient, reply: reply.clone(), remote: hop.remote.clone(), is_final: hop.remote.is_none() })
    };
    let places = |list: &[(usize, Reply)]| -> Vec<u32> {
        list.iter().filter_map(|(at, _)| queued.places.get(*at).copied()).collect()
    };
    if !sorted.delivered.is_empty() {
        let facts = if hop.dsn { Vec::new() } else { sorted.delivered.iter().filter_map(fact).collect() };
        let report = tell(context, &queued.message, Kind::Success, facts).await.unwrap_or_default();
        let endings = vec![(places(&sorted.delivered), Ending::Delivered)];
        record(context, taken, endings, report.into_iter().collect(), shutdown.clone()).await;
    }
    let facts: Vec<Fact> = sorted.failed.iter().filter_map(fact).collect();
    for Fact { recipient, reply, .. } in &facts {
        info!(message = %id, recipient = %recipient.mailbox, %reply, remote = hop.remote.as_deref(), "not delivered");
    }
    let mut pause = pause(context, taken.attempts());
    match tell(context, &queued.message, Kind::Failure, facts).await {
        Ok(_) if sorted.failed.is_empty() => {}
        Ok(report) => {
            let endings = vec![(places(&sorted.failed), failure)];
            record(context, taken, endings, report.into_iter().collect(), shutdown).await;
        }
        Err(()) => {
            sorted.deferred.extend(std::mem::take(&mut sorted.failed).into_iter().map(|(at, _)| at));
            sorted.reason.get_or_insert_with(|| "failed, and the sender cannot be told now".to_owned());
            pause = UNTOLD_PAUSE;
        }
    }
    count("delivered", sorted.delivered.len());
    count(if failure == Ending::Expired { "expired" } else { "refused" }, sorted.failed.len());
    count("deferred", sorted.deferred.len());
    if let Some((_, reply)) = sorted.delivered.first() {
        let waited = clock::unix_millis().saturating_sub(queued.arrived_millis);
        info!(message = %id, outcome = "delivered", recipients = sorted.delivered.len(), waited_millis = waited, remote = hop.remote.as_deref(), stored = reply.text(), "message");
    }
    if !sorted.deferred.is_empty() {
        let reason = sorted.reason.unwrap_or_default();
        info!(message = %id, recipients = sorted.deferred.len(), ?pause, reason, destination = %taken.key, "not delivered yet");
        let now = clock::monotonic();
        context.queue.put_back(id, &taken.key, now + pause, Some(&reason), now);
    }
}

async fn tell(context: &Context, message: &Message, kind: Kind, facts: Vec<Fact>) -> Result<Option<Message>, ()> {
    let told = bounce::report(context, message, kind, facts).await;
    told.map_err(|error| warn!(message = %message.envelope.id, %error, "directory gives no answer"))
}

fn count(outcome: &str, recipients: usize) {
    if recipients > 0 {
        QUEUE_RECIPIENTS.with_label_values(&[outcome]).inc_by(u64::try_from(recipients).unwrap_or(u64::MAX));
    }
}

/// Notes endings, again and again until they are noted: what is not on record would be done twice.
async fn record(
    context: &Context,
    taken: &Taken,
    endings: Vec<(Vec<u32>, Ending)>,
    reports: Vec<Message>,
    mut shutdown: Shutdown,
) {
    loop {
        let now = (clock::unix_millis(), clock::monotonic());
        let noted = context.queue.settle(taken.id, endings.clone(), reports.clone(), now.0, now.1).await;
        let Err(error) = noted else { return };
        warn!(message = %taken.id, %error, "cannot note how it ended");
        tokio::select! {
            () = shutdown.stopping() => return,
            () = tokio::time::sleep(TROUBLE_PAUSE) => {}
        }
    }
}

/// Wait before the next attempt, after so many; the last in the list repeats.
pub(super) fn pause(context: &Context, attempts: u32) -> Duration {
    let pauses = &context.settings.retry_after;
    let at = usize::try_from(attempts).unwrap_or(usize::MAX);
    pauses.get(at).or(pauses.last()).map_or(TROUBLE_PAUSE, |pause| pause.get())
}
