//! The source `path`: files of this host as a pax tar stream.
//!
//! Owns: the walk over a directory, the members' headers. Called by: `job`, on a thread of its own. Never: follows a link; crosses into
//! what it cannot read without saying so to `Progress`.
//! Spec: POSIX.1-2017, pax, section "pax Extended Header".
//!
//! The first member is `.fife/snapshot.json`. A token is the time at which the walk began; what was changed since (by ctime, which nobody can set
//! back) is in the next incremental one, and all directories. What was deleted since is not told.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};
use tracing::info;

use super::feed::Progress;
use crate::net::snapshot::{HEAD_PATH, Head};

/// Octets of a name in a ustar header.
const NAME_LEN: usize = 100;
/// The largest number of seven octal digits, and of eleven.
const OCTAL_7: u64 = 0o777_7777;
const OCTAL_11: u64 = 0o777_7777_7777;
/// Seconds by which the clock of a file system may lag behind that of the system.
const CLOCK_SLACK: i64 = 2;
/// Directories below each other, at most.
const DEPTH_MAX: usize = 512;

/// Writes the stream.
///
/// # Errors
/// The root cannot be read, or nobody takes the stream; its end is then missing. Files that cannot be read are told to `progress` and left out.
pub fn write(root: &Path, head: &Head, out: impl Write, progress: &Progress) -> io::Result<()> {
    let since = head.since.as_ref().and_then(|since| since.parse().ok()).map(|since: i64| since - CLOCK_SLACK);
    let mut archive =
        Archive { builder: tar::Builder::new(out), since, links: HashMap::new(), buffer: vec![0; 1 << 18], progress };
    let text = serde_json::to_vec(head)?;
    let mut header = Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    archive.builder.append_data(&mut header, HEAD_PATH, text.as_slice())?;
    let told = fs::symlink_metadata(root)?;
    let mut open = vec![(root.to_owned(), told, 0_usize)];
    while let Some((path, told, depth)) = open.pop() {
        if told.is_dir() && depth < DEPTH_MAX {
            // In reverse, because the last one is taken first: the order on tape is that of the names.
            let mut entries = entries(&path, progress);
            entries.reverse();
            open.extend(entries.into_iter().map(|(path, told)| (path, told, depth + 1)));
        }
        archive.add(&path, &told)?;
    }
    archive.builder.into_inner()?.flush()
}

/// What is in a directory, sorted by name.
fn entries(path: &Path, progress: &Progress) -> Vec<(PathBuf, Metadata)> {
    let read = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = read.unwrap_or_else(|error| {
        left_out(path, &error, progress);
        Vec::new()
    });
    // What has gone in the meantime need not be told.
    let mut entries: Vec<(PathBuf, Metadata)> =
        entries.into_iter().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

struct Archive<'a, W: Write> {
    builder: tar::Builder<W>,
    since: Option<i64>,
    /// Names of files that have further ones, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    progress: &'a Progress,
}

