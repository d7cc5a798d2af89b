//! What a disk had on it at any moment, from the log of its writes.
//!
//! Owns: reading the log, and making disks as a power cut would have left them. Called by: suites, with `Machine::log_writes`.
//! Spec: the Linux kernel's dm-log-writes format, as QEMU's blklogwrites writes it: a superblock of one sector, then for each
//! write a sector with its description and the data, all numbers least significant octet first.
//!
//! A disk keeps what was written before the last flush. What came after it may be there or not, each write for itself.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand::RngExt;

const SECTOR: u64 = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One entry of the log.
#[derive(Debug, Clone, Copy)]
struct Write {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data begins in the log.
    data: u64,
}

/// A log that is whole: nothing is written to it any more.
#[derive(Debug)]
pub struct Log {
    file: File,
    writes: Vec<Write>,
}

/// A partition at moments that only go forward.
#[derive(Debug)]
pub struct Replay<'a> {
    log: &'a Log,
    /// The partition's first sector.
    first: u64,
    /// Has all that came before the last flush.
    durable: File,
    /// Entries that are in `durable`.
    applied: usize,
}

/// Entries of a log that QEMU may still be writing to. After a flush all entries up to it are counted.
#[must_use]
pub fn count(path: &Path) -> usize {
    let mut octets = [0; 24];
    File::open(path).unwrap().read_exact_at(&mut octets, 0).unwrap();
    if number(&octets, 0) == MAGIC { usize::try_from(number(&octets, 16)).unwrap() } else { 0 }
}

fn number(octets: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(octets.get(at..at + 8).and_then(|octets| octets.try_into().ok()).expect("eight octets"))
}

impl Log {
    /// Reads the descriptions of all entries.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let mut at = SECTOR;
        let mut writes = Vec::new();
        for _ in 0..count(path) {
            let mut octets = [0; 32];
            file.read_exact_at(&mut octets, at).unwrap();
            let (sector, sectors, flags) = (number(&octets, 0), number(&octets, 8), number(&octets, 16));
            at += SECTOR;
            writes.push(Write { sector, sectors, flags, data: at });
            if flags & DISCARD == 0 {
                at += sectors * SECTOR;
            }
        }
        Self { file, writes }
    }

    /// Its entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The partition that begins at sector `first`. `partition` is a file with what it had before the first write; it is changed.
    #[must_use]
    pub fn replay(&self, partition: &Path, first: u64) -> Replay<'_> {
        Replay { log: self, first, durable: File::options().write(true).open(partition).unwrap(), applied: 0 }
    }
}

impl Replay<'_> {
    /// Does one write, if it is to the partition. What is given back to the disk (discarded) may still be there.
    fn apply(&self, write: &Write, partition: &File) {
        let Some(sector) = write.sector.checked_sub(self.first).filter(|_| write.flags & DISCARD == 0) else { return };
        let mut octets = vec![0; usize::try_from(write.sectors * SECTOR).unwrap()];
        self.log.file.read_exact_at(&mut octets, write.data).unwrap();
        partition.write_all_at(&octets, sector * SECTOR).unwrap();
    }

    /// Brings the durable partition up to the last flush among the first `moment` entries. `moment` never goes back.
    pub fn advance(&mut self, moment: usize) {
        let passed = self.log.writes.get(..moment).expect("a moment in the log");
        let flushed = passed.iter().rposition(|write| write.flags & FLUSH != 0).map_or(0, |at| at + 1);
        for write in passed.get(self.applied..flushed).unwrap_or_default() {
            self.apply(write, &self.durable);
        }
        self.applied = self.applied.max(flushed);
    }

    /// What came between that flush and the moment, each write with even odds, onto a copy of the durable one. Returns how
    /// many writes were left out.
    pub fn add_some(&self, moment: usize, partition: &Path, random: &mut impl RngExt) -> usize {
        let partition = File::options().write(true).open(partition).unwrap();
        let mut left_out = 0;
        for write in self.log.writes.get(self.applied..moment).expect("a moment in the log") {
            if write.flags & FUA != 0 || random.random_bool(0.5) {
                self.apply(write, &partition);
            } else {
                left_out += 1;
            }
        }
        left_out
    }
}
