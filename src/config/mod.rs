//! The one TOML that describes a site: its tables, defaults, loading and checks.
//!
//! Owns: every setting there is. Called by: the supervisor and the commands, which load
//! it; roles, which import their own table's type. Never: starts or binds anything.
//!
//! Order of precedence, lowest first: built-in defaults, the file, `[hosts.NAME.TABLE]`
//! of the file for that host, `FIFE_TABLE__KEY` environment variables.
//!
//! The way of a file: `document` (text to values with their places), `walk` (each key
//! and value by itself), `layers` (one `Effective` a host), `rules` (hosts and roles
//! against each other); what is wrong on the way is gathered as `fault::Faults`.
//! `load` goes this way; `material` reads the files that the result names.

// tables, one file each
pub mod backup_to_tape;
pub mod directory;
pub mod dns;
pub mod hosts;
pub mod ldap_proxy;
pub mod log;
pub mod metrics;
pub mod mounts;
pub mod network;
pub mod pop_imap;
pub mod site;
pub mod smtp;
pub mod smtp_authentication;
pub mod smtp_outbound;
pub mod tls;
pub mod update;
// types that settings are made of
pub mod address;
pub mod secret;
// from a file to what each host runs
mod document;
pub mod environment;
pub mod fault;
pub mod identity;
mod layers;
pub mod listeners;
pub mod load;
mod mask;
pub mod material;
mod rules;
pub mod schema;
mod walk;

#[cfg_attr(not(fuzzing), cfg(test))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fault::{Fault, Faults};
pub use load::{Loaded, load};

/// The whole file. What is loaded is an `Effective` for each host; this type is what the schema and the
/// reference are generated from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
pub struct Config {
    /// What the site is.
    pub site: site::Site,
    /// The machines of the site, by name. `[hosts.NAME.TABLE]` overrides settings of `[TABLE]` for one of them.
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
    /// The certificate that every service of the host shows. With none given, a self-signed one is made and kept in the state directory.
    pub tls: tls::Tls,
    /// Whom the roles ask who a user is: an LDAP server; fife's own ldap-proxy unless told otherwise.
    pub directory: directory::Directory,
    /// Who answers for the names of other servers: MX records, addresses, keys and policies of mail domains.
    pub dns: dns::Dns,
    /// Receiving mail on port 25, taking it from users for submission, delivering it.
    pub smtp: smtp::Smtp,
    /// Signing what users send (DKIM); checking what other servers bring (SPF, DKIM, DMARC).
    pub smtp_authentication: smtp_authentication::SmtpAuthentication,
    /// Mail that leaves for other sites: by which way, how fast, how safely.
    pub smtp_outbound: smtp_outbound::SmtpOutbound,
    /// Mailboxes: LMTP in; IMAP and POP3 out.
    pub pop_imap: pop_imap::PopImap,
    /// The directory door: LDAP, on the embedded directory.
    pub ldap_proxy: ldap_proxy::LdapProxy,
    /// New versions of the system: `fife update` on a machine that booted from fife's image. Nothing is ever updated by itself.
    pub update: update::Update,
    /// Copies of the site on tape, or in a directory of volumes: `fife backup`.
    pub backup_to_tape: backup_to_tape::BackupToTape,
}

/// What one host runs, every override applied: what the supervisor works from and each role is handed.
/// An inline secret in it is lost when it is serialized; `material` carries the secrets themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effective {
    /// The host's name in `[hosts]`.
    pub host: String,
    /// Its roles, each once, in the order in which they are started.
    pub roles: Vec<hosts::Role>,
    pub site: site::Site,
    pub tables: Tables,
}
