//! `[site]`: what holds for every host.
//!
//! Owns: `Site`. Called by: loading, the supervisor, roles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::base::address::Domain;

/// What the site is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Site {
    /// Short name of the site; also the organisation (o=) at the top of the embedded directory. Required. (Restarts every role.)
    pub name: String,
    /// The site's first mail domain; made in the directory at first start. Required. (Restarts every role.)
    pub domain: Option<Domain>,
    /// Key from which the hosts of the site know each other. Needed as soon as the site has more than one host. (Restarts every role.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Language of what fife itself writes to users. (Restarts every role.)
    pub language: Language,
}

/// Languages that fife speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Language {
    #[default]
    #[serde(rename = "en")]
    English,
    #[serde(rename = "zh-CN")]
    Chinese,
}
