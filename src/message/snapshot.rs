//! Mailboxes in a snapshot: what stands beside the messages, and how a full snapshot and later ones become one.
//!
//! Owns: `Listing`, `Line`, `Account`. Called by: pop-imap (writes them), whoever restores. Never: reads a tar or a tape.
//!
//! Members, UUID being the entryUUID of the user's entry in the directory:
//!
//! - `mail/UUID/fife-mailboxes.json`: a [`Listing`], all mailboxes of the account;
//! - `mail/UUID/fife-messages.N.jsonl` in a full snapshot, `mail/UUID/fife-changes.CHANGE.N.jsonl` in one that goes on from another (CHANGE ascends
//!   from one to the next): lines of JSON, each a [`Line`]. All of these stand before all messages;
//! - `mail/UUID/Maildir/`: Maildir++, where the messages are. INBOX is the Maildir itself, `Sent/2024` is `.Sent.2024`.
//!
//! A snapshot that goes on from another has the accounts only of which something has changed. To put them together, oldest first: the listing
//! of an account replaces the former one; mailboxes that are not in it are gone, by `id`; where a mailbox is `complete`, its former
//! lines are forgotten; then each line replaces the one of the same mailbox and UID, or removes what is `gone`. A line without `file` is
//! of a message that an earlier snapshot has: under the same mailbox and UID, or else (in a mailbox that is `complete`) under the same `message`
//! and `size` anywhere in the account. [`Account`] does so.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Last part of the path of an account's listing.
pub const LISTING_NAME: &str = "fife-mailboxes.json";

/// An account at the moment of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listing {
    /// entryUUID.
    pub account: String,
    pub mailboxes: Vec<Listed>,
    /// Names of mailboxes, also of such as are not there.
    pub subscriptions: Vec<String>,
}

/// A mailbox in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// Stays the same when the mailbox gets another name, and is never given out twice.
    pub id: u64,
    /// UTF-8, levels parted by `/`.
    pub name: String,
    /// Where its messages are, below the account's directory: `Maildir/.Sent`.
    pub directory: String,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub highest_modseq: u64,
    /// As `\Sent` (RFC 6154 section 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special_use: Option<String>,
    pub keywords: Vec<String>,
    /// All its messages have a line in this snapshot; otherwise only those of which something has changed.
    pub complete: bool,
}

/// A line of `fife-messages` and `fife-changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Message(MessageLine),
    /// Messages with these UIDs are there no more.
    Gone {
        mailbox: u64,
        gone: Vec<u32>,
    },
}

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MessageLine {
    pub mailbox: u64,
    pub uid: u32,
    /// As `\Seen`, `$Forwarded`.
    pub flags: Vec<String>,
    pub modseq: u64,
    /// INTERNALDATE, in seconds since 1970.
    pub date: i64,
    /// Octets of the file.
    pub size: u32,
    /// The same for all copies of one message.
    pub message: u64,
    /// Where it is in this snapshot, below the account's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Where the octets of a message are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which snapshot, counted by whoever puts them together.
    pub snapshot: usize,
    /// Below the account's directory in that snapshot.
    pub file: String,
}

/// A message of the account as it is after all snapshots so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub line: MessageLine,
    /// None: no snapshot so far has it, so one is missing.
    pub place: Option<Place>,
}

/// One account, put together from snapshots: oldest first, of each the listing and then its lines.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The latest.
    pub listing: Listing,
    /// By mailbox and UID.
    mailboxes: BTreeMap<u64, BTreeMap<u32, Kept>>,
    /// What mailboxes had that are complete in the snapshot at hand.
    former: HashMap<u64, BTreeMap<u32, Kept>>,
    /// Every message that was ever seen, by `message` and `size`.
    known: HashMap<(u64, u32), Place>,
}

impl Account {
    /// The account's listing in the next snapshot.
    pub fn listing(&mut self, listing: Listing) {
        self.former.clear();
        self.mailboxes.retain(|id, _| listing.mailboxes.iter().any(|listed| listed.id == *id));
        for listed in listing.mailboxes.iter().filter(|listed| listed.complete) {
            if let Some(rows) = self.mailboxes.remove(&listed.id) {
                self.former.insert(listed.id, rows);
            }
        }
        self.listing = listing;
    }

    /// A line of the snapshot with this number.
    pub fn line(&mut self, snapshot: usize, line: Line) {
        match line {
            Line::Gone { mailbox, gone } => {
                if let Some(rows) = self.mailboxes.get_mut(&mailbox) {
                    gone.iter().for_each(|uid| drop(rows.remove(uid)));
                }
            }
            Line::Message(line) => {
                let place = match &line.file {
                    Some(file) => Some(Place { snapshot, file: file.clone() }),
                    None => self.earlier(&line),
                };
                if let Some(place) = &place {
                    self.known.insert((line.message, line.size), place.clone());
                }
                self.mailboxes.entry(line.mailbox).or_default().insert(line.uid, Kept { line, place });
            }
        }
    }

    /// Where an earlier snapshot has a message.
    fn earlier(&self, line: &MessageLine) -> Option<Place> {
        let rows = [self.mailboxes.get(&line.mailbox), self.former.get(&line.mailbox)];
        let kept = rows.into_iter().flatten().find_map(|rows| rows.get(&line.uid));
        let place = kept.and_then(|kept| kept.place.clone());
        place.or_else(|| self.known.get(&(line.message, line.size)).cloned())
    }

    /// The messages of a mailbox, by UID.
    pub fn messages(&self, mailbox: u64) -> impl Iterator<Item = &Kept> {
        self.mailboxes.get(&mailbox).into_iter().flat_map(BTreeMap::values)
    }
}
