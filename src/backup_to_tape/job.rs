//! A run of a job: the volume in the drive, each source as a part behind what is there.
//!
//! Owns: which volume may be written and from where on; the order of a run. Called by: `fife backup run`. Calls: `scan` (what is on the volume),
//! `feed` (parts), `source`, `net::snapshot` (streams).
//!
//! A volume is written to when it is blank, or ours: of this site, behind its last whole part. What is foreign is never touched. Ours is begun anew
//! only when it is named.
//! After kill -9 at any moment: a part without catalogue never was, the next run writes over it; one whose catalogue is on the volume and
//! not in the database is taken in first.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rand::RngExt as _;
use tracing::{info, warn};

use super::catalogue::{Catalogue, CatalogueError};
use super::drive::{Access, Address, Drive, DriveError};
use super::feed::{self, FeedError, Hooks, Mounted, Progress};
use super::restore::RestoreError;
use super::restore::scan::{self, Begin};
use super::source;
use super::volume::label::{Continues, Foreign, Label, LabelError};
use super::volume::line::PartLine;
use super::volume::walk::{Step, Walk};
use crate::net::snapshot::{self, FetchError, HEAD_PATH, Head};

/// Octets in which a stream says what it is of, at most.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error(transparent)]
    Read(#[from] RestoreError),
    #[error("{source_name}: {error}")]
    Part { source_name: String, error: FeedError },
    #[error("{path}: {error}", path = .path.display())]
    Source { path: PathBuf, error: io::Error },
    #[error("the volume in the drive is not fife's and is left as it is: {0}")]
    Foreign(Foreign),
    #[error("volume {volume} belongs to the site {site:?} and is left as it is")]
    OtherSite { volume: String, site: String },
    #[error("volume {volume} has a part in tape file {file} whose list is damaged: `fife backup scan` reads it first")]
    Unlisted { volume: String, file: u32 },
    #[error("{wanted:?} was named to be overwritten; in the drive is {found}")]
    NotNamed { wanted: String, found: String },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}: what the role gave does not begin with what it is of")]
    NoHead(String),
    #[error("{path}: {error}", path = .path.display())]
    Machine { path: PathBuf, error: io::Error },
}

/// What a run needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    pub address: Address,
    pub block_bytes: usize,
    pub buffer_bytes: usize,
    pub site: String,
    pub host: String,
    /// The role's own directory.
    pub dir: PathBuf,
}

/// One source of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As the job has it: "path:/srv/data", "mail".
    pub name: String,
    pub origin: Origin,
}

/// Where its stream comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Files of this host.
    Path(PathBuf),
    /// A role's socket.
    Role(PathBuf),
}

/// What is to be done.
pub struct Order<'a> {
    pub job: &'a str,
    pub sources: &'a [Source],
    pub is_full: bool,
    /// The volume of this name may be begun anew.
    pub overwrite: Option<&'a str>,
    /// Seconds since 1970.
    pub now: u64,
    /// Puts a further volume into the drive, when no machine can: asks people. Gives what was said when there is none.
    pub ask: &'a mut dyn FnMut(&mut Drive, &str) -> Result<(), String>,
}

/// The file of the database.
#[must_use]
pub fn catalogue_path(dir: &Path) -> PathBuf {
    dir.join("catalogue.sqlite")
}

/// Puts every source of a job on tape. Blocks. How many parts were written.
///
/// # Errors
/// Parts before the fault are whole.
pub fn run(settings: &Settings, order: &mut Order<'_>, progress: &Arc<Progress>) -> Result<u32, JobError> {
    let mut catalogue = Catalogue::open(&catalogue_path(&settings.dir))?;
    let drive = Drive::open(&settings.address, Access::Write, settings.block_bytes)?;
    let mut mounted = mount(settings, order, drive, &mut catalogue)?;
    let mut parts = 0;
    for source in order.sources {
        progress.set_source(&source.name);
        let since = if order.is_full { None } else { catalogue.next_token(order.job, &source.name)? };
        mounted = part(settings, order, source, since, mounted, &mut catalogue, progress)?;
        parts += 1;
    }
    // The second mark in a row ends the data. The next part is written over it.
    mounted.drive.write_marks(1)?;
    Ok(parts)
}

