//! Snapshots of the mailboxes, to be backed up: every account as a Maildir, and beside it what a Maildir cannot say.
//!
//! Owns: the members of the stream. Called by: `serve`, through `net::snapshot`. Never: decides what is in it; the store does.
//! Form: `message::snapshot`; `folder`: names of folders and files.
//!
//! Messages come in the order in which they lie on the disk, those of all accounts mixed. One that several mailboxes have is repeated for
//! each, and not linked: the recipient's own trace fields stand before it, and what one user gets back must not depend on
//! another's file. Repeats follow each other, so compression finds them.

mod folder;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use self::folder::{Folder, uuid};
use super::store::snapshot::{Mailbox, Shown, Snapshot, SnapshotError};
use super::store::{AccountId, MailboxId, Row, Store};
use crate::base::clock;
use crate::message::snapshot::{LISTING_NAME, Line, Listed, Listing, MessageLine};
use crate::net::snapshot::archive::Member;
use crate::net::snapshot::{Archive, Give, GiveError, Head, Outlet, Spool};

/// Octets of lines after which a member ends.
const LINES_LEN_MAX: usize = 1 << 20;
/// UIDs of one line.
const GONE_MAX: usize = 1_000;
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// What gives snapshots of this store.
pub(super) fn of(store: Store, host: String) -> Arc<Give> {
    Arc::new(move |since, outlet| give(&store, &host, since, outlet))
}

fn give(store: &Store, host: &str, since: Option<&str>, outlet: &mut Outlet) -> Result<(), GiveError> {
    let now = clock::unix_secs();
    let mut first = First::new(store.spool().map_err(spooling)?, now);
    let mut show = |shown: Shown<'_>| {
        if matches!(shown, Shown::Account { .. }) {
            outlet.check()?;
        }
        first.show(shown)
    };
    let snapshot = store.snapshot(since, &mut show).map_err(ending)?;
    let mut archive = Archive::new(outlet);
    archive.head(&Head::new("pop-imap", host, since, &snapshot.next, now), now)?;
    let folders = first.finish(&mut archive)?;
    messages(snapshot, &folders, &mut archive)?;
    archive.finish()?;
    Ok(())
}

/// The messages, each into its folder.
fn messages(
    snapshot: Snapshot,
    folders: &HashMap<MailboxId, Folder>,
    archive: &mut Archive<&mut Outlet>,
) -> Result<(), GiveError> {
    let mut show = |mailbox: MailboxId, row: &Row, trace: &[u8], message: &[u8]| {
        let folder = folders.get(&mailbox).ok_or_else(|| GiveError::Source("a row without a mailbox".to_owned()))?;
        let path = format!("mail/{}/{}", folder.account, folder.file(mailbox, row));
        archive.file(Member { path: &path, time: row.internal_date, mode: FILE_MODE }, &[trace, message])?;
        Ok(())
    };
    snapshot.messages(&mut show).map_err(ending)
}

fn ending(error: SnapshotError<GiveError>) -> GiveError {
    match error {
        SnapshotError::Gone => GiveError::Gone,
        SnapshotError::Shown(error) => error,
        SnapshotError::Store(_) | SnapshotError::Short => GiveError::Source(error.to_string()),
    }
}

fn spooling(error: io::Error) -> GiveError {
    GiveError::Source(format!("a file for the snapshot: {error}"))
}

/// What the first pass shows, as members in a file: only when it is over is the head of the stream known.
struct First {
    archive: Archive<Spool>,
    folders: HashMap<MailboxId, Folder>,
    time: i64,
    /// Name of the members with lines, less their number.
    lines_name: String,
    account: String,
    lines: Vec<u8>,
    /// Members of the account with lines, so far.
    parts: u32,
}

impl First {
    fn new(spool: Spool, time: u64) -> Self {
        Self {
            archive: Archive::new(spool),
            folders: HashMap::new(),
            time: i64::try_from(time).unwrap_or(i64::MAX),
            lines_name: String::new(),
            account: String::new(),
            lines: Vec::new(),
            parts: 0,
        }
    }

