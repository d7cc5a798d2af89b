//! An entry as a server sends it, and what it means.
//!
//! Owns: reading a search result's BER structure into attributes, attributes into `Known`.
//! Called by: `connection` (reads), `client`, `admin`. Never: panics on what a server sends
//! (ldap3's own `SearchEntry::construct` does).

use std::sync::Arc;

use ldap3::asn1::StructureTag;

use super::account::{Account, AccountStatus, Forwarding};
use super::dkim::{DomainKey, KEYS_MAX};
use super::vocabulary as names;
use crate::base::address::{Address, Domain};

/// Attributes in the order sent; names as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) dn: String,
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Entry {
    /// From a SearchResultEntry (RFC 4511 section 4.5.2); none when it is not one.
    pub(super) fn from_ber(tag: StructureTag) -> Option<Self> {
        let mut parts = tag.match_id(4)?.expect_constructed()?.into_iter();
        let dn = String::from_utf8(parts.next()?.expect_primitive()?).ok()?;
        let mut attributes = Vec::new();
        for attribute in parts.next()?.expect_constructed()? {
            let mut halves = attribute.expect_constructed()?.into_iter();
            let name = String::from_utf8(halves.next()?.expect_primitive()?).ok()?;
            let values = halves.next()?.expect_constructed()?;
            let values = values.into_iter().map(StructureTag::expect_primitive).collect::<Option<Vec<_>>>()?;
            attributes.push((name, values));
        }
        Some(Self { dn, attributes })
    }

    #[cfg(test)]
    pub(super) fn new(dn: &str, attributes: &[(&str, &[&str])]) -> Self {
        let values = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect();
        let attributes = attributes.iter().map(|(name, list)| ((*name).to_owned(), values(list))).collect();
        Self { dn: dn.to_owned(), attributes }
    }

    /// Values of the attribute that are text; attribute names do not differ by letter case (RFC 4512 section 2.5).
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes
            .iter()
            .filter(move |(have, _)| have.eq_ignore_ascii_case(name))
            .flat_map(|(_, values)| values)
            .filter_map(|value| std::str::from_utf8(value).ok())
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .and_then(|(_, values)| values.first())
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.all(name).any(|have| have.eq_ignore_ascii_case(value))
    }

    /// The DKIM keys in a domain's entry, by selector. What is none is told in the log, and passed over.
    pub(super) fn dkim_keys(&self, domain: &Domain) -> Vec<DomainKey> {
        let mut keys = Vec::new();
        for value in self.all(names::FIFE_DKIM_KEY).take(KEYS_MAX) {
            match value.parse::<DomainKey>() {
                Ok(key) => keys.push(key),
                Err(error) => tracing::warn!(%domain, %error, "a DKIM key in the directory cannot be used"),
            }
        }
        keys.sort_by(|a, b| a.selector.cmp(&b.selector));
        keys
    }

    /// Whether mail for the entry goes elsewhere and nowhere else, and it is no person with a login.
    pub(super) fn is_alias(&self) -> bool {
        self.is_forward_only() && !self.has(names::OBJECT_CLASS, names::INET_ORG_PERSON)
    }

    /// qmail-ldap: `forwardonly`, in newer ones `nolocal`.
    fn is_forward_only(&self) -> bool {
        self.has(names::DELIVERY_MODE, names::FORWARD_ONLY) || self.has(names::DELIVERY_MODE, "nolocal")
    }

    fn forwarding_addresses(&self) -> Vec<Address> {
        self.all(names::MAIL_FORWARDING_ADDRESS).filter_map(|text| text.parse().ok()).collect()
    }

    /// Where an account's mail goes besides, or instead. An account that forwards only, but to nobody, keeps its mail.
    pub(super) fn forwarding(&self) -> Forwarding {
        let to =
            if self.has(names::DELIVERY_MODE, names::NO_FORWARD) { Vec::new() } else { self.forwarding_addresses() };
        let keep = to.is_empty() || !self.is_forward_only();
        Forwarding { to, keep }
    }
}

/// What is remembered of an entry that has the address asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) dn: String,
    /// Changes whenever the entry does; empty when the server does not tell.
    pub(super) revision: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Account(Arc<Account>, Forwarding),
    Alias(Vec<Address>),
}

/// Attributes that `Known::from_entry` needs.
pub(super) const KNOWN_ATTRIBUTES: &[&str] = &[
    names::OBJECT_CLASS,
    names::MAIL,
    names::CN,
    names::MAIL_QUOTA_SIZE,
    names::ACCOUNT_STATUS,
    names::DELIVERY_MODE,
    names::MAIL_FORWARDING_ADDRESS,
    names::FIFE_ROLE,
    names::ENTRY_UUID,
    names::ENTRY_CSN,
    names::MODIFY_TIMESTAMP,
];

impl Known {
    /// None when the entry is neither an account nor an alias (no address in it that is one).
    pub(super) fn from_entry(entry: &Entry) -> Option<Self> {
        let revision = entry.first(names::ENTRY_CSN).or_else(|| entry.first(names::MODIFY_TIMESTAMP));
        let revision = revision.unwrap_or_default().to_owned();
        let what = if entry.is_alias() {
            let targets = entry.forwarding_addresses();
            if targets.is_empty() {
                return None;
            }
            What::Alias(targets)
        } else {
            What::Account(Arc::new(account(entry)?), entry.forwarding())
        };
        Some(Self { dn: entry.dn.clone(), revision, what })
    }
}

/// The account that an entry describes; none without a usable `mail`.
pub(super) fn account(entry: &Entry) -> Option<Account> {
    let address: Address = entry.all(names::MAIL).find_map(|text| text.parse().ok())?;
    let id = entry.first(names::ENTRY_UUID).and_then(uuid).unwrap_or_else(|| derived_id(&address));
    Some(Account {
        id,
        name: entry.first(names::CN).unwrap_or_default().to_owned(),
        quota_bytes: entry.first(names::MAIL_QUOTA_SIZE).and_then(|text| text.parse().ok()).filter(|&bytes| bytes > 0),
        status: AccountStatus::from_value(entry.first(names::ACCOUNT_STATUS)),
        admin: entry.has(names::FIFE_ROLE, names::ADMINISTRATOR),
        address,
    })
}

/// The 16 octets of `f81d4fae-7dec-11d0-a765-00a0c91e6bf6` (RFC 4530 section 2.1).
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    let mut id = [0; 16];
    hex::decode_to_slice(digits, &mut id).ok()?;
    Some(id)
}

fn derived_id(address: &Address) -> [u8; 16] {
    let mut id = [0; 16];
    blake3::Hasher::new().update(address.key().as_bytes()).finalize_xof().fill(&mut id);
    id
}
