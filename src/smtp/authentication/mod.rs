//! Who really sent a message: signed for what our users send, checked for what other servers bring.
//!
//! Owns: the plan of the room; what is done to a message on its way in. Called by: `smtp::delivery`, `smtp::bounce`.
//! Never: trusts a name that DNS gave beyond what the specifications make of it; lets one message ask DNS without bound.
//! Spec: RFC 6376 and RFC 8463 (DKIM), RFC 7208 (SPF), RFC 9989 (DMARC), RFC 8601 (Authentication-Results).
//!
//! - `sign` makes signatures; `signers` finds the keys for a domain;
//! - `verify` asks DNS and makes `Findings`; `verdict` says what follows from them;
//! - `results` writes the field, and takes forged ones away.
//!
//! The work of the protocols is mail-auth's. It reads the clock itself, for the time of a signature and its expiry.

pub mod results;
pub mod sign;
mod signers;
pub mod verdict;
pub mod verify;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use tracing::{info, warn};

use self::signers::SignerCache;
use self::verdict::{Disposition, Verdict};
use self::verify::{Sender, Verifier};
use super::envelope::{Message, Origin, Personality, Way};
use super::metrics::{AUTHENTICATION, DKIM_SIGNED};
use super::outbound::seven_bit;
use super::reply::Reply;
use crate::base::address::{Address, Domain};
use crate::config::smtp_authentication::{DmarcMode, SmtpAuthentication};
use crate::directory::{Account, Directory, DirectoryError, Recipient};

/// Octets of a message that are looked through on the event loop; longer ones are on a thread of their own meanwhile.
const INLINE_LEN_MAX: usize = 128 * 1024;

/// What authentication has to work with.
pub(super) struct Authentication {
    settings: SmtpAuthentication,
    /// By which we are known in Authentication-Results.
    hostname: String,
    /// The site's domain.
    domain: Option<Domain>,
    directory: Directory,
    verifier: Verifier,
    signers: SignerCache,
}

impl Authentication {
    pub(super) fn new(
        settings: SmtpAuthentication,
        hostname: String,
        domain: Option<Domain>,
        directory: Directory,
        resolver: TokioResolver,
    ) -> Self {
        let verifier = Verifier::new(resolver, hostname.clone(), settings.time_max.get());
        Self { settings, hostname, domain, directory, verifier, signers: SignerCache::default() }
    }

    /// The message as it is to go on, with our signature or our findings before it; or why it does not.
    ///
    /// # Errors
    /// The reply for the client.
    pub(super) async fn pass(&self, origin: &Origin, mut message: Message) -> Result<Message, Reply> {
        // RFC 8601 section 5: what looks like our findings and is not must not be believed.
        if let Some(content) = results::without_forged(&message.content, &self.own_names()) {
            info!(message = %message.envelope.id, "Authentication-Results in our name were taken away");
            message.content = content.into();
        }
        match (origin.personality, &origin.account) {
            (Personality::Submission, Some(account)) => Ok(self.sign(account, message).await),
            (Personality::Submission, None) => Ok(message),
            (Personality::Mx, _) => self.verify(origin, message).await,
        }
    }

