//! The questions that roles ask: who is this address, is this domain ours, is this password right.
//!
//! Owns: `Directory`. Called by: roles. Calls: `connection`; remembers answers for `cache-lifetime`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ldap3::{Scope, dn_escape, ldap_escape};

use super::account::{Account, AccountStatus, Expansion, Forwarding, Recipient};
use super::cache::Cache;
use super::connection::{Identity, Pool, Verdict};
use super::dkim::DomainKey;
use super::entry::{KNOWN_ATTRIBUTES, Known, What};
use super::error::{AuthError, DirectoryError};
use super::remembered::Remembered;
use super::tls::Way;
use super::vocabulary as names;
use crate::base::address::{Address, Domain};
use crate::base::clock;
use crate::config;
use crate::config::secret::SecretText;
use crate::net::site::SiteTls;

/// Addresses of which the answer is remembered at a time.
const ADDRESSES_REMEMBERED_MAX: usize = 100_000;
/// Domains of which the answer is remembered at a time.
const DOMAINS_REMEMBERED_MAX: usize = 10_000;
/// Levels of aliases that are followed.
const ALIAS_DEPTH_MAX: usize = 10;
/// Addresses that one address may lead to.
const ALIAS_TARGETS_MAX: usize = 1000;
/// Octets of a login name: an address, and room for none longer.
const LOGIN_LEN_MAX: usize = 320;

/// The site's directory. Cheap to clone; every clone shares connections and memory.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    base: String,
    /// For logins without a domain.
    login_domain: Option<Domain>,
    addresses: Cache<Option<Arc<Known>>>,
    domains: Cache<Option<AccountStatus>>,
    dkim_keys: Cache<Arc<[DomainKey]>>,
    remembered: Remembered,
}

impl Directory {
    /// The directory of these settings. Opens nothing yet: connections come with the first question, and come back after a failure.
    ///
    /// `base_dn` is used when the settings name none. Relative unix paths lie in `state_dir`.
    #[must_use]
    pub fn connect(
        settings: &config::directory::Directory,
        base_dn: &str,
        state_dir: &Path,
        bind_password: Option<SecretText>,
    ) -> Self {
        let servers = settings.servers.iter().map(|server| server.in_dir(state_dir)).collect();
        let identity = if settings.bind_dn.is_empty() {
            Identity::Own
        } else {
            let password = bind_password.unwrap_or_else(|| SecretText::new(String::new()));
            Identity::Simple { dn: settings.bind_dn.clone(), password }
        };
        let base = if settings.base.is_empty() { base_dn } else { &settings.base };
        let inner = Inner {
            pool: Pool::new(
                servers,
                identity,
                settings.timeout.get(),
                Way::new(settings.tls, &settings.tls_name, None, None),
            ),
            base: base.to_owned(),
            login_domain: None,
            addresses: Cache::new(settings.cache_lifetime.get(), ADDRESSES_REMEMBERED_MAX),
            domains: Cache::new(settings.cache_lifetime.get(), DOMAINS_REMEMBERED_MAX),
            dkim_keys: Cache::new(settings.cache_lifetime.get(), DOMAINS_REMEMBERED_MAX),
            remembered: Remembered::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Servers on TCP that speak TLS are trusted when their certificate comes from one of these (PEM), those of the site when they
    /// are of the `site`. To be called before the first clone; later it changes nothing.
    #[must_use]
    pub fn with_authority(
        mut self,
        settings: &config::directory::Directory,
        authority: Option<&SecretText>,
        site: Option<&SiteTls>,
    ) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.pool.set_way(Way::new(settings.tls, &settings.tls_name, authority, site));
        }
        self
    }

