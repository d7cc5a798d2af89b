//! Tests of the store: what it does (`basics`), that its view follows from its ledger whatever happens (`histories`),
//! crashes (`crashes`), rolls of large mailboxes (`rolls`), deliveries that come again (`repeats`), full disks (`full`), space (`space`), snapshots (`views`).

mod basics;
mod crashes;
mod full;
mod histories;
mod repeats;
mod rolls;
mod space;
mod views;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::tables::VIEW_FILE;
use super::{AccountId, Delivery, DeliveryKey, OpenMailbox, Row, Settings, Store};
use crate::base::size::Size;

/// Small segments, no free space asked for.
fn settings() -> Settings {
    Settings { free_space_min: Size::bytes(0), segment_size: Size::kib(64) }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, settings()).unwrap()
}

fn account(number: u8) -> AccountId {
    [number; 16]
}

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

fn to(account: AccountId, trace: &str) -> Delivery {
    let trace = Bytes::copy_from_slice(trace.as_bytes());
    Delivery { account, mailbox: "INBOX".into(), trace, flags: Vec::new(), key: None }
}

/// As `to`, known again when it comes again.
fn once(account: AccountId, trace: &str, message: &Bytes) -> Delivery {
    Delivery { key: Some(DeliveryKey::new(&blake3::hash(message), &account)), ..to(account, trace) }
}

fn text(number: u64) -> Bytes {
    format!("Subject: message {number}\r\nFrom: a@example.test\r\n\r\nbody {number}\r\n").into()
}

fn rows(mailbox: &OpenMailbox) -> Vec<Row> {
    mailbox.view().messages.iter().copied().collect()
}

fn uids(mailbox: &OpenMailbox) -> Vec<u32> {
    rows(mailbox).iter().map(|row| row.uid).collect()
}

/// Deletes the view of a store that nobody has open.
fn delete_view(dir: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let path = dir.join(format!("{VIEW_FILE}{suffix}"));
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// All that the accounts have, as text: mailboxes with their numbers, messages with flags, dates, bytes.
async fn dump(store: &Store, accounts: &[AccountId]) -> Vec<String> {
    let mut out = Vec::new();
    for account in accounts {
        for info in store.mailboxes(*account).await.unwrap() {
            let mailbox = store.select(*account, &info.name).await.unwrap();
            let view = mailbox.view();
            assert_eq!((view.uid_next, view.highest_modseq), (info.uid_next, info.highest_modseq), "{}", info.name);
            assert_eq!(view.messages.len(), info.messages as usize, "{}", info.name);
            assert_eq!(view.messages.unseen(), info.unseen as usize, "{}", info.name);
            out.push(format!("{info:?}"));
            for row in view.messages.iter() {
                let mut flags: Vec<_> = row.flags.names(&view.keywords).collect();
                flags.sort_unstable();
                let bytes = store.message(&mailbox, row.uid).await.unwrap().expect("a message of the view can be read");
                assert_eq!(bytes.len(), row.size as usize);
                let (uid, modseq, date) = (row.uid, row.modseq, row.internal_date);
                out.push(format!("{uid} {modseq} {date} {flags:?} {:?}", String::from_utf8_lossy(&bytes)));
            }
        }
        out.push(format!("{:?}", store.subscriptions(*account).await.unwrap()));
    }
    out
}
