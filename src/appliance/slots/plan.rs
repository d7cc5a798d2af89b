//! In which order files of the ESP change, so that a power cut between any two of them, or in the middle of one, leaves a machine that
//! boots a whole system by either loader.
//!
//! Owns: `State`, `Step`. Called by: `slots`; its tests, which cut the power. Never: reads or writes a file.
//!
//! FAT has no journal: of what was written since the last `Sync` any part may be on the disk, and of a renamed file both names, or none.
//! So: no loader is told of a slot before all its files are synced; before they change, the loaders have forgotten it.

use std::path::{Path, PathBuf};

use super::entry::{Entry, Tries};
use super::environment::Environment;
use super::{ENTRIES, ENVIRONMENT, Slot, SlotError, Standing, TRIES, version_path};

/// One change to the ESP. Paths are relative to its top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Step {
    /// A file is gone, if it was there.
    Remove(String),
    /// A file has this content.
    Write {
        path: String,
        source: Source,
    },
    Rename {
        from: String,
        to: String,
    },
    /// A file of the same length is overwritten where it lies.
    Overwrite {
        path: String,
        octets: Vec<u8>,
    },
    /// All of the above is on the disk before anything that follows.
    Sync,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Source {
    Octets(Vec<u8>),
    File(PathBuf),
}

/// What the loaders see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) entries: Vec<Entry>,
    pub(super) environment: Environment,
}

impl State {
    /// The entry of a slot that systemd-boot would prefer.
    fn entry(&self, slot: Slot) -> Option<&Entry> {
        let of_slot = self.entries.iter().filter(|entry| entry.slot == slot);
        of_slot.max_by_key(|entry| (!is_spent(entry), entry.deployment()))
    }

    pub(super) fn standing(&self, slot: Slot) -> Standing {
        match self.entry(slot) {
            None => Standing::Empty,
            Some(entry) => match entry.tries {
                None => Standing::Good,
                Some(Tries { left: 0, .. }) => Standing::Failed,
                Some(Tries { left, .. }) => Standing::OnTrial(left),
            },
        }
    }

    pub(super) fn is_on_trial(&self, running: Slot) -> bool {
        self.environment.trial == Some(running) || self.entry(running).is_some_and(|entry| entry.tries.is_some())
    }

    /// The slot that is booted next: what is on trial, else what is good.
    pub(super) fn next(&self, running: Slot) -> Slot {
        let best = self.entries.iter().max_by_key(|entry| (!is_spent(entry), entry.deployment()));
        best.map_or(running, |entry| entry.slot)
    }

    pub(super) fn keep(&self, running: Slot) -> Vec<Step> {
        let other = running.other();
        let mut steps = Vec::new();
        let settled = Environment::settled(running);
        if self.is_on_trial(running) {
            if let Some(entry) = self.entry(running).filter(|entry| entry.tries.is_some()) {
                steps.extend(counter(entry, None));
            }
            steps.extend(self.environment_steps(settled));
        } else if self.environment == (Environment { slot: Some(running), trial: Some(other), tries: 0 }) {
            // GRUB has tried the other so often as it may; systemd-boot is told, and then GRUB may forget it.
            let counted = self.entry(other).filter(|entry| entry.tries.is_some_and(|tries| tries.left > 0));
            steps.extend(counted.map(spent).into_iter().flatten());
            steps.extend(self.environment_steps(settled));
        } else if self.environment.trial == Some(other) && self.standing(other) == Standing::Failed {
            steps.extend(self.environment_steps(settled));
        }
        steps
    }

    pub(super) fn give_up(&self, running: Slot) -> Result<Vec<Step>, SlotError> {
        let other = running.other();
        if matches!(self.standing(other), Standing::Empty | Standing::Failed) {
            return Err(SlotError::Nothing(other));
        }
        let mut steps: Vec<Step> = self.entry(running).map(spent).into_iter().flatten().collect();
        steps.extend(self.environment_steps(Environment::settled(other)));
        Ok(steps)
    }

    pub(super) fn stage(
        &self,
        running: Slot,
        version: &str,
        linux: &Path,
        initrd: &Path,
    ) -> Result<Vec<Step>, SlotError> {
        if self.is_on_trial(running) {
            return Err(SlotError::OnTrial);
        }
        let other = running.other();
        let model = self.entry(running).ok_or(SlotError::NoEntry(running))?;
        let deployment = self.entries.iter().map(Entry::deployment).max().unwrap_or(0).saturating_add(1);
        let text = model.successor(other, version, deployment)?;
        let entry = Entry { slot: other, tries: Some(Tries { left: TRIES, done: 0 }), text };
        // Both loaders forget the other slot before its files change.
        let mut steps = self.environment_steps(Environment::settled(running));
        let stale = self.entries.iter().filter(|entry| entry.slot == other);
        steps.extend(stale.map(|entry| Step::Remove(format!("{ENTRIES}/{}", entry.name()))));
        steps.push(Step::Sync);
        let write = |path: String, source: Source| Step::Write { path, source };
        steps.extend([
            write(format!("fife/{other}/linux"), Source::File(linux.to_owned())),
            write(format!("fife/{other}/initrd"), Source::File(initrd.to_owned())),
            write(version_path(other), Source::Octets(format!("{version}\n").into_bytes())),
            Step::Sync,
        ]);
        // Under a name that no loader reads, until it is whole.
        let new = format!("{ENTRIES}/fife-{other}.new");
        steps.extend([write(new.clone(), Source::Octets(entry.text.clone().into_bytes())), Step::Sync]);
        steps.extend([Step::Rename { from: new, to: format!("{ENTRIES}/{}", entry.name()) }, Step::Sync]);
        let trial = Environment { slot: Some(running), trial: Some(other), tries: TRIES };
        steps.extend([Step::Overwrite { path: ENVIRONMENT.to_owned(), octets: trial.block() }, Step::Sync]);
        Ok(steps)
    }

    /// Nothing when the block already says so.
    fn environment_steps(&self, wanted: Environment) -> Vec<Step> {
        if self.environment == wanted {
            return Vec::new();
        }
        vec![Step::Overwrite { path: ENVIRONMENT.to_owned(), octets: wanted.block() }, Step::Sync]
    }
}

fn is_spent(entry: &Entry) -> bool {
    entry.tries.is_some_and(|tries| tries.left == 0)
}

/// The entry under the name that has this counter.
fn counter(entry: &Entry, tries: Option<Tries>) -> [Step; 2] {
    let path = |entry: &Entry| format!("{ENTRIES}/{}", entry.name());
    let renamed = Entry { tries, ..entry.clone() };
    [Step::Rename { from: path(entry), to: path(&renamed) }, Step::Sync]
}

/// The entry as one that has used up its tries: systemd-boot takes it last.
fn spent(entry: &Entry) -> [Step; 2] {
    let done = entry.tries.map_or(0, |tries| tries.done);
    counter(entry, Some(Tries { left: 0, done: done.max(1) }))
}
