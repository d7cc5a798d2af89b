//! Snapshots against plain vectors.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::pop_imap::store::roll::{pack, unpack};
use crate::pop_imap::store::view::{Difference, MessageId, Rows};
use crate::pop_imap::store::{Flags, Row};

fn row(uid: u32) -> Row {
    let message = MessageId(u64::from(uid));
    Row { uid, size: 1, flags: Flags::NONE, modseq: 1, internal_date: 0, message }
}

/// What differs, looked at one by one.
fn naive(old: &[Row], new: &[Row]) -> Difference {
    let find = |rows: &[Row], uid: u32| rows.iter().find(|row| row.uid == uid).copied();
    Difference {
        expunged: (0..old.len()).filter(|at| find(new, old[*at].uid).is_none()).collect(),
        changed: (0..new.len())
            .filter(|at| find(old, new[*at].uid).is_some_and(|before| before.flags != new[*at].flags))
            .collect(),
        added: new.iter().filter(|row| find(old, row.uid).is_none()).count(),
    }
}

#[test]
fn rows_are_what_a_vector_would_be() {
    for seed in 0..12 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut rows, mut plain) = (Rows::default(), Vec::<Row>::new());
        let mut next = 1;
        for _ in 0..10 {
            // Whatever is done to rows is done to packed ones too.
            if random.random_bool(0.5) {
                rows = unpack(&pack(&rows)).unwrap();
            }
            let (old, old_plain) = (rows.clone(), plain.clone());
            let mut added = Vec::new();
            for _ in 0..random.random_range(0..400) {
                next += random.random_range(1..3);
                added.push(row(next));
            }
            rows.push_all(&added);
            plain.extend(&added);
            let mut edits = BTreeMap::new();
            let share = random.random_range(0.0..0.2);
            for row in &plain {
                if random.random_bool(share) {
                    let flags = [Flags::SEEN, Flags::FLAGGED][random.random_range(0..2)];
                    edits.insert(row.uid, random.random_bool(0.5).then_some((flags, 2)));
                }
            }
            edits.insert(next + 1, None);
            rows.edit(&edits);
            plain.retain_mut(|row| match edits.get(&row.uid) {
                Some(None) => false,
                Some(Some((flags, modseq))) => {
                    (row.flags, row.modseq) = (*flags, *modseq);
                    true
                }
                None => true,
            });
            compare(&rows, &plain, &mut random);
            assert_eq!(rows.since(&old), naive(&old_plain, &plain), "seed {seed}");
        }
    }
}

fn compare(rows: &Rows, plain: &[Row], random: &mut SmallRng) {
    assert_eq!(rows.iter().copied().collect::<Vec<_>>(), plain);
    assert_eq!(rows.len(), plain.len());
    let unseen = |row: &Row| !row.flags.contains(Flags::SEEN);
    assert_eq!(rows.unseen(), plain.iter().filter(|row| unseen(row)).count());
    assert_eq!(rows.first_unseen(), plain.iter().position(unseen));
    assert_eq!((rows.first(), rows.last()), (plain.first(), plain.last()));
    for _ in 0..20 {
        let index = random.random_range(0..plain.len() + 2);
        assert_eq!(rows.get(index), plain.get(index));
        let rest = plain.get(index..).unwrap_or_default();
        assert_eq!(rows.iter_from(index).copied().collect::<Vec<_>>(), rest);
        let uid = random.random_range(0..plain.last().map_or(2, |row| row.uid + 2));
        assert_eq!(rows.position(uid), plain.iter().position(|row| row.uid == uid));
        assert_eq!(rows.by_uid(uid), plain.iter().find(|row| row.uid == uid));
        assert_eq!(rows.lower_bound(uid), plain.iter().filter(|row| row.uid < uid).count());
    }
    assert_eq!(Rows::from_sorted(plain).iter().copied().collect::<Vec<_>>(), plain);
}

#[test]
fn a_change_of_one_row_copies_one_chunk() {
    let all: Vec<Row> = (1..=10_000).map(row).collect();
    let old = Rows::from_sorted(&all);
    let mut new = old.clone();
    new.edit(&BTreeMap::from([(5_000, Some((Flags::SEEN, 2)))]));
    let same = |uid: u32| std::ptr::eq(old.by_uid(uid).unwrap(), new.by_uid(uid).unwrap());
    let moved: Vec<u32> = (1..=10_000).filter(|uid| !same(*uid)).collect();
    assert!(moved.contains(&5_000) && moved.len() <= 256, "{} rows copied", moved.len());
}
