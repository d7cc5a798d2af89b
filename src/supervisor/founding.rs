//! The first administrator of a new site.
//!
//! Owns: `state/first-admin.txt`, when the directory is asked for its first entries. Called by: the supervisor, once
//! ldap-proxy serves. Never: logs the password.
//!
//! The answers that are read here come over the unix socket of this host's own ldap-proxy, from nobody else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::plan::Plan;
use crate::base::address::{Address, Domain};
use crate::base::{clock, durable};
use crate::config::address::SocketAddress;
use crate::config::directory::Directory as Settings;
use crate::config::hosts::Role;
use crate::config::secret::SecretText;
use crate::directory::{Directory, admin, bootstrap};
use crate::net::handover::base_dn;

/// Wait before the directory is asked again.
const PAUSE: Duration = Duration::from_secs(1);
const FILE_NAME: &str = "first-admin.txt";

/// The administrator that was made.
#[derive(Debug, Clone)]
pub struct FirstAdministrator {
    pub address: Address,
    pub password: SecretText,
    /// Where both stand, readable to the user that fife runs as.
    pub file: PathBuf,
}

/// What founding needs to know; none when this host has no embedded directory to found.
#[derive(Debug, Clone)]
pub(super) struct Founding {
    settings: Settings,
    base_dn: String,
    domain: Domain,
    state_dir: PathBuf,
}

impl Founding {
    pub(super) fn of(plan: &Plan, state_dir: &Path) -> Option<Self> {
        let door = plan.roles.get(&Role::LdapProxy)?;
        // Its own door, as itself: not the server that `[directory]` may name.
        let own = door.listeners.iter().find(|listener| matches!(listener.address, SocketAddress::Unix(_)))?;
        let settings = Settings {
            servers: vec![own.address.clone()],
            bind_dn: String::new(),
            bind_password: None,
            ..plan.effective.tables.directory.clone()
        };
        Some(Self {
            settings,
            base_dn: base_dn(&plan.effective),
            domain: plan.effective.site.domain.clone()?,
            state_dir: state_dir.to_owned(),
        })
    }

    /// Makes the site's first domain and administrator if the directory has none; asks until it gets an answer.
    pub(super) async fn found(self) -> Option<FirstAdministrator> {
        let file = self.state_dir.join(FILE_NAME);
        let directory = Directory::connect(&self.settings, &self.base_dn, &self.state_dir, None);
        // The same in every attempt: one whose answer did not come in time may have been carried out.
        let password = admin::generate_password();
        let mut begun = None;
        loop {
            let keep = |address: &Address| {
                begun = Some(address.clone());
                keep(&file, address, &password)
            };
            match bootstrap(&directory, &self.domain, &password, keep).await {
                Ok(made) => {
                    // Computing them takes a moment that nobody needs to wait for.
                    tokio::spawn(make_keys(directory, self.domain));
                    return made.or(begun).map(|address| FirstAdministrator { address, password, file });
                }
                Err(error) => {
                    warn!(%error, "the directory cannot be given its first administrator yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Gives the first domain the DKIM keys that other domains get when they are made.
async fn make_keys(directory: Directory, domain: Domain) {
    if let Err(error) = admin::ensure_dkim_keys(&directory, &domain, clock::unix_secs()).await {
        warn!(%domain, %error, "no DKIM keys could be made; `fife dkim rotate` tries again");
    }
}

fn keep(file: &Path, address: &Address, password: &SecretText) -> io::Result<()> {
    let text = format!("address: {address}\npassword: {}\n", password.reveal());
    durable::replace(file, text.as_bytes(), 0o600)
}
