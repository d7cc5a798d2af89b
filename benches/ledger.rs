//! What a durable record costs: the ledger beside SQLite (WAL, `synchronous=FULL`).
//!
//! `cargo bench --bench ledger` prints one table: for 1, 16, 64 and 256 threads, each of which has one record at a time
//! made durable, records per second and fsyncs per record, of the same payload (random bytes: nothing to compress) on
//! the same disk. SQLite's threads share one connection, as one writer is what it allows: 256 connections that wait
//! for its lock are slower. Both engines' fsyncs are counted where they reach the C library.

#![expect(clippy::print_stdout, reason = "the table is the purpose")]
#![expect(clippy::unwrap_used, reason = "whatever fails ends the benchmark")]

use std::ffi::c_int;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fife::base::clock;
use fife::ledger::{Entry, Ledger, Options};
use rusqlite::Connection;

/// How long each engine runs for each row.
const RUN: Duration = Duration::from_millis(1500);
/// Not measured: files are new, caches cold.
const WARM_UP: Duration = Duration::from_millis(200);

static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Takes the place of the C library's: counts, then asks the kernel.
#[expect(unsafe_code, reason = "counting fsyncs of a C library needs its symbol")]
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a system call that takes a file descriptor and touches no memory.
    c_int::try_from(unsafe { libc::syscall(libc::SYS_fdatasync, fd) }).unwrap_or(-1)
}

/// Takes the place of the C library's: counts, then asks the kernel.
#[expect(unsafe_code, reason = "counting fsyncs of a C library needs its symbol")]
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a system call that takes a file descriptor and touches no memory.
    c_int::try_from(unsafe { libc::syscall(libc::SYS_fsync, fd) }).unwrap_or(-1)
}

struct Measured {
    records_per_sec: f64,
    syncs_per_record: f64,
}

/// Runs `append` on so many threads at once, each one record after the other.
fn measure(threads: usize, append: &(dyn Fn() + Sync)) -> Measured {
    let records = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let mut measured = Measured { records_per_sec: 0.0, syncs_per_record: 0.0 };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    append();
                    records.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::park_timeout(WARM_UP);
        let (start, records_before, syncs_before) =
            (clock::monotonic(), records.load(Ordering::Relaxed), SYNCS.load(Ordering::Relaxed));
        thread::park_timeout(RUN);
        let secs = start.elapsed().as_secs_f64();
        let count = |n: u64| f64::from(u32::try_from(n).unwrap());
        let done = count(records.load(Ordering::Relaxed) - records_before);
        let syncs = count(SYNCS.load(Ordering::Relaxed) - syncs_before);
        stop.store(true, Ordering::Relaxed);
        measured = Measured { records_per_sec: done / secs, syncs_per_record: syncs / done };
    });
    measured
}

fn ledger(dir: &Path, threads: usize, payload: &Bytes) -> Measured {
    let (ledger, _) = Ledger::open(dir, Options::default()).unwrap();
    measure(threads, &|| {
        let entry = Entry { kind: 1, time_millis: 0, payload: payload.clone() };
        ledger.append_blocking(vec![entry]).unwrap();
    })
}

fn sqlite(dir: &Path, threads: usize, payload: &Bytes) -> Measured {
    let connection = Connection::open(dir.join("bench.sqlite")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection
        .execute_batch("CREATE TABLE record (id INTEGER PRIMARY KEY, kind INTEGER, time INTEGER, payload BLOB)")
        .unwrap();
    let connection = Mutex::new(connection);
    measure(threads, &|| {
        let connection = connection.lock().unwrap();
        let mut insert =
            connection.prepare_cached("INSERT INTO record (kind, time, payload) VALUES (1, 0, ?1)").unwrap();
        insert.execute([payload.as_ref()]).unwrap();
    })
}

fn main() {
    println!("each thread appends one record at a time and waits until it is durable");
    println!("{:>8} {:>8} | {:^25} | {:^25} |", "payload", "writers", "ledger", "SQLite WAL FULL");
    println!(
        "{:>8} {:>8} | {:>12} {:>12} | {:>12} {:>12} | times",
        "", "", "records/s", "fsyncs/rec", "records/s", "fsyncs/rec"
    );
    for payload_bytes in [1024_usize, 10 * 1024] {
        let payload: Vec<u8> = (0..payload_bytes).map(|_| rand::random()).collect();
        let payload = Bytes::from(payload);
        for threads in [1, 16, 64, 256] {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let a = ledger(&dir.path().join("ledger"), threads, &payload);
            let b = sqlite(dir.path(), threads, &payload);
            println!(
                "{:>8} {threads:>8} | {:>12.0} {:>12.3} | {:>12.0} {:>12.3} | {:.1}",
                format!("{} KiB", payload_bytes / 1024),
                a.records_per_sec,
                a.syncs_per_record,
                b.records_per_sec,
                b.syncs_per_record,
                a.records_per_sec / b.records_per_sec
            );
        }
    }
}
