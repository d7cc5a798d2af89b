//! What is built from: which commit, and when that was made.
//!
//! Owns: `Source`. Called by: `build`. By git, or by the environment where there is no git.
//! Spec: <https://reproducible-builds.org/specs/source-date-epoch/>.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

const TIME_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// State of the repository that goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its hash, with `-modified` when files differ from it. None: this is no clone.
    pub commit: Option<String>,
    /// Seconds since 1970: of the commit, or what `SOURCE_DATE_EPOCH` says. The system's files are as old as this, and a machine whose clock stands
    /// in the past takes it for the earliest that now can be.
    pub time: u32,
}

impl Source {
    /// Looks at the repository.
    ///
    /// # Errors
    /// There is neither a clone nor the variable: then nothing tells the time that all builds of this source have in common.
    pub fn of(root: &Path) -> Result<Self> {
        let commit = git(root, &["rev-parse", "HEAD"]).map(|commit| {
            // Files that git does not know do not count: they are the builder's own, or somebody's notes.
            let changed = git(root, &["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
            if changed.is_empty() { commit } else { commit + "-modified" }
        });
        let given = std::env::var(TIME_VARIABLE).ok();
        let time = given.or_else(|| git(root, &["log", "-1", "--format=%ct"]));
        let time = time.with_context(|| format!("this is no git clone: set {TIME_VARIABLE}"))?;
        let time = time.parse().with_context(|| format!("{TIME_VARIABLE}: {time:?} is no number of seconds"))?;
        Ok(Self { commit, time })
    }
}

/// What git prints; none when it fails.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
