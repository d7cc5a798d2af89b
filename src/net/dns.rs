//! Asking DNS: one resolver a process, with a cache, made from settings.
//!
//! Owns: how the resolver is made. Called by: the smtp role; the supervisor, for the servers that the machine has. Never: reads the system's files beyond /etc/resolv.conf, which the sandbox
//! leaves readable; appends search domains (a mail domain is complete as it stands, RFC 5321 section 2.3.5).
//! Spec: RFC 1035, RFC 2181; resolv.conf(5), of which only `nameserver` is taken.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tracing::warn;

use crate::config::dns::{Dns, DnsServer};

/// Where a machine's resolver is named.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Answers remembered, at most; each for as long as it says.
const ANSWERS_REMEMBERED_MAX: u64 = 20_000;
/// Questions under way to one server, at most: hickory refuses more as "busy".
const QUESTIONS_MAX: usize = 4096;

/// The resolver of these settings. Cheap to clone: clones share the cache. To be made inside a runtime.
///
/// # Errors
/// Whatever hickory makes of the settings; none is known.
pub fn resolver(settings: &Dns) -> Result<TokioResolver, NetError> {
    let servers = match settings.servers.as_slice() {
        [] => system_servers(&fs::read_to_string(RESOLV_CONF).unwrap_or_default()),
        given => given.to_vec(),
    };
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.into_iter().map(name_server).collect());
    let mut options = ResolverOpts::default();
    options.timeout = settings.timeout.get();
    options.attempts = usize::try_from(settings.retries).unwrap_or(usize::MAX);
    options.cache_size = ANSWERS_REMEMBERED_MAX;
    options.max_active_requests = QUESTIONS_MAX;
    options.try_tcp_on_error = true;
    // Mail is routed by DNS alone: MX and keys are not in a hosts file either.
    options.use_hosts_file = ResolveHosts::Never;
    // hickory would look for the system's certificates although no question goes over TLS, and fail where there are none.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| NetError::Msg(error.to_string()))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .with_tls_config(tls)
        .build()
}

fn name_server(server: DnsServer) -> NameServerConfig {
    let address = server.address();
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

/// The servers that the machine's resolv.conf names now; none when it names none.
#[must_use]
pub fn named_servers() -> Vec<DnsServer> {
    nameservers(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// The servers in a resolv.conf; this machine when it names none, as resolv.conf(5) says.
fn system_servers(text: &str) -> Vec<DnsServer> {
    let servers = nameservers(text);
    if servers.is_empty() {
        warn!("{RESOLV_CONF} names no DNS server: this machine is asked");
        return vec![IpAddr::V4(Ipv4Addr::LOCALHOST).into()];
    }
    servers
}

fn nameservers(text: &str) -> Vec<DnsServer> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    text.lines().filter_map(server).map(DnsServer::from).collect()
}

#[cfg(test)]
mod tests {
    use super::system_servers;

    #[test]
    fn resolv_conf_names_servers_and_nothing_else_is_taken() {
        let check = |text: &str, expected: &[&str]| {
            let servers: Vec<String> = system_servers(text).iter().map(ToString::to_string).collect();
            assert_eq!(servers, expected, "{text:?}");
        };
        check("", &["127.0.0.1"]);
        check("# nameserver 192.0.2.1\nsearch example.test\n", &["127.0.0.1"]);
        check("nameserver 192.0.2.1\nnameserver\t2001:db8::1 # second\n", &["192.0.2.1", "2001:db8::1"]);
        check("nameserver dns.example.test\nnameserver 192.0.2.7", &["192.0.2.7"]);
    }
}
