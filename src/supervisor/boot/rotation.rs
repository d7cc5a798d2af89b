//! A log file that never grows over its bound.
//!
//! Owns: `Rotating`. Called by: `logs`. Never: stops or waits for a disk that is full: what cannot be written is counted, and the
//! count is written when there is room again; nor does it go on and on against a disk that fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::clock;

/// How long nothing is tried after a failure of the disk: the kernel says something of each, and that would be the next line of its log.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);

/// A file and its predecessors: `NAME`, `NAME.1` (younger) to `NAME.N` (oldest).
///
/// Together they are never longer than `(keep + 1) * len_max` octets and one line.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    len_max: u64,
    keep: u32,
    /// None: it could not be opened; tried again with the next line.
    file: Option<File>,
    len: u64,
    /// Lines that could not be written since the last one that could.
    lost: u64,
    /// The disk has failed: until then, lines are only counted.
    rests_until: Option<Instant>,
}

impl Rotating {
    /// Appends to what is there.
    pub(super) fn open(path: PathBuf, len_max: u64, keep: u32) -> Self {
        Self { path, len_max, keep, file: None, len: 0, lost: 0, rests_until: None }
    }

    /// Appends one line, which ends with its line end. Answers an error the first time of several.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.rests_until.is_some_and(|until| clock::monotonic() < until) {
            self.lost += 1;
            return Ok(());
        }
        match self.try_append(line) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.lost += 1;
                self.rests_until = (!is_full(&error)).then(|| clock::monotonic() + FAILURE_PAUSE);
                if self.lost == 1 { Err(error) } else { Ok(()) }
            }
        }
    }

    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
        let line_len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.len.saturating_add(line_len) > self.len_max && self.len > 0 {
            self.turn()?;
        }
        if self.lost > 0 {
            let note = format!(
                "{{\"level\":\"warn\",\"role\":\"log\",\"msg\":\"{} lines could not be written\"}}\n",
                self.lost
            );
            self.write(note.as_bytes())?;
            self.lost = 0;
        }
        self.write(line)
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
                self.len = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        let written = file.write_all(octets);
        // Half a line on a full disk is cut off again, or the next one would stand behind it.
        if written.as_ref().is_err_and(is_full) {
            file.set_len(self.len).ok();
        }
        written?;
        self.len += u64::try_from(octets.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Begins a new file; the oldest one goes.
    fn turn(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (0..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.len = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) {
        if let Some(file) = &self.file {
            file.sync_all().ok();
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether an error goes away when there is room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::Rotating;
    use std::fs;

    #[test]
    fn the_log_stays_within_its_bound_and_keeps_the_youngest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Rotating::open(path.clone(), 100, 2);
        for number in 0..100 {
            log.append(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.log", "a.log.1", "a.log.2"]);
        assert!(text("a.log").ends_with("line 0099\n"));
        let all = text("a.log.2") + &text("a.log.1") + &text("a.log");
        assert_eq!(all.lines().count(), 30, "{all}");
        assert!(all.starts_with("line 0070\n"), "{all}");
        // Opened again: goes on where it was.
        let mut log = Rotating::open(path, 100, 2);
        log.append(b"again\n").unwrap();
        assert!(text("a.log").ends_with("again\n"), "{}", text("a.log"));
    }

    #[test]
    fn lines_that_found_no_room_are_counted() {
        let mut log = Rotating::open("/dev/full".into(), 1 << 20, 2);
        assert!(log.append(b"one\n").is_err());
        // Said once.
        log.append(b"two\n").unwrap();
        let dir = tempfile::tempdir().unwrap();
        (log.path, log.file) = (dir.path().join("a.log"), None);
        log.append(b"three\n").unwrap();
        let text = fs::read_to_string(dir.path().join("a.log")).unwrap();
        assert!(text.contains("2 lines could not be written") && text.ends_with("three\n"), "{text}");
    }

    #[test]
    fn a_disk_that_fails_is_left_alone_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/a.log");
        let mut log = Rotating::open(path.clone(), 1 << 20, 2);
        assert!(log.append(b"one\n").is_err());
        fs::create_dir(dir.path().join("missing")).unwrap();
        log.append(b"two\n").unwrap();
        assert!(!path.exists());
        log.rests_until = Some(crate::base::clock::monotonic());
        log.append(b"three\n").unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("2 lines could not be written") && text.ends_with("three\n"), "{text}");
    }

    #[test]
    fn a_line_longer_than_the_bound_gets_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Rotating::open(dir.path().join("a.log"), 10, 1);
        for line in ["short\n", "much longer than ten\n", "next\n"] {
            log.append(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.path().join("a.log.1")).unwrap(), "much longer than ten\n");
    }
}
