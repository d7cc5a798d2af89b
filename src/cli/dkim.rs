//! `fife dkim`: the keys with which a domain's mail is signed.
//!
//! Owns: what is asked and printed. Called by: `cli`. Calls: `directory::admin`, over the running site's own directory.
//! Never: prints a private key.

use clap::{Args, Subcommand};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use serde::Serialize;

use super::door::{self, Door};
use super::{Exit, Global, complain, print, print_json};
use crate::base::address::Domain;
use crate::base::clock;
use crate::directory::admin;
use crate::directory::dkim::{self, DomainKey, KeyError, KeyState};
use crate::net::dns;

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
    /// Ask DNS whether the records are published; fails unless every key that signs or waits is.
    Check(Named),
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
        What::Check(named) => run_check(global, &door, &named.domain),
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

/// What DNS says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Found {
    Published,
    /// There is a record, of another key.
    Different,
    Missing,
    /// DNS gave no answer.
    Unknown,
}

impl Found {
    fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Different => "different",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Serialize)]
struct Checked<'a> {
    #[serde(flatten)]
    key: Shown<'a>,
    dns: Found,
}

fn run_check(global: &Global, door: &Door, domain: &Domain) -> Exit {
    let keys = match door.ask(async |directory| admin::dkim_keys(directory, domain).await) {
        Ok(keys) => keys,
        Err(error) => return door::show::<()>(Err(error), |()| ()),
    };
    let settings = door.dns();
    let found = super::block_on(async {
        let resolver = dns::resolver(settings).map_err(std::io::Error::other)?;
        let mut found = Vec::new();
        for key in &keys {
            found.push(look_up(&resolver, domain, key).await);
        }
        std::io::Result::Ok(found)
    });
    let found = match found.flatten() {
        Ok(found) => found,
        Err(error) => {
            complain(error);
            return Exit::Failed;
        }
    };
    let rows = keys.iter().zip(found);
    if global.json {
        let row = |(key, dns)| Some(Checked { key: Shown::of(domain, key).ok()?, dns });
        print_json(&rows.clone().filter_map(row).collect::<Vec<_>>());
    } else {
        for (key, found) in rows.clone() {
            print(format_args!("{:<48} {:<8} {}", key.name(domain), key.state.as_str(), found.as_str()));
        }
    }
    let mut needed = rows.filter(|(key, _)| key.state != KeyState::Retired);
    if keys.is_empty() || needed.any(|(_, found)| found != Found::Published) { Exit::Failed } else { Exit::Done }
}

async fn look_up(resolver: &TokioResolver, domain: &Domain, key: &DomainKey) -> Found {
    let answer = match resolver.txt_lookup(format!("{}.", key.name(domain))).await {
        Ok(answer) => answer,
        Err(error) if error.is_no_records_found() => return Found::Missing,
        Err(error) => {
            complain(format_args!("{}: {error}", key.name(domain)));
            return Found::Unknown;
        }
    };
    let texts = answer.answers().iter().filter_map(|record| {
        let RData::TXT(txt) = &record.data else { return None };
        Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned())
    });
    let mut texts = texts.peekable();
    if texts.peek().is_none() {
        return Found::Missing;
    }
    let is_own = |text: String| key.is_published_as(&text) == Ok(true);
    if texts.any(is_own) { Found::Published } else { Found::Different }
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
        complain(fault);
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
