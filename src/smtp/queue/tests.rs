//! The queue: nothing that was added is lost, nothing that was settled comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Ending, Queue};
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::smtp::envelope::{Envelope, Message, Recipient};

const SEGMENT_BYTES: u64 = 64 * 1024;

fn open(dir: &std::path::Path, now: Instant) -> Queue {
    Queue::open_with(dir, SEGMENT_BYTES, now).unwrap()
}

fn message(id: u64, recipients: usize, len: usize) -> Message {
    let address = |number: usize| -> Address { format!("u{number}@example.test").parse().unwrap() };
    let recipients = (0..recipients)
        .map(|number| Recipient { given: Arc::new(address(number)), mailbox: address(number) })
        .collect();
    let envelope = Envelope { id: Id::from_u64(id), reverse_path: Some(address(99)), recipients, smtputf8: true };
    // Noise, so that the ledger does not compress it away.
    let mut random = StdRng::seed_from_u64(id);
    let content: Vec<u8> = (0..len).map(|_| random.random()).collect();
    Message { envelope, trace: Bytes::from_static(b"Received: here\r\n"), content: content.into() }
}

#[tokio::test]
async fn what_was_added_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    {
        let queue = open(dir.path(), now);
        queue.add(vec![message(1, 3, 100), message(2, 1, 0)], 5000, now).await.unwrap();
        queue.add(vec![message(3, 1, 10)], 4000, now).await.unwrap();
        let id = queue.take(now).unwrap();
        assert_eq!(id, Id::from_u64(1), "the first that is due, by id when due at once");
        queue.settle(id, vec![0, 2], Ending::Delivered, Vec::new(), 6000, now).await.unwrap();
        queue.put_back(id, now, true);
    }
    let queue = open(dir.path(), now);
    assert_eq!((queue.len(), queue.oldest_millis()), (3, Some(4000)));
    let id = queue.take(now).unwrap();
    let queued = queue.load(id).unwrap();
    assert_eq!(queued.places, [1]);
    assert_eq!(queued.arrived_millis, 5000);
    let mut expected = message(1, 3, 100);
    expected.envelope.recipients.remove(2);
    expected.envelope.recipients.remove(0);
    assert_eq!(queued.message, expected);
}

#[tokio::test]
async fn a_message_is_gone_with_its_last_recipient() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = open(dir.path(), now);
    queue.add(vec![message(1, 2, 0)], 0, now).await.unwrap();
    let id = queue.take(now).unwrap();
    queue.settle(id, vec![1], Ending::Refused, vec![message(2, 1, 0)], 0, now).await.unwrap();
    queue.settle(id, vec![0], Ending::Delivered, Vec::new(), 0, now).await.unwrap();
    queue.put_back(id, now, true);
    assert_eq!(queue.len(), 1, "the bounce");
    assert_eq!(queue.take(now), Some(Id::from_u64(2)));
    assert!(queue.load(id).is_err());
}

#[tokio::test]
async fn each_message_is_taken_by_one_and_tried_when_due() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let later = now + Duration::from_secs(60);
    let queue = open(dir.path(), now);
    queue.add(vec![message(1, 1, 0), message(2, 1, 0)], 1000, now).await.unwrap();
    let first = queue.take(now).unwrap();
    let second = queue.take(now).unwrap();
    assert_eq!((queue.take(now), queue.next_due()), (None, None));
    queue.put_back(first, later, true);
    queue.put_back(second, later + Duration::from_secs(1), true);
    assert_eq!((queue.take(now), queue.next_due()), (None, Some(later)));
    assert_eq!(queue.take(later), Some(first));
    queue.wake(now);
    assert_eq!(queue.take(now), Some(second), "what waits is due, what is taken is not");
    assert_eq!(queue.load(second).unwrap().attempts, 1);
    queue.put_back(first, later, true);
    assert_eq!(queue.take_older(1000), None);
    assert_eq!(queue.take_older(1001), Some(first), "the oldest that nobody has taken, due or not");
}

