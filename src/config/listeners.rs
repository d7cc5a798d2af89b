//! What a host listens on, by role and service.
//!
//! Owns: `Listening`. Called by: the rules, the supervisor (binds it), `fife check`. Never: binds.

use super::address::SocketAddress;
use super::hosts::Role;
use super::schema::Section;
use super::{Effective, Tables};

/// One address on which a role offers a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening<'a> {
    /// Which role; `None`: the supervisor itself (metrics).
    pub role: Option<Role>,
    /// "smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "lmtp", "ldap", "ldaps", "ldap-site", "lmtp-site", "backup", "metrics".
    pub service: &'static str,
    /// TLS from the first byte.
    pub tls: bool,
    pub address: &'a SocketAddress,
    /// The table of the setting it comes from, and its key.
    pub table: &'static str,
    pub key: &'static str,
}

/// A setting that holds listeners: role, service, TLS, key, how to get at it.
type Row = (Option<Role>, &'static str, bool, &'static str, fn(&Tables) -> &[SocketAddress]);

/// Every setting that holds listeners.
const ROWS: [Row; 16] = [
    (Some(Role::LdapProxy), "ldap", false, "listen", |tables| &tables.ldap_proxy.listen),
    (Some(Role::LdapProxy), "ldaps", true, "listen-tls", |tables| &tables.ldap_proxy.listen_tls),
    (Some(Role::LdapProxy), "ldap-site", true, "listen-site", |tables| &tables.ldap_proxy.listen_site),
    (Some(Role::LdapProxy), "backup", false, "listen-backup", |tables| &tables.ldap_proxy.listen_backup),
    (Some(Role::PopImap), "imap", false, "listen-imap", |tables| &tables.pop_imap.listen_imap),
    (Some(Role::PopImap), "imaps", true, "listen-imaps", |tables| &tables.pop_imap.listen_imaps),
    (Some(Role::PopImap), "pop3", false, "listen-pop3", |tables| &tables.pop_imap.listen_pop3),
    (Some(Role::PopImap), "pop3s", true, "listen-pop3s", |tables| &tables.pop_imap.listen_pop3s),
    (Some(Role::PopImap), "lmtp", false, "listen-lmtp", |tables| &tables.pop_imap.listen_lmtp),
    (Some(Role::PopImap), "lmtp-site", true, "listen-lmtp-site", |tables| &tables.pop_imap.listen_lmtp_site),
    (Some(Role::PopImap), "backup", false, "listen-backup", |tables| &tables.pop_imap.listen_backup),
    (Some(Role::Smtp), "smtp", false, "listen", |tables| &tables.smtp.listen),
    (Some(Role::Smtp), "submission", false, "listen-submission", |tables| &tables.smtp.listen_submission),
    (Some(Role::Smtp), "submissions", true, "listen-submissions", |tables| &tables.smtp.listen_submissions),
    (Some(Role::Smtp), "backup", false, "listen-backup", |tables| &tables.smtp.listen_backup),
    (None, "metrics", false, "listen", |tables| &tables.metrics.listen),
];

impl Effective {
    /// What this role of the host listens on; `None` asks for what the supervisor itself does (metrics).
    pub fn listening(&self, role: Option<Role>) -> impl Iterator<Item = Listening<'_>> {
        let rows = ROWS.iter().filter(move |(of, ..)| *of == role);
        rows.flat_map(|(role, service, tls, key, addresses)| {
            let table = role.map_or("metrics", Role::name);
            let listening = move |address| Listening { role: *role, service, tls: *tls, address, table, key };
            addresses(&self.tables).iter().map(listening)
        })
    }

    /// Everything the host listens on.
    pub fn listening_all(&self) -> impl Iterator<Item = Listening<'_>> {
        let roles = self.roles.iter().copied().map(Some);
        roles.chain([None]).flat_map(|role| self.listening(role))
    }
}

impl Listening<'_> {
    /// The section of the setting it comes from.
    pub(crate) fn section(&self) -> Section {
        Section::Table(self.table)
    }

    /// Whether both cannot be bound at a time. `[::]` takes IPv4 too; port 0 is any free port.
    #[must_use]
    pub fn collides_with(&self, other: &Self) -> bool {
        match (self.address, other.address) {
            (SocketAddress::Unix(a), SocketAddress::Unix(b)) => a == b,
            (SocketAddress::Tcp(a), SocketAddress::Tcp(b)) => {
                let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
                let takes = |any: std::net::IpAddr, one: std::net::IpAddr| {
                    any.is_unspecified() && (any.is_ipv6() || one.is_ipv4())
                };
                a.port() != 0 && a.port() == b.port() && (x == y || takes(x, y) || takes(y, x))
            }
            (SocketAddress::Unix(_), SocketAddress::Tcp(_)) | (SocketAddress::Tcp(_), SocketAddress::Unix(_)) => false,
        }
    }
}
