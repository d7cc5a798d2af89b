//! Space comes back, and what lives stays.

use super::*;

fn ledger_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("ledger")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Text that does not compress.
fn noise(number: u64) -> Bytes {
    let filler: String = (0..100).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    format!("Subject: {number}\r\n\r\n{filler}\r\n").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn expunged_messages_give_their_space_back_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..600 {
        store.deliver(noise(number), vec![to(account(1), "T: 1\r\n"), to(account(2), "")], at(9)).await.unwrap();
    }
    let full = ledger_bytes(dir.path());
    let gone: Vec<u32> = (1..=600).filter(|uid| uid % 20 != 0).collect();
    for number in [1, 2] {
        let inbox = store.select(account(number), "INBOX").await.unwrap();
        store.expunge(&inbox, &gone).await.unwrap();
    }
    let before = dump(&store, &[account(1), account(2)]).await;
    let compacting = store.clone();
    let removed = tokio::task::spawn_blocking(move || compacting.compact().unwrap()).await.unwrap();
    assert!(removed > 5, "{removed} segments removed");
    assert!(ledger_bytes(dir.path()) < full / 4, "{} of {full} bytes are left", ledger_bytes(dir.path()));
    assert_eq!(before, dump(&store, &[account(1), account(2)]).await);
    assert!(store.check().unwrap().is_good());

    // The same from the ledger alone, and UIDs of what is gone are not given out again.
    drop(store);
    delete_view(dir.path());
    let store = open(dir.path());
    assert_eq!(before, dump(&store, &[account(1), account(2)]).await);
    assert_eq!(store.append(account(1), "INBOX", text(1), &[], 1).await.unwrap().uid, 601);
    // What is left is worth no more work.
    assert_eq!(tokio::task::spawn_blocking(move || store.compact().unwrap()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_alone_do_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..50 {
        store.append(account(1), "INBOX", text(number), &[], 1).await.unwrap();
    }
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let all = uids(&inbox);
    for round in 0..3_000 {
        let change = [super::super::FlagChange::Add, super::super::FlagChange::Remove][round % 2];
        store.set_flags(&inbox, &all, change, &[super::super::Flag::Seen], None).await.unwrap();
    }
    let before = dump(&store, &[account(1)]).await;
    let full = ledger_bytes(dir.path());
    let compacting = store.clone();
    let removed = tokio::task::spawn_blocking(move || compacting.compact().unwrap()).await.unwrap();
    assert!(removed > 0 && ledger_bytes(dir.path()) < full, "{removed} removed, {full} bytes before");
    drop((store, inbox));
    delete_view(dir.path());
    assert_eq!(before, dump(&open(dir.path()), &[account(1)]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_while_segments_are_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let worker = tokio::spawn({
        let (store, inbox) = (store.clone(), std::sync::Arc::clone(&inbox));
        async move {
            for number in 0..400 {
                let uid = store.append(account(1), "INBOX", noise(number), &[], 1).await.unwrap().uid;
                if number % 10 != 0 {
                    store.expunge(&inbox, &[uid]).await.unwrap();
                }
                let alive = uids(&inbox);
                let any = alive[usize::try_from(number).unwrap() % alive.len()];
                assert!(store.message(&inbox, any).await.unwrap().is_some(), "{any} can be read");
            }
        }
    });
    let mut removed = 0;
    while !worker.is_finished() {
        let store = store.clone();
        removed += tokio::task::spawn_blocking(move || store.compact().unwrap()).await.unwrap();
    }
    worker.await.unwrap();
    assert!(removed > 0);
    let before = dump(&store, &[account(1)]).await;
    assert!(store.check().unwrap().is_good());
    drop((store, inbox));
    delete_view(dir.path());
    assert_eq!(before, dump(&open(dir.path()), &[account(1)]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_the_upkeep_do_not_make_compaction_fail() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..600 {
        store.deliver(noise(number), vec![to(account(1), "")], at(9)).await.unwrap();
    }
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    store.expunge(&inbox, &uids(&inbox)).await.unwrap();
    // As the upkeep does, without its pauses.
    let compactor = std::sync::Arc::clone(store.inner.compactor.as_ref().unwrap());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                compactor.lock().unwrap().move_log().unwrap();
            }
        });
        let removed = store.compact();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(removed.unwrap() > 5);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_expunged_makes_room_on_a_full_disk_also_when_no_segment_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = Settings { free_space_min: Size::bytes(0), segment_size: Size::mib(64) };
    let store = Store::open(dir.path(), roomy).unwrap();
    for number in 0..400 {
        store.deliver(noise(number), vec![to(account(1), "")], at(9)).await.unwrap();
    }
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    store.expunge(&inbox, &(1..=380).collect::<Vec<_>>()).await.unwrap();
    let before = dump(&store, &[account(1)]).await;
    let full = ledger_bytes(dir.path());
    let compacting = store.clone();
    assert_eq!(tokio::task::spawn_blocking(move || compacting.compact().unwrap()).await.unwrap(), 0, "there is room");
    drop((inbox, store));
    // No free space is enough.
    let store = Store::open(dir.path(), Settings { free_space_min: Size::bytes(u64::MAX), ..roomy }).unwrap();
    let compacting = store.clone();
    assert_eq!(tokio::task::spawn_blocking(move || compacting.compact().unwrap()).await.unwrap(), 1);
    // What is prepared of the new segment takes a MiB.
    assert!(ledger_bytes(dir.path()) < (1 << 20) + full / 10, "{} of {full}", ledger_bytes(dir.path()));
    assert_eq!(before, dump(&store, &[account(1)]).await);
    drop(store);
    // The view is behind all of it, and is not made anew; nor is anything lost when it is.
    let store = Store::open(dir.path(), roomy).unwrap();
    assert_eq!(before, dump(&store, &[account(1)]).await);
    drop(store);
    delete_view(dir.path());
    let store = Store::open(dir.path(), roomy).unwrap();
    assert_eq!(before, dump(&store, &[account(1)]).await);
    assert!(store.check().unwrap().is_good());
}
