//! `[log]`: where log lines go.
//!
//! Owns: `Log`. Called by: the supervisor, `net::log`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where log lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Log {
    /// Least important line that is written. (Restarts every role.)
    pub level: Level,
    /// Form of a line. (Restarts every role.)
    pub format: Format,
    /// File that lines are appended to, in place of standard error. A relative path lies in the state directory. (Restarts every role.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Importance of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// What failed and needs somebody.
    Error,
    /// What went wrong and was survived.
    Warn,
    /// One line for each session, message and start.
    #[default]
    Info,
    /// What roles decide and why.
    Debug,
    /// Everything.
    Trace,
}

/// Form of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One `key=value` line an event (logfmt).
    Text,
    /// One JSON object an event.
    Json,
}
