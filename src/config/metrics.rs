//! `[metrics]`: Prometheus text and health of the whole host.
//!
//! Owns: `Metrics`. Called by: the supervisor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::SocketAddress;

/// Prometheus text and health of the whole host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Metrics {
    /// Where `GET /metrics` and `GET /health` are answered. Give it no address that strangers reach. (Takes effect at once.)
    pub listen: Vec<SocketAddress>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: vec![SocketAddress::Tcp(([127, 0, 0, 1], 9090).into())] }
    }
}
