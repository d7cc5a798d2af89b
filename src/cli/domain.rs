//! `fife domain`: whose mail is ours.
//!
//! Owns: what is asked and printed. Called by: `cli`. Calls: `directory::admin`, over the running site's own directory.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::door::{self, Door};
use super::{Exit, Global, print, print_json};
use crate::base::address::Domain;
use crate::base::clock;
use crate::directory::AccountStatus;
use crate::directory::admin;

/// Mail domains: add, suspend, remove, list.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Take mail for a domain; its DKIM keys are made, see `fife dkim show`.
    Add(Named),
    /// Take no more mail for a domain; its users and aliases must be gone before.
    Del(Named),
    /// Stop logins of all its users; mail still comes in, unless it is to be refused.
    Suspend(Suspend),
    /// Undo `suspend`.
    Resume(Named),
    /// List domains.
    List,
}

#[derive(Debug, Args)]
struct Named {
    domain: Domain,
}

#[derive(Debug, Args)]
struct Suspend {
    domain: Domain,
    /// Refuse mail too.
    #[arg(long)]
    refuse_mail: bool,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    domain: &'a Domain,
    status: &'a str,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let door = match Door::find(global) {
        Ok(door) => door,
        Err(exit) => return exit,
    };
    match &arguments.what {
        What::Add(named) => door.change(async |directory| {
            let keys = admin::make_dkim_keys(clock::unix_secs()).await?;
            admin::add_domain(directory, &named.domain, &keys).await
        }),
        What::Del(named) => door.change(async |directory| admin::delete_domain(directory, &named.domain).await),
        What::Suspend(suspend) => {
            let status = if suspend.refuse_mail { AccountStatus::Disabled } else { AccountStatus::NoAccess };
            door.change(async |directory| admin::set_domain_status(directory, &suspend.domain, status).await)
        }
        What::Resume(named) => {
            let status = AccountStatus::Active;
            door.change(async |directory| admin::set_domain_status(directory, &named.domain, status).await)
        }
        What::List => door::show(door.ask(admin::list_domains), |domains| {
            let shown: Vec<_> =
                domains.iter().map(|one| Shown { domain: &one.domain, status: one.status.as_str() }).collect();
            if global.json {
                return print_json(&shown);
            }
            for one in shown {
                print(format_args!("{:<32} {}", one.domain.to_string(), one.status));
            }
        }),
    }
}
