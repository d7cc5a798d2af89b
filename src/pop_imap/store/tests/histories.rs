//! Random histories of operations, compared with a simple model, with the store closed, opened, compacted and its view
//! deleted in between. Each history comes from a seed, which a failure prints.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::pop_imap::store::{Flag, FlagChange, StoreError};

/// Histories, and operations of each.
const SEEDS: u64 = 24;
const OPERATIONS: usize = 300;

/// A message in the model: flags by name, date, bytes.
#[derive(Debug, Clone, PartialEq)]
struct Message {
    flags: BTreeSet<String>,
    date: i64,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Mailbox {
    uid_validity: Option<u32>,
    /// The highest UID ever seen.
    uid_last: u32,
    messages: BTreeMap<u32, Message>,
}

type Account = BTreeMap<String, Mailbox>;

/// Segments so small that a history has many, and compaction finds some to empty.
fn open_small(dir: &Path) -> Store {
    Store::open(dir, Settings { segment_size: Size::kib(8), ..settings() }).unwrap()
}

/// The account of that number.
fn nth(number: usize) -> AccountId {
    account(u8::try_from(number).unwrap())
}

struct History {
    random: SmallRng,
    store: Option<Store>,
    dir: tempfile::TempDir,
    model: Vec<Account>,
    count: u64,
    /// What was delivered and is known again.
    sent: Vec<(Bytes, Vec<Delivery>)>,
    /// Segments removed by compaction.
    removed: usize,
    /// Mailboxes that a check found with a roll.
    rolls: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let first = ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"];
        let account: Account = first.iter().map(|name| ((*name).to_owned(), Mailbox::default())).collect();
        let store = Some(open_small(dir.path()));
        Self {
            random: SmallRng::seed_from_u64(seed),
            store,
            dir,
            model: vec![account.clone(), account],
            count: 0,
            sent: Vec::new(),
            removed: 0,
            rolls: 0,
        }
    }

