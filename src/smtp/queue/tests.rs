//! The queue: nothing that was added is lost, nothing that was settled comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Ending, Queue, Room, Taken};
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::config::smtp_outbound::{Route, SmtpOutbound};
use crate::smtp::envelope::{Envelope, Message, Recipient, Reports, Way};
use crate::smtp::outbound::route::{Key, Routes};

const SEGMENT_BYTES: u64 = 64 * 1024;
/// A disk with much room.
const ROOMY: Room = Room { free: u64::MAX, is_short: false };

/// Our own mailboxes; what is for `elsewhere` goes there by MX, what is for `held.test` waits.
fn routes() -> Arc<Routes> {
    let held = Route { domains: vec!["held.test".parse().unwrap()], hold: true, ..Route::default() };
    let settings = SmtpOutbound { routes: vec![held], ..SmtpOutbound::default() };
    Arc::new(Routes::new(&settings, 16, &|_| None))
}

fn open(dir: &std::path::Path, now: Instant) -> Queue {
    open_at(dir, 0, now)
}

/// The same at this time of day.
fn open_at(dir: &std::path::Path, now_millis: u64, now: Instant) -> Queue {
    Queue::open_with(dir, SEGMENT_BYTES, routes(), now_millis, now).unwrap()
}

const HERE: Key = Key::Mailboxes;

fn take(queue: &Queue, now: Instant) -> Option<Taken> {
    queue.take(&HERE, now)
}

async fn delivered(queue: &Queue, id: Id, places: Vec<u32>, now: Instant) {
    queue.settle(id, vec![(places, Ending::Delivered)], Vec::new(), 6000, now).await.unwrap();
}

fn tried(queue: &Queue, id: Id, due: Instant, now: Instant) {
    queue.put_back(id, &HERE, due, Some("away"), now);
}

/// A message for these addresses at other sites.
fn outward(id: u64, recipients: &[&str]) -> Message {
    let mut message = message(id, 0, 10);
    let to = |text: &&str| Recipient::new(Arc::new(text.parse().unwrap()), text.parse().unwrap(), Way::Elsewhere);
    message.envelope.recipients = recipients.iter().map(to).collect();
    message
}

fn domain(name: &str) -> Key {
    Key::Domain(name.into())
}

fn message(id: u64, recipients: usize, len: usize) -> Message {
    let address = |number: usize| -> Address { format!("u{number}@example.test").parse().unwrap() };
    let recipients = (0..recipients)
        .map(|number| Recipient::new(Arc::new(address(number)), address(number), Way::Mailbox))
        .collect();
    let (id, reverse_path, reports) = (Id::from_u64(id), Some(address(99)), Reports::default());
    let envelope = Envelope { id, reverse_path, recipients, smtputf8: true, reports };
    // Noise, so that the ledger does not compress it away.
    let mut random = StdRng::seed_from_u64(id.to_u64());
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
        let id = take(&queue, now).unwrap().id;
        assert_eq!(id, Id::from_u64(1), "the first that is due, by id when due at once");
        delivered(&queue, id, vec![0, 2], now).await;
        tried(&queue, id, now, now);
    }
    let queue = open(dir.path(), now);
    assert_eq!((queue.len(), queue.oldest_millis()), (3, Some(4000)));
    let taken = take(&queue, now).unwrap();
    let queued = queue.load(&taken).unwrap();
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
    let id = take(&queue, now).unwrap().id;
    queue.settle(id, vec![(vec![1], Ending::Refused)], vec![message(2, 1, 0)], 0, now).await.unwrap();
    delivered(&queue, id, vec![0], now).await;
    tried(&queue, id, now, now);
    assert_eq!(queue.len(), 1, "the bounce");
    assert_eq!(take(&queue, now).unwrap().id, Id::from_u64(2));
    assert!(queue.load_all(id).is_err());
}

