//! `[pop-imap]`: mailboxes.
//!
//! Owns: `PopImap`. Called by: the pop-imap role, the supervisor (listeners).

use std::net::{Ipv6Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::SocketAddress;
use crate::base::duration::Span;
use crate::base::size::Size;

/// Mailboxes: LMTP in; IMAP and POP3 out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct PopImap {
    /// Where mailboxes are kept. (Restarts pop-imap.)
    pub store: Store,
    /// IMAP, STARTTLS offered. (Restarts pop-imap.)
    pub listen_imap: Vec<SocketAddress>,
    /// IMAP over TLS. (Restarts pop-imap.)
    pub listen_imaps: Vec<SocketAddress>,
    /// POP3, STLS offered. (Restarts pop-imap.)
    pub listen_pop3: Vec<SocketAddress>,
    /// POP3 over TLS. (Restarts pop-imap.)
    pub listen_pop3s: Vec<SocketAddress>,
    /// LMTP, for the smtp role or another mail server. Whoever reaches it can deliver: no address that strangers reach. (Restarts pop-imap.)
    pub listen_lmtp: Vec<SocketAddress>,
    /// LMTP for the smtp role of other hosts of the site: TLS from the first octet, in which both sides prove by `[site] secret` that they are of the site. (Restarts pop-imap.)
    pub listen_lmtp_site: Vec<SocketAddress>,
    /// Where the role gives a snapshot of the mailboxes to be backed up (HTTP), to root and to backup-to-tape of this host. (Restarts pop-imap.)
    pub listen_backup: Vec<SocketAddress>,
    /// Let passwords be sent without TLS from other machines. From this machine they always may. (Restarts pop-imap.)
    pub cleartext_login: bool,
    /// Largest message that is taken by LMTP or IMAP APPEND. (Restarts pop-imap.)
    #[schemars(extend("x-min" = "64 KiB"), extend("x-max" = "2 GiB"))]
    pub message_size_max: Size,
    /// Connections at a time, all protocols together. (Restarts pop-imap.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: u32,
    /// Connections at a time from one client address. (Restarts pop-imap.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client_max: u32,
    /// Silence after which an IMAP session is closed (RFC 9051 section 5.4: at least 30 minutes). (Restarts pop-imap.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "1d"))]
    pub imap_idle_timeout: Span,
    /// Silence after which a POP3 session is closed (RFC 1939 section 3: at least 10 minutes). (Restarts pop-imap.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "1d"))]
    pub pop3_idle_timeout: Span,
    /// Silence after which an LMTP session is closed, and time for a transaction beyond a second for each KiB (RFC 5321 section 4.5.3.2: at least 10 minutes). (Restarts pop-imap.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "1d"))]
    pub lmtp_idle_timeout: Span,
    /// Silence before login after which a session is closed. (Restarts pop-imap.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "1h"))]
    pub login_timeout: Span,
    /// Free space below which mail is refused for the time being (452). Up to half of it, 64 MiB at most, is held in reserve beside it: with that, mail can be read and deleted when the disk is full. (Restarts pop-imap.)
    #[schemars(extend("x-max" = "1 PiB"))]
    pub free_space_min: Size,
}

/// Where mailboxes are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// In the state directory of this host.
    #[default]
    Embedded,
}

impl Default for PopImap {
    fn default() -> Self {
        let any = |port| vec![SocketAddress::Tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))];
        Self {
            store: Store::Embedded,
            listen_imap: any(143),
            listen_imaps: any(993),
            listen_pop3: any(110),
            listen_pop3s: any(995),
            listen_lmtp: vec![SocketAddress::Unix("run/lmtp.sock".into())],
            listen_lmtp_site: Vec::new(),
            listen_backup: vec![SocketAddress::Unix("run/pop-imap.backup.sock".into())],
            cleartext_login: false,
            message_size_max: Size::mib(50),
            connections_max: 20_000,
            connections_per_client_max: 200,
            imap_idle_timeout: Span::mins(30),
            pop3_idle_timeout: Span::mins(10),
            lmtp_idle_timeout: Span::mins(15),
            login_timeout: Span::mins(1),
            free_space_min: Size::mib(256),
        }
    }
}
