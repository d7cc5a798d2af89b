//! Search filters: whether an entry fits.
//!
//! Owns: the three-valued logic. Called by: `search` for each candidate, `session` (bounds).
//! Never: finds candidates; `plan` does.
//! Spec: RFC 4511 section 4.5.1.7; RFC 4517 (matching rules).
//!
//! A password never matches, whatever the assertion: otherwise a search would be an oracle for hashes.

use ldap3_proto::LdapFilter;
use ldap3_proto::proto::LdapSubstringFilter;

use super::entry::Entry;
use super::schema::{self, AttributeType, Syntax};

/// Assertions in one filter, at most.
pub(super) const ASSERTIONS_MAX: usize = 1000;

/// RFC 4511 section 4.5.1.7: only TRUE returns the entry, and NOT of Undefined is Undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Undefined,
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::True } else { Self::False }
    }
}

/// Whether the entry fits. The depth of a filter is bounded by `frame::NESTING_MAX`.
pub(super) fn matches(filter: &LdapFilter, entry: &Entry) -> bool {
    evaluate(filter, entry) == Truth::True
}

pub(super) fn evaluate(filter: &LdapFilter, entry: &Entry) -> Truth {
    match filter {
        // An empty AND is true, an empty OR false (RFC 4526).
        LdapFilter::And(all) => {
            let mut truth = Truth::True;
            for one in all {
                match evaluate(one, entry) {
                    Truth::False => return Truth::False,
                    Truth::Undefined => truth = Truth::Undefined,
                    Truth::True => {}
                }
            }
            truth
        }
        LdapFilter::Or(any) => {
            let mut truth = Truth::False;
            for one in any {
                match evaluate(one, entry) {
                    Truth::True => return Truth::True,
                    Truth::Undefined => truth = Truth::Undefined,
                    Truth::False => {}
                }
            }
            truth
        }
        LdapFilter::Not(one) => match evaluate(one, entry) {
            Truth::True => Truth::False,
            Truth::False => Truth::True,
            Truth::Undefined => Truth::Undefined,
        },
        LdapFilter::Present(name) => match comparable(name) {
            Some(attribute) => (!entry.values(attribute.name()).is_empty()).into(),
            None => Truth::Undefined,
        },
        // Approximately is equal here (RFC 4511 section 4.5.1.7.6 leaves that open).
        LdapFilter::Equality(name, value) | LdapFilter::Approx(name, value) => equal(name, value, entry),
        LdapFilter::Substring(name, parts) => substring(name, parts, entry),
        LdapFilter::GreaterOrEqual(name, value) => ordered(name, value, entry, |have, bound| have >= bound),
        LdapFilter::LessOrEqual(name, value) => ordered(name, value, entry, |have, bound| have <= bound),
        LdapFilter::Extensible(assertion) => match (&assertion.type_, &assertion.matching_rule) {
            // `attribute:=value` is equality; matching rules by name and `:dn` are not offered.
            (Some(name), None) if !assertion.dn_attributes => equal(name, &assertion.match_value, entry),
            (Some(_) | None, Some(_) | None) => Truth::Undefined,
        },
    }
}

/// How many assertions a filter makes.
pub(super) fn assertions(filter: &LdapFilter) -> usize {
    match filter {
        LdapFilter::And(all) | LdapFilter::Or(all) => all.iter().map(assertions).sum::<usize>() + 1,
        LdapFilter::Not(one) => assertions(one) + 1,
        LdapFilter::Substring(_, parts) => parts.any.len() + 1,
        LdapFilter::Present(_)
        | LdapFilter::Equality(..)
        | LdapFilter::Approx(..)
        | LdapFilter::GreaterOrEqual(..)
        | LdapFilter::LessOrEqual(..)
        | LdapFilter::Extensible(_) => 1,
    }
}

/// The attribute, when assertions about it can be made at all.
fn comparable(name: &str) -> Option<&'static AttributeType> {
    schema::attribute(name).filter(|attribute| !matches!(attribute.syntax, Syntax::Password | Syntax::Secret))
}

fn equal(name: &str, value: &str, entry: &Entry) -> Truth {
    let Some(attribute) = comparable(name) else {
        return Truth::Undefined;
    };
    // RFC 4511 section 4.5.1.7: a value that the rule cannot take is Undefined.
    let Some(wanted) = attribute.syntax.normalize(value.as_bytes()) else {
        return Truth::Undefined;
    };
    entry.normalized(attribute.name(), attribute.syntax).contains(&wanted).into()
}

fn ordered(name: &str, value: &str, entry: &Entry, fits: fn(&str, &str) -> bool) -> Truth {
    let Some(attribute) = comparable(name).filter(|attribute| attribute.syntax != Syntax::Octets) else {
        return Truth::Undefined;
    };
    let Some(bound) = attribute.syntax.normalize(value.as_bytes()) else {
        return Truth::Undefined;
    };
    entry.normalized(attribute.name(), attribute.syntax).iter().any(|have| fits(have, &bound)).into()
}

fn substring(name: &str, parts: &LdapSubstringFilter, entry: &Entry) -> Truth {
    let Some(attribute) = comparable(name).filter(|attribute| attribute.syntax.has_substrings()) else {
        return Truth::Undefined;
    };
    let initial = parts.initial.as_deref().map(fold_part);
    let any: Vec<String> = parts.any.iter().map(|part| fold_part(part)).collect();
    let last = parts.final_.as_deref().map(fold_part);
    let values = entry.normalized(attribute.name(), attribute.syntax);
    values.iter().any(|value| fits_parts(value, initial.as_deref(), &any, last.as_deref())).into()
}

/// Letter case does not count; spaces at the ends of a part do (RFC 4518 section 2.6.1 keeps one of each run).
pub(super) fn fold_part(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for c in part.chars().flat_map(char::to_lowercase) {
        if !(c.is_whitespace() && out.ends_with(' ')) {
            out.push(if c.is_whitespace() { ' ' } else { c });
        }
    }
    out
}

/// The parts in this order, none overlapping.
fn fits_parts(value: &str, initial: Option<&str>, any: &[String], last: Option<&str>) -> bool {
    let Some(mut rest) = value.strip_prefix(initial.unwrap_or_default()) else {
        return false;
    };
    for part in any {
        let Some((_, after)) = rest.split_once(part.as_str()) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last.unwrap_or_default())
}
