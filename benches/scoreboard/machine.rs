//! The machine and the versions that figures belong to.
//!
//! Owns: finding them out. Called by: `report`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::rows::{median, millis};
use crate::server::run;
use crate::{Failure, clock, peer};

/// Flushes that are timed.
const FLUSHES: usize = 100;

/// Facts, each with its name, in the order in which they are shown.
pub(crate) fn facts(dir: &Path) -> Vec<(&'static str, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']).to_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let output =
        |program: &str, args: &[&str]| run(Command::new(program).args(args)).unwrap_or_default().trim().to_owned();
    let place = dir.display().to_string();
    let disk = output("findmnt", &["-n", "-o", "SOURCE,FSTYPE,OPTIONS", "-T", &place]);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let flush = flush_millis(dir)
        .map_or_else(|error| error.to_string(), |ms| format!("{ms:.2} ms (median of {FLUSHES} fdatasyncs of 4 KiB)"));
    let commit = output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"]);
    vec![
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("commit", commit),
        ("processor", format!("{model}, {cores} cores")),
        ("memory", format!("{} GiB", memory / 1024 / 1024)),
        ("kernel", output("uname", &["-sr"])),
        ("disk", disk),
        ("fsync", flush),
        ("load before the run", load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
        ("peers", peer::versions()),
    ]
}

fn flush_millis(dir: &Path) -> Result<f64, Failure> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut file = File::create(dir.path().join("flush"))?;
    let mut values = Vec::new();
    for _ in 0..FLUSHES {
        file.write_all(&[7; 4096])?;
        let start = clock::monotonic();
        file.sync_data()?;
        values.push(millis(start.elapsed()));
    }
    Ok(median(values))
}
