//! Giving the space of dead records back.
//!
//! Owns: when a segment of the ledger goes, and what is carried over from it. Called by: `writer`, on its thread, between changes.
//! Never: removes a segment out of order.
//!
//! A record holds an entry's whole state, so it lives as long as no later one is about the same entry, and the view
//! knows where the living ones are. Only the oldest segment is ever removed: whatever a deletion in it deleted stood
//! in it or before it, so no deletion has to be carried over. What lives in it is appended once more,
//! before it goes; a crash in between leaves both, and the later one counts.
//!
//! Done on the writer's thread, in portions: nothing can change an entry between the moment it is read and the
//! moment it is appended.

use bytes::Bytes;
use tracing::info;

use super::record;
use super::view::View;
use super::writer::OpenError;
use crate::base::clock;
use crate::ledger::{Entry, Ledger};

/// Entries carried over at a time: as many as changes wait behind.
const PORTION: u32 = 256;

/// How far compaction has come.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The last segment when it was last found that there is nothing to do.
    settled_at: Option<u64>,
    /// The segment that is being emptied.
    emptying: Option<u64>,
}

impl Compaction {
    /// One portion; false when there is nothing to be done until the ledger has another segment.
    pub(super) fn step(&mut self, ledger: &Ledger, view: &mut View) -> Result<bool, OpenError> {
        let last = ledger.end().segment;
        if self.settled_at == Some(last) {
            return Ok(false);
        }
        let Some(oldest) = self.emptying.or(next(ledger, view)?) else {
            self.settled_at = Some(last);
            return Ok(false);
        };
        self.emptying = Some(oldest);
        let living = view.some_up_to(oldest, PORTION)?;
        if !living.is_empty() {
            carry_over(ledger, view, living)?;
            return Ok(true);
        }
        // The ledger's own notes of earlier removals stay; nothing else is left.
        ledger.rewrite(oldest, &mut |_, _| false)?;
        ledger.remove(oldest)?;
        self.emptying = None;
        info!(segment = oldest, "a segment of the directory's ledger is compacted");
        Ok(true)
    }

    /// After a failure: gives up until the ledger has another segment.
    pub(super) fn pause(&mut self, ledger: &Ledger) {
        self.emptying = None;
        self.settled_at = Some(ledger.end().segment);
    }
}

/// The oldest segment, when more than half of the records in all that are full are dead.
fn next(ledger: &Ledger, view: &View) -> Result<Option<u64>, OpenError> {
    let segments = ledger.segments();
    let sealed = segments.iter().filter(|segment| segment.sealed);
    let Some(newest) = sealed.clone().map(|segment| segment.id).max() else {
        return Ok(None);
    };
    let records: u64 = sealed.map(|segment| segment.records).sum();
    let living = view.count_up_to(newest)?;
    let oldest = segments.first().filter(|segment| segment.sealed).map(|segment| segment.id);
    Ok(oldest.filter(|_| living < records / 2))
}

fn carry_over(ledger: &Ledger, view: &mut View, living: Vec<(i64, String)>) -> Result<(), OpenError> {
    let time_millis = clock::unix_millis();
    let (rows, bodies): (Vec<i64>, Vec<String>) = living.into_iter().unzip();
    let entry = |body: String| Entry { kind: record::PUT, time_millis, payload: Bytes::from(body) };
    let positions = ledger.append_blocking(bodies.into_iter().map(entry).collect())?;
    let changing = view.begin()?;
    for (row, position) in rows.into_iter().zip(&positions) {
        changing.moved(row, position.segment)?;
    }
    if let Some(last) = positions.last() {
        changing.set_position(*last)?;
    }
    Ok(changing.commit()?)
}
