//! A disk that is full, for real: the store runs on a small file system of its own.

use std::process::Command;

use super::*;
use crate::pop_imap::store::StoreError;

/// Where the child finds its small file system; without it, it does nothing.
const CHILD_DIR: &str = "FIFE_TEST_STORE_FULL_DISK";
/// A delivery that takes longer waits for room in the view.
const STUCK: Duration = Duration::from_secs(3);

/// Text of 3 KB that does not compress.
fn noise(number: u64) -> Bytes {
    let filler: String = (0..180).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    format!("Subject: {number}\r\n\r\n{filler}\r\n").into()
}

/// Delivers until there is no room; the UIDs and texts that were acknowledged, and whether it was said so.
async fn fill(store: &Store) -> (Vec<(u32, Bytes)>, bool) {
    let mut acknowledged = Vec::new();
    loop {
        let text = noise(0);
        let delivery = store.deliver(text.clone(), vec![to(account(1), "")], at(1));
        match tokio::time::timeout(STUCK, delivery).await {
            Ok(Ok(done)) => acknowledged.push((done[0].unwrap().uid, text)),
            Ok(Err(error)) => {
                assert!(matches!(error, StoreError::Full), "{error}");
                return (acknowledged, true);
            }
            Err(_) => return (acknowledged, false),
        }
    }
}

async fn verify(store: &Store, acknowledged: &[(u32, Bytes)]) {
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    for (uid, text) in acknowledged {
        assert_eq!(store.message(&inbox, *uid).await.unwrap().as_ref(), Some(text), "{uid}");
    }
}

/// Not a test of its own: what runs on the small file system.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_fills_its_disk() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let ballast = Path::new(&dir).join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let dir = Path::new(&dir).join("store");
    std::fs::create_dir(&dir).unwrap();
    let store = open(&dir);
    let (mut acknowledged, _) = fill(&store).await;
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    verify(&store, &acknowledged).await;
    std::fs::remove_file(ballast).unwrap();
    for number in 0..50 {
        let text = noise(number);
        let done = tokio::time::timeout(STUCK * 10, store.deliver(text.clone(), vec![to(account(1), "")], at(1)));
        acknowledged.push((done.await.expect("it goes on when there is room").unwrap()[0].unwrap().uid, text));
    }
    verify(&store, &acknowledged).await;
    drop(store);
    let store = open(&dir);
    verify(&store, &acknowledged).await;
    assert!(store.check().unwrap().is_good());
    println!("went on after {} messages", acknowledged.len());
}

#[test]
fn a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=8m none "$1" &&
        exec "$0" --exact pop_imap::store::tests::full::child_that_fills_its_disk --nocapture"#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(dir.path())
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("went on after"), "{output:?}");
}
