//! Counters of the pop-imap role, named in one place.
//!
//! Owns: the names. Called by: the protocols' `serve` rooms. Label values come from small fixed sets.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec};

use crate::net::metrics::{counter, counters};

/// Sessions begun, by protocol.
pub static SESSIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("fife_pop_imap_sessions_total", "Sessions begun, by protocol (lmtp, imap, pop3).", &["protocol"])
});
/// Logins, by protocol and result.
pub static LOGINS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Logins, by protocol and result (good, refused, suspended, unavailable).";
    counters("fife_pop_imap_logins_total", help, &["protocol", "result"])
});
/// Messages taken by LMTP, each counted once whatever the number of its recipients.
pub static DELIVERED_MESSAGES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("fife_pop_imap_delivered_messages_total", "Messages that LMTP put into mailboxes, each counted once.")
});
/// Copies in mailboxes.
pub static DELIVERED_COPIES: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_pop_imap_delivered_copies_total", "Mailboxes that LMTP put messages into."));
/// Octets of the messages.
pub static DELIVERED_BYTES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("fife_pop_imap_delivered_bytes_total", "Bytes of the messages that LMTP put into mailboxes.")
});
/// Messages that all their recipients had already.
pub static DELIVERIES_REPEATED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Messages that LMTP was sent again though all recipients had them; acknowledged, not stored again.";
    counter("fife_pop_imap_repeated_deliveries_total", help)
});
/// Messages that the store would not take.
pub static DELIVERY_FAILURES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("fife_pop_imap_delivery_failures_total", "Messages that the store did not take; the sender keeps them.")
});
/// Messages sent by RETR and TOP.
pub static POP3_RETRIEVED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_pop_imap_pop3_retrieved_messages_total", "Messages that POP3 sent (RETR, TOP)."));
/// Messages deleted at QUIT.
pub static POP3_DELETED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_pop_imap_pop3_deleted_messages_total", "Messages that POP3 deleted at QUIT."));

/// Makes all of them be shown, at 0, before anything is counted.
pub fn show() {
    for protocol in ["lmtp", "imap", "pop3"] {
        SESSIONS.with_label_values(&[protocol]).inc_by(0);
    }
    LazyLock::force(&LOGINS);
    for counter in [
        &DELIVERED_MESSAGES,
        &DELIVERED_COPIES,
        &DELIVERED_BYTES,
        &DELIVERIES_REPEATED,
        &DELIVERY_FAILURES,
        &POP3_RETRIEVED,
        &POP3_DELETED,
    ] {
        LazyLock::force(counter);
    }
}
