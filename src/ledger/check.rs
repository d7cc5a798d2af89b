//! Is everything there that was written, unchanged?
//!
//! Owns: the walk through all segments that tests headers, checksums, chain, indexes and seals, and its report.
//! Called by: `fife store check` and its like, tests. Never: repairs anything, stops at the first fault.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::disk::{Disk, DiskFile, RealDisk};
use super::reader::State;
use super::record::{Chain, Removal, Salt, genesis};
use super::recovery::{read_footer, read_header, read_index, read_whole_seal, survey};
use super::segment::{Footer, SEGMENT_HEADER_BYTES, file_name, segment_of};
use super::walk::Walk;
use super::{Ledger, LedgerError, Position};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Good records, as their owner counts them.
    pub records: u64,
    /// Segments that were compacted away, by the ledger's own notes.
    pub removed: u64,
    /// Bytes of segment files read.
    pub bytes: u64,
    /// Bytes behind the last whole append: zeros prepared for the next ones, or what a crash has left.
    pub unfinished_bytes: u64,
    /// What is wrong, in order; empty when all is well.
    pub faults: Vec<Fault>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The record, or offset 0 for what concerns the segment.
    pub position: Position,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Checks the ledger in a directory that nobody has open.
///
/// # Errors
/// `Locked` while it is open, `Io`. Damage is no error but part of the report.
pub fn check(dir: &Path) -> Result<Report, LedgerError> {
    let fail = |error| LedgerError::io("check", &dir.display().to_string(), error);
    if !dir.is_dir() {
        return Err(fail(io::ErrorKind::NotFound.into()));
    }
    let disk = RealDisk::new(dir).map_err(fail)?;
    let lock = disk.lock().map_err(fail)?;
    let _lock = lock.ok_or_else(|| LedgerError::Locked { dir: dir.to_owned() })?;
    check_disk(&disk).map_err(fail)
}

impl Ledger {
    /// Checks everything that is durable now, while the ledger is in use.
    ///
    /// # Errors
    /// `Io`. Damage is no error but part of the report.
    pub fn check(&self) -> Result<Report, LedgerError> {
        let reader = &self.inner.reader;
        check_live(reader.disk(), || reader.state()).map_err(|error| LedgerError::io("check", "ledger", error))
    }
}

/// All segments of a directory that nobody writes to.
pub(super) fn check_disk<D: Disk>(disk: &D) -> io::Result<Report> {
    let mut ids: Vec<u64> = disk.list()?.iter().filter_map(|name| segment_of(name)).collect();
    ids.sort_unstable();
    let mut checker = Checker::default();
    for id in &ids {
        let end = if ids.last() == Some(id) { End::Find } else { End::Seal };
        checker.segment(&disk.open(&file_name(*id))?, *id, end)?;
    }
    Ok(checker.finish())
}

/// All segments of a directory that is written to meanwhile.
fn check_live<D: Disk, S: std::ops::Deref<Target = State>>(disk: &D, state: impl Fn() -> S) -> io::Result<Report> {
    let segments: Vec<_> = state().segments.iter().map(|(id, segment)| (*id, segment.clone())).collect();
    let mut checker = Checker::default();
    for (id, segment) in segments {
        let file = match disk.open(&file_name(id)) {
            Ok(file) => file,
            // Compacted away in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !state().segments.contains_key(&id) => continue,
            Err(error) => return Err(error),
        };
        checker.segment(&file, id, if segment.sealed { End::Seal } else { End::Known(segment.end) })?;
    }
    Ok(checker.finish())
}

/// How far the records of a segment go.
enum End {
    /// As its seal says; it has to have one.
    Seal,
    /// As its seal says if it has one; otherwise up to the last whole append.
    Find,
    /// Up to here.
    Known(u64),
}

#[derive(Default)]
struct Checker {
    report: Report,
    ledger: Option<[u8; 16]>,
    /// The last segment, and the chain value after it if that is known.
    last: Option<(u64, Option<Chain>)>,
    /// Where segments are missing; they have to be among the removed ones.
    gaps: Vec<Gap>,
    removed: BTreeMap<u64, Removal>,
}

/// Missing segments.
struct Gap {
    first: u64,
    /// The segment that follows.
    next: u64,
    /// Chain values on both sides, as far as they are known.
    before: Option<Chain>,
    after: Chain,
}

impl Checker {
    fn fault(&mut self, segment: u64, offset: u64, what: &'static str) {
        self.report.faults.push(Fault { position: Position { segment, offset }, what });
    }

