//! Changes to the directory: users, aliases, domains.
//!
//! Owns: which entries and attributes a change makes. Called by: the commands `fife user`, `fife alias`,
//! `fife domain`, and `bootstrap`. Never: prints; decides who may (the server does).
//!
//! A clear-text password is sent to be hashed by the server (fife's own does, with argon2id). With
//! another LDAP server as `[directory]` its own tools are the place to make users.

use std::collections::HashSet;

use ldap3::exop::PasswordModify;
use ldap3::{LdapResult, Mod, Scope, dn_escape, ldap_escape};

use super::account::{Account, AccountStatus, Forwarding};
use super::client::{Directory, domain_filter};
use super::dkim::{self, DomainKey, KeyError, KeyState};
use super::entry::{self, Entry, Known, What};
use super::error::{AdminError, DirectoryError};
use super::vocabulary as names;
use crate::base::address::{Address, Domain};
use crate::config::secret::SecretText;

/// Groups of five characters in a generated password; each character is five bits.
const GENERATED_GROUPS: usize = 4;
/// Nothing that is misread: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A user to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub address: Address,
    /// The name for people; empty: the local part of the address.
    pub name: String,
    pub quota_bytes: Option<u64>,
    pub password: SecretText,
    pub admin: bool,
}

/// An alias as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub address: Address,
    pub targets: Vec<Address>,
}

/// A domain as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainInfo {
    pub domain: Domain,
    pub status: AccountStatus,
}

/// A password of 100 random bits in a form that can be read out: `xxxxx-xxxxx-xxxxx-xxxxx`.
#[must_use]
pub fn generate_password() -> SecretText {
    let group = || {
        let mut bits: u32 = rand::random();
        let mut text = String::new();
        for _ in 0..5 {
            let index = usize::try_from(bits & 31).unwrap_or(0);
            text.push(char::from(ALPHABET.get(index).copied().unwrap_or(b'0')));
            bits >>= 5;
        }
        text
    };
    let groups: Vec<String> = (0..GENERATED_GROUPS).map(|_| group()).collect();
    SecretText::new(groups.join("-"))
}

/// Makes the top entry; done when it is there already.
pub(super) async fn add_base(directory: &Directory) -> Result<(), AdminError> {
    // The server takes the value of `o` from the name (RFC 4511 section 4.7).
    let attributes = vec![(names::OBJECT_CLASS, vec![names::ORGANIZATION])];
    match add(directory, directory.base(), &attributes).await {
        Err(AdminError::Exists(_)) => Ok(()),
        other => other,
    }
}

/// Makes a domain whose mail is ours, with these DKIM keys (`dkim::make_pair`).
///
/// # Errors
/// `Exists`; whatever else the directory says.
pub async fn add_domain(directory: &Directory, domain: &Domain, keys: &[DomainKey]) -> Result<(), AdminError> {
    let name = domain.as_str();
    let classes = vec![names::ORGANIZATIONAL_UNIT, names::DOMAIN_RELATED_OBJECT, names::FIFE_OBJECT];
    let mut attributes =
        vec![(names::OBJECT_CLASS, classes), (names::OU, vec![name]), (names::ASSOCIATED_DOMAIN, vec![name])];
    let keys: Vec<String> = keys.iter().map(DomainKey::to_value).collect();
    if !keys.is_empty() {
        attributes.push((names::FIFE_DKIM_KEY, keys.iter().map(String::as_str).collect()));
    }
    add(directory, &domain_dn(directory, domain), &attributes).await.map_err(|error| named(error, domain))
}

/// Takes a domain away; its users and aliases must be gone before.
///
/// # Errors
/// `NotFound`, `Rejected` when there are still entries in it.
pub async fn delete_domain(directory: &Directory, domain: &Domain) -> Result<(), AdminError> {
    let dn = find_domain(directory, domain).await?.dn;
    delete(directory, &dn).await.map_err(|error| named(error, domain))
}

/// Sets what the accounts of a domain may do at most.
///
/// # Errors
/// `NotFound`; whatever else the directory says.
pub async fn set_domain_status(
    directory: &Directory,
    domain: &Domain,
    status: AccountStatus,
) -> Result<(), AdminError> {
    let entry = find_domain(directory, domain).await?;
    set_status(directory, &entry, status).await.map_err(|error| named(error, domain))
}

