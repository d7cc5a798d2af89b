//! Loading: a file and the environment in, what each host runs out; or everything that is wrong with them.
//!
//! Owns: `load`, `Loaded`. Called by: the supervisor (start, reload), commands. Never: keeps the file open, changes it,
//! reads the files it names (`material` does).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use figment::value::Dict;

use super::document::{self, Content, Node};
use super::fault::{Fault, Faults, Place, position};
use super::hosts::Host;
use super::layers::{Layer, Layers};
use super::mask;
use super::schema::{Section, Setting};
use super::walk::Walk;
use super::{Effective, environment, rules};

/// Bytes of the file, at most.
pub const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// A configuration without faults.
pub struct Loaded {
    path: PathBuf,
    /// The file's text, secrets masked.
    source: String,
    layers: Layers,
    hosts: BTreeMap<String, Host>,
    effective: BTreeMap<String, Effective>,
}

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "from")]
pub enum Origin {
    /// Built in.
    Default,
    /// The file, at this line.
    File { path: PathBuf, line: usize },
    /// `[hosts.NAME.TABLE]` of the file, at this line.
    Host { path: PathBuf, line: usize },
    /// This environment variable.
    Environment { name: String },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Host { path, line } => write!(f, "host override {}:{line}", path.display()),
            Self::Environment { name } => write!(f, "environment {name}"),
        }
    }
}

/// Loads the file at `path` with the environment of this process.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let broken =
        |message: String| Faults::new(path, String::new(), vec![Fault::new(Place::Machine(path.into()), message)]);
    let text = read_bounded(path, FILE_LEN_MAX).map_err(|error| broken(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        broken(format!("is not UTF-8 text (line {line})"))
    })?;
    load_text(path, &text)
}

/// Loads `text` as it stands in the file at `path`, with the environment of this process.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load_text(path: &Path, text: &str) -> Result<Loaded, Faults> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with(environment::PREFIX) => {
                let fault = Fault::new(Place::Environment(name), "is not UTF-8 text");
                return Err(Faults::new(path, String::new(), vec![fault]));
            }
            // Of other programs; no business of this room.
            (Ok(_) | Err(_), _) => {}
        }
    }
    parse(path, text, &variables)
}

/// Reads a file of at most `len_max` bytes.
///
/// # Errors
/// What the system says; `FileTooLarge` for more bytes.
pub(crate) fn read_bounded(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(len_max + 1).read_to_end(&mut bytes)?;
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if len > len_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Loads `text` as it stands in the file at `path`, with these environment variables.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn parse(path: &Path, text: &str, variables: &[(String, String)]) -> Result<Loaded, Faults> {
    let source = mask::mask(text);
    let (root, mut faults) = document::parse(text);
    let is_whole = faults.is_empty();
    let root = root.unwrap_or_else(Node::empty);
    let mut walk = Walk::default();
    walk.file(&root);
    let (variables, misnamed) = environment::read(variables);
    walk.environment(&variables);
    faults.extend(misnamed);
    let layers = Layers::new(&root, &variables, &walk);
    let hosts = hosts(&root, &walk);
    let mut effective = BTreeMap::new();
    for (name, host) in &hosts {
        match layers.effective(name, host) {
            Ok(one) => drop(effective.insert(name.clone(), one)),
            Err(fault) => faults.push(fault),
        }
    }
    // With lines missing, what is missing cannot be told from what is broken.
    if is_whole {
        faults.extend(
            rules::Site { root: &root, walk: &walk, layers: &layers, hosts: &hosts, effective: &effective }.check(),
        );
    }
    faults.append(&mut walk.faults);
    if faults.is_empty() {
        Ok(Loaded { path: path.to_owned(), source, layers, hosts, effective })
    } else {
        Err(Faults::new(path, source, faults))
    }
}

/// The hosts of the file, without overrides and without what the walk found faulty.
fn hosts(root: &Node, walk: &Walk) -> BTreeMap<String, Host> {
    let good = |host: &str, section: &Section, node: &Node| -> Dict {
        let known = |key: &str| section.setting(key).map(|setting| setting.key);
        let faulty = |key| walk.faulty.contains(&(Some(host.to_owned()), section.clone(), key));
        let entries = node.entries().iter().filter(|(key, _)| known(key).is_some_and(|key| !faulty(key)));
        entries.map(|(key, value)| (key.clone(), value.plain())).collect()
    };
    let read = |(name, node): &(String, Node)| {
        let mut dict = good(name, &Section::Host, node);
        if let Some(match_) = node.get("match").filter(|node| matches!(node.content, Content::Table(_))) {
            dict.insert("match".to_owned(), good(name, &Section::Match, match_).into());
        } else {
            dict.remove("match");
        }
        for section in [Section::Interface, Section::Mount] {
            let tables = node.get(section.name()).map(Node::entries).unwrap_or_default();
            let tables: Dict =
                tables.iter().map(|(key, table)| (key.clone(), good(name, &section, table).into())).collect();
            dict.insert(section.name().to_owned(), tables.into());
        }
        (name.clone(), figment::value::Value::from(dict).deserialize().unwrap_or_default())
    };
    root.get("hosts").map(Node::entries).unwrap_or_default().iter().map(read).collect()
}

impl Loaded {
    /// The file that was loaded.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that relative paths of secrets and certificates start from.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            Some(_) | None => Path::new("."),
        }
    }

    /// The hosts of the site by name.
    #[must_use]
    pub fn hosts(&self) -> &BTreeMap<String, Host> {
        &self.hosts
    }

    /// What each host runs, by name.
    #[must_use]
    pub fn effectives(&self) -> &BTreeMap<String, Effective> {
        &self.effective
    }

    /// What this host runs; `None` when the site has no such host.
    #[must_use]
    pub fn effective(&self, host: &str) -> Option<&Effective> {
        self.effective.get(host)
    }

    /// Where the value came from that the setting has on this host.
    #[must_use]
    pub fn origin(&self, host: &str, section: &Section, setting: &Setting) -> Origin {
        let line = |offset| position(&self.source, offset).0;
        let path = self.path.clone();
        match self.layers.layer(host, section, setting.key) {
            Layer::Default => Origin::Default,
            Layer::File(place) => Origin::File { path, line: line(place.key.start) },
            Layer::Host(place) => Origin::Host { path, line: line(place.key.start) },
            Layer::Environment(name) => Origin::Environment { name: name.to_owned() },
        }
    }

    /// A fault of the machine or of the file that shows only when files are read, as faults of this file.
    pub(crate) fn faults(&self, list: Vec<Fault>) -> Faults {
        Faults::new(&self.path, self.source.clone(), list)
    }

    /// Where a fault lies that the value of this setting on this host has.
    pub(crate) fn place(&self, host: &str, section: &Section, key: &'static str) -> Place {
        match self.layers.layer(host, section, key) {
            Layer::Default => Place::Machine(self.path.clone()),
            Layer::File(place) | Layer::Host(place) => Place::File(place.value.clone()),
            Layer::Environment(name) => Place::Environment(name.to_owned()),
        }
    }
}
