//! Mailbox names: UTF-8, levels parted by `/`, INBOX in any letter case.
//!
//! Owns: the rules for names that come from the network, the mailboxes a new account has, special uses.
//! Called by: the store, IMAP. Never: turns a name into a path; names live in records and rows only.
//! Spec: RFC 9051 section 5.1 (naming), RFC 6154 (special use), RFC 5198 section 2 (no control characters).

use super::error::StoreError;

/// What parts the levels of a name.
pub const SEPARATOR: char = '/';
/// Octets of a name.
pub const NAME_LEN_MAX: usize = 512;
/// Levels of a name.
pub const NAME_DEPTH_MAX: usize = 16;
/// Mailboxes of one account.
pub const MAILBOXES_MAX: usize = 4_096;
/// Subscribed names of one account that are no mailboxes (RFC 9051 section 6.3.7 lets them be kept).
pub const SUBSCRIPTIONS_MAX: usize = 8_192;
/// The mailbox that mail arrives in.
pub const INBOX: &str = "INBOX";

/// What a mailbox is for (RFC 6154 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialUse {
    Archive,
    Drafts,
    Junk,
    Sent,
    Trash,
}

impl SpecialUse {
    /// As LIST shows it: `\Drafts`.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }

    /// For storage.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Archive => 1,
            Self::Drafts => 2,
            Self::Junk => 3,
            Self::Sent => 4,
            Self::Trash => 5,
        }
    }

    /// From storage; an unknown code is no special use.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Archive),
            2 => Some(Self::Drafts),
            3 => Some(Self::Junk),
            4 => Some(Self::Sent),
            5 => Some(Self::Trash),
            _ => None,
        }
    }
}

/// The mailboxes of a new account.
pub(super) const FIRST_MAILBOXES: [(&str, Option<SpecialUse>); 6] = [
    (INBOX, None),
    ("Drafts", Some(SpecialUse::Drafts)),
    ("Sent", Some(SpecialUse::Sent)),
    ("Junk", Some(SpecialUse::Junk)),
    ("Trash", Some(SpecialUse::Trash)),
    ("Archive", Some(SpecialUse::Archive)),
];

/// The name as it is kept: `INBOX` in capitals, also as the first level (RFC 9051 section 5.1); no `/` at the end
/// (CREATE may have one to say that children will come, RFC 9051 section 6.3.4).
///
/// # Errors
/// `StoreError::Name` when it is empty, too long, too deep, or has an empty level or a control character.
pub fn canonical(name: &str) -> Result<String, StoreError> {
    let name = name.strip_suffix(SEPARATOR).unwrap_or(name);
    if name.is_empty() {
        return Err(StoreError::Name("Mailbox name is empty"));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(StoreError::Name("Mailbox name is too long"));
    }
    if name.split(SEPARATOR).count() > NAME_DEPTH_MAX {
        return Err(StoreError::Name("Mailbox name has too many levels"));
    }
    if name.split(SEPARATOR).any(str::is_empty) {
        return Err(StoreError::Name("Mailbox name has an empty level"));
    }
    // RFC 5198 section 2: no control characters; U+2028 and U+2029 are line ends in disguise. `*` and `%` would be
    // wildcards to LIST (RFC 9051 section 5.1).
    if name.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '*' | '%')) {
        return Err(StoreError::Name("Mailbox name has a character that is not allowed"));
    }
    let (first, rest) = match name.split_once(SEPARATOR) {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    let first = if first.eq_ignore_ascii_case(INBOX) { INBOX } else { first };
    Ok(match rest {
        Some(rest) => format!("{first}{SEPARATOR}{rest}"),
        None => first.to_owned(),
    })
}

/// The levels above a name, outermost first: `a/b/c` gives `a`, `a/b`.
pub(super) fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).filter_map(move |(at, _)| name.get(..at))
}

/// What follows `parent/` in `name`.
pub(super) fn below<'a>(name: &'a str, parent: &str) -> Option<&'a str> {
    name.strip_prefix(parent)?.strip_prefix(SEPARATOR)
}