    fn store(&self) -> Store {
        self.store.clone().unwrap()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    fn any_account(&mut self) -> usize {
        self.below(self.model.len())
    }

    fn any_mailbox(&mut self, number: usize) -> String {
        let at = self.below(self.model[number].len());
        self.model[number].keys().nth(at).unwrap().clone()
    }

    /// A name, mostly one that is not there.
    fn any_name(&mut self) -> String {
        let levels = 1 + self.below(3);
        let level = |history: &mut Self| ["x", "y", "z", "信"][history.below(4)].to_owned();
        (0..levels).map(|_| level(self)).collect::<Vec<_>>().join("/")
    }

    fn any_flags(&mut self) -> Vec<Flag> {
        let all = [Flag::Seen, Flag::Deleted, Flag::Flagged, Flag::Keyword("k1".into()), Flag::Keyword("k2".into())];
        all.into_iter().filter(|_| self.random.random_bool(0.4)).collect()
    }

    /// Some UIDs of a mailbox, and one that it may not have.
    fn any_uids(&mut self, number: usize, name: &str) -> Vec<u32> {
        let uids: Vec<u32> = self.model[number][name].messages.keys().copied().collect();
        let mut some: Vec<u32> = uids.into_iter().filter(|_| self.random.random_bool(0.4)).collect();
        some.push(self.random.random_range(1..20));
        some.sort_unstable();
        some.dedup();
        some
    }

    /// A message of any size, now and then a large one.
    fn any_message(&mut self) -> Vec<u8> {
        self.count += 1;
        let filler = if self.below(10) == 0 { 2_000 } else { self.below(400) };
        let noise: String = (0..filler).map(|_| char::from(self.random.random_range(b'!'..=b'~'))).collect();
        format!("Subject: {}\r\n\r\n{}\r\n", self.count, noise).into_bytes()
    }

    fn arrived(&mut self, number: usize, name: &str, uid_validity: u32, uid: u32, message: Message) {
        let mailbox = self.model[number].get_mut(name).unwrap();
        assert_eq!(*mailbox.uid_validity.get_or_insert(uid_validity), uid_validity);
        assert!(uid > mailbox.uid_last, "{uid} after {}", mailbox.uid_last);
        mailbox.uid_last = uid;
        mailbox.messages.insert(uid, message);
    }

    async fn deliver(&mut self) {
        let bytes = self.any_message();
        let keyed = self.random.random_bool(0.5);
        let identity = blake3::hash(&bytes);
        let date = self.random.random_range(0..2_000_000_000_u64);
        let count = 1 + self.below(3);
        let mut deliveries = Vec::new();
        let mut to = Vec::new();
        for _ in 0..count {
            let number = self.any_account();
            let name = self.any_mailbox(number);
            let trace = ["", "Delivered-To: x\r\n"][self.below(2)].as_bytes();
            let flags = self.any_flags();
            let whole = [trace, &bytes].concat();
            to.push((number, name.clone(), flags.clone(), whole));
            deliveries.push(Delivery {
                account: nth(number),
                mailbox: name,
                trace: Bytes::copy_from_slice(trace),
                flags,
                key: keyed.then(|| DeliveryKey::new(&identity, &nth(number))),
            });
        }
        let bytes = Bytes::from(bytes);
        let done = self.store().deliver(bytes.clone(), deliveries.clone(), at(date)).await.unwrap();
        if keyed {
            self.sent.push((bytes, deliveries));
        }
        let mut had = BTreeSet::new();
        for ((number, name, flags, bytes), done) in to.into_iter().zip(done) {
            // With a key, an account gets the message once.
            assert_eq!(done.is_none(), keyed && !had.insert(number));
            let Some(done) = done else { continue };
            let flags = flags.iter().map(|flag| flag.name().to_owned()).collect();
            let message = Message { flags, date: date as i64, bytes };
            self.arrived(number, &name, done.uid_validity, done.uid, message);
        }
    }

    /// Something that was delivered comes again, whatever has become of it since.
    async fn deliver_again(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let at_index = self.below(self.sent.len());
        let (bytes, deliveries) = self.sent[at_index].clone();
        let done = self.store().deliver(bytes, deliveries, at(1)).await.unwrap();
        assert!(done.iter().all(Option::is_none), "{done:?}");
    }

    async fn append(&mut self) {
        let number = self.any_account();
        let name = self.any_mailbox(number);
        let (bytes, flags) = (self.any_message(), self.any_flags());
        let date = self.random.random_range(-1_000..1_000);
        let done = self.store().append(nth(number), &name, bytes.clone().into(), &flags, date).await.unwrap();
        let flags = flags.iter().map(|flag| flag.name().to_owned()).collect();
        self.arrived(number, &name, done.uid_validity, done.uid, Message { flags, date, bytes });
    }

    async fn set_flags(&mut self) {
        let number = self.any_account();
        let name = self.any_mailbox(number);
        let (uids, flags) = (self.any_uids(number, &name), self.any_flags());
        let change = [FlagChange::Add, FlagChange::Remove, FlagChange::Replace][self.below(3)];
        let open = self.store().select(nth(number), &name).await.unwrap();
        self.store().set_flags(&open, &uids, change, &flags, None).await.unwrap();
        let names: BTreeSet<String> = flags.iter().map(|flag| flag.name().to_owned()).collect();
        let mailbox = self.model[number].get_mut(&name).unwrap();
        for uid in uids {
            let Some(message) = mailbox.messages.get_mut(&uid) else { continue };
            message.flags = match change {
                FlagChange::Add => message.flags.union(&names).cloned().collect(),
                FlagChange::Remove => message.flags.difference(&names).cloned().collect(),
                FlagChange::Replace => names.clone(),
            };
        }
    }

    async fn expunge(&mut self) {
        let number = self.any_account();
        let name = self.any_mailbox(number);
        let uids = self.any_uids(number, &name);
        let open = self.store().select(nth(number), &name).await.unwrap();
        self.store().expunge(&open, &uids).await.unwrap();
        let mailbox = self.model[number].get_mut(&name).unwrap();
        mailbox.messages.retain(|uid, _| !uids.contains(uid));
    }

    /// Everything goes, as when a POP3 client has fetched it.
    async fn expunge_all(&mut self) {
        let store = self.store();
        for (number, model) in self.model.iter_mut().enumerate() {
            for (name, mailbox) in model {
                let uids: Vec<u32> = std::mem::take(&mut mailbox.messages).into_keys().collect();
                let open = store.select(nth(number), name).await.unwrap();
                store.expunge(&open, &uids).await.unwrap();
            }
        }
    }

    async fn copy(&mut self, remove: bool) {
        let number = self.any_account();
        let (from, to) = (self.any_mailbox(number), self.any_mailbox(number));
        let uids = self.any_uids(number, &from);
        let account = nth(number);
        let open = self.store().select(account, &from).await.unwrap();
        let done = if remove {
            self.store().move_(&open, &uids, account, &to).await.unwrap()
        } else {
            self.store().copy(&open, &uids, account, &to).await.unwrap()
        };
        let there = &self.model[number][&from].messages;
        let expected: Vec<u32> = uids.into_iter().filter(|uid| there.contains_key(uid)).collect();
        assert_eq!(done.source, expected);
        for (source, target) in done.source.into_iter().zip(done.target) {
            let message = self.model[number][&from].messages[&source].clone();
            self.arrived(number, &to, done.uid_validity, target, message);
            if remove {
                self.model[number].get_mut(&from).unwrap().messages.remove(&source);
            }
        }
    }

    async fn create(&mut self) {
        let (number, name) = (self.any_account(), self.any_name());
        let done = self.store().create(nth(number), &name, None).await;
        let model = &mut self.model[number];
        if model.contains_key(&name) {
            assert!(matches!(done, Err(StoreError::MailboxExists)));
            return;
        }
        done.unwrap();
        let levels: Vec<&str> = name.split('/').collect();
        for depth in 1..=levels.len() {
            model.entry(levels[..depth].join("/")).or_default();
        }
    }

    async fn delete(&mut self) {
        let number = self.any_account();
        let name = self.any_mailbox(number);
        let done = self.store().delete(nth(number), &name).await;
        assert_eq!(done.is_ok(), name != "INBOX");
        if done.is_ok() {
            self.model[number].remove(&name);
        }
    }

    async fn rename(&mut self) {
        let number = self.any_account();
        let (from, to) = (self.any_mailbox(number), self.any_name());
        let done = self.store().rename(nth(number), &from, &to).await;
        let model = &mut self.model[number];
        let moved = |name: &str| {
            let rest = name.strip_prefix(&from)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        };
        let inside = to.starts_with(&format!("{from}/"));
        let moves: Vec<(String, String)> = if from == "INBOX" {
            vec![(from.clone(), to.clone())]
        } else {
            model.keys().filter_map(|name| Some((name.clone(), moved(name)?))).collect()
        };
        if inside || moves.iter().any(|(_, to)| model.contains_key(to)) {
            assert!(done.is_err(), "{from} to {to}");
            return;
        }
        done.unwrap();
        for (name, to) in moves {
            let mailbox = model.remove(&name).unwrap();
            if name == "INBOX" {
                let stays = Mailbox { messages: BTreeMap::new(), ..mailbox.clone() };
                model.insert(name, stays);
                model.insert(to, Mailbox { uid_validity: None, ..mailbox });
            } else {
                model.insert(to, mailbox);
            }
        }
        let levels: Vec<&str> = to.split('/').collect();
        for depth in 1..levels.len() {
            model.entry(levels[..depth].join("/")).or_default();
        }
    }

    /// One random operation.
    async fn step(&mut self) {
        if self.below(8) == 0 {
            let store = self.store();
            tokio::task::spawn_blocking(move || store.write_rolls().unwrap()).await.unwrap();
        }
        match self.below(21) {
            0..5 => self.deliver().await,
            5..8 => self.append().await,
            8..11 => self.set_flags().await,
            11..14 => self.expunge().await,
            14 => {
                let remove = self.random.random_bool(0.5);
                self.copy(remove).await;
            }
            15..17 => self.create().await,
            17 => self.delete().await,
            18 => self.rename().await,
            19 => self.deliver_again().await,
            _ => {
                let (number, name) = (self.any_account(), self.any_name());
                let on = self.random.random_bool(0.5);
                self.store().subscribe(nth(number), &name, on).await.unwrap();
            }
        }
    }

    fn accounts(&self) -> Vec<AccountId> {
        (0..self.model.len()).map(nth).collect()
    }

    /// The store says what the model says.
    async fn compare(&self) {
        let store = self.store();
        for (number, model) in self.model.iter().enumerate() {
            let infos = store.mailboxes(nth(number)).await.unwrap();
            let names: BTreeSet<&String> = infos.iter().map(|info| &info.name).collect();
            assert_eq!(names, model.keys().collect());
            for info in &infos {
                let mailbox = &model[&info.name];
                assert!(info.uid_next > mailbox.uid_last);
                assert!(mailbox.uid_validity.is_none_or(|known| known == info.uid_validity));
                let children = model.keys().any(|name| name.starts_with(&format!("{}/", info.name)));
                assert_eq!(info.has_children, children, "{}", info.name);
                let open = store.select(nth(number), &info.name).await.unwrap();
                let view = open.view();
                let mut found = BTreeMap::new();
                for row in view.messages.iter() {
                    let flags = row.flags.names(&view.keywords).map(str::to_owned).collect();
                    let bytes = store.message(&open, row.uid).await.unwrap().unwrap().to_vec();
                    found.insert(row.uid, Message { flags, date: row.internal_date, bytes });
                }
                assert_eq!(found, mailbox.messages, "{}", info.name);
            }
        }
    }

    /// Something that must change nothing.
    async fn disturb(&mut self) {
        let accounts = self.accounts();
        let what = self.below(4);
        if what == 0 {
            let store = self.store();
            self.removed += tokio::task::spawn_blocking(move || store.compact().unwrap()).await.unwrap();
        }
        let before = dump(&self.store(), &accounts).await;
        if what > 0 {
            self.store = None;
            if what > 1 {
                delete_view(self.dir.path());
            }
            self.store = Some(open_small(self.dir.path()));
        }
        let after = dump(&self.store(), &accounts).await;
        assert_eq!(before, after, "disturbance {what}");
        let report = self.store().check().unwrap();
        assert!(report.is_good(), "disturbance {what}: {:?} {:?}", report.faults, report.ledger.faults);
        self.rolls += report.rolls;
    }
}

async fn history(seed: u64) -> (usize, u64) {
    println!("seed {seed}");
    let mut history = History::new(seed);
    for operation in 0..OPERATIONS {
        history.step().await;
        if operation % 25 == 24 {
            history.compare().await;
            history.disturb().await;
            if operation % 100 == 99 {
                history.expunge_all().await;
            }
        }
    }
    history.compare().await;
    (history.removed, history.rolls)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_the_store_says_what_a_simple_model_says() {
    let (mut removed, mut rolls) = (0, 0);
    for seed in 0..SEEDS {
        let (more_removed, more_rolls) = history(seed).await;
        removed += more_removed;
        rolls += more_rolls;
    }
    assert!(removed > 20, "{removed} segments were compacted: histories must meet compaction");
    assert!(rolls > 100, "{rolls} rolls were compared with the rows that they are of");
}

/// A view that is behind the ledger catches up: an old copy of it is put back.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_view_catches_up_with_the_ledger() {
    let mut history = History::new(77);
    for round in 0..4 {
        for _ in 0..30 {
            history.step().await;
        }
        let old = history.dir.path().join("old.sqlite");
        let sql = rusqlite::Connection::open(history.dir.path().join(VIEW_FILE)).unwrap();
        sql.execute("VACUUM INTO ?1", [old.to_str().unwrap()]).unwrap();
        drop(sql);
        for _ in 0..30 {
            history.step().await;
        }
        let before = dump(&history.store(), &history.accounts()).await;
        history.store = None;
        delete_view(history.dir.path());
        std::fs::rename(old, history.dir.path().join(VIEW_FILE)).unwrap();
        history.store = Some(open_small(history.dir.path()));
        assert_eq!(before, dump(&history.store(), &history.accounts()).await, "round {round}");
        assert!(history.store().check().unwrap().is_good());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_no_database_is_made_anew() {
    let mut history = History::new(5);
    for _ in 0..40 {
        history.step().await;
    }
    let accounts = history.accounts();
    let before = dump(&history.store(), &accounts).await;
    history.store = None;
    delete_view(history.dir.path());
    std::fs::write(history.dir.path().join(VIEW_FILE), "not a database, but long enough to look like one".repeat(100))
        .unwrap();
    history.store = Some(open_small(history.dir.path()));
    assert_eq!(before, dump(&history.store(), &accounts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_was_found_damaged_is_made_anew_at_the_next_start() {
    let mut history = History::new(6);
    for _ in 0..40 {
        history.step().await;
    }
    let accounts = history.accounts();
    let before = dump(&history.store(), &accounts).await;
    history.store = None;
    // Wrong but readable: only the mark tells.
    let sql = rusqlite::Connection::open(history.dir.path().join(VIEW_FILE)).unwrap();
    sql.execute("DELETE FROM message", []).unwrap();
    drop(sql);
    crate::pop_imap::store::recovery::mark_damaged(history.dir.path());
    history.store = Some(open_small(history.dir.path()));
    assert_eq!(before, dump(&history.store(), &accounts).await);
    history.store = None;
    history.store = Some(open_small(history.dir.path()));
    assert_eq!(before, dump(&history.store(), &accounts).await);
}
