//! The snapshot of INBOX that a POP3 session works on.
//!
//! Owns: `Maildrop`. Called by: the session; `pop3::serve` makes it from a mailbox's view.
//! Spec: RFC 1939 section 5: message numbers do not change within a session, whatever comes in meanwhile.

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub uid: u32,
    /// Octets.
    pub size: u32,
}

/// Messages as they were at login, in UID order, and which of them are marked as deleted.
///
/// Invariant: `count` and `octets` are those of the messages that are not marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maildrop {
    uid_validity: u32,
    entries: Vec<Entry>,
    /// One for each entry.
    deleted: Vec<bool>,
    count: usize,
    octets: u64,
}

impl Maildrop {
    /// A snapshot; nothing is deleted.
    #[must_use]
    pub fn new(uid_validity: u32, entries: Vec<Entry>) -> Self {
        let mut maildrop = Self { uid_validity, deleted: vec![false; entries.len()], entries, count: 0, octets: 0 };
        maildrop.reset();
        maildrop
    }

    /// Messages that are not deleted.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Octets of the messages that are not deleted.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// The message of this number (from 1), unless it is deleted.
    pub(super) fn get(&self, number: u32) -> Option<Entry> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        if *self.deleted.get(index)? { None } else { self.entries.get(index).copied() }
    }

    /// Marks a message; false when there is none of this number.
    pub(super) fn delete(&mut self, number: u32) -> bool {
        let Some(entry) = self.get(number) else { return false };
        let mark = usize::try_from(number).ok().and_then(|number| self.deleted.get_mut(number.checked_sub(1)?));
        let Some(mark) = mark else { return false };
        *mark = true;
        self.count -= 1;
        self.octets -= u64::from(entry.size);
        true
    }

    /// Takes all marks away.
    pub(super) fn reset(&mut self) {
        self.deleted.fill(false);
        self.count = self.entries.len();
        self.octets = self.entries.iter().map(|entry| u64::from(entry.size)).sum();
    }

    /// UIDs of the marked messages, ascending.
    pub(super) fn deleted(&self) -> Vec<u32> {
        let pairs = self.entries.iter().zip(&self.deleted);
        pairs.filter(|(_, deleted)| **deleted).map(|(entry, _)| entry.uid).collect()
    }

    /// The unique-id: stays for the message's life, and never comes back for another (RFC 1939 section 7, UIDL).
    pub(super) fn unique_id(&self, entry: Entry) -> String {
        format!("{}.{}", self.uid_validity, entry.uid)
    }

    /// How many messages there were, deleted ones too: the highest number.
    pub(super) fn highest(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }
}