#[tokio::test]
async fn who_waits_is_told_of_changes() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = open(dir.path(), now);
    let changed = queue.changed();
    queue.add(vec![message(1, 1, 0)], 0, now).await.unwrap();
    changed.await;
}

/// A history of adding, settling, compacting and restarting, beside a model that knows what is pending.
async fn history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let mut queue = Arc::new(open(dir.path(), now));
    let mut model: BTreeMap<Id, BTreeSet<String>> = BTreeMap::new();
    let mut next = 1;
    for _ in 0..100 {
        match random.random_range(0..10) {
            0..4 => {
                let message = message(next, random.random_range(1..4), random.random_range(0..6000));
                let pending = message.envelope.recipients.iter().map(|recipient| recipient.mailbox.to_string());
                model.insert(message.envelope.id, pending.collect());
                queue.add(vec![message], next, now).await.unwrap();
                next += 1;
            }
            4..8 => {
                // Old ones stay behind now and then, so that something lives in old segments.
                let Some(id) = queue.take(now) else { continue };
                if random.random_range(0..5) == 0 {
                    queue.put_back(id, now + Duration::from_secs(1), true);
                    continue;
                }
                let queued = queue.load(id).unwrap();
                let some = random.random_range(0..=queued.places.len());
                let pending = model.get_mut(&id).unwrap();
                for recipient in &queued.message.envelope.recipients[..some] {
                    assert!(pending.remove(&recipient.mailbox.to_string()), "settled already");
                }
                if pending.is_empty() {
                    model.remove(&id);
                }
                queue.settle(id, queued.places[..some].to_vec(), Ending::Delivered, Vec::new(), 0, now).await.unwrap();
                queue.put_back(id, now, true);
            }
            8 => {
                let compacted = Arc::clone(&queue);
                tokio::task::spawn_blocking(move || compacted.compact()).await.unwrap().unwrap();
            }
            _ => {
                drop(queue);
                queue = Arc::new(open(dir.path(), now));
            }
        }
        let found: BTreeMap<Id, usize> =
            queue.index().iter().map(|(id, waiting)| (id, waiting.pending.len())).collect();
        let expected: BTreeMap<Id, usize> = model.iter().map(|(id, pending)| (*id, pending.len())).collect();
        assert_eq!(found, expected, "seed {seed}");
    }
    while let Some(id) = queue.take(now + Duration::from_secs(2)) {
        let queued = queue.load(id).unwrap();
        let found: BTreeSet<String> =
            queued.message.envelope.recipients.iter().map(|recipient| recipient.mailbox.to_string()).collect();
        assert_eq!(Some(found), model.remove(&id), "seed {seed}");
    }
    assert!(model.is_empty(), "seed {seed}");
}

#[tokio::test]
async fn seeded_histories_lose_nothing_and_bring_nothing_back() {
    let seed: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("FIFE_SEED={seed}");
    for number in 0..6 {
        history(seed * 1000 + number).await;
    }
}

#[tokio::test]
async fn delivered_mail_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = Arc::new(open(dir.path(), now));
    // One that nobody can deliver, and a hundred that come and go.
    queue.add(vec![message(1, 1, 5000)], 0, now).await.unwrap();
    let stuck = queue.take(now).unwrap();
    queue.put_back(stuck, now + Duration::from_secs(3600), true);
    for number in 2..102 {
        queue.add(vec![message(number, 1, 5000)], 0, now).await.unwrap();
        let id = queue.take(now).unwrap();
        queue.settle(id, vec![0], Ending::Delivered, Vec::new(), 0, now).await.unwrap();
    }
    let before = queue.ledger.segments().len();
    let compacted = Arc::clone(&queue);
    tokio::task::spawn_blocking(move || compacted.compact()).await.unwrap().unwrap();
    let after = queue.ledger.segments().len();
    assert!(before > 5 && after <= 2, "{before} segments, then {after}");
    assert_eq!(queue.load(stuck).unwrap().message, message(1, 1, 5000));
}
