//! GRUB's environment block: which slot is good, and which is on trial.
//!
//! Owns: `Environment`. Called by: `plan`. Never: reads or writes a file.
//! Spec: GRUB 2.06 manual, "The GRUB environment block": 1024 octets, always, as GRUB writes them in place.

use super::Slot;

/// Octets of the block.
pub(super) const LEN: usize = 1024;
const HEAD: &str = "# GRUB Environment Block\n";
const FILLER: u8 = b'#';

/// What `grub.cfg` decides from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// Booted when nothing is on trial.
    pub(super) slot: Option<Slot>,
    /// Booted as long as tries are left; GRUB counts them down.
    pub(super) trial: Option<Slot>,
    pub(super) tries: u8,
}

impl Environment {
    /// Nothing is on trial.
    pub(super) fn settled(slot: Slot) -> Self {
        Self { slot: Some(slot), trial: None, tries: 0 }
    }

    /// What the text says; what it does not say, and what is not ours, is left out.
    pub(super) fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            lines.filter(|(name, _)| *name == key).map(|(_, value)| value).next_back()
        };
        Self {
            slot: value("slot").and_then(Slot::from_name),
            trial: value("trial").and_then(Slot::from_name),
            tries: value("tries").and_then(|tries| tries.parse().ok()).unwrap_or(0),
        }
    }

    /// The block. All that ever changes lies in its first 512 octets: a disk writes them whole or not at all.
    pub(super) fn block(self) -> Vec<u8> {
        let name = |slot: Option<Slot>| slot.map_or("", Slot::name);
        let text = format!("{HEAD}slot={}\ntrial={}\ntries={}\n", name(self.slot), name(self.trial), self.tries);
        let mut block = text.into_bytes();
        block.resize(LEN, FILLER);
        block
    }
}
