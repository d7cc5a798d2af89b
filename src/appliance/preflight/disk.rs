//! Whether the disk's sync tells the truth, and how long it takes.
//!
//! Owns: the measurement, and what it means. Called by: `fife preflight`. Never: proves that a disk keeps what it has acknowledged; it
//! knows some of those that cannot.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::super::block::Volume;
use super::Finding;
use crate::base::clock;

const CHECK: &str = "disk";
const FILE: &str = "preflight.tmp";
/// Syncs that are measured.
const ROUNDS: usize = 100;
const BLOCK_LEN: usize = 4096;
/// No disk with a platter turns fast enough to sync in less: 15,000 turns a minute are 4 ms each, half of one in the mean.
const PLATTER_MIN: Duration = Duration::from_micros(700);
/// No flash memory is written in less, and no battery-backed cache answers in less, over any bus.
const ANY_MIN: Duration = Duration::from_micros(8);
/// Slower than this, few messages a second are taken.
const SLOW: Duration = Duration::from_millis(100);

/// How the disk is made, as the kernel knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Build {
    pub(super) name: String,
    pub(super) is_rotating: bool,
    /// It has a cache that loses what is in it: the kernel sends flushes.
    pub(super) has_write_cache: bool,
    pub(super) is_memory: bool,
}

/// Times of syncs, half of them shorter and all but one of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) half: Duration,
    pub(super) most: Duration,
}

/// Measures in this directory; when it is not there yet, in the one that it will be made in.
pub fn check(dir: &Path) -> Finding {
    let dir = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    match measure(dir) {
        Ok(times) => judge(&Build::of(dir), times),
        Err(error) => {
            let found = format!("{}: {error}", dir.display());
            Finding::bad(CHECK, found, "mail needs a disk that can be written to")
        }
    }
}

fn measure(dir: &Path) -> io::Result<Times> {
    let path = dir.join(FILE);
    let file = File::options().write(true).create(true).truncate(true).open(&path)?;
    let measured = rounds(&file);
    fs::remove_file(&path)?;
    measured
}

fn rounds(mut file: &File) -> io::Result<Times> {
    let block = vec![0x5a; BLOCK_LEN];
    // Room first: what is measured is the ledger's append into it.
    for _ in 0..ROUNDS {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let begun = clock::monotonic();
        file.write_all_at(&block, (round * BLOCK_LEN) as u64)?;
        file.sync_data()?;
        times.push(clock::monotonic() - begun);
    }
    times.sort();
    let nth = |nth: usize| times.get(nth).copied().unwrap_or_default();
    Ok(Times { half: nth(ROUNDS / 2), most: nth(ROUNDS * 99 / 100) })
}

impl Build {
    fn of(dir: &Path) -> Self {
        let is_memory = statfs(dir).is_ok_and(|facts| facts.filesystem_type() == TMPFS_MAGIC);
        let Ok(volume) = Volume::mounted_at(&mount_point(dir)) else { return Self { is_memory, ..Self::default() } };
        let read = |name: &str| fs::read_to_string(volume.disk_sys.join(name)).unwrap_or_default().trim().to_owned();
        Self {
            name: volume.disk.display().to_string(),
            is_rotating: read("queue/rotational") == "1",
            has_write_cache: read("queue/write_cache") == "write back",
            is_memory,
        }
    }
}

/// The directory itself: the numbers of its device are those of the mount.
fn mount_point(dir: &Path) -> std::path::PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

/// What the times mean on such a disk.
pub(super) fn judge(build: &Build, times: Times) -> Finding {
    let name = if build.name.is_empty() { "the disk" } else { &build.name };
    let cache = if build.has_write_cache { ", with a write cache that is flushed" } else { "" };
    let found = format!("a sync on {name} takes {:?} (one of a hundred: {:?}){cache}", times.half, times.most);
    if build.is_memory {
        return Finding::bad(CHECK, "the state directory is in memory", "put it on a disk: [site] state");
    }
    // Virtual disks say that they rotate when their host does not know better.
    let is_platter = build.is_rotating && !build.name.starts_with("/dev/vd") && !build.name.starts_with("/dev/xvd");
    if times.half < ANY_MIN || is_platter && build.has_write_cache && times.half < PLATTER_MIN {
        let advice = "it acknowledges what it has not written: a power cut loses mail. Of a virtual disk, take the cache mode \
                      \"unsafe\" away; of a controller, let it have a battery, or switch its write cache off";
        return Finding::bad(CHECK, found, advice);
    }
    if build.is_rotating && times.half < PLATTER_MIN {
        let advice = "too fast for a disk that rotates: make sure that its controller's cache has a battery, and that a virtual \
                      disk's host flushes";
        return Finding::warn(CHECK, found, advice);
    }
    if times.most > SLOW {
        return Finding::warn(CHECK, found, "slow: few messages a second; take an SSD, or a controller with a battery");
    }
    Finding::ok(CHECK, found)
}