impl<W: Write> Archive<'_, W> {
    fn add(&mut self, path: &Path, told: &Metadata) -> io::Result<()> {
        let kind = told.file_type();
        if !told.is_dir() && self.since.is_some_and(|since| told.ctime() < since) {
            return Ok(());
        }
        let name = path.as_os_str().as_bytes();
        let name = name.get(name.iter().take_while(|octet| **octet == b'/').count()..).unwrap_or_default();
        if name.is_empty() {
            return Ok(());
        }
        let bare = |flag, link| Member { name: name.to_vec(), link, flag, size: 0 };
        if told.is_dir() {
            return self.header(&bare(EntryType::Directory, Vec::new()), told);
        }
        if kind.is_symlink() {
            return match fs::read_link(path) {
                Ok(to) => self.header(&bare(EntryType::Symlink, to.as_os_str().as_bytes().to_vec()), told),
                Err(error) => {
                    left_out(path, &error, self.progress);
                    Ok(())
                }
            };
        }
        if kind.is_fifo() {
            return self.header(&bare(EntryType::Fifo, Vec::new()), told);
        }
        if !told.is_file() {
            info!(path = %path.display(), "sockets and devices are not in the backup");
            return Ok(());
        }
        if told.nlink() > 1 {
            let first = self.links.entry((told.dev(), told.ino())).or_insert_with(|| name.to_vec());
            if first.as_slice() != name {
                let link = first.clone();
                return self.header(&bare(EntryType::Link, link), told);
            }
        }
        self.file(path, name, told)
    }

    fn file(&mut self, path: &Path, name: &[u8], told: &Metadata) -> io::Result<()> {
        // O_NONBLOCK: what was a file may be a pipe by now. O_NOATIME is for owners only.
        let mut options = File::options();
        let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
        let mut file = match file {
            Ok(file) => file,
            Err(error) => {
                left_out(path, &error, self.progress);
                return Ok(());
            }
        };
        let told = file.metadata().unwrap_or_else(|_| told.clone());
        if !told.is_file() {
            return Ok(());
        }
        let member = Member { name: name.to_vec(), link: Vec::new(), flag: EntryType::Regular, size: told.len() };
        self.header(&member, &told)?;
        let mut left = told.len();
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let Some(buffer) = self.buffer.get_mut(..len) else { break };
            let read = match file.read(buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.progress.leave_out(path, &format_args!("{error}: the rest of it is zeroes in the backup"));
                    0
                }
            };
            // The header has promised its length: a file that has become shorter is filled up.
            if read == 0 {
                buffer.fill(0);
            }
            let read = if read == 0 { len } else { read };
            self.builder.get_mut().write_all(buffer.get(..read).unwrap_or_default())?;
            left -= read as u64;
        }
        let pad = usize::try_from(told.len().next_multiple_of(512) - told.len()).unwrap_or_default();
        self.builder.get_mut().write_all([0; 512].get(..pad).unwrap_or_default())
    }

    fn header(&mut self, member: &Member, told: &Metadata) -> io::Result<()> {
        let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(member.flag);
        header.set_mode(told.mode() & 0o7777);
        put(&mut header.as_old_mut().name, &member.name, "path", &mut records);
        put(&mut header.as_old_mut().linkname, &member.link, "linkpath", &mut records);
        let mut number = |value: u64, max: u64, keyword: &'static str| {
            if value > max {
                records.push((keyword, value.to_string().into_bytes()));
            }
            value.min(max)
        };
        header.set_size(number(member.size, OCTAL_11, "size"));
        header.set_uid(number(told.uid().into(), OCTAL_7, "uid"));
        header.set_gid(number(told.gid().into(), OCTAL_7, "gid"));
        let (secs, nanos) = (told.mtime(), told.mtime_nsec());
        header.set_mtime(u64::try_from(secs).unwrap_or_default().min(OCTAL_11));
        if nanos != 0 || !(0..=OCTAL_11.cast_signed()).contains(&secs) {
            records.push(("mtime", time(secs, nanos).into_bytes()));
        }
        header.set_cksum();
        if !records.is_empty() {
            let text: Vec<u8> = records.iter().flat_map(|(keyword, value)| record(keyword, value)).collect();
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_path("PaxHeaders/member")?;
            extended.set_mode(0o600);
            extended.set_size(text.len() as u64);
            extended.set_cksum();
            self.builder.append(&extended, text.as_slice())?;
        }
        self.builder.get_mut().write_all(header.as_bytes())
    }
}

struct Member {
    name: Vec<u8>,
    link: Vec<u8>,
    flag: EntryType,
    size: u64,
}

/// A name into its field; with a record beside it when it does not fit, or is no plain text.
fn put(field: &mut [u8; NAME_LEN], name: &[u8], keyword: &'static str, records: &mut Vec<(&str, Vec<u8>)>) {
    field.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    if name.len() > NAME_LEN || !name.is_ascii() {
        records.push((keyword, name.to_vec()));
    }
}

/// `"%d %s=%s\n"`, where the number is the length of all of it.
fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
    let rest = keyword.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    let mut text = format!("{len} {keyword}=").into_bytes();
    text.extend_from_slice(value);
    text.push(b'\n');
    text
}

/// Seconds and their fraction; before 1970 the fraction counts backwards too.
fn time(secs: i64, nanos: i64) -> String {
    match secs < 0 && nanos > 0 {
        true => format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos),
        false => format!("{secs}.{nanos:09}"),
    }
}

fn left_out(path: &Path, error: &io::Error, progress: &Progress) {
    // What has gone in the meantime need not be told.
    if error.kind() != io::ErrorKind::NotFound {
        progress.leave_out(path, error);
    }
}
