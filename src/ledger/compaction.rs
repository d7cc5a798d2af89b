//! Giving the space of dead records back.
//!
//! Owns: the two steps, `rewrite` and `remove`. Called by: the owners of ledgers, from a background thread.
//! Never: decides which records live; the owner does.

use std::ops::ControlFlow;

use super::disk::Disk;
use super::reader::Reader;
use super::segment::file_name;
use super::{Entry, Ledger, LedgerError, Position};

/// Kept records are appended in portions of about this size, so that appends of others come in between.
const PORTION_BYTES: usize = 1024 * 1024;

impl Ledger {
    /// Compaction, first step: appends the records of a sealed segment that `keep` wants once more at the end.
    ///
    /// Returns old and new position of each. The owner then changes its view and calls `remove`. Until it does, both
    /// copies are there; after a crash in between, `keep` will find the old ones dead and nothing is moved twice.
    /// Blocks; `keep` may block too, to go on at a rate that leaves the disk to others.
    ///
    /// # Errors
    /// `InUse` for the last segment, `NoSuchRecord` for one that is gone, `Corrupt` if a record is
    /// damaged (nothing may be removed then), and whatever an append can fail with.
    pub fn rewrite(
        &self,
        segment: u64,
        keep: &mut dyn FnMut(Position, &Entry) -> bool,
    ) -> Result<Vec<(Position, Position)>, LedgerError> {
        rewrite(&self.inner.reader, segment, keep, &mut |entries| self.append_blocking(entries))
    }

    /// Compaction, second step: the segment is gone when this returns, and its space with it.
    ///
    /// # Errors
    /// `InUse` for the last segment, `NoSuchRecord` for one that is gone already, `Io`.
    pub fn remove(&self, segment: u64) -> Result<(), LedgerError> {
        remove(&self.inner.reader, segment)
    }
}

type Append<'a> = dyn FnMut(Vec<Entry>) -> Result<Vec<Position>, LedgerError> + 'a;

pub(super) fn rewrite<D: Disk>(
    reader: &Reader<D>,
    segment: u64,
    keep: &mut dyn FnMut(Position, &Entry) -> bool,
    append: &mut Append<'_>,
) -> Result<Vec<(Position, Position)>, LedgerError> {
    reader.past(segment)?;
    let mut moved = Vec::new();
    let mut portion = Vec::new();
    let mut bytes = 0;
    let mut outcome = Ok(());
    let mut visit = |position, entry: Entry| {
        if keep(position, &entry) {
            bytes += entry.payload.len();
            portion.push((position, entry));
        }
        if bytes >= PORTION_BYTES {
            bytes = 0;
            outcome = move_portion(&mut portion, &mut moved, append);
        }
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    reader.replay_segment(segment, None, &mut visit).map(drop)?;
    outcome?;
    move_portion(&mut portion, &mut moved, append)?;
    Ok(moved)
}

fn move_portion(
    portion: &mut Vec<(Position, Entry)>,
    moved: &mut Vec<(Position, Position)>,
    append: &mut Append<'_>,
) -> Result<(), LedgerError> {
    if portion.is_empty() {
        return Ok(());
    }
    let (old, entries): (Vec<_>, Vec<_>) = portion.drain(..).unzip();
    moved.extend(old.into_iter().zip(append(entries)?));
    Ok(())
}

pub(super) fn remove<D: Disk>(reader: &Reader<D>, segment: u64) -> Result<(), LedgerError> {
    let known = reader.past(segment)?;
    let name = file_name(segment);
    let fail = |error| LedgerError::io("remove", &name, error);
    // Readers first: none may look for a file that is gone.
    reader.forget(segment);
    if let Err(error) = reader.disk().remove(&name) {
        reader.state_mut().segments.insert(segment, known);
        return Err(fail(error));
    }
    reader.disk().sync().map_err(fail)
}
