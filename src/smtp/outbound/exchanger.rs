//! Which hosts take mail for a domain.
//!
//! Owns: the questions to DNS, and the order in which hosts are tried. Called by: `outbound::dial`. Never: connects.
//! Spec: RFC 5321 section 5.1 (MX, order, our own host among them), RFC 7505 (null MX), RFC 2181 section 10.3.

use std::net::{IpAddr, SocketAddr};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use rand::seq::SliceRandom as _;

use crate::smtp::reply::Reply;

/// Hosts of one domain that are looked at, at most.
const HOSTS_MAX: usize = 20;
/// Addresses of one domain that are tried, at most.
const ADDRESSES_MAX: usize = 12;

const NO_SUCH_DOMAIN: Reply = Reply::new(550, 1, 2, "no such domain");
const NULL_MX: Reply = Reply::new(556, 1, 10, "the domain does not accept mail");
const NO_ADDRESS: Reply = Reply::new(550, 4, 4, "no server of the domain has an address");
const LOOPS: Reply = Reply::new(554, 4, 6, "mail for the domain would come back to this server");
const DNS_AWAY: Reply = Reply::new(451, 4, 3, "DNS gives no answer");

/// Why there is nobody to go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreachable {
    /// Nor ever will be.
    Never(Reply),
    /// Now.
    Later(Reply),
}

/// An MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchanger {
    pub preference: u16,
    /// Lower case, without trailing dot; empty: null MX.
    pub host: String,
}

/// An address to be tried, and by what name the host is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub host: String,
    pub address: IpAddr,
}

/// Who we are: mail must not be sent to ourselves.
#[derive(Debug, Clone, Default)]
pub struct Own {
    pub hostname: String,
    /// Where this host takes mail from other servers.
    pub listening: Vec<SocketAddr>,
}

impl Own {
    fn is(&self, host: &str, addresses: &[IpAddr], port: u16) -> bool {
        let at = |ip: &IpAddr| self.listening.contains(&SocketAddr::new(ip.to_canonical(), port));
        host.eq_ignore_ascii_case(&self.hostname) || addresses.iter().any(at)
    }
}

/// The addresses that take mail for this domain, in the order in which they are to be tried.
///
/// # Errors
/// There is none, or DNS gives no answer.
pub async fn candidates(
    resolver: &TokioResolver,
    domain: &str,
    port: u16,
    own: &Own,
) -> Result<Vec<Candidate>, Unreachable> {
    let mut hosts = order(exchangers(resolver, domain).await?, &mut rand::rng())?;
    hosts.truncate(HOSTS_MAX);
    let found = join_all(hosts.iter().map(|host| addresses(resolver, &host.host))).await;
    let mut candidates = Vec::new();
    let mut later = None;
    let known: Vec<(&Exchanger, Vec<IpAddr>)> = hosts
        .iter()
        .zip(found)
        .map(|(host, found)| match found {
            Ok(addresses) => (host, addresses),
            Err(Unreachable::Never(_)) => (host, Vec::new()),
            Err(Unreachable::Later(reply)) => {
                later = Some(reply);
                (host, Vec::new())
            }
        })
        .collect();
    // RFC 5321 section 5.1: when we are among them, only those better than us are tried.
    let ourselves = known.iter().filter(|(host, addresses)| own.is(&host.host, addresses, port));
    let limit = ourselves.map(|(host, _)| host.preference).min();
    for (host, addresses) in known {
        if limit.is_some_and(|limit| host.preference >= limit) {
            return if candidates.is_empty() { Err(Unreachable::Never(LOOPS)) } else { Ok(candidates) };
        }
        let named = |address| Candidate { host: host.host.clone(), address };
        candidates.extend(addresses.into_iter().map(named));
    }
    candidates.truncate(ADDRESSES_MAX);
    match later {
        Some(reply) if candidates.is_empty() => Err(Unreachable::Later(reply)),
        None if candidates.is_empty() => Err(Unreachable::Never(NO_ADDRESS)),
        Some(_) | None => Ok(candidates),
    }
}

