//! `etc/fife.toml` and `docs/configuration.md` are made from the types, and hold what the types say.
//!
//! After changing a setting: `FIFE_BLESS=1 cargo test --release --lib config`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::environment::variable_name;
use super::super::hosts::Role;
use super::super::schema::{self, Kind, Section, Setting};
use super::super::{Config, Tables};
use super::{HOST, SITE, load};

/// Characters of a line of comment, about.
const WIDTH: usize = 100;

/// Compares a file of the repository with what it should be; with `FIFE_BLESS` writes it.
fn check_file(path: &str, made: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("FIFE_BLESS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let stale = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert!(kept == made, "{} is stale at {stale:?}: FIFE_BLESS=1 cargo test --release --lib config", path.display());
}

/// The text as comment lines.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.chars().count() + word.chars().count() > WIDTH {
            writeln!(out, "{line}").unwrap();
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(out, "{line}").unwrap();
}

/// The words that can be chosen, with their meanings.
fn words(kind: &Kind) -> &[(&'static str, &'static str)] {
    match kind {
        Kind::Choice(words) => words,
        Kind::List(inner) => words(inner),
        Kind::Boolean | Kind::Integer(..) | Kind::Text | Kind::Typed(..) | Kind::Secret | Kind::Table => &[],
    }
}

fn reference_setting(out: &mut String, setting: &Setting, given: Option<&str>) {
    writeln!(out).unwrap();
    comment(out, setting.description);
    if !matches!(setting.kind, Kind::Boolean | Kind::Text) || setting.bounds != (None, None) {
        comment(out, &format!("Value: {}.", setting.expected()));
    }
    for (word, meaning) in words(&setting.kind).iter().filter(|(_, meaning)| !meaning.is_empty()) {
        comment(out, &format!("  \"{word}\": {meaning}"));
    }
    match (given, setting.default, setting.example) {
        (Some(given), ..) => writeln!(out, "{} = {given}", setting.key),
        (None, Some(default), _) => writeln!(out, "#{} = {}", setting.key, schema::toml_text(default)),
        (None, None, Some(example)) => writeln!(out, "# No default. For example: {} = {example}", setting.key),
        (None, None, None) => writeln!(out, "# No default: {} is not set.", setting.key),
    }
    .unwrap();
}

/// The section that a host's setting is a table of.
fn below(setting: &Setting) -> Option<&'static Section> {
    const { &Section::OF_HOST }.iter().find(|section| section.name() == setting.key)
}

fn told_below(setting: &Setting, section: &Section) -> String {
    match section {
        Section::Interface | Section::Mount => format!("{} {}", setting.description, section.description()),
        Section::Site | Section::Host | Section::Match | Section::Table(_) => setting.description.to_owned(),
    }
}

/// What such a table looks like. `the_examples_load` holds it against the types.
fn example_below(section: &Section) -> &'static str {
    match section {
        Section::Interface => {
            "[hosts.mail1.network.lan]\nmac = \"52:54:00:00:00:01\"\naddress = [\"192.0.2.11/24\", \"2001:db8::11/64\"]\ngateway = [\"192.0.2.1\", \"2001:db8::1\"]\n\n[hosts.mail1.network.bond0]\nbond = [\"eth1\", \"eth2\"]\ndhcp = false\nrouter-advertisements = false\n\n[hosts.mail1.network.staff]\nvlan = { of = \"bond0\", id = 10 }\naddress = [\"198.51.100.11/24\"]\nroutes = [{ to = \"10.0.0.0/8\", via = \"198.51.100.1\" }]\n"
        }
        Section::Mount => {
            "[hosts.mail1.mounts.archive]\ndevice = \"LABEL=archive\"\noptions = [\"noatime\"]\n\n[hosts.mail1.mounts.backup]\ndevice = \"nas.example.edu.cn:/export/mail\"\noptions = [\"vers=4.2\"]\nwhere = \"/srv/backup\"\n"
        }
        Section::Match => "match = { mac = \"52:54:00:00:00:01\" }\n",
        Section::Site | Section::Host | Section::Table(_) => "",
    }
}

/// `etc/fife.toml`.
fn reference() -> String {
    let mut out = String::new();
    comment(&mut out, "fife.toml: every setting of a site, with its default.");
    comment(
        &mut out,
        "Lines that begin with \"#\" and a name are settings at their defaults: take the \"#\" away and change them. What must be said is said: [site] name and domain, and one [hosts.NAME] with its roles.",
    );
    comment(&mut out, "Made from the program's types; docs/configuration.md says more.");
    let head = |out: &mut String, name: &str, description: &str| {
        writeln!(out, "\n# {}", "-".repeat(WIDTH - 2)).unwrap();
        comment(out, description);
        writeln!(out, "[{name}]").unwrap();
    };
    let example = |setting: &Setting| setting.example.filter(|_| setting.required).map(|text| format!("{text:?}"));
    head(&mut out, "site", Section::Site.description());
    for setting in Section::Site.settings() {
        reference_setting(&mut out, setting, example(setting).as_deref());
    }
    head(&mut out, "hosts.mail1", Section::Host.description());
    let all: Vec<String> = Role::ALL.iter().map(|role| format!("\"{role}\"")).collect();
    for setting in Section::Host.settings() {
        if let Some(inner) = below(setting) {
            writeln!(out).unwrap();
            comment(&mut out, &told_below(setting, inner));
            for setting in inner.settings() {
                comment(&mut out, &format!("  {}: {}", setting.key, setting.description));
            }
            for line in example_below(inner).lines() {
                writeln!(out, "# {line}").unwrap();
            }
        } else {
            let roles = (setting.key == "roles").then(|| format!("[{}]", all.join(", ")));
            reference_setting(&mut out, setting, roles.as_deref());
        }
    }
    for section in Section::shared().filter(|section| *section != Section::Site) {
        head(&mut out, section.name(), section.description());
        for setting in section.settings() {
            reference_setting(&mut out, setting, None);
        }
    }
    out
}

