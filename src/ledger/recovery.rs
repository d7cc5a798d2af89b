//! Opening a ledger after whatever has happened to it.
//!
//! Owns: finding the end, cutting a torn tail, making sure that what is kept is durable. Called by: `Ledger::open`,
//! `simulation`. Never: drops a record that may have been acknowledged.
//!
//! What is on disk after a crash: sealed segments, then one that is sealed or open. In the open one, good records up to
//! the first fault; behind it nothing but what is left of one group that was never acknowledged (see `tail`). An
//! append counts only whole: if its last record is missing, its first ones are cut too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::reader::{Reader, Segment, State};
use super::record::{Chain, Salt, genesis};
use super::segment::{
    FOOTER_BYTES, Footer, SEGMENT_HEADER_BYTES, SegmentHeader, UNFINISHED_NAME, file_name, segment_of,
};
use super::tail::{Counters, Open, Tail, page_of};
use super::walk::{Walk, is_blank, later_group};
use super::{Cut, LedgerError, Options, Position, Recovery};

/// Bytes read and written back at a time.
const COPY_BYTES: u64 = 1024 * 1024;

/// An opened ledger.
pub(super) struct Opened<D: Disk> {
    pub(super) tail: Tail<D>,
    pub(super) reader: Arc<Reader<D>>,
    pub(super) recovery: Recovery,
}

/// Opens the ledger in this directory; `new_id` becomes its id if it is empty.
pub(super) fn open<D: Disk>(disk: D, options: Options, new_id: [u8; 16]) -> Result<Opened<D>, LedgerError> {
    let fail = |error| LedgerError::io("open", "directory", error);
    let names = disk.list().map_err(fail)?;
    // A name may be in memory only, left by a process that was killed before it synced the directory.
    disk.sync().map_err(fail)?;
    if names.iter().any(|name| name == UNFINISHED_NAME) {
        disk.remove(UNFINISHED_NAME).map_err(|error| LedgerError::io("remove", UNFINISHED_NAME, error))?;
    }
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
    ids.sort_unstable();
    let mut found = Found::new(new_id);
    for id in &ids {
        found.add(&disk, *id, ids.last() == Some(id))?;
    }
    let next = ids.last().map_or(1, |last| last + 1);
    let end = match &found.open {
        Some(open) => Position { segment: open.id, offset: open.end },
        None => Position { segment: next, offset: SEGMENT_HEADER_BYTES },
    };
    let chain = found.chain.unwrap_or_else(|| genesis(&found.ledger));
    let records = found.segments.values().map(|segment| segment.records).sum();
    let recovery = Recovery { segments: ids.len(), records, cut: found.cut };
    let state = State { segments: found.segments, end };
    let reader = Arc::new(Reader::new(disk.clone(), found.ledger, state));
    let tail = Tail {
        disk,
        options,
        ledger: found.ledger,
        reader: Arc::clone(&reader),
        next,
        chain,
        open: found.open,
        buffer: Vec::new(),
        closed: false,
        counters: Arc::new(Counters::default()),
    };
    Ok(Opened { tail, reader, recovery })
}

/// Whether the disk can be written, while nobody else writes there.
pub(super) fn probe<D: Disk>(disk: &D) -> std::io::Result<()> {
    let file = disk.create(UNFINISHED_NAME)?;
    file.write_at(&[0; 512], 0)?;
    file.sync_all()?;
    disk.remove(UNFINISHED_NAME)?;
    disk.sync()
}

/// What has been found of a ledger, segment by segment.
struct Found<F> {
    ledger: [u8; 16],
    segments: BTreeMap<u64, Segment>,
    /// Chain value after the last segment; none before the first.
    chain: Option<Chain>,
    open: Option<Open<F>>,
    cut: Option<Cut>,
}

impl<F: DiskFile> Found<F> {
    fn new(ledger: [u8; 16]) -> Self {
        Self { ledger, segments: BTreeMap::new(), chain: None, open: None, cut: None }
    }

    fn add<D: Disk<File = F>>(&mut self, disk: &D, id: u64, last: bool) -> Result<(), LedgerError> {
        let name = file_name(id);
        let fail = |error| LedgerError::io("open", &name, error);
        let damaged = |offset, what| LedgerError::Corrupt { position: Position { segment: id, offset }, what };
        let file = disk.open(&name).map_err(fail)?;
        let header = read_header(&file).map_err(fail)?.ok_or(damaged(0, "segment header"))?;
        let first = self.segments.is_empty();
        if header.segment != id || (!first && header.ledger != self.ledger) {
            return Err(damaged(0, "segment of another ledger"));
        }
        self.ledger = header.ledger;
        // Where segments between have been compacted away there is nothing to compare with.
        let follows = id.checked_sub(1).is_some_and(|before| self.segments.contains_key(&before));
        if follows && self.chain != Some(header.chain) {
            return Err(damaged(0, "chain does not follow from the segment before"));
        }
        let mut segment = Segment { end: 0, records: 0, sealed: true, before: header.chain, after: header.chain };
        let footer = if last { read_whole_seal(&file) } else { read_footer(&file) }.map_err(fail)?;
        if let Some(footer) = footer {
            segment.end = u64::from(footer.end);
            segment.records = u64::from(footer.records);
            segment.after = footer.chain;
            if last {
                // It may be in memory only, left by a process that was killed before its sync.
                harden(&file, page_of(segment.end), file.bytes().map_err(fail)?).map_err(fail)?;
            }
        } else {
            let salt = Salt::of(&self.ledger, id);
            let survey = survey(&file, id, salt, header.chain)?;
            segment.end = survey.end;
            segment.records = u64::try_from(survey.index.len()).unwrap_or(u64::MAX);
            segment.after = survey.chain;
            if last {
                segment.sealed = false;
                self.cut = repair(&file, id, &survey).map_err(fail)?;
                let mut page = vec![0; usize::try_from(survey.end - page_of(survey.end)).unwrap_or(0)];
                file.read_at(&mut page, page_of(survey.end)).map_err(fail)?;
                let prepared = file.bytes().map_err(fail)?;
                self.open = Some(Open { id, file, salt, end: survey.end, prepared, index: survey.index, page });
            } else {
                // Whether these are all its records, the chain of the next segment tells.
                tracing::warn!(segment = id, records = segment.records, "the seal of a ledger segment is damaged");
            }
        }
        self.chain = Some(segment.after);
        self.segments.insert(id, segment);
        Ok(())
    }
}

