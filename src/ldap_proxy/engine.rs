//! The embedded directory: does what requests ask.
//!
//! Owns: reading connections to the view, the way to the writer. Called by: `serve`. Calls: `writer`, `hasher`.
//! Never: speaks LDAP on a wire; it takes decided operations and gives results.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ldap3_proto::LdapResultCode as Code;
use ldap3_proto::proto::{LdapModifyType, LdapSearchScope};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tracing::{debug, error, info, warn};

use super::access::{Office, Reads, Rights, Who};
use super::change::{Change, Modification, Stamp};
use super::dn::Dn;
use super::entry::{Entry, SUBSCHEMA_DN};
use super::failures::{Failures, Full, Try};
use super::hasher::{Hasher, Verified};
use super::password::{self, Given};
use super::plan::{Cursor, Plan};
use super::publish;
use super::refusal::Refusal;
use super::schema;
use super::search::{Search, Step};
use super::session::Channel;
use super::view::{View, ViewError};
use super::writer::{self, Job, OpenError, Writer};
use super::{filter, metrics};
use crate::base::clock;
use crate::config::secret::SecretText;
use crate::directory::admin::generate_password;
use crate::directory::vocabulary as names;

/// Reads of the view at a time.
const READERS: usize = 8;

pub(super) struct Engine {
    base: Dn,
    path: PathBuf,
    readers: Arc<Mutex<Vec<View>>>,
    turns: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
    hasher: Hasher,
    failures: Failures,
    /// Told when a reader finds the view damaged.
    damaged: Arc<Notify>,
}

