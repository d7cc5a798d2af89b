//! What the store writes into its ledger.
//!
//! Owns: the kinds of records and their coding. Called by: `writer` (writes), `recovery` and `compaction` (read).
//! Never: decides anything. A change holds all that replaying it needs (UIDs, modseqs, ids, dates), so that the same
//! records give the same mailboxes at any time.
//!
//! Kinds: a *message* (id, bytes) stands once however many mailboxes it is in; *changes* are what happened to mailboxes,
//! each with a sequence number that only ascends; a *state* is all mailboxes of an account as of a sequence number, in
//! parts, after which the account's earlier changes are dead; *counters* keep ids from being given out twice when the
//! records that used them are gone; *repeats* do so with the keys of deliveries.

use bytes::Bytes;

use super::flags::{FlagChange, Flags};
use super::name::SpecialUse;
use super::repeats::DeliveryKey;
use super::view::{MessageId, Row};
use super::{AccountId, MailboxId};
use crate::message::pack::{Malformed, Packer, Unpacker};

/// `Entry::kind` of each kind of record.
pub(super) const KIND_MESSAGE: u8 = 1;
pub(super) const KIND_CHANGES: u8 = 2;
pub(super) const KIND_STATE: u8 = 3;
pub(super) const KIND_COUNTERS: u8 = 4;
pub(super) const KIND_REPEATS: u8 = 5;

/// Octets of the id before the bytes of a message.
pub(super) const MESSAGE_PREFIX_LEN: usize = 8;

/// A message record: id, then the bytes as they are.
pub(super) fn message(id: MessageId, bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(MESSAGE_PREFIX_LEN + bytes.len());
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(bytes);
    out.into()
}

/// Id and bytes out of a message record.
pub(super) fn read_message(payload: &Bytes) -> Result<(MessageId, Bytes), Malformed> {
    let (id, _) = payload.split_first_chunk::<MESSAGE_PREFIX_LEN>().ok_or(Malformed)?;
    Ok((MessageId(u64::from_le_bytes(*id)), payload.slice(MESSAGE_PREFIX_LEN..)))
}

/// Flags by name, as a record has them: bits of the system flags, then words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NamedFlags {
    pub(super) system: Flags,
    pub(super) keywords: Vec<String>,
}

/// A mailbox as it comes into being.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewMailbox {
    pub(super) id: MailboxId,
    pub(super) name: String,
    pub(super) uid_validity: u32,
    pub(super) special_use: Option<SpecialUse>,
}

/// One thing that happened to mailboxes of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) account: AccountId,
    pub(super) act: Act,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Mailboxes were made.
    Create(Vec<NewMailbox>),
    /// A message came in; by `key` it is known when it comes again.
    Deliver { mailbox: MailboxId, row: Row, flags: NamedFlags, trace: Bytes, key: Option<DeliveryKey> },
    /// Flags were changed, of those messages that were there and not modified after `unchanged_since`.
    Flags {
        mailbox: MailboxId,
        modseq: u64,
        change: FlagChange,
        flags: NamedFlags,
        unchanged_since: Option<u64>,
        uids: Vec<u32>,
    },
    /// Messages were removed.
    Expunge { mailbox: MailboxId, modseq: u64, uids: Vec<u32> },
    /// The messages that were there were copied; the copy of `uids[n]` has the UID `first + n`.
    Copy { source: MailboxId, target: MailboxId, modseq: u64, first: u32, uids: Vec<u32>, remove: Option<u64> },
    /// All messages went to another mailbox that was empty, keeping their UIDs (RENAME of INBOX).
    MoveAll { source: MailboxId, target: MailboxId, source_modseq: u64, target_modseq: u64 },
    /// A mailbox and its messages were removed.
    Delete { mailbox: MailboxId },
    /// Mailboxes got other names.
    Rename(Vec<(MailboxId, String)>),
    /// A name was put on the list of subscriptions, or taken off.
    Subscribe { name: String, subscribed: bool },
}

/// Changes with ascending sequence numbers from `first` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) first: u64,
    pub(super) changes: Vec<Change>,
}

impl Changes {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Packer::with_capacity(64 + self.changes.len() * 160);
        out.number(self.first);
        out.count(self.changes.len());
        for change in &self.changes {
            out.raw(&change.account);
            change.act.encode(&mut out);
        }
        out.finish().into()
    }

    pub(super) fn decode(payload: &Bytes) -> Result<Self, Malformed> {
        let mut input = Unpacker::new(payload);
        let first = input.number()?;
        let count = input.count()?;
        let mut changes = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            let account = account(&mut input)?;
            changes.push(Change { account, act: Act::decode(&mut input)? });
        }
        if input.is_empty() { Ok(Self { first, changes }) } else { Err(Malformed) }
    }
}