/// Every domain, sorted.
///
/// # Errors
/// When the directory gives no answer.
pub async fn list_domains(directory: &Directory) -> Result<Vec<DomainInfo>, AdminError> {
    const ATTRIBUTES: &[&str] = &[names::ASSOCIATED_DOMAIN, names::ACCOUNT_STATUS];
    let filter = format!("({}={})", names::OBJECT_CLASS, names::DOMAIN_RELATED_OBJECT);
    let found = search(directory, directory.base(), &filter, ATTRIBUTES).await?;
    let mut domains = Vec::new();
    for entry in &found {
        let status = AccountStatus::from_value(entry.first(names::ACCOUNT_STATUS));
        let parsed = entry.all(names::ASSOCIATED_DOMAIN).filter_map(|text| text.parse().ok());
        domains.extend(parsed.map(|domain| DomainInfo { domain, status }));
    }
    domains.sort_by(|a, b| a.domain.cmp(&b.domain));
    Ok(domains)
}

/// The DKIM keys of a domain, by selector.
///
/// # Errors
/// `NotFound` when the domain is not there; when the directory gives no answer.
pub async fn dkim_keys(directory: &Directory, domain: &Domain) -> Result<Vec<DomainKey>, AdminError> {
    Ok(find_domain(directory, domain).await?.dkim_keys(domain))
}

/// Changes the DKIM keys of a domain, as a whole or not at all: two who change them at once do not undo each other's work.
///
/// # Errors
/// `NotFound`; `Keys` when the change says so; `Rejected` when somebody else was faster.
pub async fn change_dkim_keys(
    directory: &Directory,
    domain: &Domain,
    change: impl FnOnce(Vec<DomainKey>) -> Result<Vec<DomainKey>, KeyError>,
) -> Result<Vec<DomainKey>, AdminError> {
    let entry = find_domain(directory, domain).await?;
    let before = entry.dkim_keys(domain);
    let after = change(before.clone())?;
    let changes = dkim_changes(&entry, &before, &after);
    let result = directory
        .pool()
        .call(|mut ldap| {
            let (dn, changes) = (entry.dn.clone(), changes.clone());
            async move { ldap.modify(&dn, changes).await }
        })
        .await?;
    done(result).map_err(|error| named(error, domain))?;
    Ok(after)
}

/// From these keys to those, value by value.
fn dkim_changes(entry: &Entry, before: &[DomainKey], after: &[DomainKey]) -> Vec<Mod<String>> {
    let missing = |from: &[DomainKey], in_: &[DomainKey]| -> HashSet<String> {
        from.iter().filter(|key| !in_.contains(key)).map(|key| key.to_value()).collect()
    };
    let (gone, new) = (missing(before, after), missing(after, before));
    let mut changes = Vec::new();
    if !entry.all(names::OBJECT_CLASS).any(|have| have.eq_ignore_ascii_case(names::FIFE_OBJECT)) {
        changes.push(Mod::Add(names::OBJECT_CLASS.into(), HashSet::from([names::FIFE_OBJECT.into()])));
    }
    // To take away what is not there any more is refused (RFC 4511 section 4.6): somebody else was faster.
    if !gone.is_empty() {
        changes.push(Mod::Delete(names::FIFE_DKIM_KEY.into(), gone));
    }
    if !new.is_empty() {
        changes.push(Mod::Add(names::FIFE_DKIM_KEY.into(), new));
    }
    changes
}

/// Makes the first DKIM keys of a domain that has none.
///
/// # Errors
/// As `change_dkim_keys`.
pub async fn ensure_dkim_keys(directory: &Directory, domain: &Domain, unix_secs: u64) -> Result<(), AdminError> {
    if !dkim_keys(directory, domain).await?.is_empty() {
        return Ok(());
    }
    let pair = make_dkim_keys(unix_secs).await?;
    let only_if_none = |keys: Vec<DomainKey>| Ok(if keys.is_empty() { pair } else { keys });
    change_dkim_keys(directory, domain, only_if_none).await?;
    Ok(())
}

/// A first pair of keys, made on a thread where computing does not make others wait.
///
/// # Errors
/// `Keys`.
pub async fn make_dkim_keys(unix_secs: u64) -> Result<Vec<DomainKey>, AdminError> {
    let made = tokio::task::spawn_blocking(move || dkim::make_pair(&[], KeyState::Active, unix_secs)).await;
    Ok(made.map_err(|panic| KeyError::NotMade(panic.to_string()))??)
}