    /// Names under which findings are ours: this host, the site's domain and all below it.
    fn own_names(&self) -> results::OwnNames<'_> {
        results::OwnNames { hostname: &self.hostname, domain: self.domain.as_ref().map(Domain::as_str) }
    }

    /// The message signed for its author's domain, when the author is whoever signed in. A message that cannot be signed goes unsigned: better than not at all.
    async fn sign(&self, account: &Account, message: Message) -> Message {
        if !self.settings.sign {
            return message;
        }
        let id = message.envelope.id;
        let authors = verify::authors(&message.content);
        let [author] = authors.as_slice() else {
            info!(message = %id, "not signed: it has not one author");
            return message;
        };
        let Ok(author) = author.parse::<Address>() else { return message };
        match self.is_own(account, &author).await {
            Ok(true) => self.sign_for(author.domain(), message).await,
            Ok(false) => {
                info!(message = %id, %author, "not signed: the author is not the user who signed in");
                message
            }
            Err(error) => {
                warn!(message = %id, %error, "not signed");
                message
            }
        }
    }

    /// Whether an account may speak in the name of this address's domain: its own domain, or another one in which it has the address.
    async fn is_own(&self, account: &Account, author: &Address) -> Result<bool, DirectoryError> {
        if author.domain() == account.address.domain() {
            return Ok(true);
        }
        Ok(matches!(self.directory.resolve(author).await?, Recipient::Account(owner) if owner.id == account.id))
    }

    /// A message of our own (a bounce), from the postmaster of this host, signed for the site's domain when the host is in it: DMARC takes
    /// the two for one (RFC 9989 section 4.10.2).
    pub(super) async fn sign_own(&self, message: Message) -> Message {
        match &self.domain {
            Some(domain) if self.settings.sign && self.own_names().is_host_in_domain() => {
                self.sign_for(domain, message).await
            }
            Some(_) | None => message,
        }
    }

    async fn sign_for(&self, domain: &Domain, mut message: Message) -> Message {
        let id = message.envelope.id;
        let signers = match self.signers.of(&self.directory, domain).await {
            Ok(signers) if signers.is_empty() => return message,
            Ok(signers) => signers,
            Err(error) => {
                warn!(message = %id, %domain, %error, "not signed");
                return message;
            }
        };
        let leaves = message.envelope.recipients.iter().any(|recipient| recipient.way == Way::Elsewhere);
        if leaves && message.is_eight_bit() {
            let converted = heavy(message.size(), || seven_bit::convert_unsigned(&message.content));
            message.content = converted.map_or(message.content, Bytes::from);
        }
        let signed = heavy(message.size(), || signers.sign(&message.trace, &message.content));
        match signed {
            Ok(mut fields) => {
                fields.extend_from_slice(&message.trace);
                message.trace = Bytes::from(fields);
                DKIM_SIGNED.inc();
            }
            Err(error) => warn!(message = %id, %domain, %error, "not signed"),
        }
        message
    }

    async fn verify(&self, origin: &Origin, mut message: Message) -> Result<Message, Reply> {
        let Some(client) = origin.client else { return Ok(message) };
        let is_trusted = self.settings.trusted_networks.iter().any(|network| network.contains(client));
        if self.settings.dmarc == DmarcMode::Off || is_trusted {
            return Ok(message);
        }
        let reverse_path = message.envelope.reverse_path.as_ref();
        let sender = Sender { client, helo: &origin.helo, reverse_path };
        let verdict = self.verifier.verify(&sender, &message.content).await;
        self.tell(&message, &verdict);
        match verdict.disposition(&self.settings) {
            Disposition::Refuse(reply) => Err(reply),
            Disposition::Take => {
                let mut fields = results::field(&verdict.results, message.envelope.smtputf8);
                fields.push_str(&String::from_utf8_lossy(&message.trace));
                message.trace = Bytes::from(fields);
                Ok(message)
            }
        }
    }

    fn tell(&self, message: &Message, verdict: &Verdict) {
        for (method, result) in verdict.counted() {
            AUTHENTICATION.with_label_values(&[method, result]).inc();
        }
        let (spf, dkim, dmarc) = (verdict.spf.as_str(), verdict.dkim.as_str(), verdict.dmarc.as_str());
        let disposition = verdict.disposition(&self.settings).as_str();
        info!(message = %message.envelope.id, spf, dkim, dmarc, author = verdict.author, disposition, "authentication");
    }
}

/// Work that takes long for a long message, done so that other sessions go on meanwhile.
fn heavy<T>(len: usize, work: impl FnOnce() -> T) -> T {
    if len > INLINE_LEN_MAX { tokio::task::block_in_place(work) } else { work() }
}
