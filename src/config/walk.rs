//! Each key and each value by itself: is it known, of the right type, within its bounds?
//!
//! Owns: faults of single settings. Called by: `load`. Never: compares settings with each other (`rules` does).
//!
//! Each value is tried in its own table alone, so that one fault does not hide the next.

use std::collections::BTreeSet;

use figment::error::Kind as Wrong;
use figment::value::{Dict, Num, Value as Plain};

use super::document::{Content, Node};
use super::environment::Variable;
use super::fault::{Fault, Place, nearest};
use super::hosts::Role;
use super::mask;
use super::network::{LINK_NAME, LinkName};
use super::schema::{Kind, Section, Setting};
use super::site::Site;
use crate::base::duration::Span;
use crate::base::size::Size;

/// Characters of a wrong value that are shown, at most.
const SHOWN_CHARS_MAX: usize = 60;

/// A setting of one host (`Some`) or of the site, by section and key.
pub(crate) type SettingPath = (Option<String>, Section, &'static str);

/// What the walk found.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) faults: Vec<Fault>,
    /// Settings with a fault: left out when the layers are put together, and no rule speaks about them.
    pub(crate) faulty: BTreeSet<SettingPath>,
}

impl Walk {
    /// Looks at the whole file.
    pub(crate) fn file(&mut self, root: &Node) {
        for (name, node) in root.entries() {
            match Section::from_name(name) {
                Some(section) => self.section(None, &section, node),
                None if name == "hosts" => self.hosts(node),
                None => {
                    let known: Vec<_> = Section::shared().map(|section| section.name()).chain(["hosts"]).collect();
                    let fault = Fault::new(Place::File(node.key.clone()), format!("unknown table `{name}`"));
                    let fault = fault.expected(format!("one of {}", known.join(", ")));
                    self.faults.push(fault.nearest(name, known));
                }
            }
        }
    }

    /// Looks at what the environment sets.
    pub(crate) fn environment(&mut self, variables: &[Variable]) {
        for variable in variables {
            if let Some(setting) = variable.section.setting(variable.key) {
                let place = |_: &Node| Place::Environment(variable.name.clone());
                self.setting(None, &variable.section, setting, &variable.node, &place);
            }
        }
    }

    fn hosts(&mut self, node: &Node) {
        let Content::Table(hosts) = &node.content else {
            return self.wrong_table("hosts", node);
        };
        for (name, host) in hosts {
            if !is_host_name(name) {
                let fault = Fault::new(Place::File(host.key.clone()), format!("`{name}` is no name for a host"));
                self.faults.push(fault.expected("letters, digits and hyphens, at most 63 (RFC 1123 section 2.1)"));
            }
            let Content::Table(entries) = &host.content else {
                self.wrong_table(name, host);
                continue;
            };
            for (key, value) in entries {
                match Section::from_name(key) {
                    Some(section @ Section::Table(_)) => self.section(Some(name), &section, value),
                    _ if key == "match" => self.section(Some(name), &Section::Match, value),
                    _ if key == "network" => self.named(name, &Section::Interface, LINK_NAME, is_link_name, value),
                    _ if key == "mounts" => self.named(name, &Section::Mount, MOUNT_NAME, is_host_name, value),
                    _ => self.entry(Some(name), &Section::Host, key, value),
                }
            }
        }
    }

    /// Tables of a host that each have a name of their own.
    fn named(&mut self, host: &str, section: &Section, expected: &str, is_name: fn(&str) -> bool, node: &Node) {
        let Content::Table(tables) = &node.content else {
            return self.wrong_table(section.name(), node);
        };
        for (name, table) in tables {
            if !is_name(name) {
                let message = format!("`{name}` is no name in `{}`", section.name());
                self.faults.push(Fault::new(Place::File(table.key.clone()), message).expected(expected));
            }
            self.section(Some(host), section, table);
        }
    }

    fn section(&mut self, host: Option<&str>, section: &Section, node: &Node) {
        let Content::Table(entries) = &node.content else {
            return self.wrong_table(section.name(), node);
        };
        for (key, value) in entries {
            self.entry(host, section, key, value);
        }
    }

    fn entry(&mut self, host: Option<&str>, section: &Section, key: &str, node: &Node) {
        match section.setting(key) {
            Some(setting) => self.setting(host, section, setting, node, &|node| Place::File(node.value.clone())),
            None => self.faults.push(unknown_key(section, key, node)),
        }
    }

    fn wrong_table(&mut self, name: &str, node: &Node) {
        let fault = Fault::new(Place::File(node.value.clone()), format!("`{name}` is {}", found(node)));
        self.faults.push(fault.expected("a table"));
    }

