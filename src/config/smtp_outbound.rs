//! `[smtp-outbound]`: mail that leaves for other sites.
//!
//! Owns: `SmtpOutbound`, `Route`. Called by: the smtp role.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hosts::HostAddress;
use super::secret::Secret;
use crate::base::address::Domain;
use crate::base::duration::Span;

const PATTERN: &str = "a domain such as \"example.org\", all domains below one as \".example.org\", or \"*\" for all";

/// Mail that leaves for other sites: by which way, how fast, how safely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SmtpOutbound {
    /// Port at which other sites take mail: 25, but in tests. (Restarts smtp.)
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// TLS towards other sites, where no route says otherwise. (Restarts smtp.)
    pub tls: Tls,
    /// Ways for mail to certain domains; the first that fits holds, all else goes by MX. docs/mail-flow.md has the keys of a route, and examples. (Restarts smtp.)
    pub routes: Vec<Route>,
    /// Connections at a time to all destinations together. (Restarts smtp.)
    #[schemars(range(min = 2, max = 10_000))]
    pub sessions_max: u32,
    /// Connections at a time to one destination; it begins with two and gets more as they do well. (Restarts smtp.)
    #[schemars(range(min = 1, max = 1000))]
    pub destination_sessions_max: u32,
    /// Messages a minute to one destination; 0: as many as it takes. (Restarts smtp.)
    #[schemars(range(min = 0, max = 1_000_000))]
    pub destination_messages_per_minute_max: u32,
    /// Messages over one connection. (Restarts smtp.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub session_messages_max: u32,
    /// How long a connection is kept that has nothing to carry. (Restarts smtp.)
    #[schemars(extend("x-max" = "5m"))]
    pub session_idle_max: Span,
    /// How long another server may take to accept a connection. (Restarts smtp.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "5m"))]
    pub connect_timeout: Span,
    /// Age at which the sender of a message that still waits is told so, once; "0s": never. (Restarts smtp.)
    #[schemars(extend("x-max" = "30d"))]
    pub delay_warning_after: Span,
}

impl Default for SmtpOutbound {
    fn default() -> Self {
        Self {
            port: 25,
            tls: Tls::Opportunistic,
            routes: Vec::new(),
            sessions_max: 200,
            destination_sessions_max: 20,
            destination_messages_per_minute_max: 0,
            session_messages_max: 100,
            session_idle_max: Span::secs(2),
            connect_timeout: Span::secs(30),
            delay_warning_after: Span::hours(4),
        }
    }
}

/// What is asked of TLS towards another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Never.
    None,
    /// Where it is offered, without asking who is there; in the clear when it fails (RFC 7435).
    Opportunistic,
    /// Always, without asking who is there: safe from those who only listen.
    Required,
    /// Always, and the certificate must be for the host's name and by an authority that this machine trusts.
    Verified,
}

/// A way for mail to certain domains.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Route {
    /// Whose mail goes this way.
    pub domains: Vec<Pattern>,
    /// The server that takes it, a name or an IP address; none: by MX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostAddress>,
    /// Its port; none: as in the table, 465 with `implicit-tls`, 587 with a `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// TLS before the first octet (RFC 8314 section 3).
    pub implicit_tls: bool,
    /// What is asked of TLS; none: as in the table, "verified" with `implicit-tls` or a `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// By whom we sign in; never without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password of `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Mail waits until an administrator releases it.
    pub hold: bool,
    /// Connections at a time; none: `destination-sessions-max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_max: Option<u32>,
    /// Messages a minute; none: `destination-messages-per-minute-max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_minute_max: Option<u32>,
}

impl Route {
    /// What of it contradicts itself.
    #[must_use]
    pub fn contradiction(&self) -> Option<&'static str> {
        let clear = self.tls == Some(Tls::None) && !self.implicit_tls;
        let rows = [
            (self.domains.is_empty(), "`domains` is empty: no mail would go this way"),
            (self.user.is_some() != self.password.is_some(), "`user` and `password` go together"),
            (self.user.is_some() && self.host.is_none(), "`user` needs a `host`"),
            (
                self.user.is_some() && (clear || self.tls == Some(Tls::Opportunistic)),
                "a password needs TLS: `tls` is to be \"required\" or \"verified\"",
            ),
            (self.implicit_tls && self.host.is_none(), "`implicit-tls` needs a `host`"),
            (
                self.implicit_tls && self.tls == Some(Tls::None),
                "`implicit-tls` and `tls` = \"none\" contradict each other",
            ),
            (self.port == Some(0), "`port` is 0"),
            (self.sessions_max == Some(0), "`sessions-max` is 0: use `hold` to keep mail"),
        ];
        rows.iter().find(|(wrong, _)| *wrong).map(|(_, what)| *what)
    }
}

/// Whose mail goes a way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// "*".
    All,
    /// "example.org".
    Domain(Domain),
    /// ".example.org": what is below it.
    Below(Domain),
}

impl Pattern {
    /// Whether the pattern fits this domain.
    #[must_use]
    pub fn fits(&self, domain: &str) -> bool {
        match self {
            Self::All => true,
            Self::Domain(own) => own.as_str() == domain,
            Self::Below(above) => domain.strip_suffix(above.as_str()).is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

/// The text is no such pattern.
#[derive(Debug, thiserror::Error)]
#[error("expected {PATTERN}")]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text.strip_prefix('.') {
            _ if text == "*" => Ok(Self::All),
            Some(above) => above.parse().map(Self::Below).map_err(|_| PatternError),
            None => text.parse().map(Self::Domain).map_err(|_| PatternError),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Domain(domain) => domain.fmt(f),
            Self::Below(domain) => write!(f, ".{domain}"),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &PATTERN))
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": PATTERN, "type": "string" })
    }
}