fn manual_setting(out: &mut String, section: Option<&Section>, setting: &Setting) {
    writeln!(out, "#### `{}`\n\n{}\n", setting.key, setting.description).unwrap();
    writeln!(out, "- Value: {}", setting.expected()).unwrap();
    for (word, meaning) in words(&setting.kind).iter().filter(|(_, meaning)| !meaning.is_empty()) {
        writeln!(out, "  - `\"{word}\"`: {meaning}").unwrap();
    }
    match (setting.required, setting.default) {
        (true, _) => writeln!(out, "- Required"),
        (false, Some(default)) => writeln!(out, "- Default: `{}`", schema::toml_text(default)),
        (false, None) => writeln!(out, "- Default: not set"),
    }
    .unwrap();
    if let Some(section) = section {
        writeln!(out, "- Environment: `{}`", variable_name(section, setting.key)).unwrap();
    }
    writeln!(out).unwrap();
}

/// `docs/configuration.md`.
fn manual() -> String {
    let mut out = String::from(include_str!("manual.md"));
    for section in [Section::Site, Section::Host] {
        let name = if section == Section::Site { "site" } else { "hosts.NAME" };
        writeln!(out, "### `[{name}]`\n\n{}\n", section.description()).unwrap();
        for setting in section.settings() {
            if let Some(inner) = below(setting) {
                writeln!(out, "#### `{}`\n\n{}\n", setting.key, told_below(setting, inner)).unwrap();
                for setting in inner.settings() {
                    let default = setting.default.map(|value| format!(" Default: `{}`.", schema::toml_text(value)));
                    let default = default.unwrap_or_default();
                    let (key, description) = (setting.key, setting.description);
                    writeln!(out, "- `{key}`: {description} Value: {}.{default}", setting.expected()).unwrap();
                }
                writeln!(out, "\n```toml\n{}```\n", example_below(inner)).unwrap();
            } else {
                manual_setting(&mut out, (section == Section::Site).then_some(&section), setting);
            }
        }
    }
    for section in Section::shared().filter(|section| *section != Section::Site) {
        writeln!(out, "### `[{}]`\n\n{}\n", section.name(), section.description()).unwrap();
        for setting in section.settings() {
            manual_setting(&mut out, Some(&section), setting);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[test]
fn the_reference_file_is_fresh() {
    check_file("etc/fife.toml", &reference());
}

#[test]
fn the_manual_is_fresh() {
    check_file("docs/configuration.md", &manual());
}

#[test]
fn the_examples_load() {
    for section in Section::OF_HOST {
        load(&format!("{SITE}{HOST}{}", example_below(&section).replace("mail1", "a")))
            .unwrap_or_else(|faults| panic!("{faults}"));
    }
}

#[test]
fn the_reference_equals_the_defaults_as_it_is_and_with_every_setting_active() {
    let reference = reference();
    let active: String = reference
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(active.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() > 40);
    for text in [&reference, &active] {
        let loaded = load(text).unwrap_or_else(|faults| panic!("{faults}"));
        let host = loaded.effective("mail1").unwrap();
        assert_eq!(host.tables, Tables::default());
        assert_eq!(host.site.state, Config::default().site.state);
        assert_eq!(host.site.language, Config::default().site.language);
        assert_eq!(host.site.secret, None);
        assert_eq!(host.roles, Role::ALL);
    }
}

#[test]
fn every_setting_is_in_the_reference_and_in_the_manual() {
    let (reference, manual) = (reference(), manual());
    for section in Section::shared() {
        for setting in section.settings() {
            assert!(
                reference.contains(&format!("{} = ", setting.key))
                    || reference.contains(&format!("{} is not set", setting.key)),
                "{}",
                setting.key
            );
            assert!(manual.contains(&variable_name(&section, setting.key)), "{}", setting.key);
        }
    }
}

#[test]
fn the_schema_says_what_the_types_say() {
    let schema = schema::schema();
    let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    assert_eq!(at("/$defs/Smtp/properties/hops-max/minimum"), 5);
    assert_eq!(at("/$defs/Smtp/properties/message-size-max/default"), "50 MiB");
    assert!(at("/$defs/Smtp/properties/listen/description").as_str().unwrap().starts_with("Mail from other servers"));
    assert_eq!(at("/additionalProperties"), false);
    assert_eq!(at("/$defs/Host/properties/smtp/$ref"), "#/$defs/Smtp");
    assert_eq!(at("/$defs/Site/required"), &serde_json::json!(["name", "domain"]));
    assert!(!schema.to_string().contains("null"), "TOML has no null");
    every_property_is_described(schema, "");
}

fn every_property_is_described(schema: &Value, path: &str) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            let is_secret_part = path.contains("/Secret");
            assert!(is_secret_part || property.get("description").is_some(), "{path}/{name}");
        }
    }
    match schema {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| every_property_is_described(value, &format!("{path}/{key}")))
        }
        Value::Array(items) => items.iter().for_each(|value| every_property_is_described(value, path)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
