//! What is known of the clock, to be shown.
//!
//! Owns: `Report`, the words of it. Called by: `keeper` (fills it), the console, the status, metrics.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The clock at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it says, in seconds since 1970.
    pub unix_secs: u64,
    pub source: Source,
    /// Servers agree on the time, and have said so not long ago.
    pub synchronised: bool,
    /// What had to be added to it by the last answer on which servers agreed.
    pub offset_secs: Option<f64>,
    /// Since that answer.
    pub answer_age_secs: Option<u64>,
    pub servers: Vec<ServerReport>,
    /// What is wrong, in words.
    pub troubles: Vec<String>,
}

/// Where the clock has its time from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The machine's own clock, which runs without power.
    Hardware,
    /// That one was wrong: the last time that is known not to be in the future.
    LastKnown,
    /// Somebody set it.
    Hand,
    Servers,
}

/// A time server at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    pub server: String,
    /// Why it does not count; none when it answers.
    pub fault: Option<String>,
}

impl Report {
    /// What it says, for people.
    #[must_use]
    pub fn date(&self) -> String {
        date(UNIX_EPOCH.checked_add(Duration::from_secs(self.unix_secs)).unwrap_or(UNIX_EPOCH))
    }

    /// In a few words that do not change with every second.
    #[must_use]
    pub fn brief(&self) -> String {
        let answering = self.servers.iter().filter(|server| server.fault.is_none()).count();
        let all = self.servers.len();
        let from = match self.source {
            Source::Hardware => "the machine's own",
            Source::LastKnown => "wrong: the machine's own has lost the time",
            Source::Hand => "set by hand",
            Source::Servers => "set by time servers",
        };
        match (self.synchronised, all) {
            (true, _) => format!("right by {answering} of {all} time servers"),
            (false, 0) => format!("{from}; no time server is named"),
            (false, _) => format!("{from}; {answering} of {all} time servers answer"),
        }
    }
}

impl fmt::Display for Report {
    /// One line for `fife status`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.date(), self.brief())?;
        if let (Some(offset), Some(age)) = (self.offset_secs, self.answer_age_secs) {
            write!(f, "; was off by {} {age}s ago", span(offset.abs()))?;
        }
        Ok(())
    }
}

/// A time for people.
pub(super) fn date(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Its day.
pub(super) fn day(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%Y-%m-%d").to_string()
}

/// So many seconds, for people.
pub(super) fn span(secs: f64) -> String {
    match secs {
        ..0.1 => format!("{:.1} ms", secs * 1e3),
        ..120.0 => format!("{secs:.1} s"),
        ..7200.0 => format!("{:.0} minutes", secs / 60.0),
        ..172_800.0 => format!("{:.0} hours", secs / 3600.0),
        _ => format!("{:.0} days", secs / 86_400.0),
    }
}
