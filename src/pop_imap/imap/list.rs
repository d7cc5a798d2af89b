//! LIST and LSUB: what is asked, and which mailboxes answer.
//!
//! Owns: the parsing of LIST with options and the choice of names. Called by: `imap::command`, `imap::run`. Never: reads the store.
//! imap-codec knows only the plain form, so both are read here.
//! Spec: RFC 3501 section 6.3.8 and 6.3.9, RFC 5258 (LIST-EXTENDED), RFC 6154 (SPECIAL-USE), RFC 5819 (LIST-STATUS).

use std::collections::BTreeMap;

use super::cursor::{Cursor, SyntaxError};
use super::name::{NameError, Pattern};
use super::status::{self, StatusItem};
use super::write;
use crate::pop_imap::store::{MailboxInfo, SpecialUse};

/// Patterns in one command.
const PATTERNS_MAX: usize = 50;

/// One LIST or LSUB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    pub lsub: bool,
    /// Only subscribed names.
    pub select_subscribed: bool,
    /// Only special-use mailboxes.
    pub select_special_use: bool,
    /// Also name parents of what was selected.
    pub recursive_match: bool,
    pub return_subscribed: bool,
    pub return_children: bool,
    pub return_status: Vec<StatusItem>,
    /// Empty: only the hierarchy separator is asked for.
    pub patterns: Vec<Pattern>,
}

/// Why a LIST cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Name(#[from] NameError),
}

impl ListRequest {
    /// Parses what follows the word LIST or LSUB and its space.
    pub(super) fn parse(mut cursor: Cursor<'_>, lsub: bool) -> Result<Self, ListError> {
        let mut request = Self { lsub, select_subscribed: lsub, ..Self::default() };
        if !lsub && cursor.skip("(") {
            request.selection_options(&mut cursor)?;
            cursor.expect(" ")?;
        }
        let reference = cursor.astring()?;
        cursor.expect(" ")?;
        let mut wire = Vec::new();
        if !lsub && cursor.skip("(") {
            loop {
                wire.push(cursor.list_mailbox()?);
                if wire.len() > PATTERNS_MAX {
                    return Err(SyntaxError.into());
                }
                if cursor.skip(")") {
                    break;
                }
                cursor.expect(" ")?;
            }
        } else {
            wire.push(cursor.list_mailbox()?);
        }
        if !lsub && cursor.skip(" RETURN (") {
            request.return_options(&mut cursor)?;
        }
        cursor.end()?;
        // RFC 3501 section 6.3.8: an empty pattern asks for the separator.
        for pattern in wire.iter().filter(|pattern| !pattern.is_empty()) {
            request.patterns.push(Pattern::new(&reference, pattern)?);
        }
        Ok(request)
    }

    /// Behind the "(".
    fn selection_options(&mut self, cursor: &mut Cursor<'_>) -> Result<(), SyntaxError> {
        while !cursor.skip(")") {
            match cursor.atom()?.to_ascii_uppercase().as_slice() {
                b"SUBSCRIBED" => {
                    self.select_subscribed = true;
                    // RFC 5258 section 3.1: selecting by subscription returns it too.
                    self.return_subscribed = true;
                }
                b"RECURSIVEMATCH" => self.recursive_match = true,
                b"SPECIAL-USE" => self.select_special_use = true,
                // There are no remote mailboxes to add.
                b"REMOTE" => {}
                _ => return Err(SyntaxError),
            }
            cursor.skip(" ");
        }
        // RFC 5258 section 3.1: RECURSIVEMATCH alone, or with REMOTE only, is an error.
        if self.recursive_match && !self.select_subscribed && !self.select_special_use {
            return Err(SyntaxError);
        }
        Ok(())
    }

    /// Behind the "(".
    fn return_options(&mut self, cursor: &mut Cursor<'_>) -> Result<(), SyntaxError> {
        while !cursor.skip(")") {
            match cursor.atom()?.to_ascii_uppercase().as_slice() {
                b"SUBSCRIBED" => self.return_subscribed = true,
                b"CHILDREN" => self.return_children = true,
                // RFC 6154 section 2: special uses are returned always.
                b"SPECIAL-USE" => {}
                b"STATUS" => {
                    cursor.expect(" (")?;
                    self.return_status = status::parse_items(cursor)?;
                }
                _ => return Err(SyntaxError),
            }
            cursor.skip(" ");
        }
        Ok(())
    }

