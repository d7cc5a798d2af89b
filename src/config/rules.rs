//! Settings against each other: what a role needs, what two hosts or two listeners cannot share.
//!
//! Owns: faults that no single value has. Called by: `load`. Never: speaks about a setting that `walk` refused already.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::address::SocketAddress;
use super::directory::Tls;
use super::document::{Content, Node};
use super::fault::{Fault, Place};
use super::hosts::{Host, HostAddress, Role};
use super::layers::{Layer, Layers};
use super::listeners::Listening;
use super::schema::Section;
use super::walk::Walk;
use super::{Effective, Tables};

mod machine;

const SMTP: Section = Section::Table("smtp");
const POP_IMAP: Section = Section::Table("pop-imap");
const OUTBOUND: Section = Section::Table("smtp-outbound");
const DIRECTORY: Section = Section::Table("directory");
const LDAP_PROXY: Section = Section::Table("ldap-proxy");
const TLS: Section = Section::Table("tls");

/// The site as far as it could be read.
pub(crate) struct Site<'a> {
    pub(crate) root: &'a Node,
    pub(crate) walk: &'a Walk,
    pub(crate) layers: &'a Layers,
    pub(crate) hosts: &'a BTreeMap<String, Host>,
    pub(crate) effective: &'a BTreeMap<String, Effective>,
}

