//! The one TOML that describes a site: its tables, defaults, loading and checks.
//!
//! Owns: every setting there is. Called by: the supervisor and the commands, which load
//! it; roles, which import their own table's type. Never: starts or opens anything.
//!
//! Order of precedence, lowest first: built-in defaults, the file, `[hosts.NAME.TABLE]`
//! of the file for that host, `FIFE_…` environment variables.

pub mod address;
pub mod directory;
pub mod hosts;
pub mod ldap_proxy;
pub mod log;
pub mod metrics;
pub mod pop_imap;
pub mod secret;
pub mod site;
pub mod smtp;
pub mod tls;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// What the site is.
    pub site: site::Site,
    /// The machines of the site, by name.
    pub hosts: BTreeMap<String, hosts::Host>,
    #[serde(flatten)]
    pub tables: Tables,
}

/// The tables that hold for the site and can be overridden for a host by `[hosts.NAME.TABLE]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Tables {
    /// Where log lines go.
    pub log: log::Log,
    /// Prometheus text and health of the whole host.
    pub metrics: metrics::Metrics,
    /// The certificate that every service of the host shows.
    pub tls: tls::Tls,
    /// Whom the roles ask who a user is.
    pub directory: directory::Directory,
    /// Receiving mail on port 25, taking it from users for submission, delivering it.
    pub smtp: smtp::Smtp,
    /// Mailboxes: LMTP in; IMAP and POP3 out.
    pub pop_imap: pop_imap::PopImap,
    /// The directory door: LDAP.
    pub ldap_proxy: ldap_proxy::LdapProxy,
}

/// What one host runs, every override applied: what the supervisor works from and each role is handed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effective {
    /// The host's name in `[hosts]`.
    pub host: String,
    /// Its roles, each once, in the order in which they are started.
    pub roles: Vec<hosts::Role>,
    pub site: site::Site,
    pub tables: Tables,
}
