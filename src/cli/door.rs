//! The way of commands to the running site's own directory.
//!
//! Owns: finding its socket, waiting for answers, what is said when there is none. Called by: `user`, `domain`, `alias`.
//! Never: goes to a server that `[directory]` names: what commands change is the embedded directory.

use super::{Exit, Global, complain};
use crate::config::address::SocketAddress;
use crate::config::directory::Directory as Settings;
use crate::config::dns::Dns;
use crate::directory::{AdminError, Directory, DirectoryError};
use crate::net::handover::base_dn;

/// The directory of the site that the command line names.
pub(super) struct Door {
    directory: Directory,
    dns: Dns,
}

impl Door {
    /// Finds it; says why there is none.
    pub(super) fn find(global: &Global) -> Result<Self, Exit> {
        let loaded = global.load()?;
        let host = global.this_host(&loaded)?;
        let state_dir = global.state_dir()?;
        let Some(effective) = loaded.effective(&host) else {
            complain(format_args!("host {host} is not in the configuration"));
            return Err(Exit::Usage);
        };
        let listen = &effective.tables.ldap_proxy.listen;
        let Some(socket) = listen.iter().find(|address| matches!(address, SocketAddress::Unix(_))) else {
            complain("[ldap-proxy] listen has no unix socket over which the directory could be changed");
            return Err(Exit::Usage);
        };
        let settings = Settings {
            servers: vec![socket.clone()],
            bind_dn: String::new(),
            bind_password: None,
            ..effective.tables.directory.clone()
        };
        let dns = effective.tables.dns.clone();
        Ok(Self { dns, directory: Directory::connect(&settings, &base_dn(effective), &state_dir, None) })
    }

    /// Whom the site asks for names.
    pub(super) fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Asks the directory something.
    pub(super) fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Directory) -> Result<T, AdminError>,
    ) -> Result<T, AdminError> {
        match super::block_on(question(&self.directory)) {
            Ok(answer) => answer,
            Err(error) => Err(DirectoryError::Unreachable { reason: error.to_string() }.into()),
        }
    }

    /// Changes the directory; says what went wrong.
    pub(super) fn change(&self, change: impl AsyncFnOnce(&Directory) -> Result<(), AdminError>) -> Exit {
        show(self.ask(change), |()| ())
    }
}

/// Shows an answer, or says why there is none.
pub(super) fn show<T>(answer: Result<T, AdminError>, print: impl FnOnce(T)) -> Exit {
    match answer {
        Ok(answer) => {
            print(answer);
            Exit::Done
        }
        Err(error) => {
            complain(&error);
            match error {
                AdminError::Directory(DirectoryError::Unreachable { .. } | DirectoryError::Timeout(_)) => {
                    Exit::Unreachable
                }
                AdminError::Directory(_)
                | AdminError::Exists(_)
                | AdminError::NotFound(_)
                | AdminError::Rejected { .. }
                | AdminError::Keep(_)
                | AdminError::Keys(_) => Exit::Failed,
            }
        }
    }
}
