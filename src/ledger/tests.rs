//! Tests of the ledger on the real disk.

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;

use super::{Entry, Fault, Ledger, LedgerError, Options, Position, Recovery, check};

/// Small segments, so that a few records fill one.
fn small() -> Options {
    Options { segment_bytes: 8192, queue_bytes_max: 1 << 20, prepare_bytes: 1024 }
}

fn open(dir: &Path) -> (Ledger, Recovery) {
    Ledger::open(dir, small()).unwrap()
}

fn entry(text: &str) -> Entry {
    Entry { kind: 1, time_millis: 1_700_000_000_000, payload: Bytes::copy_from_slice(text.as_bytes()) }
}

fn append(ledger: &Ledger, text: &str) -> Position {
    ledger.append_blocking(vec![entry(text)]).unwrap()[0]
}

fn replay(ledger: &Ledger, from: Option<Position>) -> Vec<(Position, Entry)> {
    let mut seen = Vec::new();
    let mut visit = |position, entry| {
        seen.push((position, entry));
        ControlFlow::Continue(())
    };
    ledger.replay(from, &mut visit).unwrap();
    seen
}

#[test]
fn what_was_appended_is_read_and_replayed_across_segments_and_openings() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for life in 0..3 {
        let (ledger, recovery) = open(dir.path());
        assert_eq!(recovery.records, u64::try_from(expected.len()).unwrap());
        assert_eq!(recovery.cut, None);
        for i in 0..100_usize {
            // Some compress, some do not, some are empty.
            let text = format!("{life} {i} ").repeat(i * 7 % 300);
            let end = ledger.end();
            let position = append(&ledger, &text);
            assert!(position >= end, "{position} {end}");
            expected.push((position, entry(&text)));
        }
        assert_eq!(replay(&ledger, None), expected);
        for (position, entry) in &expected {
            assert_eq!(ledger.read(*position).unwrap(), *entry);
        }
        let middle = expected.len() / 2;
        assert_eq!(replay(&ledger, Some(expected[middle].0)), expected[middle..]);
        assert_eq!(replay(&ledger, Some(ledger.end())), []);
        assert!(ledger.segments().len() > 2);
    }
}

#[test]
fn entries_of_one_append_are_contiguous_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let ledger = ledger.clone();
            scope.spawn(move || {
                for i in 0..50 {
                    let entries = (0..3).map(|part| entry(&format!("{writer} {i} {part}"))).collect();
                    assert_eq!(ledger.append_blocking(entries).unwrap().len(), 3);
                }
            });
        }
    });
    let seen = replay(&ledger, None);
    assert_eq!(seen.len(), 8 * 50 * 3);
    for three in seen.chunks(3) {
        let texts: Vec<&str> = three.iter().map(|(_, e)| std::str::from_utf8(&e.payload).unwrap()).collect();
        let (first, _) = texts[0].rsplit_once(' ').unwrap();
        assert_eq!(texts, [0, 1, 2].map(|part| format!("{first} {part}")));
    }
    let statistics = ledger.statistics();
    assert_eq!(statistics.records, 1200);
    assert!(statistics.groups <= 400, "{statistics:?}");
}

#[test]
fn what_was_prepared_stands_before_the_last_one_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let before = append(&ledger, "before");
    let prepared = ["one ".repeat(200), "two".to_owned()].map(|text| Ledger::prepare(entry(&text)).unwrap());
    let positions = ledger.append_prepared_blocking(prepared.to_vec(), entry("three")).unwrap();
    let all = replay(&ledger, None);
    let texts: Vec<&[u8]> = all.iter().map(|(_, entry)| &*entry.payload).collect();
    assert_eq!(texts, [b"before", "one ".repeat(200).as_bytes(), b"two", b"three"]);
    assert_eq!(all.iter().skip(1).map(|(position, _)| *position).collect::<Vec<_>>(), positions);
    drop(ledger);
    let segment = std::fs::File::options().write(true).open(dir.path().join("0000000001.segment")).unwrap();
    segment.set_len(positions[2].offset + 32).unwrap();
    let (ledger, recovery) = open(dir.path());
    assert_eq!(recovery.cut.unwrap().position, positions[0]);
    assert_eq!(replay(&ledger, None), [(before, entry("before"))]);
}

#[tokio::test]
async fn appends_from_tasks_share_groups() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let appends = (0..200).map(|i| ledger.append(vec![entry(&i.to_string())]));
    let results = futures_util::future::join_all(appends).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(replay(&ledger, None).len(), 200);
    let large = vec![Entry { payload: Bytes::from(vec![b'x'; 1 << 20]), ..entry("") }];
    let position = ledger.append(large.clone()).await.unwrap()[0];
    assert_eq!(ledger.read(position).unwrap(), large[0]);
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = open(dir.path());
    assert!(matches!(Ledger::open(dir.path(), small()), Err(LedgerError::Locked { .. })));
    drop(first);
    open(dir.path());
}