    fn show(&mut self, shown: Shown<'_>) -> Result<(), GiveError> {
        match shown {
            Shown::Start { full: true, .. } => "fife-messages".clone_into(&mut self.lines_name),
            Shown::Start { seq, .. } => self.lines_name = format!("fife-changes.{seq}"),
            Shown::Account { account, mailboxes, subscriptions } => {
                self.account(account, mailboxes, subscriptions).map_err(spooling)?;
            }
            Shown::Row { mailbox, row, read } => {
                let file = self.folders.get(&mailbox.id).filter(|_| read).map(|folder| folder.file(mailbox.id, row));
                self.line(&Line::Message(MessageLine {
                    mailbox: mailbox.id.get(),
                    uid: row.uid,
                    flags: row.flags.names(&mailbox.keywords).map(str::to_owned).collect(),
                    modseq: row.modseq,
                    date: row.internal_date,
                    size: row.size,
                    message: row.message.get(),
                    file,
                }))?;
            }
            Shown::Gone { mailbox, uids } => {
                for gone in uids.chunks(GONE_MAX) {
                    self.line(&Line::Gone { mailbox: mailbox.id.get(), gone: gone.to_vec() })?;
                }
            }
        }
        Ok(())
    }

    fn account(&mut self, account: AccountId, mailboxes: &[Mailbox], subscriptions: &[String]) -> io::Result<()> {
        self.end_member()?;
        (self.account, self.parts) = (uuid(&account), 0);
        let folders: Vec<Folder> = mailboxes.iter().map(|mailbox| Folder::new(&self.account, mailbox)).collect();
        let listed = mailboxes.iter().zip(&folders).map(|(mailbox, folder)| Listed {
            id: mailbox.id.get(),
            name: mailbox.name.clone(),
            directory: folder.directory.clone(),
            uid_validity: mailbox.uid_validity,
            uid_next: mailbox.uid_next,
            highest_modseq: mailbox.highest_modseq,
            special_use: mailbox.special_use.map(|special| special.attribute().to_owned()),
            keywords: mailbox.keywords.clone(),
            complete: mailbox.complete,
        });
        let (account, subscriptions) = (self.account.clone(), subscriptions.to_vec());
        let listing = Listing { account, mailboxes: listed.collect(), subscriptions };
        let mut text = serde_json::to_vec_pretty(&listing)?;
        text.push(b'\n');
        self.file(LISTING_NAME, &text)?;
        for (mailbox, folder) in mailboxes.iter().zip(folders) {
            self.directories(&folder)?;
            self.folders.insert(mailbox.id, folder);
        }
        Ok(())
    }

    /// What makes a directory a Maildir, and one in it a folder of Maildir++.
    fn directories(&mut self, folder: &Folder) -> io::Result<()> {
        for name in ["cur", "new", "tmp"] {
            let path = format!("mail/{}/{}/{name}", folder.account, folder.directory);
            self.archive.directory(Member { path: &path, time: self.time, mode: DIRECTORY_MODE })?;
        }
        if folder.is_inbox() {
            return Ok(());
        }
        self.file(&format!("{}/maildirfolder", folder.directory), b"")
    }

    fn line(&mut self, line: &Line) -> Result<(), GiveError> {
        serde_json::to_writer(&mut self.lines, line).map_err(|error| spooling(error.into()))?;
        self.lines.push(b'\n');
        if self.lines.len() >= LINES_LEN_MAX { self.end_member().map_err(spooling) } else { Ok(()) }
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.parts += 1;
        let lines = std::mem::take(&mut self.lines);
        self.file(&format!("{}.{}.jsonl", self.lines_name, self.parts), &lines)
    }

    /// A file of the account.
    fn file(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        let path = format!("mail/{}/{name}", self.account);
        self.archive.file(Member { path: &path, time: self.time, mode: FILE_MODE }, &[octets])
    }

    /// Passes all of it on; gives the folders.
    fn finish(mut self, to: &mut Archive<&mut Outlet>) -> Result<HashMap<MailboxId, Folder>, GiveError> {
        self.end_member().map_err(spooling)?;
        let (mut members, _) = self.archive.into_inner().read().map_err(spooling)?;
        io::copy(&mut members, to.inner())?;
        Ok(self.folders)
    }
}
