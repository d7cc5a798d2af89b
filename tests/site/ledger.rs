//! The ledger on a real disk, in a process that is killed.
//!
//! A child (this binary again) appends from several threads and says which records it was told are durable; kill -9 at
//! some moment; then all of those have to be there, once, where they were said to be. Again and again on one ledger.
//! And on a file system that is full.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use fife::ledger::{self, Entry, Ledger, LedgerError, Options, Position};

const CHILD: &str = "FIFE_TEST_LEDGER_CHILD";
const LIVES: u64 = 10;
const THREADS: u64 = 8;

/// Small segments: some of the kills come while one is sealed and the next is made.
fn options() -> Options {
    Options { segment_bytes: 256 * 1024, prepare_bytes: 64 * 1024, ..Options::default() }
}

/// The record that a thread of a life writes as its `number`th: part `part` of an append of three.
fn entry(life: u64, thread: u64, number: u64, part: u64) -> Entry {
    let head = format!("{life} {thread} {number} {part} ");
    let fill = usize::try_from((number * 37 + thread * 101) % 3000).unwrap();
    let body = (0..fill).map(|i| u8::try_from((i * i + fill) % 251).unwrap());
    Entry { kind: 7, time_millis: number, payload: Bytes::from_iter(head.into_bytes().into_iter().chain(body)) }
}

/// Not a test by itself: what the child does until it is killed.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(setting) = std::env::var(CHILD) else { return };
    let (life, dir) = setting.split_once(' ').unwrap();
    let life: u64 = life.parse().unwrap();
    let (ledger, _) = Ledger::open(Path::new(dir), options()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let ledger = ledger.clone();
            scope.spawn(move || {
                for number in 0.. {
                    let entries = (0..3).map(|part| entry(life, thread, number, part)).collect();
                    let positions = ledger.append_blocking(entries).unwrap();
                    let at = positions[0];
                    // One write, below PIPE_BUF: whole in the pipe, or not at all.
                    let line = format!("durable {life} {thread} {number} {} {}\n", at.segment, at.offset);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

type Key = (u64, u64, u64);

/// Runs a child, kills it after so many acknowledgements, and returns all that it gave.
fn life(number: u64, dir: &Path, acknowledgements: usize) -> HashMap<Key, Position> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ledger::child_that_appends_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{number} {}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut durable = HashMap::new();
    let mut killed = false;
    while let Some(Ok(line)) = lines.next() {
        // The test runner's own words may stand before the first.
        let Some((_, line)) = line.split_once("durable ") else { continue };
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [life, thread, number, segment, offset] = numbers[..] else { panic!("{line}") };
        durable.insert((life, thread, number), Position { segment, offset });
        if durable.len() >= acknowledgements && !killed {
            child.kill().unwrap(); // SIGKILL; what is in the pipe is read on
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    durable
}

/// All records, by their key; parts have to be together and whole.
fn records(ledger: &Ledger) -> HashMap<Key, Position> {
    let mut found = HashMap::new();
    let mut next_part = 0;
    let mut visit = |position: Position, seen: Entry| {
        let text = String::from_utf8_lossy(&seen.payload).into_owned();
        let numbers: Vec<u64> = text.splitn(5, ' ').take(4).map(|number| number.parse().unwrap()).collect();
        let [life, thread, number, part] = numbers[..] else { panic!("{text}") };
        assert_eq!(seen, entry(life, thread, number, part));
        assert_eq!(part, next_part, "{life} {thread} {number} at {position}");
        next_part = (part + 1) % 3;
        if part == 0 {
            assert_eq!(found.insert((life, thread, number), position), None, "twice: {life} {thread} {number}");
        }
        ControlFlow::Continue(())
    };
    ledger.replay(None, &mut visit).unwrap();
    assert_eq!(next_part, 0, "part of an append at the end");
    found
}

#[test]
fn a_killed_ledger_has_every_acknowledged_record() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut durable = HashMap::new();
    for number in 0..LIVES {
        let acknowledgements = usize::from(rand::random::<u8>()) * 3 + 1;
        durable.extend(life(number, dir.path(), acknowledgements));
        let (ledger, recovery) = Ledger::open(dir.path(), options()).unwrap();
        let found = records(&ledger);
        assert_eq!(recovery.records, u64::try_from(found.len()).unwrap() * 3);
        for (key, position) in &durable {
            assert_eq!(found.get(key), Some(position), "life {number}, killed after {acknowledgements}: {key:?}");
        }
        // At most what was in flight is there without having been acknowledged.
        let unacknowledged = found.len() - durable.len();
        assert!(u64::try_from(unacknowledged).unwrap() <= THREADS * (number + 1), "{unacknowledged}");
        assert_eq!(ledger.check().unwrap().faults, []);
        drop(ledger);
        assert_eq!(ledger::check(dir.path()).unwrap().faults, []);
    }
}

const FULL_DISK: &str = "FIFE_TEST_LEDGER_FULL_DISK";

/// Not a test by itself: what runs on a small file system of its own.
#[test]
fn child_that_fills_its_disk() {
    let Ok(dir) = std::env::var(FULL_DISK) else { return };
    let ballast = Path::new(&dir).join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let dir = Path::new(&dir).join("ledger");
    let (ledger, _) = Ledger::open(&dir, options()).unwrap();
    let mut number = 0;
    let full = loop {
        match ledger.append_blocking(vec![entry(0, 0, number, 0)]) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, LedgerError::Full), "{full}");
    // What is written ahead takes no room from what has to be written.
    let disk = nix::sys::statvfs::statvfs(dir.as_path()).unwrap();
    assert!(disk.blocks_available() * disk.fragment_size() <= 8192, "{disk:?}");
    assert!(number > 500, "{number}");
    let count = |ledger: &Ledger| ledger.segments().iter().map(|segment| segment.records).sum::<u64>();
    assert_eq!(count(&ledger), number);
    // It opens and is whole while the disk is full, and goes on when there is room.
    drop(ledger);
    let (ledger, recovery) = Ledger::open(&dir, options()).unwrap();
    assert_eq!(recovery.records, number);
    while ledger.append_blocking(vec![entry(0, 0, number, 0)]).is_ok() {
        number += 1; // what was cut off has made a little room
    }
    std::fs::remove_file(ballast).unwrap();
    for _ in 0..100 {
        ledger.append_blocking(vec![entry(0, 0, number, 0)]).unwrap();
        number += 1;
    }
    assert_eq!(count(&ledger), number);
    assert_eq!(ledger.check().unwrap().faults, []);
    println!("went on after {number} records");
}

#[test]
fn a_full_disk_is_told_and_the_ledger_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script =
        r#"mount -t tmpfs -o size=3m none "$1" && exec "$0" --exact ledger::child_that_fills_its_disk --nocapture"#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(dir.path())
        .env(FULL_DISK, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("went on after"), "{output:?}");
}
