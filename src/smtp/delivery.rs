//! Handing a message over while its sender waits: what 250 stands for.
//!
//! Owns: the decision over all recipients of a message. Called by: `smtp::serve`.
//!
//! 250 means that every recipient has it, durably: in the mailbox (the LMTP server said so), or in the queue. Recipients at other sites are always
//! queued, in the same breath, after our own mailboxes were asked.
//!
//! Once, or twice? A recipient whom the LMTP server has acknowledged is never put into the queue. If this process dies between that
//! acknowledgement and the reply to the client, the client will send the message again: RFC 1047 tells why nobody can avoid that. If
//! the LMTP server dies between storing and acknowledging, we cannot know what it did, and tell the client to come again (451) rather than
//! say 250 to what may be doubled. Nothing that was answered 250 here is delivered twice. For what comes out of the queue see `smtp::settling`.

use tracing::{info, warn};

use super::bounce::{self, Fact, Kind};
use super::context::Context;
use super::envelope::{Message, Origin, Way};
use super::lmtp::Fate;
use super::metrics::{MESSAGES, RECEIVED_BYTES};
use super::reply::{self, Reply};
use crate::base::address::Address;
use crate::base::clock;

/// What is to be done about a message after the LMTP server was asked. Numbers are places in its recipients.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// All have it.
    Delivered,
    /// The client keeps it.
    Refuse(Reply),
    /// We keep it for some, and tell the sender about others; then it is 250.
    Keep { pending: Vec<usize>, failed: Vec<(usize, Reply)> },
}

/// Decides over the fates of all recipients, of whom there is at least one.
pub(super) fn decide(fates: &[Fate]) -> Decision {
    let mut failed = Vec::new();
    let mut pending = Vec::new();
    let (mut delivered, mut unknown, mut full) = (0_usize, false, true);
    for (place, fate) in fates.iter().enumerate() {
        match fate {
            Fate::Answered(reply) if reply.is_positive() => delivered += 1,
            Fate::Answered(reply) if reply.is_permanent() => failed.push((place, reply.clone())),
            Fate::Answered(reply) => {
                full &= reply.is_system_full();
                pending.push(place);
            }
            Fate::NotTried => {
                full = false;
                pending.push(place);
            }
            Fate::Unknown => {
                unknown = true;
                pending.push(place);
            }
        }
    }
    if pending.is_empty() && failed.is_empty() {
        return Decision::Delivered;
    }
    if delivered == 0 {
        if unknown {
            return Decision::Refuse(reply::OUTCOME_UNKNOWN);
        }
        // All refused: no need for a bounce, the client is still there.
        if let (true, Some((_, reply))) = (pending.is_empty(), failed.first()) {
            return Decision::Refuse(reply.clone());
        }
        // The disk behind the mailboxes is full, and as a rule it is ours too.
        if full && failed.is_empty() {
            return Decision::Refuse(reply::NO_ROOM);
        }
    }
    Decision::Keep { pending, failed }
}

/// Delivers or keeps the message; gives the reply to the client.
pub(super) async fn hand_over(context: &Context, origin: &Origin, message: Message) -> Reply {
    let id = message.envelope.id;
    let message = match context.authentication.pass(origin, message).await {
        Ok(message) => message,
        Err(reply) => {
            let outcome = if reply.is_permanent() { "refused" } else { "tempfail" };
            MESSAGES.with_label_values(&[outcome]).inc();
            info!(message = %id, outcome, %reply, "message");
            return reply;
        }
    };
    let size = message.size();
    let fates = try_mailboxes(context, &message).await;
    let wants_to_know = message.envelope.recipients.iter().any(|recipient| recipient.notify.success());
    let (reply, outcome) = match decide(&fates) {
        Decision::Delivered if wants_to_know => keep(context, message, &fates, &[], Vec::new()).await,
        Decision::Delivered => (reply::OK.with_text(format!("{id} delivered")), "delivered"),
        Decision::Refuse(reply) if reply.is_permanent() => (reply, "refused"),
        Decision::Refuse(reply) => (reply, "tempfail"),
        Decision::Keep { pending, failed } => keep(context, message, &fates, &pending, failed).await,
    };
    MESSAGES.with_label_values(&[outcome]).inc();
    if reply.is_positive() {
        RECEIVED_BYTES.inc_by(u64::try_from(size).unwrap_or(u64::MAX));
    }
    // What the LMTP server says holds its own id of the message, by which it is found in the next role's log.
    let stored = fates.iter().find_map(positive).map_or("", Reply::text);
    let user = origin.account.as_ref().map(|account| account.address.to_string()).unwrap_or_default();
    info!(message = %id, outcome, bytes = size, recipients = fates.len(), user, %reply, stored, "message");
    reply
}

