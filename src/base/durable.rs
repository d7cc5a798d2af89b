//! Small files that survive a power cut: written whole or not at all.
//!
//! Owns: replace-by-rename with the syncs that make it hold. Called by: whoever
//! keeps a small file (keys, certificates, generated passwords). Never: used on
//! a path that is paid per message; that is what the ledger is for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` by a file with these bytes and this mode.
///
/// The file is written under another name, synced, renamed, and its directory
/// synced: after a crash either the old or the new content is there.
///
/// # Errors
/// Whatever the system says; the old file is then still in place.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    sync_parent(path)
}

/// Makes the directory entry of `path` durable.
///
/// # Errors
/// Whatever the system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
