//! Names of folders and files in a Maildir.
//!
//! Owns: `Folder`. Called by: `pop_imap::snapshot`. Never: gives two mailboxes of an account one folder.
//! Form: Maildir++, names in modified UTF-7 (RFC 3501 section 5.1.3); what would part levels is escaped as Dovecot's listescape does.

use std::fmt::Write;

use crate::pop_imap::imap::name::encode;
use crate::pop_imap::store::name::{INBOX, SEPARATOR};
use crate::pop_imap::store::snapshot::Mailbox;
use crate::pop_imap::store::{AccountId, Flags, MailboxId, Row};

/// Octets of a folder's name, at most: file systems take 255.
const NAME_LEN_MAX: usize = 240;
/// Keywords that a file's name can say: `a` to `z`.
const KEYWORDS_MAX: usize = 26;
/// Directory of INBOX.
const MAILDIR: &str = "Maildir";

/// Where a mailbox lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    /// entryUUID.
    pub(super) account: String,
    /// Below the account's directory.
    pub(super) directory: String,
}

impl Folder {
    pub(super) fn new(account: &str, mailbox: &Mailbox) -> Self {
        let directory = match mailbox.name.as_str() {
            INBOX => MAILDIR.to_owned(),
            name => format!("{MAILDIR}/{}", folder_name(name, mailbox.id)),
        };
        Self { account: account.to_owned(), directory }
    }

    pub(super) fn is_inbox(&self) -> bool {
        self.directory == MAILDIR
    }

    /// A message in it, below the account's directory.
    pub(super) fn file(&self, mailbox: MailboxId, row: &Row) -> String {
        // The time of delivery first, as is usual; the rest is in no other name of this store. `S=` is Dovecot's, who then needs not ask the disk.
        let (directory, time) = (&self.directory, row.internal_date.max(0));
        let (mailbox, flags) = (mailbox.get(), flags(row.flags));
        format!("{directory}/cur/{time}.M{mailbox}U{}.fife,S={}:2,{flags}", row.uid, row.size)
    }
}

/// As `.Sent.2024`.
fn folder_name(name: &str, id: MailboxId) -> String {
    let mut folder = String::new();
    for level in name.split(SEPARATOR) {
        folder.push('.');
        for letter in encode(level).chars() {
            match letter {
                '.' => folder.push_str("\\2e"),
                '\\' => folder.push_str("\\5c"),
                _ => folder.push(letter),
            }
        }
    }
    // The listing has the whole name. No name gives a backslash that digits alone follow.
    if folder.len() > NAME_LEN_MAX { format!(".fife\\{}", id.get()) } else { folder }
}

/// The flags at the end of a file's name, in the order of ASCII.
fn flags(flags: Flags) -> String {
    let system =
        [(Flags::DRAFT, 'D'), (Flags::FLAGGED, 'F'), (Flags::ANSWERED, 'R'), (Flags::SEEN, 'S'), (Flags::DELETED, 'T')];
    let keywords = ('a'..='z').take(KEYWORDS_MAX).enumerate().map(|(index, letter)| (Flags::keyword(index), letter));
    let all = system.into_iter().chain(keywords);
    all.filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| letter).collect()
}

/// As in the directory: 8-4-4-4-12 hexadecimal digits.
pub(super) fn uuid(account: &AccountId) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in account.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing into a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}
