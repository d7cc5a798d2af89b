//! Whether this machine can send mail that others take.
//!
//! Owns: the questions to DNS, to time servers, to other mail servers' greetings. Called by: `fife preflight`. Never: goes further in SMTP
//! than the greeting.
//! Spec: RFC 5321 section 4.2 (greeting), RFC 5782 (block lists), RFC 4330 (SNTP), RFC 8601 section 2.7.3 (reverse name and back).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use rsntp::SntpClient;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Finding;

/// What a server may take to be reached and to greet.
const PATIENCE: Duration = Duration::from_secs(10);
/// Hosts of a domain that are tried, at most.
const HOSTS_MAX: usize = 3;
/// Names of an address that are followed back, at most.
const NAMES_MAX: usize = 10;
/// Offsets of the clock, in milliseconds, at which what is signed begins to be doubted, and at which it is refused.
const OFFSET_MILLIS_WARN: i64 = 1000;
const OFFSET_MILLIS_BAD: i64 = 60_000;
const SMTP_PORT: u16 = 25;
const NTP_PORT: u16 = 123;
/// What block lists answer with to those whom they do not answer, among them users of public resolvers.
const REFUSING: [u8; 3] = [127, 255, 255];

/// Where a greeting is tried: a mail domain, or a host with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    Domain(String),
    Host(SocketAddr),
}

impl std::str::FromStr for Peer {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text
            .parse()
            .map(Self::Host)
            .or_else(|_| text.parse().map(|ip: IpAddr| Self::Host((ip, SMTP_PORT).into())))
            .unwrap_or_else(|_| Self::Domain(text.to_owned())))
    }
}

