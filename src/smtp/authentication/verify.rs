//! Asking DNS whether a message is from whom it says.
//!
//! Owns: the questions, and what bounds them. Called by: `authentication`. Never: decides what follows; `verdict` does.
//! Spec: RFC 7208 sections 2.3, 2.4 (HELO, MAIL FROM) and 4.6.4 (limits); RFC 6376 section 6; RFC 9989 section 5.3.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use mail_auth::common::to_a_label;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    AuthenticatedMessage, AuthenticationResults, DkimOutput, DmarcOutput, DmarcResult, DnsError, Error,
    MessageAuthenticator, Parameters, RecordSet, ResolverCache, SpfOutput, SpfResult,
};
use tokio::time::timeout_at;

use super::heavy;
use super::verdict::Verdict;
use crate::base::address::{Address, Domain};
use crate::base::clock;
use crate::message::header;

/// Signatures of a message that are verified, the topmost; each costs a question to DNS and a public key operation.
pub const SIGNATURES_MAX: usize = 10;
/// Fields that a signature may name: each is looked for in the whole header.
const SIGNED_FIELDS_MAX: usize = 200;
/// Header fields of a message whose signatures are verified.
const HEADER_FIELDS_MAX: usize = 2000;
/// Domains of authors whose policies are asked for.
pub const AUTHOR_DOMAINS_MAX: usize = 4;

/// Who brings a message.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    pub client: IpAddr,
    /// As the client gave it: nothing is known of it.
    pub helo: &'a str,
    /// None: the null reverse-path.
    pub reverse_path: Option<&'a Address>,
}

/// SPF for both identities; none where there is nothing to be asked.
#[derive(Debug, Default)]
pub struct Spf {
    pub helo: Option<SpfOutput>,
    pub mail_from: Option<SpfOutput>,
}

/// Names of an address, without the dot at their end. mail-auth 0.13.3 compares what DNS says, with the dot, to what a policy says, without; so a
/// `ptr` of the very name never matches, unless the names are handed to it in this form.
#[derive(Default)]
struct PointerNames {
    found: Mutex<Vec<(IpAddr, RecordSet<Box<str>>)>>,
}

impl PointerNames {
    fn lock(&self) -> MutexGuard<'_, Vec<(IpAddr, RecordSet<Box<str>>)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl ResolverCache<IpAddr, RecordSet<Box<str>>> for PointerNames {
    fn get<Q>(&self, name: &Q) -> Option<RecordSet<Box<str>>>
    where
        IpAddr: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lock().iter().find(|(address, _)| address.borrow() == name).map(|(_, names)| names.clone())
    }

    fn remove<Q>(&self, _: &Q) -> Option<RecordSet<Box<str>>>
    where
        IpAddr: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, address: IpAddr, names: RecordSet<Box<str>>, _: Instant) {
        let plain = names.rrset.iter().map(|name| Box::from(name.trim_end_matches('.'))).collect();
        self.lock().push((address, RecordSet { rrset: plain, ..names }));
    }
}

/// Asks DNS.
pub struct Verifier {
    authenticator: MessageAuthenticator,
    hostname: String,
    time_max: Duration,
}

/// A message as far as its signatures and authors go.
pub(super) struct Parsed<'a> {
    pub(super) message: AuthenticatedMessage<'a>,
    /// Signatures that are too much to be verified.
    pub(super) ignored: usize,
    authors: Authors,
}

/// Domains of the addresses in From, in the form of the DNS.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Authors {
    pub(super) domains: Vec<String>,
    pub(super) too_many: bool,
}

impl Verifier {
    /// Asks by this resolver, and for one message no longer than `time_max`.
    #[must_use]
    pub fn new(resolver: TokioResolver, hostname: String, time_max: Duration) -> Self {
        Self { authenticator: MessageAuthenticator(resolver), hostname, time_max }
    }

