//! What the machine says on its consoles: every line, in one place.
//!
//! Owns: the lines' wording (tests and people wait for them), the way to every console that the kernel was given. Called by: boot.
//! Never: waits for a console that nobody reads; a secret is in no line but the one that shows the first password.
//!
//! Each line begins with `fife: `. In the order of a good boot:
//!
//!     fife: starting VERSION, slot SLOT
//!     fife: disk DISK, fife.toml on PARTITION, data on PARTITION
//!     fife: e2fsck: …                                     when it had something to do
//!     fife: clock: set to DATE, …                         when it was
//!     fife: serving HOST (DOMAIN)
//!     fife:   SERVICE ADDRESS                             one for each listener
//!     fife:   address ADDRESS
//!     fife: first administrator ADDRESS, password PASSWORD      once in the life of a site
//!     fife: stopping …; fife: powering off, fife: rebooting
//!
//! What is wrong begins with `fife: trouble: `.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::clock;
use super::partitions::SystemDisk;
use crate::appliance::disk::Grown;
use crate::supervisor::Serving;

/// How long a console may take before the rest of a text is not shown there: a serial line with 9600 baud shows 960 octets in it.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(1);

/// The consoles, opened once.
static CONSOLES: OnceLock<Vec<File>> = OnceLock::new();

/// Says each line of `text` on every console, with `fife: ` before it.
pub(super) fn say(text: impl Display) {
    show(&prefixed(&text.to_string()), CONSOLE_PATIENCE);
}

/// Says what is wrong.
pub(super) fn trouble(text: impl Display) {
    say(format_args!("trouble: {text}"));
}

/// Shows text as it is on every console that takes it within `patience`.
pub(super) fn show(text: &str, patience: Duration) {
    for console in CONSOLES.get_or_init(open) {
        write(console, text.as_bytes(), patience);
    }
}

/// The text as consoles take it, each line with its prefix. A console may be in raw mode: each line ends with CR LF.
fn prefixed(text: &str) -> String {
    text.lines().map(|line| format!("fife: {line}\r\n")).collect()
}

/// Every console that the kernel writes to (`console=`); where they are not told, the one that this process was given.
fn open() -> Vec<File> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let at = |name: &str| {
        let mut how = OpenOptions::new();
        // Without the flags the terminal would become this process's own, and a dead line would hold it up.
        how.write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
        how.open(Path::new("/dev").join(name)).ok()
    };
    let consoles: Vec<File> = active.split_ascii_whitespace().filter_map(at).collect();
    if consoles.is_empty() { at("console").into_iter().collect() } else { consoles }
}

fn write(mut console: &File, mut bytes: &[u8], patience: Duration) {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    while !bytes.is_empty() {
        match console.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut waited = [PollFd::new(console.as_fd(), PollFlags::POLLOUT)];
                if !poll(&mut waited, patience).is_ok_and(|ready| ready > 0) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

pub(super) fn starting(slot: Option<&str>) -> String {
    format!("starting {}, slot {}", env!("CARGO_PKG_VERSION"), slot.unwrap_or("unknown"))
}

/// Where everything is.
pub(super) fn disk(found: &SystemDisk) -> String {
    let shown =
        |device: Option<&Path>| device.map_or_else(|| "nothing".to_owned(), |device| device.display().to_string());
    let data = found.data.as_ref().map(|data| data.device.as_path());
    format!("disk {}, fife.toml on {}, data on {}", found.disk.display(), shown(found.esp.as_deref()), shown(data))
}

/// What is told when the data partition takes more of the disk than before.
pub(super) fn grown(grown: &Grown) -> String {
    let mib = |octets: u64| octets >> 20;
    format!("the data partition has grown from {} to {} MiB", mib(grown.from), mib(grown.to))
}

/// What is told when the clock has been set.
pub(super) fn clock(report: &clock::Report) -> String {
    format!("clock: set to {}, {}", report.date(), report.brief())
}

/// What is told when every role serves.
pub(super) fn serving(serving: &Serving<'_>, addresses: &[String]) -> String {
    let mut lines = vec![format!("serving {} ({})", serving.host, serving.domain)];
    lines.extend(serving.listeners.iter().map(|(service, address)| format!("  {service} {address}")));
    lines.extend(addresses.iter().map(|address| format!("  address {address}")));
    if let Some(first) = &serving.first_administrator {
        lines.push(format!("first administrator {}, password {}", first.address, first.password.reveal()));
        lines.push(format!("  also in {}; keep it, then remove the file", first.file.display()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_line_of_a_text_is_marked_as_ours() {
        assert_eq!(super::prefixed("one\ntwo\n"), "fife: one\r\nfife: two\r\n");
        assert_eq!(super::prefixed(""), "");
    }

    #[test]
    fn growth_is_told_in_words() {
        let grown = crate::appliance::disk::Grown { from: 64 << 20, to: (400 << 20) + 17 };
        assert_eq!(super::grown(&grown), "the data partition has grown from 64 to 400 MiB");
    }
}
