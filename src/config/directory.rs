//! `[directory]`: whom the roles ask who a user is.
//!
//! Owns: `Directory`. Called by: `directory::client`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::SocketAddress;
use super::secret::Secret;
use crate::base::duration::Span;

/// Whom the roles ask who a user is: an LDAP server; fife's own ldap-proxy unless told otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Directory {
    /// LDAP servers, asked in this order. (Restarts smtp and pop-imap.)
    pub servers: Vec<SocketAddress>,
    /// Where searches start. Empty: `o=` and the site's name. (Restarts every role.)
    pub base: String,
    /// Whom to bind as. Empty: SASL EXTERNAL over a unix socket and between hosts of the site, else anonymous. (Restarts smtp and pop-imap.)
    pub bind_dn: String,
    /// Password for `bind-dn`. (Restarts smtp and pop-imap.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_password: Option<Secret>,
    /// TLS with servers on TCP: none, by StartTLS, from the first octet (ldaps), or as hosts of one site, by `[site] secret` (their `listen-site`). (Restarts smtp and pop-imap.)
    pub tls: Tls,
    /// Certificates in PEM from one of which the servers' must come; needed for StartTLS and ldaps. (Restarts smtp and pop-imap.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<Secret>,
    /// Name that the servers' certificate must have. Empty: the address in `servers`. (Restarts smtp and pop-imap.)
    pub tls_name: String,
    /// How long an answer, also "no such user", is remembered. (Restarts smtp and pop-imap.)
    #[schemars(extend("x-max" = "1d"))]
    pub cache_lifetime: Span,
    /// How long a server may take to answer. (Restarts smtp and pop-imap.)
    #[schemars(extend("x-min" = "100ms"), extend("x-max" = "5m"))]
    pub timeout: Span,
}

/// How TCP servers are spoken with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// In the clear, passwords too.
    #[default]
    None,
    /// By the StartTLS operation (RFC 4511 section 4.14).
    StartTls,
    /// From the first octet, as on port 636.
    Tls,
    /// From the first octet, with certificates of the site on both sides.
    Site,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddress::Unix("run/ldap.sock".into())],
            base: String::new(),
            bind_dn: String::new(),
            bind_password: None,
            tls: Tls::None,
            tls_ca: None,
            tls_name: String::new(),
            cache_lifetime: Span::secs(5),
            timeout: Span::secs(10),
        }
    }
}
