//! What an entry may hold: attribute types, object classes, syntaxes, and how values compare.
//!
//! Owns: the tables. Called by: `dn`, `entry`, `filter`, `change`, and `publish`, which shows it to clients.
//! Never: changes at run time.
//! Spec: RFC 4512 section 4 (schema), RFC 4517 (syntaxes), RFC 4518 (preparation of strings), RFC 4519,
//! RFC 4524, RFC 2798, RFC 4530 (entryUUID), qmail.schema. The OIDs below 2.25 are fife's own
//! (ITU-T X.667: an arc under a random UUID needs no registration).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::dn::Dn;
use crate::base::address::{Address, Domain};

/// Octets of a value of an attribute that has no smaller bound of its own.
const VALUE_LEN_MAX: usize = 4096;
/// Octets of a value that is a file (photo, certificate).
const FILE_LEN_MAX: usize = 100 * 1024;

/// What a value looks like and how it compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// UTF-8; letter case and repeated spaces do not count.
    Text,
    /// A mail address.
    Address,
    /// A domain name.
    Domain,
    /// A distinguished name.
    Name,
    /// A whole number.
    Integer,
    /// `20261124033054Z`, fractions allowed.
    Time,
    /// Any octets.
    Octets,
    /// A name or number of a schema element.
    Oid,
    /// RFC 4530.
    Uuid,
    /// A password hash. Compares with nothing: `password` verifies.
    Password,
    /// A private key or the like. Shown to those who may read everything; no filter matches it.
    Secret,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Syntax {
    /// OID of the syntax and of the equality rule, for the subschema (RFC 4517 sections 3.3 and 4.2).
    pub(super) fn oids(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Text => ("1.3.6.1.4.1.1466.115.121.1.15", Some("caseIgnoreMatch")),
            Self::Address | Self::Domain | Self::Word(_) => {
                ("1.3.6.1.4.1.1466.115.121.1.26", Some("caseIgnoreIA5Match"))
            }
            Self::Name => ("1.3.6.1.4.1.1466.115.121.1.12", Some("distinguishedNameMatch")),
            Self::Integer => ("1.3.6.1.4.1.1466.115.121.1.27", Some("integerMatch")),
            Self::Time => ("1.3.6.1.4.1.1466.115.121.1.24", Some("generalizedTimeMatch")),
            Self::Octets => ("1.3.6.1.4.1.1466.115.121.1.40", Some("octetStringMatch")),
            Self::Oid => ("1.3.6.1.4.1.1466.115.121.1.38", Some("objectIdentifierMatch")),
            Self::Uuid => ("1.3.6.1.1.16.1", Some("UUIDMatch")),
            Self::Password | Self::Secret => ("1.3.6.1.4.1.1466.115.121.1.40", None),
        }
    }

    /// Whether substrings of it can be searched for.
    pub(super) fn has_substrings(self) -> bool {
        matches!(self, Self::Text | Self::Address | Self::Domain)
    }

    /// The form in which equal values are the same, and in which greater values sort later; none when it is no such value.
    pub(super) fn normalize(self, value: &[u8]) -> Option<String> {
        if matches!(self, Self::Octets | Self::Password | Self::Secret) {
            return Some(hex::encode(value));
        }
        let text = std::str::from_utf8(value).ok()?;
        match self {
            Self::Text => fold(text),
            Self::Address => text.parse::<Address>().ok().map(|address| address.key()),
            Self::Domain => text.parse::<Domain>().ok().map(|domain| domain.to_string()),
            Self::Name => Dn::parse(text).ok().map(|name| name.key()),
            Self::Integer => text.parse::<i64>().ok().map(sortable),
            Self::Time => is_time(text).then(|| text.to_owned()),
            Self::Oid => Some(canonical_oid(text.trim())).filter(|text| !text.is_empty()),
            Self::Uuid => uuid(text),
            Self::Word(words) => {
                words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|word| (*word).to_owned())
            }
            Self::Octets | Self::Password | Self::Secret => None,
        }
    }
}