impl Engine {
    /// Opens the directory and starts its writer, which ends when the engine is dropped.
    pub(super) fn open(
        dir: &Path,
        base: Dn,
        hasher: Hasher,
        failures: Failures,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let writer = Writer::open(dir, base.clone())?;
        let entries = writer.len()?;
        metrics::ENTRIES.set(i64::try_from(entries).unwrap_or(i64::MAX));
        info!(entries, base = %base, "directory is open");
        let (jobs, receiver) = mpsc::channel(writer::QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("directory".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        let engine = Self {
            base,
            path: writer::view_path(dir),
            readers: Arc::default(),
            turns: Arc::new(Semaphore::new(READERS)),
            jobs,
            hasher,
            failures,
            damaged: Arc::default(),
        };
        Ok((engine, thread))
    }

    /// Resolves when only opening everything again can help.
    pub(super) async fn stopped(&self) {
        tokio::select! {
            () = self.jobs.closed() => {}
            () = self.damaged.notified() => {}
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Whether the password is that of the entry, and the entry may log in.
    ///
    /// A hash that is not argon2id (brought in from elsewhere) is replaced by one that is: the first login has what is needed.
    pub(super) async fn bind(
        &self,
        dn: Dn,
        password: SecretText,
        client: Option<IpAddr>,
    ) -> Result<(Who, Office), Refusal> {
        let key = dn.key();
        let attempt = Try { name: dn.to_string(), account: key.clone(), client };
        let parent = dn.parent().key();
        let (entry, domain) = self.read(move |view| Ok((view.by_key(&key)?, view.by_key(&parent)?))).await?;
        let hashes = entry.as_ref().map(|entry| entry.values(names::USER_PASSWORD).to_vec()).unwrap_or_default();
        let verified = self.verify(&attempt, password, hashes).await?;
        let (Some(entry), Some(verified)) = (entry, verified) else {
            return Err(Refusal::invalid_credentials());
        };
        let is_active = |entry: &Entry| {
            entry.text(names::ACCOUNT_STATUS).is_none_or(|status| status.eq_ignore_ascii_case("active"))
        };
        if !is_active(&entry) || !domain.as_ref().is_none_or(is_active) {
            return Err(Refusal::new(Code::UnwillingToPerform, "the account is suspended"));
        }
        let uuid = entry.text(names::ENTRY_UUID).unwrap_or_default().to_owned();
        let office = Office::of(&entry);
        let who = Who::User { uuid, dn: entry.dn };
        if let Some(renewed) = verified.renewed {
            self.renew(&who, verified.stored, renewed).await;
        }
        Ok((who, office))
    }

    /// Whether the password is behind one of the hashes, unless too many were wrong before.
    async fn verify(
        &self,
        attempt: &Try,
        password: SecretText,
        hashes: Vec<Vec<u8>>,
    ) -> Result<Option<Verified>, Refusal> {
        // Before the wait, so that a flood does not keep others waiting; and after it, when those before have failed.
        self.admit(attempt)?;
        let turn = self.hasher.turn().await?;
        self.admit(attempt)?;
        let verified = turn.verify(password, hashes).await?;
        if verified.is_some() {
            self.failures.succeeded(attempt, clock::monotonic());
            return Ok(verified);
        }
        metrics::LOGINS_FAILED.inc();
        if let Some(full) = self.failures.failed(attempt, clock::monotonic()) {
            warn!(
                dn = attempt.name,
                client = attempt.client.map(|ip| ip.to_string()),
                full = full.as_str(),
                "too many failed logins"
            );
        }
        Ok(None)
    }

    fn admit(&self, attempt: &Try) -> Result<(), Refusal> {
        self.failures.admit(attempt, clock::monotonic()).map_err(|full: Full| {
            metrics::LOGINS_REFUSED.with_label_values(&[full.as_str()]).inc();
            Refusal::too_many_failures()
        })
    }

    /// Puts a new hash in the place of an old one. When that fails, the old one is as good as before.
    async fn renew(&self, who: &Who, old: Vec<u8>, new: String) {
        let Who::User { dn, .. } = who else { return };
        let name = names::USER_PASSWORD.to_owned();
        let modifications = vec![
            Modification { kind: LdapModifyType::Delete, name: name.clone(), values: vec![old] },
            Modification { kind: LdapModifyType::Add, name, values: vec![new.into_bytes()] },
        ];
        if let Err(refusal) = self.commit(Change::Modify { dn: dn.clone(), modifications }, who).await {
            debug!(dn = %dn, code = ?refusal.code, "the password keeps its old hash");
        }
    }

    /// What somebody may do now: an administrator is one as long as his entry says so.
    pub(super) async fn rights(&self, who: &Who) -> Result<Rights, Refusal> {
        let Who::User { uuid, .. } = who else {
            return Ok(who.rights(Office::None));
        };
        let uuid = uuid.clone();
        Ok(match self.read(move |view| view.by_uuid(&uuid)).await? {
            Some(entry) => who.rights(Office::of(&entry)),
            None => Who::Anonymous.rights(Office::None),
        })
    }

    /// What a search finds before it comes to the entries of the tree: all of it, when it is about the server itself.
    pub(super) async fn begin(&self, search: &mut Search, rights: &Rights, channel: Channel) -> Result<Begun, Refusal> {
        let base_only = search.scope == LdapSearchScope::Base;
        if base_only && search.base.is_root() {
            let start_tls = channel.offers_tls && !channel.is_tls;
            return Ok(Begun::Own(fitting(search, &publish::root_dse(&self.base, start_tls, channel.uid.is_some()))));
        }
        if base_only && search.base.to_string().eq_ignore_ascii_case(SUBSCHEMA_DN) {
            return Ok(Begun::Own(fitting(search, publish::subschema())));
        }
        // A subtree search from the root is one of all there is.
        if search.base.is_root() && search.scope == LdapSearchScope::Subtree {
            search.base = self.base.clone();
        }
        match &rights.reads {
            Reads::Nothing => Err(Refusal::new(Code::InsufficentAccessRights, "bind first")),
            Reads::Everything | Reads::AllButSecrets => {
                self.require(&search.base).await?;
                Ok(Begun::Tree(search.plan(&self.base)))
            }
            // His own entry or none: whether others are there is not told.
            Reads::Own { uuid } => {
                let uuid = uuid.clone();
                let own = self.read(move |view| view.by_uuid(&uuid)).await?;
                let own = own.and_then(|entry| search.show(entry, &rights.reads)).map(|(entry, _)| entry);
                if own.is_none() && base_only {
                    return Err(Refusal::no_such_object(""));
                }
                Ok(Begun::Own(own))
            }
        }
    }

    /// The next step of a search of the tree.
    pub(super) async fn step(
        &self,
        search: &Search,
        plan: &Plan,
        cursor: Cursor,
        wanted: usize,
        reads: &Reads,
    ) -> Result<Step, Refusal> {
        let (search, plan, reads) = (search.clone(), plan.clone(), reads.clone());
        self.read(move |view| search.step(view, &plan, cursor, wanted, &reads)).await
    }

    /// Makes a change: durable and visible when it returns.
    pub(super) async fn change(&self, change: Change, who: &Who) -> Result<(), Refusal> {
        let rights = self.rights(who).await?;
        if !rights.may(&change) {
            return Err(Refusal::insufficient_access());
        }
        let change = self.with_hashed_passwords(change, &rights).await?;
        self.commit(change, who).await
    }

    /// Makes a change that is allowed and has no clear-text passwords, and leaves a line about it.
    async fn commit(&self, change: Change, who: &Who) -> Result<(), Refusal> {
        let (what, name) = match &change {
            Change::Add { dn, .. } => ("add", dn.to_string()),
            Change::Modify { dn, .. } => ("modify", dn.to_string()),
            Change::Delete { dn } => ("delete", dn.to_string()),
            Change::Rename { dn, .. } => ("rename", dn.to_string()),
        };
        let outcome = self.write(change, who).await;
        match &outcome {
            Ok(()) => info!(change = what, dn = %name, author = %who.name(), "directory changed"),
            Err(refusal) => {
                info!(change = what, dn = %name, author = %who.name(), code = ?refusal.code, text = %refusal.text, "change refused");
            }
        }
        outcome
    }

    async fn write(&self, change: Change, who: &Who) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let stamp = Stamp { unix_millis: clock::unix_millis(), author: who.name() };
        match self.jobs.try_send(Job { change, stamp, answer }) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(Refusal::unavailable())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::busy()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::unavailable()),
        }
    }

    /// Whether an entry has a value (RFC 4511 section 4.10).
    pub(super) async fn compare(
        &self,
        dn: &Dn,
        attribute: &str,
        value: Vec<u8>,
        who: &Who,
        client: Option<IpAddr>,
    ) -> Result<bool, Refusal> {
        let rights = self.rights(who).await?;
        let entry = self.visible(dn, &rights).await?;
        let attribute = schema::attribute(attribute)
            .ok_or_else(|| Refusal::new(Code::UndefinedAttributeType, "attribute type unknown here"))?;
        if attribute.syntax == schema::Syntax::Password {
            if !rights.may_compare_password(dn) {
                return Err(Refusal::insufficient_access());
            }
            let password = SecretText::new(String::from_utf8_lossy(&value).into_owned());
            let hashes = entry.values(attribute.name()).to_vec();
            let attempt = Try { name: dn.to_string(), account: dn.key(), client };
            return Ok(self.verify(&attempt, password, hashes).await?.is_some());
        }
        if attribute.syntax == schema::Syntax::Secret && rights.reads != Reads::Everything {
            return Err(Refusal::insufficient_access());
        }
        if attribute.syntax.normalize(&value).is_none() {
            return Err(Refusal::new(Code::InvalidAttributeSyntax, "not a value of this attribute"));
        }
        let entry = entry.with_derived();
        if entry.values(attribute.name()).is_empty() {
            return Err(Refusal::new(Code::NoSuchAttribute, attribute.name()));
        }
        Ok(entry.has(attribute.name(), &value))
    }

    /// Gives an entry a new password, made here when none is given (RFC 3062).
    pub(super) async fn set_password(
        &self,
        dn: Dn,
        old: Option<SecretText>,
        new: Option<SecretText>,
        who: &Who,
        client: Option<IpAddr>,
    ) -> Result<Option<SecretText>, Refusal> {
        let rights = self.rights(who).await?;
        if !rights.may_compare_password(&dn) {
            return Err(Refusal::insufficient_access());
        }
        let entry = self.visible(&dn, &rights).await?;
        match old {
            Some(old) => {
                let hashes = entry.values(names::USER_PASSWORD).to_vec();
                let attempt = Try { name: dn.to_string(), account: dn.key(), client };
                if self.verify(&attempt, old, hashes).await?.is_none() {
                    return Err(Refusal::new(Code::InvalidCredentials, "the old password is wrong"));
                }
            }
            // Whoever finds somebody's session open must not be able to keep the account.
            None if !rights.may_bring_hashes() => {
                return Err(Refusal::new(Code::UnwillingToPerform, "the old password is needed"));
            }
            None => {}
        }
        let made = if new.is_none() { Some(generate_password()) } else { None };
        let Some(password) = new.or_else(|| made.clone()) else {
            return Err(Refusal::unavailable());
        };
        let hash = self.hashed(password).await?;
        let replace = Modification {
            kind: LdapModifyType::Replace,
            name: names::USER_PASSWORD.to_owned(),
            values: vec![hash.into_bytes()],
        };
        self.commit(Change::Modify { dn: entry.dn, modifications: vec![replace] }, who).await?;
        Ok(made)
    }

    /// The change with every clear-text password in it hashed.
    async fn with_hashed_passwords(&self, change: Change, rights: &Rights) -> Result<Change, Refusal> {
        match change {
            Change::Add { dn, attributes } => {
                let mut out = Vec::with_capacity(attributes.len());
                for (name, values) in attributes {
                    let values = if is_password(&name) { self.hash_all(values, rights).await? } else { values };
                    out.push((name, values));
                }
                Ok(Change::Add { dn, attributes: out })
            }
            Change::Modify { dn, mut modifications } => {
                for one in modifications.iter_mut().filter(|one| is_password(&one.name)) {
                    let values = std::mem::take(&mut one.values);
                    one.values = match one.kind {
                        LdapModifyType::Add | LdapModifyType::Replace => self.hash_all(values, rights).await?,
                        LdapModifyType::Delete => self.stored_hashes(&dn, values).await?,
                        LdapModifyType::Increment => values,
                    };
                }
                Ok(Change::Modify { dn, modifications })
            }
            other @ (Change::Delete { .. } | Change::Rename { .. }) => Ok(other),
        }
    }

    async fn hash_all(&self, values: Vec<Vec<u8>>, rights: &Rights) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut out = Vec::with_capacity(values.len());
        for value in values {
            let violation = |text: String| Refusal::new(Code::ConstraintViolation, text);
            match password::examine(&value).map_err(|error| violation(error.to_string()))? {
                Given::Hashed if !rights.may_bring_hashes() => {
                    return Err(violation("only administrators bring in password hashes".to_owned()));
                }
                Given::Hashed => out.push(value),
                Given::Clear => {
                    let text = String::from_utf8(value).map_err(|_| violation("passwords are UTF-8".to_owned()))?;
                    out.push(self.hashed(SecretText::new(text)).await?.into_bytes());
                }
            }
        }
        Ok(out)
    }

