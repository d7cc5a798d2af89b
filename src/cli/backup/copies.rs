//! `fife backup run|list|find|verify|restore|scan`: from sources to volumes and back.
//!
//! Owns: what these commands ask of `backup_to_tape`, and what they print. Called by: `cli::backup`. They work by themselves, without
//! a running site (only the roles' own sources need it): a site that is down is restored by them.
//! Exit: 0 done, 1 failed, something is damaged, could not be read (all else is in the backup), or was not found, 2 usage.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::super::{Exit, Global, complain, print, print_json};
use super::fail;
use crate::backup_to_tape::catalogue::{Catalogue, Frame};
use crate::backup_to_tape::drive::{Access, Address, Drive};
use crate::backup_to_tape::feed::Progress;
use crate::backup_to_tape::job::{self, Order, Origin, Settings, Source};
use crate::backup_to_tape::restore::scan::{self, Begin};
use crate::backup_to_tape::restore::{self, RestoreError};
use crate::base::clock;
use crate::config::backup_to_tape::BackupToTape;

/// How often a running backup is told of.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Back a job up, behind what is on the volume.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The job's name in `[backup-to-tape] jobs`.
    job: String,
    /// Everything, not only what has changed since the last backup.
    #[arg(long)]
    full: bool,
    /// Begin this volume anew, which is in the drive: what is on it is lost.
    #[arg(long, value_name = "VOLUME")]
    overwrite: Option<String>,
}

/// List what has been backed up.
#[derive(Debug, Args)]
pub(super) struct List {}

/// Find files in backups.
#[derive(Debug, Args)]
pub(super) struct Find {
    /// A path, or a pattern with `*`, `?` and `[...]`; `*` goes over `/`. What lies below is found too.
    pattern: String,
}

/// Read what was backed up, and check it by its hashes.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only this part, as `list` names it.
    part: Option<String>,
}

/// Restore files into a directory.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// As for `find`; "*" is everything.
    pattern: String,
    /// Where to; it is made when it is not there. Files of these names in it are replaced.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// From this part, as `list` names it; without it from all, later ones over earlier ones.
    #[arg(long)]
    part: Option<String>,
}

/// Read the volume in the drive, and take what is on it into the catalogue.
#[derive(Debug, Args)]
pub(super) struct Scan {}

/// What all of them need.
struct Site {
    settings: Settings,
    table: BackupToTape,
    state_dir: PathBuf,
}

fn open(global: &Global) -> Result<Site, Exit> {
    let loaded = global.load()?;
    let host = global.this_host(&loaded)?;
    let Some(effective) = loaded.effective(&host) else { return Err(Exit::Usage) };
    let table = effective.tables.backup_to_tape.clone();
    let usage = |error: &dyn std::fmt::Display| {
        complain(format_args!("[backup-to-tape] drive: {error}"));
        Exit::Usage
    };
    let mut address: Address = table.drive.parse().map_err(|error| usage(&error))?;
    if let Address::File { capacity, .. } = &mut address
        && table.volume_size.get() > 0
    {
        *capacity = Some(table.volume_size);
    }
    let state_dir = global.state_dir()?;
    let dir = state_dir.join("backup-to-tape");
    std::fs::create_dir_all(&dir).map_err(|error| fail(format_args!("{}: {error}", dir.display())))?;
    let site = effective.site.name.clone();
    let settings = Settings {
        address,
        block_bytes: table.block_size.as_len(),
        buffer_bytes: table.buffer.as_len(),
        site,
        host,
        dir,
    };
    Ok(Site { settings, table, state_dir })
}

fn catalogue(site: &Site) -> Result<Catalogue, Exit> {
    Catalogue::open(&job::catalogue_path(&site.settings.dir)).map_err(fail)
}

/// A source by its name in the TOML.
fn source(global: &Global, site: &Site, name: &str) -> Option<Source> {
    let role = |role: &str| Origin::Role(site.state_dir.join(format!("run/{role}.backup.sock")));
    let origin = match name {
        "mail" => role("pop-imap"),
        "directory" => role("ldap-proxy"),
        "queue" => role("smtp"),
        "configuration" => Origin::Path(std::path::absolute(&global.config).ok()?),
        _ => Origin::Path(PathBuf::from(name.strip_prefix("path:").filter(|path| path.starts_with('/'))?)),
    };
    Some(Source { name: name.to_owned(), origin })
}

