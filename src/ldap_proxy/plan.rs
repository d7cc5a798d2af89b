//! How a search finds its candidates: by an index when the filter allows it, else along the tree.
//!
//! Owns: `Plan`, `Cursor`, which attributes are indexed. Called by: `search`, `view`.
//! Never: decides whether a candidate fits (`filter` does that to every one).

use ldap3_proto::LdapFilter;
use ldap3_proto::proto::LdapSearchScope;

use super::dn::{self, Dn};
use super::entry::Entry;
use super::schema;

/// Equalities that one search looks up; a filter with more walks the tree.
const LOOKUPS_MAX: usize = 200;
/// Classes so rare that an index on them pays.
const CLASSES_INDEXED: &[&str] = &["organization", "organizationalunit", "domainrelatedobject"];

/// How telling an equality is: the first is one entry, the last may be many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    One,
    Few,
    Some,
}

/// Indexed attributes.
const INDEXED: &[(&str, Rank)] = &[
    ("mail", Rank::One),
    ("mailAlternateAddress", Rank::One),
    ("associatedDomain", Rank::One),
    ("uid", Rank::One),
    ("entryUUID", Rank::One),
    ("cn", Rank::Few),
    ("sn", Rank::Few),
    ("mailForwardingAddress", Rank::Few),
    ("fifeRole", Rank::Few),
    ("ou", Rank::Some),
    ("deliveryMode", Rank::Some),
    ("objectClass", Rank::Some),
];

/// One row of the index: attribute name and normalized value.
pub(super) type Row = (&'static str, String);

/// Where candidates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// The entry of this key.
    Base(String),
    /// Entries that have one of these, in the order in which they were made.
    Index(Vec<Row>),
    /// Entries directly below this key, in the order of keys.
    Children(String),
    /// Entries whose keys are in this range (end not included), in the order of keys.
    Range(String, String),
}

/// How far a search has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    Start,
    AfterId(i64),
    AfterKey(String),
}

impl Cursor {
    /// The cookie of a paged search (RFC 2696). Opaque to clients; a false one finds nothing that they could not find anyway.
    pub(super) fn to_cookie(&self) -> Vec<u8> {
        match self {
            Self::Start => Vec::new(),
            Self::AfterId(id) => format!("i{id}").into_bytes(),
            Self::AfterKey(key) => format!("k{key}").into_bytes(),
        }
    }

    pub(super) fn from_cookie(cookie: &[u8]) -> Option<Self> {
        if cookie.is_empty() {
            return Some(Self::Start);
        }
        let text = std::str::from_utf8(cookie).ok()?;
        match text.strip_prefix('i') {
            Some(id) => id.parse().ok().map(Self::AfterId),
            None => text.strip_prefix('k').map(|key| Self::AfterKey(key.to_owned())),
        }
    }
}

/// The plan for a search.
pub(super) fn plan(base: &Dn, scope: &LdapSearchScope, filter: &LdapFilter, top: &Dn) -> Plan {
    let key = base.key();
    if *scope == LdapSearchScope::Base {
        return Plan::Base(key);
    }
    if let Some((rank, rows)) = lookups(filter)
        && rows.len() <= LOOKUPS_MAX
        // What is not telling helps only where the whole tree would have to be walked.
        && (rank < Rank::Some || base == top)
    {
        return Plan::Index(rows);
    }
    let (from, to) = dn::below(&key);
    match scope {
        LdapSearchScope::Base => Plan::Base(key),
        LdapSearchScope::OneLevel => Plan::Children(key),
        LdapSearchScope::Subtree => Plan::Range(key, to),
        LdapSearchScope::Children => Plan::Range(from, to),
    }
}

/// Whether an entry is in the scope of a search; candidates from an index may not be.
pub(super) fn in_scope(entry: &Dn, base: &Dn, scope: &LdapSearchScope) -> bool {
    match scope {
        LdapSearchScope::Base => entry.key() == base.key(),
        LdapSearchScope::OneLevel => !entry.is_root() && entry.parent().key() == base.key(),
        LdapSearchScope::Subtree => entry.is_within(base),
        LdapSearchScope::Children => entry.is_within(base) && entry.key() != base.key(),
    }
}

/// Rows of the index one of which every fitting entry has; none when there is no such set.
fn lookups(filter: &LdapFilter) -> Option<(Rank, Vec<Row>)> {
    match filter {
        LdapFilter::Equality(name, value) | LdapFilter::Approx(name, value) => {
            let Some(attribute) = schema::attribute(name) else {
                // Undefined: nothing fits.
                return Some((Rank::One, Vec::new()));
            };
            let (name, rank) = INDEXED.iter().copied().find(|(name, _)| *name == attribute.name())?;
            let Some(value) = attribute.syntax.normalize(value.as_bytes()) else {
                return Some((Rank::One, Vec::new()));
            };
            is_indexed(name, &value).then(|| (rank, vec![(name, value)]))
        }
        LdapFilter::And(all) => all.iter().filter_map(lookups).min_by_key(|(rank, rows)| (*rank, rows.len())),
        LdapFilter::Or(any) => {
            let each = any.iter().map(lookups).collect::<Option<Vec<_>>>()?;
            let rank = each.iter().map(|(rank, _)| *rank).max().unwrap_or(Rank::One);
            let mut rows: Vec<Row> = each.into_iter().flat_map(|(_, rows)| rows).collect();
            rows.sort();
            rows.dedup();
            Some((rank, rows))
        }
        LdapFilter::Not(_)
        | LdapFilter::Present(_)
        | LdapFilter::Substring(..)
        | LdapFilter::GreaterOrEqual(..)
        | LdapFilter::LessOrEqual(..)
        | LdapFilter::Extensible(_) => None,
    }
}

fn is_indexed(name: &str, value: &str) -> bool {
    name != "objectClass" || CLASSES_INDEXED.contains(&value)
}

/// The rows by which an entry is found.
pub(super) fn rows(entry: &Entry) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, _) in INDEXED {
        let Some(attribute) = schema::attribute(name) else {
            continue;
        };
        let values = entry.normalized(attribute.name(), attribute.syntax);
        rows.extend(values.into_iter().filter(|value| is_indexed(name, value)).map(|value| (*name, value)));
    }
    rows
}

/// Addresses that are this entry's and nobody else's.
pub(super) fn addresses(entry: &Entry) -> Vec<String> {
    let of = |name| entry.normalized(name, schema::Syntax::Address);
    let mut addresses = of("mail");
    addresses.extend(of("mailAlternateAddress"));
    addresses
}
