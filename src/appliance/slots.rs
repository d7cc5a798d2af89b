//! The two slots of the system on the ESP: which one runs, which one is booted next, in the words of both loaders.
//!
//! Owns: `loader/entries/fife-*.conf` (systemd-boot, under UEFI), `fife/grubenv` (GRUB, under BIOS), `fife/a`, `fife/b`.
//! Called by: boot, which keeps the slot that is healthy or gives it up; `update`, which stages a new version in the other slot.
//! Never: touches the files of the slot that runs.
//! Spec: Boot Loader Specification (type 1 entries, boot counting); GRUB 2.06 manual, "The GRUB environment block".
//!
//! Both loaders' state is always written, whichever of them booted: a disk is moved to another machine with its mail.
//!
//! - `entry`: an entry's name and text; `environment`: GRUB's block; `plan`: in which order what is written; `volume`: writing it.

mod entry;
mod environment;
mod plan;
#[cfg(test)]
mod tests;
mod volume;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use entry::Entry;
use environment::Environment;
use plan::State;
pub(super) use plan::{Source, Step};
pub use volume::write_settings;

/// How often a new version may be started before the old one is taken again.
pub const TRIES: u8 = 3;
/// The kernel argument that says which slot runs.
const ARGUMENT: &str = "fife.slot=";

/// One of the two places for a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// As in file names and on the kernel's command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|slot| slot.name() == name)
    }

    /// The slot that the kernel with this command line (`/proc/cmdline`) came from; none on other machines.
    #[must_use]
    pub fn running(command_line: &str) -> Option<Self> {
        let named = command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(ARGUMENT)).next_back();
        named.and_then(Self::from_name)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the slots are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("slot {0} has no loader entry: its kernel options are not known")]
    NoEntry(Slot),
    #[error("the version that runs is itself on trial: it is kept or given up first")]
    OnTrial,
    #[error("slot {0} holds nothing that could be booted")]
    Nothing(Slot),
    #[error("{0} was not read back as it was written: the disk with the ESP is failing")]
    NotAsWritten(String),
}

/// How a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "standing", content = "tries-left")]
pub enum Standing {
    /// Nothing is in it that a loader would boot.
    Empty,
    /// It has been healthy once.
    Good,
    /// It is booted so often, unless it is kept before.
    OnTrial(u8),
    /// It was not healthy, or was given up.
    Failed,
}

/// A slot, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SlotStatus {
    pub slot: Slot,
    pub version: Option<String>,
    #[serde(flatten)]
    pub standing: Standing,
    pub running: bool,
    /// A loader would take it at the next start.
    pub next: bool,
}

/// The ESP, mounted.
#[derive(Debug, Clone)]
pub struct Esp {
    root: PathBuf,
}

impl Esp {
    /// The ESP that is mounted here; on the appliance, `/boot`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Both slots.
    ///
    /// # Errors
    /// The ESP cannot be read.
    pub fn status(&self, running: Slot) -> Result<Vec<SlotStatus>, SlotError> {
        let state = self.state()?;
        let next = state.next(running);
        let describe = |slot: Slot| SlotStatus {
            slot,
            version: volume::read(&self.root, &version_path(slot)).map(|text| text.trim().to_owned()),
            standing: state.standing(slot),
            running: slot == running,
            next: slot == next,
        };
        Ok(Slot::BOTH.into_iter().map(describe).collect())
    }

    /// Whether this slot was booted to see whether it is healthy.
    ///
    /// # Errors
    /// The ESP cannot be read.
    pub fn is_on_trial(&self, running: Slot) -> Result<bool, SlotError> {
        Ok(self.state()?.is_on_trial(running))
    }

    /// The running slot is healthy: it is booted from now on. Also puts down, when the other slot was on trial and has used up its
    /// tries, that it failed. Writes nothing when nothing changes, and can be called at each start.
    ///
    /// # Errors
    /// The ESP cannot be read or written.
    pub fn keep(&self, running: Slot) -> Result<(), SlotError> {
        self.carry_out(&self.state()?.keep(running))
    }

    /// The running slot is not to be booted again: the next start takes the other one.
    ///
    /// # Errors
    /// `Nothing`: there is no other that could be booted.
    pub fn give_up(&self, running: Slot) -> Result<(), SlotError> {
        self.carry_out(&self.state()?.give_up(running)?)
    }

    /// Puts a new version into the other slot; the next start tries it.
    ///
    /// # Errors
    /// `OnTrial`; or the ESP cannot be written: the old system is then booted as before.
    pub fn stage(&self, running: Slot, version: &str, linux: &Path, initrd: &Path) -> Result<(), SlotError> {
        let steps = self.state()?.stage(running, version, linux, initrd)?;
        self.carry_out(&steps)
    }

    fn carry_out(&self, steps: &[Step]) -> Result<(), SlotError> {
        if steps.is_empty() { Ok(()) } else { volume::carry_out(&self.root, steps) }
    }

    fn state(&self) -> Result<State, SlotError> {
        let environment = volume::read(&self.root, ENVIRONMENT).as_deref().map(Environment::parse).unwrap_or_default();
        let mut entries = Vec::new();
        for name in volume::list(&self.root, ENTRIES)? {
            let text = volume::read(&self.root, &format!("{ENTRIES}/{name}")).unwrap_or_default();
            entries.extend(Entry::parse(&name, text));
        }
        Ok(State { entries, environment })
    }
}

/// Where the loaders look, from the top of the ESP.
const ENTRIES: &str = "loader/entries";
const ENVIRONMENT: &str = "fife/grubenv";

fn version_path(slot: Slot) -> String {
    format!("fife/{slot}/version")
}
