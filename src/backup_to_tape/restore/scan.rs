//! What is on a volume, from the volume alone.
//!
//! Owns: `volume`: label, parts, catalogues into `Catalogue`. Called by: `job` (before it writes behind what is there), `fife backup scan`.
//! Where the catalogue of a part is missing or damaged, the part itself is read, and the catalogue made of it.

use serde::{Deserialize, Serialize};

use super::RestoreError;
use super::tape::Tape;
use crate::backup_to_tape::catalogue::{Catalogue, CatalogueError};
use crate::backup_to_tape::drive::{BLOCK_BYTES_MAX, Drive, DriveError, Reading};
use crate::backup_to_tape::volume::Name;
use crate::backup_to_tape::volume::frame::{Found, HEAD_LEN, Head, Kind, Place as FramePlace};
use crate::backup_to_tape::volume::label::{Foreign, Label};
use crate::backup_to_tape::volume::line::{EndLine, FrameLine, Line, MemberLine, PartLine};
use crate::backup_to_tape::volume::walk::{Step, Walk};

/// Parts on one volume, at most.
const PARTS_MAX: u32 = 100_000;
/// The first member of every stream.
const SNAPSHOT_PATH: &[u8] = b".fife/snapshot.json";
/// Octets of it, at most.
const SNAPSHOT_LEN_MAX: usize = 64 * 1024;

/// What a volume begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Nothing was ever written on it.
    Blank,
    Ours(Label),
    Foreign(Foreign),
}

/// What was found on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Scanned {
    pub volume: String,
    pub parts: Vec<ScannedPart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScannedPart {
    pub file: u32,
    pub part: String,
    pub state: PartState,
}

/// How a part was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartState {
    /// By its catalogue.
    Listed,
    /// Its catalogue is missing or damaged: it was read itself.
    Read,
    /// It ends before its end; what there is of it was read.
    Unfinished,
}

impl PartState {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Listed => "whole",
            Self::Read => "its list is damaged or missing: it was read itself",
            Self::Unfinished => "not finished: what there is of it was read",
        }
    }
}

