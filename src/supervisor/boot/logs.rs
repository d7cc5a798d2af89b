//! Where log lines go on the appliance: to the data partition, and what matters to the consoles.
//!
//! Owns: `/data/log/fife.log` (supervisor and roles, what they write to standard error) and `/data/log/kernel.log`, the thread that
//! writes both. Called by: boot. Never: holds a role up: lines that the disk or a console does not take are dropped and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statvfs::statvfs;
use nix::unistd::{dup2_stderr, pipe2};

use super::lines;
use super::rotation::Rotating;
use crate::base::clock;

/// Octets that may wait for the thread; with more, whoever logs waits for it.
const WAITING_LEN: i32 = 1024 * 1024;
/// Octets of one line, at most; a longer one is written in pieces.
const LINE_LEN_MAX: usize = 64 * 1024;
/// Octets of one record of the kernel's (CONSOLE_EXT_LOG_MAX).
const KERNEL_RECORD_LEN_MAX: usize = 8192;
/// Predecessors of each log that are kept.
const KEEP: u32 = 7;
/// A log takes at most this part of the data partition (in all its files), within bounds for one file.
const PART_OF_DISK: u64 = 50;
const FILE_LEN_MIN: u64 = 1024 * 1024;
const FILE_LEN_MAX: u64 = 128 * 1024 * 1024;
/// Lines a second that are shown on consoles; the rest is in the file.
const SHOWN_PER_SECOND_MAX: u32 = 10;

/// The logs of the running machine.
#[derive(Debug)]
pub(super) struct Logs {
    thread: JoinHandle<()>,
    /// Closed to end the thread.
    end: OwnedFd,
}

impl Logs {
    /// Everything that this process and its children write to standard error goes to the logs below `data` from now on.
    ///
    /// # Errors
    /// What the system says; standard error is what it was then.
    pub(super) fn start(data: &Path) -> io::Result<Self> {
        let dir = data.join("log");
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&dir)?;
        let len_max = file_len_max(statvfs(&dir).map_or(0, |disk| disk.blocks() * disk.fragment_size()));
        let (lines_read, lines_write) = pipe2(OFlag::O_CLOEXEC)?;
        let (end_read, end) = pipe2(OFlag::O_CLOEXEC)?;
        // A kernel that gives less: less may wait.
        fcntl(&lines_write, FcntlArg::F_SETPIPE_SZ(WAITING_LEN)).ok();
        fcntl(&lines_read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let kernel = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok();
        let writer = Writer {
            lines: File::from(lines_read),
            kernel,
            end: end_read,
            fife: Rotating::open(dir.join("fife.log"), len_max, KEEP),
            kernel_log: Rotating::open(dir.join("kernel.log"), FILE_LEN_MIN, KEEP),
            line: Vec::new(),
            shown: Shown { since: clock::monotonic(), lines: 0 },
        };
        let thread = std::thread::Builder::new().name("logs".to_owned()).spawn(move || writer.run())?;
        dup2_stderr(&lines_write)?;
        Ok(Self { thread, end })
    }

    /// Writes what has come, and waits until it is on the disk. Standard error is the console again.
    pub(super) fn end(self) {
        if let Ok(console) = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open("/dev/console") {
            dup2_stderr(&console).ok();
        }
        drop(self.end);
        self.thread.join().ok();
    }
}

/// Octets of one file, for a disk of this size.
fn file_len_max(disk_len: u64) -> u64 {
    (disk_len / PART_OF_DISK / u64::from(KEEP + 1)).clamp(FILE_LEN_MIN, FILE_LEN_MAX)
}

struct Writer {
    lines: File,
    kernel: Option<File>,
    end: OwnedFd,
    fife: Rotating,
    kernel_log: Rotating,
    /// What has come of a line that has not ended.
    line: Vec<u8>,
    shown: Shown,
}

/// What was shown within the present second.
struct Shown {
    since: Instant,
    lines: u32,
}

