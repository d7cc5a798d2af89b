//! Reports: telling the sender what was not delivered, what is late, and, when asked to, what arrived.
//!
//! Owns: the wording and the form of a delivery status notification, and who gets one. Called by: `smtp::delivery`, `smtp::settling`, `smtp::runner`.
//! Never: answers the null reverse-path (RFC 5321 section 6.1); a report that cannot be delivered is dropped, and that is logged.
//! Spec: RFC 3461 (what the sender asked for), RFC 3464 (notification), RFC 6522 (report), RFC 6533 (addresses beyond ASCII), RFC 3834 (automatic answers).

use std::sync::Arc;

use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use tracing::{info, warn};

use super::context::Context;
use super::envelope::{Envelope, Message, Personality, Recipient, Reports, Return, Way};
use super::metrics::BOUNCES;
use super::reply::Reply;
use super::{header, recipients, trace};
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::directory::DirectoryError;

/// Octets of the original header that are returned, at most.
const HEADER_LEN_MAX: usize = 16 * 1024;
/// Octets of a message up to which all of it is returned to a sender who wants that; of a longer one, the header (RFC 3461 section 4.3).
const FULL_LEN_MAX: usize = 10 * 1024 * 1024;

/// What a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Will not be delivered.
    Failure,
    /// Is still waiting; will be given up at this time, in seconds since 1970.
    Delay { until_secs: u64 },
    /// Delivered, or handed to a server that tells nobody.
    Success,
}

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    pub recipient: Recipient,
    pub reply: Reply,
    /// The server that said so; none: this one.
    pub remote: Option<Arc<str>>,
    /// Of success: it is in the mailbox, as opposed to another server's hands.
    pub is_final: bool,
}

impl Fact {
    /// Something that this server found out.
    pub(super) fn own(recipient: Recipient, reply: Reply) -> Self {
        Self { recipient, reply, remote: None, is_final: true }
    }
}

/// The report of these facts, addressed to the sender; none when nobody is to be told, or can be.
///
/// # Errors
/// The directory does not say where the sender's mail goes: to be asked again later.
pub(super) async fn report(
    context: &Context,
    message: &Message,
    kind: Kind,
    facts: Vec<Fact>,
) -> Result<Option<Message>, DirectoryError> {
    let id = message.envelope.id;
    let facts: Vec<Fact> = facts.into_iter().filter(|fact| kind.is_wanted(fact)).collect();
    if facts.is_empty() {
        return Ok(None);
    }
    let Some(sender) = &message.envelope.reverse_path else {
        if kind == Kind::Failure {
            warn!(message = %id, "undeliverable, and from nobody: dropped");
        }
        return Ok(None);
    };
    let expansion = context.directory.expand(sender).await?;
    let targets = match recipients::targets(sender, expansion, Personality::Submission) {
        Ok(targets) => targets,
        Err(reply) => {
            warn!(message = %id, %sender, %reply, "the sender cannot be told what became of the message");
            return Ok(None);
        }
    };
    let writing =
        Writing { hostname: &context.hostname, message, kind, facts: &facts, sender, unix_secs: clock::unix_secs() };
    let report = context.authentication.sign_own(writing.write(targets, Id::new())).await;
    BOUNCES.inc();
    info!(message = %id, bounce = %report.envelope.id, kind = kind.action(true), %sender, "sender is told");
    Ok(Some(report))
}

impl Kind {
    fn is_wanted(self, fact: &Fact) -> bool {
        let notify = fact.recipient.notify;
        match self {
            Self::Failure => notify.failure(),
            Self::Delay { .. } => notify.delay(),
            Self::Success => notify.success(),
        }
    }

    /// RFC 3464 section 2.3.3.
    fn action(self, is_final: bool) -> &'static str {
        match self {
            Self::Failure => "failed",
            Self::Delay { .. } => "delayed",
            Self::Success if is_final => "delivered",
            Self::Success => "relayed",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Failure => "Undelivered mail returned to sender",
            Self::Delay { .. } => "Delayed mail (still being tried)",
            Self::Success => "Successful mail delivery report",
        }
    }

    fn lead(self) -> &'static str {
        match self {
            Self::Failure => {
                "Your message could not be delivered to one or more recipients.\r\nIt has not been delivered to:"
            }
            Self::Delay { .. } => {
                "Your message has not been delivered yet to the recipients below. You need not send it again:\r\nit goes on being tried. You will be told if it cannot be delivered in the end."
            }
            Self::Success => "As you asked to be told: your message reached the recipients below.",
        }
    }
}

/// A report being written.
struct Writing<'a> {
    hostname: &'a str,
    message: &'a Message,
    kind: Kind,
    facts: &'a [Fact],
    sender: &'a Address,
    unix_secs: u64,
}