/// Reads the beginning of a volume. Blocks of any size are read.
///
/// # Errors
/// The drive: no volume, not ready. A damaged beginning is told as foreign, so that nobody overwrites it.
pub fn begin(drive: &mut Drive) -> Result<Begin, RestoreError> {
    drive.rewind()?;
    let mut block = vec![0; BLOCK_BYTES_MAX];
    match drive.read_block(&mut block) {
        Ok(Reading::Block(len)) => Ok(match Label::decode(block.get(..len).unwrap_or_default()) {
            Ok(label) => Begin::Ours(label),
            Err(foreign) => Begin::Foreign(foreign),
        }),
        Ok(Reading::EndOfData) => Ok(Begin::Blank),
        // Nobody but another program begins with a mark.
        Ok(Reading::Mark) | Err(DriveError::Medium(_) | DriveError::ForeignBlock { .. }) => {
            Ok(Begin::Foreign(Foreign::Unknown))
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes all parts of a volume into the catalogue, from this tape file on (1: the first). The drive must have been opened with the volume's block
/// length.
///
/// # Errors
/// The drive or the catalogue; what was taken in until then stays.
pub fn volume(
    drive: Drive,
    label: &Label,
    from: u32,
    catalogue: &mut Catalogue,
) -> Result<(Drive, Scanned), RestoreError> {
    take_in(drive, label, from, catalogue, |tape, file, catalogue| match listed(tape, label, file, catalogue)? {
        Some(part) => Ok(Some(part)),
        None => read(tape, label, file, catalogue),
    })
}

/// The same for parts only whose catalogues are whole: those that were, up to the end, written.
///
/// # Errors
/// As there.
pub fn listed_parts(
    drive: Drive,
    label: &Label,
    from: u32,
    catalogue: &mut Catalogue,
) -> Result<(Drive, Scanned), RestoreError> {
    take_in(drive, label, from, catalogue, |tape, file, catalogue| listed(tape, label, file, catalogue))
}

fn take_in(
    drive: Drive,
    label: &Label,
    from: u32,
    catalogue: &mut Catalogue,
    part: impl Fn(&mut Tape, u32, &mut Catalogue) -> Result<Option<ScannedPart>, RestoreError>,
) -> Result<(Drive, Scanned), RestoreError> {
    let mut tape = Tape::new(drive, usize::try_from(label.block_bytes).unwrap_or(BLOCK_BYTES_MAX).min(BLOCK_BYTES_MAX));
    let mut scanned = Scanned { volume: label.volume.clone(), parts: Vec::new() };
    for file in (from..).step_by(2).take(usize::try_from(PARTS_MAX).unwrap_or(usize::MAX)) {
        match part(&mut tape, file, catalogue)? {
            Some(part) => scanned.parts.push(part),
            None => break,
        }
    }
    Ok((tape.into_drive(), scanned))
}

fn seek(tape: &mut Tape, file: u32) -> Result<bool, DriveError> {
    match tape.seek(file, 0, 0) {
        Ok(()) => Ok(true),
        Err(DriveError::PastEnd(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A part by its catalogue, when that is whole.
fn listed(
    tape: &mut Tape,
    label: &Label,
    file: u32,
    catalogue: &mut Catalogue,
) -> Result<Option<ScannedPart>, RestoreError> {
    if !seek(tape, file + 1)? {
        return Ok(None);
    }
    let mut name = None;
    let taken = catalogue.take::<RestoreError>(label, file, |add| {
        while let Some(found) = tape.find()? {
            let Found::Frame { head: Head { kind: Kind::Catalogue, part, .. }, content, .. } = found else { continue };
            name = Some(hex::encode(part));
            content.split(|octet| *octet == b'\n').filter_map(Line::decode).for_each(&mut *add);
        }
        Ok(())
    });
    match taken {
        Ok(()) => Ok(name.map(|part| ScannedPart { file, part, state: PartState::Listed })),
        Err(RestoreError::Catalogue(CatalogueError::Piece(_))) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A part by itself. None: there is none.
fn read(
    tape: &mut Tape,
    label: &Label,
    file: u32,
    catalogue: &mut Catalogue,
) -> Result<Option<ScannedPart>, RestoreError> {
    if !seek(tape, file)? {
        return Ok(None);
    }
    let mut reading = PartReading::new(label, file);
    let taken = catalogue.take::<RestoreError>(label, file, |add| {
        while let Some(found) = tape.find()? {
            match found {
                Found::Frame { head, place, content } if head.kind == Kind::Tar => {
                    reading.frame(&head, place, &content, add);
                }
                Found::Frame { .. } | Found::Damaged { .. } => reading.walk = None,
            }
        }
        add(Line::End(reading.end()));
        Ok(())
    });
    match taken {
        Ok(()) => {}
        Err(RestoreError::Catalogue(CatalogueError::Piece(_))) => return Ok(None),
        Err(error) => return Err(error),
    }
    let state = if reading.is_ended { PartState::Read } else { PartState::Unfinished };
    Ok(reading.name.map(|name| ScannedPart { file, part: hex::encode(name), state }))
}

/// The catalogue of a part, made from its frames.
struct PartReading<'a> {
    label: &'a Label,
    file: u32,
    name: Option<Name>,
    /// None behind damage, until a member begins.
    walk: Option<Walk>,
    /// The content of the first member.
    snapshot: Vec<u8>,
    end: EndLine,
    /// The end of the stream was seen.
    is_ended: bool,
}

impl<'a> PartReading<'a> {
    fn new(label: &'a Label, file: u32) -> Self {
        let end = EndLine { members: 0, frames: 0, tar_len: 0, goes_on: true };
        Self { label, file, name: None, walk: None, snapshot: Vec::new(), end, is_ended: false }
    }

    fn frame(&mut self, head: &Head, place: FramePlace, content: &[u8], add: &mut dyn FnMut(Line)) {
        let members = self.members(head, content);
        if self.name.is_none() {
            self.name = Some(head.part);
            add(Line::Part(self.part(head.part)));
        }
        add(Line::Frame(FrameLine {
            at: head.at,
            len: u64::from(head.content_len),
            volume: self.label.volume.clone(),
            file: self.file,
            block: place.block,
            offset: place.offset,
            bytes: HEAD_LEN as u64 + u64::from(head.compressed_len),
        }));
        self.end.frames += 1;
        self.end.tar_len = head.at + u64::from(head.content_len);
        self.end.members += members.len() as u64;
        members.into_iter().map(Line::Member).for_each(add);
    }

    /// Members that end in this frame.
    fn members(&mut self, head: &Head, content: &[u8]) -> Vec<MemberLine> {
        let mut rest = content;
        if self.walk.as_ref().is_none_or(|walk| walk.at() != head.at) {
            let first = head.first.and_then(|first| usize::try_from(first).ok());
            let begin = first.and_then(|first| Some((first, content.get(first..)?)));
            self.walk = begin.map(|(first, _)| Walk::new(head.at + first as u64));
            rest = begin.map_or(&[][..], |(_, rest)| rest);
        }
        let mut members = Vec::new();
        while let Some(walk) = &mut self.walk {
            let Ok((taken, step)) = walk.advance(rest) else {
                self.walk = None;
                break;
            };
            let (octets, behind) = rest.split_at(taken.min(rest.len()));
            rest = behind;
            match step {
                Step::Content if walk.member().is_some_and(|member| member.path == SNAPSHOT_PATH) => {
                    let room = SNAPSHOT_LEN_MAX.saturating_sub(self.snapshot.len());
                    self.snapshot.extend(octets.iter().take(room));
                }
                Step::Ended(member) => members.push(MemberLine::of(&member)),
                Step::Frame | Step::Begun | Step::Content => {}
            }
            // Once more after the last octet: a member without padding ends then.
            if rest.is_empty() && taken == 0 {
                break;
            }
        }
        self.is_ended = self.walk.as_ref().is_some_and(|walk| walk.finish().is_ok());
        members
    }

    fn part(&self, name: Name) -> PartLine {
        let part = hex::encode(name);
        let continues = self.label.continues.as_ref().filter(|continues| self.file == 1 && continues.part == part);
        let told: Snapshot = serde_json::from_slice(&self.snapshot).unwrap_or_default();
        let time = humantime::parse_rfc3339(&told.time).ok();
        let time = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        PartLine {
            part,
            piece: continues.map_or(1, |continues| continues.piece),
            job: String::new(),
            source: told.source,
            host: told.host,
            time: time.map_or(self.label.written, |time| time.as_secs()),
            since: told.since,
            next: told.next,
        }
    }

    fn end(&self) -> EndLine {
        EndLine { goes_on: !self.is_ended, ..self.end.clone() }
    }
}

/// What a stream says of itself in its first member.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Snapshot {
    source: String,
    host: String,
    time: String,
    since: Option<String>,
    next: Option<String>,
}
