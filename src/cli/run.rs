//! `fife run`: the supervisor of this host, in the foreground.
//!
//! Owns: what a new site's administrator is told. Called by: `cli`. Never: goes into the background.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Exit, Global, complain, print};
use crate::config::address::SocketAddress;
use crate::supervisor::{Serving, Source, StartError, Supervisor};

pub(super) fn run(global: &Global) -> Exit {
    let state_dir = match global.state_dir() {
        Ok(state_dir) => state_dir,
        Err(exit) => return exit,
    };
    let source = Source { config: global.config.clone(), host: global.host.clone(), state_dir, stand_in: None };
    let mut site = format!("--config {}", global.config.display());
    if let Some(state) = &global.state {
        site.push_str(&format!(" --state {}", state.display()));
    }
    // On this thread alone: roles die with the thread that started them (prctl(2), PR_SET_PDEATHSIG).
    let ran = super::block_on(async {
        let supervisor = Supervisor::prepare(source, move |serving| tell(&serving, &site))?;
        supervisor.run().await.map_err(StartError::Io)
    });
    match ran.map_err(StartError::Io).and_then(|ran| ran) {
        Ok(_) => Exit::Done,
        Err(error @ StartError::Plan(_)) => {
            complain(error);
            Exit::Usage
        }
        Err(error) => {
            complain(error);
            Exit::Failed
        }
    }
}

/// Says what is there and what to do next, to people: on standard output. Log lines go elsewhere, and the password is
/// in none of them.
fn tell(serving: &Serving<'_>, site: &str) {
    let program = std::env::args().next().unwrap_or_else(|| "fife".to_owned());
    print(text(serving, &program, site));
}

/// What is told; `program` and `site` are what commands on this site begin and end with.
pub(super) fn text(serving: &Serving<'_>, program: &str, site: &str) -> String {
    let mut lines = vec![String::new(), format!("fife serves {} on host {}.", serving.domain, serving.host)];
    lines.extend(serving.listeners.iter().map(|(service, address)| format!("  {service:<12} {address}")));
    let at = |service: &str| serving.listeners.iter().find(|(name, address)| *name == service && is_tcp(address));
    let reach = |service: &str| at(service).and_then(|(_, address)| reachable(address));
    if let Some(first) = &serving.first_administrator {
        lines.extend([
            String::new(),
            "First administrator (also in the file below; keep it, then remove the file):".to_owned(),
            format!("  address   {}", first.address),
            format!("  password  {}", first.password.reveal()),
            format!("  file      {}", first.file.display()),
        ]);
        let (user, password) = (&first.address, first.password.reveal());
        if let Some(smtp) = reach("smtp") {
            let send =
                format!("  swaks --server {smtp} --from you@example.org --to {user} --header 'Subject: first mail'");
            lines.extend([String::new(), "Send a mail:".to_owned(), send]);
        }
        if let Some(imap) = reach("imap") {
            let read = format!("  curl --silent --user '{user}:{password}' 'imap://{imap}/INBOX;MAILINDEX=1'");
            lines.extend(["Read it:".to_owned(), read]);
        }
    }
    lines.extend([
        "Add a user:".to_owned(),
        format!("  {program} user add u1@{} {site}", serving.domain),
        "Stop with Ctrl-C.".to_owned(),
        String::new(),
    ]);
    lines.join("\n")
}

fn is_tcp(address: &SocketAddress) -> bool {
    matches!(address, SocketAddress::Tcp(_))
}

/// The address as a client on this machine writes it.
fn reachable(address: &SocketAddress) -> Option<SocketAddr> {
    let SocketAddress::Tcp(address) = address else { return None };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    Some(SocketAddr::new(ip, address.port()))
}
