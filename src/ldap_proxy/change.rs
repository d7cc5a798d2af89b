//! Changes to one entry: what comes of an add, a modify, a rename, by the schema alone.
//!
//! Owns: `Change` and how it is applied to an entry. Called by: `writer`. Never: looks at other entries (`rules`
//! does), hashes passwords (`hasher` has done so before), reads the clock.
//! Spec: RFC 4511 sections 4.6 (modify), 4.7 (add), 4.9 (modify DN); RFC 4512 section 2.

use chrono::DateTime;
use ldap3_proto::LdapResultCode as Code;
use ldap3_proto::proto::LdapModifyType;

use super::dn::{Dn, Rdn};
use super::entry::{Entry, Values};
use super::password;
use super::refusal::Refusal;
use super::schema::{self, AttributeType, Kind, ObjectClass, Syntax};

/// Octets of an entry, at most.
const ENTRY_LEN_MAX: usize = 256 * 1024;
/// Values of one attribute, at most.
const VALUES_MAX: usize = 1000;
/// Password hashes of one entry, at most: a login may have to verify against each.
const PASSWORDS_MAX: usize = 3;

/// A change as it goes to the writer. Clear-text passwords are hashed by then.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Add { dn: Dn, attributes: Vec<(String, Values)> },
    Modify { dn: Dn, modifications: Vec<Modification> },
    Delete { dn: Dn },
    Rename { dn: Dn, rdn: Rdn, delete_old: bool, superior: Option<Dn> },
}

/// One step of a modify (RFC 4511 section 4.6).
#[derive(Debug, Clone)]
pub(super) struct Modification {
    pub(super) kind: LdapModifyType,
    pub(super) name: String,
    pub(super) values: Values,
}

/// When and by whom.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    pub(super) unix_millis: u64,
    /// The author's name.
    pub(super) author: String,
}

impl Stamp {
    /// Generalized time with milliseconds (RFC 4517 section 3.3.13): two changes of an entry have different ones.
    fn time(&self) -> String {
        let moment = i64::try_from(self.unix_millis).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
        moment.format("%Y%m%d%H%M%S%.3fZ").to_string()
    }
}

/// The new entry of an add request.
pub(super) fn added(dn: &Dn, attributes: Vec<(String, Values)>, uuid: &str, stamp: &Stamp) -> Result<Entry, Refusal> {
    let mut entry = Entry::new(dn.clone());
    for (name, values) in attributes {
        let attribute = writable(&name)?;
        if values.is_empty() {
            return Err(Refusal::new(Code::InvalidAttributeSyntax, format!("{}: no value", attribute.name())));
        }
        for value in values {
            insert(&mut entry, attribute, value)?;
        }
    }
    // RFC 4511 section 4.7: the attributes of the RDN may be left out of the list.
    if let Some(rdn) = dn.rdn() {
        add_rdn_values(&mut entry, rdn)?;
    }
    let structural = complete_classes(&mut entry)?;
    entry.set("structuralObjectClass", structural.name);
    entry.set("entryUUID", uuid);
    entry.set("createTimestamp", stamp.time());
    entry.set("creatorsName", stamp.author.as_str());
    finish(entry, stamp)
}

/// The entry after a modify request; either all of it is done or none (RFC 4511 section 4.6).
pub(super) fn modified(old: &Entry, modifications: Vec<Modification>, stamp: &Stamp) -> Result<Entry, Refusal> {
    let mut entry = old.clone();
    for modification in modifications {
        modify_one(&mut entry, modification)?;
    }
    if let Some(rdn) = entry.dn.rdn()
        && rdn.pairs.iter().any(|(name, value)| !entry.has(name, value.as_bytes()))
    {
        return Err(Refusal::new(Code::NotALlowedOnRDN, "the value is part of the entry's name"));
    }
    let structural = complete_classes(&mut entry)?;
    if old.text("structuralObjectClass") != Some(structural.name) {
        return Err(Refusal::new(Code::ObjectClassModsProhibited, "the structural object class cannot change"));
    }
    finish(entry, stamp)
}