const CREATE: u8 = 1;
const DELIVER: u8 = 2;
const FLAGS: u8 = 3;
const EXPUNGE: u8 = 4;
const COPY: u8 = 5;
const MOVE_ALL: u8 = 6;
const DELETE: u8 = 7;
const RENAME: u8 = 8;
const SUBSCRIBE: u8 = 9;
/// As `DELIVER`, with a key at the end.
const DELIVER_ONCE: u8 = 10;

impl Act {
    fn encode(&self, out: &mut Packer) {
        match self {
            Self::Create(mailboxes) => {
                out.byte(CREATE);
                out.count(mailboxes.len());
                for mailbox in mailboxes {
                    out.number(mailbox.id.0);
                    out.bytes(mailbox.name.as_bytes());
                    out.number(mailbox.uid_validity.into());
                    out.byte(mailbox.special_use.map_or(0, SpecialUse::code));
                }
            }
            Self::Deliver { mailbox, row, flags, trace, key } => {
                out.byte(if key.is_some() { DELIVER_ONCE } else { DELIVER });
                out.number(mailbox.0);
                encode_row(out, row);
                flags.encode(out);
                out.bytes(trace);
                if let Some(key) = key {
                    out.raw(&key.0);
                }
            }
            Self::Flags { mailbox, modseq, change, flags, unchanged_since, uids } => {
                out.byte(FLAGS);
                out.number(mailbox.0);
                out.number(*modseq);
                out.byte(change_code(*change));
                flags.encode(out);
                encode_optional(out, *unchanged_since);
                encode_uids(out, uids);
            }
            Self::Expunge { mailbox, modseq, uids } => {
                out.byte(EXPUNGE);
                out.number(mailbox.0);
                out.number(*modseq);
                encode_uids(out, uids);
            }
            Self::Copy { source, target, modseq, first, uids, remove } => {
                out.byte(COPY);
                out.number(source.0);
                out.number(target.0);
                out.number(*modseq);
                out.number((*first).into());
                encode_optional(out, *remove);
                encode_uids(out, uids);
            }
            Self::MoveAll { source, target, source_modseq, target_modseq } => {
                out.byte(MOVE_ALL);
                for number in [source.0, target.0, *source_modseq, *target_modseq] {
                    out.number(number);
                }
            }
            Self::Delete { mailbox } => {
                out.byte(DELETE);
                out.number(mailbox.0);
            }
            Self::Rename(names) => {
                out.byte(RENAME);
                out.count(names.len());
                for (mailbox, name) in names {
                    out.number(mailbox.0);
                    out.bytes(name.as_bytes());
                }
            }
            Self::Subscribe { name, subscribed } => {
                out.byte(SUBSCRIBE);
                out.bytes(name.as_bytes());
                out.byte(u8::from(*subscribed));
            }
        }
    }

    fn decode(input: &mut Unpacker<'_>) -> Result<Self, Malformed> {
        match input.byte()? {
            CREATE => {
                let count = input.count()?;
                let mailboxes: Result<Vec<_>, _> = (0..count).map(|_| decode_new(input)).collect();
                Ok(Self::Create(mailboxes?))
            }
            kind @ (DELIVER | DELIVER_ONCE) => Ok(Self::Deliver {
                mailbox: MailboxId(input.number()?),
                row: decode_row(input)?,
                flags: NamedFlags::decode(input)?,
                trace: Bytes::copy_from_slice(input.bytes()?),
                key: if kind == DELIVER_ONCE { Some(decode_key(input)?) } else { None },
            }),
            FLAGS => Ok(Self::Flags {
                mailbox: MailboxId(input.number()?),
                modseq: input.number()?,
                change: read_change_code(input.byte()?)?,
                flags: NamedFlags::decode(input)?,
                unchanged_since: decode_optional(input)?,
                uids: decode_uids(input)?,
            }),
            EXPUNGE => {
                let (mailbox, modseq) = (MailboxId(input.number()?), input.number()?);
                Ok(Self::Expunge { mailbox, modseq, uids: decode_uids(input)? })
            }
            COPY => Ok(Self::Copy {
                source: MailboxId(input.number()?),
                target: MailboxId(input.number()?),
                modseq: input.number()?,
                first: input.number32()?,
                remove: decode_optional(input)?,
                uids: decode_uids(input)?,
            }),
            MOVE_ALL => Ok(Self::MoveAll {
                source: MailboxId(input.number()?),
                target: MailboxId(input.number()?),
                source_modseq: input.number()?,
                target_modseq: input.number()?,
            }),
            DELETE => Ok(Self::Delete { mailbox: MailboxId(input.number()?) }),
            RENAME => {
                let count = input.count()?;
                let names: Result<Vec<_>, Malformed> =
                    (0..count).map(|_| Ok((MailboxId(input.number()?), input.text()?.to_owned()))).collect();
                Ok(Self::Rename(names?))
            }
            SUBSCRIBE => Ok(Self::Subscribe { name: input.text()?.to_owned(), subscribed: input.byte()? != 0 }),
            _ => Err(Malformed),
        }
    }
}