    fn setting(
        &mut self,
        host: Option<&str>,
        section: &Section,
        setting: &'static Setting,
        node: &Node,
        place: &dyn Fn(&Node) -> Place,
    ) {
        let before = self.faults.len();
        match (&setting.kind, &node.content) {
            (Kind::List(_), Content::List(items)) => {
                for item in items {
                    let listed = Plain::from(vec![item.plain()]);
                    self.faults.extend(value_fault(section, setting, item, listed, place(item)));
                }
                let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
                if count < setting.items.0 || count > setting.items.1 {
                    let fault = Fault::new(place(node), format!("`{}` has {count} values", setting.key));
                    self.faults.push(fault.expected(setting.expected()));
                }
                self.faults.extend(repeated_role(setting, items, place));
            }
            (Kind::List(inner), Content::Leaf(value)) => {
                let fault = Fault::new(place(node), format!("`{}` is {}", setting.key, found(node)));
                let fault = fault.expected(format!("a list, each {}", inner.expected()));
                let alone = section.trial(Dict::from([(setting.key.to_owned(), vec![value.clone()].into())])).is_ok();
                let help = "put it in brackets: a list can have one value";
                self.faults.push(if alone { fault.help(help) } else { fault });
            }
            _ => self.faults.extend(value_fault(section, setting, node, node.plain(), place(node))),
        }
        if self.faults.len() > before {
            self.faulty.insert((host.map(str::to_owned), section.clone(), setting.key));
        }
    }
}

/// What the name of a mount looks like.
const MOUNT_NAME: &str = "letters, digits and hyphens, at most 63";

fn is_link_name(name: &str) -> bool {
    name.parse::<LinkName>().is_ok()
}

/// The name of a host is a label of its DNS name (RFC 1123 section 2.1).
fn is_host_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-') && name.chars().all(inner)
}

/// A key that the section does not have: what may be meant, or where it belongs.
fn unknown_key(section: &Section, key: &str, node: &Node) -> Fault {
    let overrides: &[&str] = if *section == Section::Host { Section::tables() } else { &[] };
    let known: Vec<&str> =
        section.settings().iter().map(|setting| setting.key).chain(overrides.iter().copied()).collect();
    let fault = Fault::new(Place::File(node.key.clone()), format!("unknown key `{key}` in `{}`", section.name()));
    let elsewhere: Vec<String> = Section::shared()
        .filter(|other| other.setting(key).is_some())
        .map(|other| format!("[{}]", other.name()))
        .collect();
    let near = nearest(key, known.iter().copied());
    match near {
        Some(near) => fault.expected(format!("a key of `{}`", section.name())).help(format!("did you mean `{near}`?")),
        None if !elsewhere.is_empty() => fault.help(format!("`{key}` is a key of {}", elsewhere.join(", "))),
        None => fault.expected(format!("one of {}", known.join(", "))),
    }
}

/// What is wrong with one value (of a list: with one item, `plain` being the list of it alone).
fn value_fault(section: &Section, setting: &Setting, node: &Node, plain: Plain, place: Place) -> Option<Fault> {
    let key = setting.key;
    let outcome = section.trial(Dict::from([(key.to_owned(), plain)]));
    let kind = if let Kind::List(inner) = &setting.kind { inner } else { &setting.kind };
    let shown =
        if mask::is_secret_key(key) || *kind == Kind::Secret { "something else".to_owned() } else { found(node) };
    let expected = if matches!(setting.kind, Kind::List(_)) { kind.expected() } else { setting.expected() };
    let fault = |message: String| Fault::new(place.clone(), message).expected(expected.clone());
    // serde would take a list for the fields of `{ file = … }`.
    if *kind == Kind::Secret && matches!(node.content, Content::List(_)) {
        return Some(fault(format!("wrong type for `{key}`: a list")));
    }
    if let Err(error) = outcome {
        if *kind == Kind::Secret
            && let Some((name, inner)) = node.entries().iter().find(|(name, _)| name != "file" && name != "env")
        {
            let place = Place::File(inner.key.clone());
            return Some(Fault::new(place, format!("unknown key `{name}` in a secret")).expected(expected));
        }
        if *kind == Kind::Table
            && let Some(fault) = entry_fault(key, node, &error)
        {
            return Some(fault);
        }
        let is_type = matches!(error.kind, Wrong::InvalidType(..));
        let fault = fault(format!("wrong {} for `{key}`: {shown}", if is_type { "type" } else { "value" }));
        return Some(match (kind, &node.content) {
            (Kind::Choice(words), Content::Leaf(Plain::String(_, word))) => {
                fault.nearest(word, words.iter().map(|(word, _)| *word))
            }
            _ => fault,
        });
    }
    let Content::Leaf(value) = &node.content else { return None };
    if *section == Section::Site && key == "name" && value.as_str().is_some_and(|name| !Site::is_name(name)) {
        let expected = "1 to 64 letters, digits, spaces, hyphens, underscores and dots";
        return Some(Fault::new(place, format!("wrong value for `name`: {shown}")).expected(expected));
    }
    if is_within(setting, kind, value) {
        return None;
    }
    let expected = setting.expected();
    Some(Fault::new(place, format!("`{key}` is out of range: {shown}")).expected(expected))
}