pub(super) fn run(global: &Global, arguments: &Run) -> Exit {
    let site = match open(global) {
        Ok(site) => site,
        Err(exit) => return exit,
    };
    let Some(wanted) = site.table.jobs.iter().find(|job| job.name == arguments.job) else {
        complain(format_args!("[backup-to-tape] has no job {:?}", arguments.job));
        return Exit::Usage;
    };
    let mut sources = Vec::new();
    for name in &wanted.sources {
        let Some(source) = source(global, &site, name) else {
            complain(format_args!("{name:?} is no source: mail, directory, queue, configuration, or path:/DIR"));
            return Exit::Usage;
        };
        sources.push(source);
    }
    let progress = Arc::new(Progress::default());
    let mut order = Order {
        job: &wanted.name,
        sources: &sources,
        is_full: arguments.full,
        overwrite: arguments.overwrite.as_deref(),
        now: clock::unix_secs(),
        ask: &mut ask,
    };
    let began = clock::monotonic();
    let outcome = told(&progress, || job::run(&site.settings, &mut order, &progress));
    let (end, secs) = (progress.snapshot(), began.elapsed().as_secs_f64());
    match outcome {
        Ok(parts) if global.json => {
            print_json(&json!({ "parts": parts, "seconds": secs, "end": end, "left-out": progress.left_out() }));
            if end.left_out > 0 { Exit::Failed } else { Exit::Done }
        }
        Ok(parts) => {
            print(format_args!(
                "{parts} parts, {} files, {} bytes read, {} bytes on the volume, {} underruns, {secs:.1} s; last volume {}",
                end.members, end.read, end.written, end.underruns, end.volume
            ));
            progress.left_out().iter().for_each(|one| complain(format_args!("not in the backup: {one}")));
            if end.left_out > 0 { Exit::Failed } else { Exit::Done }
        }
        Err(error) => fail(error),
    }
}

/// Runs the work; on a terminal a line tells how far it is.
fn told<T: Send>(progress: &Arc<Progress>, work: impl FnOnce() -> T) -> T {
    let (done, waits) = channel::<()>();
    let shown = Arc::clone(progress);
    let teller = stderr().is_terminal().then(|| {
        thread::spawn(move || {
            let mut before = 0;
            while waits.recv_timeout(TOLD_EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = shown.snapshot();
                let rate = now.read.saturating_sub(before) * 2 / 1_000_000;
                before = now.read;
                let fill = now.fill * 100 / now.limit.max(1);
                let (read, volume, source) = (now.read / 1_000_000, now.volume, now.source);
                drop(write!(stderr(), "\r\x1b[K{source}: {read} MB, {rate} MB/s, buffer {fill} %, volume {volume}"));
            }
            drop(write!(stderr(), "\r\x1b[K"));
        })
    });
    let outcome = work();
    drop(done);
    if let Some(teller) = teller {
        // It only prints.
        drop(teller.join());
    }
    outcome
}

/// Asks whoever sits at the terminal for the next volume.
fn ask(drive: &mut Drive, after: &str) -> Result<(), String> {
    if !stdin().is_terminal() {
        return Err("nobody is there to put one in".to_owned());
    }
    drive.eject().map_err(|error| error.to_string())?;
    drop(writeln!(stderr(), "\nVolume {after} is full. Put in a blank one and press Enter."));
    let mut line = String::new();
    match stdin().read_line(&mut line) {
        Ok(0) | Err(_) => Err("nobody is there to put one in".to_owned()),
        Ok(_) => drive.load().map_err(|error| error.to_string()),
    }
}

pub(super) fn list(global: &Global, _: &List) -> Exit {
    let parts = open(global).and_then(|site| catalogue(&site)?.parts().map_err(fail));
    let parts = match parts {
        Ok(parts) => parts,
        Err(exit) => return exit,
    };
    if global.json {
        print_json(&parts);
        return Exit::Done;
    }
    for part in parts {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(part.time);
        let kind = if part.is_full { "full" } else { "incremental" };
        let state = if part.is_whole { "" } else { "  NOT WHOLE" };
        print(format_args!(
            "{}  {}  {}  {} of {}  {kind}  {} files, {} bytes  {}{state}",
            humantime::format_rfc3339_seconds(time),
            part.part,
            part.job,
            part.source,
            part.host,
            part.members,
            part.bytes,
            part.volumes.join(", "),
        ));
    }
    Exit::Done
}

