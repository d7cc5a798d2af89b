//! `fife config show` and `fife config schema`.
//!
//! Owns: what is printed of settings. Called by: `cli`. Never: prints a secret; settings that hold one say where it is.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::check::load_or_complain;
use super::{Exit, Global, complain, print};
use crate::config::identity::Identity;
use crate::config::load::Origin;
use crate::config::schema::{self, Section, Setting};
use crate::config::{Effective, Loaded};

/// Prints settings, or the schema that they follow.
#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// The effective settings of this host (--host for another), and where each came from.
    Show,
    /// The JSON Schema of the file, for editors.
    Schema,
}

/// Runs it.
pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    match arguments.command {
        Command::Show => show(global).map_or_else(|exit| exit, |()| Exit::Done),
        Command::Schema => {
            print(format_args!("{:#}", schema::schema()));
            Exit::Done
        }
    }
}

fn show(global: &Global) -> Result<(), Exit> {
    let loaded = load_or_complain(global)?;
    let host = loaded.this_host(global.host.as_deref(), &Identity::read()).map_err(|error| {
        complain(error);
        Exit::Usage
    })?;
    let Some(effective) = loaded.effective(&host) else { return Err(Exit::Usage) };
    let lines = lines(&loaded, effective);
    if global.json {
        let mut settings = Map::new();
        for Line { section, setting, value, origin } in lines {
            let mut entry = json!(origin);
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("value".to_owned(), value);
            }
            settings.insert(format!("{}.{}", section.name(), setting.key), entry);
        }
        print(json!({ "host": effective.host, "roles": effective.roles, "settings": settings }));
        return Ok(());
    }
    print(format_args!("# What host {} runs by; comments say where each value came from.", effective.host));
    print(format_args!("# roles: {}", effective.roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")));
    let mut current = None;
    for Line { section, setting, value, origin } in lines {
        if current.as_ref() != Some(&section) {
            print(format_args!("\n[{}]", section.name()));
            current = Some(section);
        }
        let text = if value.is_null() {
            format!("# {} has no value", setting.key)
        } else {
            format!("{} = {}", setting.key, schema::toml_text(&value))
        };
        print(format_args!("{text:<58} # {origin}"));
    }
    Ok(())
}

/// One setting as it is shown.
struct Line {
    section: Section,
    setting: &'static Setting,
    /// As serialized: a secret has hidden itself.
    value: Value,
    origin: Origin,
}

fn lines(loaded: &Loaded, effective: &Effective) -> Vec<Line> {
    let (site, tables) = (json!(effective.site), json!(effective.tables));
    let line = |section: Section, setting: &'static Setting| {
        let table = if section == Section::Site { Some(&site) } else { tables.get(section.name()) };
        let value = table.and_then(|table| table.get(setting.key)).cloned().unwrap_or_default();
        Line { origin: loaded.origin(&effective.host, &section, setting), section, setting, value }
    };
    Section::shared()
        .flat_map(|section| section.settings().iter().map(move |setting| (section.clone(), setting)))
        .map(|(section, setting)| line(section, setting))
        .collect()
}
