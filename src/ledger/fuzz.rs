//! A damaged ledger. Called by: `crate::fuzz`.
//!
//! The octets are a program: they write records, then damage the files, then open them.
//!
//! Invariants: no panic; a ledger that opens shows only records that were written, whole and in order; one that does not says
//! why; the check ends; after opening it takes further records and shows them after the next opening.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::check::check_disk;
use super::false_disk::{FalseDisk, Platters};
use super::record::{Header, Prepared, RECORD_HEADER_BYTES, Removal, Salt};
use super::recovery::{self, Opened};
use super::segment::{Footer, SegmentHeader};
use super::{Entry, LedgerError, Options};

const LEDGER_ID: [u8; 16] = *b"false ledger id!";
/// Octets of a damaged file.
const FILE_LEN_MAX: usize = 16 * 1024;
/// Steps of a program.
const STEPS_MAX: usize = 64;

/// Carries out a program. Returns the records that were there in the end.
pub(crate) fn target(data: &[u8]) -> usize {
    formats(data);
    let mut program = data.iter().copied().take(4 * STEPS_MAX);
    let options = Options { segment_bytes: 4096, queue_bytes_max: 1 << 20, prepare_bytes: 512 };
    let disk = FalseDisk::new(Platters::default(), 0);
    let mut written = Vec::new();
    let mut opened = recovery::open(disk.clone(), options.clone(), LEDGER_ID).unwrap();
    while let Some(octet) = program.next().filter(|octet| *octet != 0) {
        let entries = (0..=octet & 3).map(|_| entry(written.len(), octet, &mut written)).collect();
        let records = Prepared::all(entries);
        opened.tail.commit(&[&records]).remove(0).unwrap();
    }
    drop(opened);
    let damaged = damage(&disk, &mut program);
    drop(check_disk(&disk));
    let Ok(mut opened) = recovery::open(disk.clone(), options.clone(), LEDGER_ID) else {
        assert!(damaged, "what nobody touched opens");
        return 0;
    };
    let found = shown(&opened, &written);
    assert!(damaged || found.as_ref().is_ok_and(|found| found.len() == written.len()), "{found:?}");
    let Ok(before) = found else { return 0 };
    let added = entry(written.len(), 1, &mut written);
    if opened.tail.commit(&[&Prepared::all(vec![added])]).remove(0).is_ok() {
        drop(opened);
        let opened = recovery::open(disk, options, LEDGER_ID).unwrap();
        let after = shown(&opened, &written).unwrap();
        assert_eq!(after.split_last(), Some((&(written.len() - 1), before.as_slice())));
    }
    before.len()
}

/// A record that differs from all others.
fn entry(number: usize, octet: u8, written: &mut Vec<Entry>) -> Entry {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + usize::from(octet) * 4, octet);
    let entry = Entry { kind: octet, time_millis: 1, payload: Bytes::from(payload) };
    written.push(entry.clone());
    entry
}

/// The numbers of the records shown.
fn shown(opened: &Opened<FalseDisk>, written: &[Entry]) -> Result<Vec<usize>, LedgerError> {
    let mut numbers: Vec<usize> = Vec::new();
    let mut visit = |_, seen: Entry| {
        let number = seen.payload.first_chunk().map_or(usize::MAX, |bytes| usize::from_le_bytes(*bytes));
        assert_eq!(written.get(number), Some(&seen), "only what was written");
        assert!(numbers.last().is_none_or(|last| *last < number), "in order");
        numbers.push(number);
        ControlFlow::Continue(())
    };
    opened.reader.replay(None, &mut visit)?;
    Ok(numbers)
}

/// Damages files as the program says. Whether it did.
fn damage(disk: &FalseDisk, program: &mut impl Iterator<Item = u8>) -> bool {
    let mut damaged = false;
    while let Some(kind) = program.next() {
        let mut next = || usize::from(program.next().unwrap_or_default());
        let names = disk.names();
        let Some(name) = names.get(next() % names.len().max(1)) else { return damaged };
        let mut bytes = disk.contents(name);
        let before = bytes.clone();
        let at = (next() * 256 + next()) % (bytes.len() + 1);
        match kind % 5 {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= kind),
            1 => bytes.truncate(at),
            2 => bytes.iter_mut().skip(at).take(usize::from(kind)).for_each(|byte| *byte = 0),
            3 => bytes.extend_from_within(at..),
            _ => bytes.rotate_left(at),
        }
        bytes.truncate(FILE_LEN_MAX);
        damaged |= bytes != before;
        disk.overwrite(name, bytes);
    }
    damaged
}

/// Octets as each of the formats, with marks made right so that the fields behind them are read.
fn formats(data: &[u8]) {
    let salt = Salt::of(&LEDGER_ID, 1);
    let removal = Removal::decode(data).map(|removal| removal.segment);
    let segment = SegmentHeader::decode(data).map(|header| header.segment);
    let index = Footer::decode(data, 4096).and_then(|footer| footer.index(data));
    assert!(index.is_none_or(|index| index.len() <= data.len()), "{removal:?} {segment:?}");
    let mut marked = salt.mark(64, 64).to_le_bytes().to_vec();
    marked.extend_from_slice(&64_u32.to_le_bytes());
    marked.extend_from_slice(data);
    if let Some(header) = Header::decode(&marked, salt, 64) {
        let payload = marked.get(usize::try_from(RECORD_HEADER_BYTES).unwrap()..).unwrap_or_default();
        header.agrees(payload);
        header.fields.digest(payload);
    }
}
