//! Sets of sequence numbers or UIDs: `1:5,7,9:*`.
//!
//! Owns: `Set` and its meeting with a mailbox. Called by: command parsers, `imap::fetch` and its like. Never: grows with
//! what a set spans: `1:4294967295` is one pair.
//! Spec: RFC 3501 section 9 (sequence-set), section 6.4.8 (UID).

use std::ops::Range;

use imap_types::core::Vec1;
use imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

use crate::pop_imap::store::View;

/// A set as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set(Vec<(Bound, Bound)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Number(u32),
    /// `*`, the largest in use.
    Last,
}

impl Set {
    /// From text such as `1:5,*`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        text.parse::<SequenceSet>().ok().map(|set| Self::from(&set))
    }

    /// Positions in the mailbox (from 0), ascending, without overlap. What does not exist is left out: clients ask `1:*` of an empty mailbox.
    #[must_use]
    pub fn positions(&self, view: &View, uid: bool) -> Vec<Range<usize>> {
        let count = view.messages.len();
        let Some(last) = view.messages.last() else { return Vec::new() };
        let last = if uid { last.uid } else { u32::try_from(count).unwrap_or(u32::MAX) };
        let number = |bound: Bound| match bound {
            Bound::Number(number) => number,
            Bound::Last => last,
        };
        let mut ranges: Vec<Range<usize>> = self
            .0
            .iter()
            .map(|&(from, to)| {
                let (from, to) = (number(from), number(to));
                // RFC 3501 section 9: 4:2 is 2:4, and a range to "*" holds the last even when it starts beyond it.
                let (from, to) = (from.min(to), from.max(to));
                if uid {
                    view.messages.lower_bound(from)
                        ..to.checked_add(1).map_or(count, |end| view.messages.lower_bound(end))
                } else {
                    let position = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).min(count);
                    position(from.saturating_sub(1))..position(to)
                }
            })
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_unstable_by_key(|range| range.start);
        merge(ranges)
    }

    /// Whether this position is meant: for SEARCH.
    #[must_use]
    pub fn contains(ranges: &[Range<usize>], position: usize) -> bool {
        let at = ranges.partition_point(|range| range.end <= position);
        ranges.get(at).is_some_and(|range| range.contains(&position))
    }
}

fn merge(sorted: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

impl From<&SequenceSet> for Set {
    fn from(SequenceSet(items): &SequenceSet) -> Self {
        let bound = |bound: SeqOrUid| match bound {
            SeqOrUid::Value(number) => Bound::Number(number.get()),
            SeqOrUid::Asterisk => Bound::Last,
        };
        let pairs = |items: &Vec1<Sequence>| {
            let pair = |item: &Sequence| match *item {
                Sequence::Single(only) => (bound(only), bound(only)),
                Sequence::Range(from, to) => (bound(from), bound(to)),
            };
            items.as_ref().iter().map(pair).collect()
        };
        Self(pairs(items))
    }
}
