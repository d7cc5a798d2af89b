//! Settings from the environment: `FIFE_SMTP__MESSAGE_SIZE_MAX=25 MiB`.
//!
//! Owns: the spelling of the variables, reading them as layer. Called by: `load`, the manual.
//! Never: reads the environment itself; the variables are handed in.
//!
//! `FIFE_`, the table, two underscores, the key; upper case, hyphens as underscores.
//! The value is the bare text (no quotes); lists are separated by commas, or written as in TOML, in brackets.
//! It holds for every host and comes before everything in the file. `[hosts]` cannot be set from the environment.

use figment::value::{Tag, Value as Plain};

use super::document::{self, Content, Node};
use super::fault::{Fault, Place};
use super::schema::{Kind, Section};

/// What the names begin with.
pub(super) const PREFIX: &str = "FIFE_";
/// Bytes of a value, at most.
const VALUE_LEN_MAX: usize = 64 * 1024;

/// One setting from the environment.
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) section: Section,
    pub(crate) key: &'static str,
    pub(crate) node: Node,
}

/// The variable that sets this.
#[must_use]
pub fn variable_name(section: &Section, key: &str) -> String {
    format!("{PREFIX}{}__{key}", section.name()).to_uppercase().replace('-', "_")
}

/// The settings among these variables, and what is wrong with their names.
pub(crate) fn read(variables: &[(String, String)]) -> (Vec<Variable>, Vec<Fault>) {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        let known = settings().find(|(section, key, _)| variable_name(section, key) == *name);
        match known {
            Some((section, key, kind)) => {
                found.push(Variable { name: name.clone(), section, key, node: node(kind, value) });
            }
            None => faults.extend(misnamed(name)),
        }
    }
    (found, faults)
}

fn settings() -> impl Iterator<Item = (Section, &'static str, &'static Kind)> {
    Section::shared().flat_map(|section| {
        let settings = section.settings().iter();
        settings.map(move |setting| (section.clone(), setting.key, &setting.kind))
    })
}

/// A name that looks like a setting but is none. Others (`FIFE_STATE`) are no settings and none of this room's business.
fn misnamed(name: &str) -> Option<Fault> {
    let single = |name: &str| name.replace("__", "_");
    let known: Vec<String> = settings().map(|(section, key, _)| variable_name(&section, key)).collect();
    let is_meant = name.contains("__") || known.iter().any(|other| single(other) == single(name));
    let fault = Fault::new(Place::Environment(name.to_owned()), "names no setting");
    is_meant.then(|| fault.nearest(name, known.iter().map(String::as_str)))
}

/// The text as a value of this kind; whether it is a good one is found by the same walk that checks the file.
fn node(kind: &Kind, text: &str) -> Node {
    let leaf = |value: Plain| Node { key: 0..0, value: 0..0, content: Content::Leaf(value) };
    let text = if text.len() > VALUE_LEN_MAX { "" } else { text };
    match kind {
        Kind::List(inner) => {
            // A list as in TOML; `[::]:25` begins with a bracket too, but is none.
            let (root, faults) = document::parse(&format!("list = {text}"));
            let list = root.as_ref().and_then(|root| root.get("list")).filter(|_| faults.is_empty());
            if let Some(node @ Node { content: Content::List(_), .. }) = list {
                return node.clone();
            }
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let items = parts.map(|part| node(inner, part)).collect();
            Node { key: 0..0, value: 0..0, content: Content::List(items) }
        }
        Kind::Boolean => leaf(text.trim().parse::<bool>().map_or_else(|_| text.into(), Plain::from)),
        Kind::Integer(..) => leaf(text.trim().parse::<i64>().map_or_else(|_| text.into(), Plain::from)),
        Kind::Text | Kind::Choice(_) | Kind::Typed(..) | Kind::Secret | Kind::Table => {
            leaf(Plain::String(Tag::Default, text.to_owned()))
        }
    }
}