#[tokio::test]
async fn each_message_is_taken_by_one_and_tried_when_due() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let later = now + Duration::from_secs(60);
    let queue = open(dir.path(), now);
    queue.add(vec![message(1, 1, 0), message(2, 1, 0)], 1000, now).await.unwrap();
    let first = take(&queue, now).unwrap().id;
    let second = take(&queue, now).unwrap().id;
    assert!(take(&queue, now).is_none());
    assert_eq!(queue.next_at(now), None);
    tried(&queue, first, later, now);
    tried(&queue, second, later + Duration::from_secs(1), now);
    assert!(take(&queue, now).is_none());
    assert_eq!(queue.next_at(now), Some(later));
    assert_eq!(take(&queue, later).unwrap().id, first);
    queue.wake(None, now);
    let woken = take(&queue, now).unwrap();
    assert_eq!((woken.id, woken.attempts()), (second, 1), "what waits is due, what is taken is not");
    tried(&queue, first, later, now);
    assert!(queue.take_older(1000, 10, now).is_empty());
    let older: Vec<Id> = queue.take_older(1001, 10, now).iter().map(|taken| taken.id).collect();
    assert_eq!(older, [first], "the oldest that nobody has taken, due or not");
}

#[tokio::test]
async fn a_dead_host_keeps_nobody_else_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = Queue::open_with(dir.path(), 64 << 20, routes(), 0, now).unwrap();
    let batch = |from: u64, to: u64, name: &str| -> Vec<Message> {
        (from..to).map(|id| outward(id, &[&format!("u{id}@{name}")])).collect()
    };
    for start in (0..50_000).step_by(1000) {
        queue.add(batch(start, start + 1000, "dead.test"), start, now).await.unwrap();
    }
    queue.add(batch(50_000, 51_000, "good.test"), 60_000, now).await.unwrap();
    // A new destination gets two sessions, and then it is the other's turn.
    let mut opened = Vec::new();
    while let Some(key) = queue.open_session(now, 8) {
        opened.push(key);
    }
    opened.sort();
    assert_eq!(opened, [domain("dead.test"), domain("dead.test"), domain("good.test"), domain("good.test")]);
    let tried = [(); 2].map(|()| queue.take(&domain("dead.test"), now).unwrap());
    for taken in tried {
        queue.is_down(&taken.key, "connection refused", &|_| Duration::from_secs(60), now);
        queue.put_back(taken.id, &taken.key, now, None, now);
        queue.close_session(&taken.key, now);
    }
    assert!(queue.take(&domain("dead.test"), now).is_none(), "it is left alone");
    assert!(queue.open_session(now, 8).is_none());
    let mut sent = 0;
    while let Some(taken) = queue.take(&domain("good.test"), now) {
        delivered(&queue, taken.id, queue.load(&taken).unwrap().places, now).await;
        queue.is_good(&taken.key, now);
        sent += 1;
    }
    assert_eq!((sent, queue.len()), (1000, 50_000));
    queue.close_session(&domain("good.test"), now);
    queue.close_session(&domain("good.test"), now);
    // When its time has come, one session tries it again.
    let later = now + Duration::from_secs(60);
    assert_eq!(queue.open_session(later, 8), Some(domain("dead.test")));
    assert_eq!(queue.open_session(later, 8), None);
    drop(queue);
    let opened_at = clock::monotonic();
    let queue = Queue::open_with(dir.path(), 64 << 20, routes(), 0, opened_at).unwrap();
    assert_eq!(queue.len(), 50_000);
    println!("50,000 messages opened in {:?}", clock::monotonic() - opened_at);
}

#[tokio::test]
async fn a_destination_that_does_well_gets_more_sessions_and_a_slow_one_its_pace() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let slow =
        Route { domains: vec![".slow.test".parse().unwrap()], messages_per_minute_max: Some(60), ..Route::default() };
    let settings = SmtpOutbound { routes: vec![slow], destination_sessions_max: 4, ..SmtpOutbound::default() };
    let routes = Arc::new(Routes::new(&settings, 16, &|_| None));
    let queue = Queue::open_with(dir.path(), SEGMENT_BYTES, routes, 0, now).unwrap();
    queue.add((0..20).map(|id| outward(id, &["u@good.test"])).collect(), 0, now).await.unwrap();
    let open = |queue: &Queue| std::iter::from_fn(|| queue.open_session(now, 100)).count();
    assert_eq!(open(&queue), 2);
    queue.is_good(&domain("good.test"), now);
    assert_eq!(open(&queue), 1);
    (0..5).for_each(|_| queue.is_good(&domain("good.test"), now));
    assert_eq!(open(&queue), 1, "not more than the settings allow");
    queue.add((30..33).map(|id| outward(id, &["u@a.slow.test"])).collect(), 0, now).await.unwrap();
    let key = domain("a.slow.test");
    assert!(queue.take(&key, now).is_some());
    assert!(queue.take(&key, now).is_none(), "one a second");
    assert!(queue.take(&key, now + Duration::from_secs(1)).is_some());
}

