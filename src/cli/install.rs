//! `fife install`: the system that was booted from a stick, onto a disk of this machine.
//!
//! Owns: what is shown and asked. Called by: `cli`. Exit: 0 done, 1 refused, not wanted, or failed, 2 usage.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;

use super::{Exit, Global, complain, print};
use crate::appliance::filesystem::Found;
use crate::appliance::install::target::Target;
use crate::appliance::install::{Booted, install};
use crate::appliance::update::System;

/// What must be typed.
const ANSWER: &str = "yes";

/// Install the system that was booted from this stick onto a disk of the machine. All that is on the disk is lost.
///
/// It is shown first, and asked. The new disk starts with this stick's fife.toml and no data.
#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {
    /// The whole disk, as /dev/sda.
    #[arg(value_name = "DISK")]
    disk: PathBuf,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The fife.toml that the disk gets, in place of the stick's.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    match prepare(global, arguments) {
        Ok((booted, target, settings)) => carry_out(&booted, &target, settings.as_deref()),
        Err(exit) => exit,
    }
}

fn fail(error: impl std::fmt::Display) -> Exit {
    complain(error);
    Exit::Failed
}

fn prepare(global: &Global, arguments: &Arguments) -> Result<(Booted, Target, Option<String>), Exit> {
    let system = System::here().map_err(fail)?;
    let booted = Booted::find(system.esp.root()).map_err(fail)?;
    let target = Target::look(&arguments.disk).map_err(fail)?;
    target.may_be_overwritten(booted.disk(), booted.octets_min()).map_err(fail)?;
    let settings = arguments.settings.as_deref().map(read_settings).transpose()?;
    if global.json {
        super::print_json(&target);
    } else {
        print(describe(&target));
    }
    if !arguments.yes {
        ask(&target)?;
    }
    Ok((booted, target, settings))
}

/// The file, if a host could run on it.
fn read_settings(path: &Path) -> Result<String, Exit> {
    crate::config::load(path).map_err(|faults| {
        complain(faults.render(false));
        Exit::Usage
    })?;
    std::fs::read_to_string(path).map_err(|error| fail(format_args!("{}: {error}", path.display())))
}

fn ask(target: &Target) -> Result<(), Exit> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        complain("nobody can be asked here; --yes overwrites the disk unasked");
        return Err(Exit::Usage);
    }
    let mut out = io::stdout().lock();
    let question = format!("All of this will be lost. Type {ANSWER} to install on {}: ", target.device.display());
    let asked = write!(out, "{question}").and_then(|()| out.flush());
    let mut answer = String::new();
    asked.and_then(|()| stdin.lock().read_line(&mut answer)).map_err(fail)?;
    if answer.trim() == ANSWER {
        return Ok(());
    }
    complain("nothing was changed");
    Err(Exit::Failed)
}

fn carry_out(booted: &Booted, target: &Target, settings: Option<&str>) -> Exit {
    let tell = |step: &str| print(format_args!("  {step} …"));
    match install(booted, target, settings, tell) {
        Ok(()) => {
            print(format_args!(
                "fife is on {}. Remove the stick and start the machine again.",
                target.device.display()
            ));
            Exit::Done
        }
        Err(error) => {
            complain(error);
            complain(format_args!("{} holds no system that boots", target.device.display()));
            Exit::Failed
        }
    }
}

/// A disk with all that is on it.
fn describe(target: &Target) -> String {
    let found = |found: &Option<Found>| match found {
        Some(Found { kind, label }) if label.is_empty() => (*kind).to_owned(),
        Some(Found { kind, label }) => format!("{kind} \"{label}\""),
        None => "-".to_owned(),
    };
    let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let mut lines = vec![format!(
        "{}: {}, model {}, serial number {}",
        target.device.display(),
        ByteSize(target.octets),
        known(&target.model),
        known(&target.serial)
    )];
    if target.partitions.is_empty() {
        lines.push(format!("  no partitions; {}", found(&target.found)));
    }
    for part in &target.partitions {
        lines.push(format!("  {:<16} {:>12}  {}", part.device.display(), ByteSize(part.octets), found(&part.found)));
    }
    lines.join("\n")
}
