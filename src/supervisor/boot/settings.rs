//! Which `fife.toml` the machine runs: the one on the boot partition, or the last one that was good.
//!
//! Owns: that choice, `/data/config/last-good.toml`. Called by: boot. Never: changes the administrator's file; runs a file that is wrong.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::durable;
use crate::config::load::{FILE_LEN_MAX, read_bounded};
use crate::supervisor::Source;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The administrator's.
    pub(super) config: PathBuf,
    /// Ours.
    pub(super) last_good: PathBuf,
    /// The state directory.
    pub(super) state: PathBuf,
}

/// What is to be run.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) source: Source,
    /// What is wrong with the administrator's file, when the last good one runs in its place.
    pub(super) fault: Option<String>,
}

impl Places {
    /// Chooses.
    ///
    /// # Errors
    /// Neither can be run: what is wrong with the administrator's file, as `fife check` says it.
    pub(super) fn choose(&self) -> Result<Chosen, String> {
        let source = self.source(None);
        let Err(fault) = source.check() else { return Ok(Chosen { source, fault: None }) };
        let fault = fault.to_string();
        let Some(text) = self.read(&self.last_good) else { return Err(fault) };
        let source = self.source(Some(text));
        match source.check() {
            Ok(()) => Ok(Chosen { source, fault: Some(fault) }),
            Err(error) => Err(format!("{fault}\n\nand the last good one is none here any more:\n{error}")),
        }
    }

    /// Keeps the administrator's file as the last good one, if it is good now.
    ///
    /// # Errors
    /// It cannot be written; the former one stands.
    pub(super) fn keep(&self) -> io::Result<()> {
        let Some(text) = self.read(&self.config) else { return Ok(()) };
        if self.read(&self.last_good).as_ref() == Some(&text) || self.source(Some(text.clone())).check().is_err() {
            return Ok(());
        }
        if let Some(dir) = self.last_good.parent() {
            fs::create_dir_all(dir)?;
        }
        // Secrets may stand in it.
        durable::replace(&self.last_good, text.as_bytes(), 0o600)
    }

    /// What changes when the administrator's file does: not its time, which FAT keeps to two seconds.
    pub(super) fn stamp(&self) -> Option<blake3::Hash> {
        Some(blake3::hash(&read_bounded(&self.config, FILE_LEN_MAX).ok()?))
    }

    fn source(&self, stand_in: Option<String>) -> Source {
        Source { config: self.config.clone(), host: None, state_dir: self.state.clone(), stand_in }
    }

    /// The text of a file; none when it is not there or no text.
    fn read(&self, path: &Path) -> Option<String> {
        String::from_utf8(read_bounded(path, FILE_LEN_MAX).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Places;
    use std::fs;
    use std::path::Path;

    const GOOD: &str = "[site]\nname = \"campus\"\ndomain = \"example.test\"\n[hosts.one]\nroles = [\"ldap-proxy\", \"pop-imap\", \"smtp\"]\n";
    const BROKEN: &str = "[site]\nname = \"campus\"\ndomane = \"example.test\"\n";

    fn places(dir: &Path) -> Places {
        Places { config: dir.join("fife.toml"), last_good: dir.join("config/last-good.toml"), state: dir.to_owned() }
    }

    #[test]
    fn the_last_good_file_runs_while_the_administrators_is_broken_or_missing() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        // The first boot of a machine without a file.
        assert!(places.choose().unwrap_err().contains("cannot be read"));
        fs::write(&places.config, BROKEN).unwrap();
        let fault = places.choose().unwrap_err();
        assert!(fault.contains("fife.toml:3:1") && fault.contains("did you mean `domain`"), "{fault}");
        // It is not kept: it was never good.
        places.keep().unwrap();
        assert!(!places.last_good.exists());
        fs::write(&places.config, GOOD).unwrap();
        let chosen = places.choose().unwrap();
        assert!(chosen.fault.is_none() && chosen.source.stand_in.is_none());
        places.keep().unwrap();
        fs::write(&places.config, BROKEN).unwrap();
        places.keep().unwrap();
        let chosen = places.choose().unwrap();
        assert!(chosen.fault.unwrap().contains("domane"));
        assert_eq!(chosen.source.stand_in.as_deref(), Some(GOOD));
        fs::remove_file(&places.config).unwrap();
        assert!(places.choose().unwrap().fault.unwrap().contains("cannot be read"));
        // The last good one is of another release, or was damaged.
        fs::write(&places.last_good, "[site]\nname = 3\n").unwrap();
        assert!(places.choose().unwrap_err().contains("last good one"));
    }

    #[test]
    fn two_changes_within_the_same_moment_are_two() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        assert_eq!(places.stamp(), None);
        fs::write(&places.config, GOOD).unwrap();
        let time = fs::metadata(&places.config).unwrap().modified().unwrap();
        let before = places.stamp();
        assert_eq!(places.stamp(), before);
        fs::write(&places.config, GOOD.replace("one", "two")).unwrap();
        fs::File::options().write(true).open(&places.config).unwrap().set_modified(time).unwrap();
        assert_ne!(places.stamp(), before, "of the same length and time");
    }
}