    /// Logins without a domain are taken to be of this one. To be called before the first clone; later it changes nothing.
    #[must_use]
    pub fn with_login_domain(mut self, domain: Option<Domain>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.login_domain = domain;
        }
        self
    }

    /// What the address is, one level deep.
    ///
    /// # Errors
    /// When the directory gives no answer: temporary.
    pub async fn resolve(&self, address: &Address) -> Result<Recipient, DirectoryError> {
        Ok(self.resolve_with_forwarding(address).await?.0)
    }

    /// The same, and where an account's mail goes.
    async fn resolve_with_forwarding(&self, address: &Address) -> Result<(Recipient, Forwarding), DirectoryError> {
        let Some(domain_status) = self.domain_status(address.domain()).await? else {
            return Ok((Recipient::NotLocal, Forwarding::default()));
        };
        let Some(known) = self.known(address).await? else {
            return Ok((Recipient::NoSuchUser, Forwarding::default()));
        };
        Ok(match &known.what {
            What::Account(account, forwarding) => {
                (Recipient::Account(strictest(account, domain_status)), forwarding.clone())
            }
            What::Alias(targets) => (Recipient::Alias(targets.clone()), Forwarding::default()),
        })
    }

    /// What the address is, aliases and forwarding followed to the end. A loop ends where it began; mail that would
    /// go round it and to nobody stays with the accounts in it.
    ///
    /// # Errors
    /// When the directory gives no answer, or an alias is nested too deep or too large: temporary.
    pub async fn expand(&self, address: &Address) -> Result<Expansion, DirectoryError> {
        let too_large = || DirectoryError::AliasTooLarge {
            address: address.to_string(),
            depth_max: ALIAS_DEPTH_MAX,
            targets_max: ALIAS_TARGETS_MAX,
        };
        let mut expansion = Expansion::default();
        let mut seen = HashSet::from([address.key()]);
        let mut level = vec![address.clone()];
        // Accounts that keep no copy.
        let mut passed_on: Vec<Arc<Account>> = Vec::new();
        for _ in 0..=ALIAS_DEPTH_MAX {
            let mut next = Vec::new();
            for address in level {
                let targets = match self.resolve_with_forwarding(&address).await? {
                    (Recipient::Account(account), forwarding) => {
                        // Mail for an account that takes none is refused, not passed on.
                        let takes_mail = account.status.takes_mail();
                        let keeps = forwarding.keep || !takes_mail;
                        let accounts = if keeps { &mut expansion.accounts } else { &mut passed_on };
                        if !accounts.iter().any(|have| have.id == account.id) {
                            accounts.push(account);
                        }
                        if takes_mail { forwarding.to } else { Vec::new() }
                    }
                    (Recipient::Alias(targets), _) => targets,
                    (Recipient::NoSuchUser, _) => {
                        expansion.missing.push(address);
                        Vec::new()
                    }
                    (Recipient::NotLocal, _) => {
                        expansion.remote.push(address);
                        Vec::new()
                    }
                };
                next.extend(targets.into_iter().filter(|to| seen.insert(to.key())));
            }
            if seen.len() > ALIAS_TARGETS_MAX {
                return Err(too_large());
            }
            if next.is_empty() {
                if expansion == Expansion::default() {
                    expansion.accounts = passed_on;
                }
                return Ok(expansion);
            }
            level = next;
        }
        Err(too_large())
    }

    /// Whether mail for the domain is ours to deliver, suspended or not.
    ///
    /// # Errors
    /// When the directory gives no answer: temporary.
    pub async fn is_local_domain(&self, domain: &Domain) -> Result<bool, DirectoryError> {
        Ok(self.domain_status(domain).await?.is_some())
    }

    /// The DKIM keys of a domain, none when it has none or is not ours.
    ///
    /// # Errors
    /// When the directory gives no answer: temporary.
    pub async fn dkim_keys(&self, domain: &Domain) -> Result<Arc<[DomainKey]>, DirectoryError> {
        if let Some(answer) = self.inner.dkim_keys.get(domain.as_str(), clock::monotonic()) {
            return Ok(answer);
        }
        let filter = domain_filter(domain);
        let found =
            self.inner.pool.search(&self.inner.base, Scope::Subtree, &filter, &[names::FIFE_DKIM_KEY], 0).await?;
        let keys: Arc<[DomainKey]> = found.first().map(|entry| entry.dkim_keys(domain)).unwrap_or_default().into();
        self.inner.dkim_keys.put(domain.as_str().to_owned(), Arc::clone(&keys), clock::monotonic());
        Ok(keys)
    }

    /// Whose login this is, when the password is right.
    ///
    /// The password is checked by a simple bind as the account's entry on a connection of its own. One
    /// that was right minutes ago is not checked again while the entry has not changed, and of logins at the same time
    /// with the same password one asks for all. `client`: the address of whoever logs in; the directory bounds
    /// failures by it, over all roles.
    ///
    /// # Errors
    /// `Refused` for an unknown user and for a wrong password (which take the same time), `Suspended`
    /// when the password is right, `TooManyFailures` when it was not looked at, `Unavailable` when the directory gives no answer.
    pub async fn authenticate(
        &self,
        login: &str,
        password: &SecretText,
        client: Option<IpAddr>,
    ) -> Result<Arc<Account>, AuthError> {
        if password.reveal().is_empty() || login.len() > LOGIN_LEN_MAX {
            return Err(AuthError::Refused);
        }
        let Some(address) = self.login_address(login) else {
            return Err(AuthError::Refused);
        };
        let domain_status = self.domain_status(address.domain()).await?;
        let known = match domain_status {
            Some(_) => self.known(&address).await?,
            None => None,
        };
        let (Some(known), Some(domain_status)) = (known, domain_status) else {
            return self.refuse_unknown(&address, password, client).await;
        };
        let What::Account(account, _) = &known.what else {
            return self.refuse_unknown(&address, password, client).await;
        };
        let account = strictest(account, domain_status);
        match self.verdict(&known, password, client).await? {
            Verdict::Right if account.status.may_log_in() => Ok(account),
            Verdict::Unwilling if account.status.may_log_in() => Err(AuthError::Refused),
            Verdict::Right | Verdict::Unwilling => Err(AuthError::Suspended),
            Verdict::Wrong => Err(AuthError::Refused),
            Verdict::TooManyFailures => Err(AuthError::TooManyFailures),
        }
    }

    /// What the directory says of a password, or has said minutes ago.
    async fn verdict(
        &self,
        known: &Known,
        password: &SecretText,
        client: Option<IpAddr>,
    ) -> Result<Verdict, DirectoryError> {
        let remembered = &self.inner.remembered;
        if remembered.knows(&known.dn, &known.revision, password, clock::monotonic()) {
            return Ok(Verdict::Right);
        }
        let flight = remembered.flight(&known.dn, &known.revision, password, client);
        let ask = async {
            let verdict = self.inner.pool.bind(&known.dn, password, client).await?;
            match verdict {
                Verdict::Right => remembered.remember(&known.dn, &known.revision, password, clock::monotonic()),
                // Somebody else's wrong guess must not cost the owner his memory; but where a change cannot be seen from the revision, it is seen here.
                Verdict::Wrong if known.revision.is_empty() => remembered.forget(&known.dn),
                Verdict::Wrong | Verdict::Unwilling | Verdict::TooManyFailures => {}
            }
            Ok(verdict)
        };
        flight.verdict.get_or_try_init(|| ask).await.copied()
    }

    /// Where searches start.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.inner.base
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// The full address is the login; a bare name is one of the first domain.
    fn login_address(&self, login: &str) -> Option<Address> {
        let login = login.trim();
        if login.contains('@') {
            return login.parse().ok();
        }
        let domain = self.inner.login_domain.as_ref()?;
        format!("{login}@{domain}").parse().ok()
    }

    /// Refuses, after a bind as nobody: the server pays for a password hash then as for a user that there is, so time does not tell.
    async fn refuse_unknown(
        &self,
        address: &Address,
        password: &SecretText,
        client: Option<IpAddr>,
    ) -> Result<Arc<Account>, AuthError> {
        let (uid, ou) = (dn_escape(address.local()), dn_escape(address.domain().as_str()));
        let nobody = format!("uid={uid},ou={ou},{}", self.inner.base);
        match self.inner.pool.bind(&nobody, password, client).await? {
            Verdict::TooManyFailures => Err(AuthError::TooManyFailures),
            Verdict::Right | Verdict::Wrong | Verdict::Unwilling => Err(AuthError::Refused),
        }
    }

    /// The entry that has this address.
    async fn known(&self, address: &Address) -> Result<Option<Arc<Known>>, DirectoryError> {
        let key = address.key();
        if let Some(answer) = self.inner.addresses.get(&key, clock::monotonic()) {
            return Ok(answer);
        }
        let value = ldap_escape(key.as_str()).into_owned();
        let filter = format!("(|({}={value})({}={value}))", names::MAIL, names::MAIL_ALTERNATE_ADDRESS);
        let found = self.inner.pool.search(&self.inner.base, Scope::Subtree, &filter, KNOWN_ATTRIBUTES, 0).await?;
        if found.len() > 1 {
            tracing::warn!(address = %key, entries = found.len(), "more than one entry has this address; the first is used");
        }
        let known = found.iter().find_map(Known::from_entry).map(Arc::new);
        self.inner.addresses.put(key, known.clone(), clock::monotonic());
        Ok(known)
    }

    /// The status of one of our domains; none when the domain is not ours.
    async fn domain_status(&self, domain: &Domain) -> Result<Option<AccountStatus>, DirectoryError> {
        if let Some(answer) = self.inner.domains.get(domain.as_str(), clock::monotonic()) {
            return Ok(answer);
        }
        let filter = domain_filter(domain);
        let attributes = &[names::ACCOUNT_STATUS];
        let found = self.inner.pool.search(&self.inner.base, Scope::Subtree, &filter, attributes, 0).await?;
        let status = found.first().map(|entry| AccountStatus::from_value(entry.first(names::ACCOUNT_STATUS)));
        self.inner.domains.put(domain.as_str().to_owned(), status, clock::monotonic());
        Ok(status)
    }
}

/// Finds the entry of a domain whose mail is ours.
pub(super) fn domain_filter(domain: &Domain) -> String {
    let (value, class) = (ldap_escape(domain.as_str()), names::DOMAIN_RELATED_OBJECT);
    format!("(&({}={value})({}={class}))", names::ASSOCIATED_DOMAIN, names::OBJECT_CLASS)
}

/// The account with the strictest of its own status and its domain's.
fn strictest(account: &Arc<Account>, domain: AccountStatus) -> Arc<Account> {
    if domain <= account.status {
        return Arc::clone(account);
    }
    Arc::new(Account { status: domain, ..Account::clone(account) })
}
