//! Where a service listens or is reached: TCP or unix socket.
//!
//! Owns: `SocketAddress`. Called by: tables, the supervisor (binds), roles (connect).

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(super) const EXPECTED: &str = "an address such as \"0.0.0.0:25\", \"[::]:25\" or \"unix:run/lmtp.sock\"";

/// An IP address with port, or `unix:PATH`. A relative path lies in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl SocketAddress {
    /// The same address with a relative unix path put into `state_dir`.
    #[must_use]
    pub fn in_dir(&self, state_dir: &Path) -> Self {
        match self {
            Self::Tcp(address) => Self::Tcp(*address),
            Self::Unix(path) => Self::Unix(state_dir.join(path)),
        }
    }
}

/// The text is no such address.
#[derive(Debug, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct SocketAddressError;

impl FromStr for SocketAddress {
    type Err = SocketAddressError;

    fn from_str(text: &str) -> Result<Self, SocketAddressError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(SocketAddressError),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| SocketAddressError),
        }
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for SocketAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SocketAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &EXPECTED))
    }
}

impl JsonSchema for SocketAddress {
    fn schema_name() -> Cow<'static, str> {
        "SocketAddress".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "An IP address with port, or unix:PATH (a relative path lies in the state directory).", "type": "string" })
    }
}
