//! `[hosts.NAME]`: a machine, how it knows itself, its roles, its overrides.
//!
//! Owns: `Host`, `Match`, `Role`. Called by: loading, the supervisor, commands.

use std::fmt;

use figment::value::Dict;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One machine of the site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Host {
    /// How the machine recognises itself; all that is given must fit. `--host` and the kernel argument `fife.host=` override it.
    #[serde(rename = "match", skip_serializing_if = "Match::is_empty")]
    pub match_: Match,
    /// What the machine runs. (Restarts the roles that came or went.)
    pub roles: Vec<Role>,
    /// Addresses at which the other hosts reach it (name or IP address).
    pub addresses: Vec<String>,
    /// Overrides of `[log]` for this host.
    #[schemars(with = "Option<super::log::Log>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Dict>,
    /// Overrides of `[metrics]` for this host.
    #[schemars(with = "Option<super::metrics::Metrics>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Dict>,
    /// Overrides of `[tls]` for this host.
    #[schemars(with = "Option<super::tls::Tls>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Dict>,
    /// Overrides of `[directory]` for this host.
    #[schemars(with = "Option<super::directory::Directory>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Dict>,
    /// Overrides of `[smtp]` for this host.
    #[schemars(with = "Option<super::smtp::Smtp>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp: Option<Dict>,
    /// Overrides of `[pop-imap]` for this host.
    #[schemars(with = "Option<super::pop_imap::PopImap>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pop_imap: Option<Dict>,
    /// Overrides of `[ldap-proxy]` for this host.
    #[schemars(with = "Option<super::ldap_proxy::LdapProxy>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ldap_proxy: Option<Dict>,
}

/// How a machine recognises itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Match {
    /// Hardware address of one of its network interfaces, as "52:54:00:00:00:01".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// System serial number as the firmware tells it (DMI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Host name as the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

impl Match {
    /// Nothing given: recognises no machine.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mac.is_none() && self.serial.is_none() && self.hostname.is_none()
    }
}

/// What a host can be given to do. In the order in which roles are started: each asks only those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The directory door.
    LdapProxy,
    /// Mailboxes.
    PopImap,
    /// Receiving, submission, queue.
    Smtp,
}

impl Role {
    /// Every role, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::LdapProxy, Self::PopImap, Self::Smtp];

    /// The name in the TOML, in `fife role NAME`, in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LdapProxy => "ldap-proxy",
            Self::PopImap => "pop-imap",
            Self::Smtp => "smtp",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