/// Makes a user, in one step with the password.
///
/// # Errors
/// `Exists`; `NotFound` when the domain is not there; `Rejected` when the address is somebody else's.
pub async fn add_user(directory: &Directory, user: &NewUser) -> Result<(), AdminError> {
    let (address, local) = (user.address.key(), user.address.local().to_lowercase());
    let name = if user.name.trim().is_empty() { user.address.local() } else { user.name.trim() };
    // sn is required (RFC 4519 section 3.12); the last word serves until somebody writes a better one.
    let surname = name.split_whitespace().next_back().unwrap_or(name);
    let quota = user.quota_bytes.map(|bytes| bytes.to_string());
    let classes = vec![names::INET_ORG_PERSON, names::QMAIL_USER, names::FIFE_OBJECT];
    let mut attributes = vec![
        (names::OBJECT_CLASS, classes),
        (names::UID, vec![local.as_str()]),
        (names::CN, vec![name]),
        (names::SN, vec![surname]),
        (names::MAIL, vec![address.as_str()]),
        (names::ACCOUNT_STATUS, vec![AccountStatus::Active.as_str()]),
        (names::USER_PASSWORD, vec![user.password.reveal()]),
    ];
    if let Some(quota) = &quota {
        attributes.push((names::MAIL_QUOTA_SIZE, vec![quota]));
    }
    if user.admin {
        attributes.push((names::FIFE_ROLE, vec![names::ADMINISTRATOR]));
    }
    let dn = format!("{}={},{}", names::UID, dn_escape(local.as_str()), domain_dn(directory, user.address.domain()));
    let added = add(directory, &dn, &attributes).await;
    in_domain(added, &user.address)
}

/// Makes an alias: mail for the address goes to the targets and nowhere else.
///
/// # Errors
/// As `add_user`.
pub async fn add_alias(directory: &Directory, alias: &Alias) -> Result<(), AdminError> {
    let (address, local) = (alias.address.key(), alias.address.local().to_lowercase());
    let targets: Vec<String> = alias.targets.iter().map(Address::to_string).collect();
    let attributes = vec![
        (names::OBJECT_CLASS, vec![names::APPLICATION_PROCESS, names::QMAIL_USER]),
        (names::CN, vec![local.as_str()]),
        (names::MAIL, vec![address.as_str()]),
        (names::DELIVERY_MODE, vec![names::FORWARD_ONLY]),
        (names::MAIL_FORWARDING_ADDRESS, targets.iter().map(String::as_str).collect()),
    ];
    let dn = format!("{}={},{}", names::CN, dn_escape(local.as_str()), domain_dn(directory, alias.address.domain()));
    let added = add(directory, &dn, &attributes).await;
    in_domain(added, &alias.address)
}

/// Gives a user a new password.
///
/// # Errors
/// `NotFound`; `Rejected` when the server does not like the password.
pub async fn set_password(directory: &Directory, address: &Address, password: &SecretText) -> Result<(), AdminError> {
    let dn = find_user(directory, address).await?.dn;
    let answer = directory
        .pool()
        .call(|mut ldap| {
            let dn = dn.clone();
            async move {
                let request = PasswordModify { user_id: Some(&dn), old_pass: None, new_pass: Some(password.reveal()) };
                ldap.extended(request).await
            }
        })
        .await?;
    done(answer.1).map_err(|error| named(error, address))
}

/// Sets what a user may do.
///
/// # Errors
/// `NotFound`; whatever else the directory says.
pub async fn set_user_status(
    directory: &Directory,
    address: &Address,
    status: AccountStatus,
) -> Result<(), AdminError> {
    let entry = find_user(directory, address).await?;
    set_status(directory, &entry, status).await.map_err(|error| named(error, address))
}

/// Where a user's mail goes.
///
/// # Errors
/// `NotFound`; when the directory gives no answer.
pub async fn forwarding(directory: &Directory, address: &Address) -> Result<Forwarding, AdminError> {
    Ok(find_user(directory, address).await?.forwarding())
}

/// Sets where a user's mail goes; to nobody else and kept: as it is without forwarding.
///
/// # Errors
/// `NotFound`; `Rejected` when it is to be kept nowhere.
pub async fn set_forwarding(
    directory: &Directory,
    address: &Address,
    forwarding: &Forwarding,
) -> Result<(), AdminError> {
    let dn = find_user(directory, address).await?.dn;
    let to: Vec<String> = forwarding.to.iter().map(Address::to_string).collect();
    let mode = if forwarding.keep { HashSet::new() } else { HashSet::from([names::FORWARD_ONLY]) };
    let changes = vec![
        Mod::Replace(names::MAIL_FORWARDING_ADDRESS, to.iter().map(String::as_str).collect()),
        Mod::Replace(names::DELIVERY_MODE, mode),
    ];
    let result = directory
        .pool()
        .call(|mut ldap| {
            let (dn, changes) = (&dn, changes.clone());
            async move { ldap.modify(dn, changes).await }
        })
        .await?;
    done(result).map_err(|error| named(error, address))
}