impl NamedFlags {
    fn encode(&self, out: &mut Packer) {
        out.number(self.system.to_raw());
        out.count(self.keywords.len());
        for word in &self.keywords {
            out.bytes(word.as_bytes());
        }
    }

    fn decode(input: &mut Unpacker<'_>) -> Result<Self, Malformed> {
        let system = Flags::from_raw(input.number()?);
        let count = input.count()?;
        let keywords: Result<Vec<_>, Malformed> = (0..count).map(|_| Ok(input.text()?.to_owned())).collect();
        Ok(Self { system, keywords: keywords? })
    }
}

fn change_code(change: FlagChange) -> u8 {
    match change {
        FlagChange::Add => 0,
        FlagChange::Remove => 1,
        FlagChange::Replace => 2,
    }
}

fn read_change_code(code: u8) -> Result<FlagChange, Malformed> {
    match code {
        0 => Ok(FlagChange::Add),
        1 => Ok(FlagChange::Remove),
        2 => Ok(FlagChange::Replace),
        _ => Err(Malformed),
    }
}

fn account(input: &mut Unpacker<'_>) -> Result<AccountId, Malformed> {
    input.raw(16)?.try_into().map_err(|_| Malformed)
}

fn decode_key(input: &mut Unpacker<'_>) -> Result<DeliveryKey, Malformed> {
    input.raw(DeliveryKey::LEN)?.try_into().map(DeliveryKey).map_err(|_| Malformed)
}

/// Keys of deliveries, oldest first.
pub(super) fn repeats(keys: &[DeliveryKey]) -> Bytes {
    keys.iter().flat_map(|key| key.0).collect()
}

/// Keys out of a record.
pub(super) fn read_repeats(payload: &[u8]) -> Result<Vec<DeliveryKey>, Malformed> {
    let mut input = Unpacker::new(payload);
    let mut keys = Vec::with_capacity(payload.len() / DeliveryKey::LEN);
    while !input.is_empty() {
        keys.push(decode_key(&mut input)?);
    }
    Ok(keys)
}

fn decode_new(input: &mut Unpacker<'_>) -> Result<NewMailbox, Malformed> {
    Ok(NewMailbox {
        id: MailboxId(input.number()?),
        name: input.text()?.to_owned(),
        uid_validity: input.number32()?,
        special_use: SpecialUse::from_code(input.byte()?),
    })
}

fn encode_row(out: &mut Packer, row: &Row) {
    out.number(row.uid.into());
    out.number(row.size.into());
    out.number(row.flags.to_raw());
    out.number(row.modseq);
    out.signed(row.internal_date);
    out.number(row.message.0);
}

fn decode_row(input: &mut Unpacker<'_>) -> Result<Row, Malformed> {
    Ok(Row {
        uid: input.number32()?,
        size: input.number32()?,
        flags: Flags::from_raw(input.number()?),
        modseq: input.number()?,
        internal_date: input.signed()?,
        message: MessageId(input.number()?),
    })
}

fn encode_optional(out: &mut Packer, number: Option<u64>) {
    out.byte(u8::from(number.is_some()));
    out.number(number.unwrap_or(0));
}

fn decode_optional(input: &mut Unpacker<'_>) -> Result<Option<u64>, Malformed> {
    let present = input.byte()? != 0;
    let number = input.number()?;
    Ok(present.then_some(number))
}

/// UIDs in any order, as runs of following ones: how many runs, then the start of each (as a difference) and its length.
fn encode_uids(out: &mut Packer, uids: &[u32]) {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match runs.last_mut() {
            Some((start, length)) if start.checked_add(*length) == Some(uid) => *length += 1,
            Some(_) | None => runs.push((uid, 1)),
        }
    }
    out.count(runs.len());
    let mut last = 0;
    for (start, length) in runs {
        out.signed(i64::from(start) - last);
        out.number(length.into());
        last = i64::from(start);
    }
}

fn decode_uids(input: &mut Unpacker<'_>) -> Result<Vec<u32>, Malformed> {
    let runs = input.count()?;
    let mut uids = Vec::new();
    let mut last: i64 = 0;
    for _ in 0..runs {
        last = last.checked_add(input.signed()?).ok_or(Malformed)?;
        let start = u32::try_from(last).map_err(|_| Malformed)?;
        let length = input.number32()?;
        // Nothing that was written has more UIDs; a hostile length asks for no more memory than this.
        let end = start.checked_add(length).ok_or(Malformed)?;
        let room = super::UIDS_PER_CHANGE_MAX.saturating_sub(uids.len());
        if usize::try_from(length).is_ok_and(|length| length > room) {
            return Err(Malformed);
        }
        uids.extend(start..end);
    }
    Ok(uids)
}

