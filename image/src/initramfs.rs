//! The system: one cpio archive with the binary as `/init`, modules, a few tools, and what lies in `rootfs-overlay/`.
//!
//! Owns: what is in it, in an order and with times that depend on nothing else. Called by: `build`.
//! Spec: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst (newc, zstd).

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::Builder;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CONSOLE: u32 = 0o020_600;

/// Directories that the boot mounts upon.
const MOUNT_POINTS: [&str; 9] = ["boot", "data", "dev", "mnt", "proc", "run", "sys", "tmp", "var"];

/// Files, directories and links of one archive.
#[derive(Debug, Default)]
pub struct Archive {
    /// By path; parents come before what is in them, because the archive is written in this order.
    entries: BTreeMap<String, Entry>,
    /// Of every entry, in seconds since 1970.
    time: u32,
}

#[derive(Debug)]
struct Entry {
    mode: u32,
    octets: Vec<u8>,
    device: (u32, u32),
}

impl Archive {
    /// With the directories and the device that the kernel wants.
    pub fn new() -> Self {
        let mut archive = Self::default();
        for dir in MOUNT_POINTS {
            archive.put(dir, DIRECTORY, Vec::new());
        }
        // Opened by the kernel for /init's input and output, before anything is mounted.
        archive.entries.insert("dev/console".to_owned(), Entry { mode: CONSOLE, octets: Vec::new(), device: (5, 1) });
        archive
    }

    /// With this age of everything, in seconds since 1970; without it, that of the epoch.
    #[must_use]
    pub fn dated(mut self, time: u32) -> Self {
        self.time = time;
        self
    }

    /// A file; its directories are made.
    pub fn file(&mut self, path: &str, octets: Vec<u8>) {
        self.put(path, FILE, octets);
    }

    /// A file that can be run.
    pub fn program(&mut self, path: &str, octets: Vec<u8>) {
        self.put(path, PROGRAM, octets);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, LINK, target.as_bytes().to_vec());
    }

    /// Everything below a directory of the repository, over what is there: modes as git keeps them (a file runs, or does not).
    pub fn overlay(&mut self, dir: &Path) -> Result<()> {
        self.overlay_below(dir, "")
    }

    fn overlay_below(&mut self, dir: &Path, at: &str) -> Result<()> {
        for name in crate::files::list(dir)? {
            let (path, inner) = (dir.join(&name), format!("{at}{name}"));
            let metadata = path.symlink_metadata()?;
            if metadata.is_dir() {
                self.overlay_below(&path, &format!("{inner}/"))?;
            } else if metadata.is_symlink() {
                self.link(&inner, &std::fs::read_link(&path)?.display().to_string());
            } else {
                let runs = metadata.permissions().mode() & 0o100 != 0;
                let octets = std::fs::read(&path).with_context(|| path.display().to_string())?;
                self.put(&inner, if runs { PROGRAM } else { FILE }, octets);
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, mode: u32, octets: Vec<u8>) {
        let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        for parent in slashes.into_iter().filter_map(|at| path.get(..at)) {
            let directory = || Entry { mode: DIRECTORY, octets: Vec::new(), device: (0, 0) };
            self.entries.entry(parent.to_owned()).or_insert_with(directory);
        }
        self.entries.insert(path.to_owned(), Entry { mode, octets, device: (0, 0) });
    }

    /// The archive, not compressed.
    pub fn write(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let links = if entry.mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
            let builder = Builder::new(path).ino(number).mode(entry.mode).nlink(links).mtime(self.time);
            let builder = builder.rdev_major(entry.device.0).rdev_minor(entry.device.1);
            let mut writer = builder.write(&mut out, u32::try_from(entry.octets.len())?);
            writer.write_all(&entry.octets)?;
            writer.finish()?;
        }
        cpio::newc::trailer(&mut out)?;
        Ok(out)
    }

    /// Octets of files below this path, for the report.
    pub fn size_below(&self, prefix: &str) -> usize {
        self.entries.iter().filter(|(path, _)| path.starts_with(prefix)).map(|(_, entry)| entry.octets.len()).sum()
    }
}
