//! What stands in the queue's ledger.
//!
//! Owns: the kinds of record and their form. Called by: `smtp::queue`.
//! Form of `Message`: length of the head (4 octets, big-endian), the head as JSON, trace, content. `Settled`, `Mark`: JSON. Unknown fields are
//! ignored, so that an older version opens what a newer one wrote.

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

/// Something about a message as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: Id,
    /// Held, or let go.
    pub(super) held: Option<bool>,
    /// The sender was told that it is late.
    pub(super) warned: bool,
}

#[derive(Serialize, Deserialize)]
struct MarkJson {
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<bool>,
    #[serde(default)]
    warned: bool,
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
                Ok(Self::Mark(Mark { id: Id::from_u64(json.id), held: json.held, warned: json.warned }))
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
    pub(super) fn entry(&self, now_millis: u64) -> Entry {
        let json = MarkJson { id: self.id.to_u64(), held: self.held, warned: self.warned };
        // Plain data, as above.
        let payload = serde_json::to_vec(&json).unwrap_or_default();
        Entry { kind: MARK, time_millis: now_millis, payload: payload.into() }
    }
}
