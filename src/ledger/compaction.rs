//! Giving the space of dead records back.
//!
//! Owns: the two steps, `rewrite` and `remove`. Called by: the owners of ledgers, from a background thread.
//! Never: decides which records live; the owner does.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::Disk;
use super::reader::{Reader, entry_at};
use super::record::{Fields, Prepared, Removal};
use super::segment::file_name;
use super::{Entry, Ledger, LedgerError, Position, block_on, submit};

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
        rewrite(&self.inner.reader, segment, keep, &mut |records| block_on(submit(Arc::clone(&self.inner), records)))
    }

    /// Compaction, second step: the segment is gone when this returns, and its space with it.
    ///
    /// # Errors
    /// `InUse` for the last segment, `NoSuchRecord` for one that is gone already, `Io`; `Full` when the space came back but
    /// the note of the removal found none.
    pub fn remove(&self, segment: u64) -> Result<(), LedgerError> {
        remove(&self.inner.reader, segment, &mut |records| block_on(submit(Arc::clone(&self.inner), records)))
    }
}

type Append<'a> = dyn FnMut(Vec<Prepared>) -> Result<Vec<Position>, LedgerError> + 'a;

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
    let mut visit = |position, fields: Fields, payload: Bytes| {
        // What is noted of removed segments lives as long as the ledger.
        if fields.removal() || keep(position, &entry_at(position, &fields, payload.clone())?) {
            bytes += payload.len();
            portion.push((position, fields, payload));
        }
        if bytes >= PORTION_BYTES {
            bytes = 0;
            move_portion(&mut portion, &mut moved, append)?;
        }
        Ok(ControlFlow::Continue(()))
    };
    reader.walk(segment, None, &mut visit).map(drop)?;
    move_portion(&mut portion, &mut moved, append)?;
    Ok(moved)
}

fn move_portion(
    portion: &mut Vec<(Position, Fields, Bytes)>,
    moved: &mut Vec<(Position, Position)>,
    append: &mut Append<'_>,
) -> Result<(), LedgerError> {
    if portion.is_empty() {
        return Ok(());
    }
    let (old, records): (Vec<_>, Vec<_>) =
        portion.drain(..).map(|(old, fields, payload)| ((old, fields.removal()), (fields, payload))).unzip();
    let new = append(Prepared::again(records))?;
    moved.extend(old.into_iter().zip(new).filter(|((_, removal), _)| !removal).map(|((old, _), new)| (old, new)));
    Ok(())
}

pub(super) fn remove<D: Disk>(reader: &Reader<D>, segment: u64, append: &mut Append<'_>) -> Result<(), LedgerError> {
    let known = reader.past(segment)?;
    let note = || vec![Removal { segment, before: known.before, after: known.after }.record()];
    let noted = match append(note()) {
        Ok(_) => true,
        // Removing is what makes room. If the power goes before the note is made, the check will miss the segment.
        Err(LedgerError::Full) => false,
        Err(error) => return Err(error),
    };
    let name = file_name(segment);
    let fail = |error| LedgerError::io("remove", &name, error);
    // Readers first: none may look for a file that is gone.
    reader.forget(segment);
    if let Err(error) = reader.disk().remove(&name) {
        reader.state_mut().segments.insert(segment, known);
        return Err(fail(error));
    }
    reader.disk().sync().map_err(fail)?;
    if !noted {
        append(note())?;
    }
    Ok(())
}
