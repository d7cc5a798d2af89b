//! Hostile octets as the store's records, and hostile messages under search. Called by: `crate::fuzz`.
//!
//! Invariants: no panic; what is read as a record is written as one that reads the same; a search ends.

use bytes::Bytes;

use super::Where;
use super::record::{Changes, Counters, StatePart, read_message};
use super::search::Needle;

/// Reads the octets as each kind of record. Returns how many kinds they are.
pub(crate) fn record(data: &[u8]) -> usize {
    let payload = Bytes::copy_from_slice(data);
    let mut kinds = usize::from(read_message(&payload).is_ok());
    if let Ok(changes) = Changes::decode(&payload) {
        let again = Changes::decode(&changes.encode()).map(|again| format!("{again:?}"));
        assert_eq!(again.ok(), Some(format!("{changes:?}")));
        kinds += 1;
    }
    if let Ok(part) = StatePart::decode(data) {
        let again = StatePart::decode(&part.encode()).map(|again| format!("{again:?}"));
        assert_eq!(again.ok(), Some(format!("{part:?}")));
        kinds += 1;
    }
    if let Ok(counters) = Counters::decode(data) {
        assert_eq!(
            Counters::decode(&counters.encode()).map(|again| format!("{again:?}")).ok(),
            Some(format!("{counters:?}"))
        );
        kinds += 1;
    }
    kinds
}

/// Searches the message for what is in none.
pub(crate) fn search(message: &[u8]) {
    let needle = Needle::new("ein Wort, das nirgends steht");
    for place in [Where::Text, Where::Body, Where::Header("subject".into())] {
        needle.matches(message, &place);
    }
}