impl Writer {
    fn run(mut self) {
        loop {
            let mut waited = vec![
                PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.lines.as_fd(), PollFlags::POLLIN),
            ];
            waited.extend(self.kernel.as_ref().map(|kernel| PollFd::new(kernel.as_fd(), PollFlags::POLLIN)));
            let ready = poll(&mut waited, PollTimeout::NONE);
            let is_over = ready.is_ok() && waited.first().and_then(PollFd::any).unwrap_or(false);
            self.take_lines();
            self.take_kernel_records();
            if is_over {
                self.fife.sync();
                self.kernel_log.sync();
                return;
            }
        }
    }

    fn take_lines(&mut self) {
        let mut octets = [0; 16 * 1024];
        loop {
            match self.lines.read(&mut octets) {
                // No writer is left; the end is near.
                Ok(0) => return,
                Ok(read) => {
                    for part in octets.get(..read).unwrap_or_default().split_inclusive(|octet| *octet == b'\n') {
                        self.line.extend_from_slice(part);
                        if part.ends_with(b"\n") || self.line.len() >= LINE_LEN_MAX {
                            self.end_line();
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        keep(&mut self.fife, &line);
        if let Some(text) = worth_showing(&line)
            && self.shown.one_more(clock::monotonic())
        {
            // Nobody reads a dead console: it is not waited for, or the roles would wait too.
            lines::show(&format!("fife: {text}\r\n"), Duration::ZERO);
        }
    }

    fn take_kernel_records(&mut self) {
        let mut octets = [0; KERNEL_RECORD_LEN_MAX];
        while let Some(kernel) = &mut self.kernel {
            match kernel.read(&mut octets) {
                Ok(0) => self.kernel = None,
                Ok(read) => {
                    let record = String::from_utf8_lossy(octets.get(..read).unwrap_or_default());
                    if let Some(line) = kernel_line(&record) {
                        let time = humantime::format_rfc3339_seconds(clock::wall());
                        keep(&mut self.kernel_log, format!("{time} {line}\n").as_bytes());
                    }
                }
                // Overwritten before it was read: the next one is whole.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
                Err(_) => return,
            }
        }
    }
}

/// Appends; the first failure of several is said on the consoles, where it does not depend on the disk.
fn keep(log: &mut Rotating, line: &[u8]) {
    if let Err(error) = log.append(line) {
        lines::show(&format!("fife: trouble: {}: {error}\r\n", log.path().display()), Duration::ZERO);
    }
}

impl Shown {
    fn one_more(&mut self, now: Instant) -> bool {
        if now - self.since >= Duration::from_secs(1) {
            *self = Self { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= SHOWN_PER_SECOND_MAX
    }
}

/// A line as people read it, when it tells of something that went wrong; lines that are no log lines (a program's last words) always.
fn worth_showing(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(text) else {
        let is_quiet = ["level=info ", "level=debug ", "level=trace "].iter().any(|level| text.contains(level));
        return (!is_quiet && !text.is_empty()).then(|| text.to_owned());
    };
    let word = |key: &str| fields.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    if !matches!(word("level"), "warn" | "error") {
        return None;
    }
    let mut shown = format!("{} {}: {}", word("level"), word("role"), word("msg"));
    for (key, value) in
        fields.iter().filter(|(key, _)| !matches!(key.as_str(), "time" | "level" | "role" | "host" | "msg"))
    {
        shown.push_str(&format!(" {key}={value}"));
    }
    // What peers sent may stand in a value: JSON has escaped what a terminal would obey.
    Some(shown)
}

/// A record of `/dev/kmsg` as a line: importance, seconds since the start, text. Its further lines (`KEY=VALUE` of the device) are left out.
fn kernel_line(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let importance = fields.next()?.parse::<u32>().ok()? & 7;
    let micros: u64 = fields.nth(1)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some(format!("<{importance}> [{:5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000))
}

/// A line of boot itself for the log, in the form of the others.
pub(super) fn note(text: &str) {
    let time = humantime::format_rfc3339_millis(clock::wall()).to_string();
    let line = serde_json::json!({ "time": time, "level": "info", "role": "boot", "msg": text });
    drop(writeln!(io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::{FILE_LEN_MAX, FILE_LEN_MIN, file_len_max, kernel_line, worth_showing};

    #[test]
    fn a_log_takes_a_small_part_of_the_disk() {
        assert_eq!(file_len_max(0), FILE_LEN_MIN);
        assert_eq!(file_len_max(4_000_000_000), 10_000_000);
        assert_eq!(file_len_max(u64::MAX), FILE_LEN_MAX);
    }

    #[test]
    fn consoles_show_what_went_wrong() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(worth_showing(line.as_bytes()).as_deref(), expected, "{line}");
        };
        check("{\"level\":\"info\",\"role\":\"smtp\",\"msg\":\"session\"}\n", None);
        check(
            "{\"time\":\"t\",\"level\":\"error\",\"role\":\"supervisor\",\"host\":\"h\",\"msg\":\"role is started again\",\"reason\":\"a\\u001b[2J\"}\n",
            Some("error supervisor: role is started again reason=\"a\\u001b[2J\""),
        );
        check("time=t level=info role=smtp msg=x\n", None);
        check("time=t level=warn role=smtp msg=x\n", Some("time=t level=warn role=smtp msg=x"));
        check("thread main panicked\n", Some("thread main panicked"));
        check("\n", None);
    }

    #[test]
    fn kernel_records_are_lines() {
        let check = |record: &str, expected: Option<&str>| assert_eq!(kernel_line(record).as_deref(), expected);
        check("6,339,5140900,-;NET: Registered\n SUBSYSTEM=x\n", Some("<6> [    5.140900] NET: Registered"));
        check("30,1,7,-;a;b", Some("<6> [    0.000007] a;b"));
        check("x,1,7,-;a", None);
        check("6,1;a", None);
        check("", None);
    }
}
