//! The ledger on the false disk, cut at every step of seeded histories.
//!
//! Owns: the histories, the cuts, what has to hold after each. Called by: the test runner.
//! A failure prints the seed of its history; `FIFE_LEDGER_SEED=that FIFE_LEDGER_CUTS=1` runs that history again.
//!
//! Invariants, after any cut (power, or kill -9) at any step, recovery and compaction included:
//! - the ledger opens;
//! - every acknowledged record is there once, at its position, in order, with its payload;
//! - of appends in flight whole ones are there or nothing of them, in order, and nothing else is there;
//! - what is there after opening is there after the next power cut;
//! - the check is clean, and the ledger takes further records.

use std::cell::RefCell;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::check::check_disk;
use super::disk::{Disk, DiskFile};
use super::false_disk::{FalseDisk, Faults, Luck, Platters, Rng, Watcher};
use super::reader::Reader;
use super::record::Prepared;
use super::recovery::{self, Opened};
use super::tail::Tail;
use super::{Entry, LedgerError, Options, Position, compaction};

/// Cuts in all, unless `FIFE_LEDGER_CUTS` says otherwise.
const CUTS: u64 = 1_000_000;
/// Power cuts and kills tried at each step.
const CUTS_PER_STEP: usize = 4;
const LEDGER_ID: [u8; 16] = *b"false ledger id!";

/// A record that the ledger has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    position: Position,
    id: u32,
    /// Its segment is being removed.
    optional: bool,
}

/// What has to be found.
#[derive(Debug, Clone, Default)]
struct Expected {
    items: Vec<Item>,
    /// Ids of the records of appends that are not acknowledged.
    in_flight: Vec<Vec<u32>>,
    /// Some of those may have failed: any of them may be there, still in order.
    gaps: bool,
    /// A segment may be missing of which nothing is noted.
    unnoted: bool,
}

impl Expected {
    fn verify(&self, found: &[(Position, u32)]) -> Result<(), String> {
        let mut found = found.iter().copied().peekable();
        for item in &self.items {
            if found.next_if_eq(&(item.position, item.id)).is_none() && !item.optional {
                return Err(format!("expected {item:?}, found {:?}", found.peek()));
            }
        }
        let rest: Vec<u32> = found.map(|(_, id)| id).collect();
        let mut rest = rest.as_slice();
        for append in &self.in_flight {
            match rest.strip_prefix(append.as_slice()) {
                Some(later) => rest = later,
                None if self.gaps => {}
                None => break,
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("found {rest:?}, in flight {:?}", self.in_flight)) }
    }
}

/// The record with this id: what it holds follows from the id.
fn entry(id: u32) -> Entry {
    let mut rng = Rng(u64::from(id));
    let mut payload = id.to_le_bytes().to_vec();
    if rng.one_in(30) {
        payload.resize(600, b'z'); // compresses
    } else {
        payload.extend((0..rng.below(20) * 8).map(|_| u8::try_from(rng.next() & 0xff).unwrap()));
    }
    Entry { kind: payload[0], time_millis: u64::from(id) * 1000, payload: Bytes::from(payload) }
}

fn prepared(ids: &[u32]) -> Vec<Prepared> {
    Prepared::all(ids.iter().map(|id| entry(*id)).collect())
}

fn replay(reader: &Reader<FalseDisk>) -> Result<Vec<(Position, u32)>, String> {
    let mut found = Vec::new();
    let mut wrong = None;
    let mut visit = |position, seen: Entry| {
        let id = seen.payload.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
        if seen != entry(id) {
            wrong = Some(format!("payload of {id} at {position}"));
        }
        found.push((position, id));
        ControlFlow::Continue(())
    };
    reader.replay(None, &mut visit).map_err(|error| format!("replay: {error}"))?;
    wrong.map_or(Ok(found), Err)
}

type Reopened = (FalseDisk, Opened<FalseDisk>, Vec<(Position, u32)>);

fn reopen(platters: Platters, options: &Options) -> Result<Reopened, String> {
    let disk = FalseDisk::new(platters, 0);
    let opened = recovery::open(disk.clone(), options.clone(), LEDGER_ID).map_err(|error| format!("open: {error}"))?;
    let found = replay(&opened.reader)?;
    Ok((disk, opened, found))
}

