//! What holds between entries: where each may stand, whose an address is.
//!
//! Owns: the shape of the tree. Called by: `writer`, with every entry that is about to be written.
//! Never: checks an entry against its object classes; `change` has done so.
//!
//! The tree, and no other:
//!
//!     o=SITE                              organization
//!       ou=example.test                   organizationalUnit + domainRelatedObject: a mail domain
//!         uid=u1                          inetOrgPerson + qmailUser: a mailbox
//!         cn=info                         applicationProcess + qmailUser: an alias

use ldap3_proto::LdapResultCode as Code;

use super::dn::Dn;
use super::entry::Entry;
use super::plan;
use super::refusal::Refusal;
use super::schema::Syntax;
use super::view::{Changing, ViewError};
use crate::directory::vocabulary as names;

/// Why an entry is not written.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client's fault.
    Refused(Refusal),
    /// This machine's.
    View(ViewError),
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ViewError> for Broken {
    fn from(error: ViewError) -> Self {
        Self::View(error)
    }
}

/// Checks an entry that is about to be written against the rest of the directory.
pub(super) fn check(view: &Changing<'_>, entry: &Entry, base: &Dn) -> Result<(), Broken> {
    match entry.text("structuralObjectClass") {
        Some("organization") => Ok(check_organization(entry, base)?),
        Some("organizationalUnit") => Ok(check_domain(entry, base)?),
        Some("inetOrgPerson") => {
            let domain = domain_of(view, entry, base)?;
            check_user(entry)?;
            check_addresses(view, entry, &domain)
        }
        Some("applicationProcess") => {
            let domain = domain_of(view, entry, base)?;
            check_alias(entry)?;
            check_addresses(view, entry, &domain)
        }
        Some(_) | None => Err(Refusal::new(
            Code::NamingViolation,
            "entries here are an organization, domains (organizationalUnit), users (inetOrgPerson), aliases (applicationProcess)",
        )
        .into()),
    }
}

fn check_organization(entry: &Entry, base: &Dn) -> Result<(), Refusal> {
    if entry.dn.key() == base.key() {
        return Ok(());
    }
    Err(Refusal::new(Code::NamingViolation, "the one organization is the top of the directory"))
}

fn check_domain(entry: &Entry, base: &Dn) -> Result<(), Refusal> {
    if entry.dn.parent().key() != base.key() {
        return Err(Refusal::new(Code::NamingViolation, "domains stand directly below the top of the directory"));
    }
    if !has_class(entry, "domainRelatedObject") {
        return Err(Refusal::new(Code::ObjectClassViolation, "an organizationalUnit here is a domainRelatedObject"));
    }
    let named = named_by(entry, "ou")?;
    let named = Syntax::Domain.normalize(named.as_bytes());
    if named.is_none() || entry.normalized("associatedDomain", Syntax::Domain) != named.into_iter().collect::<Vec<_>>()
    {
        return Err(Refusal::new(Code::ConstraintViolation, "ou and associatedDomain are the same one domain name"));
    }
    Ok(())
}

fn check_user(entry: &Entry) -> Result<(), Refusal> {
    named_by(entry, "uid")?;
    require_qmail_user(entry)?;
    if is_forward_only(entry) && entry.text("mailForwardingAddress").is_none() {
        let text = "a user who keeps no copy of the mail has at least one mailForwardingAddress";
        return Err(Refusal::new(Code::ConstraintViolation, text));
    }
    if entry.text("mailQuotaSize").is_some_and(|quota| quota.starts_with('-')) {
        return Err(Refusal::new(Code::ConstraintViolation, "mailQuotaSize is a number of bytes"));
    }
    Ok(())
}

fn check_alias(entry: &Entry) -> Result<(), Refusal> {
    named_by(entry, "cn")?;
    require_qmail_user(entry)?;
    if !is_forward_only(entry) || entry.text("mailForwardingAddress").is_none() {
        let text = "an alias has deliveryMode forwardonly and at least one mailForwardingAddress";
        return Err(Refusal::new(Code::ConstraintViolation, text));
    }
    if entry.text("userPassword").is_some() {
        return Err(Refusal::new(Code::ConstraintViolation, "an alias has no password"));
    }
    Ok(())
}

/// Whether mail for the entry is passed on and none kept.
fn is_forward_only(entry: &Entry) -> bool {
    entry.text("deliveryMode").is_some_and(|mode| !mode.eq_ignore_ascii_case(names::NO_FORWARD))
}

/// The domain name of the entry in which this one stands.
fn domain_of(view: &Changing<'_>, entry: &Entry, base: &Dn) -> Result<String, Broken> {
    let parent = entry.dn.parent();
    let domain = if parent.key() == base.key() { None } else { view.by_key(&parent.key())? };
    let domain = domain.and_then(|domain| domain.normalized("associatedDomain", Syntax::Domain).pop());
    domain.ok_or_else(|| Refusal::new(Code::NamingViolation, "users and aliases stand directly below a domain").into())
}

/// The address is of the entry's domain, the alternate ones of any that is ours, all of them nobody else's.
fn check_addresses(view: &Changing<'_>, entry: &Entry, domain: &str) -> Result<(), Broken> {
    let domain_of = |address: &str| address.rsplit_once('@').map(|(_, domain)| domain.to_owned());
    let violation = |text: String| Err(Refusal::new(Code::ConstraintViolation, text).into());
    let mail = entry.normalized("mail", Syntax::Address);
    if let Some(stray) = mail.iter().find(|address| domain_of(address).as_deref() != Some(domain)) {
        return violation(format!("mail: {stray} is not of the domain {domain}"));
    }
    let uuid = entry.text("entryUUID");
    for address in plan::addresses(entry) {
        let ours = match domain_of(&address) {
            Some(other) if other == domain => true,
            Some(other) => view.exists(("associatedDomain", &other))?,
            None => false,
        };
        if !ours {
            return violation(format!("{address} is not of a domain in this directory"));
        }
        if view.address_owner(&address)?.is_some_and(|owner| Some(owner.as_str()) != uuid) {
            return violation(format!("{address} is the address of another entry"));
        }
    }
    Ok(())
}

fn require_qmail_user(entry: &Entry) -> Result<(), Refusal> {
    if has_class(entry, "qmailUser") {
        return Ok(());
    }
    Err(Refusal::new(Code::ObjectClassViolation, "users and aliases are of the class qmailUser"))
}

fn has_class(entry: &Entry, class: &str) -> bool {
    entry.has("objectClass", class.as_bytes())
}

/// The value by which an entry is named, when it is named by this one attribute.
fn named_by(entry: &Entry, attribute: &str) -> Result<String, Refusal> {
    match entry.dn.rdn().map(|rdn| rdn.pairs.as_slice()) {
        Some([(name, value)]) if name == attribute => Ok(value.clone()),
        Some(_) | None => Err(Refusal::new(Code::NamingViolation, format!("such an entry is named by {attribute}"))),
    }
}