/// The MX records; without any, the domain itself is the host (RFC 5321 section 5.1).
async fn exchangers(resolver: &TokioResolver, domain: &str) -> Result<Vec<Exchanger>, Unreachable> {
    let implicit = || vec![Exchanger { preference: 0, host: domain.to_owned() }];
    let answers = match resolver.lookup(name(domain)?, RecordType::MX).await {
        Ok(answers) => answers,
        Err(error) => {
            return match verdict(&error) {
                Verdict::Empty => Ok(implicit()),
                Verdict::NoSuchName => Err(Unreachable::Never(NO_SUCH_DOMAIN)),
                Verdict::Trouble => Err(away(domain, &error)),
            };
        }
    };
    let exchanger = |data: &RData| {
        let RData::MX(mx) = data else { return None };
        let host = mx.exchange.to_string().trim_end_matches('.').to_ascii_lowercase();
        Some(Exchanger { preference: mx.preference, host })
    };
    let found: Vec<Exchanger> = answers.answers().iter().filter_map(|record| exchanger(&record.data)).collect();
    Ok(if found.is_empty() { implicit() } else { found })
}

/// The hosts by preference, those of equal preference in any order (RFC 5321 section 5.1).
///
/// # Errors
/// The domain takes no mail (RFC 7505 section 3).
pub fn order(mut hosts: Vec<Exchanger>, random: &mut impl rand::Rng) -> Result<Vec<Exchanger>, Unreachable> {
    if let [only] = hosts.as_slice()
        && only.host.is_empty()
    {
        return Err(Unreachable::Never(NULL_MX));
    }
    // RFC 7505 section 3: a null MX beside others says nothing.
    hosts.retain(|host| !host.host.is_empty());
    hosts.shuffle(random);
    hosts.sort_by_key(|host| host.preference);
    Ok(hosts)
}

/// The addresses of a host: IPv6 and IPv4 in turn.
///
/// # Errors
/// It has none, or DNS gives no answer.
pub async fn addresses(resolver: &TokioResolver, host: &str) -> Result<Vec<IpAddr>, Unreachable> {
    let name = name(host)?;
    let (six, four) =
        tokio::join!(resolver.lookup(name.clone(), RecordType::AAAA), resolver.lookup(name, RecordType::A),);
    let mut trouble = None;
    let mut of = |answer: Result<hickory_resolver::lookup::Lookup, NetError>| match answer {
        Ok(answer) => answer.answers().iter().filter_map(|record| record.data.ip_addr()).collect(),
        Err(error) => {
            if verdict(&error) == Verdict::Trouble {
                trouble = Some(away(host, &error));
            }
            Vec::new()
        }
    };
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = (of(six), of(four));
    let found = in_turn(six, four);
    match trouble {
        Some(trouble) if found.is_empty() => Err(trouble),
        None if found.is_empty() => Err(Unreachable::Never(NO_ADDRESS)),
        Some(_) | None => Ok(found),
    }
}

/// One of each as long as there are both: when one of the two protocols does not work here, the other is not far.
#[must_use]
pub fn in_turn(six: Vec<IpAddr>, four: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// A complete name; letters beyond ASCII as A-labels (RFC 5890).
fn name(text: &str) -> Result<Name, Unreachable> {
    let mut name = Name::from_utf8(text).map_err(|_| Unreachable::Never(NO_SUCH_DOMAIN))?;
    name.set_fqdn(true);
    Ok(name)
}

/// What an answer without records means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Empty,
    NoSuchName,
    Trouble,
}

fn verdict(error: &NetError) -> Verdict {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return Verdict::Trouble };
    if none.response_code == ResponseCode::NXDomain {
        Verdict::NoSuchName
    } else if none.response_code == ResponseCode::NoError {
        Verdict::Empty
    } else {
        Verdict::Trouble
    }
}

fn away(name: &str, error: &NetError) -> Unreachable {
    Unreachable::Later(DNS_AWAY.with_text(format!("DNS gives no answer about {name}: {error}")))
}
