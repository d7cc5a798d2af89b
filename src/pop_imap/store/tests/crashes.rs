//! Crashes: nothing acknowledged is lost, nothing is there twice, no UID is given out again.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

/// Where the child process finds its store; without it, it does nothing.
const CHILD_DIR: &str = "FIFE_TEST_STORE_CHILD";
/// Times that the child is killed.
const KILLS: usize = 6;
const DELIVERERS: u64 = 8;

/// Not a test of its own: what the killed process does. Prints a line for each delivery that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_delivers_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = open(Path::new(&dir));
    let base = u64::from(std::process::id()) << 32;
    let deliverers = (0..DELIVERERS).map(|deliverer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let id = base + number * DELIVERERS + deliverer;
                let done = store.deliver(text(id), deliveries(id), at(id >> 20)).await.unwrap();
                let done: Vec<_> = done.into_iter().flatten().collect();
                let inbox = store.select(account(1), "INBOX").await.unwrap();
                if number % 5 == 4 {
                    store.expunge(&inbox, &[done[0].uid]).await.unwrap();
                }
                if number % 7 == 6 {
                    let store = store.clone();
                    tokio::task::spawn_blocking(move || store.write_rolls().unwrap()).await.unwrap();
                }
                // One write: lines of tasks must not mix.
                let line =
                    format!("\n:{id} {} {} {} {}:\n", number % 5 == 4, done[0].uid, done[1].uid, done[0].uid_validity);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    for deliverer in deliverers.collect::<Vec<_>>() {
        deliverer.await.unwrap();
    }
}

fn deliveries(id: u64) -> Vec<Delivery> {
    vec![once(account(1), "X: 1\r\n", &text(id)), once(account(2), "", &text(id))]
}

#[derive(Debug)]
struct Acknowledged {
    id: u64,
    expunged: bool,
    uids: [u32; 2],
    uid_validity: u32,
}

fn parse(line: &str) -> Option<Acknowledged> {
    let mut words = line.strip_prefix(':')?.strip_suffix(':')?.split(' ');
    Some(Acknowledged {
        id: words.next()?.parse().ok()?,
        expunged: words.next()?.parse().ok()?,
        uids: [words.next()?.parse().ok()?, words.next()?.parse().ok()?],
        uid_validity: words.next()?.parse().ok()?,
    })
}

/// Runs the child until it has acknowledged so many, kills it; all that it acknowledged.
fn run_and_kill(dir: &Path, after: usize) -> Vec<Acknowledged> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["pop_imap::store::tests::crashes::child_that_delivers", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < after {
        let line = lines.next().expect("the child goes on until it is killed").unwrap();
        acknowledged.extend(parse(&line));
    }
    child.kill().unwrap();
    acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
    child.wait().unwrap();
    acknowledged
}

#[test]
fn what_was_acknowledged_before_kill_9_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut all: Vec<Acknowledged> = Vec::new();
    for kill in 0..KILLS {
        all.extend(run_and_kill(dir.path(), 20 + 37 * kill));
        if kill % 2 == 1 {
            delete_view(dir.path());
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(verify(dir.path(), &all));
    }
}

/// The messages that are there, acknowledged or not.
async fn ids_in(store: &Store, account: AccountId) -> Vec<u64> {
    let inbox = store.select(account, "INBOX").await.unwrap();
    let mut ids = Vec::new();
    for uid in uids(&inbox) {
        let bytes = store.message(&inbox, uid).await.unwrap().unwrap();
        let line = String::from_utf8_lossy(&bytes).lines().next().unwrap().to_owned();
        ids.push(line.strip_prefix("Subject: message ").unwrap().parse().unwrap());
    }
    ids
}

async fn verify(dir: &Path, all: &[Acknowledged]) {
    let store = open(dir);
    assert!(store.check().unwrap().is_good());
    // Who was not answered sends again; and so may who was.
    for id in all.iter().map(|one| one.id).chain(ids_in(&store, account(2)).await) {
        let again = store.deliver(text(id), deliveries(id), at(1)).await.unwrap();
        assert_eq!(again, [None, None], "{id} was delivered before");
    }
    for (index, number) in [1, 2].into_iter().enumerate() {
        let inbox = store.select(account(number), "INBOX").await.unwrap();
        let mut found: HashMap<Vec<u8>, u32> = HashMap::new();
        for uid in uids(&inbox) {
            let bytes = store.message(&inbox, uid).await.unwrap().unwrap();
            let bytes = bytes.strip_prefix(b"X: 1\r\n".as_slice()).unwrap_or(&bytes).to_vec();
            assert!(found.insert(bytes, uid).is_none(), "message {uid} is there twice");
        }
        for one in all {
            assert!(index != 0 || one.uid_validity == inbox.uid_validity());
            let expected = (!(one.expunged && number == 1)).then_some(one.uids[index]);
            assert_eq!(found.get(text(one.id).as_ref()).copied(), expected, "{one:?}");
        }
        let given: HashSet<u32> = all.iter().map(|one| one.uids[index]).collect();
        assert_eq!(given.len(), all.len(), "a UID was given out twice");
        assert!(inbox.view().uid_next > *given.iter().max().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_deliveries_appear_in_ascending_order_before_they_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let watcher = tokio::spawn({
        let inbox = std::sync::Arc::clone(&inbox);
        async move {
            let mut changes = inbox.changes();
            let mut old = inbox.view();
            while old.messages.len() < 400 {
                changes.changed().await.unwrap();
                let new = inbox.view();
                let difference = new.since(&old);
                assert_eq!((difference.expunged.len(), difference.changed.len()), (0, 0));
                assert_eq!(difference.added, new.messages.len() - old.messages.len());
                old = new;
            }
        }
    });
    let deliverers = (0..16).map(|deliverer| {
        let (store, inbox) = (store.clone(), std::sync::Arc::clone(&inbox));
        tokio::spawn(async move {
            for number in 0..25 {
                let done =
                    store.deliver(text(deliverer * 100 + number), vec![to(account(1), "")], at(1)).await.unwrap();
                assert!(inbox.view().messages.by_uid(done[0].unwrap().uid).is_some());
            }
        })
    });
    for deliverer in deliverers.collect::<Vec<_>>() {
        deliverer.await.unwrap();
    }
    watcher.await.unwrap();
    assert_eq!(uids(&inbox), (1..=400).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_copied_in_the_middle_of_work_has_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for round in 0..5_u64 {
        let mut acknowledged = Vec::new();
        for number in 0..20 {
            acknowledged.push(store.append(account(1), "INBOX", text(round * 100 + number), &[], 1).await.unwrap().uid);
        }
        // More goes on while the copy is made.
        let busy = tokio::spawn({
            let store = store.clone();
            async move {
                for number in 0..40 {
                    store.append(account(1), "INBOX", text(10_000 + number), &[], 1).await.unwrap();
                }
            }
        });
        let copy = tempfile::tempdir().unwrap();
        let ledger = copy.path().join("ledger");
        std::fs::create_dir(&ledger).unwrap();
        for file in std::fs::read_dir(dir.path().join("ledger")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), ledger.join(file.file_name())).unwrap();
        }
        busy.await.unwrap();
        let copied = open(copy.path());
        let inbox = copied.select(account(1), "INBOX").await.unwrap();
        for uid in acknowledged {
            assert!(copied.message(&inbox, uid).await.unwrap().is_some(), "round {round}");
        }
        assert!(copied.check().unwrap().is_good());
    }
}
