//! A value that must not be seen: inline, in a file, or in the environment.
//!
//! Owns: `Secret`, where a secret is, and `SecretText`, the secret itself. Called by: tables, loading.
//! Never: prints what it holds; `Debug`, `Display` and `Serialize` show only where it comes from.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// What a secret is written as.
pub(super) const EXPECTED: &str = "a secret: text, { file = \"PATH\" } or { env = \"NAME\" }";

/// Where a secret is: the text itself, `{ file = "PATH" }`, or `{ env = "NAME" }`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a secret: text, { file = \"PATH\" } or { env = \"NAME\" }")]
pub enum Secret {
    Inline(String),
    File(FileSecret),
    Env(EnvSecret),
}

/// `{ file = "PATH" }`: the file's content without trailing line end. A relative path lies beside the TOML.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSecret {
    pub file: PathBuf,
}

/// `{ env = "NAME" }`: an environment variable of `fife run`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvSecret {
    pub env: String,
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("(hidden)"),
            Self::File(secret) => write!(f, "(from file {})", secret.file.display()),
            Self::Env(secret) => write!(f, "(from environment {})", secret.env),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inline(_) => serializer.serialize_str("(hidden)"),
            Self::File(secret) => secret.serialize(serializer),
            Self::Env(secret) => secret.serialize(serializer),
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The text itself, { file = \"PATH\" } or { env = \"NAME\" }. Never shown in logs, errors or `fife config show`.",
            "oneOf": [
                { "type": "string" },
                { "type": "object", "properties": { "file": { "type": "string" } }, "required": ["file"], "additionalProperties": false },
                { "type": "object", "properties": { "env": { "type": "string" } }, "required": ["env"], "additionalProperties": false }
            ]
        })
    }
}

/// A secret in hand. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Takes the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
