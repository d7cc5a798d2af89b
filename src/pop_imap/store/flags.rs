//! Flags and keywords of messages.
//!
//! Owns: `Flag` (by name), `Flags` (as bits of one mailbox), `FlagChange`. Called by: the store, IMAP, POP3.
//! Never: keeps `\Recent`: `RECENT` is always 0. To know which session was told first of a message (RFC 3501 section 2.3.2), and
//! to know it after a crash, every SELECT of a mailbox with new mail would have to write and flush a record; RFC 9051 appendix E has
//! removed the flag, and what users call new is what lacks `\Seen`.
//! Spec: RFC 9051 section 2.3.2.

/// Keywords that one mailbox can know; a further one is refused with LIMIT.
pub const KEYWORDS_MAX: usize = 55;
/// Octets of a keyword.
pub const KEYWORD_LEN_MAX: usize = 64;
/// Bits of the system flags; keywords follow.
const SYSTEM_BITS: usize = 8;

/// A flag by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flag {
    Seen,
    Answered,
    Flagged,
    Deleted,
    Draft,
    /// A client's own word (`$Forwarded`, `NonJunk`); compared without regard to letter case.
    Keyword(String),
}

impl Flag {
    /// As IMAP writes it: `\Seen`, `$Forwarded`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
            Self::Keyword(word) => word,
        }
    }

    /// The flag of that name; `None` for a system flag that cannot be stored (`\Recent`) and for what is no atom.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(system) = name.strip_prefix('\\') {
            return match system.to_ascii_lowercase().as_str() {
                "seen" => Some(Self::Seen),
                "answered" => Some(Self::Answered),
                "flagged" => Some(Self::Flagged),
                "deleted" => Some(Self::Deleted),
                "draft" => Some(Self::Draft),
                _ => None,
            };
        }
        // RFC 9051 section 9: a flag-keyword is an atom.
        let atom = |byte: u8| byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte);
        let good = !name.is_empty() && name.len() <= KEYWORD_LEN_MAX && name.bytes().all(atom);
        good.then(|| Self::Keyword(name.to_owned()))
    }

    /// The bit of a system flag.
    #[must_use]
    pub fn system_bit(&self) -> Option<Flags> {
        match self {
            Self::Seen => Some(Flags::SEEN),
            Self::Answered => Some(Flags::ANSWERED),
            Self::Flagged => Some(Flags::FLAGGED),
            Self::Deleted => Some(Flags::DELETED),
            Self::Draft => Some(Flags::DRAFT),
            Self::Keyword(_) => None,
        }
    }
}

/// Flags of one message as bits: five system flags, then the keywords in the order of the mailbox's list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u64);

impl Flags {
    pub const NONE: Self = Self(0);
    pub const SEEN: Self = Self(1);
    pub const ANSWERED: Self = Self(2);
    pub const FLAGGED: Self = Self(4);
    pub const DELETED: Self = Self(8);
    pub const DRAFT: Self = Self(16);

    /// The bit of the keyword at `index` of the mailbox's list; none when there is no such bit.
    #[must_use]
    pub fn keyword(index: usize) -> Self {
        if index < KEYWORDS_MAX { Self(1 << (index + SYSTEM_BITS)) } else { Self::NONE }
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The system flags among them.
    #[must_use]
    pub fn system(self) -> Self {
        Self(self.0 & ((1 << SYSTEM_BITS) - 1))
    }

    /// These and `other`.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// These, changed.
    #[must_use]
    pub fn changed(self, change: FlagChange, by: Self) -> Self {
        match change {
            FlagChange::Add => self.with(by),
            FlagChange::Remove => self.without(by),
            FlagChange::Replace => by,
        }
    }

    /// The flags by name; `keywords` is the mailbox's list (`View::keywords`).
    pub fn names(self, keywords: &[String]) -> impl Iterator<Item = &str> {
        let system = [
            (Self::SEEN, "\\Seen"),
            (Self::ANSWERED, "\\Answered"),
            (Self::FLAGGED, "\\Flagged"),
            (Self::DELETED, "\\Deleted"),
            (Self::DRAFT, "\\Draft"),
        ];
        let words = keywords.iter().enumerate();
        system
            .into_iter()
            .filter(move |(bit, _)| self.contains(*bit))
            .map(|(_, name)| name)
            .chain(words.filter(move |(index, _)| self.contains(Self::keyword(*index))).map(|(_, word)| word.as_str()))
    }

    /// The bits, for storage.
    #[must_use]
    pub(super) fn to_raw(self) -> u64 {
        self.0
    }

    /// The flags back from storage.
    #[must_use]
    pub(super) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// What STORE does with the flags given (RFC 9051 section 6.4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagChange {
    Add,
    Remove,
    Replace,
}