impl Writing<'_> {
    /// The report as a message.
    fn write(&self, targets: Vec<(Address, Way)>, id: Id) -> Message {
        let unicode = !self.sender.is_ascii() || self.facts.iter().any(|fact| !is_ascii(fact));
        let (original, is_full) = self.original();
        // RFC 6533 section 6 has types of their own for what is not ASCII.
        let status_type = if unicode { "message/global-delivery-status" } else { "message/delivery-status" };
        let original_type = match (is_full, original.is_ascii()) {
            (true, true) => "message/rfc822",
            (true, false) => "message/global",
            (false, true) => "text/rfc822-headers",
            (false, false) => "message/global-headers",
        };
        let raw = |kind: &'static str, octets: Vec<u8>| {
            let encoding = if octets.is_ascii() { "7bit" } else { "8bit" };
            MimePart::new(ContentType::new(kind), BodyPart::from(octets)).transfer_encoding(encoding)
        };
        let parts = vec![
            MimePart::new(ContentType::new("text/plain").attribute("charset", "utf-8"), self.explanation()),
            raw(status_type, self.status(unicode).into_bytes()),
            raw(original_type, original),
        ];
        let report = ContentType::new("multipart/report").attribute("report-type", "delivery-status");
        let mut content = Vec::new();
        let (hostname, sender) = (self.hostname, self.sender);
        MessageBuilder::new()
            .header("Date", Raw::new(trace::date(self.unix_secs)))
            .header("From", Raw::new(format!("Mail delivery <postmaster@{hostname}>")))
            .header("To", Raw::new(format!("<{sender}>")))
            .header("Message-ID", Raw::new(format!("<{id}@{hostname}>")))
            .subject(self.kind.subject())
            // RFC 3834 section 5: no automatic answer to this one.
            .header("Auto-Submitted", Raw::new("auto-replied"))
            .body(MimePart::new(report, parts))
            .serialize(&mut content);
        let given = Arc::new(sender.clone());
        let to = |(mailbox, way)| Recipient::new(Arc::clone(&given), mailbox, way);
        let recipients = targets.into_iter().map(to).collect();
        let smtputf8 = unicode || !content.is_ascii();
        let envelope = Envelope { id, reverse_path: None, recipients, smtputf8, reports: Reports::default() };
        Message { envelope, trace: Bytes::new(), content: content.into() }
    }

    /// What is returned of the message, and whether it is all of it.
    fn original(&self) -> (Vec<u8>, bool) {
        let message = self.message;
        let wants_full = message.envelope.reports.returned == Some(Return::Full) && self.kind == Kind::Failure;
        if wants_full && message.size() <= FULL_LEN_MAX {
            return ([&message.trace[..], &message.content[..]].concat(), true);
        }
        let header_len = header::scan(&message.content).len.min(HEADER_LEN_MAX);
        (message.content.get(..header_len).unwrap_or_default().to_vec(), false)
    }

    fn explanation(&self) -> String {
        let mut text = format!("This is the mail system at {}.\r\n\r\n{}\r\n\r\n", self.hostname, self.kind.lead());
        for fact in self.facts {
            let remote = fact.remote.as_ref().map(|remote| format!("{remote} said: ")).unwrap_or_default();
            text.push_str(&format!("  <{}>\r\n      {remote}{}\r\n", fact.recipient.given, fact.reply));
        }
        if let Kind::Delay { until_secs } = self.kind {
            text.push_str(&format!("\r\nIt will be given up on {}.\r\n", trace::date(until_secs)));
        }
        text.push_str("\r\nThe header of your message, or all of it, is attached.\r\n");
        text
    }

    /// RFC 3464 section 2.
    fn status(&self, unicode: bool) -> String {
        let arrived = trace::date(arrival_secs(self.message.envelope.id).min(self.unix_secs));
        let mut text = format!("Reporting-MTA: dns; {}\r\n", self.hostname);
        if let Some(id) = &self.message.envelope.reports.envelope_id {
            text.push_str(&format!("Original-Envelope-Id: {id}\r\n"));
        }
        text.push_str(&format!("X-Fife-Message: {}\r\nArrival-Date: {arrived}\r\n", self.message.envelope.id));
        for fact in self.facts {
            self.recipient(&mut text, fact, if unicode { "utf-8" } else { "rfc822" });
        }
        text
    }

    fn recipient(&self, text: &mut String, fact: &Fact, kind: &str) {
        let Fact { recipient, reply, remote, is_final } = fact;
        let original = match recipient.original.as_deref().and_then(|original| original.split_once(';')) {
            Some((kind, address)) => format!("{kind}; {address}"),
            None => format!("{kind}; {}", recipient.given),
        };
        text.push_str(&format!(
            "\r\nOriginal-Recipient: {original}\r\nFinal-Recipient: {kind}; {}\r\n",
            recipient.mailbox
        ));
        text.push_str(&format!("Action: {}\r\nStatus: {}\r\n", self.kind.action(*is_final), reply.status()));
        if let Some(remote) = remote {
            let name = remote.split(' ').next().unwrap_or_default();
            text.push_str(&format!("Remote-MTA: dns; {name}\r\n"));
        }
        text.push_str(&format!("Diagnostic-Code: smtp; {reply}\r\n"));
        if let Kind::Delay { until_secs } = self.kind {
            text.push_str(&format!("Will-Retry-Until: {}\r\n", trace::date(until_secs)));
        }
    }
}

fn is_ascii(fact: &Fact) -> bool {
    let original = fact.recipient.original.as_deref().is_none_or(str::is_ascii);
    fact.recipient.given.is_ascii() && fact.recipient.mailbox.is_ascii() && original
}

/// An id is stamped with the time at which MAIL was taken: milliseconds in its upper 42 bits.
fn arrival_secs(id: Id) -> u64 {
    (id.to_u64() >> 22) / 1000
}

#[cfg(test)]
mod tests;