    async fn hashed(&self, password: SecretText) -> Result<String, Refusal> {
        let hash = self.hasher.hash(password).await?;
        hash.map_err(|error| Refusal::new(Code::ConstraintViolation, error.to_string()))
    }

    /// Clear-text passwords to be deleted, as they are stored; what is stored nowhere stays as it is and will not be found.
    async fn stored_hashes(&self, dn: &Dn, values: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Refusal> {
        let key = dn.key();
        let entry = self.read(move |view| view.by_key(&key)).await?;
        let hashes = entry.map(|entry| entry.values(names::USER_PASSWORD).to_vec()).unwrap_or_default();
        let mut out = Vec::with_capacity(values.len());
        for value in values {
            let clear = match password::examine(&value) {
                Ok(Given::Clear) => String::from_utf8(value.clone()).ok(),
                Ok(Given::Hashed) | Err(_) => None,
            };
            let stored = match clear {
                Some(clear) => self.hasher.turn().await?.verify(SecretText::new(clear), hashes.clone()).await?,
                None => None,
            };
            out.push(stored.map_or(value, |verified| verified.stored));
        }
        Ok(out)
    }

    /// The entry, when it is there and may be seen.
    async fn visible(&self, dn: &Dn, rights: &Rights) -> Result<Entry, Refusal> {
        let key = dn.key();
        let entry = match &rights.reads {
            Reads::Nothing => return Err(Refusal::insufficient_access()),
            Reads::Everything | Reads::AllButSecrets => self.read(move |view| view.by_key(&key)).await?,
            Reads::Own { uuid } => {
                let own = self.read(move |view| view.by_key(&key)).await?;
                own.filter(|entry| entry.text(names::ENTRY_UUID) == Some(uuid))
            }
        };
        entry.ok_or_else(|| Refusal::no_such_object(""))
    }

    /// The base of a search must be there (RFC 4511 section 4.1.9, matchedDN).
    async fn require(&self, dn: &Dn) -> Result<(), Refusal> {
        let (dn, base) = (dn.clone(), self.base.clone());
        let matched = self
            .read(move |view| {
                let mut above = dn.clone();
                while !above.is_root() && above.is_within(&base) {
                    if let Some(entry) = view.by_key(&above.key())? {
                        return Ok((entry.dn.key() != dn.key()).then(|| entry.dn.to_string()));
                    }
                    above = above.parent();
                }
                Ok(Some(String::new()))
            })
            .await?;
        match matched {
            None => Ok(()),
            Some(matched) => Err(Refusal::no_such_object(matched)),
        }
    }

    /// Reads the view on a thread where it may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Refusal::unavailable())?;
        let (readers, path) = (Arc::clone(&self.readers), self.path.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let view = match idle {
                Some(view) => view,
                None => View::open_reader(&path)?,
            };
            let answer = question(&view)?;
            // A connection that failed is dropped with its error.
            readers.lock().unwrap_or_else(PoisonError::into_inner).push(view);
            drop(turn);
            Ok::<T, ViewError>(answer)
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                error!(%error, "the directory cannot be read");
                if error.is_damage() {
                    self.damaged.notify_one();
                }
                Err(Refusal::unavailable())
            }
            Err(error) => {
                error!(%error, "a read of the directory ended by a bug");
                Err(Refusal::unavailable())
            }
        }
    }
}

/// How a search goes on.
#[derive(Debug)]
pub(super) enum Begun {
    /// This is all.
    Own(Option<ldap3_proto::proto::LdapSearchResultEntry>),
    /// Step by step through the tree.
    Tree(Plan),
}

fn fitting(search: &Search, entry: &Entry) -> Option<ldap3_proto::proto::LdapSearchResultEntry> {
    filter::matches(&search.filter, entry).then(|| search.show_unconditionally(entry))
}

fn is_password(name: &str) -> bool {
    schema::attribute(name).is_some_and(|attribute| attribute.syntax == schema::Syntax::Password)
}
