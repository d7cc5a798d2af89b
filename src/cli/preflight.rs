//! `fife preflight`: whether this machine and its network are fit for a mail server.
//!
//! Owns: what is asked of whom by default, and what is printed. Called by: `cli`. Exit: 0 nothing is bad, 1 something is, 2 usage.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Exit, Global, complain, print};
use crate::appliance::preflight::network::{self, Peer};
use crate::appliance::preflight::{Finding, Grade, disk, machine};
use crate::config::dns::Dns;
use crate::net::dns;

/// Tell whether this machine and its network are fit for a mail server, and what to do where they are not.
///
/// Nothing is changed. It can be called before fife is installed and without a configuration.
#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {
    /// Mail domains, or addresses with or without port, one of which must greet on port 25.
    #[arg(long, value_name = "DOMAIN|ADDRESS", value_delimiter = ',', default_values = ["gmail.com", "outlook.com", "qq.com"])]
    smtp: Vec<Peer>,
    /// Zones of block lists that must not have this machine's address.
    #[arg(long, value_name = "ZONE", value_delimiter = ',', default_values = ["zen.spamhaus.org", "bl.spamcop.net"])]
    block_list: Vec<String>,
    /// Who knows the time: a name or an address, with or without port.
    #[arg(long, value_name = "SERVER", default_value = "pool.ntp.org")]
    time_server: String,
    /// The address that others see, when it is not the machine's own.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// The port of a modem, as /dev/ttyUSB0; it is asked whether it is there.
    #[arg(long, value_name = "DEVICE")]
    modem: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Findings {
    findings: Vec<Finding>,
}

/// Towards this address, of a root server of DNS, a machine's way out is looked up. Nothing is sent there.
const OUTSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 41, 0, 4)), 53);

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let (dns_settings, state) = settings(global);
    let mut findings = machine::check(Path::new("/"));
    findings.push(disk::check(&state));
    findings.extend(arguments.modem.as_deref().map(machine::modem));
    let asked = super::block_on(async {
        let resolver = dns::resolver(&dns_settings).map_err(|error| error.to_string())?;
        let domains: Vec<String> = arguments.smtp.iter().filter_map(domain).collect();
        let mut found = Vec::new();
        if !domains.is_empty() {
            found.push(network::dns(&resolver, &domains).await);
        }
        found.push(network::clock(&resolver, &arguments.time_server).await);
        found.push(network::outbound(&resolver, &arguments.smtp).await);
        match arguments.address.or_else(|| network::own_address(OUTSIDE)) {
            None => found.push(Finding {
                check: "reverse",
                grade: Grade::Bad,
                found: "this machine has no way out".to_owned(),
                advice: Some("give it an address and a gateway".to_owned()),
            }),
            Some(address) => {
                found.push(network::reverse(&resolver, address).await);
                for zone in &arguments.block_list {
                    found.push(network::block_list(&resolver, address, zone).await);
                }
            }
        }
        Ok::<_, String>(found)
    });
    match asked.map_err(|error| error.to_string()).and_then(|found| found) {
        Ok(found) => findings.extend(found),
        Err(error) => {
            complain(error);
            return Exit::Failed;
        }
    }
    let is_bad = findings.iter().any(|finding| finding.grade == Grade::Bad);
    if global.json {
        super::print_json(&Findings { findings });
    } else {
        findings.iter().for_each(tell);
    }
    if is_bad { Exit::Failed } else { Exit::Done }
}

fn domain(peer: &Peer) -> Option<String> {
    match peer {
        Peer::Domain(domain) => Some(domain.clone()),
        Peer::Host(_) => None,
    }
}

/// `[dns]` and the state directory; without a good configuration, what the machine has.
fn settings(global: &Global) -> (Dns, PathBuf) {
    let state = |fallback: PathBuf| global.state.clone().unwrap_or(fallback);
    let Ok(loaded) = crate::config::load(&global.config) else {
        return (Dns::default(), state(std::env::temp_dir()));
    };
    let host = loaded.this_host(global.host.as_deref(), &crate::config::identity::Identity::read());
    let effective = host.ok().and_then(|host| loaded.effective(&host).cloned());
    effective.map_or_else(
        || (Dns::default(), state(std::env::temp_dir())),
        |effective| (effective.tables.dns, state(effective.site.state)),
    )
}

fn tell(finding: &Finding) {
    let Finding { check, grade, found, advice } = finding;
    print(format_args!("{:<5} {check:<11} {found}", grade.name()));
    if let Some(advice) = advice {
        print(format_args!("{:<17} → {advice}", ""));
    }
}