/// The volume in the drive, where the next part begins.
fn mount(
    settings: &Settings,
    order: &Order<'_>,
    mut drive: Drive,
    catalogue: &mut Catalogue,
) -> Result<Mounted, JobError> {
    if !drive.status()?.loaded {
        let name = insert_new(&mut drive, catalogue)?;
        return label(settings, drive, name, order.now, None);
    }
    match scan::begin(&mut drive)? {
        Begin::Blank => {
            let name = match drive.status()?.volume {
                Some(name) => name,
                None => new_name(catalogue, 0)?,
            };
            label(settings, drive, name, order.now, None)
        }
        Begin::Foreign(foreign) => Err(JobError::Foreign(foreign)),
        Begin::Ours(found) if found.site != settings.site => {
            Err(JobError::OtherSite { volume: found.volume, site: found.site })
        }
        Begin::Ours(found) => match order.overwrite {
            Some(wanted) if wanted == found.volume => {
                warn!(volume = wanted, "begun anew, as was asked for: what was on it is lost");
                catalogue.forget(&found.id)?;
                label(settings, drive, found.volume, order.now, None)
            }
            Some(wanted) => Err(JobError::NotNamed { wanted: wanted.to_owned(), found: found.volume }),
            None => append(settings, drive, found, catalogue),
        },
    }
}

/// Behind the last whole part.
fn append(settings: &Settings, mut drive: Drive, label: Label, catalogue: &mut Catalogue) -> Result<Mounted, JobError> {
    let block_bytes = usize::try_from(label.block_bytes).unwrap_or(usize::MAX);
    if block_bytes != settings.block_bytes {
        drop(drive);
        drive = Drive::open(&settings.address, Access::Write, block_bytes)?;
    }
    let known = catalogue.next_file(&label.id)?;
    let (mut drive, scanned) = scan::listed_parts(drive, &label, known, catalogue)?;
    if !scanned.parts.is_empty() {
        info!(volume = label.volume, parts = scanned.parts.len(), "taken into the catalogue from the volume");
    }
    let file = catalogue.next_file(&label.id)?;
    // What was broken off has no file mark behind its catalogue. Where there is one, a part is there that only lost its list.
    match drive.seek(file.saturating_add(2), 0) {
        Ok(()) => return Err(JobError::Unlisted { volume: label.volume, file }),
        Err(DriveError::PastEnd(_)) => {}
        Err(error) => return Err(error.into()),
    }
    drive.seek(file, 0)?;
    Ok(Mounted { drive, label, file })
}

/// Writes a label and what belongs to it.
fn label(
    settings: &Settings,
    mut drive: Drive,
    volume: String,
    now: u64,
    continues: Option<Continues>,
) -> Result<Mounted, JobError> {
    let label = Label {
        format: Label::FORMAT,
        volume,
        id: hex::encode(rand::rng().random::<[u8; 16]>()),
        site: settings.site.clone(),
        host: settings.host.clone(),
        written: now,
        block_bytes: drive.block_bytes() as u64,
        continues,
    };
    let block = label.encode(drive.block_bytes())?;
    drive.rewind()?;
    drive.write_block(&block)?;
    drive.write_marks(1)?;
    info!(volume = label.volume, "labelled");
    Ok(Mounted { drive, label, file: 1 })
}

/// `fife-0001` and so on: one more than any that is known.
fn new_name(catalogue: &Catalogue, more: u32) -> Result<String, CatalogueError> {
    let numbers = catalogue.volumes()?;
    let last = numbers.iter().filter_map(|name| name.strip_prefix("fife-")?.parse::<u32>().ok()).max();
    Ok(format!("fife-{:04}", last.unwrap_or(0).saturating_add(1).saturating_add(more)))
}