pub(super) fn find(global: &Global, arguments: &Find) -> Exit {
    let found = open(global).and_then(|site| catalogue(&site)?.find(&arguments.pattern, None).map_err(fail));
    let found = match found {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    for member in &found {
        let path = String::from_utf8_lossy(&member.path);
        match global.json {
            true => print(
                json!({ "path": path, "part": member.part, "job": member.job, "source": member.source, "time": member.time, "size": member.size, "mtime": member.mtime }),
            ),
            false => print(format_args!("{}  {:>12}  {}", member.part, member.size, path.escape_debug())),
        }
    }
    if found.is_empty() { Exit::Failed } else { Exit::Done }
}

pub(super) fn verify(global: &Global, arguments: &Verify) -> Exit {
    read(global, "*", arguments.part.as_deref(), None)
}

pub(super) fn restore(global: &Global, arguments: &Restore) -> Exit {
    read(global, &arguments.pattern, arguments.part.as_deref(), Some(arguments.to.clone()))
}

fn read(global: &Global, pattern: &str, part: Option<&str>, to: Option<PathBuf>) -> Exit {
    let opened = open(global).and_then(|site| Ok((catalogue(&site)?, site)));
    let (catalogue, site) = match opened {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let members = match catalogue.find(pattern, part) {
        Ok(members) => members,
        Err(error) => return fail(error),
    };
    if members.is_empty() {
        return fail("nothing in the catalogue fits that");
    }
    let mut mount = |drive, frame: &Frame| mount(&site, drive, frame);
    let report = match restore::members(&catalogue, &members, to.as_deref(), &mut mount, &mut |_| ()) {
        Ok(report) => report,
        Err(error) => return fail(error),
    };
    if global.json {
        print_json(&report);
    } else {
        for fault in report.damaged.iter().chain(&report.refused) {
            complain(format_args!("{}: {}", fault.path.escape_debug(), fault.reason));
        }
        let (damaged, refused) = (report.damaged.len(), report.refused.len());
        let what = if to.is_some() { "restored" } else { "as they were written" };
        print(format_args!(
            "{} files {what}, {} bytes; {damaged} damaged, {refused} refused",
            report.members, report.bytes
        ));
    }
    if report.damaged.is_empty() && report.refused.is_empty() { Exit::Done } else { Exit::Failed }
}

/// The volume that a frame stands on, in the drive.
fn mount(site: &Site, drive: Option<Drive>, frame: &Frame) -> Result<Drive, RestoreError> {
    // Blocks may have another length on each.
    drop(drive);
    let mut drive = Drive::open(&site.settings.address, Access::Read, frame.block_bytes)?;
    let wanted = |reason: String| RestoreError::Volume { wanted: frame.volume.clone(), reason };
    for is_second in [false, true] {
        match scan::begin(&mut drive) {
            Ok(Begin::Ours(label)) if label.id == frame.volume_id => return Ok(drive),
            Ok(_) | Err(_) if is_second => {}
            Ok(_) | Err(_) => {
                // A directory of volumes puts in what it is asked for; for a drive somebody must.
                if drive.insert(&frame.volume).is_err() {
                    ask_for(&mut drive, &frame.volume).map_err(&wanted)?;
                }
            }
        }
    }
    Err(wanted("another one is in the drive".to_owned()))
}

fn ask_for(drive: &mut Drive, volume: &str) -> Result<(), String> {
    if !stdin().is_terminal() {
        return Err("it is not in the drive, and nobody is there to put it in".to_owned());
    }
    // There may be none in.
    drive.eject().ok();
    drop(writeln!(stderr(), "\nPut in volume {volume} and press Enter."));
    let mut line = String::new();
    match stdin().read_line(&mut line) {
        Ok(0) | Err(_) => Err("nobody is there to put it in".to_owned()),
        Ok(_) => drive.load().map_err(|error| error.to_string()),
    }
}

pub(super) fn scan(global: &Global, _: &Scan) -> Exit {
    let scanned = open(global).and_then(|site| {
        let mut catalogue = catalogue(&site)?;
        let mut drive = Drive::open(&site.settings.address, Access::Read, site.settings.block_bytes).map_err(fail)?;
        match scan::begin(&mut drive).map_err(fail)? {
            Begin::Blank => Err(fail("the volume in the drive is blank")),
            Begin::Foreign(foreign) => Err(fail(format_args!("the volume in the drive is not fife's: {foreign}"))),
            Begin::Ours(label) => {
                drop(drive);
                let block_bytes = usize::try_from(label.block_bytes).unwrap_or(usize::MAX);
                let drive = Drive::open(&site.settings.address, Access::Read, block_bytes).map_err(fail)?;
                scan::volume(drive, &label, 1, &mut catalogue).map(|(_, scanned)| scanned).map_err(fail)
            }
        }
    });
    match scanned {
        Ok(scanned) if global.json => print_json(&scanned),
        Ok(scanned) => {
            print(format_args!("volume {}: {} parts", scanned.volume, scanned.parts.len()));
            for part in scanned.parts {
                print(format_args!("tape file {}: part {}, {}", part.file, part.part, part.state.words()));
            }
        }
        Err(exit) => return exit,
    }
    Exit::Done
}
