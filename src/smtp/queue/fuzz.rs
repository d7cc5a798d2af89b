//! Hostile octets as the queue's records. Called by: `crate::fuzz`.
//!
//! Invariants: no panic; lengths in a record are within it, whatever they say; no pause is for ever.

use bytes::Bytes;

use super::record::{Head, PAUSE_MAX, Record};
use crate::ledger::Entry;

/// Reads the octets as a record of the kind that the first of them is. Returns 1 when they are one.
pub(crate) fn record(data: &[u8]) -> usize {
    let Some((&kind, payload)) = data.split_first() else { return 0 };
    let entry = Entry { kind: kind & 3, time_millis: 0, payload: Bytes::copy_from_slice(payload) };
    let Ok(record) = Record::read(&entry) else { return 0 };
    if let Record::Mark(mark) = &record {
        assert!(mark.tried.iter().chain(&mark.down).all(|pause| pause.left(0) <= PAUSE_MAX));
    }
    if let Record::Message(head) = record {
        let (again, trace, content) = Head::split(&entry.payload).unwrap();
        assert_eq!(again, head);
        assert!(trace.len() + content.len() <= payload.len());
        let message = head.message(&[0, 1, u32::MAX], trace, content);
        assert!(message.envelope.recipients.len() <= 2);
    }
    1
}