#[tokio::test]
async fn a_message_for_several_destinations_is_in_each_of_their_lanes() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = open(dir.path(), now);
    queue.add(vec![outward(1, &["a@one.test", "b@two.test", "c@one.test"])], 0, now).await.unwrap();
    let one = queue.take(&domain("one.test"), now).unwrap();
    let two = queue.take(&domain("two.test"), now).unwrap();
    assert_eq!((queue.load(&one).unwrap().places, queue.load(&two).unwrap().places), (vec![0, 2], vec![1]));
    delivered(&queue, two.id, vec![1], now).await;
    assert_eq!(queue.len(), 1);
    delivered(&queue, one.id, vec![0, 2], now).await;
    assert!(queue.is_empty());
    assert!(queue.destinations(now).is_empty(), "and nothing is left of them");
}

#[tokio::test]
async fn held_mail_waits_over_restarts_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = open(dir.path(), now);
    queue
        .add(vec![outward(1, &["a@good.test"]), outward(2, &["a@held.test"]), outward(3, &["a@good.test"])], 0, now)
        .await
        .unwrap();
    let ids = [Id::from_u64(1), Id::from_u64(9)];
    assert_eq!(queue.hold(&ids, true, 0, now).await.unwrap(), 1, "the other is not there");
    let check = |queue: &Queue, key: &Key, expected: Option<u64>| {
        let taken = queue.take(key, now);
        assert_eq!(taken.as_ref().map(|taken| taken.id.to_u64()), expected);
        taken.inspect(|taken| queue.put_back(taken.id, key, now, None, now));
    };
    check(&queue, &domain("good.test"), Some(3));
    check(&queue, &domain("held.test"), None);
    drop(queue);
    let queue = open(dir.path(), now);
    check(&queue, &domain("good.test"), Some(3));
    check(&queue, &domain("held.test"), None);
    assert!(queue.take_older(100, 10, now).iter().all(|taken| taken.id.to_u64() == 3), "what is held does not expire");
    queue.hold(&[Id::from_u64(1), Id::from_u64(2)], false, 0, now).await.unwrap();
    let older = || -> Vec<u64> {
        let taken = queue.take_older(100, 10, now);
        taken.iter().for_each(|taken| queue.put_back(taken.id, &taken.key, now, None, now));
        taken.iter().map(|taken| taken.id.to_u64()).collect()
    };
    assert_eq!(older(), [0; 0], "what was released is tried once, however old it is");
    check(&queue, &domain("good.test"), Some(1));
    check(&queue, &domain("held.test"), Some(2));
    assert_eq!(older(), [1, 2]);
    drop(queue);
    let queue = open(dir.path(), now);
    check(&queue, &domain("held.test"), Some(2));
    assert_eq!(queue.delete(&[Id::from_u64(1), Id::from_u64(2)], 0, now).await.unwrap().len(), 2);
    drop(queue);
    assert_eq!(open(dir.path(), now).len(), 1, "deleted is deleted");
}

#[tokio::test]
async fn a_sender_is_told_of_a_delay_once() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = open(dir.path(), now);
    queue.add(vec![outward(1, &["a@good.test"]), outward(2, &["b@good.test"])], 1000, now).await.unwrap();
    assert!(queue.take_unwarned(1000, 10).is_empty());
    assert_eq!(queue.take_unwarned(1001, 10).len(), 2);
    assert!(queue.take_unwarned(1001, 10).is_empty(), "each is given once");
    queue.warned(Id::from_u64(1), Some(message(3, 1, 0)), 2000, now).await.unwrap();
    drop(queue);
    let queue = open(dir.path(), now);
    assert_eq!(queue.take_unwarned(1001, 10), [Id::from_u64(2)], "what was noted is not told again");
    assert_eq!(queue.len(), 3);
}

const MINUTE: Duration = Duration::from_secs(60);

/// Gives back what is due for `far.test`, tried in vain, due in so many minutes.
fn put_off(queue: &Queue, minutes: u32, now: Instant) {
    let taken = queue.take(&domain("far.test"), now).unwrap();
    queue.put_back(taken.id, &taken.key, now + MINUTE * minutes, Some("450 later"), now);
}

