//! A false disk: loses, tears and reorders what was not synced, and fails when told to.
//!
//! Owns: files and names as the process sees them, and as the platters hold them. Called by: `simulation`.
//!
//! What it assumes of a real disk, and nothing more: a sector of 512 bytes is written whole or not at all; a sync
//! that succeeds makes a file's sectors and length durable; a synced directory has its names. Before that every sector
//! of every file stands as it was at the last sync or after any later write, each by its own luck; so does every
//! length, and every change of a name. After a failed sync that luck is drawn, and the process goes on reading what it
//! wrote, though no later sync writes it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// Small and repeatable: splitmix64.
#[derive(Debug, Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// 0..n
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What the process reads.
    seen: Vec<u8>,
    /// What the platters hold.
    media: Vec<u8>,
    /// Sectors as they stood after each write since the last sync.
    sectors: Vec<(usize, [u8; SECTOR])>,
    /// Lengths since the last sync.
    lengths: Vec<usize>,
}

impl Inode {
    /// Notes the sectors from byte `from` to byte `to` as they are seen now.
    fn note(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let start = (sector * SECTOR).min(self.seen.len());
            let bytes = &self.seen[start..self.seen.len().min(start + SECTOR)];
            let mut image = [0; SECTOR];
            image[..bytes.len()].copy_from_slice(bytes);
            self.sectors.push((sector, image));
        }
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        if end > self.seen.len() {
            let old = self.seen.len();
            self.seen.resize(end, 0);
            if old < at {
                self.note(old, at);
            }
        }
        // A length that a failed sync has lost comes back only with a write up to it.
        if end > self.lengths.last().copied().unwrap_or(self.media.len()) {
            self.lengths.push(end);
        }
        self.seen[at..end].copy_from_slice(bytes);
        self.note(at, end);
    }

    fn set_length(&mut self, length: usize) {
        let old = self.seen.len();
        self.seen.resize(length, 0);
        self.lengths.push(length);
        // Of the sector with the new end nothing is written: cutting a file changes its length.
        if length < old { self.note(length.next_multiple_of(SECTOR), old) } else { self.note(old, length) }
    }

    fn sync(&mut self) {
        // Only what was written since the last sync, good or failed, reaches the platters.
        let length = self.lengths.last().copied().unwrap_or(self.media.len());
        let sectors = std::mem::take(&mut self.sectors);
        self.lengths.clear();
        self.store(length, sectors.into_iter());
    }

    fn store(&mut self, length: usize, sectors: impl Iterator<Item = (usize, [u8; SECTOR])>) {
        let whole = self.media.len().max(length).next_multiple_of(SECTOR);
        self.media.resize(whole, 0);
        for (sector, image) in sectors {
            let start = sector * SECTOR;
            if start < whole {
                self.media[start..start + SECTOR].copy_from_slice(&image);
            }
        }
        self.media.truncate(length);
    }

    /// Draws what of the unsynced writes has reached the platters.
    fn settle(&mut self, luck: &mut Luck<'_>) {
        let mut sectors = std::mem::take(&mut self.sectors);
        let mut lengths = std::mem::take(&mut self.lengths);
        lengths.insert(0, self.media.len());
        let length = lengths[luck.version(lengths.len())];
        sectors.sort_by_key(|(sector, _)| *sector); // stable: versions stay in order
        let chosen =
            sectors.chunk_by(|a, b| a.0 == b.0).filter_map(|versions| match luck.version(versions.len() + 1) {
                0 => None,
                n => Some(versions[n - 1]),
            });
        let chosen: Vec<_> = chosen.collect();
        self.store(length, chosen.into_iter());
    }
}

/// How a power cut deals with what is unsynced.
pub(super) enum Luck<'r> {
    None,
    All,
    Some(&'r mut Rng),
}

impl Luck<'_> {
    /// Which of so many versions is on the platters; 0 is the synced one.
    fn version(&mut self, count: usize) -> usize {
        match self {
            Luck::None => 0,
            Luck::All => count - 1,
            Luck::Some(rng) => rng.below(count),
        }
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, usize),
    /// From, to, and which file: a rename moves the file that bore the name then.
    Rename(String, String, usize),
    Remove(String),
}

type Names = BTreeMap<String, usize>;

impl NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Set(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// What fails next.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// So many writes from now on, one fails half done; 0: none.
    pub(super) write_in: usize,
    /// So many syncs (of files or the directory) from now on, one fails; 0: none.
    pub(super) sync_in: usize,
    /// Bytes that all files may have together.
    pub(super) space: Option<usize>,
    /// The failing sync leaves sectors that hold neither the old nor the new bytes. (Not for histories with cuts: when
    /// the power goes before such a sector is written anew, nothing can save it.)
    pub(super) destroys: bool,
    /// How many of the calls after a failed one fail too.
    pub(super) streak: usize,
}

impl Faults {
    fn due(count: &mut usize, streak: &mut usize) -> bool {
        match *count {
            0 => false,
            1 => {
                *count = usize::from(*streak > 0);
                *streak = streak.saturating_sub(1);
                true
            }
            _ => {
                *count -= 1;
                false
            }
        }
    }
}

/// Is shown the disk after every step that changed something.
pub(super) trait Watcher: Send {
    fn step(&mut self, platters: &Platters);
}

/// The state of the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Platters {
    inodes: Vec<Inode>,
    seen: Names,
    media: Names,
    changes: Vec<NameChange>,
    pub(super) faults: Faults,
}

