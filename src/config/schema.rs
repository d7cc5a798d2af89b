//! What settings there are: the JSON Schema made from the types, and the same facts for checks and manuals.
//!
//! Owns: `schema`, `Section`, `Setting`, `Kind`. Called by: `walk`, `environment`, `layers`, the reference, `fife config`.
//! Never: a list of settings of its own; the types with their doc comments are the one source.
//! Spec: JSON Schema draft 2020-12. Keywords of our own: `x-min`, `x-max` (bounds of sizes and durations), `x-example`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use figment::error::Kind as Wrong;
use figment::value::{Dict, Tag, Value as Plain};
use serde_json::{Map, Value, json};

use super::hosts::{Host, Match};
use super::mounts::Mount;
use super::network::Interface;
use super::{Config, Tables, site::Site};

/// A TOML table whose keys are settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `[site]`.
    Site,
    /// `[hosts.NAME]`.
    Host,
    /// `match` of a host.
    Match,
    /// `[hosts.NAME.network.INTERFACE]`.
    Interface,
    /// `[hosts.NAME.mounts.X]`.
    Mount,
    /// A table that holds for the site and can be overridden for a host.
    Table(&'static str),
}

impl Section {
    /// What stands below a host: `match`, its interfaces, its mounts.
    pub const OF_HOST: [Self; 3] = [Self::Match, Self::Interface, Self::Mount];

    /// `[site]` and the tables, in the order of the reference.
    pub fn shared() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Site).chain(Self::tables().iter().map(|name| Self::Table(name)))
    }

    /// Names of the tables that can be overridden for a host.
    #[must_use]
    pub fn tables() -> &'static [&'static str] {
        static NAMES: LazyLock<&'static [&'static str]> = LazyLock::new(|| {
            let wrong = Plain::from(Dict::from([(IMPOSSIBLE.to_owned(), 0.into())]));
            known_in(&wrong.deserialize::<Tables>().map(|_| ()))
        });
        *NAMES
    }

    /// The section of this name at the top of the file: `site` or a table.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::shared().find(|section| section.name() == name)
    }

    /// The name at the top of the file; `hosts`, and the key in the host, for what stands below.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Host => "hosts",
            Self::Match => "match",
            Self::Interface => "network",
            Self::Mount => "mounts",
            Self::Table(name) => name,
        }
    }

    /// Its settings by key.
    #[must_use]
    pub fn settings(&self) -> &'static [Setting] {
        static ALL: LazyLock<BTreeMap<Section, Vec<Setting>>> = LazyLock::new(|| {
            let sections = Section::shared().chain([Section::Host]).chain(Section::OF_HOST);
            sections.map(|section| (section.clone(), section.read_settings())).collect()
        });
        ALL.get(self).map_or(&[], Vec::as_slice)
    }

    /// The setting of this key.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&'static Setting> {
        self.settings().iter().find(|setting| setting.key == key)
    }

    /// Whether a table with only these keys can be read as this section: the types themselves decide.
    pub(crate) fn trial(&self, dict: Dict) -> Result<(), Box<figment::Error>> {
        match self {
            Self::Site => Plain::from(dict).deserialize::<Site>().map(|_| ()),
            Self::Host => Plain::from(dict).deserialize::<Host>().map(|_| ()),
            Self::Match => Plain::from(dict).deserialize::<Match>().map(|_| ()),
            Self::Interface => Plain::from(dict).deserialize::<Interface>().map(|_| ()),
            Self::Mount => Plain::from(dict).deserialize::<Mount>().map(|_| ()),
            Self::Table(name) => {
                let dict = Dict::from([((*name).to_owned(), Plain::Dict(Tag::Default, dict))]);
                Plain::from(dict).deserialize::<Tables>().map(|_| ())
            }
        }
        .map_err(Box::new)
    }

    /// The settings as the types and the schema have them, in the order of the types.
    fn read_settings(&self) -> Vec<Setting> {
        let keys = known_in(&self.trial(Dict::from([(IMPOSSIBLE.to_owned(), 0.into())])).map_err(|error| *error));
        let schema = self.schema();
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|name| name == key));
        let read =
            |key: &&'static str| Setting::read(key, schema.pointer(&format!("/properties/{key}"))?, is_required(key));
        keys.iter().filter_map(read).collect()
    }

    fn schema(&self) -> &'static Value {
        match self {
            Self::Host => definition("Host"),
            Self::Match => definition("Match"),
            Self::Interface => definition("Interface"),
            Self::Mount => definition("Mount"),
            Self::Site | Self::Table(_) => {
                schema().pointer(&format!("/properties/{}", self.name())).map_or(&Value::Null, resolve)
            }
        }
    }

    /// What the section is for.
    #[must_use]
    pub fn description(&self) -> &'static str {
        let entry = match self {
            Self::Interface | Self::Mount => Some(self.schema()),
            Self::Site | Self::Host | Self::Match | Self::Table(_) => {
                schema().pointer(&format!("/properties/{}", self.name()))
            }
        };
        entry.and_then(|entry| entry.get("description")).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A key that no table can have: asked for, it makes serde tell the keys there are.
