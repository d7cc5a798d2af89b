//! `fife check`: is the configuration good, and what would each host run?
//!
//! Owns: what is printed of it. Called by: `cli`. Never: starts, binds or changes anything.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Exit, Global, complain, print};
use crate::config::hosts::Role;
use crate::config::identity::Identity;
use crate::config::{Effective, Faults, Loaded, load};

/// Checks the configuration and prints what each host would run.
///
/// Files that it names (secrets, certificates) are read for the host that this machine is; they lie on no other.
#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {}

/// What one host would run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct HostFacts {
    host: String,
    /// Whether this machine is it.
    this_machine: bool,
    roles: Vec<RoleFacts>,
    metrics: Vec<String>,
    /// `None`: self-signed, made by fife.
    certificate: Option<PathBuf>,
    state: PathBuf,
}

#[derive(Debug, Serialize)]
struct RoleFacts {
    role: Role,
    listeners: Vec<ListenerFacts>,
}

#[derive(Debug, Serialize)]
struct ListenerFacts {
    service: &'static str,
    address: String,
    tls: bool,
}

/// Runs it.
pub(super) fn run(global: &Global, _: &Arguments) -> Exit {
    match check(global) {
        Ok(()) => Exit::Done,
        Err(exit) => exit,
    }
}

fn check(global: &Global) -> Result<(), Exit> {
    let loaded = load_or_complain(global)?;
    let this = match loaded.this_host(global.host.as_deref(), &Identity::read()) {
        Ok(name) => Some(name),
        Err(error) if global.host.is_some() => {
            complain(error);
            return Err(Exit::Usage);
        }
        Err(error) => {
            complain(format_args!("secret and certificate files are not checked: {error}"));
            None
        }
    };
    if let Some(this) = &this {
        loaded.material(this).map_err(|faults| refuse(global, &faults))?;
    }
    let facts = |effective: &Effective| host_facts(global, &loaded, effective, this.as_ref() == Some(&effective.host));
    let hosts: Vec<HostFacts> = loaded.effectives().values().map(facts).collect();
    if global.json {
        print(serde_json::json!({ "config": loaded.path(), "hosts": hosts }));
    } else {
        print(format_args!("{}: good", loaded.path().display()));
        hosts.iter().for_each(print_host);
    }
    Ok(())
}

/// Loads the configuration; what is wrong with it is printed.
///
/// # Errors
/// `Exit::Usage`, all said.
pub(super) fn load_or_complain(global: &Global) -> Result<Loaded, Exit> {
    load(&global.config).map_err(|faults| refuse(global, &faults))
}

/// Prints what is wrong: with `--json` as data, otherwise as text, coloured on a terminal.
pub(super) fn refuse(global: &Global, faults: &Faults) -> Exit {
    if global.json {
        print(faults.to_json());
    } else {
        use std::io::IsTerminal;
        let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        complain_plain(&faults.render(color));
    }
    Exit::Usage
}

/// Several lines on standard error, as they are.
fn complain_plain(text: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

fn host_facts(global: &Global, loaded: &Loaded, effective: &Effective, this_machine: bool) -> HostFacts {
    let role = |role: &Role| {
        let listener = |listening: crate::config::listeners::Listening<'_>| ListenerFacts {
            service: listening.service,
            address: listening.address.to_string(),
            tls: listening.tls,
        };
        RoleFacts { role: *role, listeners: effective.listening(Some(*role)).map(listener).collect() }
    };
    HostFacts {
        host: effective.host.clone(),
        this_machine,
        roles: effective.roles.iter().map(role).collect(),
        metrics: effective.listening(None).map(|listening| listening.address.to_string()).collect(),
        certificate: effective.tables.tls.certificate.as_ref().map(|path| loaded.dir().join(path)),
        state: global.state.clone().unwrap_or_else(|| effective.site.state.clone()),
    }
}

fn print_host(facts: &HostFacts) {
    let HostFacts { host, this_machine, roles, metrics, certificate, state } = facts;
    let line = |name: &str, text: String| print(format_args!("  {name:<13}{text}"));
    print(format_args!("\nhost {host}{}", if *this_machine { " (this machine)" } else { "" }));
    for RoleFacts { role, listeners } in roles {
        let mut name = role.name();
        for ListenerFacts { service, address, tls } in listeners {
            line(name, format!("{service:<12} {address}{}", if *tls { " (TLS)" } else { "" }));
            name = "";
        }
    }
    line("metrics", if metrics.is_empty() { "none".to_owned() } else { metrics.join(", ") });
    let self_signed = || "self-signed, made at first start".to_owned();
    line("certificate", certificate.as_ref().map_or_else(self_signed, |path| path.display().to_string()));
    line("state", state.display().to_string());
}
