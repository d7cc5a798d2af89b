//! Giving back the space of what was delivered.
//!
//! Owns: when the oldest segment goes, and what is carried over from it. Called by: `smtp::runner`, now and then.
//! Never: removes a segment out of order (see the invariants of the queue).

use std::time::Instant;

use tracing::warn;

use super::{Head, Queue, QueueError};
use crate::base::id::Id;

/// Octets from which on the segment that takes records is ended before it is full, when it is mostly dead and space is short.
const SEGMENT_BYTES_MIN_SHORT: u64 = 256 << 10;
/// Free octets that have to be left when all that lives of a segment has been written once more.
const SPARE_BYTES: u64 = 1 << 20;

/// Room on the disk.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Octets.
    pub free: u64,
    /// There is too little: mail is refused.
    pub is_short: bool,
}

impl Queue {
    /// Removes the oldest segments as long as they hold no message of use, or as long as more than half of what is in all of them is of no use; the messages in it
    /// that are pending are written once more, if there is room for them. While it is short, the segment that takes records counts too. Blocks.
    ///
    /// # Errors
    /// `Ledger`, `Record`: what was not removed stays as it is.
    pub fn compact(&self, room: Room, now_millis: u64, now: Instant) -> Result<(), QueueError> {
        if room.is_short {
            self.end_segment()?;
        }
        while let Some(oldest) = self.ledger.segments().first().copied().filter(|segment| segment.sealed) {
            let living = self.living_in(oldest.id);
            if !living.is_empty() && !self.is_mostly_dead() {
                return Ok(());
            }
            if !living.is_empty() && self.octets_in(oldest.id).saturating_add(SPARE_BYTES) > room.free {
                warn!(
                    segment = oldest.id,
                    free = room.free,
                    "no room to carry over what lives of a segment of the queue"
                );
                return Ok(());
            }
            for id in living {
                if !self.carry_over(id, now_millis, now)? {
                    // Being delivered just now: next time.
                    return Ok(());
                }
            }
            self.ledger.remove(oldest.id)?;
            self.renew_pauses();
        }
        Ok(())
    }

    /// Ends the segment that takes records if it is mostly dead.
    fn end_segment(&self) -> Result<(), QueueError> {
        let open = self.ledger.segments().last().copied();
        match open.filter(|open| !open.sealed && open.bytes >= SEGMENT_BYTES_MIN_SHORT) {
            Some(open) if self.octets_in(open.id) < open.bytes / 2 => Ok(self.ledger.begin_segment()?),
            Some(_) | None => Ok(()),
        }
    }

    /// Octets of messages that live in a segment.
    fn octets_in(&self, segment: u64) -> u64 {
        let index = self.index();
        index.iter().filter(|(_, waiting)| waiting.position.segment == segment).map(|(_, waiting)| waiting.size).sum()
    }

    fn living_in(&self, segment: u64) -> Vec<Id> {
        self.index().iter().filter(|(_, waiting)| waiting.position.segment == segment).map(|(id, _)| id).collect()
    }

    /// Whether more than half of what the sealed segments take is of no use. (What lives is counted as it was before the ledger compressed it, so
    /// that the answer is rather no than yes.)
    fn is_mostly_dead(&self) -> bool {
        let segments = self.ledger.segments();
        let sealed = segments.iter().filter(|segment| segment.sealed);
        let newest_sealed = sealed.clone().map(|segment| segment.id).max().unwrap_or_default();
        let total: u64 = sealed.map(|segment| segment.bytes).sum();
        let index = self.index();
        let living = index.iter().filter(|(_, waiting)| waiting.position.segment <= newest_sealed);
        living.map(|(_, waiting)| waiting.size).sum::<u64>() < total / 2
    }

    /// Writes a message once more, for those who are pending; false when it is in other hands.
    fn carry_over(&self, id: Id, now_millis: u64, now: Instant) -> Result<bool, QueueError> {
        if !self.index().hold(id, now) {
            // Settled in the meantime, or taken.
            return Ok(self.index().get(id).is_none());
        }
        let moved = self.load_all(id).and_then(|queued| {
            let mut head = Head::of(&queued.message, queued.arrived_millis);
            if let Some(waiting) = self.index().get(id) {
                head.warned = waiting.warned;
                let held = waiting.parts.iter().filter(|part| part.held).count();
                // Some held, some not: so their routes had it, and will have it again.
                head.held = [0, waiting.parts.len()].contains(&held).then_some(held > 0);
            }
            let marks = self.index().marks_of(id, now_millis, now);
            let mut entries = vec![head.entry(&queued.message)];
            entries.extend(marks.iter().map(|mark| mark.entry(now_millis)));
            let positions = self.ledger.append_blocking(entries)?;
            Ok(positions.first().copied())
        });
        let mut index = self.index();
        match moved {
            Ok(Some(position)) => index.moved(id, position, now),
            Ok(None) => index.release(id, now),
            Err(error) => {
                index.release(id, now);
                return Err(error);
            }
        }
        Ok(true)
    }
}