/// Takes a user away. The mailbox is not touched: it is pop-imap's.
///
/// # Errors
/// `NotFound`; whatever else the directory says.
pub async fn delete_user(directory: &Directory, address: &Address) -> Result<(), AdminError> {
    let dn = find_user(directory, address).await?.dn;
    delete(directory, &dn).await.map_err(|error| named(error, address))
}

/// Takes an alias away.
///
/// # Errors
/// `NotFound`; whatever else the directory says.
pub async fn delete_alias(directory: &Directory, address: &Address) -> Result<(), AdminError> {
    let entry = find(directory, address).await?;
    match entry {
        Some(entry) if entry.is_alias() => delete(directory, &entry.dn).await.map_err(|error| named(error, address)),
        Some(_) | None => Err(AdminError::NotFound(format!("alias {address}"))),
    }
}

/// Users of one domain or of all, sorted by address.
///
/// # Errors
/// `NotFound` when the domain is not there; when the directory gives no answer.
pub async fn list_users(directory: &Directory, domain: Option<&Domain>) -> Result<Vec<Account>, AdminError> {
    let filter = format!("({}={})", names::OBJECT_CLASS, names::INET_ORG_PERSON);
    let found = search(directory, &scope_of(directory, domain).await?, &filter, entry::KNOWN_ATTRIBUTES).await?;
    let mut users: Vec<Account> = found.iter().filter_map(entry::account).collect();
    users.sort_by(|a, b| (a.address.domain(), a.address.key()).cmp(&(b.address.domain(), b.address.key())));
    Ok(users)
}

/// Shows the users of one domain or of all, in the order of the tree, page by page: however many there are, few are in memory.
///
/// # Errors
/// As `list_users`; those before have been shown.
pub async fn each_user(
    directory: &Directory,
    domain: Option<&Domain>,
    visit: &mut dyn FnMut(&Account),
) -> Result<(), AdminError> {
    let filter = format!("({}={})", names::OBJECT_CLASS, names::INET_ORG_PERSON);
    let base = scope_of(directory, domain).await?;
    let mut cookie = Vec::new();
    loop {
        let (entries, next) = directory.pool().page(&base, &filter, entry::KNOWN_ATTRIBUTES, cookie).await?;
        entries.iter().filter_map(entry::account).for_each(|account| visit(&account));
        if next.is_empty() {
            return Ok(());
        }
        cookie = next;
    }
}

/// Aliases of one domain or of all, sorted by address.
///
/// # Errors
/// As `list_users`.
pub async fn list_aliases(directory: &Directory, domain: Option<&Domain>) -> Result<Vec<Alias>, AdminError> {
    let filter = format!("({}={})", names::DELIVERY_MODE, names::FORWARD_ONLY);
    let found = search(directory, &scope_of(directory, domain).await?, &filter, entry::KNOWN_ATTRIBUTES).await?;
    let mut aliases = Vec::new();
    for entry in &found {
        let address = entry.all(names::MAIL).find_map(|text| text.parse::<Address>().ok());
        if let (Some(address), Some(Known { what: What::Alias(targets), .. })) = (address, Known::from_entry(entry)) {
            aliases.push(Alias { address, targets });
        }
    }
    aliases.sort_by_key(|alias| alias.address.key());
    Ok(aliases)
}

/// Whether anybody administers the site.
pub(super) async fn has_administrator(directory: &Directory) -> Result<bool, AdminError> {
    let filter = format!("({}={})", names::FIFE_ROLE, names::ADMINISTRATOR);
    Ok(!search(directory, directory.base(), &filter, &[names::MAIL]).await?.is_empty())
}

fn domain_dn(directory: &Directory, domain: &Domain) -> String {
    format!("{}={},{}", names::OU, dn_escape(domain.as_str()), directory.base())
}

async fn scope_of(directory: &Directory, domain: Option<&Domain>) -> Result<String, AdminError> {
    match domain {
        Some(domain) => Ok(find_domain(directory, domain).await?.dn),
        None => Ok(directory.base().to_owned()),
    }
}

