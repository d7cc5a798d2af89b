//! `fife backup`: the site's copies on volumes.
//!
//! Owns: which commands there are. Called by: `cli`.
//!
//! - `copies`: from sources to volumes and back; `drive`: the drive by itself; `changer`: the media changer by itself.

mod changer;
mod copies;
mod drive;

use clap::{Args, Subcommand};

use super::{Exit, Global, complain};

/// Backups: drives, changers, and what is on volumes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Run(copies::Run),
    List(copies::List),
    Find(copies::Find),
    Verify(copies::Verify),
    Restore(copies::Restore),
    Scan(copies::Scan),
    Drive(drive::Arguments),
    Changer(changer::Arguments),
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    match &arguments.what {
        What::Run(arguments) => copies::run(global, arguments),
        What::List(arguments) => copies::list(global, arguments),
        What::Find(arguments) => copies::find(global, arguments),
        What::Verify(arguments) => copies::verify(global, arguments),
        What::Restore(arguments) => copies::restore(global, arguments),
        What::Scan(arguments) => copies::scan(global, arguments),
        What::Drive(arguments) => drive::run(global, arguments),
        What::Changer(arguments) => changer::run(global, arguments),
    }
}

fn fail(error: impl std::fmt::Display) -> Exit {
    complain(error);
    Exit::Failed
}
