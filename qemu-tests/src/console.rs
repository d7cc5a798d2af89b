//! A guest's serial line: everything that came, and what is typed.
//!
//! Owns: the text since power on. Called by: `guest`, suites.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::wait_for;

/// Lines that are shown when something has failed.
const TAIL_LINES: usize = 60;

/// One serial line, with QEMU at the other end.
#[derive(Debug)]
pub struct Console {
    text: Arc<Mutex<Vec<u8>>>,
    typing: UnixStream,
    /// Up to where the text has been waited for.
    seen: Mutex<usize>,
}

impl Console {
    /// Connects as soon as QEMU listens, and reads in a thread until the guest is gone.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let stream = wait_for("QEMU's serial line", || UnixStream::connect(path).ok(), String::new);
        let text = Arc::new(Mutex::new(Vec::new()));
        let (mut reading, kept) = (stream.try_clone().unwrap(), Arc::clone(&text));
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(count) = reading.read(&mut octets) {
                let Some(read) = octets.get(..count).filter(|read| !read.is_empty()) else { return };
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(read);
            }
        });
        Self { text, typing: stream, seen: Mutex::new(0) }
    }

    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until this comes, from where the last wait ended; gives what came before it.
    pub fn wait(&self, wanted: &str) -> String {
        self.wait_unless(wanted, &[])
    }

    /// The same, and fails at once when any of these comes first.
    pub fn wait_unless(&self, wanted: &str, unwanted: &[&str]) -> String {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted in octets: what is not yet a whole character, or never becomes one, moves nothing.
        let ask = || {
            let octets = self.text.lock().unwrap_or_else(PoisonError::into_inner);
            let new = octets.get(*seen..).unwrap_or_default();
            let at = find(new, wanted);
            let before = String::from_utf8_lossy(at.and_then(|at| new.get(..at)).unwrap_or(new)).into_owned();
            drop(octets);
            for bad in unwanted {
                assert!(!before.contains(bad), "{bad:?} on the console\n{}", self.tail());
            }
            at.map(|at| (*seen + at + wanted.len(), before))
        };
        let (end, before) = wait_for(&format!("{wanted:?} on the console"), ask, || self.tail());
        *seen = end;
        before
    }

    /// Types a line.
    pub fn type_line(&self, line: &str) {
        let mut typing = &self.typing;
        typing.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The last lines, for failure reports.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).fold(String::new(), |all, line| all + line + "\n")
    }
}

/// Where a text first stands in octets.
fn find(octets: &[u8], wanted: &str) -> Option<usize> {
    octets.windows(wanted.len()).position(|found| found == wanted.as_bytes())
}
