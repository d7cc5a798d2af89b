//! The keys of our domains, ready to sign.
//!
//! Owns: `SignerCache`. Called by: `authentication`. The directory's client remembers the keys for `cache-lifetime`; here is remembered what reading
//! them made, which costs more than a signature.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::sign::Signers;
use crate::base::address::Domain;
use crate::directory::dkim::{DomainKey, KeyError};
use crate::directory::{Directory, DirectoryError};

/// Domains whose keys are held at a time; past it all are forgotten.
const DOMAINS_MAX: usize = 10_000;

/// Why there is nothing to sign with.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignersError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Keys, and what was made of them.
type Made = (Arc<[DomainKey]>, Arc<Signers>);

/// Signers by domain.
#[derive(Default)]
pub(super) struct SignerCache {
    made: Mutex<HashMap<Domain, Made>>,
}

impl SignerCache {
    /// What signs for the domain now; empty when it is not ours or has no keys.
    ///
    /// # Errors
    /// The directory gives no answer; a key is none.
    pub(super) async fn of(&self, directory: &Directory, domain: &Domain) -> Result<Arc<Signers>, SignersError> {
        let keys = directory.dkim_keys(domain).await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, signers)) = made.get(domain)
            && *of == keys
        {
            return Ok(Arc::clone(signers));
        }
        let signers = Arc::new(Signers::new(domain, &keys)?);
        if keys.is_empty() {
            // Whoever writes in the name of domains that are not ours shall not fill our memory.
            made.remove(domain);
            return Ok(signers);
        }
        if made.len() >= DOMAINS_MAX {
            made.clear();
        }
        made.insert(domain.clone(), (keys, Arc::clone(&signers)));
        Ok(signers)
    }
}
