//! Reading back: members to a directory, or only checked; straight to their frames, in the order in which they stand on tape.
//!
//! Owns: `members` (restore and verify). Called by: `fife backup`. Calls: `tape` (frames from a drive), `extract` (files below a directory).
//! Never: decides which members; changes a volume.
//!
//! - `tape`: frames of a tape file, from any of them on, past what cannot be read;
//! - `extract`: a member becomes a file, never outside of the directory;
//! - `scan`: what is on a volume, from the volume alone.
//!
//! Each member is checked by its BLAKE3 hash. What is damaged is told by its name, and everything else comes back.

pub mod extract;
pub mod scan;
mod tape;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use super::catalogue::{Catalogue, CatalogueError, Frame, Member};
use super::drive::{Drive, DriveError};
use super::volume::frame::Found;
use extract::{Extract, Fate, Target};
use tape::Tape;

/// Why reading back does not go on at all.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error("the drive: {0}")]
    Drive(#[from] DriveError),
    #[error("the volume that is wanted is {wanted}: {reason}")]
    Volume { wanted: String, reason: String },
    #[error("{0}")]
    Target(std::io::Error),
}

/// What was not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub path: String,
    pub reason: String,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub members: u64,
    /// Octets of contents.
    pub bytes: u64,
    /// Members of which something cannot be read, or is not what was written.
    pub damaged: Vec<Fault>,
    /// Members that were read and are not made: their names leave the directory, or the system refuses.
    pub refused: Vec<Fault>,
}

/// Puts a volume into the drive; gives the drive, on whichever place.
pub type Mount<'a> = dyn FnMut(Option<Drive>, &Frame) -> Result<Drive, RestoreError> + 'a;

/// Reads these members, which `Catalogue::find` gave in order. To a directory, or without one only to check them.
///
/// # Errors
/// Nothing more can be read: no such volume, no drive. A damaged member is no error.
pub fn members(
    catalogue: &Catalogue,
    members: &[Member],
    to: Option<&Path>,
    mount: &mut Mount<'_>,
    told: &mut dyn FnMut(&Report),
) -> Result<Report, RestoreError> {
    let target = to.map(Target::open).transpose().map_err(RestoreError::Target)?;
    let mut frames = Frames { catalogue, tape: None, last: None };
    let mut report = Report::default();
    for member in members {
        let fate = frames.member(member, target.as_ref(), mount)?;
        report.tell(member, fate);
        told(&report);
    }
    if let Some(target) = &target {
        target.finish().map_err(RestoreError::Target)?;
    }
    Ok(report)
}

impl Report {
    fn tell(&mut self, member: &Member, fate: Fate) {
        let fault = |reason| Fault { path: String::from_utf8_lossy(&member.path).into_owned(), reason };
        match fate {
            Fate::Done => {
                self.members += 1;
                self.bytes += member.size;
            }
            Fate::Damaged(reason) => self.damaged.push(fault(reason)),
            Fate::Refused(reason) => self.refused.push(fault(reason)),
        }
    }
}

/// Frames from whichever volume they stand on.
struct Frames<'a> {
    catalogue: &'a Catalogue,
    /// The drive, the volume's id, the tape file.
    tape: Option<(Tape, String, u32)>,
    /// The frame that was read last: small members share one.
    last: Option<(Frame, Option<Vec<u8>>)>,
}

impl Frames<'_> {
    fn member(
        &mut self,
        member: &Member,
        target: Option<&Target>,
        mount: &mut Mount<'_>,
    ) -> Result<Fate, RestoreError> {
        let end = member.at.saturating_add(member.len);
        let mut extract = Extract::new(member, target);
        let mut at = member.at;
        for frame in self.catalogue.frames(&member.part, member.at, end)? {
            if at >= end {
                break;
            }
            if frame.at > at {
                return Ok(Fate::Damaged("a piece of it is in no frame of the catalogue".to_owned()));
            }
            let Some(content) = self.content(&frame, &member.part, mount)? else {
                let (volume, file, block) = (&frame.volume, frame.file, frame.block);
                let reason = format!("volume {volume} cannot be read in tape file {file} at block {block}");
                return Ok(Fate::Damaged(reason));
            };
            let skip = usize::try_from(at - frame.at).unwrap_or(usize::MAX);
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = content.get(skip..).unwrap_or_default();
            let (piece, _) = piece.split_at(piece.len().min(wanted));
            at += piece.len() as u64;
            if let Err(fate) = extract.push(piece) {
                return Ok(fate);
            }
        }
        Ok(extract.finish())
    }

    /// The frame's content; `None` where it cannot be read.
    fn content(&mut self, frame: &Frame, part: &str, mount: &mut Mount<'_>) -> Result<Option<&[u8]>, RestoreError> {
        if self.last.as_ref().is_none_or(|(last, _)| last != frame) {
            let content = self.read(frame, part, mount)?;
            self.last = Some((frame.clone(), content));
        }
        Ok(self.last.as_ref().and_then(|(_, content)| content.as_deref()))
    }

    fn read(&mut self, frame: &Frame, part: &str, mount: &mut Mount<'_>) -> Result<Option<Vec<u8>>, RestoreError> {
        let mounted = self.tape.take();
        let is_there = mounted.as_ref().is_some_and(|(_, id, _)| *id == frame.volume_id);
        let same_file = mounted.as_ref().is_some_and(|(_, _, file)| *file == frame.file);
        let mut tape = match mounted {
            Some((tape, ..)) if is_there => tape,
            other => Tape::new(mount(other.map(|(tape, ..)| tape.into_drive()), frame)?, frame.block_bytes),
        };
        let found = tape.frame(frame.file, frame.block, frame.offset, is_there && same_file);
        self.tape = Some((tape, frame.volume_id.clone(), frame.file));
        Ok(match found? {
            Some(Found::Frame { head, content, .. }) if head.at == frame.at && hex::encode(head.part) == part => {
                Some(content)
            }
            Some(_) | None => None,
        })
    }
}