async fn find_domain(directory: &Directory, domain: &Domain) -> Result<Entry, AdminError> {
    const ATTRIBUTES: &[&str] = &[names::OBJECT_CLASS, names::FIFE_DKIM_KEY];
    let found = search(directory, directory.base(), &domain_filter(domain), ATTRIBUTES).await?;
    found.into_iter().next().ok_or_else(|| AdminError::NotFound(format!("domain {domain}")))
}

async fn find(directory: &Directory, address: &Address) -> Result<Option<Entry>, AdminError> {
    const ATTRIBUTES: &[&str] = &[names::OBJECT_CLASS, names::DELIVERY_MODE, names::MAIL_FORWARDING_ADDRESS];
    let filter = format!("({}={})", names::MAIL, ldap_escape(address.key()));
    Ok(search(directory, directory.base(), &filter, ATTRIBUTES).await?.into_iter().next())
}

async fn find_user(directory: &Directory, address: &Address) -> Result<Entry, AdminError> {
    let entry = find(directory, address).await?.filter(|entry| !entry.is_alias());
    entry.ok_or_else(|| AdminError::NotFound(format!("user {address}")))
}

async fn search(
    directory: &Directory,
    base: &str,
    filter: &str,
    attributes: &'static [&'static str],
) -> Result<Vec<Entry>, AdminError> {
    Ok(directory.pool().search(base, Scope::Subtree, filter, attributes, 0).await?)
}

async fn set_status(directory: &Directory, entry: &Entry, status: AccountStatus) -> Result<(), AdminError> {
    let mut changes = vec![Mod::Replace(names::ACCOUNT_STATUS, HashSet::from([status.as_str()]))];
    // accountStatus is allowed by qmailUser on users, by fifeObject on domains.
    let may = |class: &str| entry.all(names::OBJECT_CLASS).any(|have| have.eq_ignore_ascii_case(class));
    if !may(names::QMAIL_USER) && !may(names::FIFE_OBJECT) {
        changes.push(Mod::Add(names::OBJECT_CLASS, HashSet::from([names::FIFE_OBJECT])));
    }
    let result = directory
        .pool()
        .call(|mut ldap| {
            let changes = changes.clone();
            async move { ldap.modify(&entry.dn, changes).await }
        })
        .await?;
    done(result)
}

async fn add(directory: &Directory, dn: &str, attributes: &[(&str, Vec<&str>)]) -> Result<(), AdminError> {
    let result = directory
        .pool()
        .call(|mut ldap| {
            let set = |values: &Vec<_>| values.iter().copied().collect::<HashSet<&str>>();
            let attributes: Vec<_> = attributes.iter().map(|(name, values)| (*name, set(values))).collect();
            async move { ldap.add(dn, attributes).await }
        })
        .await?;
    done(result)
}

async fn delete(directory: &Directory, dn: &str) -> Result<(), AdminError> {
    done(directory.pool().call(|mut ldap| async move { ldap.delete(dn).await }).await?)
}

/// The result code of a change (RFC 4511 appendix A.1) as an error of ours.
fn done(result: LdapResult) -> Result<(), AdminError> {
    match result.rc {
        0 => Ok(()),
        32 => Err(AdminError::NotFound(result.matched)),
        68 => Err(AdminError::Exists(String::new())),
        // busy, unavailable, loopDetect, other: the server's own trouble.
        51 | 52 | 54 | 80 => Err(AdminError::Directory(DirectoryError::Refused { code: result.rc, text: result.text })),
        code => Err(AdminError::Rejected { code, text: result.text }),
    }
}

/// Puts the name that the caller asked about into the error.
fn named(error: AdminError, name: &impl ToString) -> AdminError {
    match error {
        AdminError::Exists(_) => AdminError::Exists(name.to_string()),
        AdminError::NotFound(_) => AdminError::NotFound(name.to_string()),
        other
        @ (AdminError::Rejected { .. } | AdminError::Directory(_) | AdminError::Keep(_) | AdminError::Keys(_)) => other,
    }
}

/// An entry could not be put into a domain: what is missing is the domain, not the entry.
fn in_domain(added: Result<(), AdminError>, address: &Address) -> Result<(), AdminError> {
    match added {
        Err(AdminError::NotFound(_)) => Err(AdminError::NotFound(format!("domain {}", address.domain()))),
        other => other.map_err(|error| named(error, address)),
    }
}