    fn segment<F: DiskFile>(&mut self, file: &F, id: u64, end: End) -> io::Result<()> {
        self.report.segments += 1;
        self.report.bytes += file.bytes()?;
        let last = self.last.replace((id, None));
        let Some(header) = read_header(file)? else {
            self.fault(id, 0, "segment header");
            return Ok(());
        };
        if header.segment != id || *self.ledger.get_or_insert(header.ledger) != header.ledger {
            self.fault(id, 0, "segment of another ledger");
        }
        let (last, before) = last.unwrap_or((0, Some(genesis(&header.ledger))));
        if last + 1 != id {
            self.gaps.push(Gap { first: last + 1, next: id, before, after: header.chain });
        } else if before.is_some_and(|chain| chain != header.chain) {
            self.fault(id, 0, "chain does not follow from the segment before");
        }
        let salt = Salt::of(&header.ledger, header.segment);
        let footer = if matches!(end, End::Find) { read_whole_seal(file) } else { read_footer(file) }?;
        let chain = match (end, footer) {
            (End::Seal | End::Find, Some(footer)) => self.sealed(file, id, salt, header.chain, &footer)?,
            (End::Find, None) => self.unsealed(file, id, salt, header.chain)?,
            (End::Seal, None) => {
                self.fault(id, 0, "seal");
                self.records(file, id, salt, header.chain, file.bytes()?, None)?;
                None
            }
            (End::Known(end), _) => self.records(file, id, salt, header.chain, end, Some(&[]))?,
        };
        self.last = Some((id, chain));
        Ok(())
    }

    /// Holds the gaps against what is noted of removed segments.
    fn finish(mut self) -> Report {
        for gap in std::mem::take(&mut self.gaps) {
            let mut chain = gap.before;
            for id in gap.first..gap.next {
                match self.removed.get(&id).copied() {
                    None => {
                        self.fault(id, 0, "segment is missing");
                        chain = None;
                        // One fault for the gap: a damaged id must not make millions.
                        break;
                    }
                    Some(removal) => {
                        if chain.is_some_and(|chain| chain != removal.before) {
                            self.fault(id, 0, "removed segment does not follow from the one before");
                        }
                        chain = Some(removal.after);
                    }
                }
            }
            if chain.is_some_and(|chain| chain != gap.after) {
                self.fault(gap.next, 0, "chain does not follow from the removed segment before");
            }
        }
        self.report.removed = u64::try_from(self.removed.len()).unwrap_or(u64::MAX);
        self.report
    }

    fn sealed<F: DiskFile>(
        &mut self,
        file: &F,
        id: u64,
        salt: Salt,
        chain: Chain,
        footer: &Footer,
    ) -> io::Result<Option<Chain>> {
        let end = u64::from(footer.end);
        let index = read_index(file, footer)?;
        if index.is_none() {
            self.fault(id, end, "index");
        }
        let faults = self.report.faults.len();
        let chain = self.records(file, id, salt, chain, end, Some(&index.unwrap_or_default()))?;
        if self.report.faults.len() == faults && chain != Some(footer.chain) {
            self.fault(id, end, "seal does not belong to these records");
        }
        Ok(Some(footer.chain))
    }

    fn unsealed<F: DiskFile>(&mut self, file: &F, id: u64, salt: Salt, chain: Chain) -> io::Result<Option<Chain>> {
        match survey(file, id, salt, chain) {
            Ok(survey) => {
                self.report.unfinished_bytes += survey.bytes - survey.end;
                self.records(file, id, salt, chain, survey.end, Some(&[]))
            }
            Err(LedgerError::Corrupt { position, what }) => {
                self.fault(position.segment, position.offset, what);
                Ok(None)
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Walks up to `end`. Behind a fault it goes on with the next record that the index knows.
    /// Without any index (`None`) the first fault may be the end and is not reported.
    fn records<F: DiskFile>(
        &mut self,
        file: &F,
        id: u64,
        salt: Salt,
        chain: Chain,
        end: u64,
        index: Option<&[u32]>,
    ) -> io::Result<Option<Chain>> {
        let mut walk = Walk::new(file, salt, SEGMENT_HEADER_BYTES, end, Some(chain));
        let mut known = index.unwrap_or_default().iter().map(|offset| u64::from(*offset)).peekable();
        let indexed = known.peek().is_some();
        while walk.offset() < end {
            let offset = walk.offset();
            while known.next_if(|next| *next < offset).is_some() {}
            if indexed && known.peek() != Some(&offset) {
                self.fault(id, offset, "index does not know this record");
                break;
            }
            if let Some(found) = walk.next()? {
                match Removal::decode(found.payload).filter(|_| found.header.fields.removal()) {
                    Some(removal) => drop(self.removed.insert(removal.segment, removal)),
                    None => self.report.records += 1,
                }
                continue;
            }
            if index.is_none() {
                break;
            }
            self.fault(id, offset, "record is damaged");
            known.next();
            let Some(next) = known.peek() else { return Ok(None) };
            walk = Walk::new(file, salt, *next, end, None);
        }
        Ok(walk.chain())
    }
}
