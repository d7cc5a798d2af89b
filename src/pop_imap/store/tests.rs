//! Tests of the store: what it does (`basics`), that its views follow from its ledger whatever happens (`histories`),
//! crashes (`crashes`), space (`space`), snapshots (`views`).

mod basics;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{AccountId, Delivery, OpenMailbox, Row, Settings, Store};
use crate::base::size::Size;

/// Segments of 1 MiB, no free space asked for.
fn settings() -> Settings {
    Settings { free_space_min: Size::bytes(0), segment_size: Size::mib(1) }
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
    Delivery { account, mailbox: "INBOX".into(), trace: Bytes::copy_from_slice(trace.as_bytes()), flags: Vec::new() }
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
