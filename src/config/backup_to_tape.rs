//! `[backup-to-tape]`: copies of the site on tape.
//!
//! Owns: `BackupToTape`, `Job`. Called by: `fife backup`, which reads it anew each time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::size::Size;

/// Copies of the site on tape, or in a directory of volumes: `fife backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BackupToTape {
    /// The drive: a tape device that does not rewind, such as "/dev/nst0", or "file:DIR", a directory of volumes. Empty: none. (Restarts nothing.)
    #[schemars(extend("x-example" = "/dev/nst0"))]
    pub drive: String,
    /// Octets of a block on new volumes; those that there are keep theirs. (Restarts nothing.)
    #[schemars(extend("x-min" = "64 KiB"), extend("x-max" = "8 MiB"))]
    pub block_size: Size,
    /// Memory between what is read and the drive: what it has to go on with when a source is slow. (Restarts nothing.)
    #[schemars(extend("x-min" = "64 MiB"), extend("x-max" = "1 TiB"))]
    pub buffer: Size,
    /// Size of a volume in a directory of volumes; 0: they grow as long as there is room. (Restarts nothing.)
    pub volume_size: Size,
    /// What is backed up together: a name, and sources. "mail", "directory" and "queue" of the roles on this host, "configuration", "path:DIR" for any directory. (Restarts nothing.)
    pub jobs: Vec<Job>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Job {
    /// As `fife backup run` is told it.
    pub name: String,
    /// In the order in which they go on tape.
    pub sources: Vec<String>,
}

impl Default for BackupToTape {
    fn default() -> Self {
        let sources = ["mail", "directory", "queue", "configuration"].map(str::to_owned).to_vec();
        Self {
            drive: String::new(),
            block_size: Size::mib(1),
            buffer: Size::mib(256),
            volume_size: Size::bytes(0),
            jobs: vec![Job { name: "site".to_owned(), sources }],
        }
    }
}
