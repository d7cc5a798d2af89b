//! Benchmark of the mailbox store: deliveries with every one durable, and reading a large mailbox.
//!
//! `cargo bench --bench store [-- DIR [MESSAGES]]`: works in a new directory below DIR (default: the system's temporary
//! directory), fills a mailbox with MESSAGES (default 100,000). Prints one table.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use fife::base::clock;
use fife::base::size::Size;
use fife::pop_imap::store::{
    AccountId, Delivery, DeliveryKey, Flag, FlagChange, Settings, Store, UIDS_PER_READ_MAX, Where,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Octets of a delivered message.
const MESSAGE_LEN: usize = 10_000;
const ACCOUNTS: u64 = 200;
const DELIVERIES: u64 = 10_000;

fn main() -> Result<(), Failure> {
    // Cargo adds `--bench` to the arguments.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let below = arguments.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let messages = arguments.get(1).map_or(Ok(100_000), |text| text.parse())?;
    let dir = tempfile::tempdir_in(below)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let settings = Settings { free_space_min: Size::bytes(0), ..Settings::default() };
    let store = Store::open(dir.path(), settings)?;
    line(&format!(
        "{:<44} {:>10} {:>12} {:>14}",
        "delivery of 10 KB, durable and visible", "per s", "CPU us each", "flushes each"
    ));
    for deliverers in [1, 20, 200] {
        let count = if deliverers == 1 { DELIVERIES / 5 } else { DELIVERIES };
        runtime.block_on(deliveries(&store, deliverers, count))?;
    }
    runtime.block_on(large_mailbox(&store, messages))?;
    drop(store);
    let opened = Watch::start();
    let store = Store::open(dir.path(), settings)?;
    line(&format!("{:<44} {:>10.1} ms", "store opened again", opened.millis()));
    let selected = Watch::start();
    let mailbox = runtime.block_on(store.select(account(9_999), "INBOX"))?;
    line(&format!(
        "{:<44} {:>10.1} ms",
        format!("SELECT of {} messages, cold", mailbox.view().messages.len()),
        selected.millis()
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its table")]
fn line(text: &str) {
    println!("{text}");
}

struct Watch(std::time::Instant, Duration);

impl Watch {
    fn start() -> Self {
        Self(clock::monotonic(), cpu())
    }

    fn millis(&self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1e3
    }

    /// CPU time of the process since the start.
    fn cpu(&self) -> Duration {
        cpu().saturating_sub(self.1)
    }
}

fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

fn account(number: u64) -> AccountId {
    u128::from(number).to_be_bytes()
}

/// A message like many: header fields, text that compresses somewhat.
fn message(number: u64) -> Bytes {
    let mut text = format!(
        "Received: from client.example.test by mail.example.test; Tue, 24 Nov 2026 03:00:00 +0800\r\n\
         Date: Tue, 24 Nov 2026 03:00:00 +0800\r\nFrom: \"Sender {number}\" <sender{number}@example.test>\r\n\
         To: \"Recipient\" <u{number}@example.test>\r\nSubject: Message number {number}\r\n\
         Message-ID: <{number}@client.example.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    );
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while text.len() < MESSAGE_LEN {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("word{} and {:x} in a line of text\r\n", (state >> 50) % 1000, state >> 16));
    }
    text.into()
}

fn delivery(account: AccountId, number: u64) -> Delivery {
    let trace = Bytes::from_static(b"Return-Path: <sender@example.test>\r\nDelivered-To: recipient@example.test\r\n");
    // As LMTP gives it; what that costs, hashing included, is part of a delivery.
    let key = Some(DeliveryKey::new(&blake3::hash(&number.to_le_bytes().repeat(MESSAGE_LEN / 8)), &account));
    Delivery { account, mailbox: "INBOX".into(), trace, flags: Vec::new(), key }
}

async fn deliveries(store: &Store, deliverers: u64, count: u64) -> Result<(), Failure> {
    let texts: Arc<Vec<Bytes>> = Arc::new((0..64).map(message).collect());
    let next = Arc::new(AtomicU64::new(0));
    let offset = deliverers << 32;
    let before = store.statistics();
    let watch = Watch::start();
    let mut tasks = Vec::new();
    for _ in 0..deliverers {
        let (store, next, texts) = (store.clone(), Arc::clone(&next), Arc::clone(&texts));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<(), Failure>(());
                }
                let text = texts.iter().cycle().nth(usize::try_from(number % 64)?).cloned().unwrap_or_default();
                store.deliver(text, vec![delivery(account(number % ACCOUNTS), offset + number)], UNIX_EPOCH).await?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    let (secs, cpu) = (watch.millis() / 1e3, watch.cpu());
    let flushes = store.statistics().groups - before.groups;
    let each = |total: f64| total / f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    line(&format!(
        "{:<44} {:>10.0} {:>12.0} {:>14.3}",
        format!("  {deliverers} at a time"),
        1.0 / each(secs),
        each(cpu.as_secs_f64() * 1e6),
        each(f64::from(u32::try_from(flushes)?)),
    ));
    Ok(())
}

async fn large_mailbox(store: &Store, messages: u32) -> Result<(), Failure> {
    let owner = account(9_999);
    let texts: Vec<Bytes> = (0..64).map(message).collect();
    let filled = Watch::start();
    let mut waiting = tokio::task::JoinSet::new();
    for (number, text) in (0..u64::from(messages)).zip(texts.iter().cycle()) {
        let (store, text) = (store.clone(), text.clone());
        waiting.spawn(async move { store.deliver(text, vec![delivery(owner, number)], UNIX_EPOCH).await.map(drop) });
        if waiting.len() >= 400
            && let Some(done) = waiting.join_next().await
        {
            done??;
        }
    }
    while let Some(done) = waiting.join_next().await {
        done??;
    }
    let per_sec = f64::from(messages) / (filled.millis() / 1e3);
    line(&format!(
        "{:<44} {per_sec:>10.0} {:>12.0}",
        "  400 at a time into one mailbox",
        filled.cpu().as_secs_f64() * 1e6 / f64::from(messages)
    ));
    let report = |what: &str, watch: &Watch| line(&format!("{what:<44} {:>10.1} ms", watch.millis()));

    let watch = Watch::start();
    let mailbox = store.select(owner, "INBOX").await?;
    report(&format!("SELECT of {messages} messages"), &watch);
    let watch = Watch::start();
    let again = store.select(owner, "INBOX").await?;
    report("SELECT again", &watch);
    let uids: Vec<u32> = again.view().messages.iter().map(|row| row.uid).collect();
    let watch = Watch::start();
    for chunk in uids.chunks(UIDS_PER_READ_MAX) {
        store.envelopes(&mailbox, chunk).await?;
    }
    report("all envelopes", &watch);
    let watch = Watch::start();
    for chunk in uids.chunks(UIDS_PER_READ_MAX) {
        store.structures(&mailbox, chunk).await?;
    }
    report("all structures", &watch);
    let watch = Watch::start();
    let mut read = 0;
    while let Some(rest) = uids.get(read..uids.len().min(10_000)).filter(|rest| !rest.is_empty()) {
        read += store.messages(&mailbox, rest).await?.len();
    }
    report("10,000 messages read in order", &watch);
    let watch = Watch::start();
    for uid in uids.iter().take(1_000) {
        store.set_flags(&mailbox, &[*uid], FlagChange::Add, &[Flag::Seen], None).await?;
    }
    report("1,000 flag changes, one by one", &watch);
    let watch = Watch::start();
    store
        .search_text(&mailbox, uids.get(..10_000.min(uids.len())).unwrap_or_default(), "nowhere", &Where::Text)
        .await?;
    report("TEXT search of 10,000 messages", &watch);
    Ok(())
}
