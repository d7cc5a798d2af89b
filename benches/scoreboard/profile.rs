//! Where fife's time goes, by path: `perf record` on its processes while the path is walked.
//!
//! Owns: recording, and sorting what was found into costs that have a name. Called by: `main`. fife only.
//!
//! Samples tell the function that ran, not who called it: functions are sorted by what they are for.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::{Server, run};
use crate::{Failure, gauge};

/// Samples a second.
const FREQUENCY: &str = "997";
/// Costs that are told of each path.
const COSTS: usize = 3;
/// Functions that are told of each cost.
const FUNCTIONS: usize = 3;

/// What a function is for, by parts of its name; the first that fits holds.
const KINDS: &[(&str, &[&str])] = &[
    ("compression (zstd)", &["zstd", "huf_", "fse_", "hist_"]),
    ("passwords (argon2)", &["argon2"]),
    ("hash chain (BLAKE3)", &["blake3"]),
    ("checksums (CRC-32C)", &["crc32"]),
    (
        "SQLite",
        &[
            "sqlite",
            "wal",
            "balance",
            "getcell",
            "parsecell",
            "btree",
            "vdbe",
            "pager",
            "walframe",
            "walindex",
            "walfind",
            "pcache",
            "cellsize",
            "yy_",
        ],
    ),
    ("MIME structure (mail-parser)", &["mail_parser"]),
    ("fife: message text (dot-stuffing, headers, structure)", &["fife::message"]),
    ("fife: ledger", &["fife::ledger"]),
    ("fife: mailbox store", &["fife::pop_imap::store"]),
    ("fife: IMAP, POP3 and LMTP sessions", &["fife::pop_imap", "imap_codec", "imap_types", "nom::"]),
    ("fife: SMTP sessions and queue", &["fife::smtp"]),
    ("directory (LDAP)", &["ldap", "lber", "fife::directory"]),
    ("signatures and checks of mail (mail-auth, ring)", &["mail_auth", "ring", "rsa", "sha2", "sha256"]),
    ("log", &["tracing", "fife::net::log"]),
    (
        "memory management",
        &["malloc", "free", "realloc", "calloc", "_int_", "unlink_chunk", "sysmalloc", "malloc_consolidate"],
    ),
    ("copying and searching bytes", &["memcpy", "memmove", "memset", "memchr", "memcmp", "bcmp"]),
    ("task runtime (tokio)", &["tokio", "mio::"]),
    // The Huffman decoder is the one part of the binary that is assembler and so has no sizes for perf to go by.
    ("compression (zstd), the part in assembler", &["0x0000"]),
];

/// The same for functions of the kernel.
const KERNEL: &[(&str, &[&str])] = &[
    (
        "kernel: sockets",
        &[
            "tcp", "sock", "skb", "inet", "ip_", "ipv4", "net_", "unix_", "netif", "loopback", "nf_", "dst_", "sk_",
            "napi", "backlog", "csum",
        ],
    ),
    (
        "kernel: files and disk",
        &[
            "ext4",
            "jbd2",
            "blk_",
            "bio",
            "writeback",
            "filemap",
            "folio",
            "virtio",
            "virtqueue",
            "page_cache",
            "vfs_fsync",
            "iov_iter",
            "dd_",
            "submit",
            "sbitmap",
            "xa",
            "xas",
        ],
    ),
    (
        "kernel: memory",
        &[
            "page_fault",
            "clear_page",
            "mmap",
            "munmap",
            "madvise",
            "rmqueue",
            "alloc_pages",
            "free_unref",
            "vma",
            "lru",
            "memcg",
            "slab",
            "kmem",
            "kmalloc",
            "kfree",
            "zap",
            "tlb",
        ],
    ),
    ("kernel: copying from and to programs", &["copy_user", "copy_to", "copy_from", "rep_movs", "_copy"]),
    (
        "kernel: scheduling and waiting",
        &[
            "sched", "futex", "switch", "wake", "epoll", "ep_", "enqueue", "dequeue", "pick_", "update_", "timer",
            "spin", "idle", "eventfd", "rcu",
        ],
    ),
];

/// A part of a path's time.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    /// Percent of all samples.
    pub(crate) percent: f64,
    /// The largest functions, with their own percentages.
    pub(crate) functions: Vec<(String, f64)>,
}

/// The largest costs while `work` runs.
pub(crate) fn record(
    server: &mut Server,
    dir: &Path,
    work: impl FnOnce(&mut Server) -> Result<(), Failure>,
) -> Result<Vec<Cost>, Failure> {
    let out = dir.join("perf-data");
    let pids: Vec<String> = gauge::processes(&server.roots()).iter().map(i32::to_string).collect();
    let mut perf = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", FREQUENCY, "-o"])
        .arg(&out)
        .args(["-p", &pids.join(",")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("perf: {error}"))?;
    let outcome = if gauge::attached(&mut perf) { work(server) } else { Err("perf cannot record here".into()) };
    end(&mut perf)?;
    outcome?;
    let text = run(Command::new("perf")
        .args(["report", "--stdio", "--no-children", "-F", "overhead,sym", "-i"])
        .arg(&out)
        .stdin(Stdio::null()))?;
    Ok(sort(&text))
}

fn end(perf: &mut Child) -> Result<(), Failure> {
    if perf.try_wait()?.is_none() {
        kill(Pid::from_raw(i32::try_from(perf.id())?), Signal::SIGINT)?;
        perf.wait()?;
    }
    Ok(())
}

/// Sorts lines such as `  1.23%  [k] copy_page` into costs, the largest first.
fn sort(report: &str) -> Vec<Cost> {
    let mut costs: BTreeMap<&'static str, Cost> = BTreeMap::new();
    for line in report.lines().filter(|line| !line.starts_with('#')) {
        let Some((percent, rest)) = line.trim().split_once('%') else { continue };
        let Ok(percent) = percent.parse::<f64>() else { continue };
        let (place, function) = rest.trim().split_once("] ").unwrap_or(("", rest.trim()));
        let name = kind(place.contains('k'), function);
        let cost = costs.entry(name).or_insert_with(|| Cost { name, percent: 0.0, functions: Vec::new() });
        cost.percent += percent;
        if cost.functions.len() < FUNCTIONS {
            // The hash at the end of a Rust symbol says nothing to people.
            let plain =
                function.rsplit_once("::h").filter(|(_, hash)| hash.len() == 16).map_or(function, |(name, _)| name);
            cost.functions.push((plain.trim().to_owned(), percent));
        }
    }
    let mut costs: Vec<Cost> = costs.into_values().collect();
    costs.sort_by(|a, b| b.percent.total_cmp(&a.percent));
    costs.truncate(COSTS);
    costs
}

fn kind(kernel: bool, function: &str) -> &'static str {
    let function = function.to_lowercase();
    let (kinds, rest) = if kernel { (KERNEL, "kernel: other") } else { (KINDS, "other") };
    let found = kinds.iter().find(|(_, parts)| parts.iter().any(|part| function.contains(part)));
    found.map_or(rest, |(name, _)| name)
}
