//! What stands in the queue's ledger.
//!
//! Owns: the kinds of record and their form. Called by: `smtp::queue`.
//! Form of `Message`: length of the head (4 octets, big-endian), the head as JSON, trace, content. `Settled`, `Mark`: JSON. Unknown fields are
//! ignored, so that an older version opens what a newer one wrote: so pauses are marks too, and no kind of their own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::slice;
use crate::base::address::Address;
use crate::base::id::Id;
use crate::ledger::Entry;
use crate::smtp::envelope::{Envelope, Message, Recipient, Reports};

const MESSAGE: u8 = 1;
const SETTLED: u8 = 2;
const MARK: u8 = 3;
/// Pauses that a record may ask for, at most: as long as `[smtp] retry-after` may.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Octets of the head's length.
const LEN_OCTETS: usize = 4;

/// All but the message itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    id: u64,
    reverse_path: Option<Address>,
    recipients: Vec<Recipient>,
    smtputf8: bool,
    #[serde(default)]
    reports: Reports,
    /// Held, or let go, by an administrator; none: its routes decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<bool>,
    /// The sender was told that it is late.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) warned: bool,
    /// When the queue took it.
    pub(super) arrived_millis: u64,
    trace_len: usize,
    /// Octets of trace and content.
    pub(super) size: u64,
}

/// What became of some recipients of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) id: Id,
    /// Indexes into the recipients of the latest `Message` record of this id.
    pub(super) places: Vec<u32>,
    pub(super) ending: Ending,
}

/// Something about a message as a whole, or of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Without sense when it is about a destination only.
    pub(super) id: Id,
    /// Held, or let go.
    pub(super) held: Option<bool>,
    /// The sender was told that it is late.
    pub(super) warned: bool,
    /// Attempts at this message, for one of its destinations.
    pub(super) tried: Option<Pause>,
    /// Attempts to reach a destination.
    pub(super) down: Option<Pause>,
}

/// How often something failed, and how long it is left alone for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    /// By `Routes::name`.
    pub(super) destination: String,
    /// In a row; 0: all is well again.
    pub(super) failures: u32,
    /// In milliseconds since 1970, both.
    pub(super) noted_millis: u64,
    pub(super) until_millis: u64,
    pub(super) reason: String,
}

impl Pause {
    /// From now until then.
    pub(super) fn new(
        destination: String,
        failures: u32,
        left: Duration,
        reason: Option<&Arc<str>>,
        now_millis: u64,
    ) -> Self {
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let (until_millis, reason) = (now_millis.saturating_add(left), reason.map(ToString::to_string));
        Self { destination, failures, noted_millis: now_millis, until_millis, reason: reason.unwrap_or_default() }
    }

    /// What is left of it. Nothing when the clock was set back since: rather too early than in years.
    pub(super) fn left(&self, now_millis: u64) -> Duration {
        let is_sane = now_millis >= self.noted_millis;
        let left = if is_sane { self.until_millis.saturating_sub(now_millis) } else { 0 };
        Duration::from_millis(left).min(PAUSE_MAX)
    }
}

#[derive(Serialize, Deserialize)]
struct MarkJson {
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<bool>,
    #[serde(default)]
    warned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tried: Option<Pause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    down: Option<Pause>,
}

#[derive(Serialize, Deserialize)]
struct SettledJson {
    id: u64,
    places: Vec<u32>,
    ending: Ending,
}

/// How it ended with a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    Delivered,
    /// Refused for good; the sender was told, where there is one.
    Refused,
    /// Too old; the sender was told, where there is one.
    Expired,
    /// By an administrator; nobody was told.
    Deleted,
}

/// A record, without the message.
#[derive(Debug)]
pub(super) enum Record {
    Message(Head),
    Settled(Settled),
    Mark(Mark),
}