#[test]
fn what_does_not_fit_in_a_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let noise: Vec<u8> = (0..9000).map(|_| rand::random()).collect();
    let entry = Entry { kind: 1, time_millis: 0, payload: Bytes::from(noise) };
    assert!(matches!(ledger.append_blocking(vec![entry]), Err(LedgerError::TooLarge { .. })));
    append(&ledger, "goes on");
    assert_eq!(replay(&ledger, None).len(), 1);
}

#[test]
fn a_compacted_segment_lives_on_in_its_copies() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for i in 0..200 {
        append(&ledger, &format!("record {i}"));
    }
    let first = ledger.segments()[0];
    assert!(first.sealed);
    let mut count = 0;
    let mut keep = |_, _: &Entry| {
        count += 1;
        count % 2 == 0
    };
    let moved = ledger.rewrite(first.id, &mut keep).unwrap();
    assert_eq!(u64::try_from(moved.len()).unwrap(), first.records / 2);
    for (old, new) in &moved {
        assert_eq!(ledger.read(*old).unwrap(), ledger.read(*new).unwrap());
    }
    ledger.remove(first.id).unwrap();
    assert!(matches!(ledger.read(moved[0].0), Err(LedgerError::NoSuchRecord { .. })));
    let last = ledger.segments().last().copied().unwrap();
    assert!(matches!(ledger.remove(last.id), Err(LedgerError::InUse { .. })));
    let before = replay(&ledger, None);
    drop(ledger);
    let (ledger, _) = open(dir.path());
    assert_eq!(replay(&ledger, None), before);
    let report = ledger.check().unwrap();
    assert_eq!((report.faults.len(), report.removed), (0, 1));
    assert_eq!(before.len() - moved.len(), 200 - usize::try_from(first.records).unwrap());
}

#[test]
fn a_segment_that_is_missing_without_having_been_removed_is_found_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    for i in 0..200 {
        append(&ledger, &format!("record {i}"));
    }
    drop(ledger);
    assert_eq!(check(dir.path()).unwrap().faults, []);
    std::fs::remove_file(dir.path().join("0000000002.segment")).unwrap();
    let report = check(dir.path()).unwrap();
    let position = Position { segment: 2, offset: 0 };
    assert_eq!(report.faults, [Fault { position, what: "segment is missing" }]);
}

#[test]
fn a_segment_cut_within_its_header_is_checked_and_opened() {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()).0, "gone");
    let segment = std::fs::File::options().write(true).open(dir.path().join("0000000001.segment")).unwrap();
    segment.set_len(100).unwrap();
    assert_eq!(check(dir.path()).unwrap().records, 0);
    append(&open(dir.path()).0, "new");
    assert_eq!(replay(&open(dir.path()).0, None).len(), 1);
    assert_eq!(check(dir.path()).unwrap().faults, []);
}

#[test]
fn a_segment_that_is_not_full_is_sealed_on_request_and_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let first = append(&ledger, "one");
    assert!(matches!(ledger.remove(first.segment), Err(LedgerError::InUse { .. })));
    ledger.begin_segment().unwrap();
    // Nothing stands in the new one: it stays.
    ledger.begin_segment().unwrap();
    assert_eq!(ledger.segments().iter().map(|segment| segment.sealed).collect::<Vec<_>>(), [true, false]);
    ledger.remove(first.segment).unwrap();
    let second = append(&ledger, "two");
    assert_eq!(replay(&ledger, None), [(second, entry("two"))]);
    drop(ledger);
    let (ledger, _) = open(dir.path());
    assert_eq!(replay(&ledger, None), [(second, entry("two"))]);
    assert_eq!(ledger.check().unwrap().faults, []);
}

#[tokio::test]
async fn a_ledger_that_a_failure_has_closed_wants_to_be_opened_anew_when_its_disk_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let is_closed = ledger.watch_closed();
    assert!(!is_closed());
    ledger.inner.counters.close();
    assert!(is_closed());
    let moved = dir.path().with_extension("moved");
    std::fs::rename(dir.path(), &moved).unwrap();
    assert!(super::recovery::probe(ledger.inner.reader.disk()).is_err());
    std::fs::rename(&moved, dir.path()).unwrap();
    ledger.can_be_opened_anew().await;
    drop(ledger);
    open(dir.path());
}
