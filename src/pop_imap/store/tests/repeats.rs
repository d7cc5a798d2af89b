//! Deliveries that come again: made once, whatever happens in between.

use super::*;
use crate::pop_imap::store::repeats::{REPEATS_MAX, Repeats};

/// Nobody got it, as all had it.
const NOBODY: [u8; 0] = [];

/// Delivers a message to these accounts, with keys; which of them got it.
async fn deliver(store: &Store, message: &Bytes, accounts: &[u8]) -> Vec<u8> {
    let deliveries = accounts.iter().map(|number| once(account(*number), "T: 1\r\n", message)).collect();
    let done = store.deliver(message.clone(), deliveries, at(1)).await.unwrap();
    accounts.iter().zip(done).filter(|(_, done)| done.is_some()).map(|(number, _)| *number).collect()
}

async fn count(store: &Store, number: u8) -> usize {
    store.select(account(number), "INBOX").await.unwrap().view().messages.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_not_delivered_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(deliver(&store, &text(1), &[1, 2]).await, [1, 2]);
    assert_eq!(deliver(&store, &text(1), &[1, 2]).await, NOBODY);
    assert_eq!(deliver(&store, &text(2), &[1]).await, [1]);
    // Partly answered: those that have it already are left out, for all or for some of the rest.
    assert_eq!(deliver(&store, &text(1), &[1, 3]).await, [3]);
    assert_eq!(deliver(&store, &text(1), &[4, 2, 3, 4]).await, [4]);
    // A message that was read and expunged does not come back.
    let inbox = store.select(account(2), "INBOX").await.unwrap();
    store.expunge(&inbox, &[1]).await.unwrap();
    assert_eq!(deliver(&store, &text(1), &[2]).await, NOBODY);
    assert_eq!(
        [count(&store, 1).await, count(&store, 2).await, count(&store, 3).await, count(&store, 4).await],
        [2, 0, 1, 1]
    );
    // Nothing tells these two apart, and nothing says that they are one.
    for _ in 0..2 {
        assert!(store.deliver(text(9), vec![to(account(5), "")], at(1)).await.unwrap()[0].is_some());
    }
    assert!(store.check().unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_again_after_a_start_from_the_ledger_alone() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let store = open(dir.path());
        assert_eq!(deliver(&store, &text(round), &[1]).await, [1]);
        for old in 0..=round {
            assert_eq!(deliver(&store, &text(old), &[1]).await, NOBODY, "{old} in round {round}");
        }
        drop(store);
        if round % 2 == 1 {
            delete_view(dir.path());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_again_after_its_segment_was_compacted_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..400 {
        let long = Bytes::from([text(number).as_ref(), &[b'x'; 1_000]].concat());
        assert_eq!(deliver(&store, &long, &[1]).await, [1]);
    }
    for round in 0..3 {
        let inbox = store.select(account(1), "INBOX").await.unwrap();
        store.expunge(&inbox, &uids(&inbox)).await.unwrap();
        // Enough to seal the segment that now has the keys.
        for _ in 0..100 {
            let noise: Vec<u8> = (0..1_000).map(|_| rand::random()).collect();
            store.append(account(1), "INBOX", noise.into(), &[], 1).await.unwrap();
        }
        let compacting = store.clone();
        let removed = tokio::task::spawn_blocking(move || compacting.compact().unwrap()).await.unwrap();
        assert!(removed > 0, "round {round}");
    }
    drop(store);
    delete_view(dir.path());
    let store = open(dir.path());
    for number in 0..400 {
        let long = Bytes::from([text(number).as_ref(), &[b'x'; 1_000]].concat());
        assert_eq!(deliver(&store, &long, &[1]).await, NOBODY, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_is_made_and_all_that_are_answered_can_see_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..50 {
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let made = deliver(&store, &text(number), &[1]).await.len();
                    assert_eq!(count(&store, 1).await as u64, number + 1, "answered before it was visible");
                    made
                })
            })
            .collect();
        let mut made = 0;
        for sender in senders {
            made += sender.await.unwrap();
        }
        assert_eq!(made, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(deliver(&store, &text(1), &[1]).await, [1]);
    drop(store);
    let sql = rusqlite::Connection::open(dir.path().join(VIEW_FILE)).unwrap();
    let others = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1) \
                  INSERT INTO delivered (key) SELECT randomblob(16) FROM n";
    sql.execute(others, [i64::try_from(REPEATS_MAX).unwrap() - 1]).unwrap();
    let store = open(dir.path());
    assert_eq!(deliver(&store, &text(1), &[1]).await, NOBODY, "the last one that is remembered");
    assert_eq!(deliver(&store, &text(2), &[1]).await, [1]);
    assert_eq!(deliver(&store, &text(1), &[1]).await, [1]);
    let kept: i64 = sql.query_row("SELECT count(*) FROM delivered", [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(kept).unwrap(), REPEATS_MAX);
}

#[test]
fn the_writer_forgets_what_could_not_be_written() {
    use crate::pop_imap::store::record::{Act, Change, NamedFlags};
    use crate::pop_imap::store::{Flags, MailboxId, MessageId};
    let key = |number: u8| DeliveryKey::new(&blake3::hash(&[number]), &account(1));
    let change = |key: Option<DeliveryKey>| {
        let row = Row { uid: 1, size: 1, flags: Flags::NONE, modseq: 1, internal_date: 1, message: MessageId(1) };
        let flags = NamedFlags::default();
        Change {
            account: account(1),
            act: Act::Deliver { mailbox: MailboxId(1), row, flags, trace: Bytes::new(), key },
        }
    };
    let mut repeats = Repeats::default();
    for number in 0..5 {
        repeats.note(key(number));
    }
    repeats.forget(&[change(Some(key(3))), change(None), change(Some(key(4)))]);
    let known: Vec<bool> = (0..5).map(|number| repeats.knows(key(number))).collect();
    assert_eq!(known, [true, true, true, false, false]);
}
