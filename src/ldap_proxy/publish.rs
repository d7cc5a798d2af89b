//! What the server tells about itself: the root DSE and the schema.
//!
//! Owns: these two entries. Called by: `engine`. Never: changes while the server runs.
//! Spec: RFC 4512 sections 4.1 (descriptions), 4.2 (subschema), 5.1 (root DSE); RFC 3045 (vendor).

use std::sync::LazyLock;

use super::dn::Dn;
use super::entry::{Entry, SUBSCHEMA_DN};
use super::schema::{ATTRIBUTES, AttributeType, CLASSES, Kind, ObjectClass, Syntax};

/// StartTLS (RFC 4511 section 4.14).
pub(super) const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// Password modify (RFC 3062).
pub(super) const PASSWORD_MODIFY: &str = ldap3_proto::proto::OID_PASSWORD_MODIFY;
/// "Who am I?" (RFC 4532).
pub(super) const WHO_AM_I: &str = ldap3_proto::proto::OID_WHOAMI;
/// Simple paged results (RFC 2696).
pub(super) const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";
/// ManageDsaIT (RFC 3296): there are no referrals here, so every entry is treated as it asks.
pub(super) const MANAGE_DSA_IT: &str = "2.16.840.1.113730.3.4.2";
/// Session tracking (draft-wahl-ldap-session): for whom a service asks.
pub(super) const SESSION_TRACKING: &str = crate::directory::vocabulary::SESSION_TRACKING;
/// Notice of disconnection (RFC 4511 section 4.4.1).
pub(super) const NOTICE_OF_DISCONNECTION: &str = "1.3.6.1.4.1.1466.20036";

/// Controls that are understood, critical or not.
pub(super) const CONTROLS: &[&str] = &[PAGED_RESULTS, MANAGE_DSA_IT, SESSION_TRACKING];
/// All operational attributes (RFC 3673), increment (RFC 4525), absolute true and false filters (RFC 4526).
const FEATURES: &[&str] = &["1.3.6.1.4.1.4203.1.5.1", "1.3.6.1.1.14", "1.3.6.1.4.1.4203.1.5.3"];

/// The root DSE. `external`: the connection could bind by SASL EXTERNAL.
pub(super) fn root_dse(base: &Dn, start_tls: bool, external: bool) -> Entry {
    let mut entry = Entry::new(Dn::default());
    let mut put = |name: &str, values: &[&str]| {
        if !values.is_empty() {
            entry.attributes.insert(name.to_owned(), values.iter().map(|value| value.as_bytes().to_vec()).collect());
        }
    };
    put("objectClass", &["top"]);
    put("namingContexts", &[&base.to_string()]);
    put("supportedControl", CONTROLS);
    put(
        "supportedExtension",
        if start_tls { &[START_TLS, PASSWORD_MODIFY, WHO_AM_I] } else { &[PASSWORD_MODIFY, WHO_AM_I] },
    );
    put("supportedFeatures", FEATURES);
    put("supportedSASLMechanisms", if external { &["EXTERNAL"] } else { &[] });
    put("supportedLDAPVersion", &["3"]);
    put("subschemaSubentry", &[SUBSCHEMA_DN]);
    put("vendorName", &["fife"]);
    put("vendorVersion", &[env!("CARGO_PKG_VERSION")]);
    entry
}

/// The subschema subentry, made once: strangers may ask for it as often as they like.
pub(super) fn subschema() -> &'static Entry {
    static SUBSCHEMA: LazyLock<Entry> = LazyLock::new(make_subschema);
    &SUBSCHEMA
}

fn make_subschema() -> Entry {
    // A constant that parses; were it not so, the tests would say so.
    let mut entry = Entry::new(Dn::parse(SUBSCHEMA_DN).unwrap_or_default());
    let mut put = |name: &str, values: Vec<String>| {
        entry.attributes.insert(name.to_owned(), values.into_iter().map(String::into_bytes).collect());
    };
    put("objectClass", ["top", "subentry", "subschema"].map(str::to_owned).to_vec());
    put("cn", vec!["subschema".to_owned()]);
    put("attributeTypes", ATTRIBUTES.iter().map(describe_attribute).collect());
    put("objectClasses", CLASSES.iter().map(describe_class).collect());
    put("ldapSyntaxes", syntaxes());
    entry.with_derived()
}

/// RFC 4512 section 4.1.2.
fn describe_attribute(attribute: &AttributeType) -> String {
    let (syntax, equality) = attribute.syntax.oids();
    let mut text = format!("( {} NAME {}", attribute.oid, quoted(attribute.names));
    if let Some(rule) = equality {
        text.push_str(&format!(" EQUALITY {rule}"));
    }
    if attribute.syntax.has_substrings() {
        let rule =
            if attribute.syntax == Syntax::Text { "caseIgnoreSubstringsMatch" } else { "caseIgnoreIA5SubstringsMatch" };
        text.push_str(&format!(" SUBSTR {rule}"));
    }
    text.push_str(&format!(" SYNTAX {syntax}{{{}}}", attribute.value_len_max));
    if attribute.single {
        text.push_str(" SINGLE-VALUE");
    }
    if attribute.operational {
        text.push_str(" NO-USER-MODIFICATION USAGE directoryOperation");
    }
    text.push_str(" )");
    text
}

/// RFC 4512 section 4.1.1.
fn describe_class(class: &ObjectClass) -> String {
    let mut text = format!("( {} NAME '{}'", class.oid, class.name);
    if let Some(superior) = class.superior {
        text.push_str(&format!(" SUP {superior}"));
    }
    text.push_str(match class.kind {
        Kind::Abstract => " ABSTRACT",
        Kind::Structural => " STRUCTURAL",
        Kind::Auxiliary => " AUXILIARY",
    });
    for (word, attributes) in [("MUST", class.must), ("MAY", class.may)] {
        if !attributes.is_empty() {
            text.push_str(&format!(" {word} ( {} )", attributes.join(" $ ")));
        }
    }
    text.push_str(" )");
    text
}

fn quoted(names: &[&str]) -> String {
    match names {
        [one] => format!("'{one}'"),
        many => format!("( {} )", many.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" ")),
    }
}

/// RFC 4512 section 4.1.5; each syntax that an attribute has, once.
fn syntaxes() -> Vec<String> {
    let mut oids: Vec<&str> = ATTRIBUTES.iter().map(|attribute| attribute.syntax.oids().0).collect();
    oids.sort_unstable();
    oids.dedup();
    oids.into_iter().map(|oid| format!("( {oid} )")).collect()
}