/// Cuts at every step.
struct Cutter {
    seed: u64,
    rng: Rng,
    options: Options,
    expected: Arc<Mutex<Expected>>,
    cuts: Arc<AtomicU64>,
    /// One of the cuts: the next life begins with what it left.
    chosen: Arc<Mutex<Option<(Platters, Expected)>>>,
}

impl Watcher for Cutter {
    fn step(&mut self, platters: &Platters) {
        for _ in 0..CUTS_PER_STEP {
            let (how, after) = match self.rng.below(8) {
                0 => ("kill", platters.killed()),
                1 => ("power cut, nothing written", platters.power_cut(&mut Luck::None)),
                2 => ("power cut, all written", platters.power_cut(&mut Luck::All)),
                _ => ("power cut", platters.power_cut(&mut Luck::Some(&mut self.rng))),
            };
            let cuts = self.cuts.fetch_add(1, Ordering::Relaxed) + 1;
            if self.rng.one_in(60) {
                *self.chosen.lock().unwrap() = Some((after.clone(), self.expected.lock().unwrap().clone()));
            }
            if let Err(why) = self.examine(after) {
                panic!("FIFE_LEDGER_SEED={} cut {cuts} ({how}): {why}", self.seed);
            }
        }
    }
}

impl Cutter {
    fn examine(&mut self, after: Platters) -> Result<(), String> {
        let (disk, mut opened, found) = reopen(after, &self.options)?;
        self.expected.lock().unwrap().verify(&found)?;
        match self.rng.below(8) {
            0 => self.check(&disk, found.len())?,
            1 | 2 => {
                let (_, _, again) = reopen(disk.platters().power_cut(&mut Luck::None), &self.options)?;
                if again != found {
                    return Err(format!("found {found:?}, after another power cut {again:?}"));
                }
            }
            3 => {
                let records = prepared(&[7]);
                let position = opened.tail.commit(&[&records]).remove(0).map_err(|error| error.to_string())?[0];
                let (_, _, again) = reopen(disk.platters().power_cut(&mut Luck::None), &self.options)?;
                if again.split_last() != Some((&(position, 7), &found)) {
                    return Err(format!("found {found:?}, after one more record {again:?}"));
                }
                self.check(&disk, found.len() + 1)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, disk: &FalseDisk, records: usize) -> Result<(), String> {
        let report = check_disk(disk).map_err(|error| error.to_string())?;
        let unnoted = self.expected.lock().unwrap().unnoted;
        let mut faults = report.faults.iter().filter(|fault| !unnoted || fault.what != "segment is missing");
        let good = faults.next().is_none() && report.records == u64::try_from(records).unwrap();
        if good { Ok(()) } else { Err(format!("check: {report:?}")) }
    }
}

/// One ledger's life, or rather several: each ends by a cut, and the next begins with what that left.
struct History {
    rng: Rng,
    faulty: bool,
    next_id: u32,
    expected: Arc<Mutex<Expected>>,
}

impl History {
    /// Hands a group to the writer and takes its answers.
    fn commit(
        &mut self,
        tail: &mut Tail<FalseDisk>,
        appends: &[Vec<u32>],
        records: &[Vec<Prepared>],
    ) -> Vec<Result<Vec<Position>, LedgerError>> {
        self.expected.lock().unwrap().in_flight = appends.to_vec();
        let slices: Vec<&[Prepared]> = records.iter().map(Vec::as_slice).collect();
        let results = tail.commit(&slices);
        let mut expected = self.expected.lock().unwrap();
        for ((ids, records), result) in appends.iter().zip(records).zip(&results) {
            let positions = result.as_deref().unwrap_or_default();
            let own = positions.iter().zip(records).filter(|(_, record)| !record.removal());
            let items = own.zip(ids).map(|((position, _), id)| Item { position: *position, id: *id, optional: false });
            expected.items.extend(items);
        }
        if tail.closed {
            // What failed last may be found by whoever opens the ledger next.
            let failed = appends.iter().zip(&results).filter(|(_, result)| result.is_err());
            expected.in_flight = failed.map(|(ids, _)| ids.clone()).collect();
        } else {
            expected.in_flight.clear();
        }
        results
    }

    fn append(&mut self, tail: &mut Tail<FalseDisk>) {
        let appends: Vec<Vec<u32>> = (0..=self.rng.below(4))
            .map(|_| {
                let count = u32::try_from(1 + self.rng.below(3)).unwrap();
                self.next_id += count;
                (self.next_id - count..self.next_id).collect()
            })
            .collect();
        let records: Vec<_> = appends.iter().map(|ids| prepared(ids)).collect();
        let results = self.commit(tail, &appends, &records);
        let failed = results.iter().any(|result| !matches!(result, Ok(_) | Err(LedgerError::TooLarge { .. })));
        assert!(self.faulty || !failed, "{results:?}");
    }

    fn compact(&mut self, tail: &mut Tail<FalseDisk>, reader: &Reader<FalseDisk>) {
        let segments = reader.segments();
        let Some((_, past)) = segments.split_last() else { return };
        let Some(segment) = past.get(self.rng.below(past.len())).map(|segment| segment.id) else { return };
        let mut keep_rng = Rng(self.rng.next());
        let kept = RefCell::new(Vec::new());
        let mut keep = |_: Position, entry: &Entry| {
            let keep = keep_rng.one_in(4);
            kept.borrow_mut().extend(entry.payload.first_chunk().filter(|_| keep).map(|id| u32::from_le_bytes(*id)));
            keep
        };
        let mut append = |records| self.commit(tail, &[kept.take()], &[records]).remove(0);
        if compaction::rewrite(reader, segment, &mut keep, &mut append).is_err() {
            return;
        }
        let expected = Arc::clone(&self.expected);
        let mut append = |records| {
            let outcome = self.commit(tail, &[Vec::new()], &[records]).remove(0);
            let mut expected = expected.lock().unwrap();
            // From now on it may be gone at any moment; if there was no room for the note, without one.
            expected.unnoted |= matches!(outcome, Err(LedgerError::Full));
            for item in expected.items.iter_mut().filter(|item| item.position.segment == segment) {
                item.optional = true;
            }
            outcome
        };
        if compaction::remove(reader, segment, &mut append).is_ok() {
            self.expected.lock().unwrap().items.retain(|item| item.position.segment != segment);
        }
    }

    /// Makes something fail soon, or lets it be well again.
    fn trouble(&mut self, disk: &FalseDisk) {
        let streak = if self.rng.one_in(4) { 3 } else { 0 };
        let mut faults = Faults { streak, ..Faults::default() };
        match self.rng.below(6) {
            0 => faults.write_in = 1 + self.rng.below(3),
            1 => faults.sync_in = 1 + self.rng.below(3),
            2 => faults.space = Some(disk.used() + self.rng.below(600)),
            _ => {}
        }
        disk.faults(faults);
    }

    /// From opening to the cut that ends it; what the cut leaves.
    fn life(&mut self, platters: Platters, watcher: Box<dyn Watcher>, options: &Options) -> Result<Platters, String> {
        let disk = FalseDisk::new(platters, self.rng.next());
        disk.watch(Some(watcher));
        let opened = recovery::open(disk.clone(), options.clone(), LEDGER_ID).map_err(|error| error.to_string())?;
        let Opened { mut tail, reader, .. } = opened;
        let found = replay(&reader)?;
        let mut expected = self.expected.lock().unwrap();
        expected.verify(&found)?;
        expected.items =
            found.iter().map(|(position, id)| Item { position: *position, id: *id, optional: false }).collect();
        let lost = std::mem::take(&mut expected.in_flight).into_iter().next();
        drop(expected);
        if let Some(ids) = lost.filter(|ids| !found.iter().any(|(_, id)| ids.contains(id))) {
            // Whoever got no answer tries again with the very same bytes: nothing old may come alive behind them.
            self.commit(&mut tail, std::slice::from_ref(&ids), &[prepared(&ids)]);
        }
        for _ in 0..2 + self.rng.below(8) {
            if self.faulty {
                self.trouble(&disk);
            }
            if self.rng.one_in(12) {
                // The next segment is begun before this one is full.
                self.commit(&mut tail, &[Vec::new()], &[Vec::new()]);
            } else if self.rng.one_in(5) {
                self.compact(&mut tail, &reader);
            } else {
                self.append(&mut tail);
            }
            if tail.closed {
                break;
            }
            // Readers see what was acknowledged, and nothing else.
            let expected = self.expected.lock().unwrap();
            let seen = replay(&reader)?;
            let items = expected.items.iter().filter(|item| !item.optional).map(|item| (item.position, item.id));
            let kept = seen.iter().copied().filter(|s| !expected.items.iter().any(|i| i.optional && i.position == s.0));
            if !items.eq(kept) {
                return Err(format!("readers see {seen:?}, acknowledged {:?}", expected.items));
            }
        }
        disk.watch(None);
        let platters = disk.platters();
        Ok(match self.rng.below(3) {
            0 => platters.killed(),
            1 => platters.power_cut(&mut Luck::None),
            _ => platters.power_cut(&mut Luck::Some(&mut self.rng)),
        })
    }
}

/// One history; returns the number of cuts.
fn run(seed: u64) -> u64 {
    let mut rng = Rng(seed);
    let options = Options {
        segment_bytes: [2048, 3072, 6144][rng.below(3)],
        queue_bytes_max: 0,
        prepare_bytes: [0, 512, 1024][rng.below(3)],
    };
    let faulty = rng.one_in(2);
    let expected = Arc::new(Mutex::new(Expected { gaps: faulty, ..Expected::default() }));
    let cuts = Arc::new(AtomicU64::new(0));
    let mut history = History { rng: Rng(rng.next()), faulty, next_id: 100, expected: Arc::clone(&expected) };
    let mut platters = Platters::default();
    for life in 0..1 + rng.below(4) {
        let chosen = Arc::new(Mutex::new(None));
        let watcher = Box::new(Cutter {
            seed,
            rng: Rng(rng.next()),
            options: options.clone(),
            expected: Arc::clone(&expected),
            cuts: Arc::clone(&cuts),
            chosen: Arc::clone(&chosen),
        });
        match history.life(platters, watcher, &options) {
            Ok(after) => platters = after,
            Err(why) => panic!("FIFE_LEDGER_SEED={seed} life {life}: {why}"),
        }
        if let Some((after, before)) = chosen.lock().unwrap().take() {
            platters = after;
            *expected.lock().unwrap() = before;
        }
    }
    cuts.load(Ordering::Relaxed)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_by_a_cut_at_any_step() {
    let seed = setting("FIFE_LEDGER_SEED").unwrap_or_else(rand::random);
    let wanted = setting("FIFE_LEDGER_CUTS").unwrap_or(CUTS);
    let started = crate::base::clock::monotonic();
    let mut cuts = 0;
    let mut histories = 0;
    while cuts < wanted {
        cuts += run(seed.wrapping_add(histories));
        histories += 1;
    }
    let secs = started.elapsed().as_secs_f32();
    // Past the test runner's capture: CI's log shows what was tried.
    writeln!(
        std::io::stderr(),
        "ledger simulation: {cuts} cuts in {histories} histories from seed {seed}, {secs:.1} s"
    )
    .unwrap();
}

/// A segment with a few groups in it, on a disk where all is synced.
fn groups(count: u32) -> (FalseDisk, Vec<Position>, Options) {
    let options = Options { segment_bytes: 1 << 20, queue_bytes_max: 0, prepare_bytes: 4096 };
    let disk = FalseDisk::new(Platters::default(), 1);
    let mut opened = recovery::open(disk.clone(), options.clone(), LEDGER_ID).unwrap();
    let positions = (0..count)
        .map(|id| {
            let records = prepared(&[id]);
            opened.tail.commit(&[&records]).remove(0).unwrap()[0]
        })
        .collect();
    (disk, positions, options)
}

#[test]
fn a_damaged_record_before_acknowledged_ones_is_not_taken_for_a_torn_tail() {
    let (disk, positions, options) = groups(5);
    let before = disk.platters();
    disk.damage("0000000001.segment", usize::try_from(positions[2].offset).unwrap() + 66);
    let report = check_disk(&disk).unwrap();
    assert_eq!(report.faults.iter().map(|fault| fault.position).collect::<Vec<_>>(), [positions[2]]);
    let error = recovery::open(disk, options.clone(), LEDGER_ID).err().unwrap();
    assert!(matches!(error, LedgerError::Corrupt { position, .. } if position == positions[2]), "{error}");
    let (_, _, found) = reopen(before, &options).unwrap();
    assert_eq!(found.len(), 5);
}

#[test]
fn a_sector_that_a_failed_sync_destroyed_is_written_anew() {
    let (disk, positions, options) = groups(3);
    let Opened { mut tail, .. } = recovery::open(disk.clone(), options.clone(), LEDGER_ID).unwrap();
    disk.faults(Faults { sync_in: 1, destroys: true, ..Faults::default() });
    let lost = prepared(&[8]);
    assert!(matches!(tail.commit(&[&lost]).remove(0), Err(LedgerError::Io { .. })));
    let mut expected: Vec<_> = positions.into_iter().zip(0..).collect();
    let found = |disk: &FalseDisk| reopen(disk.platters().power_cut(&mut Luck::None), &options).unwrap().2;
    assert_eq!(found(&disk), expected);
    let kept = prepared(&[9]);
    expected.push((tail.commit(&[&kept]).remove(0).unwrap()[0], 9));
    assert_eq!(found(&disk), expected);
}

#[test]
fn a_full_disk_is_told_and_the_ledger_goes_on_when_there_is_room() {
    let (disk, positions, options) = groups(3);
    let Opened { mut tail, reader, .. } = recovery::open(disk.clone(), options.clone(), LEDGER_ID).unwrap();
    let noise: Vec<u8> = (0..9000).map(|_| rand::random()).collect();
    let large = Prepared::all(vec![Entry { payload: Bytes::from(noise), ..entry(0) }]);
    disk.faults(Faults { space: Some(disk.used() + 3000), ..Faults::default() });
    for _ in 0..3 {
        assert!(matches!(tail.commit(&[&large]).remove(0), Err(LedgerError::Full)));
        assert_eq!(replay(&reader).unwrap().len(), 3);
    }
    // What still fits is taken.
    let small = prepared(&[3]);
    tail.commit(&[&small]).remove(0).unwrap();
    disk.faults(Faults::default());
    let position = tail.commit(&[&large]).remove(0).unwrap()[0];
    assert_eq!(reader.read(position, usize::MAX).unwrap().payload.len(), 9000);
    let end = reader.state().end;
    let after =
        recovery::open(FalseDisk::new(disk.platters().power_cut(&mut Luck::None), 0), options, LEDGER_ID).unwrap();
    assert_eq!(after.recovery.records, u64::try_from(positions.len()).unwrap() + 2);
    assert_eq!(after.reader.state().end, end);
}

#[test]
fn after_a_failure_that_cannot_be_mended_the_ledger_is_closed_until_it_is_opened_again() {
    let (disk, positions, options) = groups(3);
    let Opened { mut tail, .. } = recovery::open(disk.clone(), options.clone(), LEDGER_ID).unwrap();
    disk.faults(Faults { sync_in: 1, streak: 5, ..Faults::default() });
    let records = prepared(&[3]);
    assert!(matches!(tail.commit(&[&records]).remove(0), Err(LedgerError::Io { .. })));
    disk.faults(Faults::default());
    assert!(matches!(tail.commit(&[&records]).remove(0), Err(LedgerError::Closed)));
    let (_, mut opened, found) = reopen(disk.platters().killed(), &options).unwrap();
    assert!(found.iter().map(|(position, _)| *position).eq(positions));
    opened.tail.commit(&[&records]).remove(0).unwrap();
}

#[test]
fn a_record_of_another_history_is_not_taken_for_the_next_one() {
    let history = |ids: &[u32]| {
        let (disk, mut positions, options) = groups(1);
        let Opened { mut tail, .. } = recovery::open(disk.clone(), options.clone(), LEDGER_ID).unwrap();
        for id in ids {
            let entry = Entry { payload: Bytes::from(id.to_le_bytes().to_vec()), ..entry(0) };
            positions.extend(tail.commit(&[&Prepared::all(vec![entry])]).remove(0).unwrap());
        }
        (disk, positions, options)
    };
    // The same places, marks and checksums; only the chain tells that one does not follow the other.
    let (disk, positions, options) = history(&[1, 2]);
    let (other, others, _) = history(&[7, 2]);
    assert_eq!(positions, others);
    let file = disk.open("0000000001.segment").unwrap();
    let mut record = vec![0; 72];
    other.open("0000000001.segment").unwrap().read_at(&mut record, positions[2].offset).unwrap();
    file.write_at(&record, positions[2].offset).unwrap();
    let opened = recovery::open(disk, options, LEDGER_ID).unwrap();
    assert_eq!(opened.recovery.records, 2);
}

#[test]
fn a_damaged_seal_costs_no_records_and_a_damaged_record_before_it_is_not_dropped() {
    let options = Options { segment_bytes: 2048, queue_bytes_max: 0, prepare_bytes: 512 };
    let disk = FalseDisk::new(Platters::default(), 1);
    let Opened { mut tail, reader, .. } = recovery::open(disk.clone(), options.clone(), LEDGER_ID).unwrap();
    let ids: Vec<u32> = (0..40).collect();
    let positions: Vec<_> = ids.iter().map(|id| tail.commit(&[&prepared(&[*id])]).remove(0).unwrap()[0]).collect();
    let segment = reader.segments()[1];
    let footer = usize::try_from(disk.open("0000000002.segment").unwrap().bytes().unwrap() - 80).unwrap();
    disk.damage("0000000002.segment", footer);
    let (_, _, found) = reopen(disk.platters(), &options).unwrap();
    assert!(found.into_iter().eq(positions.iter().copied().zip(ids)));
    let fault = check_disk(&disk).unwrap().faults[0];
    assert_eq!((fault.position.segment, fault.what), (2, "seal"));
    // Its last record damaged too: without the seal only the next segment's chain can tell.
    let last = positions.iter().rfind(|position| position.segment == segment.id).unwrap();
    disk.damage("0000000002.segment", usize::try_from(last.offset).unwrap() + 66);
    assert!(matches!(recovery::open(disk, options, LEDGER_ID), Err(LedgerError::Corrupt { .. })));
}

#[test]
fn any_damaged_byte_is_found_by_the_check() {
    let options = Options { segment_bytes: 2048, queue_bytes_max: 0, prepare_bytes: 512 };
    let disk = FalseDisk::new(Platters::default(), 1);
    let Opened { mut tail, reader, .. } = recovery::open(disk.clone(), options, LEDGER_ID).unwrap();
    for id in 0..30 {
        let records = prepared(&[id]);
        tail.commit(&[&records]).remove(0).unwrap();
    }
    assert_eq!(check_disk(&disk).unwrap().faults, []);
    let first = reader.segments()[0];
    assert!(first.sealed);
    let name = "0000000001.segment";
    let bytes = disk.used().min(usize::try_from(first.bytes).unwrap());
    let covered: Vec<usize> = (0..72).chain(512..bytes).collect();
    let mut missed = Vec::new();
    for at in covered {
        disk.damage(name, at);
        if check_disk(&disk).unwrap().faults.is_empty() {
            missed.push(at);
        }
        disk.damage(name, at);
    }
    // Only the padding between records bears no information.
    assert!(missed.len() < 7 * 30, "{missed:?}");
    let mut ends = Vec::new();
    let mut visit = |position: Position, _| {
        ends.push(position.offset);
        ControlFlow::Continue(())
    };
    reader.replay(None, &mut visit).unwrap();
    for at in missed {
        assert!(ends.iter().any(|end| usize::try_from(*end).unwrap().wrapping_sub(at) < 8) || at + 8 > bytes, "{at}");
    }
}
