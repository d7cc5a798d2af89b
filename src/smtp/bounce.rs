//! Bounces: telling the sender what was not delivered.
//!
//! Owns: the wording and the form of a delivery status notification. Called by: `smtp::delivery`, `smtp::runner`.
//! Never: answers the null reverse-path (RFC 5321 section 6.1), returns more of a message than its header.
//! Spec: RFC 3464 (notification), RFC 6522 (report), RFC 6533 (addresses beyond ASCII), RFC 3834 (automatic answers).

use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use tracing::{info, warn};

use super::context::Context;
use super::envelope::{Envelope, Message, Recipient};
use super::metrics::BOUNCES;
use super::reply::Reply;
use super::session::Personality;
use super::{header, recipients, trace};
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;

/// Octets of the original header that are returned, at most.
const HEADER_LEN_MAX: usize = 16 * 1024;

/// A recipient that gets nothing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub recipient: Recipient,
    pub reply: Reply,
}

/// The notification for these failures, addressed to the sender's mailbox; none when nobody can be told, which is logged.
pub(super) async fn for_failures(context: &Context, message: &Message, failures: &[Failure]) -> Option<Message> {
    let id = message.envelope.id;
    for failure in failures {
        info!(message = %id, recipient = %failure.recipient.mailbox, reply = %failure.reply, "not delivered");
    }
    let Some(sender) = &message.envelope.reverse_path else {
        warn!(message = %id, "undeliverable, and from nobody: dropped");
        return None;
    };
    let mailboxes = match context.directory.expand(sender).await {
        Ok(expansion) => match recipients::mailboxes(sender, expansion, Personality::Submission) {
            Ok(mailboxes) => mailboxes,
            Err(reply) => {
                warn!(message = %id, %sender, %reply, "the sender cannot be told what was not delivered");
                return None;
            }
        },
        Err(error) => {
            // The mailbox will be asked about again when the notification is delivered.
            warn!(message = %id, %error, "directory gives no answer");
            vec![sender.clone()]
        }
    };
    let bounce = write(&context.hostname, message, failures, sender, mailboxes, Id::new(), clock::unix_secs());
    BOUNCES.inc();
    info!(message = %id, bounce = %bounce.envelope.id, %sender, "sender is told");
    Some(bounce)
}

/// The notification as a message.
fn write(
    hostname: &str,
    message: &Message,
    failures: &[Failure],
    sender: &Address,
    mailboxes: Vec<Address>,
    id: Id,
    unix_secs: u64,
) -> Message {
    let unicode = !sender.is_ascii() || failures.iter().any(|failure| !is_ascii(failure));
    let header_len = header::scan(&message.content).len.min(HEADER_LEN_MAX);
    let original = message.content.get(..header_len).unwrap_or_default().to_vec();
    // RFC 6533 section 6 has types of their own for what is not ASCII.
    let (status_type, header_type) = match (unicode, original.is_ascii()) {
        (false, true) => ("message/delivery-status", "text/rfc822-headers"),
        (true, true) => ("message/global-delivery-status", "text/rfc822-headers"),
        (false, false) => ("message/delivery-status", "message/global-headers"),
        (true, false) => ("message/global-delivery-status", "message/global-headers"),
    };
    let raw = |kind: &'static str, octets: Vec<u8>| {
        let encoding = if octets.is_ascii() { "7bit" } else { "8bit" };
        MimePart::new(ContentType::new(kind), BodyPart::from(octets)).transfer_encoding(encoding)
    };
    let parts = vec![
        MimePart::new(ContentType::new("text/plain").attribute("charset", "utf-8"), explanation(hostname, failures)),
        raw(status_type, status(hostname, failures, unicode, message, unix_secs).into_bytes()),
        raw(header_type, original),
    ];
    let report = ContentType::new("multipart/report").attribute("report-type", "delivery-status");
    let mut content = Vec::new();
    MessageBuilder::new()
        .header("Date", Raw::new(trace::date(unix_secs)))
        .header("From", Raw::new(format!("Mail delivery <postmaster@{hostname}>")))
        .header("To", Raw::new(format!("<{sender}>")))
        .header("Message-ID", Raw::new(format!("<{id}@{hostname}>")))
        .subject("Undelivered mail returned to sender")
        // RFC 3834 section 5: no automatic answer to this one.
        .header("Auto-Submitted", Raw::new("auto-replied"))
        .body(MimePart::new(report, parts))
        .serialize(&mut content);
    let given = std::sync::Arc::new(sender.clone());
    let to = |mailbox| Recipient { given: given.clone(), mailbox };
    let recipients = mailboxes.into_iter().map(to).collect();
    let smtputf8 = unicode || !content.is_ascii();
    let envelope = Envelope { id, reverse_path: None, recipients, smtputf8 };
    Message { envelope, trace: Bytes::new(), content: content.into() }
}

fn is_ascii(failure: &Failure) -> bool {
    failure.recipient.given.is_ascii() && failure.recipient.mailbox.is_ascii()
}

fn explanation(hostname: &str, failures: &[Failure]) -> String {
    let mut text = format!(
        "This is the mail system at {hostname}.\r\n\r\nYour message could not be delivered to one or more recipients.\r\nIt has not been delivered to:\r\n\r\n"
    );
    for failure in failures {
        text.push_str(&format!("  <{}>\r\n      {}\r\n", failure.recipient.given, failure.reply));
    }
    text.push_str("\r\nThe header of your message is attached.\r\n");
    text
}

/// RFC 3464 section 2.
fn status(hostname: &str, failures: &[Failure], unicode: bool, message: &Message, unix_secs: u64) -> String {
    let kind = if unicode { "utf-8" } else { "rfc822" };
    let mut text = format!(
        "Reporting-MTA: dns; {hostname}\r\nX-Fife-Message: {}\r\nArrival-Date: {}\r\n",
        message.envelope.id,
        trace::date(arrival_secs(message.envelope.id).min(unix_secs))
    );
    for Failure { recipient, reply } in failures {
        text.push_str(&format!(
            "\r\nOriginal-Recipient: {kind}; {}\r\nFinal-Recipient: {kind}; {}\r\nAction: failed\r\nStatus: {}\r\nDiagnostic-Code: smtp; {reply}\r\n",
            recipient.given,
            recipient.mailbox,
            reply.status(),
        ));
    }
    text
}

/// An id is stamped with the time at which MAIL was taken: milliseconds in its upper 42 bits.
fn arrival_secs(id: Id) -> u64 {
    (id.to_u64() >> 22) / 1000
}

#[cfg(test)]
mod tests;