    /// All that can be found out about a message in time.
    pub async fn verify(&self, sender: &Sender<'_>, content: &[u8]) -> Verdict {
        let deadline = clock::monotonic() + self.time_max;
        let parsed = heavy(content.len(), || Parsed::new(content));
        let (spf, dkim) = tokio::join!(self.spf(sender, deadline), self.dkim(&parsed, deadline));
        let mut dmarc = Vec::new();
        for domain in &parsed.authors.domains {
            dmarc.push(self.dmarc(domain, sender, &spf, dkim.as_deref().unwrap_or_default(), deadline).await);
        }
        let results = self.results(sender, &spf, dkim.as_deref(), parsed.ignored, &dmarc);
        Verdict::new(results, &spf, dkim.as_deref(), &dmarc, parsed.authors.too_many)
    }

    /// SPF of the name in HELO and of the reverse-path.
    pub async fn spf(&self, sender: &Sender<'_>, deadline: Instant) -> Spf {
        let helo = host_name(sender.helo);
        let address =
            sender.reverse_path.map(|path| format!("{}@{}", path.local(), to_a_label(path.domain().as_str())));
        let by_helo = async {
            let helo = helo.as_deref()?;
            let parameters = || SpfParameters::verify_ehlo(sender.client, helo, &self.hostname);
            Some(self.check(parameters, helo, deadline).await)
        };
        let by_mail_from = async {
            let address = address.as_deref()?;
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            let helo = helo.as_deref().unwrap_or_default();
            let parameters = || SpfParameters::verify_mail_from(sender.client, helo, &self.hostname, address);
            Some(self.check(parameters, domain, deadline).await)
        };
        let (helo, mail_from) = tokio::join!(by_helo, by_mail_from);
        Spf { helo, mail_from }
    }

