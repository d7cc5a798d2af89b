//! What is put together from snapshots is what the store has.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::folder::{Folder, uuid};
use super::give;
use crate::base::size::Size;
use crate::message::snapshot::{Account, LISTING_NAME};
use crate::net::snapshot::{GiveError, Head, Outlet};
use crate::pop_imap::store::snapshot::Mailbox;
use crate::pop_imap::store::{AccountId, Delivery, Flag, FlagChange, Settings, Store};

/// Small segments, no free space asked for.
fn open(dir: &Path) -> Store {
    Store::open(dir, Settings { free_space_min: Size::bytes(0), segment_size: Size::kib(64) }).unwrap()
}

fn account(number: u8) -> AccountId {
    [number; 16]
}

/// The members of a snapshot, by path; none when it is not given.
struct Taken {
    head: Head,
    members: BTreeMap<String, Vec<u8>>,
    order: Vec<String>,
}

async fn take(store: &Store, since: Option<&str>) -> Result<Taken, GiveError> {
    let (store, since) = (store.clone(), since.map(str::to_owned));
    let given = move || Outlet::into_vec(|outlet| give(&store, "a.example.test", since.as_deref(), outlet));
    let octets = tokio::task::spawn_blocking(given).await.unwrap()?;
    let (mut members, mut order) = (BTreeMap::new(), Vec::new());
    for entry in tar::Archive::new(octets.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        order.push(path.clone());
        assert!(members.insert(path, content).is_none() || order.last().unwrap().ends_with('/'));
    }
    assert_eq!(order[0], ".fife/snapshot.json");
    let head = serde_json::from_slice(&members[".fife/snapshot.json"]).unwrap();
    Ok(Taken { head, members, order })
}

/// All that the account has after these snapshots, as text.
fn merged(snapshots: &[Taken], id: AccountId) -> Vec<String> {
    let mut account = Account::default();
    let directory = format!("mail/{}/", uuid(&id));
    for (number, taken) in snapshots.iter().enumerate() {
        let Some(listing) = taken.members.get(&format!("{directory}{LISTING_NAME}")) else { continue };
        account.listing(serde_json::from_slice(listing).unwrap());
        for path in taken.order.iter().filter(|path| path.starts_with(&directory) && path.ends_with(".jsonl")) {
            let lines = String::from_utf8(taken.members[path].clone()).unwrap();
            lines.lines().for_each(|line| account.line(number, serde_json::from_str(line).unwrap()));
        }
    }
    let mut out = vec![format!("subscribed {:?}", account.listing.subscriptions)];
    for listed in &account.listing.mailboxes {
        out.push(format!("{} {} {} {:?}", listed.name, listed.uid_validity, listed.uid_next, listed.special_use));
        for kept in account.messages(listed.id) {
            let place = kept.place.as_ref().unwrap_or_else(|| panic!("{} {:?} is nowhere", listed.name, kept.line));
            let content = &snapshots[place.snapshot].members[&format!("{directory}{}", place.file)];
            assert_eq!(content.len(), kept.line.size as usize);
            let (line, text) = (&kept.line, String::from_utf8_lossy(content));
            out.push(format!("  {} {:?} {} {text}", line.uid, line.flags, line.date));
        }
    }
    out
}

/// The same, asked of the store.
async fn dump(store: &Store, id: AccountId) -> Vec<String> {
    let mut out = vec![format!("subscribed {:?}", store.subscriptions(id).await.unwrap())];
    let mut infos = store.mailboxes(id).await.unwrap();
    infos.sort_by(|one, other| one.name.cmp(&other.name));
    for info in infos {
        let special_use = info.special_use.map(|special| special.attribute().to_owned());
        out.push(format!("{} {} {} {special_use:?}", info.name, info.uid_validity, info.uid_next));
        let mailbox = store.select(id, &info.name).await.unwrap();
        let view = mailbox.view();
        for row in view.messages.iter() {
            let content = store.message(&mailbox, row.uid).await.unwrap().unwrap();
            let flags: Vec<&str> = row.flags.names(&view.keywords).collect();
            out.push(format!("  {} {flags:?} {} {}", row.uid, row.internal_date, String::from_utf8_lossy(&content)));
        }
    }
    out
}