/// A new volume into a drive that can make one.
fn insert_new(drive: &mut Drive, catalogue: &Catalogue) -> Result<String, JobError> {
    let mut more = 0;
    loop {
        let name = new_name(catalogue, more)?;
        match drive.insert_blank(&name) {
            Ok(()) => return Ok(name),
            Err(DriveError::VolumeExists(_)) => more += 1,
            Err(DriveError::Unsupported(_)) => return Err(DriveError::NoMedium.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn part(
    settings: &Settings,
    order: &mut Order<'_>,
    source: &Source,
    since: Option<String>,
    mounted: Mounted,
    catalogue: &mut Catalogue,
    progress: &Arc<Progress>,
) -> Result<Mounted, JobError> {
    let line = PartLine {
        part: hex::encode(rand::rng().random::<[u8; 16]>()),
        piece: 1,
        job: order.job.to_owned(),
        source: source.name.clone(),
        host: settings.host.clone(),
        time: order.now,
        since,
        next: None,
    };
    match &source.origin {
        Origin::Path(path) => path_part(settings, order, path, line, mounted, catalogue, progress),
        Origin::Role(socket) => role_part(settings, order, socket, line, mounted, catalogue, progress),
    }
}

/// Files of this host, walked by a thread of their own.
fn path_part(
    settings: &Settings,
    order: &mut Order<'_>,
    path: &Path,
    mut line: PartLine,
    mounted: Mounted,
    catalogue: &mut Catalogue,
    progress: &Arc<Progress>,
) -> Result<Mounted, JobError> {
    let next = order.now.to_string();
    line.next = Some(next.clone());
    let head = Head::new(&line.source, &settings.host, line.since.as_deref(), &next, order.now);
    let (stream, sink) = io::pipe().map_err(|error| JobError::Machine { path: settings.dir.clone(), error })?;
    thread::scope(|scope| {
        let walked = scope.spawn(|| source::write(path, &head, io::BufWriter::with_capacity(1 << 17, sink), progress));
        let fed = feed_part(settings, order, stream, &line, mounted, catalogue, progress);
        let walked = walked.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        match (fed, walked) {
            // Where the source failed, that the stream has no end is only what follows from it.
            (Err(JobError::Part { error: FeedError::Tar(_), .. }), Err(error)) => {
                Err(JobError::Source { path: path.to_owned(), error })
            }
            (fed, _) => fed,
        }
    })
}

/// What a role gives; everything, when it cannot go on from the token.
fn role_part(
    settings: &Settings,
    order: &mut Order<'_>,
    socket: &Path,
    mut line: PartLine,
    mounted: Mounted,
    catalogue: &mut Catalogue,
    progress: &Arc<Progress>,
) -> Result<Mounted, JobError> {
    let mut stream = match snapshot::fetch(socket, line.since.as_deref()) {
        Err(FetchError::Gone) => {
            info!(source = line.source, "it cannot go on from the last backup: everything is taken");
            line.since = None;
            snapshot::fetch(socket, None)?
        }
        fetched => fetched?,
    };
    let (begun, head) = peek(&mut stream).ok_or_else(|| JobError::NoHead(line.source.clone()))?;
    (line.host, line.since, line.next) = (head.host, head.since, Some(head.next));
    feed_part(settings, order, io::Cursor::new(begun).chain(stream), &line, mounted, catalogue, progress)
}

/// The first member of a stream, with the octets that were read for it.
fn peek(stream: &mut impl Read) -> Option<(Vec<u8>, Head)> {
    let (mut walk, mut begun, mut text) = (Walk::new(0), Vec::new(), Vec::new());
    let mut block = [0; 512];
    while begun.len() < HEAD_LEN_MAX {
        stream.read_exact(&mut block).ok()?;
        begun.extend_from_slice(&block);
        let mut rest = block.as_slice();
        while !rest.is_empty() {
            let (taken, step) = walk.advance(rest).ok()?;
            let (octets, behind) = rest.split_at_checked(taken)?;
            rest = behind;
            if step == Step::Content {
                text.extend_from_slice(octets);
            }
            let member = walk.member();
            if member.is_some_and(|member| member.size > 0) && walk.content_left() == 0 && !text.is_empty() {
                let is_head = member.is_some_and(|member| member.path == HEAD_PATH.as_bytes());
                return is_head.then(|| serde_json::from_slice(&text).ok())?.map(|head| (begun, head));
            }
        }
    }
    None
}

fn feed_part(
    settings: &Settings,
    order: &mut Order<'_>,
    stream: impl Read + Send,
    line: &PartLine,
    mounted: Mounted,
    catalogue: &mut Catalogue,
    progress: &Arc<Progress>,
) -> Result<Mounted, JobError> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let feeding = feed::Settings { buffer_len: settings.buffer_bytes, workers, spool_dir: settings.dir.clone() };
    let catalogue = std::cell::RefCell::new(catalogue);
    let now = order.now;
    let mut next_volume = |ended: Mounted, continues: Continues| {
        let after = continues.after.clone();
        let no_volume = |reason: String| FeedError::NoVolume { after: after.clone(), reason };
        let mut drive = ended.drive;
        let known = catalogue.borrow();
        let name = match insert_new(&mut drive, &known) {
            Ok(name) => name,
            Err(JobError::Drive(DriveError::NoMedium)) => {
                (order.ask)(&mut drive, &after).map_err(&no_volume)?;
                match scan::begin(&mut drive).map_err(|error| no_volume(error.to_string()))? {
                    Begin::Blank => new_name(&known, 0)?,
                    Begin::Foreign(foreign) => {
                        return Err(no_volume(format!("what was put in is not blank: {foreign}")));
                    }
                    Begin::Ours(label) => {
                        return Err(no_volume(format!("what was put in is not blank: volume {}", label.volume)));
                    }
                }
            }
            Err(error) => return Err(no_volume(error.to_string())),
        };
        label(settings, drive, name, now, Some(continues)).map_err(|error| no_volume(error.to_string()))
    };
    let mut piece = |label: &Label, file, spool: &mut feed::Spool| {
        catalogue.borrow_mut().take::<FeedError>(label, file, |add| Ok(spool.lines(add)?))
    };
    let mut hooks = Hooks { next_volume: &mut next_volume, piece: &mut piece };
    let fed = feed::part(stream, mounted, line, &feeding, progress, &mut hooks);
    fed.map_err(|error| JobError::Part { source_name: line.source.clone(), error })
}