    /// One identity. `parameters` makes the question, which is put twice when the answer hangs on a PTR record.
    async fn check<'x>(
        &self,
        parameters: impl Fn() -> SpfParameters<'x>,
        domain: &str,
        deadline: Instant,
    ) -> SpfOutput {
        let names = PointerNames::default();
        let ask = || self.authenticator.check_host(Parameters::new(parameters()).with_ptr_cache(&names));
        let checked = timeout_at(deadline.into(), async {
            let first = ask().await;
            // All but the PTR record comes out of the resolver's cache now.
            if names.is_empty() { first } else { ask().await }
        });
        let checked = checked.await;
        checked.unwrap_or_else(|_| SpfOutput::new(domain.to_owned()).with_result(SpfResult::TempError))
    }

    /// DKIM; none when time was up.
    async fn dkim<'x>(&self, parsed: &'x Parsed<'_>, deadline: Instant) -> Option<Vec<DkimOutput<'x>>> {
        if parsed.message.headers.is_empty() {
            return Some(Vec::new());
        }
        let parameters = Parameters::new(&parsed.message);
        timeout_at(deadline.into(), self.authenticator.verify_dkim(parameters)).await.ok()
    }

    /// DMARC for one of the authors' domains.
    async fn dmarc(
        &self,
        domain: &str,
        sender: &Sender<'_>,
        spf: &Spf,
        dkim: &[DkimOutput<'_>],
        deadline: Instant,
    ) -> DmarcOutput {
        // mail-auth leaves mail with several authors' domains alone; that would be a way around every policy. So it is asked for each by itself.
        let author = AuthenticatedMessage { from: vec![format!("author@{domain}")], ..AuthenticatedMessage::default() };
        let none = SpfOutput::default();
        // RFC 7208 section 2.4: without a reverse-path the identity is that of HELO.
        let (spf, spf_domain) = match (sender.reverse_path, &spf.mail_from, &spf.helo) {
            (Some(path), Some(output), _) => (output, path.domain().as_str()),
            (None, _, Some(output)) => (output, output.domain()),
            (Some(_) | None, _, _) => (&none, ""),
        };
        let parameters = DmarcParameters {
            message: &author,
            dkim_output: dkim,
            dkim2_output: None,
            rfc5321_mail_from_domain: spf_domain,
            spf_output: spf,
        };
        let asked = timeout_at(deadline.into(), self.authenticator.verify_dmarc(Parameters::new(parameters))).await;
        let no_time = || DmarcResult::TempError(Error::Dns(DnsError::Resolver(String::new())));
        asked.unwrap_or_else(|_| DmarcOutput::new(domain.to_owned()).with_spf_result(no_time()))
    }

    /// Our name and the results, as they stand in Authentication-Results.
    fn results(
        &self,
        sender: &Sender<'_>,
        spf: &Spf,
        dkim: Option<&[DkimOutput<'_>]>,
        ignored: usize,
        dmarc: &[DmarcOutput],
    ) -> String {
        let mut results = AuthenticationResults::new(&self.hostname);
        let helo = host_name(sender.helo).unwrap_or_default();
        if let Some(output) = &spf.helo {
            results = results.with_spf_ehlo_result(output, sender.client, &helo);
        }
        if let (Some(output), Some(path)) = (&spf.mail_from, sender.reverse_path) {
            results = results.with_spf_mailfrom_result(output, sender.client, &path.to_string(), &helo);
        }
        for output in dkim.unwrap_or_default() {
            results = results.with_dkim_result(output, "");
        }
        let mut results = results.to_string();
        match dkim {
            None => results.push_str(";\r\n\tdkim=temperror (no answer in time)"),
            Some(_) if ignored > 0 => results.push_str(";\r\n\tdkim=policy (more than is verified)"),
            Some([]) => results.push_str(";\r\n\tdkim=none"),
            Some(_) => {}
        }
        for output in dmarc {
            results.push_str(&AuthenticationResults::new("").with_dmarc_result(output).to_string());
        }
        results
    }
}

impl<'a> Parsed<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        let mut message = AuthenticatedMessage::parse(content).unwrap_or_default();
        let authors = Authors::new(&message.from);
        let found = message.dkim_headers.len();
        if message.headers.len() > HEADER_FIELDS_MAX {
            message.dkim_headers.clear();
        }
        message.dkim_headers.retain(|one| one.header.h.len() <= SIGNED_FIELDS_MAX);
        message.dkim_headers.truncate(SIGNATURES_MAX);
        let ignored = found - message.dkim_headers.len();
        message.errors.truncate(SIGNATURES_MAX);
        for one in &mut message.dkim_headers {
            // Reports of failures and third-party signatures would be more questions to DNS, and nobody here has use for the answers.
            one.header.r = false;
            one.header.atps = None;
        }
        Self { message, ignored, authors }
    }
}

impl Authors {
    pub(super) fn new(addresses: &[String]) -> Self {
        let mut domains = BTreeSet::new();
        for (_, domain) in addresses.iter().filter_map(|address| address.rsplit_once('@')) {
            domains.insert(to_a_label(domain).into_owned());
            if domains.len() > AUTHOR_DOMAINS_MAX {
                return Self { domains: Vec::new(), too_many: true };
            }
        }
        Self { domains: domains.into_iter().collect(), too_many: false }
    }
}

/// The addresses in From, of all From fields.
#[must_use]
pub fn authors(content: &[u8]) -> Vec<String> {
    let block = content.get(..header::block_end(content)).unwrap_or_default();
    let message = AuthenticatedMessage::parse(block).unwrap_or_default();
    message.from
}

/// The name in HELO, in the form of the DNS, when SPF can be asked about it: a name, and not of this network only (RFC 7208 section 2.3).
fn host_name(helo: &str) -> Option<String> {
    let is_address = helo.parse::<IpAddr>().is_ok() || helo.starts_with('[');
    let name = helo.parse::<Domain>().ok().filter(|_| !is_address)?;
    Some(to_a_label(name.as_str()).into_owned()).filter(|name| name.contains('.'))
}
