//! `[update]`: where new versions of the system come from, and whose signature they carry.
//!
//! Owns: `Update`, `BundleUrl`, `UpdateKey`. Called by: `fife update`. Never: fetches anything.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use minisign_verify::PublicKey;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// New versions of the system: `fife update` on a machine that booted from fife's image. Nothing is ever updated by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Update {
    /// Where `fife update` finds the newest bundle when it is told no file or URL; its signature is at the same URL with `.minisig` at the end. (Restarts nothing.)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-example" = "https://mirror.example.edu.cn/fife/fife.update"))]
    pub url: Option<BundleUrl>,
    /// The minisign key whose signatures are believed, in place of the one in the image: its line of base64. (Restarts nothing.)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-example" = "RWQA0XpspaWIHbkgp1Fbjfxzwb3WSDkLguZcwhPdqQm9ywXq10cyUXNV"))]
    pub key: Option<UpdateKey>,
}

/// An `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleUrl(hyper::Uri);

impl BundleUrl {
    /// The URL, which has a host.
    #[must_use]
    pub fn uri(&self) -> &hyper::Uri {
        &self.0
    }

    /// The URL of a file beside it: with more at the end of the path.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let (path, query) = (self.0.path(), self.0.query());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = self.0.clone().into_parts();
        // What is in a URL already, and a suffix of ours, are in one again.
        parts.path_and_query = format!("{path}{suffix}{query}").parse().ok();
        Self(hyper::Uri::from_parts(parts).unwrap_or_else(|_| self.0.clone()))
    }
}

const URL_EXPECTED: &str = "a URL such as \"https://mirror.example.edu.cn/fife/fife.update\"";

/// The text is no such URL.
#[derive(Debug, thiserror::Error)]
#[error("expected {URL_EXPECTED}")]
pub struct BundleUrlError;

impl FromStr for BundleUrl {
    type Err = BundleUrlError;

    fn from_str(text: &str) -> Result<Self, BundleUrlError> {
        let uri: hyper::Uri = text.parse().map_err(|_| BundleUrlError)?;
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        // RFC 9110 section 4.2.1: an http URI with an empty host is invalid. Credentials in one are for nobody to see (section 4.2.4).
        let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if is_known && is_plain && uri.host().is_some_and(|host| !host.is_empty()) {
            Ok(Self(uri))
        } else {
            Err(BundleUrlError)
        }
    }
}

impl fmt::Display for BundleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for BundleUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BundleUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &URL_EXPECTED))
    }
}

impl JsonSchema for BundleUrl {
    fn schema_name() -> Cow<'static, str> {
        "BundleUrl".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": URL_EXPECTED, "type": "string" })
    }
}

/// A minisign key to verify with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateKey {
    text: String,
    key: PublicKey,
}

const KEY_EXPECTED: &str = "a minisign key: the line of base64 in the .pub file, or the whole file";

/// The text is no such key.
#[derive(Debug, thiserror::Error)]
#[error("expected {KEY_EXPECTED}")]
pub struct UpdateKeyError;

impl UpdateKey {
    /// What verifies.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

impl FromStr for UpdateKey {
    type Err = UpdateKeyError;

    fn from_str(text: &str) -> Result<Self, UpdateKeyError> {
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).ok_or(UpdateKeyError)?;
        let key = PublicKey::from_base64(line).map_err(|_| UpdateKeyError)?;
        Ok(Self { text: line.to_owned(), key })
    }
}

impl fmt::Display for UpdateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for UpdateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UpdateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &KEY_EXPECTED))
    }
}

impl JsonSchema for UpdateKey {
    fn schema_name() -> Cow<'static, str> {
        "UpdateKey".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": KEY_EXPECTED, "type": "string" })
    }
}
