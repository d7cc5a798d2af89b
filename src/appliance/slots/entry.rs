//! A loader entry: its name, which carries the count of tries, and its text.
//!
//! Owns: `Entry`, `Tries`. Called by: `plan`. Never: reads or writes a file.
//! Spec: Boot Loader Specification, "Type #1 Boot Loader Specification Entries" and "Boot counting".

use super::{Slot, SlotError};

const PREFIX: &str = "fife-";
const SUFFIX: &str = ".conf";

/// The counter in an entry's name: `+LEFT` or `+LEFT-DONE`. The loader renames the file at each try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tries {
    pub(super) left: u8,
    pub(super) done: u8,
}

/// An entry of ours, as it lies on the ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) slot: Slot,
    /// None: it has proved good, or nobody counts.
    pub(super) tries: Option<Tries>,
    pub(super) text: String,
}

impl Entry {
    /// The entry in a file of this name; none when the name is not one of ours.
    pub(super) fn parse(name: &str, text: String) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (slot, tries) = match rest.split_once('+') {
            None => (rest, None),
            Some((slot, counter)) => (slot, Some(Tries::parse(counter)?)),
        };
        Some(Self { slot: Slot::from_name(slot)?, tries, text })
    }

    /// Its file's name.
    pub(super) fn name(&self) -> String {
        let counter = match self.tries {
            None => String::new(),
            Some(Tries { left, done: 0 }) => format!("+{left}"),
            Some(Tries { left, done }) => format!("+{left}-{done}"),
        };
        format!("{PREFIX}{}{counter}{SUFFIX}", self.slot)
    }

    /// Which deployment it is; later ones have larger numbers, and are preferred.
    pub(super) fn deployment(&self) -> u64 {
        self.field("version").and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    fn field(&self, key: &str) -> Option<&str> {
        let value = |line: &'_ str| line.split_once([' ', '\t']).filter(|(name, _)| *name == key).is_some();
        let line = self.text.lines().map(str::trim).find(|line| value(line))?;
        line.split_once([' ', '\t']).map(|(_, value)| value.trim())
    }

    /// The text of an entry for another slot with the same kernel options.
    pub(super) fn successor(&self, slot: Slot, version: &str, deployment: u64) -> Result<String, SlotError> {
        let options = self.field("options").ok_or(SlotError::NoEntry(self.slot))?;
        let options = options.split_ascii_whitespace().filter(|word| !word.starts_with(super::ARGUMENT));
        let options: Vec<&str> = options.collect();
        Ok(format!(
            "title fife {version}\nsort-key fife\nversion {deployment}\nlinux /fife/{slot}/linux\n\
             initrd /fife/{slot}/initrd\noptions {} {}{slot}\n",
            options.join(" "),
            super::ARGUMENT
        ))
    }
}

impl Tries {
    fn parse(counter: &str) -> Option<Self> {
        let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
        Some(Self { left: left.parse().ok()?, done: done.parse().ok()? })
    }
}