/// Asks our own mailboxes; recipients elsewhere are not tried here.
async fn try_mailboxes(context: &Context, message: &Message) -> Vec<Fate> {
    let recipients = &message.envelope.recipients;
    let is_ours = |at: &usize| recipients.get(*at).is_some_and(|recipient| recipient.way == Way::Mailbox);
    let ours: Vec<usize> = (0..recipients.len()).filter(is_ours).collect();
    let mut fates = vec![Fate::NotTried; recipients.len()];
    if ours.is_empty() {
        return fates;
    }
    let mailboxes: Vec<&Address> = ours.iter().filter_map(|at| recipients.get(*at)).map(|one| &one.mailbox).collect();
    for (at, fate) in ours.iter().zip(context.lmtp.deliver(message, &mailboxes).await) {
        if let Some(slot) = fates.get_mut(*at) {
            *slot = fate;
        }
    }
    fates
}

fn positive(fate: &Fate) -> Option<&Reply> {
    match fate {
        Fate::Answered(reply) if reply.is_positive() => Some(reply),
        Fate::Answered(_) | Fate::NotTried | Fate::Unknown => None,
    }
}

/// Queues the message for some, and what the sender is to be told of others.
async fn keep(
    context: &Context,
    mut message: Message,
    fates: &[Fate],
    pending: &[usize],
    failed: Vec<(usize, Reply)>,
) -> (Reply, &'static str) {
    let id = message.envelope.id;
    let all_have_it = pending.is_empty() && failed.is_empty();
    let at = |place: usize| message.envelope.recipients.get(place).cloned();
    let fact = |(place, reply)| at(place).map(|recipient| Fact::own(recipient, reply));
    let delivered = fates.iter().enumerate().filter_map(|(place, fate)| Some((place, positive(fate)?.clone())));
    let successes: Vec<Fact> = delivered.filter_map(fact).collect();
    let failures: Vec<Fact> = failed.into_iter().filter_map(fact).collect();
    let mut recipients: Vec<_> = pending.iter().filter_map(|place| at(*place)).collect();
    let mut messages = Vec::new();
    match bounce::report(context, &message, Kind::Failure, failures.clone()).await {
        Ok(report) => messages.extend(report),
        Err(error) => {
            // Queued: they will fail again when the directory can say where the sender's mail goes.
            warn!(message = %id, %error, "the sender cannot be told of a failure yet");
            recipients.extend(failures.into_iter().map(|failure| failure.recipient));
        }
    }
    // A report of success is a courtesy that a directory which is away does not get to delay the message for.
    messages.extend(bounce::report(context, &message, Kind::Success, successes).await.unwrap_or_default());
    let is_queued = !recipients.is_empty();
    if is_queued {
        message.envelope.recipients = recipients;
        messages.push(message);
    }
    let now = (clock::unix_millis(), clock::monotonic());
    match context.queue.add(messages, now.0, now.1).await {
        Ok(()) if is_queued => (reply::OK.with_text(format!("{id} queued")), "queued"),
        Ok(()) => (reply::OK.with_text(format!("{id} delivered")), "delivered"),
        Err(error) if all_have_it => {
            // Refused, the message would come again under another id, and all would have it twice.
            warn!(message = %id, %error, "the sender is not told of the delivery");
            (reply::OK.with_text(format!("{id} delivered")), "delivered")
        }
        Err(error) => {
            // Those who have it will get it again when the client comes again; better than that the others never do.
            warn!(message = %id, %error, "cannot queue");
            (error.reply(), "tempfail")
        }
    }
}

#[cfg(test)]
mod tests;