/// What is wrong within a table that is one of a list: serde names the key.
fn entry_fault(setting: &str, node: &Node, error: &figment::Error) -> Option<Fault> {
    if let Wrong::UnknownField(name, known) = &error.kind {
        let (_, entry) = node.entries().iter().find(|(key, _)| key == name)?;
        let fault = Fault::new(Place::File(entry.key.clone()), format!("unknown key `{name}` in `{setting}`"));
        return Some(fault.expected(format!("one of {}", known.join(", "))).nearest(name, known.iter().copied()));
    }
    let (key, entry) = error.path.iter().rev().find_map(|key| Some((key, node.get(key)?)))?;
    let shown = if mask::is_secret_key(key) { "something else".to_owned() } else { found(entry) };
    let fault =
        Fault::new(Place::File(entry.value.clone()), format!("wrong value for `{key}` in `{setting}`: {shown}"));
    if let Wrong::InvalidType(_, expected) | Wrong::InvalidValue(_, expected) = &error.kind {
        return Some(fault.expected(expected.clone()));
    }
    if let Wrong::UnknownVariant(word, known) = &error.kind {
        return Some(fault.expected(format!("one of {}", known.join(", "))).nearest(word, known.iter().copied()));
    }
    Some(fault)
}

/// Whether a value of the right type keeps its bounds.
fn is_within(setting: &Setting, kind: &Kind, value: &Plain) -> bool {
    fn between<T: PartialOrd>(value: Option<T>, min: Option<T>, max: Option<T>) -> bool {
        let Some(value) = value else { return true };
        min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max)
    }
    let (min, max) = setting.bounds;
    match kind {
        Kind::Integer(min, max) => between(value.to_i128(), Some(i128::from(*min)), Some(i128::from(*max))),
        Kind::Typed("Span", _) => {
            let read = |text: &str| text.parse::<Span>().ok();
            between(value.as_str().and_then(read), min.and_then(read), max.and_then(read))
        }
        Kind::Typed("Size", _) => {
            let read = |text: &str| text.parse::<Size>().ok();
            let number = value.to_i128().and_then(|bytes| u64::try_from(bytes).ok()).map(Size::bytes);
            between(value.as_str().and_then(read).or(number), min.and_then(read), max.and_then(read))
        }
        Kind::Boolean | Kind::Text | Kind::Choice(_) | Kind::Typed(..) | Kind::Secret | Kind::List(_) | Kind::Table => {
            true
        }
    }
}

/// A role that a host is given twice.
fn repeated_role(setting: &Setting, items: &[Node], place: &dyn Fn(&Node) -> Place) -> Vec<Fault> {
    if setting.key != "roles" {
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let roles = items.iter().filter_map(|item| match &item.content {
        Content::Leaf(Plain::String(_, name)) => Some((Role::from_name(name)?, item)),
        Content::Leaf(_) | Content::List(_) | Content::Table(_) => None,
    });
    roles
        .filter(|(role, _)| !seen.insert(*role))
        .map(|(role, item)| Fault::new(place(item), format!("role `{role}` is given twice")))
        .collect()
}

/// A wrong value as it is named in a fault.
fn found(node: &Node) -> String {
    match &node.content {
        Content::List(_) => "a list".to_owned(),
        Content::Table(_) => "a table".to_owned(),
        Content::Leaf(Plain::String(_, text)) => {
            // An unclosed quote may have drawn a secret into another value.
            let text = &mask::mask(text);
            let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            format!("{shown:?}")
        }
        Content::Leaf(Plain::Bool(_, flag)) => flag.to_string(),
        Content::Leaf(Plain::Num(_, Num::F64(number))) => number.to_string(),
        Content::Leaf(other) => other.to_i128().map_or_else(|| "no value".to_owned(), |number| number.to_string()),
    }
}
