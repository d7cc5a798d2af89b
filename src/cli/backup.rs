//! `fife backup`: the site's copies on volumes.
//!
//! Owns: which commands there are. Called by: `cli`.
//!
//! - `drive`: the drive by itself; `changer`: the media changer by itself.

mod changer;
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
    Drive(drive::Arguments),
    Changer(changer::Arguments),
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    match &arguments.what {
        What::Drive(arguments) => drive::run(global, arguments),
        What::Changer(arguments) => changer::run(global, arguments),
    }
}

fn fail(error: impl std::fmt::Display) -> Exit {
    complain(error);
    Exit::Failed
}