const IMPOSSIBLE: &str = "\0";

/// The names that serde tells with "unknown field", in the order of the type.
fn known_in(outcome: &Result<(), figment::Error>) -> &'static [&'static str] {
    match outcome {
        Err(figment::Error { kind: Wrong::UnknownField(_, known), .. }) => known,
        Ok(()) | Err(_) => &[],
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub key: &'static str,
    /// The doc comment: what it does, and what restarts when it changes.
    pub description: &'static str,
    pub kind: Kind,
    /// The value it has when nothing is said; `None` when it then has no value.
    pub default: Option<&'static Value>,
    /// Must be given.
    pub required: bool,
    /// Something to show where there is no default.
    pub example: Option<&'static str>,
    /// Bounds of a size, a duration, or each of a list of them, as text.
    pub bounds: (Option<&'static str>, Option<&'static str>),
    /// Bounds of the number of items of a list.
    pub items: (u64, u64),
}

/// What a setting can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    /// A whole number within these bounds.
    Integer(i64, i64),
    Text,
    /// One of these words, each with what it means.
    Choice(Vec<(&'static str, &'static str)>),
    /// A type of its own that is written as text (or, a size, as a number): its name in the schema, what is expected.
    Typed(&'static str, &'static str),
    Secret,
    List(Box<Kind>),
    Table,
}

impl Setting {
    fn read(key: &'static str, schema: &'static Value, required: bool) -> Option<Self> {
        let text = |name: &str| schema.get(name).and_then(Value::as_str);
        let count = |name: &str, otherwise| schema.get(name).and_then(Value::as_u64).unwrap_or(otherwise);
        Some(Self {
            key,
            description: text("description").unwrap_or_default(),
            kind: Kind::read(schema)?,
            default: schema.get("default"),
            required,
            example: text("x-example"),
            bounds: (text("x-min"), text("x-max")),
            items: (count("minItems", 0), count("maxItems", u64::MAX)),
        })
    }

    /// What can be given, with the bounds, as in "expected …".
    #[must_use]
    pub fn expected(&self) -> String {
        let mut text = self.kind.expected();
        text.push_str(&match self.bounds {
            (Some(min), Some(max)) => format!(", from {min} to {max}"),
            (Some(min), None) => format!(", at least {min}"),
            (None, Some(max)) => format!(", at most {max}"),
            (None, None) => String::new(),
        });
        text.push_str(&match self.items {
            (0, u64::MAX) => String::new(),
            (min, u64::MAX) => format!(", at least {min} of them"),
            (min, max) => format!(", {min} to {max} of them"),
        });
        text
    }
}

impl Kind {
    fn read(schema: &'static Value) -> Option<Self> {
        if let Some(name) = reference(schema) {
            return Self::read_definition(name);
        }
        match schema.get("type").and_then(Value::as_str)? {
            "boolean" => Some(Self::Boolean),
            "integer" => {
                let bound = |name: &str, otherwise| schema.get(name).and_then(Value::as_i64).unwrap_or(otherwise);
                Some(Self::Integer(bound("minimum", 0), bound("maximum", i64::from(u32::MAX))))
            }
            "string" => Some(Self::Text),
            "array" => Some(Self::List(Box::new(Self::read(schema.get("items")?)?))),
            "object" => Some(Self::Table),
            _ => None,
        }
    }

