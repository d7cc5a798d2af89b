//! A selected mailbox, as one session sees it.
//!
//! Owns: the view by which this session numbers messages, and what it must be told before that view moves on.
//! Called by: `imap::session`, `imap::run`. Never: touches the disk; views are in memory.
//! Spec: RFC 3501 section 5.2, section 7.4.1 (when EXPUNGE may be sent), RFC 7162 section 3.2 (MODSEQ in FETCH).

use std::sync::Arc;

use tokio::sync::watch;

use super::write;
use crate::pop_imap::store::{Flags, OpenMailbox, Row, View};

/// Invariant: sequence number n of this session is `view.messages` at n - 1, until `catch_up` has told the client otherwise.
#[derive(Debug)]
pub struct Selected {
    pub open: Arc<OpenMailbox>,
    pub view: Arc<View>,
    pub read_only: bool,
    pub changes: watch::Receiver<u64>,
    /// How many of the mailbox's keywords the client has been told of; they only grow.
    keywords_told: usize,
}

/// How changes are told.
#[derive(Debug, Clone, Copy)]
pub struct Telling {
    /// Whether EXPUNGE may be sent now.
    pub expunge: bool,
    /// Whether FETCH answers name the UID: after UID commands (RFC 3501 section 6.4.8).
    pub uid: bool,
    /// Whether FETCH answers name the modseq (RFC 7162 section 3.1: after a CONDSTORE enabling command).
    pub modseq: bool,
}

impl Selected {
    /// Takes a mailbox as it is now.
    #[must_use]
    pub fn new(open: Arc<OpenMailbox>, read_only: bool) -> Self {
        // The receiver first: a change between the two is then seen twice, never missed.
        let changes = open.changes();
        let view = open.view();
        let keywords_told = view.keywords.len();
        Self { open, view, read_only, changes, keywords_told }
    }

    /// Tells of keywords that are new, before a message is told to have one (RFC 3501 section 7.2.6).
    pub fn tell_keywords(&mut self, out: &mut Vec<u8>, view: &View) {
        if view.keywords.len() > self.keywords_told {
            self.keywords_told = view.keywords.len();
            write_flag_list(out, view);
        }
    }

    /// Tells what has changed and moves the view on. When messages are gone and that may not be told now, all waits.
    /// `known`: flags that the client has been told of already, in UID order.
    pub fn catch_up(&mut self, out: &mut Vec<u8>, telling: Telling, known: &[(u32, Flags)]) {
        // Marked as seen before the view is taken: what comes between the two wakes IDLE once more.
        self.changes.borrow_and_update();
        let now = self.open.view();
        if Arc::ptr_eq(&now, &self.view) {
            return;
        }
        let difference = now.since(&self.view);
        if !telling.expunge && !difference.expunged.is_empty() {
            return;
        }
        // From the last to the first: then no number is moved by what was told before it.
        for &index in difference.expunged.iter().rev() {
            write::text(out, format_args!("* {} EXPUNGE\r\n", index + 1));
        }
        if difference.added > 0 {
            write::text(out, format_args!("* {} EXISTS\r\n", now.messages.len()));
        }
        self.tell_keywords(out, &now);
        for &index in &difference.changed {
            let Some(row) = now.messages.get(index) else { continue };
            let told = known.binary_search_by_key(&row.uid, |&(uid, _)| uid).ok().and_then(|at| known.get(at));
            if told.is_none_or(|&(_, flags)| flags != row.flags) {
                write_flags_fetch(out, index, row, &now, telling);
            }
        }
        self.view = now;
    }
}

/// Appends `* FLAGS (…)`: the flags in use in the mailbox (RFC 3501 section 7.2.6).
pub(super) fn write_flag_list(out: &mut Vec<u8>, view: &View) {
    out.extend_from_slice(b"* FLAGS (");
    write_known_flags(out, view);
    out.extend_from_slice(b")\r\n");
}

/// Appends the system flags and the mailbox's keywords.
pub(super) fn write_known_flags(out: &mut Vec<u8>, view: &View) {
    out.extend_from_slice(b"\\Answered \\Flagged \\Deleted \\Seen \\Draft");
    for keyword in view.keywords.iter() {
        out.push(b' ');
        out.extend_from_slice(keyword.as_bytes());
    }
}

/// Appends `FLAGS (…)`.
pub(super) fn write_flags(out: &mut Vec<u8>, flags: Flags, keywords: &[String]) {
    out.extend_from_slice(b"FLAGS (");
    for (index, name) in flags.names(keywords).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
    }
    out.push(b')');
}

/// Appends a FETCH answer that tells flags.
pub(super) fn write_flags_fetch(out: &mut Vec<u8>, index: usize, row: &Row, view: &View, telling: Telling) {
    write::text(out, format_args!("* {} FETCH (", index + 1));
    if telling.uid {
        write::text(out, format_args!("UID {} ", row.uid));
    }
    if telling.modseq {
        write::text(out, format_args!("MODSEQ ({}) ", row.modseq));
    }
    write_flags(out, row.flags, &view.keywords);
    out.extend_from_slice(b")\r\n");
}
