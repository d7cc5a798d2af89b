//! `[ldap-proxy]`: the directory door.
//!
//! Owns: `LdapProxy`. Called by: the ldap-proxy role, the supervisor (listeners).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::SocketAddress;
use crate::base::duration::Span;
use crate::base::size::Size;

/// The directory door: LDAP, on the embedded directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LdapProxy {
    /// LDAP, StartTLS offered on TCP. Roles on this host use the unix socket. (Restarts ldap-proxy.)
    pub listen: Vec<SocketAddress>,
    /// LDAP over TLS. (Restarts ldap-proxy.)
    pub listen_tls: Vec<SocketAddress>,
    /// LDAP for the roles of other hosts of the site: TLS from the first octet, in which both sides prove by `[site] secret` that they are of the site. SASL EXTERNAL then lets them read everything, as roles on this host. (Restarts ldap-proxy.)
    pub listen_site: Vec<SocketAddress>,
    /// Where the role gives a snapshot of the directory to be backed up (HTTP), to root and to backup-to-tape of this host. (Restarts ldap-proxy.)
    pub listen_backup: Vec<SocketAddress>,
    /// Largest request. (Restarts ldap-proxy.)
    #[schemars(extend("x-min" = "4 KiB"), extend("x-max" = "64 MiB"))]
    pub message_size_max: Size,
    /// Entries that one search returns, at most, to others than administrators. (Restarts ldap-proxy.)
    #[schemars(range(min = 1))]
    pub search_entries_max: u32,
    /// Failed logins of one account from one network within `failures-window`, after which it has no more tries for it. (Restarts ldap-proxy.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub account_failures_max: u32,
    /// Failed logins from one network (IPv4 address, IPv6 /64) to any accounts, after which only those get in from there who lately have; from an IPv4 /24 or IPv6 /48, four times as many. (Restarts ldap-proxy.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub network_failures_max: u32,
    /// Time in which all of these failures are forgotten, one by one. (Restarts ldap-proxy.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "7d"))]
    pub failures_window: Span,
    /// Connections at a time. (Restarts ldap-proxy.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: u32,
    /// Connections at a time from one client address. (Restarts ldap-proxy.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client_max: u32,
    /// Silence after which a connection is closed. (Restarts ldap-proxy.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "7d"))]
    pub idle_timeout: Span,
}

impl Default for LdapProxy {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddress::Unix("run/ldap.sock".into()), SocketAddress::Tcp(([127, 0, 0, 1], 389).into())],
            listen_tls: vec![SocketAddress::Tcp(([127, 0, 0, 1], 636).into())],
            listen_site: Vec::new(),
            listen_backup: vec![SocketAddress::Unix("run/ldap-proxy.backup.sock".into())],
            message_size_max: Size::mib(1),
            search_entries_max: 1000,
            account_failures_max: 20,
            network_failures_max: 100,
            failures_window: Span::hours(1),
            connections_max: 10_000,
            connections_per_client_max: 1000,
            idle_timeout: Span::mins(15),
        }
    }
}
