//! Counters that operators rely on.
//!
//! Owns: their names. Called by: the files of this role.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use crate::net::metrics;

pub(super) static OPERATIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "LDAP operations answered, by operation and LDAP result code.";
    metrics::counters("fife_ldap_proxy_operations_total", help, &["operation", "result"])
});

pub(super) static ENTRIES: LazyLock<IntGauge> =
    LazyLock::new(|| metrics::gauge("fife_ldap_proxy_entries", "Entries in the embedded directory."));

pub(super) static MALFORMED: LazyLock<IntCounter> = LazyLock::new(|| {
    metrics::counter("fife_ldap_proxy_malformed_total", "Connections closed because of input that is not LDAP.")
});

pub(super) static LOGINS_FAILED: LazyLock<IntCounter> =
    LazyLock::new(|| metrics::counter("fife_ldap_proxy_logins_failed_total", "Passwords that were wrong."));

pub(super) static LOGINS_REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Logins refused unseen after too many failures, by what has failed too often: account or network.";
    metrics::counters("fife_ldap_proxy_logins_refused_total", help, &["by"])
});

pub(super) static HASHES: LazyLock<IntCounter> =
    LazyLock::new(|| metrics::counter("fife_ldap_proxy_password_hashes_total", "Password hashes made or verified."));
