//! `fife dkim`: the keys with which a domain's mail is signed.
//!
//! Owns: what is asked and printed. Called by: `cli`. Calls: `directory::admin`, over the running site's own directory.
//! Never: prints a private key.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::door::{self, Door};
use super::{Exit, Global, print, print_json};
use crate::base::address::Domain;
use crate::base::clock;
use crate::directory::admin;
use crate::directory::dkim::{self, DomainKey, KeyError};

/// DKIM keys: what to publish, rotate them, list.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the DNS records to publish for a domain, as lines of a zone file.
    Show(Named),
    /// Make new keys beside the old ones. Publish them (`show`), then `activate` them; until then the old ones sign.
    Rotate(Named),
    /// Sign with the keys that were waiting; retire those that signed. Leave the old records published for a week.
    Activate(Named),
    /// Remove the retired keys, whose records can go from the DNS then; or the key of one selector.
    Remove(Remove),
    /// List keys, of one domain or of all.
    List(List),
}

#[derive(Debug, Args)]
struct Named {
    domain: Domain,
}

#[derive(Debug, Args)]
struct Remove {
    domain: Domain,
    /// Only the key of this selector.
    selector: Option<String>,
}

#[derive(Debug, Args)]
struct List {
    /// Only keys of this domain.
    domain: Option<Domain>,
}

/// A key as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    domain: &'a Domain,
    selector: &'a str,
    algorithm: &'a str,
    state: &'a str,
    /// Where its record is published.
    name: String,
    /// The text of the record.
    record: String,
}

impl<'a> Shown<'a> {
    fn of(domain: &'a Domain, key: &'a DomainKey) -> Result<Self, KeyError> {
        Ok(Self {
            domain,
            selector: &key.selector,
            algorithm: key.algorithm.as_str(),
            state: key.state.as_str(),
            name: key.name(domain),
            record: key.record()?,
        })
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let door = match Door::find(global) {
        Ok(door) => door,
        Err(exit) => return exit,
    };
    match &arguments.what {
        What::Show(named) => {
            let keys = door.ask(async |directory| admin::dkim_keys(directory, &named.domain).await);
            door::show(keys, |keys| show(global, &named.domain, &keys))
        }
        What::Rotate(named) => {
            let rotate = |keys| dkim::rotated(keys, clock::unix_secs());
            change(global, &door, &named.domain, rotate)
        }
        What::Activate(named) => change(global, &door, &named.domain, dkim::activated),
        What::Remove(remove) => {
            let selector = remove.selector.as_deref();
            change(global, &door, &remove.domain, |keys| dkim::removed(keys, selector))
        }
        What::List(list) => run_list(global, &door, list.domain.as_ref()),
    }
}

/// Changes the keys, and tells what there is then.
fn change(
    global: &Global,
    door: &Door,
    domain: &Domain,
    change: impl FnOnce(Vec<DomainKey>) -> Result<Vec<DomainKey>, KeyError>,
) -> Exit {
    let changed = door.ask(async |directory| admin::change_dkim_keys(directory, domain, change).await);
    door::show(changed, |keys| tell(global, &[(domain.clone(), keys)]))
}

fn run_list(global: &Global, door: &Door, domain: Option<&Domain>) -> Exit {
    let found = door.ask(async |directory| {
        let domains = match domain {
            Some(domain) => vec![domain.clone()],
            None => admin::list_domains(directory).await?.into_iter().map(|one| one.domain).collect(),
        };
        let mut found = Vec::new();
        for domain in domains {
            let keys = admin::dkim_keys(directory, &domain).await?;
            found.push((domain, keys));
        }
        Ok(found)
    });
    door::show(found, |found| tell(global, &found))
}

/// One line a key.
fn tell(global: &Global, found: &[(Domain, Vec<DomainKey>)]) {
    let shown = found.iter().flat_map(|(domain, keys)| keys.iter().map(move |key| Shown::of(domain, key)));
    if global.json {
        return print_json(&shown.filter_map(Result::ok).collect::<Vec<_>>());
    }
    for (domain, keys) in found {
        for key in keys {
            let (algorithm, state) = (key.algorithm.as_str(), key.state.as_str());
            print(format_args!("{:<32} {:<16} {algorithm:<8} {state}", domain.to_string(), key.selector));
        }
    }
}

/// The records of all keys.
fn show(global: &Global, domain: &Domain, keys: &[DomainKey]) {
    let (shown, faults): (Vec<_>, Vec<_>) = keys.iter().map(|key| Shown::of(domain, key)).partition(Result::is_ok);
    for fault in faults.into_iter().filter_map(Result::err) {
        super::complain(fault);
    }
    let shown: Vec<Shown<'_>> = shown.into_iter().filter_map(Result::ok).collect();
    if global.json {
        return print_json(&shown);
    }
    for key in shown {
        print(format_args!("; {} {}", key.algorithm, key.state));
        print(dkim::zone_line(&key.name, &key.record));
    }
}