/// Attempts, and when it is due, of each message.
fn due(queue: &Queue, now: Instant) -> Vec<(u32, Duration)> {
    let parts = queue.page(None, 100, now).into_iter().flat_map(|state| state.parts);
    parts.map(|part| (part.attempts, part.due_in)).collect()
}

#[tokio::test]
async fn what_was_put_off_is_not_tried_earlier_for_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (start, now) = (1_000_000_000, clock::monotonic());
    let queue = open_at(dir.path(), start, now);
    queue.add(vec![outward(1, &["a@far.test"]), outward(2, &["a@far.test"])], start, now).await.unwrap();
    put_off(&queue, 10, now);
    put_off(&queue, 20, now);
    queue.note_pauses(start, now).await.unwrap();
    let end = queue.ledger.end();
    queue.note_pauses(start, now).await.unwrap();
    assert_eq!(queue.ledger.end(), end, "what is on record is not written again");
    // An attempt after the last note is forgotten.
    queue.wake(None, now);
    put_off(&queue, 90, now);
    drop(queue);
    // A minute passes.
    let check = |later_millis: u64, expected: [(u32, Duration); 2]| {
        let queue = open_at(dir.path(), later_millis, now);
        assert_eq!(due(&queue, now), expected);
        let reasons = queue.state(Id::from_u64(1), now).unwrap().parts.into_iter().filter_map(|part| part.reason);
        assert_eq!(reasons.collect::<Vec<_>>(), ["450 later".into()]);
    };
    check(start + 60_000, [(1, MINUTE * 9), (1, MINUTE * 19)]);
    check(start + 600_000, [(1, Duration::ZERO), (1, MINUTE * 10)]);
    check(start - 1, [(1, Duration::ZERO), (1, Duration::ZERO)]);
    let queue = open_at(dir.path(), start + 600_000, now);
    assert_eq!(queue.take(&domain("far.test"), now).unwrap().attempts(), 1, "the next pause is the second");
    assert!(queue.take(&domain("far.test"), now).is_none());
    assert!(queue.take(&domain("far.test"), now + MINUTE * 10).is_some());
}

#[tokio::test]
async fn a_destination_that_was_down_is_down_after_a_restart_as_long_as_it_would_have_been() {
    let dir = tempfile::tempdir().unwrap();
    let (start, now) = (1_000_000_000, clock::monotonic());
    let queue = open_at(dir.path(), start, now);
    let far = domain("far.test");
    queue.add(vec![outward(1, &["a@far.test"]), outward(2, &["b@good.test"])], start, now).await.unwrap();
    queue.is_down(&far, "refused", &|_| MINUTE, now);
    queue.note_pauses(start, now).await.unwrap();
    drop(queue);
    let queue = open_at(dir.path(), start + 20_000, now);
    assert_eq!(queue.destination(&far, now).unwrap().down, Some((Duration::from_secs(40), "refused".into())));
    assert!(queue.take(&far, now).is_none());
    assert!(queue.take(&domain("good.test"), now).is_some());
    let later = now + Duration::from_secs(40);
    assert!(queue.take(&far, later).is_some());
    let pause = queue.is_down(&far, "refused", &|failures| MINUTE * (failures + 1), later);
    assert_eq!(pause, Some(MINUTE * 2), "it is the second failure");
    queue.is_good(&far, later);
    queue.note_pauses(start, later).await.unwrap();
    drop(queue);
    let queue = open_at(dir.path(), start + 20_000, now);
    assert_eq!(queue.destination(&far, now).unwrap().down, None, "and what is well again is well");
    assert!(queue.take(&far, now).is_some());
}