/// The address from which this machine reaches others; none without a way out. Nothing is sent.
#[must_use]
pub fn own_address(towards: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if towards.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(towards).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// Whether DNS answers, asked for the mail servers of these domains.
pub async fn dns(resolver: &TokioResolver, domains: &[String]) -> Finding {
    let mut last = "no domain to ask for".to_owned();
    for domain in domains {
        match resolver.lookup(absolute(domain), RecordType::MX).await {
            Ok(_) => return Finding::ok("dns", format!("{domain} was found")),
            Err(error) if error.is_no_records_found() => last = format!("{domain} has no mail servers"),
            Err(error) => last = format!("{domain}: {error}"),
        }
    }
    Finding::bad("dns", last, "set [dns] servers, or the name servers of the network; mail needs DNS")
}

/// Whether other sites' mail servers are reached and greet.
pub async fn outbound(resolver: &TokioResolver, peers: &[Peer]) -> Finding {
    let mut faults = Vec::new();
    for peer in peers {
        let hosts = match peer {
            Peer::Host(host) => vec![*host],
            Peer::Domain(domain) => exchangers(resolver, domain).await,
        };
        if hosts.is_empty() {
            faults.push(format!("{} has no address", name_of(peer)));
        }
        for host in hosts {
            match greeting(host).await {
                Ok(greeting) => return Finding::ok("outbound", format!("{host} greets: {greeting}")),
                Err(fault) => faults.push(format!("{host}: {fault}")),
            }
        }
    }
    let advice = "ask the provider to open outgoing port 25, or send by a relay: [smtp-outbound] routes";
    Finding::bad("outbound", faults.join("; "), advice)
}

fn name_of(peer: &Peer) -> String {
    match peer {
        Peer::Domain(domain) => domain.clone(),
        Peer::Host(host) => host.to_string(),
    }
}

async fn exchangers(resolver: &TokioResolver, domain: &str) -> Vec<SocketAddr> {
    let Ok(answer) = resolver.lookup(absolute(domain), RecordType::MX).await else { return Vec::new() };
    let mut hosts: Vec<(u16, String)> = answer
        .answers()
        .iter()
        .filter_map(|record| {
            if let RData::MX(mx) = &record.data { Some((mx.preference, mx.exchange.to_string())) } else { None }
        })
        .collect();
    hosts.sort();
    let mut addresses = Vec::new();
    for (_, host) in hosts.into_iter().take(HOSTS_MAX) {
        let found = resolver.lookup_ip(host).await;
        addresses.extend(found.iter().flat_map(|found| found.iter().take(2)).map(|ip| SocketAddr::new(ip, SMTP_PORT)));
    }
    addresses
}

async fn greeting(host: SocketAddr) -> Result<String, String> {
    let work = async {
        let mut stream = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
        let mut line = Vec::new();
        let mut octet = [0];
        // RFC 5321 section 4.5.3.1.5: a reply line has 512 octets at most.
        while line.len() < 512 && !line.ends_with(b"\n") {
            let read = stream.read(&mut octet).await.map_err(|error| error.to_string())?;
            if read == 0 {
                return Err("it hangs up".to_owned());
            }
            line.extend_from_slice(&octet);
        }
        let line = super::super::filesystem::printable(&String::from_utf8_lossy(&line));
        if line.starts_with("220") { Ok(line) } else { Err(line) }
    };
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Whether the address has a name, and the name this address.
pub async fn reverse(resolver: &TokioResolver, address: IpAddr) -> Finding {
    let advice = format!(
        "ask whoever has given you {address} for a reverse name: that of this host, which must have this address"
    );
    if !is_global(address) {
        let advice =
            "if there is address translation before this machine, call this with --address and the outside address";
        return Finding::warn("reverse", format!("{address} is an inside address"), advice);
    }
    let names = match resolver.lookup(reverse_name(address), RecordType::PTR).await {
        Ok(answer) => answer
            .answers()
            .iter()
            .filter_map(|record| if let RData::PTR(name) = &record.data { Some(name.to_string()) } else { None })
            .take(NAMES_MAX)
            .collect::<Vec<_>>(),
        Err(error) if error.is_no_records_found() => Vec::new(),
        Err(error) => return Finding::warn("reverse", format!("{address}: {error}"), "try again when DNS works"),
    };
    for name in &names {
        if resolver.lookup_ip(name.as_str()).await.is_ok_and(|found| found.iter().any(|ip| ip == address)) {
            return Finding::ok("reverse", format!("{address} is {name} and back"));
        }
    }
    match names.first() {
        None => Finding::bad("reverse", format!("{address} has no name"), advice),
        Some(name) => Finding::bad("reverse", format!("{address} is {name}, which has other addresses"), advice),
    }
}

/// Whether block lists have the address.
pub async fn block_list(resolver: &TokioResolver, address: IpAddr, zone: &str) -> Finding {
    const CHECK: &str = "block-list";
    if !is_global(address) {
        return Finding::warn(CHECK, format!("{zone} does not list inside addresses"), "call this with --address");
    }
    // RFC 5782 section 2.1 and 2.4: the octets (nibbles) in reverse, before the list's zone.
    let answer = resolver.lookup(format!("{}.{}", reversed(address), absolute(zone)), RecordType::A).await;
    let codes: Vec<Ipv4Addr> = match &answer {
        Ok(answer) => answer
            .answers()
            .iter()
            .filter_map(|record| if let RData::A(code) = &record.data { Some(code.0) } else { None })
            .collect(),
        Err(error) if NetError::is_no_records_found(error) => Vec::new(),
        Err(error) => return Finding::warn(CHECK, format!("{zone}: {error}"), "try again when DNS works"),
    };
    if codes.iter().any(|code| code.octets().starts_with(&REFUSING)) {
        let advice = "set [dns] servers to a resolver of your own: this list does not answer public ones";
        return Finding::warn(CHECK, format!("{zone} does not answer by this DNS server"), advice);
    }
    match codes.iter().find(|code| code.is_loopback()) {
        None => Finding::ok(CHECK, format!("{address} is not on {zone}")),
        Some(code) => {
            let advice =
                format!("others refuse mail from this address: ask {zone} for removal, or use another address");
            Finding::bad(CHECK, format!("{address} is on {zone} ({code})"), advice)
        }
    }
}

/// How far the clock is off, by the first of these servers that answers.
pub async fn clock(resolver: &TokioResolver, server: &str) -> Finding {
    const CHECK: &str = "clock";
    const ADVICE: &str = "name a time server that this machine reaches";
    let address = match server.parse().or_else(|_| server.parse().map(|ip: IpAddr| SocketAddr::new(ip, NTP_PORT))) {
        Ok(address) => Some(address),
        Err(_) => {
            let found = resolver.lookup_ip(absolute(server)).await.ok();
            found.and_then(|found| found.iter().next()).map(|ip| SocketAddr::new(ip, NTP_PORT))
        }
    };
    let Some(address) = address else {
        return Finding::warn(CHECK, format!("{server} has no address"), ADVICE);
    };
    let asked = tokio::task::spawn_blocking(move || SntpClient::new().synchronize(address)).await;
    let offset = match asked {
        Ok(Ok(answer)) => answer.clock_offset().as_secs_f64() * 1000.0,
        Ok(Err(error)) => return Finding::warn(CHECK, format!("{server}: {error}"), ADVICE),
        Err(error) => return Finding::warn(CHECK, format!("{server}: {error}"), ADVICE),
    };
    #[expect(clippy::cast_possible_truncation, reason = "rounds at the ends of the range, far beyond any clock")]
    offset_finding(server, offset as i64)
}

/// What an offset in milliseconds means.
pub(super) fn offset_finding(server: &str, millis: i64) -> Finding {
    const CHECK: &str = "clock";
    let found = format!("{millis} ms off, says {server}");
    let advice = "set the clock: signatures and certificates hold for a time";
    match millis.saturating_abs() {
        OFFSET_MILLIS_BAD.. => Finding::bad(CHECK, found, advice),
        OFFSET_MILLIS_WARN..OFFSET_MILLIS_BAD => Finding::warn(CHECK, found, advice),
        _ => Finding::ok(CHECK, found),
    }
}

/// A name that no search domain is added to.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// Whether others can see the address: neither private (RFC 1918, RFC 4193, RFC 6598) nor of this link.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
            !(ip.is_private() || ip.is_link_local() || ip.is_unspecified() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()),
    }
}

/// The octets of the address in reverse, or the nibbles, with dots between.
pub(super) fn reversed(address: IpAddr) -> String {
    let labels: Vec<String> = match address {
        IpAddr::V4(ip) => ip.octets().iter().rev().map(ToString::to_string).collect(),
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            nibbles.rev().map(|nibble| format!("{nibble:x}")).collect()
        }
    };
    labels.join(".")
}

/// Where the name of an address is (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse_name(address: IpAddr) -> String {
    let zone = if address.is_ipv4() { "in-addr.arpa." } else { "ip6.arpa." };
    format!("{}.{zone}", reversed(address))
}
