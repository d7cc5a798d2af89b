//! `[tls]`: the certificate that every service of the host shows.
//!
//! Owns: `Tls`. Called by: the supervisor, which reads the files and hands their content to roles.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The certificate that every service of the host shows. With none given, a self-signed one is made and kept in the state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Tls {
    /// PEM file with the certificate and its chain. A relative path lies beside the TOML. (Restarts the roles that use TLS.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key. A relative path lies beside the TOML. (Restarts the roles that use TLS.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}