    fn read_definition(name: &'static str) -> Option<Self> {
        let schema = definition(name);
        if name == "Secret" {
            return Some(Self::Secret);
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return Some(Self::Choice(words.iter().filter_map(|word| Some((word.as_str()?, ""))).collect()));
        }
        if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
            let word = |variant: &'static Value| {
                let meaning = variant.get("description").and_then(Value::as_str).unwrap_or_default();
                Some((variant.get("const")?.as_str()?, meaning))
            };
            return Some(Self::Choice(variants.iter().filter_map(word).collect()));
        }
        if schema.get("properties").is_some() {
            return Some(Self::Table);
        }
        Some(Self::Typed(name, schema.get("description").and_then(Value::as_str).unwrap_or(name)))
    }

    /// What can be given, as in "expected …".
    #[must_use]
    pub fn expected(&self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Text => "text in quotes".to_owned(),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                match words.as_slice() {
                    [one] => one.clone(),
                    [first @ .., last] => format!("{} or {last}", first.join(", ")),
                    [] => "nothing".to_owned(),
                }
            }
            Self::Typed("Size", _) => "a size such as \"64 KiB\", \"25 MiB\" or a number of bytes".to_owned(),
            Self::Typed("Span", _) => "a duration such as \"30s\", \"5m\" or \"1h 30m\"".to_owned(),
            Self::Typed("SocketAddress", _) => super::address::EXPECTED.to_owned(),
            Self::Typed(_, expected) => (*expected).to_owned(),
            Self::Secret => super::secret::EXPECTED.to_owned(),
            Self::List(inner) => format!("a list, each {}", inner.expected()),
            Self::Table => "a table".to_owned(),
        }
    }
}

/// The JSON Schema of the file.
#[must_use]
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let mut schema = schemars::schema_for!(Config).to_value();
        strip_null(&mut schema);
        let overrides = overrides(&schema);
        let set = |schema: &mut Value, at: &str, key: &str, value: Value| {
            if let Some(map) = schema.pointer_mut(at).and_then(Value::as_object_mut) {
                map.insert(key.to_owned(), value);
            }
        };
        if let Some(properties) = schema.pointer_mut("/$defs/Host/properties").and_then(Value::as_object_mut) {
            properties.extend(overrides);
        }
        set(&mut schema, "", "title", json!("fife.toml"));
        set(&mut schema, "", "description", json!("One TOML file describes a site of fife."));
        set(&mut schema, "", "additionalProperties", json!(false));
        set(&mut schema, "", "required", json!(["site", "hosts"]));
        set(&mut schema, "/$defs/Site", "required", json!(["name", "domain"]));
        set(&mut schema, "/$defs/Host", "required", json!(["roles"]));
        set(&mut schema, "/$defs/Mount", "required", json!(["device"]));
        set(&mut schema, "/$defs/Host/properties/roles", "minItems", json!(1));
        set(&mut schema, "/properties/hosts", "minProperties", json!(1));
        for required in ["/$defs/Site/properties/name", "/$defs/Host/properties/roles"] {
            if let Some(map) = schema.pointer_mut(required).and_then(Value::as_object_mut) {
                map.remove("default");
            }
        }
        schema
    });
    &SCHEMA
}

/// The properties of `[hosts.NAME]` that override tables.
fn overrides(schema: &Value) -> Map<String, Value> {
    let shared = schema.get("properties").and_then(Value::as_object);
    let tables = shared.into_iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "site" | "hosts"));
    let entry = |(name, table): (&String, &Value)| {
        let description = format!("Overrides of [{name}] for this host.");
        (name.clone(), json!({ "$ref": table.get("$ref"), "description": description }))
    };
    tables.map(entry).collect()
}

/// Takes out what TOML cannot say (null), and defaults of whole tables (they stand at their settings).
fn strip_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(strip_null),
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    map.insert("type".to_owned(), one);
                }
            }
            map.retain(|key, value| key != "default" || !(value.is_null() || value.is_object()));
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(one)] = choices.as_slice() {
                    let one = one.clone();
                    map.remove("anyOf");
                    map.extend(one);
                }
            }
            map.values_mut().for_each(strip_null);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The name of the definition that this schema refers to.
fn reference(schema: &'static Value) -> Option<&'static str> {
    schema.get("$ref").and_then(Value::as_str)?.strip_prefix("#/$defs/")
}

/// The definition of this name.
fn definition(name: &str) -> &'static Value {
    schema().pointer(&format!("/$defs/{name}")).unwrap_or(&Value::Null)
}

/// What a reference leads to, or the schema itself.
fn resolve(schema: &'static Value) -> &'static Value {
    reference(schema).map_or(schema, definition)
}

/// A value as it is written in TOML.
#[must_use]
pub fn toml_text(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => toml_edit::Value::from(text.as_str()).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| format!("{key} = {}", toml_text(value));
            format!("{{ {} }}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}