impl Site<'_> {
    /// Every fault there is.
    pub(crate) fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.required(&mut faults);
        self.secret(&mut faults);
        self.matches(&mut faults);
        self.addresses(&mut faults);
        self.machines(&mut faults);
        for effective in self.effective.values() {
            self.listeners(effective, &mut faults);
            self.certificate(effective, &mut faults);
            if effective.roles.contains(&Role::Smtp) {
                self.smtp(effective, &mut faults);
                self.routes(effective, &mut faults);
            }
            if effective.roles.contains(&Role::LdapProxy) {
                self.ldap_proxy(effective, &mut faults);
            }
            if effective.roles.iter().any(|role| matches!(role, Role::Smtp | Role::PopImap)) {
                self.directory(effective, &mut faults);
            }
        }
        faults
    }

    /// Whether the walk refused this setting on this host, so that nothing can be said about it.
    fn is_faulty(&self, host: &str, section: &Section, key: &'static str) -> bool {
        [None, Some(host.to_owned())].into_iter().any(|host| self.walk.faulty.contains(&(host, section.clone(), key)))
    }

    /// Where the setting stands that holds on this host; the host's table for a default.
    fn place(&self, host: &str, section: &Section, key: &'static str) -> Place {
        match self.layers.layer(host, section, key) {
            Layer::Default => self.host_place(host),
            Layer::File(place) | Layer::Host(place) => Place::File(place.value.clone()),
            Layer::Environment(name) => Place::Environment(name.to_owned()),
        }
    }

    fn host_place(&self, host: &str) -> Place {
        let node = self.root.get("hosts").and_then(|hosts| hosts.get(host));
        Place::File(node.map_or(0..0, |node| node.key.clone()))
    }

    /// The key of a host's own setting, or its table.
    fn host_setting(&self, host: &str, key: &str) -> Place {
        let node = self.root.get("hosts").and_then(|hosts| hosts.get(host)?.get(key));
        node.map_or_else(|| self.host_place(host), |node| Place::File(node.value.clone()))
    }

    fn required(&self, faults: &mut Vec<Fault>) {
        let site = self.root.get("site");
        let place = Place::File(site.map_or(0..0, |node| node.key.clone()));
        for setting in Section::Site.settings().iter().filter(|setting| setting.required) {
            let is_set = self.layers.layer("", &Section::Site, setting.key) != Layer::Default;
            if !is_set && !self.is_faulty("", &Section::Site, setting.key) {
                let fault = Fault::new(place.clone(), format!("`{}` is missing in [site]", setting.key));
                let example = setting.example.unwrap_or_default();
                faults.push(fault.expected(format!("{} = \"{example}\" or the like", setting.key)));
            }
        }
        let hosts = self.root.get("hosts");
        if hosts.is_none_or(|node| matches!(&node.content, Content::Table(entries) if entries.is_empty())) {
            let place = Place::File(hosts.map_or(0..0, |node| node.key.clone()));
            let fault = Fault::new(place, "the site has no hosts");
            faults.push(fault.expected(format!("[hosts.NAME] with roles = [{}] or some of them", role_names())));
        }
        for (name, host) in self.hosts {
            let is_table = self.root.get("hosts").and_then(|hosts| hosts.get(name)).is_some_and(Node::is_table);
            if is_table && host.roles.is_empty() && !self.is_faulty(name, &Section::Host, "roles") {
                let fault = Fault::new(self.host_setting(name, "roles"), format!("host `{name}` has no roles"));
                faults.push(fault.expected(format!("roles = [{}] or some of them", role_names())));
            }
        }
    }

    fn secret(&self, faults: &mut Vec<Fault>) {
        let is_set = self.effective.values().next().is_none_or(|effective| effective.site.secret.is_some());
        for effective in self.effective.values().filter(|_| !is_set && self.hosts.len() == 1) {
            let Tables { smtp, pop_imap, ldap_proxy, directory, .. } = &effective.tables;
            let seams = [
                (SMTP, "lmtp-site", smtp.lmtp_site),
                (POP_IMAP, "listen-lmtp-site", !pop_imap.listen_lmtp_site.is_empty()),
                (LDAP_PROXY, "listen-site", !ldap_proxy.listen_site.is_empty()),
                (DIRECTORY, "tls", directory.tls == Tls::Site),
            ];
            for (section, key, _) in seams.into_iter().filter(|(.., is_used)| *is_used) {
                let place = self.place(&effective.host, &section, key);
                faults.push(Fault::new(place, format!("`{key}` without `secret` in [site]: nobody is of the site")));
            }
        }
        if self.hosts.len() > 1 && !is_set && !self.is_faulty("", &Section::Site, "secret") {
            let place = Place::File(self.root.get("site").map_or(0..0, |node| node.key.clone()));
            let fault = Fault::new(place, "`secret` is missing in [site]: the site has more than one host");
            faults.push(fault.expected("secret = { file = \"site.secret\" }, the same text on every host"));
        }
    }

    fn matches(&self, faults: &mut Vec<Fault>) {
        for (a, b) in pairs(self.hosts.iter()) {
            if a.1.match_.is_ambiguous_with(&b.1.match_) {
                let message = format!("hosts `{}` and `{}` match the same machine", a.0, b.0);
                faults.push(Fault::new(self.host_setting(b.0, "match"), message));
            }
        }
    }

    /// Two hosts with one address: told by `addresses`, or by an address that both listen on.
    fn addresses(&self, faults: &mut Vec<Fault>) {
        let own = |host: &Host| host.addresses.clone();
        for (a, b) in pairs(self.hosts.iter()) {
            for address in own(a.1).iter().filter(|address| b.1.addresses.contains(address)) {
                let message = format!("hosts `{}` and `{}` have one address: {address}", a.0, b.0);
                faults.push(Fault::new(self.host_setting(b.0, "addresses"), message));
            }
        }
        for (a, b) in pairs(self.effective.values()) {
            let ips: Vec<IpAddr> = a.listening_all().filter_map(|listening| own_ip(listening.address)).collect();
            for listening in b.listening_all() {
                let Some(ip) = own_ip(listening.address).filter(|ip| ips.contains(ip)) else { continue };
                let place = self.place(&b.host, &listening.section(), listening.key);
                let message = format!("hosts `{}` and `{}` listen on one address: {ip}", a.host, b.host);
                let help = format!("set `{}` in [hosts.NAME.{}] for each host", listening.key, listening.table);
                faults.push(Fault::new(place, message).help(help));
            }
            for host in [a, b] {
                self.foreign_address(host, if host.host == a.host { b } else { a }, faults);
            }
        }
    }

    /// A host that listens on what another one says is its own address.
    fn foreign_address(&self, effective: &Effective, other: &Effective, faults: &mut Vec<Fault>) {
        let Some(addresses) = self.hosts.get(&other.host).map(|host| &host.addresses) else { return };
        for listening in effective.listening_all() {
            let Some(ip) = own_ip(listening.address).filter(|ip| addresses.contains(&HostAddress::Ip(*ip))) else {
                continue;
            };
            let message = format!("host `{}` listens on the address of host `{}`: {ip}", effective.host, other.host);
            faults.push(Fault::new(self.place(&effective.host, &listening.section(), listening.key), message));
        }
    }

    fn listeners(&self, effective: &Effective, faults: &mut Vec<Fault>) {
        let all: Vec<Listening<'_>> = effective.listening_all().collect();
        for (a, b) in pairs(all.iter()) {
            if a.collides_with(b) {
                let (first, second) = (format!("[{}] {}", a.table, a.key), format!("[{}] {}", b.table, b.key));
                let place = self.place(&effective.host, &b.section(), b.key);
                let message = format!("two listeners of host `{}` on one address", effective.host);
                let clash = if a.address == b.address {
                    a.address.to_string()
                } else {
                    format!("{} and {}", a.address, b.address)
                };
                faults.push(Fault::new(place, format!("{message}: {clash}, from {first} and {second}")));
            }
        }
        for role in &effective.roles {
            let faulty = self
                .walk
                .faulty
                .iter()
                .any(|(_, section, key)| section.name() == role.name() && key.starts_with("listen"));
            // What gives backups alone is of no use to anybody.
            if effective.listening(Some(*role)).all(|listening| listening.service == "backup") && !faulty {
                let key = if *role == Role::PopImap { "listen-imap" } else { "listen" };
                let section = Section::from_name(role.name()).unwrap_or(SMTP);
                let place = self.place(&effective.host, &section, key);
                faults.push(Fault::new(
                    place,
                    format!("role `{role}` of host `{}` has nothing to listen on", effective.host),
                ));
            }
        }
    }

    fn certificate(&self, effective: &Effective, faults: &mut Vec<Fault>) {
        let tls = &effective.tables.tls;
        let (given, missing) = match (&tls.certificate, &tls.key) {
            (Some(_), None) => ("certificate", "key"),
            (None, Some(_)) => ("key", "certificate"),
            (Some(_), Some(_)) | (None, None) => return,
        };
        if !self.is_faulty(&effective.host, &TLS, missing) {
            let place = self.place(&effective.host, &TLS, given);
            faults.push(
                Fault::new(place, format!("`{given}` without `{missing}` in [tls]")).expected("both, or neither"),
            );
        }
    }

    /// Routes that contradict themselves.
    fn routes(&self, effective: &Effective, faults: &mut Vec<Fault>) {
        if self.is_faulty(&effective.host, &OUTBOUND, "routes") {
            return;
        }
        for (at, route) in effective.tables.smtp_outbound.routes.iter().enumerate() {
            let Some(what) = route.contradiction() else { continue };
            let place = self.place(&effective.host, &OUTBOUND, "routes");
            faults.push(Fault::new(place, format!("route {} of host `{}`: {what}", at + 1, effective.host)));
        }
    }

    fn smtp(&self, effective: &Effective, faults: &mut Vec<Fault>) {
        let (host, smtp, pop_imap) = (&effective.host, &effective.tables.smtp, &effective.tables.pop_imap);
        let roles_known = !self.is_faulty(host, &Section::Host, "roles");
        let has_pop_imap = effective.roles.contains(&Role::PopImap);
        let place = self.place(host, &SMTP, "lmtp");
        if is_own_socket(&smtp.lmtp) && roles_known && !self.is_faulty(host, &SMTP, "lmtp") {
            if !has_pop_imap {
                let message =
                    format!("host `{host}` delivers to its own pop-imap at {}, but does not have that role", smtp.lmtp);
                let help = "give the host the role `pop-imap`, or set `lmtp` to the LMTP address of another host";
                faults.push(Fault::new(place, message).help(help));
            } else if !pop_imap.listen_lmtp.contains(&smtp.lmtp) && !self.is_faulty(host, &POP_IMAP, "listen-lmtp") {
                let message = format!("host `{host}` delivers to {}, where its pop-imap does not listen", smtp.lmtp);
                faults.push(Fault::new(place, message).expected("one of `listen-lmtp` in [pop-imap]"));
            }
        }
        let sizes = (smtp.message_size_max, pop_imap.message_size_max);
        if has_pop_imap && pop_imap.listen_lmtp.contains(&smtp.lmtp) && sizes.0 > sizes.1 {
            let is_default = self.layers.layer(host, &SMTP, "message-size-max") == Layer::Default;
            let place = self.place(host, if is_default { &POP_IMAP } else { &SMTP }, "message-size-max");
            let message = format!("host `{host}` accepts messages of {} that its pop-imap refuses", sizes.0);
            faults.push(
                Fault::new(place, message)
                    .expected(format!("`message-size-max` of [smtp] at most that of [pop-imap], {}", sizes.1)),
            );
        }
    }

    /// Over the unix socket come the first administrator, `fife user` and whatever else changes the directory from this host.
    fn ldap_proxy(&self, effective: &Effective, faults: &mut Vec<Fault>) {
        let listen = &effective.tables.ldap_proxy.listen;
        let has_socket = listen.iter().any(|address| matches!(address, SocketAddress::Unix(_)));
        if !has_socket && !self.is_faulty(&effective.host, &LDAP_PROXY, "listen") {
            let place = self.place(&effective.host, &LDAP_PROXY, "listen");
            let message =
                "ldap-proxy has no unix socket, over which its first administrator is made and `fife user` comes";
            faults.push(Fault::new(place, message).expected("\"unix:run/ldap.sock\" among `listen` in [ldap-proxy]"));
        }
    }

    fn directory(&self, effective: &Effective, faults: &mut Vec<Fault>) {
        let (host, directory) = (&effective.host, &effective.tables.directory);
        let place = |key| self.place(host, &DIRECTORY, key);
        if directory.servers.is_empty() && !self.is_faulty(host, &DIRECTORY, "servers") {
            let fault = Fault::new(place("servers"), format!("host `{host}` has no directory to ask who a user is"));
            faults.push(fault.expected("one or more LDAP servers"));
        }
        let roles_known = !self.is_faulty(host, &Section::Host, "roles");
        let has_door = effective.roles.contains(&Role::LdapProxy);
        for server in directory.servers.iter().filter(|server| is_own_socket(server) && roles_known) {
            if !has_door {
                let message = format!("host `{host}` asks its own ldap-proxy at {server}, but does not have that role");
                let help = "give the host the role `ldap-proxy`, or set `servers` in [directory]";
                faults.push(Fault::new(place("servers"), message).help(help));
            } else if !effective.tables.ldap_proxy.listen.contains(server) {
                let message = format!("host `{host}` asks {server}, where its ldap-proxy does not listen");
                faults.push(Fault::new(place("servers"), message).expected("one of `listen` in [ldap-proxy]"));
            }
        }
        if matches!(directory.tls, Tls::StartTls | Tls::Tls)
            && directory.tls_ca.is_none()
            && !self.is_faulty(host, &DIRECTORY, "tls-ca")
        {
            let fault = Fault::new(place("tls"), "`tls` without `tls-ca` in [directory]: nobody would be trusted");
            faults.push(fault.expected("tls-ca = { file = \"ca.pem\" }"));
        }
        let (has_dn, has_password) = (!directory.bind_dn.is_empty(), directory.bind_password.is_some());
        if has_dn && !has_password && !self.is_faulty(host, &DIRECTORY, "bind-password") {
            faults.push(Fault::new(place("bind-dn"), "`bind-dn` without `bind-password` in [directory]"));
        }
        if has_password && !has_dn && !self.is_faulty(host, &DIRECTORY, "bind-dn") {
            faults.push(Fault::new(place("bind-password"), "`bind-password` without `bind-dn` in [directory]"));
        }
    }
}

/// A unix socket in the state directory: one of fife's own.
fn is_own_socket(address: &SocketAddress) -> bool {
    matches!(address, SocketAddress::Unix(path) if path.is_relative())
}

/// The IP address of a listener that only one machine can have.
fn own_ip(address: &SocketAddress) -> Option<IpAddr> {
    match address {
        SocketAddress::Tcp(address) => {
            Some(address.ip().to_canonical()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
        }
        SocketAddress::Unix(_) => None,
    }
}

fn role_names() -> String {
    Role::ALL.iter().map(|role| format!("\"{role}\"")).collect::<Vec<_>>().join(", ")
}

/// Each two of them once.
fn pairs<T: Clone>(all: impl Iterator<Item = T> + Clone) -> impl Iterator<Item = (T, T)> {
    all.clone().enumerate().flat_map(move |(index, a)| all.clone().skip(index + 1).map(move |b| (a.clone(), b)))
}
