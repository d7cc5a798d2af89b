//! Hostile files and variables. Called by: `crate::fuzz`.
//!
//! Up to the first NUL the text of the file, behind it the environment, `NAME=value` ended by NULs.
//!
//! Invariants: no panic; either every host of the file has its settings or faults are told, which point into the file and are
//! rendered within bounds; a secret that stands where secrets stand is shown by neither.

use std::path::Path;

use super::load::parse;
use super::mask;

/// Octets of a file and its variables.
const LEN_MAX: usize = 16 * 1024;

/// Loads the text. Returns the hosts that it has.
pub(crate) fn target(data: &[u8]) -> usize {
    let data = data.get(..LEN_MAX).unwrap_or(data);
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let variables: Vec<(String, String)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let masked = mask::mask(file);
    assert_eq!(masked.lines().count(), file.lines().count(), "places in the file are places in what is shown");
    match parse(Path::new("fife.toml"), file, &variables) {
        Ok(loaded) => {
            for (name, effective) in loaded.effectives() {
                assert_eq!(&effective.host, name);
                // What roles are handed.
                let json = serde_json::to_string(effective).unwrap();
                let again: super::Effective = serde_json::from_str(&json).unwrap();
                assert_eq!(serde_json::to_string(&again).unwrap(), json);
            }
            loaded.hosts().len()
        }
        Err(faults) => {
            assert!(!faults.list().is_empty());
            let rendered = faults.render(false).len() + faults.render(true).len();
            // Each fault shows its line, the list of what is known, and a frame.
            let line = file.lines().map(str::len).max().unwrap_or_default();
            assert!(rendered <= (faults.list().len() + 1) * (32 * 1024 + 8 * line), "{rendered} octets");
            drop(faults.to_json());
            0
        }
    }
}
