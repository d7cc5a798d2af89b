//! Where a message ends, and whether it is safe to be parsed.
//!
//! Owns: the bounds on what a client sends: octets, nesting, elements. Called by: `session`, before anything else
//! reads the octets. Never: allocates by what a length field says.
//! Spec: RFC 4511 section 5.1 (BER with definite lengths only), section 4.1.1 (LDAPMessage), X.690 section 8.1.
//!
//! ldap3_proto parses recursively and makes a tree of a hundred octets for each element of two; it also
//! prints what it does not know. So everything is walked here first, in place, and what it would choke on is refused.

/// Levels of BER in a message, at most; a filter has two or so levels for each bracket.
pub(super) const NESTING_MAX: usize = 64;
/// BER elements in a message, at most.
pub(super) const ELEMENTS_MAX: usize = 20_000;
/// Octets of an identifier and a length: lengths of up to four octets (4 GiB) are read, then refused by size.
const HEADER_LEN_MAX: usize = 6;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
/// `[0]`, constructed, context: the controls of a message.
const CONTROLS: u8 = 0xa0;
const CONSTRUCTED: u8 = 0x20;
/// Identifiers of more than one octet; LDAP has none.
const LONG_TAG: u8 = 0x1f;

/// What kind of request, by the octet that tells (RFC 4511 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bind,
    Unbind,
    Search,
    Modify,
    Add,
    Delete,
    ModifyDn,
    Compare,
    Abandon,
    Extended,
}

impl Kind {
    fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            0x60 => Self::Bind,
            0x42 => Self::Unbind,
            0x63 => Self::Search,
            0x66 => Self::Modify,
            0x68 => Self::Add,
            0x4a => Self::Delete,
            0x6c => Self::ModifyDn,
            0x6e => Self::Compare,
            0x50 => Self::Abandon,
            0x77 => Self::Extended,
            _ => return None,
        })
    }
}

/// What is known of a message before it is parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Octets of the whole message.
    pub(super) len: usize,
    /// messageID.
    pub(super) id: i32,
    pub(super) kind: Kind,
    /// Types of the controls that are marked critical.
    pub(super) critical: Vec<String>,
}

/// The octets are not an LDAP message: the connection is of no more use (RFC 4511 section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("not an LDAP message: {0}")]
    NotLdap(&'static str),
    #[error("message of {len} octets, {max} are taken")]
    TooLarge { len: usize, max: usize },
    #[error("message nested deeper than {NESTING_MAX} levels")]
    TooDeep,
    #[error("message of more than {ELEMENTS_MAX} elements")]
    TooMany,
}

/// The head of the first message in `octets`; none when it is not whole yet.
pub(super) fn head(octets: &[u8], len_max: usize) -> Result<Option<Head>, FrameError> {
    match octets.first() {
        None => return Ok(None),
        Some(&SEQUENCE) => {}
        Some(_) => return Err(FrameError::NotLdap("no sequence")),
    }
    let Some((header_len, content_len)) = header(octets)? else {
        return Ok(None);
    };
    let len = header_len.saturating_add(content_len);
    if len > len_max {
        return Err(FrameError::TooLarge { len, max: len_max });
    }
    let Some(content) = octets.get(header_len..len) else {
        return Ok(None);
    };
    walk(content)?;
    let (id, rest) = element(content)?;
    let id = message_id(id)?;
    let (operation, rest) = element(rest)?;
    let kind = Kind::from_tag(operation.tag).ok_or(FrameError::NotLdap("no request that a client sends"))?;
    let critical = match rest {
        [] => Vec::new(),
        rest => critical_controls(rest)?,
    };
    Ok(Some(Head { len, id, kind, critical }))
}

/// Lengths of the header and of the content; none when the header is not whole yet.
fn header(octets: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let Some(&first) = octets.get(1) else {
        return Ok(None);
    };
    if first < 0x80 {
        return Ok(Some((2, usize::from(first))));
    }
    let count = usize::from(first & 0x7f);
    // 0x80 is the indefinite form, which RFC 4511 section 5.1 forbids.
    if count == 0 || count + 2 > HEADER_LEN_MAX {
        return Err(FrameError::NotLdap("length"));
    }
    let Some(length) = octets.get(2..2 + count) else {
        return Ok(None);
    };
    let content = length.iter().fold(0_usize, |sum, &octet| (sum << 8) | usize::from(octet));
    Ok(Some((2 + count, content)))
}

