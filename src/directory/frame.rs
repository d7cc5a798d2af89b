//! Where an LDAP message ends, and whether it is safe to be parsed.
//!
//! Owns: the bounds on what the other side sends: octets, nesting, elements. Called by: whoever reads LDAP from a network, before
//! anything else reads the octets: the server (`ldap_proxy`) and the client (`relay`). Never: allocates by what a length field says.
//! Spec: RFC 4511 section 5.1 (BER with definite lengths only), section 4.1.1 (LDAPMessage), X.690 section 8.1.
//!
//! The crates that parse LDAP do so recursively, make a tree of a hundred octets for each element of two, and print or panic over what they do
//! not know. So everything is walked here first, in place, and what they would choke on is refused.

/// Levels of BER in a message, at most; a filter has two or so levels for each bracket.
pub const NESTING_MAX: usize = 64;
/// BER elements in a message, at most.
pub const ELEMENTS_MAX: usize = 20_000;
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

/// What is known of a message before it is parsed.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Octets of the whole message.
    pub len: usize,
    /// BER elements in it.
    pub elements: usize,
    /// messageID; 0 for what a server says unasked (RFC 4511 section 4.1.1.1).
    pub id: i32,
    /// Identifier of the operation (RFC 4511 section 4): application class, constructed or not.
    pub tag: u8,
    /// Types of the controls that are marked critical.
    pub critical: Vec<&'a str>,
}

/// The octets are not an LDAP message: the connection is of no more use (RFC 4511 section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not an LDAP message: {0}")]
    NotLdap(&'static str),
    #[error("message of {len} octets, {max} are taken")]
    TooLarge { len: usize, max: usize },
    #[error("message nested deeper than {NESTING_MAX} levels")]
    TooDeep,
    #[error("message of more than {ELEMENTS_MAX} elements")]
    TooMany,
}

/// The first message in `octets`; none when it is not whole yet. At most `len_max` octets are waited for.
///
/// # Errors
/// When nothing that follows can make a message of it, as soon as that is seen.
pub fn first(octets: &[u8], len_max: usize) -> Result<Option<Frame<'_>>, FrameError> {
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
    let elements = walk(content)?;
    let (id, rest) = element(content)?;
    let id = message_id(&id)?;
    let (operation, rest) = element(rest)?;
    let critical = match rest {
        [] => Vec::new(),
        rest => critical_controls(rest)?,
    };
    Ok(Some(Frame { len, elements, id, tag: operation.tag, critical }))
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
#[must_use]
pub fn texts(octets: &[u8]) -> Option<Vec<&str>> {
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

/// Goes through every element at every level and counts them; no recursion, so that depth costs nothing.
fn walk(content: &[u8]) -> Result<usize, FrameError> {
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
    Ok(elements)
}

/// messageID: 0 to 2^31 - 1.
fn message_id(element: &Element<'_>) -> Result<i32, FrameError> {
    let wrong = FrameError::NotLdap("messageID");
    if element.tag != INTEGER || element.content.is_empty() || element.content.len() > 4 {
        return Err(wrong);
    }
    let id = element.content.iter().fold(0_u32, |sum, &octet| (sum << 8) | u32::from(octet));
    i32::try_from(id).map_err(|_| wrong)
}

/// RFC 4511 section 4.1.11: `[0] SEQUENCE OF SEQUENCE { type, criticality DEFAULT FALSE, value OPTIONAL }`.
fn critical_controls(octets: &[u8]) -> Result<Vec<&str>, FrameError> {
    let (controls, rest) = element(octets)?;
    if controls.tag != CONTROLS || !rest.is_empty() {
        return Err(FrameError::NotLdap("more than operation and controls"));
    }
    let mut critical = Vec::new();
    let mut list = controls.content;
    while !list.is_empty() {
        let (control, rest) = element(list)?;
        list = rest;
        if control.tag != SEQUENCE {
            return Err(FrameError::NotLdap("control"));
        }
        let (kind, is_critical) = read_control(control.content)?;
        if is_critical {
            critical.push(kind);
        }
    }
    Ok(critical)
}

/// Type and criticality of one control.
fn read_control(content: &[u8]) -> Result<(&str, bool), FrameError> {
    let wrong = FrameError::NotLdap("control");
    let (kind, mut rest) = element(content)?;
    if kind.tag != OCTET_STRING {
        return Err(wrong);
    }
    let mut is_critical = false;
    if rest.first() == Some(&BOOLEAN) {
        let (criticality, after) = element(rest)?;
        is_critical = criticality.content.iter().any(|&octet| octet != 0);
        rest = after;
    }
    if !rest.is_empty() {
        let (value, after) = element(rest)?;
        if value.tag != OCTET_STRING || !after.is_empty() {
            return Err(wrong);
        }
    }
    Ok((std::str::from_utf8(kind.content).map_err(|_| wrong)?, is_critical))
}
