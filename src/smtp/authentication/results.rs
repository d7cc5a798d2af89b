//! The field Authentication-Results.
//!
//! Owns: its form; which fields of others claim to be ours. Called by: `authentication`.
//! Spec: RFC 8601 sections 2.2 (form) and 5 (removal), RFC 5322 section 3.2.2 (comments).

use crate::message::header::{self, Field};

/// Comments within comments, at most; deeper ones make a field unreadable.
const COMMENT_DEPTH_MAX: u32 = 32;

/// Names under which findings are ours.
#[derive(Debug, Clone, Copy)]
pub struct OwnNames<'a> {
    pub hostname: &'a str,
    /// And every name below it.
    pub domain: Option<&'a str>,
}

impl OwnNames<'_> {
    /// Whether findings under this name, in lower case, are ours.
    fn hold(&self, name: &str) -> bool {
        name == self.hostname.to_lowercase() || self.is_in_domain(name)
    }

    /// Whether the host's name is the site's domain or below it.
    pub(super) fn is_host_in_domain(&self) -> bool {
        self.is_in_domain(&self.hostname.to_lowercase())
    }

    fn is_in_domain(&self, name: &str) -> bool {
        let domain = self.domain.map(str::to_lowercase);
        let rest = domain.as_deref().and_then(|domain| name.strip_suffix(domain));
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// The content without the Authentication-Results that claim to be ours, or that nobody could read; none when there are no such.
#[must_use]
pub fn without_forged(content: &[u8], own: &OwnNames<'_>) -> Option<Vec<u8>> {
    let block = content.get(..header::block_end(content))?;
    let is_forged = |field: &Field<'_>| {
        field.is(b"Authentication-Results") && identifier(field.value).is_none_or(|name| own.hold(&name))
    };
    let mut kept = Vec::new();
    let mut rest = content;
    for field in header::fields(block).filter(is_forged) {
        // Fields come in order, each a part of the content.
        let at = field.raw.as_ptr().addr().checked_sub(rest.as_ptr().addr())?;
        let (before, from) = rest.split_at_checked(at)?;
        kept.extend_from_slice(before);
        rest = from.get(field.raw.len()..)?;
    }
    if rest.len() == content.len() {
        return None;
    }
    kept.extend_from_slice(rest);
    Some(kept)
}

/// The authserv-id, in lower case: what stands before the first semicolon, without comments, quotes and the version.
fn identifier(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let (mut plain, mut depth, mut is_quoted) = (String::new(), 0_u32, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if depth > 0 || is_quoted => {
                let escaped = chars.next()?;
                if depth == 0 {
                    plain.push(escaped);
                }
            }
            '"' if depth == 0 => is_quoted = !is_quoted,
            '(' if !is_quoted => {
                depth += 1;
                if depth > COMMENT_DEPTH_MAX {
                    return None;
                }
                plain.push(' ');
            }
            ')' if depth > 0 => depth -= 1,
            ';' if depth == 0 && !is_quoted => break,
            _ if depth > 0 => {}
            other => plain.push(other),
        }
    }
    if depth > 0 || is_quoted {
        return None;
    }
    plain.split_whitespace().next().map(|word| word.trim_end_matches('.').to_lowercase())
}

/// Text between two results.
const SEPARATOR: &str = ";\r\n\t";

/// The field, `<CR><LF>` at its end; `results` are our name and what mail-auth wrote behind it. Whatever of a client's words could end a line is not
/// passed on, nor is UTF-8 where the message needs none of it (RFC 6532).
#[must_use]
pub fn field(results: &str, unicode: bool) -> String {
    let good = |c: char| !c.is_control() && (unicode || c.is_ascii());
    let clean = |part: &str| part.chars().map(|c| if good(c) { c } else { '?' }).collect::<String>();
    let parts: Vec<String> = results.split(SEPARATOR).map(clean).collect();
    format!("Authentication-Results: {}\r\n", parts.join(SEPARATOR))
}
