//! Handing a message over while its sender waits: what 250 stands for.
//!
//! Owns: the decision over all recipients of a message. Called by: `smtp::serve`.
//!
//! 250 means that every recipient has it, durably: in the mailbox (the LMTP server said so), or in the queue.
//!
//! Once, or twice? A recipient whom the LMTP server has acknowledged is never put into the queue. If this process dies between that
//! acknowledgement and the reply to the client, the client will send the message again: RFC 1047 tells why nobody can avoid that. If
//! the LMTP server dies between storing and acknowledging, we cannot know what it did, and tell the client to come again (451) rather than
//! say 250 to what may be doubled. Nothing that was answered 250 here is delivered twice. For what comes out of the queue see `smtp::runner`.

use tracing::{info, warn};

use super::bounce::{self, Failure};
use super::context::Context;
use super::envelope::{Message, Origin};
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
    let mailboxes: Vec<&Address> = message.envelope.recipients.iter().map(|recipient| &recipient.mailbox).collect();
    let fates = context.lmtp.deliver(&message, &mailboxes).await;
    let (reply, outcome) = match decide(&fates) {
        Decision::Delivered => (reply::OK.with_text(format!("{id} delivered")), "delivered"),
        Decision::Refuse(reply) if reply.is_permanent() => (reply, "refused"),
        Decision::Refuse(reply) => (reply, "tempfail"),
        Decision::Keep { pending, failed } => keep(context, message, &pending, failed).await,
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

pub(super) fn positive(fate: &Fate) -> Option<&Reply> {
    match fate {
        Fate::Answered(reply) if reply.is_positive() => Some(reply),
        Fate::Answered(_) | Fate::NotTried | Fate::Unknown => None,
    }
}

async fn keep(
    context: &Context,
    mut message: Message,
    pending: &[usize],
    failed: Vec<(usize, Reply)>,
) -> (Reply, &'static str) {
    let id = message.envelope.id;
    let at = |place: usize| message.envelope.recipients.get(place).cloned();
    let failures: Vec<Failure> = failed
        .into_iter()
        .filter_map(|(place, reply)| at(place).map(|recipient| Failure { recipient, reply }))
        .collect();
    let recipients: Vec<_> = pending.iter().filter_map(|place| at(*place)).collect();
    let mut messages = Vec::new();
    if !failures.is_empty() {
        messages.extend(bounce::for_failures(context, &message, &failures).await);
    }
    if !recipients.is_empty() {
        message.envelope.recipients = recipients;
        messages.push(message);
    }
    let now = (clock::unix_millis(), clock::monotonic());
    match context.queue.add(messages, now.0, now.1).await {
        Ok(()) if pending.is_empty() => (reply::OK.with_text(format!("{id} delivered")), "delivered"),
        Ok(()) => (reply::OK.with_text(format!("{id} queued")), "queued"),
        Err(error) => {
            // Those who have it will get it again when the client comes again; better than that the others never do.
            warn!(message = %id, %error, "cannot queue");
            (error.reply(), "tempfail")
        }
    }
}

#[cfg(test)]
mod tests;
