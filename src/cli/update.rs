//! `fife update`: a new version of the system into the other slot of the appliance.
//!
//! Owns: what is printed. Called by: `cli`. Exit: 0 done, 1 refused or not the appliance, 2 usage, 3 it is staged, but the supervisor does
//! not answer.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Exit, Global, complain, print, stop};
use crate::appliance::slots::{SlotStatus, Standing};
use crate::appliance::update::{Source, Staged, System};
use crate::config::dns::Dns;
use crate::config::update::Update;
use crate::net::dns;
use crate::supervisor::control::Request;

/// Bring a new version of the system into the other slot of the appliance, and start it.
///
/// The bundle's signature (FILE.minisig, or the same beside the URL) is verified before anything is written. The new version is
/// kept when the host is in good health with it; otherwise the machine goes back to the old one by itself.
#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {
    /// The bundle: a file, or an http or https URL. Without it, [update] url of the configuration.
    #[arg(value_name = "FILE|URL", conflicts_with_all = ["status", "rollback"])]
    source: Option<String>,
    /// Show both slots, and change nothing.
    #[arg(long, conflicts_with = "rollback")]
    status: bool,
    /// Go back to the version in the other slot.
    #[arg(long)]
    rollback: bool,
    /// Let the machine run on; the new version is started when it next starts.
    #[arg(long)]
    no_reboot: bool,
    /// Take a version that is older than the one that runs.
    #[arg(long)]
    force: bool,
}

/// Both slots, as JSON.
#[derive(Debug, Serialize)]
struct Slots {
    slots: Vec<SlotStatus>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let system = match System::here() {
        Ok(system) => system,
        Err(error) => return fail(error),
    };
    if arguments.status {
        return status(global, &system);
    }
    if arguments.rollback {
        if let Err(error) = system.esp.give_up(system.running) {
            return fail(error);
        }
        print(format_args!("slot {} is booted from now on", system.running.other()));
    } else {
        match bring(global, arguments, &system) {
            Ok(staged) => tell(global, &staged),
            Err(exit) => return exit,
        }
    }
    if arguments.no_reboot { Exit::Done } else { stop::run(global, Request::Reboot) }
}

fn fail(error: impl std::fmt::Display) -> Exit {
    complain(error);
    Exit::Failed
}

fn bring(global: &Global, arguments: &Arguments, system: &System) -> Result<Staged, Exit> {
    let (settings, dns) = settings(global, arguments.source.is_some())?;
    let source = match &arguments.source {
        Some(given) if given.contains("://") => given.parse().map(Source::Url).map_err(|error| {
            complain(error);
            Exit::Usage
        })?,
        Some(given) => Source::File(PathBuf::from(given)),
        None => settings.url.map(Source::Url).ok_or_else(|| {
            complain("no file or URL is given, and the configuration has no [update] url");
            Exit::Usage
        })?,
    };
    let work = global.state_dir()?.join("update");
    if arguments.force {
        complain("--force: an older version may not be able to read what a newer one has written");
    }
    let updated = super::block_on(async {
        let resolver = dns::resolver(&dns).map_err(fail)?;
        let updated = system.update(&source, settings.key.as_ref(), &resolver, &work, arguments.force).await;
        updated.map_err(fail)
    });
    updated.map_err(fail)?
}

/// `[update]` and `[dns]`. An update may be what mends a configuration that this version does not like: when the bundle is named, the
/// defaults do.
fn settings(global: &Global, is_named: bool) -> Result<(Update, Dns), Exit> {
    let read = || {
        let loaded = global.load()?;
        let host = global.this_host(&loaded)?;
        let tables = loaded.effective(&host).map(|effective| &effective.tables);
        Ok(tables.map(|tables| (tables.update.clone(), tables.dns.clone())).unwrap_or_default())
    };
    match read() {
        Err(_) if is_named => {
            complain("the configuration is passed over: the key of the image is believed");
            Ok((Update::default(), Dns::default()))
        }
        read => read,
    }
}

fn tell(global: &Global, staged: &Staged) {
    if global.json {
        super::print_json(staged);
    } else {
        let Staged { version, kernel, slot } = staged;
        print(format_args!("fife {version} (kernel {kernel}) is in slot {slot} and is tried at the next start"));
    }
}

fn status(global: &Global, system: &System) -> Exit {
    match system.esp.status(system.running) {
        Ok(slots) if global.json => super::print_json(&Slots { slots }),
        Ok(slots) => slots.iter().for_each(|slot| print(line(slot))),
        Err(error) => return fail(error),
    }
    Exit::Done
}

fn line(slot: &SlotStatus) -> String {
    let standing = match slot.standing {
        Standing::Empty => "empty".to_owned(),
        Standing::Good => "good".to_owned(),
        Standing::OnTrial(left) => format!("on trial, {left} tries left"),
        Standing::Failed => "failed or given up".to_owned(),
    };
    let version = slot.version.as_deref().filter(|_| slot.standing != Standing::Empty).unwrap_or("-");
    let running = if slot.running { "; runs" } else { "" };
    let next = if slot.next { "; next to start" } else { "" };
    format!("slot {}  {version:<12} {standing}{running}{next}", slot.slot)
}
