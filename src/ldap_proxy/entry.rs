//! An entry: its name and its attributes, and what is shown of it.
//!
//! Owns: `Entry`, attribute selection. Called by: `change` (makes them), `view` and `record` (store them),
//! `filter`, `search`. Never: checks who may see what; `access` does.
//! Spec: RFC 4512 section 2; RFC 4511 section 4.5.1.8 (selection).
//!
//! Invariants:
//! - attribute names are the schema's first names;
//! - an attribute has at least one value, no two that compare as equal;
//! - operational attributes that can change are stored like the others.

use std::collections::BTreeMap;

use ldap3_proto::LdapPartialAttribute;

use super::dn::Dn;
use super::schema::{self, Syntax};

/// Where the schema is published.
pub(super) const SUBSCHEMA_DN: &str = "cn=subschema";

/// Values are octets; most are UTF-8.
pub(super) type Values = Vec<Vec<u8>>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) dn: Dn,
    pub(super) attributes: BTreeMap<String, Values>,
}

impl Entry {
    pub(super) fn new(dn: Dn) -> Self {
        Self { dn, attributes: BTreeMap::new() }
    }

    pub(super) fn values(&self, name: &str) -> &[Vec<u8>] {
        self.attributes.get(name).map_or(&[], Vec::as_slice)
    }

    /// The first value, when it is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values(name).first().and_then(|value| std::str::from_utf8(value).ok())
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.attributes.insert(name.to_owned(), vec![value.into()]);
    }

    /// Whether the attribute has this value, compared as its schema says.
    pub(super) fn has(&self, name: &str, value: &[u8]) -> bool {
        let Some(attribute) = schema::attribute(name) else {
            return false;
        };
        let wanted = attribute.syntax.normalize(value);
        wanted.is_some() && self.values(attribute.name()).iter().any(|have| attribute.syntax.normalize(have) == wanted)
    }

    /// Values in the form that is compared.
    pub(super) fn normalized(&self, name: &str, syntax: Syntax) -> Vec<String> {
        self.values(name).iter().filter_map(|value| syntax.normalize(value)).collect()
    }

    /// With the attributes that follow from the others (RFC 5020; RFC 4512 section 4.2).
    pub(super) fn with_derived(mut self) -> Self {
        let name = self.dn.to_string();
        self.set("entryDN", name);
        self.set("subschemaSubentry", SUBSCHEMA_DN);
        self
    }

    /// Without the values that only those may see who may read everything.
    pub(super) fn hide_secrets(&mut self) {
        self.attributes.retain(|name, _| !schema::attribute(name).is_some_and(|known| known.syntax == Syntax::Secret));
    }

    /// Octets of everything in it.
    pub(super) fn len(&self) -> usize {
        self.attributes.iter().map(|(name, values)| name.len() + values.iter().map(Vec::len).sum::<usize>()).sum()
    }
}

/// Which attributes a search asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    all_user: bool,
    all_operational: bool,
    named: Vec<&'static str>,
    types_only: bool,
}

impl Selection {
    /// Unknown names are no error (RFC 4511 section 4.5.1.8): such an attribute is just not there.
    pub(super) fn new(asked: &[String], types_only: bool) -> Self {
        let has = |special: &str| asked.iter().any(|name| name == special);
        let named = asked.iter().filter_map(|name| schema::attribute(name)).map(schema::AttributeType::name).collect();
        Self {
            // None asked for: every user attribute. "+": RFC 3673. "1.1" alone names nothing.
            all_user: asked.is_empty() || has("*"),
            all_operational: has("+"),
            named,
            types_only,
        }
    }

    /// What is shown of an entry. A password hash is never shown.
    pub(super) fn show(&self, entry: &Entry) -> Vec<LdapPartialAttribute> {
        let shown = entry.attributes.iter().filter(|(name, _)| self.wants(name));
        shown
            .map(|(name, values)| LdapPartialAttribute {
                atype: name.clone(),
                vals: if self.types_only { Vec::new() } else { values.clone() },
            })
            .collect()
    }

    fn wants(&self, name: &str) -> bool {
        let Some(attribute) = schema::attribute(name) else {
            return false;
        };
        if attribute.syntax == Syntax::Password {
            return false;
        }
        let group = if attribute.operational { self.all_operational } else { self.all_user };
        group || self.named.contains(&attribute.name())
    }
}