/// The entry after a modify DN request.
pub(super) fn renamed(old: &Entry, new: Dn, delete_old: bool, stamp: &Stamp) -> Result<Entry, Refusal> {
    let mut entry = old.clone();
    if delete_old && let Some(rdn) = old.dn.rdn() {
        for (name, value) in &rdn.pairs {
            remove(&mut entry, name, value.as_bytes());
        }
    }
    if let Some(rdn) = new.rdn() {
        add_rdn_values(&mut entry, rdn)?;
    }
    entry.dn = new;
    finish(entry, stamp)
}

/// The marks of the change, and the checks on the whole.
fn finish(mut entry: Entry, stamp: &Stamp) -> Result<Entry, Refusal> {
    entry.set("modifyTimestamp", stamp.time());
    entry.set("modifiersName", stamp.author.as_str());
    check_against_classes(&entry)?;
    if entry.len() > ENTRY_LEN_MAX {
        return Err(Refusal::new(Code::AdminLimitExceeded, format!("an entry has at most {ENTRY_LEN_MAX} octets")));
    }
    Ok(entry)
}

fn modify_one(entry: &mut Entry, modification: Modification) -> Result<(), Refusal> {
    let Modification { kind, name, values } = modification;
    let attribute = writable(&name)?;
    match kind {
        LdapModifyType::Add => {
            if values.is_empty() {
                return Err(Refusal::new(Code::ProtocolError, format!("{}: nothing to add", attribute.name())));
            }
            values.into_iter().try_for_each(|value| insert(entry, attribute, value))
        }
        LdapModifyType::Replace => {
            entry.attributes.remove(attribute.name());
            values.into_iter().try_for_each(|value| insert(entry, attribute, value))
        }
        LdapModifyType::Delete if values.is_empty() => match entry.attributes.remove(attribute.name()) {
            Some(_) => Ok(()),
            None => Err(no_such(attribute)),
        },
        LdapModifyType::Delete => {
            let mut remove = |value: Vec<u8>| remove(entry, attribute.name(), &value).then_some(());
            values.into_iter().try_for_each(|value| remove(value).ok_or_else(|| no_such(attribute)))
        }
        LdapModifyType::Increment => increment(entry, attribute, &values),
    }
}

/// RFC 4525: every value grows by the one number given.
fn increment(entry: &mut Entry, attribute: &'static AttributeType, by: &[Vec<u8>]) -> Result<(), Refusal> {
    let number = |value: &[u8]| std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
    let ([by], Syntax::Integer) = (by, attribute.syntax) else {
        return Err(Refusal::new(Code::ProtocolError, "increment takes one number and an attribute of numbers"));
    };
    let wrong = || Refusal::new(Code::ConstraintViolation, format!("{}: not a sum", attribute.name()));
    let by = number(by).ok_or_else(wrong)?;
    let values = entry.attributes.get_mut(attribute.name()).ok_or_else(|| no_such(attribute))?;
    for value in values {
        let sum = number(value).and_then(|have| have.checked_add(by)).ok_or_else(wrong)?;
        *value = sum.to_string().into_bytes();
    }
    Ok(())
}

fn no_such(attribute: &AttributeType) -> Refusal {
    Refusal::new(Code::NoSuchAttribute, attribute.name())
}

/// The attribute type, when clients may write it.
fn writable(name: &str) -> Result<&'static AttributeType, Refusal> {
    let attribute = schema::attribute(name)
        .ok_or_else(|| Refusal::new(Code::UndefinedAttributeType, format!("{name}: attribute type unknown here")))?;
    if attribute.operational {
        // RFC 4512 section 3.4: NO-USER-MODIFICATION.
        return Err(Refusal::new(Code::ConstraintViolation, format!("{}: made by the server", attribute.name())));
    }
    Ok(attribute)
}