impl Record {
    pub(super) fn read(entry: &Entry) -> Result<Self, &'static str> {
        match entry.kind {
            MESSAGE => Head::split(&entry.payload).map(|(head, ..)| Self::Message(head)),
            SETTLED => {
                let json: SettledJson = serde_json::from_slice(&entry.payload).map_err(|_| "settled")?;
                Ok(Self::Settled(Settled { id: Id::from_u64(json.id), places: json.places, ending: json.ending }))
            }
            MARK => {
                let json: MarkJson = serde_json::from_slice(&entry.payload).map_err(|_| "mark")?;
                let MarkJson { id, held, warned, tried, down } = json;
                Ok(Self::Mark(Mark { id: Id::from_u64(id), held, warned, tried, down }))
            }
            _ => Err("kind"),
        }
    }
}

impl Head {
    pub(super) fn of(message: &Message, now_millis: u64) -> Self {
        let Envelope { id, reverse_path, recipients, smtputf8, reports } = message.envelope.clone();
        let size = u64::try_from(message.size()).unwrap_or(u64::MAX);
        let (id, trace_len) = (id.to_u64(), message.trace.len());
        let (held, warned) = (None, false);
        Self {
            id,
            reverse_path,
            recipients,
            smtputf8,
            reports,
            held,
            warned,
            arrived_millis: now_millis,
            trace_len,
            size,
        }
    }

    pub(super) fn id(&self) -> Id {
        Id::from_u64(self.id)
    }

    pub(super) fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    pub(super) fn entry(&self, message: &Message) -> Entry {
        // A head is plain data: its serialisation does not fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut payload = Vec::with_capacity(LEN_OCTETS + json.len() + message.size());
        payload.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
        payload.extend_from_slice(&json);
        payload.extend_from_slice(&message.trace);
        payload.extend_from_slice(&message.content);
        Entry { kind: MESSAGE, time_millis: self.arrived_millis, payload: payload.into() }
    }

    /// Head, trace, content.
    pub(super) fn split(payload: &Bytes) -> Result<(Self, Bytes, Bytes), &'static str> {
        let (len, _) = payload.split_first_chunk::<LEN_OCTETS>().ok_or("head length")?;
        let end = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| "head length")?.saturating_add(LEN_OCTETS);
        let json = slice(payload, LEN_OCTETS..end).ok_or("head length")?;
        let head: Self = serde_json::from_slice(&json).map_err(|_| "head")?;
        let middle = end.saturating_add(head.trace_len);
        let trace = slice(payload, end..middle).ok_or("trace length")?;
        let content = slice(payload, middle..payload.len()).ok_or("content length")?;
        Ok((head, trace, content))
    }

    /// The message for the recipients at these places.
    pub(super) fn message(self, places: &[u32], trace: Bytes, content: Bytes) -> Message {
        let at = |place: &u32| usize::try_from(*place).ok().and_then(|at| self.recipients.get(at)).cloned();
        let recipients = places.iter().filter_map(at).collect();
        let envelope = Envelope {
            id: Id::from_u64(self.id),
            reverse_path: self.reverse_path,
            recipients,
            smtputf8: self.smtputf8,
            reports: self.reports,
        };
        Message { envelope, trace, content }
    }
}

impl Settled {
    pub(super) fn entry(&self, now_millis: u64) -> Entry {
        let json = SettledJson { id: self.id.to_u64(), places: self.places.clone(), ending: self.ending };
        // Plain data, as above.
        let payload = serde_json::to_vec(&json).unwrap_or_default();
        Entry { kind: SETTLED, time_millis: now_millis, payload: payload.into() }
    }
}

impl Mark {
    /// Nothing about this message yet.
    pub(super) fn new(id: Id) -> Self {
        Self { id, held: None, warned: false, tried: None, down: None }
    }

    pub(super) fn entry(&self, now_millis: u64) -> Entry {
        let Self { id, held, warned, tried, down } = self.clone();
        let json = MarkJson { id: id.to_u64(), held, warned, tried, down };
        // Plain data, as above.
        let payload = serde_json::to_vec(&json).unwrap_or_default();
        Entry { kind: MARK, time_millis: now_millis, payload: payload.into() }
    }
}