impl Platters {
    /// The disk after a power cut now.
    pub(super) fn power_cut(&self, luck: &mut Luck<'_>) -> Self {
        let mut names = self.media.clone();
        for change in &self.changes {
            if luck.version(2) == 1 {
                change.apply(&mut names);
            }
        }
        let mut after = Self::default();
        for (name, inode) in names {
            let mut inode = self.inodes[inode].clone();
            inode.settle(luck);
            inode.seen.clone_from(&inode.media);
            after.media.insert(name, after.inodes.len());
            after.inodes.push(inode);
        }
        after.seen.clone_from(&after.media);
        after
    }

    /// The disk after the process was killed now: what it wrote is still seen, and still not synced.
    pub(super) fn killed(&self) -> Self {
        Self { faults: Faults::default(), ..self.clone() }
    }

    fn used(&self) -> usize {
        self.seen.values().map(|inode| self.inodes[*inode].seen.len()).sum()
    }

    /// Writes as much as there is room for.
    fn write(&mut self, inode: usize, bytes: &[u8], at: usize) -> io::Result<()> {
        let end = at + bytes.len();
        let growth = end.saturating_sub(self.inodes[inode].seen.len());
        let mut count = bytes.len();
        let mut outcome = Ok(());
        if let Some(space) = self.faults.space {
            let lack = (self.used() + growth).saturating_sub(space).min(growth);
            if lack > 0 {
                count -= lack.min(count);
                outcome = Err(io::ErrorKind::StorageFull.into());
            }
        }
        if Faults::due(&mut self.faults.write_in, &mut self.faults.streak) {
            count /= 2;
            outcome = Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.inodes[inode].write(&bytes[..count], at);
        outcome
    }

    fn sync_fails(&mut self) -> bool {
        Faults::due(&mut self.faults.sync_in, &mut self.faults.streak)
    }
}

struct Shared {
    platters: Platters,
    watcher: Option<Box<dyn Watcher>>,
    rng: Rng,
}

impl Shared {
    fn step(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.step(&self.platters);
        }
    }
}

/// The disk in use.
#[derive(Clone)]
pub(super) struct FalseDisk(Arc<Mutex<Shared>>);

/// An open file on it.
pub(super) struct FalseFile {
    disk: FalseDisk,
    inode: usize,
}

impl FalseDisk {
    pub(super) fn new(platters: Platters, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Shared { platters, watcher: None, rng: Rng(seed) })))
    }

    pub(super) fn watch(&self, watcher: Option<Box<dyn Watcher>>) {
        self.shared().watcher = watcher;
    }

    pub(super) fn faults(&self, faults: Faults) {
        self.shared().platters.faults = faults;
    }

    pub(super) fn platters(&self) -> Platters {
        self.shared().platters.clone()
    }

    pub(super) fn used(&self) -> usize {
        self.shared().platters.used()
    }

    /// Changes a byte of a file behind everyone's back.
    pub(super) fn damage(&self, name: &str, at: usize) {
        let platters = &mut self.shared().platters;
        let inode = platters.seen[name];
        platters.inodes[inode].seen[at] ^= 0x10;
        platters.inodes[inode].media[at] ^= 0x10;
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.shared().platters.seen.keys().cloned().collect()
    }

    pub(super) fn contents(&self, name: &str) -> Vec<u8> {
        let platters = &self.shared().platters;
        platters.inodes[platters.seen[name]].seen.clone()
    }

    /// Puts other bytes into a file behind everyone's back.
    pub(super) fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let platters = &mut self.shared().platters;
        let inode = platters.seen[name];
        platters.inodes[inode] = Inode { media: bytes.clone(), seen: bytes, ..Inode::default() };
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap()
    }
}

impl Disk for FalseDisk {
    type File = FalseFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.shared().platters.seen.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<FalseFile> {
        let inode = self.shared().platters.seen.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(FalseFile { disk: self.clone(), inode })
    }

    fn create(&self, name: &str) -> io::Result<FalseFile> {
        let mut shared = self.shared();
        let inode = shared.platters.inodes.len();
        shared.platters.inodes.push(Inode::default());
        shared.platters.seen.insert(name.to_owned(), inode);
        shared.platters.changes.push(NameChange::Set(name.to_owned(), inode));
        shared.step();
        Ok(FalseFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut shared = self.shared();
        let inode = shared.platters.seen.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        change.apply(&mut shared.platters.seen);
        shared.platters.changes.push(change);
        shared.step();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut shared = self.shared();
        if !shared.platters.seen.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Remove(name.to_owned());
        change.apply(&mut shared.platters.seen);
        shared.platters.changes.push(change);
        shared.step();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut shared = self.shared();
        if shared.platters.sync_fails() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        for change in std::mem::take(&mut shared.platters.changes) {
            change.apply(&mut shared.platters.media);
        }
        shared.step();
        Ok(())
    }
}

impl DiskFile for FalseFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.disk.shared().platters.inodes[self.inode].seen.len()).unwrap())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let shared = self.disk.shared();
        let seen = &shared.platters.inodes[self.inode].seen;
        let rest = seen.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut shared = self.disk.shared();
        let outcome = shared.platters.write(self.inode, bytes, usize::try_from(offset).unwrap());
        shared.step();
        outcome
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let mut shared = self.disk.shared();
        shared.platters.inodes[self.inode].set_length(usize::try_from(bytes).unwrap());
        shared.step();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        let shared = &mut *self.disk.shared();
        let inode = &mut shared.platters.inodes[self.inode];
        if Faults::due(&mut shared.platters.faults.sync_in, &mut shared.platters.faults.streak) {
            let touched: Vec<usize> = inode.sectors.iter().map(|(sector, _)| *sector).collect();
            inode.settle(&mut Luck::Some(&mut shared.rng));
            if shared.platters.faults.destroys {
                let length = inode.media.len();
                inode.store(length, touched.into_iter().map(|sector| (sector, [0xdb; SECTOR])));
            }
            shared.step();
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        inode.sync();
        shared.step();
        Ok(())
    }
}