fn text(number: u32) -> Bytes {
    let noise: String = (0..20).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    format!("Subject: {number}\r\n\r\n{noise}\r\n").into()
}

async fn deliver(store: &Store, number: u32, to: &[u8]) {
    let delivery = |number: &u8| Delivery {
        account: account(*number),
        mailbox: "INBOX".into(),
        trace: format!("Delivered-To: u{number}\r\n").into(),
        flags: Vec::new(),
        key: None,
    };
    let received = UNIX_EPOCH + Duration::from_secs(1_700_000_000 + u64::from(number));
    store.deliver(text(number), to.iter().map(delivery).collect(), received).await.unwrap();
}

async fn compact(store: &Store) -> usize {
    let store = store.clone();
    tokio::task::spawn_blocking(move || store.compact().unwrap()).await.unwrap()
}

/// A store with two accounts, and all that was taken of it.
struct Case {
    _dir: tempfile::TempDir,
    store: Store,
    taken: Vec<Taken>,
}

impl Case {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for number in 0..100 {
            deliver(&store, number, if number % 3 == 0 { &[1, 2] } else { &[1] }).await;
        }
        let mut case = Self { _dir: dir, store, taken: Vec::new() };
        case.take().await;
        case
    }

    /// Takes what is new, and compares.
    async fn take(&mut self) {
        let since = self.taken.last().map(|taken| taken.head.next.clone());
        self.taken.push(take(&self.store, since.as_deref()).await.unwrap());
        for number in [1, 2] {
            assert_eq!(
                merged(&self.taken, account(number)).join("\n"),
                dump(&self.store, account(number)).await.join("\n")
            );
        }
    }

    /// Messages that the last one has.
    fn messages(&self) -> usize {
        self.taken.last().unwrap().order.iter().filter(|path| path.contains("/cur/1")).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_one_has_all_messages_in_the_order_of_the_disk_after_what_is_said_of_them() {
    let case = Case::new().await;
    let taken = &case.taken[0];
    assert_eq!((taken.head.since.as_deref(), taken.head.source.as_str()), (None, "pop-imap"));
    assert_eq!(case.messages(), 134);
    let dates: Vec<&str> =
        taken.order.iter().filter_map(|path| path.split_once("/cur/")?.1.split('.').next()).collect();
    assert!(dates.is_sorted(), "{dates:?}");
    let first = taken.order.iter().position(|path| path.contains("/cur/1")).unwrap();
    assert!(taken.order[first..].iter().all(|path| path.contains("/cur/1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn later_ones_have_what_has_changed_and_nothing_else() {
    let mut case = Case::new().await;
    case.take().await;
    assert_eq!(case.taken[1].order.len(), 1, "nothing has happened: {:?}", case.taken[1].order);

    let store = case.store.clone();
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    deliver(&store, 100, &[1]).await;
    let flags = [Flag::Seen, Flag::Keyword("$Work".into())];
    store.set_flags(&inbox, &[3, 4, 5], FlagChange::Add, &flags, None).await.unwrap();
    store.expunge(&inbox, &[4, 10, 11]).await.unwrap();
    store.copy(&inbox, &[5, 6], account(1), "Archive").await.unwrap();
    store.move_(&inbox, &[7, 101], account(1), "Trash").await.unwrap();
    case.take().await;
    // The new one is in Trash already; copies have their octets again, so that a tape stands for itself.
    assert_eq!(case.messages(), 4);
    assert!(!case.taken[2].order.iter().any(|path| path.contains(&uuid(&account(2)))));

    store.create(account(1), "Projekte/Ä.B", None).await.unwrap();
    store.subscribe(account(1), "Projekte/Ä.B", true).await.unwrap();
    store.rename(account(1), "Archive", "Old").await.unwrap();
    case.take().await;
    assert_eq!(case.messages(), 0);
    store.delete(account(1), "Old").await.unwrap();
    // All of INBOX goes into another mailbox, under the same UIDs.
    store.rename(account(1), "INBOX", "Projekte/2026").await.unwrap();
    deliver(&store, 102, &[1, 2]).await;
    case.take().await;
    assert_eq!(case.messages(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_away_since_is_not_missed() {
    let mut case = Case::new().await;
    let store = case.store.clone();
    // Changes that go with their segments: flags of some, most messages expunged.
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    store.set_flags(&inbox, &[20, 21], FlagChange::Add, &[Flag::Flagged], None).await.unwrap();
    for number in 200..500 {
        deliver(&store, number, &[1]).await;
    }
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let gone: Vec<u32> = (1..=400).filter(|uid| uid % 20 != 0).collect();
    store.expunge(&inbox, &gone).await.unwrap();
    for number in 500..700 {
        deliver(&store, number, &[2]).await;
    }
    assert!(compact(&store).await > 2);
    case.take().await;
    let listing = &case.taken[1].members[&format!("mail/{}/{LISTING_NAME}", uuid(&account(1)))];
    assert!(String::from_utf8_lossy(listing).contains("\"complete\": true"), "a change was read that cannot be there");
    deliver(&store, 800, &[1, 2]).await;
    case.take().await;
    assert_eq!(case.messages(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_expunged_and_compacted_while_it_is_read_is_in_it_all_the_same() {
    let case = Case::new().await;
    let store = case.store.clone();
    let before = dump(&store, account(1)).await;
    let mut rows = 0;
    let mut show = |_: super::Shown<'_>| {
        rows += 1;
        Ok::<(), ()>(())
    };
    let reading = store.clone();
    let snapshot = tokio::task::block_in_place(|| reading.snapshot(None, &mut show)).unwrap();
    let inbox = store.select(account(1), "INBOX").await.unwrap();
    let all: Vec<u32> = (1..=100).collect();
    store.expunge(&inbox, &all).await.unwrap();
    for number in 300..400 {
        deliver(&store, number, &[2]).await;
    }
    assert_eq!(compact(&store).await, 0, "nothing goes while a snapshot is read");
    let mut found = Vec::new();
    let mut each = |_, row: &super::Row, trace: &[u8], message: &[u8]| {
        let text = [trace, message].concat();
        found.push(format!(
            "  {} {:?} {} {}",
            row.uid,
            Vec::<&str>::new(),
            row.internal_date,
            String::from_utf8_lossy(&text)
        ));
        Ok::<(), ()>(())
    };
    tokio::task::block_in_place(|| snapshot.messages(&mut each)).unwrap();
    assert!(rows > 134);
    assert!(before.iter().filter(|line| line.starts_with("  ")).all(|line| found.contains(line)));
    assert!(compact(&store).await > 0, "and then it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_store_is_not_gone_on_from() {
    let case = Case::new().await;
    let other = Case::new().await;
    let next = &case.taken[0].head.next;
    let ahead = next.replacen('-', "-9", 1);
    for token in [other.taken[0].head.next.as_str(), ahead.as_str(), "", "1-2-3", &format!("{next}-1")] {
        assert!(matches!(take(&case.store, Some(token)).await, Err(GiveError::Gone)), "{token}");
    }
}

#[test]
fn folders_have_the_names_that_maildir_gives_them() {
    let check = |name: &str, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = open(dir.path());
        let id = runtime.block_on(async { store.select(account(1), "INBOX").await.unwrap().id() });
        let mailbox = Mailbox {
            id,
            name: name.to_owned(),
            uid_validity: 1,
            uid_next: 1,
            highest_modseq: 1,
            special_use: None,
            keywords: Vec::new(),
            complete: true,
        };
        assert_eq!(Folder::new("u", &mailbox).directory, expected);
    };
    check("INBOX", "Maildir");
    check("INBOX/a", "Maildir/.INBOX.a");
    check("Sent", "Maildir/.Sent");
    check("Sent/2024.1/x", "Maildir/.Sent.2024\\2e1.x");
    check("Entwürfe & mehr", "Maildir/.Entw&APw-rfe &- mehr");
    check("a\\b", "Maildir/.a\\5cb");
    check(&"日".repeat(150), "Maildir/.fife\\1");
    assert_eq!(uuid(&account(0xab)), "abababab-abab-abab-abab-abababababab");
}