/// One part of an account's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatePart {
    pub(super) account: AccountId,
    /// The state is as it was after the change of this number.
    pub(super) as_of: u64,
    /// Which part, and how many there are.
    pub(super) part: u32,
    pub(super) parts: u32,
    pub(super) body: StateBody,
}

/// What a part of a state holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StateBody {
    /// All mailboxes and subscriptions; the first part.
    Mailboxes { mailboxes: Vec<StateMailbox>, subscriptions: Vec<String> },
    /// Messages of one mailbox.
    Messages { mailbox: MailboxId, messages: Vec<(Row, Vec<u8>)> },
}

/// A mailbox within a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateMailbox {
    pub(super) new: NewMailbox,
    pub(super) uid_next: u32,
    pub(super) modseq: u64,
    pub(super) keywords: Vec<String>,
}

impl StatePart {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Packer::with_capacity(1024);
        out.raw(&self.account);
        out.number(self.as_of);
        out.number(self.part.into());
        out.number(self.parts.into());
        match &self.body {
            StateBody::Mailboxes { mailboxes, subscriptions } => {
                out.byte(0);
                out.count(mailboxes.len());
                for mailbox in mailboxes {
                    out.number(mailbox.new.id.0);
                    out.bytes(mailbox.new.name.as_bytes());
                    out.number(mailbox.new.uid_validity.into());
                    out.byte(mailbox.new.special_use.map_or(0, SpecialUse::code));
                    out.number(mailbox.uid_next.into());
                    out.number(mailbox.modseq);
                    encode_texts(&mut out, &mailbox.keywords);
                }
                encode_texts(&mut out, subscriptions);
            }
            StateBody::Messages { mailbox, messages } => {
                out.byte(1);
                out.number(mailbox.0);
                out.count(messages.len());
                for (row, trace) in messages {
                    encode_row(&mut out, row);
                    out.bytes(trace);
                }
            }
        }
        out.finish().into()
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut input = Unpacker::new(payload);
        let account = account(&mut input)?;
        let (as_of, part, parts) = (input.number()?, input.number32()?, input.number32()?);
        let body = match input.byte()? {
            0 => {
                let count = input.count()?;
                let mut mailboxes = Vec::with_capacity(count.min(1024));
                for _ in 0..count {
                    let new = decode_new(&mut input)?;
                    let (uid_next, modseq) = (input.number32()?, input.number()?);
                    mailboxes.push(StateMailbox { new, uid_next, modseq, keywords: decode_texts(&mut input)? });
                }
                StateBody::Mailboxes { mailboxes, subscriptions: decode_texts(&mut input)? }
            }
            1 => {
                let mailbox = MailboxId(input.number()?);
                let count = input.count()?;
                let messages: Result<Vec<_>, Malformed> =
                    (0..count).map(|_| Ok((decode_row(&mut input)?, input.bytes()?.to_vec()))).collect();
                StateBody::Messages { mailbox, messages: messages? }
            }
            _ => return Err(Malformed),
        };
        Ok(Self { account, as_of, part, parts, body })
    }
}

fn encode_texts(out: &mut Packer, texts: &[String]) {
    out.count(texts.len());
    for text in texts {
        out.bytes(text.as_bytes());
    }
}

fn decode_texts(input: &mut Unpacker<'_>) -> Result<Vec<String>, Malformed> {
    let count = input.count()?;
    (0..count).map(|_| Ok(input.text()?.to_owned())).collect()
}

/// The next ids to give out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Sequence number of the last change.
    pub(super) seq: u64,
    pub(super) message_next: u64,
    pub(super) mailbox_next: u64,
    /// The last UIDVALIDITY that was given out.
    pub(super) uid_validity_last: u32,
}

impl Counters {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Packer::default();
        for number in [self.seq, self.message_next, self.mailbox_next, self.uid_validity_last.into()] {
            out.number(number);
        }
        out.finish().into()
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut input = Unpacker::new(payload);
        Ok(Self {
            seq: input.number()?,
            message_next: input.number()?,
            mailbox_next: input.number()?,
            uid_validity_last: input.number32()?,
        })
    }

    /// The higher of both, one by one.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            seq: self.seq.max(other.seq),
            message_next: self.message_next.max(other.message_next),
            mailbox_next: self.mailbox_next.max(other.mailbox_next),
            uid_validity_last: self.uid_validity_last.max(other.uid_validity_last),
        }
    }
}
