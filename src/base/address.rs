//! Domains and mail addresses, in the one form that is compared and stored.
//!
//! Owns: `Domain`, `Address`. Called by: everyone that handles an envelope or an account.
//! Never: parses header fields (display names, groups, comments): mail-parser does.
//! Spec: RFC 5321 section 4.1.2 (Mailbox), RFC 6531 section 3.3 (UTF-8), RFC 1035 section 2.3.4 (lengths).

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Octets of a domain name, at most (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_LEN_MAX: usize = 255;
/// Octets of a local part, at most (RFC 5321 section 4.5.3.1.1).
pub const LOCAL_PART_LEN_MAX: usize = 64;

/// A domain name, lower case, without trailing dot. Non-ASCII labels are kept as UTF-8 (U-labels). In an address it may be an address literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is wrong with a domain or an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("expected a domain name such as \"example.edu.cn\"")]
    Domain,
    #[error("expected an address such as \"user@example.edu.cn\"")]
    Address,
    #[error("the part before the @ is empty, longer than 64 octets or has characters that an address cannot have")]
    LocalPart,
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text.len() > DOMAIN_LEN_MAX {
            return Err(AddressError::Domain);
        }
        let good = text.split('.').all(is_label);
        if good { Ok(Self(text.to_lowercase())) } else { Err(AddressError::Domain) }
    }
}

/// Letters, digits, hyphens inside, underscores (seen in the wild), any non-ASCII letter; at most 63 octets.
fn is_label(label: &str) -> bool {
    let inner = |c: char| {
        c.is_alphanumeric() || c == '-' || c == '_' || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
    };
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(inner)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mailbox address: local part as given, domain in lower case.
///
/// Two addresses are the same account when `key()` is the same: fife's accounts
/// do not differ by letter case (RFC 5321 section 2.4 leaves this to the host).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: String,
    domain: Domain,
}

impl Address {
    /// The part before the @, unquoted.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The part after the @.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The form under which an account is looked up: all lower case.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.to_lowercase(), self.domain)
    }

    /// Whether SMTPUTF8 is needed to carry this address (RFC 6531).
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii() && self.domain.0.is_ascii()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// `local@domain`; a quoted local part (`"a b"@domain`) is unquoted.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Address)?;
        let domain = match literal(domain) {
            Some(literal) => literal,
            None => domain.parse()?,
        };
        let local = match local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => unquote(quoted)?,
            None if is_dot_string(local) => local.to_owned(),
            None => return Err(AddressError::LocalPart),
        };
        if local.is_empty() || local.len() > LOCAL_PART_LEN_MAX {
            return Err(AddressError::LocalPart);
        }
        Ok(Self { local, domain })
    }
}

/// An address literal in place of a domain (RFC 5321 section 4.1.3): `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
fn literal(text: &str) -> Option<Domain> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    if let Ok(address) = inner.parse::<Ipv4Addr>() {
        return Some(Domain(format!("[{address}]")));
    }
    let address = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).and_then(|_| inner.get(5..))?;
    address.parse::<Ipv6Addr>().ok().map(|address| Domain(format!("[ipv6:{address}]")))
}

/// Atom characters in dot-separated runs (RFC 5321 section 4.1.2 Dot-string); UTF-8 as RFC 6531 has it.
fn is_dot_string(local: &str) -> bool {
    let atext = |c: char| {
        c.is_ascii_alphanumeric()
            || "!#$%&'*+-/=?^_`{|}~".contains(c)
            || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
    };
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atext))
}

/// The content of a Quoted-string without its backslashes; control characters are refused.
fn unquote(quoted: &str) -> Result<String, AddressError> {
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => chars.next().ok_or(AddressError::LocalPart)?,
            '"' => return Err(AddressError::LocalPart),
            other => other,
        };
        if c.is_control() {
            return Err(AddressError::LocalPart);
        }
        out.push(c);
    }
    Ok(out)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            write!(f, "{}@{}", self.local, self.domain)
        } else {
            let quoted = self.local.replace('\\', "\\\\").replace('"', "\\\"");
            write!(f, "\"{quoted}\"@{}", self.domain)
        }
    }
}

macro_rules! text_type {
    ($type:ident, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &$expected))
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "description": $expected, "type": "string" })
            }
        }
    };
}

text_type!(Domain, "a domain name such as \"example.edu.cn\"");
text_type!(Address, "an address such as \"user@example.edu.cn\"");
