//! Distinguished names: read, written, compared.
//!
//! Owns: `Dn`. Called by: every file of the role that names an entry. Never: does I/O.
//! Spec: RFC 4514 (string form), RFC 4512 section 2.3 (naming), RFC 4518 (what letter case and spaces mean).
//!
//! Two spellings of a name are the same when their `key()`s are: attribute types by their first
//! name, values by the attribute's matching rule, so `UID=U1 , OU=Example.Test,o=Demo` and
//! `userid=u1,ou=example.test,O=demo` are one. A key starts at the top, so that a subtree is a range of keys.

use std::fmt;

use super::schema;

/// Octets of a name, at most.
pub(super) const DN_LEN_MAX: usize = 4096;
/// Levels of a name, at most.
const RDNS_MAX: usize = 32;
/// Stands between the levels of a key; no value may hold a control character.
const LEVEL: char = '\u{1}';
/// The first key after a subtree's is its own with this in place of `LEVEL`.
const AFTER_LEVEL: char = '\u{2}';
/// Characters that must be escaped wherever they stand (RFC 4514 section 2.4).
const SPECIAL: &str = "\"+,;<>\\";

/// The text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a distinguished name (RFC 4514): {0}")]
pub(super) struct DnError(&'static str);

/// A name, leaf first as it is written. The empty one is the root DSE's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dn {
    rdns: Vec<Rdn>,
}

/// One level: one or more `type=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rdn {
    pub(super) pairs: Vec<(String, String)>,
}

impl Dn {
    /// Reads a name.
    pub(super) fn parse(text: &str) -> Result<Self, DnError> {
        if text.len() > DN_LEN_MAX {
            return Err(DnError("too long"));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut rdns = Vec::new();
        for level in split_unescaped(text, ',') {
            let pairs = split_unescaped(level, '+').into_iter().map(pair).collect::<Result<_, _>>()?;
            rdns.push(Rdn { pairs });
            if rdns.len() > RDNS_MAX {
                return Err(DnError("too many levels"));
            }
        }
        Ok(Self { rdns })
    }

    pub(super) fn is_root(&self) -> bool {
        self.rdns.is_empty()
    }

    pub(super) fn rdn(&self) -> Option<&Rdn> {
        self.rdns.first()
    }

    /// The name one level up; the root's is the root.
    pub(super) fn parent(&self) -> Self {
        Self { rdns: self.rdns.iter().skip(1).cloned().collect() }
    }

    /// This level below that name.
    pub(super) fn child(parent: &Self, rdn: Rdn) -> Self {
        Self { rdns: std::iter::once(rdn).chain(parent.rdns.iter().cloned()).collect() }
    }

    /// The form that is compared and stored, top first.
    pub(super) fn key(&self) -> String {
        let mut key = String::new();
        for rdn in self.rdns.iter().rev() {
            if !key.is_empty() {
                key.push(LEVEL);
            }
            key.push_str(&rdn.key());
        }
        key
    }

    /// Whether this is that name or lies below it.
    pub(super) fn is_within(&self, top: &Self) -> bool {
        let (key, top) = (self.key(), top.key());
        top.is_empty() || key == top || key.starts_with(&below(&top).0)
    }
}

/// Keys of everything below a key: from the first (included) to the second (not included).
pub(super) fn below(key: &str) -> (String, String) {
    (format!("{key}{LEVEL}"), format!("{key}{AFTER_LEVEL}"))
}

impl Rdn {
    /// Pairs in the order of their keys: a multi-valued RDN is a set (RFC 4512 section 2.3.1).
    fn key(&self) -> String {
        let one = |(name, value): &(String, String)| format!("{}={}", name.to_lowercase(), value_key(name, value));
        let mut keys: Vec<String> = self.pairs.iter().map(one).collect();
        keys.sort();
        keys.join("+")
    }
}

/// A value as its attribute compares it; of an attribute that we do not know, as text.
fn value_key(name: &str, value: &str) -> String {
    let syntax = schema::attribute(name).map_or(schema::Syntax::Text, |attribute| attribute.syntax);
    syntax.normalize(value.as_bytes()).unwrap_or_else(|| value.to_lowercase())
}

/// The parts between separators that are not escaped.
fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c: char| {
        let splits = c == separator && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
    .collect()
}

/// `type=value`.
fn pair(text: &str) -> Result<(String, String), DnError> {
    let (name, value) = text.split_once('=').ok_or(DnError("\"=\" is missing"))?;
    let name = name.trim();
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if name.is_empty() || !good {
        return Err(DnError("not an attribute type"));
    }
    let name = schema::attribute(name).map_or_else(|| name.to_ascii_lowercase(), |known| known.name().to_owned());
    Ok((name, unescape(value)?))
}

/// The value behind RFC 4514's escapes; spaces around it that are not escaped do not count.
fn unescape(text: &str) -> Result<String, DnError> {
    let text = text.trim_start();
    if text.starts_with('#') {
        return Err(DnError("values in hexadecimal BER are not supported"));
    }
    let mut bytes = Vec::with_capacity(text.len());
    // Octets up to here were escaped or not spaces: only what follows is trimmed.
    let mut kept = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let mut utf8 = [0; 4];
        match c {
            '\\' => {
                let next = chars.next().ok_or(DnError("ends in a backslash"))?;
                if let Some(high) = next.to_digit(16) {
                    let low = chars.next().and_then(|c| c.to_digit(16)).ok_or(DnError("half a hexadecimal pair"))?;
                    bytes.push(u8::try_from(high * 16 + low).map_err(|_| DnError("hexadecimal pair"))?);
                } else if SPECIAL.contains(next) || " #=".contains(next) {
                    bytes.extend_from_slice(next.encode_utf8(&mut utf8).as_bytes());
                } else {
                    return Err(DnError("this character cannot be escaped"));
                }
                kept = bytes.len();
            }
            c if SPECIAL.contains(c) => return Err(DnError("this character must be escaped")),
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
                if c != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    let value = String::from_utf8(bytes).map_err(|_| DnError("not UTF-8"))?;
    // Departs from RFC 4514, which allows them escaped: nothing that names an entry here has control characters.
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(DnError("empty value or control character"));
    }
    Ok(value)
}

impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, rdn) in self.rdns.iter().enumerate() {
            if level > 0 {
                f.write_str(",")?;
            }
            write!(f, "{rdn}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.pairs.iter().enumerate() {
            if index > 0 {
                f.write_str("+")?;
            }
            write!(f, "{name}=")?;
            let last = value.chars().count().saturating_sub(1);
            for (at, c) in value.chars().enumerate() {
                // RFC 4514 section 2.4: the specials, "#" in front, spaces at either end.
                if SPECIAL.contains(c) || (at == 0 && (c == '#' || c == ' ')) || (at == last && c == ' ') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
