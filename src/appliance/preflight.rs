//! Whether a machine and its network are fit for a mail server, before it is one.
//!
//! Owns: the findings and the order of the checks. Called by: `fife preflight`. Never: changes anything but a file of its own in the
//! directory that it measures; sends mail.
//!
//! - `network`: DNS, clock, outgoing port 25, reverse DNS, block lists; `disk`: what a sync is worth; `machine`: what is built in.

pub mod disk;
pub mod machine;
pub mod network;
#[cfg(test)]
mod tests;

use serde::Serialize;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    Ok,
    /// It works, or may work.
    Warn,
    /// Mail suffers from it.
    Bad,
}

impl Grade {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    pub check: &'static str,
    pub grade: Grade,
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), advice: None }
    }

    pub(super) fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn bad(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, grade: Grade::Bad, found: found.into(), advice: Some(advice.into()) }
    }
}
