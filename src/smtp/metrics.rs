//! Counters of the role: what operators rely on, named in one place.
//!
//! Owns: the names and their meaning. Called by: every room of the role that does I/O.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use crate::net::metrics::{counter, counters, gauge};

/// Sessions begun, by `service` (`smtp`, `submission`, `submissions`).
pub(super) static SESSIONS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("fife_smtp_sessions_total", "Sessions begun.", &["service"]));
/// Complete messages by what the client was told: `delivered`, `queued`, `tempfail`, `refused`.
pub(super) static MESSAGES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("fife_smtp_messages_total", "Complete messages, by what the client was told.", &["outcome"])
});
/// Octets of messages that were taken.
pub(super) static RECEIVED_BYTES: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_smtp_received_bytes_total", "Octets of messages that were taken."));
/// Messages from other servers by what was found out about them: `method` (`spf`, `dkim`, `dmarc`) and `result` (RFC 8601 section 2.7).
pub(super) static AUTHENTICATION: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "fife_smtp_authentication_messages_total",
        "Messages from other servers, by result of each method of sender authentication.",
        &["method", "result"],
    )
});
/// Messages that were signed.
pub(super) static DKIM_SIGNED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_smtp_dkim_signed_messages_total", "Messages that were signed by DKIM."));
/// Recipients refused at RCPT.
pub(super) static RECIPIENTS_REFUSED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_smtp_recipients_refused_total", "Recipients that were refused at RCPT."));
/// Sign-ins that failed for a wrong user or password.
pub(super) static SIGN_INS_FAILED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_smtp_sign_ins_failed_total", "Sign-ins that failed for a wrong user or password."));
/// Recipients by what became of them out of the queue: `delivered`, `refused`, `expired`, `deferred`.
pub(super) static QUEUE_RECIPIENTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "fife_smtp_queue_recipients_total",
        "Recipients of queued messages, by outcome of an attempt.",
        &["outcome"],
    )
});
/// Bounces written.
pub(super) static BOUNCES: LazyLock<IntCounter> =
    LazyLock::new(|| counter("fife_smtp_bounces_total", "Delivery status notifications written."));
/// Messages in the queue.
pub(super) static QUEUE_MESSAGES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("fife_smtp_queue_messages", "Messages in the queue."));
/// Age of the oldest message in the queue; 0 when there is none.
pub(super) static QUEUE_AGE: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("fife_smtp_queue_age_seconds", "Age of the oldest message in the queue."));
/// 1 while the LMTP server is away.
pub(super) static LMTP_AWAY: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("fife_smtp_lmtp_away", "1 while the LMTP server cannot be reached."));
