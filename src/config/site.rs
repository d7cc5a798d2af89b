//! `[site]`: what holds for every host.
//!
//! Owns: `Site`. Called by: loading, the supervisor, roles.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hosts::{HostAddress, text_type};
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
    /// Servers that tell the time (SNTP), for hosts that boot fife itself. Empty: those that a DHCP server names; where it names none, the clock is the machine's own. Most of those that answer must agree: name three or more, of people whom you trust. (Restarts nothing.)
    #[schemars(length(max = TIME_SERVERS_MAX))]
    pub time_servers: Vec<TimeServer>,
    /// Directory of everything the site keeps. A relative path starts from where fife was called. `--state` and the environment variable `FIFE_STATE` come before it. (Needs `fife stop` and `fife run`.)
    pub state: PathBuf,
}

/// Time servers, at most.
pub const TIME_SERVERS_MAX: usize = 8;
/// The port of NTP (RFC 4330 section 4).
const NTP_PORT: u16 = 123;

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

/// A server that tells the time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeServer {
    pub host: HostAddress,
    /// None: the usual one.
    pub port: Option<u16>,
}

impl TimeServer {
    /// Where it is asked.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(NTP_PORT)
    }
}

impl FromStr for TimeServer {
    type Err = TimeServerError;

    fn from_str(text: &str) -> Result<Self, TimeServerError> {
        // An IPv6 address has colons of its own: with a port it stands in brackets.
        if let Ok(host) = text.parse() {
            return Ok(Self { host, port: None });
        }
        let (host, port) = text.rsplit_once(':').ok_or(TimeServerError)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(ip) => HostAddress::Ip(ip.parse().map_err(|_| TimeServerError)?),
            None => host.parse().map_err(|_| TimeServerError)?,
        };
        let is_number = port.chars().all(|c| c.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port > 0 && is_number).ok_or(TimeServerError)?;
        let is_bare = matches!(host, HostAddress::Ip(IpAddr::V6(_))) && !text.starts_with('[');
        if is_bare { Err(TimeServerError) } else { Ok(Self { host, port: Some(port) }) }
    }
}

impl fmt::Display for TimeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (host, None) => write!(f, "{host}"),
            (HostAddress::Ip(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}"),
            (host, Some(port)) => write!(f, "{host}:{port}"),
        }
    }
}

/// The text names no time server.
#[derive(Debug, thiserror::Error)]
#[error("expected a time server such as \"ntp.example.edu.cn\"")]
pub struct TimeServerError;

text_type!(
    TimeServer,
    "a time server such as \"ntp.example.edu.cn\" or \"192.0.2.123\", with \":PORT\" behind it if it is not 123"
);
