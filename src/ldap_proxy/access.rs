//! Who a connection is, and what that allows.
//!
//! Owns: `Who`, `Rights`, the rules of access. Called by: `session` (who), `engine` (rights). Never: asks the store;
//! whether a user administers is told to it.
//!
//! - root, or whoever runs fife, over a unix socket: everything, but reading password hashes (nobody does);
//! - fife's roles over a unix socket: reading everything, secrets (private keys) only smtp, which signs with them;
//! - another host of the site, known by its certificate: reading everything, and saying for whom it asks;
//! - an administrator (`fifeRole: administrator`): everything;
//! - a service (`fifeRole: service`): reading everything, and saying for whom it asks;
//! - a user: reading his own entry, changing his own password;
//! - nobody in particular: the root DSE and the schema.

use super::change::{Change, Modification};
use super::dn::Dn;
use super::entry::Entry;
use super::schema;
use crate::config::hosts::Role;
use crate::directory::vocabulary as names;

/// Whom the connection speaks for (RFC 4513 section 4, authorization identity).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Who {
    #[default]
    Anonymous,
    /// root or whoever runs fife, known by the socket.
    System { uid: u32 },
    /// One of fife's roles, known by the socket.
    Role { uid: u32, role: Role },
    /// Another host of the site, known by its certificate.
    Host,
    /// Somebody who has bound as an entry.
    User { uuid: String, dn: Dn },
}

impl Who {
    /// The authorization identity as WhoAmI tells it (RFC 4532, RFC 4513 section 5.2.1.8); empty for anonymous.
    pub(super) fn authorization_identity(&self) -> String {
        match self.name() {
            name if name.is_empty() => name,
            name => format!("dn:{name}"),
        }
    }

    /// The name that stands in creatorsName and modifiersName.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Anonymous => String::new(),
            Self::System { uid } | Self::Role { uid, .. } => format!("uid={uid},cn=peercred,cn=external,cn=auth"),
            Self::Host => "cn=host,cn=site,cn=external,cn=auth".to_owned(),
            Self::User { dn, .. } => dn.to_string(),
        }
    }

    /// What it may do; `office` is what a user's entry makes of him now.
    pub(super) fn rights(&self, office: Office) -> Rights {
        match self {
            Self::Anonymous => Rights { reads: Reads::Nothing, writes: Writes::Nothing },
            Self::System { .. } => Rights { reads: Reads::Everything, writes: Writes::Everything },
            Self::Role { role: Role::Smtp, .. } | Self::Host => {
                Rights { reads: Reads::Everything, writes: Writes::Nothing }
            }
            Self::Role { .. } => Rights { reads: Reads::AllButSecrets, writes: Writes::Nothing },
            Self::User { uuid, dn } => {
                let own_password = || Writes::OwnPassword { dn: dn.clone() };
                match office {
                    Office::Administrator => Rights { reads: Reads::Everything, writes: Writes::Everything },
                    Office::Service => Rights { reads: Reads::Everything, writes: own_password() },
                    Office::None => Rights { reads: Reads::Own { uuid: uuid.clone() }, writes: own_password() },
                }
            }
        }
    }
}

/// What the `fifeRole` of an entry makes of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Office {
    #[default]
    None,
    /// A program of the site.
    Service,
    Administrator,
}

impl Office {
    pub(super) fn of(entry: &Entry) -> Self {
        if entry.has(names::FIFE_ROLE, names::ADMINISTRATOR.as_bytes()) {
            Self::Administrator
        } else if entry.has(names::FIFE_ROLE, names::SERVICE.as_bytes()) {
            Self::Service
        } else {
            Self::None
        }
    }

    /// Whether it is believed for whom it asks.
    pub(super) fn vouches(self) -> bool {
        match self {
            Self::None => false,
            Self::Service | Self::Administrator => true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) reads: Reads,
    pub(super) writes: Writes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reads {
    Nothing,
    Own {
        uuid: String,
    },
    /// Every entry, without the attributes that are secret.
    AllButSecrets,
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Writes {
    Nothing,
    OwnPassword { dn: Dn },
    Everything,
}

impl Rights {
    /// Whether the change may be made.
    pub(super) fn may(&self, change: &Change) -> bool {
        match (&self.writes, change) {
            (Writes::Everything, _) => true,
            (Writes::OwnPassword { dn: own }, Change::Modify { dn, modifications }) => {
                dn.key() == own.key() && !modifications.is_empty() && modifications.iter().all(is_password)
            }
            (Writes::Nothing | Writes::OwnPassword { .. }, _) => false,
        }
    }

    /// Whether this entry's password may be compared with.
    pub(super) fn may_compare_password(&self, dn: &Dn) -> bool {
        match &self.writes {
            Writes::Everything => true,
            Writes::OwnPassword { dn: own } => own.key() == dn.key(),
            Writes::Nothing => false,
        }
    }

    /// Whether a hash may be written in place of a password: a user could choose a weak one.
    pub(super) fn may_bring_hashes(&self) -> bool {
        self.writes == Writes::Everything
    }
}

fn is_password(modification: &Modification) -> bool {
    schema::attribute(&modification.name).is_some_and(|attribute| attribute.syntax == schema::Syntax::Password)
}