/// The header of a segment file, if it is good.
pub(super) fn read_header<F: DiskFile>(file: &F) -> std::io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; 512];
    file.read_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes))
}

/// The footer of a segment file, if it has one.
pub(super) fn read_footer<F: DiskFile>(file: &F) -> std::io::Result<Option<Footer>> {
    let bytes = file.bytes()?;
    let Some(offset) = bytes.checked_sub(FOOTER_BYTES) else { return Ok(None) };
    let mut footer = [0; 88];
    file.read_at(&mut footer, offset)?;
    Ok(Footer::decode(&footer, bytes))
}

/// The index that was sealed with this footer, if it is good.
pub(super) fn read_index<F: DiskFile>(file: &F, footer: &Footer) -> std::io::Result<Option<Vec<u32>>> {
    let end = u64::from(footer.end);
    let bytes = (file.bytes()?.saturating_sub(FOOTER_BYTES)).saturating_sub(end);
    let mut index = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_at(&mut index, end)?;
    Ok(footer.index(&index))
}

/// The footer of the last segment, if it is sealed. A power cut may have torn the seal: its footer is written, its index
/// is not. Then it counts for nothing.
pub(super) fn read_whole_seal<F: DiskFile>(file: &F) -> std::io::Result<Option<Footer>> {
    let Some(footer) = read_footer(file)? else { return Ok(None) };
    Ok(read_index(file, &footer)?.map(|_| footer))
}

/// What an unsealed segment holds.
pub(super) struct Survey {
    /// Where the last whole append ends.
    pub(super) end: u64,
    pub(super) chain: Chain,
    pub(super) index: Vec<u32>,
    /// Where the group of the last record begins: before it, all is known to be durable.
    group: u64,
    /// Length of the file; at least its header, should the file end within that.
    pub(super) bytes: u64,
}

/// Finds the end of an unsealed segment.
pub(super) fn survey<F: DiskFile>(file: &F, id: u64, salt: Salt, chain: Chain) -> Result<Survey, LedgerError> {
    let fail = |error| LedgerError::io("read", &file_name(id), error);
    let bytes = file.bytes().map_err(fail)?;
    let start = SEGMENT_HEADER_BYTES;
    // What a header says stands in its first octets: a file cut behind them has lost zeros only.
    let bytes = bytes.max(start);
    let mut survey = Survey { end: start, chain, index: Vec::new(), group: start, bytes };
    let mut whole = 0;
    let mut walk = Walk::new(file, salt, start, bytes, Some(chain));
    while let Some(found) = walk.next().map_err(fail)? {
        survey.index.push(u32::try_from(found.offset).unwrap_or(u32::MAX));
        if !found.header.fields.more() {
            whole = survey.index.len();
            survey.end = found.end;
            survey.chain = found.header.chain;
            survey.group = u64::from(found.header.group);
        }
    }
    survey.index.truncate(whole);
    let fault = walk.offset();
    match later_group(file, salt, fault, bytes).map_err(fail)? {
        Some(_) => {
            let position = Position { segment: id, offset: fault };
            Err(LedgerError::Corrupt { position, what: "good records follow a damaged one" })
        }
        None => Ok(survey),
    }
}

/// Makes the file end where its last whole append ends, and that append durable.
fn repair<F: DiskFile>(file: &F, id: u64, survey: &Survey) -> std::io::Result<Option<Cut>> {
    let mut cut = None;
    if !is_blank(file, survey.end, survey.bytes)? {
        file.set_bytes(survey.end)?;
        let position = Position { segment: id, offset: survey.end };
        cut = Some(Cut { position, bytes: survey.bytes - survey.end });
    }
    harden(file, page_of(survey.group), survey.end)?;
    Ok(cut)
}

/// Writes what stands there once more, and the file's length, and syncs.
///
/// What was read may be in memory only: the process was killed before its sync, or the sync failed and left pages that
/// look clean. A sync alone would not write the latter.
fn harden<F: DiskFile>(file: &F, mut from: u64, to: u64) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    while from < to {
        bytes.resize(usize::try_from(COPY_BYTES.min(to - from)).unwrap_or(0), 0);
        let read = file.read_at(&mut bytes, from)?;
        if read == 0 {
            break;
        }
        file.write_at(bytes.get(..read).unwrap_or_default(), from)?;
        from += u64::try_from(read).unwrap_or(u64::MAX);
    }
    file.set_bytes(file.bytes()?)?;
    file.sync_all()
}