/// Adds one value, checked against the attribute's type.
fn insert(entry: &mut Entry, attribute: &'static AttributeType, value: Vec<u8>) -> Result<(), Refusal> {
    let name = attribute.name();
    if value.len() > attribute.value_len_max {
        let text = format!("{name}: a value has at most {} octets", attribute.value_len_max);
        return Err(Refusal::new(Code::ConstraintViolation, text));
    }
    let Some(normalized) = attribute.syntax.normalize(&value) else {
        return Err(Refusal::new(Code::InvalidAttributeSyntax, format!("{name}: not a value of this attribute")));
    };
    if attribute.syntax == Syntax::Password && password::examine(&value) != Ok(password::Given::Hashed) {
        return Err(Refusal::new(Code::ConstraintViolation, format!("{name}: not a password hash")));
    }
    let values = entry.attributes.entry(name.to_owned()).or_default();
    if values.iter().any(|have| attribute.syntax.normalize(have).as_ref() == Some(&normalized)) {
        return Err(Refusal::new(Code::AttributeOrValueExists, name));
    }
    values.push(value);
    let values_max = if attribute.single {
        1
    } else if attribute.syntax == Syntax::Password {
        PASSWORDS_MAX
    } else {
        VALUES_MAX
    };
    if values.len() > values_max {
        return Err(Refusal::new(Code::ConstraintViolation, format!("{name}: at most {values_max} values")));
    }
    Ok(())
}

/// Takes one value away; false when it is not there.
fn remove(entry: &mut Entry, name: &str, value: &[u8]) -> bool {
    let Some(attribute) = schema::attribute(name) else {
        return false;
    };
    let wanted = attribute.syntax.normalize(value);
    let Some(values) = entry.attributes.get_mut(attribute.name()) else {
        return false;
    };
    let before = values.len();
    values.retain(|have| wanted.is_none() || attribute.syntax.normalize(have) != wanted);
    let removed = values.len() < before;
    if values.is_empty() {
        entry.attributes.remove(attribute.name());
    }
    removed
}

fn add_rdn_values(entry: &mut Entry, rdn: &Rdn) -> Result<(), Refusal> {
    for (name, value) in &rdn.pairs {
        let attribute = schema::attribute(name)
            .ok_or_else(|| Refusal::new(Code::NamingViolation, format!("{name}: cannot name an entry here")))?;
        if !entry.has(attribute.name(), value.as_bytes()) {
            insert(entry, attribute, value.clone().into_bytes())?;
        }
    }
    Ok(())
}

/// Writes the superior classes out (RFC 4512 section 3.3), checks that the classes go together, and gives the structural one.
fn complete_classes(entry: &mut Entry) -> Result<&'static ObjectClass, Refusal> {
    let violation = |text: String| Refusal::new(Code::ObjectClassViolation, text);
    let mut classes: Vec<&'static ObjectClass> = Vec::new();
    for value in entry.values("objectClass") {
        let name = String::from_utf8_lossy(value);
        let class =
            schema::class(name.trim()).ok_or_else(|| violation(format!("{name}: object class unknown here")))?;
        for one in schema::with_superiors(class) {
            if !classes.iter().any(|have| have.name == one.name) {
                classes.push(one);
            }
        }
    }
    let structural: Vec<_> = classes.iter().copied().filter(|class| class.kind == Kind::Structural).collect();
    // The structural class is the one below all others (RFC 4512 section 2.4.2).
    let lowest = structural.iter().copied().find(|class| {
        let chain = schema::with_superiors(class);
        structural.iter().all(|other| chain.iter().any(|above| above.name == other.name))
    });
    let lowest = lowest.ok_or_else(|| violation("exactly one structural object class is needed".to_owned()))?;
    let names = classes.iter().map(|class| class.name.as_bytes().to_vec()).collect();
    entry.attributes.insert("objectClass".to_owned(), names);
    Ok(lowest)
}

/// Every required attribute is there, every other one allowed (RFC 4512 section 2.4).
fn check_against_classes(entry: &Entry) -> Result<(), Refusal> {
    let names = entry.values("objectClass").iter().filter_map(|value| std::str::from_utf8(value).ok());
    let classes: Vec<_> = names.filter_map(schema::class).collect();
    let musts = classes.iter().flat_map(|class| class.must).copied();
    for must in musts.clone() {
        if entry.values(must).is_empty() {
            return Err(Refusal::new(Code::ObjectClassViolation, format!("{must} is required")));
        }
    }
    let allowed: Vec<&str> = musts.chain(classes.iter().flat_map(|class| class.may).copied()).collect();
    let stray = entry.attributes.keys().find(|name| {
        let operational = schema::attribute(name).is_some_and(|attribute| attribute.operational);
        !operational && !allowed.contains(&name.as_str())
    });
    match stray {
        Some(name) => {
            Err(Refusal::new(Code::ObjectClassViolation, format!("{name} is not allowed by the object classes")))
        }
        None => Ok(()),
    }
}
