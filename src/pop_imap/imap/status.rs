//! STATUS: what is asked of a mailbox from outside, and the answer.
//!
//! Owns: `StatusItem`. Called by: `imap::command`, `imap::list` (LIST-STATUS), `imap::run`.
//! Spec: RFC 3501 section 6.3.10, RFC 7162 section 3.1.7 (HIGHESTMODSEQ), RFC 8438 (SIZE).

use imap_types::status::StatusDataItemName;

use super::cursor::{Cursor, SyntaxError};
use super::write;

/// One item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    Deleted,
    Size,
    HighestModSeq,
}

impl StatusItem {
    fn word(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
            Self::Deleted => "DELETED",
            Self::Size => "SIZE",
            Self::HighestModSeq => "HIGHESTMODSEQ",
        }
    }

    /// From imap-codec; `None` for DELETED-STORAGE, which belongs to QUOTA=RES-STORAGE.
    #[must_use]
    pub fn from_codec(name: &StatusDataItemName) -> Option<Self> {
        match name {
            StatusDataItemName::Messages => Some(Self::Messages),
            StatusDataItemName::Recent => Some(Self::Recent),
            StatusDataItemName::UidNext => Some(Self::UidNext),
            StatusDataItemName::UidValidity => Some(Self::UidValidity),
            StatusDataItemName::Unseen => Some(Self::Unseen),
            StatusDataItemName::Deleted => Some(Self::Deleted),
            StatusDataItemName::Size => Some(Self::Size),
            StatusDataItemName::HighestModSeq => Some(Self::HighestModSeq),
            StatusDataItemName::DeletedStorage => None,
        }
    }
}

/// Behind the "(": items up to the ")".
pub(super) fn parse_items(cursor: &mut Cursor<'_>) -> Result<Vec<StatusItem>, SyntaxError> {
    let mut items = Vec::new();
    while !cursor.skip(")") {
        let item = match cursor.atom()?.to_ascii_uppercase().as_slice() {
            b"MESSAGES" => StatusItem::Messages,
            b"RECENT" => StatusItem::Recent,
            b"UIDNEXT" => StatusItem::UidNext,
            b"UIDVALIDITY" => StatusItem::UidValidity,
            b"UNSEEN" => StatusItem::Unseen,
            b"DELETED" => StatusItem::Deleted,
            b"SIZE" => StatusItem::Size,
            b"HIGHESTMODSEQ" => StatusItem::HighestModSeq,
            _ => return Err(SyntaxError),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        cursor.skip(" ");
    }
    if items.is_empty() { Err(SyntaxError) } else { Ok(items) }
}

/// Appends `* STATUS name (…)`.
pub(super) fn write_answer(out: &mut Vec<u8>, name: &str, items: &[StatusItem], value: impl Fn(StatusItem) -> u64) {
    out.extend_from_slice(b"* STATUS ");
    write::mailbox(out, name);
    out.extend_from_slice(b" (");
    for (index, &item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(item.word().as_bytes());
        out.push(b' ');
        write::number(out, value(item));
    }
    out.extend_from_slice(b")\r\n");
}
