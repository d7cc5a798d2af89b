//! Default, file, host and environment put together: one `Effective` a host, and where each value came from.
//!
//! Owns: the order of precedence, `Origin`. Called by: `load`, `fife config show`. Never: reads anything.
//!
//! A setting is taken whole from the highest layer that has it: lists and secrets are replaced, never joined.

use std::collections::BTreeMap;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Tag, Value as Plain};
use figment::{Figment, Metadata, Profile, Provider};

use super::document::Node;
use super::environment::Variable;
use super::fault::{Fault, Place};
use super::hosts::Host;
use super::schema::Section;
use super::walk::Walk;
use super::{Effective, Tables, site::Site};

/// Where the value of a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layer<'a> {
    Default,
    File(&'a NodePlace),
    Host(&'a NodePlace),
    Environment(&'a str),
}

/// Where a value stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePlace {
    pub(crate) key: std::ops::Range<usize>,
    pub(crate) value: std::ops::Range<usize>,
}

/// Values of settings by section and key.
type Settings = BTreeMap<(Section, &'static str), (Plain, Option<NodePlace>, Option<String>)>;

/// The layers above the defaults.
#[derive(Default)]
pub(crate) struct Layers {
    file: Settings,
    hosts: BTreeMap<String, Settings>,
    environment: Settings,
}

impl Layers {
    /// The layers of this file and these variables, without what the walk found faulty.
    pub(crate) fn new(root: &Node, variables: &[Variable], walk: &Walk) -> Self {
        let faulty = |host: Option<&str>, section: &Section, key: &'static str| {
            walk.faulty.contains(&(host.map(str::to_owned), section.clone(), key))
        };
        let read = |host: Option<&str>, table: &Node| {
            let sections = Section::shared().filter_map(|section| Some((table.get(section.name())?, section)));
            let mut settings = Settings::new();
            for (node, section) in sections.filter(|(_, section)| host.is_none() || *section != Section::Site) {
                for (key, value) in node.entries() {
                    let Some(setting) = section.setting(key).filter(|setting| !faulty(host, &section, setting.key))
                    else {
                        continue;
                    };
                    let place = NodePlace { key: value.key.clone(), value: value.value.clone() };
                    settings.insert((section.clone(), setting.key), (value.plain(), Some(place), None));
                }
            }
            settings
        };
        let hosts = root.get("hosts").map(Node::entries).unwrap_or_default();
        let variable = |variable: &Variable| {
            let entry = (variable.node.plain(), None, Some(variable.name.clone()));
            ((variable.section.clone(), variable.key), entry)
        };
        let good = variables.iter().filter(|variable| !faulty(None, &variable.section, variable.key));
        Self {
            file: read(None, root),
            hosts: hosts.iter().map(|(name, host)| (name.clone(), read(Some(name), host))).collect(),
            environment: good.map(variable).collect(),
        }
    }

    /// Where the value comes from that this setting has on this host.
    pub(crate) fn layer(&self, host: &str, section: &Section, key: &'static str) -> Layer<'_> {
        let at = (section.clone(), key);
        if let Some((_, _, Some(name))) = self.environment.get(&at) {
            return Layer::Environment(name);
        }
        if let Some((_, Some(place), _)) = self.hosts.get(host).and_then(|settings| settings.get(&at)) {
            return Layer::Host(place);
        }
        match self.file.get(&at) {
            Some((_, Some(place), _)) => Layer::File(place),
            _ => Layer::Default,
        }
    }

    /// What this host runs.
    pub(crate) fn effective(&self, name: &str, host: &Host) -> Result<Effective, Fault> {
        let mut above: BTreeMap<(Section, &'static str), Plain> = BTreeMap::new();
        let mut figment = Figment::from(Serialized::default("site", Site::default()))
            .merge(Serialized::default("tables", Tables::default()));
        let mut layers = Vec::new();
        // From the highest down: a setting is in one layer only, so that figment has nothing to join.
        for (name, settings) in
            [("environment", Some(&self.environment)), ("host", self.hosts.get(name)), ("file", Some(&self.file))]
        {
            let mut layer = SettingsLayer { name, site: Dict::new(), tables: Dict::new() };
            for ((section, key), (value, _, _)) in settings.into_iter().flatten() {
                if above.insert((section.clone(), key), value.clone()).is_none() {
                    layer.insert(section, key, value.clone());
                }
            }
            layers.push(layer);
        }
        for layer in layers.into_iter().rev() {
            figment = figment.merge(layer);
        }
        let fault = |error: figment::Error| {
            // The walk has tried each value alone; what fails only together is ours.
            Fault::new(Place::File(0..0), format!("`{}` of host `{name}` is refused", error.path.join(".")))
        };
        let mut roles = host.roles.clone();
        roles.sort_unstable();
        roles.dedup();
        Ok(Effective {
            host: name.to_owned(),
            roles,
            site: figment.extract_inner("site").map_err(fault)?,
            tables: figment.extract_inner("tables").map_err(fault)?,
        })
    }
}

/// One layer as figment takes it.
struct SettingsLayer {
    name: &'static str,
    site: Dict,
    tables: Dict,
}

impl SettingsLayer {
    fn insert(&mut self, section: &Section, key: &str, value: Plain) {
        match section {
            Section::Site => {
                self.site.insert(key.to_owned(), value);
            }
            Section::Table(name) => {
                let table =
                    self.tables.entry((*name).to_owned()).or_insert_with(|| Plain::Dict(Tag::Default, Dict::new()));
                if let Plain::Dict(_, table) = table {
                    table.insert(key.to_owned(), value);
                }
            }
            Section::Host | Section::Match | Section::Interface | Section::Mount => {}
        }
    }
}

impl Provider for SettingsLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = Dict::from([
            ("site".to_owned(), Plain::Dict(Tag::Default, self.site.clone())),
            ("tables".to_owned(), Plain::Dict(Tag::Default, self.tables.clone())),
        ]);
        Ok(Map::from([(Profile::Default, dict)]))
    }
}