#[tokio::test]
async fn pauses_outlive_the_segment_in_which_they_were_noted() {
    let dir = tempfile::tempdir().unwrap();
    let (start, now) = (1_000_000_000, clock::monotonic());
    let queue = Arc::new(open_at(dir.path(), start, now));
    let far = domain("far.test");
    queue.add(vec![outward(1, &["a@far.test"])], start, now).await.unwrap();
    put_off(&queue, 60, now);
    queue.is_down(&far, "refused", &|_| MINUTE, now);
    queue.note_pauses(start, now).await.unwrap();
    for number in 2..40 {
        queue.add(vec![message(number, 1, 5000)], start, now).await.unwrap();
        let id = take(&queue, now).unwrap().id;
        delivered(&queue, id, vec![0], now).await;
    }
    let first = queue.ledger.segments()[0].id;
    let compacted = Arc::clone(&queue);
    tokio::task::spawn_blocking(move || compacted.compact(ROOMY, start, now)).await.unwrap().unwrap();
    assert!(queue.ledger.segments()[0].id > first);
    drop(queue);
    let queue = open_at(dir.path(), start, now);
    assert_eq!(due(&queue, now), [(1, MINUTE * 60)]);
    assert_eq!(queue.destination(&far, now).unwrap().down, Some((MINUTE, "refused".into())));
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
                let Some(taken) = take(&queue, now) else { continue };
                let id = taken.id;
                if random.random_range(0..5) == 0 {
                    tried(&queue, id, now + Duration::from_secs(1), now);
                    continue;
                }
                let queued = queue.load(&taken).unwrap();
                let some = random.random_range(0..=queued.places.len());
                let pending = model.get_mut(&id).unwrap();
                for recipient in &queued.message.envelope.recipients[..some] {
                    assert!(pending.remove(&recipient.mailbox.to_string()), "settled already");
                }
                if pending.is_empty() {
                    model.remove(&id);
                }
                delivered(&queue, id, queued.places[..some].to_vec(), now).await;
                tried(&queue, id, now, now);
            }
            8 => {
                let compacted = Arc::clone(&queue);
                tokio::task::spawn_blocking(move || compacted.compact(ROOMY, 0, now)).await.unwrap().unwrap();
            }
            _ => {
                drop(queue);
                queue = Arc::new(open(dir.path(), now));
            }
        }
        let found: BTreeMap<Id, usize> =
            queue.index().iter().map(|(id, waiting)| (id, waiting.pending().len())).collect();
        let expected: BTreeMap<Id, usize> = model.iter().map(|(id, pending)| (*id, pending.len())).collect();
        assert_eq!(found, expected, "seed {seed}");
    }
    while let Some(taken) = take(&queue, now + Duration::from_secs(2)) {
        let id = taken.id;
        let queued = queue.load(&taken).unwrap();
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

/// One message that nobody can deliver, and a hundred that come and go; the one's id.
async fn one_stays_of_a_hundred(queue: &Queue, now: Instant) -> Id {
    queue.add(vec![message(1, 1, 5000)], 0, now).await.unwrap();
    let stuck = take(queue, now).unwrap().id;
    tried(queue, stuck, now + Duration::from_secs(3600), now);
    for number in 2..102 {
        queue.add(vec![message(number, 1, 5000)], 0, now).await.unwrap();
        let id = take(queue, now).unwrap().id;
        delivered(queue, id, vec![0], now).await;
    }
    stuck
}

#[tokio::test]
async fn delivered_mail_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = Arc::new(open(dir.path(), now));
    let stuck = one_stays_of_a_hundred(&queue, now).await;
    let before = queue.ledger.segments().len();
    let compacted = Arc::clone(&queue);
    tokio::task::spawn_blocking(move || compacted.compact(ROOMY, 0, now)).await.unwrap().unwrap();
    let after = queue.ledger.segments().len();
    assert!(before > 5 && after <= 2, "{before} segments, then {after}");
    assert_eq!(queue.load_all(stuck).unwrap().message, message(1, 1, 5000));
}

#[tokio::test]
async fn on_a_full_disk_space_comes_back_though_no_segment_is_full_and_only_where_there_is_room_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::monotonic();
    let queue = Arc::new(Queue::open_with(dir.path(), 16 << 20, routes(), 0, now).unwrap());
    let stuck = one_stays_of_a_hundred(&queue, now).await;
    let check = async |room: Room, segments: usize| {
        let compacted = Arc::clone(&queue);
        tokio::task::spawn_blocking(move || compacted.compact(room, 0, now)).await.unwrap().unwrap();
        assert_eq!(queue.ledger.segments().len(), segments, "{room:?}");
    };
    check(ROOMY, 1).await;
    // It is ended, and what lives of it finds no place elsewhere.
    check(Room { free: 1 << 20, is_short: true }, 2).await;
    check(Room { free: 2 << 20, is_short: true }, 1).await;
    assert!(queue.ledger.segments()[0].bytes < 64 << 10, "{:?}", queue.ledger.segments());
    assert_eq!(queue.load_all(stuck).unwrap().message, message(1, 1, 5000));
}
