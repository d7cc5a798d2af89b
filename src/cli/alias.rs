//! `fife alias`: addresses whose mail goes to others.
//!
//! Owns: what is asked and printed. Called by: `cli`. Calls: `directory::admin`, over the running site's own directory.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::door::{self, Door};
use super::{Exit, Global, print, print_json};
use crate::base::address::{Address, Domain};
use crate::directory::admin::{self, Alias};

/// Aliases: add, remove, list.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Pass mail for an address on to others.
    Add(Add),
    /// Remove an alias.
    Del(Named),
    /// List aliases, of one domain or of all.
    List(List),
}

#[derive(Debug, Args)]
struct Add {
    address: Address,
    /// Who gets the mail.
    #[arg(required = true)]
    targets: Vec<Address>,
}

#[derive(Debug, Args)]
struct Named {
    address: Address,
}

#[derive(Debug, Args)]
struct List {
    /// Only aliases of this domain.
    domain: Option<Domain>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    address: &'a Address,
    targets: &'a [Address],
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let door = match Door::find(global) {
        Ok(door) => door,
        Err(exit) => return exit,
    };
    match &arguments.what {
        What::Add(add) => {
            let alias = Alias { address: add.address.clone(), targets: add.targets.clone() };
            door.change(async |directory| admin::add_alias(directory, &alias).await)
        }
        What::Del(named) => door.change(async |directory| admin::delete_alias(directory, &named.address).await),
        What::List(list) => {
            let found = door.ask(async |directory| admin::list_aliases(directory, list.domain.as_ref()).await);
            door::show(found, |aliases| show(global, &aliases))
        }
    }
}

fn show(global: &Global, aliases: &[Alias]) {
    if global.json {
        let shown: Vec<_> = aliases.iter().map(|one| Shown { address: &one.address, targets: &one.targets }).collect();
        return print_json(&shown);
    }
    for alias in aliases {
        let targets: Vec<String> = alias.targets.iter().map(Address::to_string).collect();
        print(format_args!("{:<32} {}", alias.address.to_string(), targets.join(", ")));
    }
}