/// Letter case and runs of spaces do not count (RFC 4518 sections 2.2 and 2.6.1). Departs from it in doing no NFKC.
pub(super) fn fold(text: &str) -> Option<String> {
    if text.chars().any(|c| c == '\0') {
        return None;
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    Some(words.join(" ").to_lowercase()).filter(|text| !text.is_empty())
}

/// A number as text that sorts as the number does.
fn sortable(number: i64) -> String {
    // Flipping the sign bit maps the signed order onto the unsigned one.
    format!("{:020}", number.cast_unsigned() ^ (1 << 63))
}

/// `YYYYMMDDHHMM[SS][.f]Z` (RFC 4517 section 3.3.13, UTC only).
fn is_time(text: &str) -> bool {
    let Some(digits) = text.strip_suffix('Z') else {
        return false;
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    matches!(whole.len(), 10 | 12 | 14) && all_digits(whole) && all_digits(fraction)
}

/// Lower case with hyphens, whatever the spelling.
fn uuid(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    let mut raw = [0_u8; 16];
    hex::decode_to_slice(&digits, &mut raw).ok()?;
    Some(uuid_text(&raw))
}

/// `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`.
pub(super) fn uuid_text(raw: &[u8; 16]) -> String {
    let mut text = hex::encode(raw);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// A class or attribute by its first name in lower case, whichever of its names or number was given.
fn canonical_oid(text: &str) -> String {
    let known = class(text).map(|class| class.name).or_else(|| attribute(text).map(AttributeType::name));
    known.unwrap_or(text).to_lowercase()
}

/// One attribute type (RFC 4512 section 2.5).
#[derive(Debug)]
pub(super) struct AttributeType {
    pub(super) oid: &'static str,
    pub(super) names: &'static [&'static str],
    pub(super) syntax: Syntax,
    /// At most one value.
    pub(super) single: bool,
    /// Made by the server; shown only when asked for.
    pub(super) operational: bool,
    /// Octets of a value, at most.
    pub(super) value_len_max: usize,
}

impl AttributeType {
    /// The name under which it is stored and shown.
    pub(super) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

const fn user(oid: &'static str, names: &'static [&'static str], syntax: Syntax) -> AttributeType {
    AttributeType { oid, names, syntax, single: false, operational: false, value_len_max: VALUE_LEN_MAX }
}

const fn single(oid: &'static str, names: &'static [&'static str], syntax: Syntax) -> AttributeType {
    AttributeType { oid, names, syntax, single: true, operational: false, value_len_max: VALUE_LEN_MAX }
}

const fn file(oid: &'static str, names: &'static [&'static str]) -> AttributeType {
    AttributeType { oid, names, syntax: Syntax::Octets, single: false, operational: false, value_len_max: FILE_LEN_MAX }
}

const fn server(oid: &'static str, names: &'static [&'static str], syntax: Syntax, single: bool) -> AttributeType {
    AttributeType { oid, names, syntax, single, operational: true, value_len_max: VALUE_LEN_MAX }
}

/// qmail.schema: "active, noaccess, disabled, deleted".
const STATUS_WORDS: &[&str] = &["active", "noaccess", "disabled", "deleted"];
const DELIVERY_WORDS: &[&str] = &["forwardonly", "nolocal", "noforward"];
const ROLE_WORDS: &[&str] = &["administrator", "service"];

pub(super) static ATTRIBUTES: &[AttributeType] = &[
    // RFC 4512, RFC 4519
    user("2.5.4.0", &["objectClass"], Syntax::Oid),
    user("2.5.4.3", &["cn", "commonName"], Syntax::Text),
    user("2.5.4.4", &["sn", "surname"], Syntax::Text),
    user("2.5.4.5", &["serialNumber"], Syntax::Text),
    user("2.5.4.7", &["l", "localityName"], Syntax::Text),
    user("2.5.4.8", &["st", "stateOrProvinceName"], Syntax::Text),
    user("2.5.4.9", &["street", "streetAddress"], Syntax::Text),
    user("2.5.4.10", &["o", "organizationName"], Syntax::Text),
    user("2.5.4.11", &["ou", "organizationalUnitName"], Syntax::Text),
    user("2.5.4.12", &["title"], Syntax::Text),
    user("2.5.4.13", &["description"], Syntax::Text),
    user("2.5.4.15", &["businessCategory"], Syntax::Text),
    user("2.5.4.16", &["postalAddress"], Syntax::Text),
    user("2.5.4.17", &["postalCode"], Syntax::Text),
    user("2.5.4.18", &["postOfficeBox"], Syntax::Text),
    user("2.5.4.19", &["physicalDeliveryOfficeName"], Syntax::Text),
    user("2.5.4.20", &["telephoneNumber"], Syntax::Text),
    user("2.5.4.23", &["facsimileTelephoneNumber", "fax"], Syntax::Text),
    user("2.5.4.34", &["seeAlso"], Syntax::Name),
    user("2.5.4.35", &["userPassword"], Syntax::Password),
    user("2.5.4.42", &["givenName", "gn"], Syntax::Text),
    user("2.5.4.43", &["initials"], Syntax::Text),
    user("0.9.2342.19200300.100.1.1", &["uid", "userid"], Syntax::Text),
    // RFC 4524
    single("0.9.2342.19200300.100.1.3", &["mail", "rfc822Mailbox"], Syntax::Address),
    user("0.9.2342.19200300.100.1.6", &["roomNumber"], Syntax::Text),
    user("0.9.2342.19200300.100.1.10", &["manager"], Syntax::Name),
    user("0.9.2342.19200300.100.1.20", &["homePhone", "homeTelephoneNumber"], Syntax::Text),
    user("0.9.2342.19200300.100.1.21", &["secretary"], Syntax::Name),
    user("0.9.2342.19200300.100.1.37", &["associatedDomain"], Syntax::Domain),
    user("0.9.2342.19200300.100.1.39", &["homePostalAddress"], Syntax::Text),
    user("0.9.2342.19200300.100.1.41", &["mobile", "mobileTelephoneNumber"], Syntax::Text),
    user("0.9.2342.19200300.100.1.42", &["pager", "pagerTelephoneNumber"], Syntax::Text),
    file("0.9.2342.19200300.100.1.60", &["jpegPhoto"]),
    // RFC 2079, RFC 2798
    user("1.3.6.1.4.1.250.1.57", &["labeledURI"], Syntax::Text),
    user("2.16.840.1.113730.3.1.1", &["carLicense"], Syntax::Text),
    user("2.16.840.1.113730.3.1.2", &["departmentNumber"], Syntax::Text),
    single("2.16.840.1.113730.3.1.3", &["employeeNumber"], Syntax::Text),
    user("2.16.840.1.113730.3.1.4", &["employeeType"], Syntax::Text),
    single("2.16.840.1.113730.3.1.39", &["preferredLanguage"], Syntax::Text),
    single("2.16.840.1.113730.3.1.241", &["displayName"], Syntax::Text),
    // qmail.schema
    user("1.3.6.1.4.1.7914.1.2.1.4", &["mailAlternateAddress"], Syntax::Address),
    user("1.3.6.1.4.1.7914.1.2.1.7", &["mailForwardingAddress"], Syntax::Address),
    single("1.3.6.1.4.1.7914.1.2.1.10", &["deliveryMode"], Syntax::Word(DELIVERY_WORDS)),
    single("1.3.6.1.4.1.7914.1.2.1.12", &["accountStatus"], Syntax::Word(STATUS_WORDS)),
    single("1.3.6.1.4.1.7914.1.2.1.15", &["mailQuotaSize"], Syntax::Integer),
    // fife's own
    user("2.25.164980351163671376040300683607065786899.1.1", &["fifeRole"], Syntax::Word(ROLE_WORDS)),
    user("2.25.164980351163671376040300683607065786899.1.2", &["fifeDkimKey"], Syntax::Secret),
    // Made by the server: RFC 4512 sections 3.4 and 4.2, RFC 4530, RFC 5020
    server("2.5.18.1", &["createTimestamp"], Syntax::Time, true),
    server("2.5.18.2", &["modifyTimestamp"], Syntax::Time, true),
    server("2.5.18.3", &["creatorsName"], Syntax::Name, true),
    server("2.5.18.4", &["modifiersName"], Syntax::Name, true),
    server("2.5.18.10", &["subschemaSubentry"], Syntax::Name, true),
    server("2.5.21.9", &["structuralObjectClass"], Syntax::Oid, true),
    server("1.3.6.1.1.16.4", &["entryUUID"], Syntax::Uuid, true),
    server("1.3.6.1.1.20", &["entryDN"], Syntax::Name, true),
    server("2.5.21.5", &["attributeTypes"], Syntax::Text, false),
    server("2.5.21.6", &["objectClasses"], Syntax::Text, false),
    server("1.3.6.1.4.1.1466.101.120.16", &["ldapSyntaxes"], Syntax::Text, false),
    // Root DSE: RFC 4512 section 5.1, RFC 3045
    server("1.3.6.1.4.1.1466.101.120.5", &["namingContexts"], Syntax::Name, false),
    server("1.3.6.1.4.1.1466.101.120.7", &["supportedExtension"], Syntax::Oid, false),
    server("1.3.6.1.4.1.1466.101.120.13", &["supportedControl"], Syntax::Oid, false),
    server("1.3.6.1.4.1.1466.101.120.14", &["supportedSASLMechanisms"], Syntax::Text, false),
    server("1.3.6.1.4.1.1466.101.120.15", &["supportedLDAPVersion"], Syntax::Integer, false),
    server("1.3.6.1.4.1.4203.1.3.5", &["supportedFeatures"], Syntax::Oid, false),
    server("1.3.6.1.1.4", &["vendorName"], Syntax::Text, true),
    server("1.3.6.1.1.5", &["vendorVersion"], Syntax::Text, true),
];

/// What kind of class (RFC 4512 section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Abstract,
    Structural,
    Auxiliary,
}

/// One object class.
#[derive(Debug)]
pub(super) struct ObjectClass {
    pub(super) oid: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) superior: Option<&'static str>,
    pub(super) must: &'static [&'static str],
    pub(super) may: &'static [&'static str],
}

/// RFC 4519's organization and organizationalUnit allow the same.
const PLACE: &[&str] = &[
    "description",
    "telephoneNumber",
    "facsimileTelephoneNumber",
    "street",
    "postOfficeBox",
    "postalCode",
    "postalAddress",
    "physicalDeliveryOfficeName",
    "st",
    "l",
    "businessCategory",
    "seeAlso",
];

pub(super) static CLASSES: &[ObjectClass] = &[
    ObjectClass { oid: "2.5.6.0", name: "top", kind: Kind::Abstract, superior: None, must: &["objectClass"], may: &[] },
    ObjectClass {
        oid: "2.5.6.4",
        name: "organization",
        kind: Kind::Structural,
        superior: Some("top"),
        must: &["o"],
        may: PLACE,
    },
    ObjectClass {
        oid: "2.5.6.5",
        name: "organizationalUnit",
        kind: Kind::Structural,
        superior: Some("top"),
        must: &["ou"],
        may: PLACE,
    },
    ObjectClass {
        oid: "2.5.6.6",
        name: "person",
        kind: Kind::Structural,
        superior: Some("top"),
        must: &["sn", "cn"],
        may: &["userPassword", "telephoneNumber", "seeAlso", "description"],
    },
    ObjectClass {
        oid: "2.5.6.7",
        name: "organizationalPerson",
        kind: Kind::Structural,
        superior: Some("person"),
        must: &[],
        may: &[
            "title",
            "facsimileTelephoneNumber",
            "street",
            "postOfficeBox",
            "postalCode",
            "postalAddress",
            "physicalDeliveryOfficeName",
            "ou",
            "st",
            "l",
        ],
    },
    ObjectClass {
        oid: "2.16.840.1.113730.3.2.2",
        name: "inetOrgPerson",
        kind: Kind::Structural,
        superior: Some("organizationalPerson"),
        must: &[],
        may: &[
            "businessCategory",
            "carLicense",
            "departmentNumber",
            "displayName",
            "employeeNumber",
            "employeeType",
            "givenName",
            "homePhone",
            "homePostalAddress",
            "initials",
            "jpegPhoto",
            "labeledURI",
            "mail",
            "manager",
            "mobile",
            "o",
            "pager",
            "preferredLanguage",
            "roomNumber",
            "secretary",
            "uid",
        ],
    },
    ObjectClass {
        oid: "2.5.6.11",
        name: "applicationProcess",
        kind: Kind::Structural,
        superior: Some("top"),
        must: &["cn"],
        may: &["seeAlso", "ou", "l", "description"],
    },
    ObjectClass {
        oid: "0.9.2342.19200300.100.4.17",
        name: "domainRelatedObject",
        kind: Kind::Auxiliary,
        superior: Some("top"),
        must: &["associatedDomain"],
        may: &[],
    },
    ObjectClass {
        oid: "1.3.6.1.4.1.7914.1.2.2.1",
        name: "qmailUser",
        kind: Kind::Auxiliary,
        superior: Some("top"),
        must: &["mail"],
        may: &[
            "uid",
            "userPassword",
            "mailAlternateAddress",
            "mailForwardingAddress",
            "deliveryMode",
            "accountStatus",
            "mailQuotaSize",
        ],
    },
    ObjectClass {
        oid: "2.25.164980351163671376040300683607065786899.2.1",
        name: "fifeObject",
        kind: Kind::Auxiliary,
        superior: Some("top"),
        must: &[],
        may: &["fifeRole", "accountStatus", "fifeDkimKey"],
    },
];

static ATTRIBUTES_BY_NAME: LazyLock<HashMap<String, &'static AttributeType>> = LazyLock::new(|| {
    let names = |attribute: &'static AttributeType| attribute.names.iter().copied().chain([attribute.oid]);
    ATTRIBUTES.iter().flat_map(|one| names(one).map(move |name| (name.to_ascii_lowercase(), one))).collect()
});

static CLASSES_BY_NAME: LazyLock<HashMap<String, &'static ObjectClass>> = LazyLock::new(|| {
    CLASSES.iter().flat_map(|one| [one.name, one.oid].map(|name| (name.to_ascii_lowercase(), one))).collect()
});

/// The attribute type of this name or OID.
pub(super) fn attribute(name: &str) -> Option<&'static AttributeType> {
    ATTRIBUTES_BY_NAME.get(&name.to_ascii_lowercase()).copied()
}

/// The object class of this name or OID.
pub(super) fn class(name: &str) -> Option<&'static ObjectClass> {
    CLASSES_BY_NAME.get(&name.to_ascii_lowercase()).copied()
}

/// A class and every class above it.
pub(super) fn with_superiors(class_: &'static ObjectClass) -> Vec<&'static ObjectClass> {
    let mut chain = vec![class_];
    while let Some(next) = chain.last().and_then(|last| last.superior).and_then(class) {
        chain.push(next);
    }
    chain
}