    fn matches(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    fn selects(&self, known: &Known<'_>) -> bool {
        let special_use = known.mailbox.is_some_and(|info| info.special_use.is_some());
        let selected = (!self.select_subscribed || known.subscribed) && (!self.select_special_use || special_use);
        // A name that is only subscribed is no mailbox: LSUB and SUBSCRIBED show it, LIST does not.
        selected && (known.mailbox.is_some() || self.select_subscribed)
    }

    /// The names that answer, in order: mailboxes, and levels above them that are no mailboxes themselves.
    /// `subscriptions`: subscribed names, of which some may be no mailboxes (any more).
    #[must_use]
    pub fn answers<'a>(
        &self,
        mailboxes: &'a [MailboxInfo],
        subscriptions: &'a [String],
    ) -> BTreeMap<&'a str, Answer<'a>> {
        let mut known: BTreeMap<&str, Known<'a>> = BTreeMap::new();
        for info in mailboxes {
            known.insert(&info.name, Known { mailbox: Some(info), subscribed: info.subscribed });
        }
        for name in subscriptions {
            known.entry(name).or_default().subscribed = true;
        }
        let mut answers: BTreeMap<&str, Answer<'a>> = BTreeMap::new();
        for (&name, of_name) in known.iter().filter(|(_, of_name)| self.selects(of_name)) {
            let matched = self.matches(name);
            if matched {
                answers.insert(
                    name,
                    Answer { mailbox: of_name.mailbox, subscribed: of_name.subscribed, ..Answer::default() },
                );
            }
            // RFC 3501 section 6.3.8 and 6.3.9: "%" shows levels too that exist only as parents of others; RFC 5258
            // section 3.5: RECURSIVEMATCH shows parents of what was selected. A parent that was selected itself comes
            // first in order, so it is in the answers already.
            for parent in parents(name).filter(|parent| self.matches(parent)) {
                let of_parent = known.get(parent).copied().unwrap_or_default();
                let as_level = of_parent.mailbox.is_none() && (self.lsub || !self.select_subscribed);
                if self.selects(&of_parent) || !(as_level || self.recursive_match || (self.lsub && !matched)) {
                    continue;
                }
                let answer = answers.entry(parent).or_default();
                answer.mailbox = of_parent.mailbox;
                answer.child_info |= self.recursive_match;
                answer.only_parent |= self.lsub;
            }
        }
        answers
    }
}

/// What is known of a name.
#[derive(Debug, Default, Clone, Copy)]
struct Known<'a> {
    mailbox: Option<&'a MailboxInfo>,
    subscribed: bool,
}

/// "a/b/c" has the parents "a" and "a/b".
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').filter_map(|(at, _)| name.get(..at))
}

/// One line of the answer.
#[derive(Debug, Default, Clone, Copy)]
pub struct Answer<'a> {
    /// `None`: not a mailbox, but a level above mailboxes or a subscription without one.
    pub mailbox: Option<&'a MailboxInfo>,
    pub subscribed: bool,
    /// Shown for what is beneath it (RFC 5258 section 3.5).
    pub child_info: bool,
    /// LSUB: shown only as the parent of a subscribed name (RFC 3501 section 6.3.9).
    pub only_parent: bool,
}

/// Appends the answer for one name.
pub(super) fn write_answer(out: &mut Vec<u8>, request: &ListRequest, name: &str, answer: Answer<'_>) {
    out.extend_from_slice(if request.lsub { b"* LSUB (" } else { b"* LIST (" });
    let mut attributes: Vec<&str> = Vec::new();
    match answer.mailbox {
        _ if answer.only_parent => attributes.push("\\Noselect"),
        Some(info) => {
            // RFC 3348: children are always told.
            attributes.push(if info.has_children { "\\HasChildren" } else { "\\HasNoChildren" });
            attributes.extend(info.special_use.map(SpecialUse::attribute));
        }
        // RFC 5258 section 3: \NonExistent implies \Noselect; old clients know only the latter.
        None if request.lsub => {}
        None => attributes.extend(["\\NonExistent", "\\Noselect"]),
    }
    if request.return_subscribed && answer.subscribed {
        attributes.push("\\Subscribed");
    }
    out.extend_from_slice(attributes.join(" ").as_bytes());
    out.extend_from_slice(b") \"/\" ");
    write::mailbox(out, name);
    if answer.child_info {
        out.extend_from_slice(b" (\"CHILDINFO\" (\"SUBSCRIBED\"))");
    }
    out.extend_from_slice(b"\r\n");
}
