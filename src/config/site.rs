//! `[site]`: what holds for every host.
//!
//! Owns: `Site`. Called by: loading, the supervisor, roles.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hosts::HostAddress;
use super::secret::Secret;
use crate::base::address::Domain;

/// What the site is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Site {
    /// Short name of the site: letters, digits, spaces, hyphens, underscores, dots. Also the organisation (o=) at the top of the embedded directory. Required. (Restarts every role.)
    #[schemars(length(min = 1, max = 64), extend("x-example" = "campus"))]
    pub name: String,
    /// The site's first mail domain; made in the directory at first start. Required. (Restarts every role.)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-example" = "example.edu.cn"))]
    pub domain: Option<Domain>,
    /// Key from which the hosts of the site know each other, at least 16 characters. Needed as soon as the site has more than one host. (Restarts every role.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Language of what fife itself writes to users. (Restarts every role.)
    pub language: Language,
    /// Servers that tell the time (SNTP), for hosts that boot fife itself, names or IP addresses. Not carried out by this version, which says so on the console: the clock is the machine's own. (Restarts nothing.)
    #[schemars(length(max = 8))]
    pub time_servers: Vec<HostAddress>,
    /// Directory of everything the site keeps. A relative path starts from where fife was called. `--state` and the environment variable `FIFE_STATE` come before it. (Needs `fife stop` and `fife run`.)
    pub state: PathBuf,
}

/// Letters of the site's name, at most: it stands in every DN of the embedded directory.
pub const NAME_CHARS_MAX: usize = 64;
/// Octets of the site's secret, at least.
pub const SECRET_LEN_MIN: usize = 16;

impl Site {
    /// Whether the name can stand as `o=NAME` in a DN without escapes (RFC 4514 section 2.4).
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        let inner = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
        name.trim() == name && (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && name.chars().all(inner)
    }
}

impl Default for Site {
    fn default() -> Self {
        Self {
            name: String::new(),
            domain: None,
            secret: None,
            language: Language::English,
            time_servers: Vec::new(),
            state: PathBuf::from("/var/lib/fife"),
        }
    }
}

/// Languages that fife speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Language {
    /// English.
    #[default]
    #[serde(rename = "en")]
    English,
    /// Simplified Chinese.
    #[serde(rename = "zh-CN")]
    Chinese,
}