/// The texts of `SEQUENCE { OCTET STRING, … }`, which some controls have as their value; none when it is anything else.
pub(super) fn texts(octets: &[u8]) -> Option<Vec<&str>> {
    let (sequence, rest) = element(octets).ok().filter(|(sequence, _)| sequence.tag == SEQUENCE)?;
    let mut list = sequence.content;
    let mut texts = Vec::new();
    while !list.is_empty() {
        let (text, after) = element(list).ok().filter(|(text, _)| text.tag == OCTET_STRING)?;
        texts.push(std::str::from_utf8(text.content).ok()?);
        list = after;
    }
    rest.is_empty().then_some(texts)
}

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

/// The first element of a complete sequence of elements, and the rest.
fn element(octets: &[u8]) -> Result<(Element<'_>, &[u8]), FrameError> {
    let cut = FrameError::NotLdap("an element is cut off");
    let &tag = octets.first().ok_or(cut)?;
    if tag & LONG_TAG == LONG_TAG {
        return Err(FrameError::NotLdap("identifier of several octets"));
    }
    let (header_len, content_len) = header(octets)?.ok_or(cut)?;
    let end = header_len.checked_add(content_len).ok_or(cut)?;
    let content = octets.get(header_len..end).ok_or(cut)?;
    Ok((Element { tag, content }, octets.get(end..).unwrap_or_default()))
}

/// Goes through every element at every level; no recursion, so that depth costs nothing.
fn walk(content: &[u8]) -> Result<(), FrameError> {
    let mut levels = vec![content];
    let mut elements = 0_usize;
    while let Some(level) = levels.pop() {
        if level.is_empty() {
            continue;
        }
        let (first, rest) = element(level)?;
        elements += 1;
        if elements > ELEMENTS_MAX {
            return Err(FrameError::TooMany);
        }
        levels.push(rest);
        if first.tag & CONSTRUCTED != 0 {
            levels.push(first.content);
        }
        if levels.len() > NESTING_MAX {
            return Err(FrameError::TooDeep);
        }
    }
    Ok(())
}

/// messageID: 1 to 2^31 - 1; 0 is for what the server says unasked (RFC 4511 section 4.1.1.1).
fn message_id(element: Element<'_>) -> Result<i32, FrameError> {
    let wrong = FrameError::NotLdap("messageID");
    if element.tag != INTEGER || element.content.is_empty() || element.content.len() > 4 {
        return Err(wrong);
    }
    let id = element.content.iter().fold(0_u32, |sum, &octet| (sum << 8) | u32::from(octet));
    i32::try_from(id).ok().filter(|&id| id > 0).ok_or(wrong)
}

/// RFC 4511 section 4.1.11: `[0] SEQUENCE OF SEQUENCE { type, criticality DEFAULT FALSE, value OPTIONAL }`.
fn critical_controls(octets: &[u8]) -> Result<Vec<String>, FrameError> {
    let (controls, rest) = element(octets)?;
    if controls.tag != CONTROLS || !rest.is_empty() {
        return Err(FrameError::NotLdap("more than operation and controls"));
    }
    let mut critical = Vec::new();
    let mut list = controls.content;
    while !list.is_empty() {
        let (control, rest) = element(list)?;
        list = rest;
        let (kind, after) = element(control.content)?;
        if control.tag != SEQUENCE || kind.tag != OCTET_STRING {
            return Err(FrameError::NotLdap("control"));
        }
        let is_critical = match after {
            [] => false,
            after => {
                let (criticality, _) = element(after)?;
                criticality.tag == BOOLEAN && criticality.content.iter().any(|&octet| octet != 0)
            }
        };
        if is_critical {
            critical.push(String::from_utf8_lossy(kind.content).into_owned());
        }
    }
    Ok(critical)
}
