//! `[smtp]`: receiving mail, submission, the queue.
//!
//! Owns: `Smtp`. Called by: the smtp role, the supervisor (listeners).

use std::net::{Ipv6Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::SocketAddress;
use crate::base::address::Domain;
use crate::base::duration::Span;
use crate::base::size::Size;

/// Receiving mail on port 25, taking it from users for submission, delivering it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Smtp {
    /// Name by which the host greets (RFC 5321 section 4.1.1.1). None: the host's name and the site's domain. (Restarts smtp.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Domain>,
    /// Mail from other servers, STARTTLS offered. (Restarts smtp.)
    pub listen: Vec<SocketAddress>,
    /// Mail from users, who sign in after STARTTLS (RFC 6409). (Restarts smtp.)
    pub listen_submission: Vec<SocketAddress>,
    /// Mail from users, over TLS from the start (RFC 8314). (Restarts smtp.)
    pub listen_submissions: Vec<SocketAddress>,
    /// Where the role gives a snapshot of the queue to be backed up (HTTP), to root and to backup-to-tape of this host. (Restarts smtp.)
    pub listen_backup: Vec<SocketAddress>,
    /// Where mail for local users is delivered, by LMTP (RFC 2033). (Restarts smtp.)
    pub lmtp: SocketAddress,
    /// Whether `lmtp` is the `listen-lmtp-site` of another host of the site: by TLS, in which both sides prove by `[site] secret` that they are of the site. (Restarts smtp.)
    pub lmtp_site: bool,
    /// Let passwords be sent without TLS from other machines. From this machine they always may. (Restarts smtp.)
    pub cleartext_login: bool,
    /// Largest message accepted; announced as SIZE (RFC 1870). (Restarts smtp.)
    #[schemars(extend("x-min" = "64 KiB"), extend("x-max" = "2 GiB"))]
    pub message_size_max: Size,
    /// Recipients of one message, at most (RFC 5321 section 4.5.3.1.8: at least 100). (Restarts smtp.)
    #[schemars(range(min = 100, max = 100_000))]
    pub recipients_max: u32,
    /// Trace headers after which a message is held to be looping (RFC 5321 section 6.3). (Restarts smtp.)
    #[schemars(range(min = 5, max = 1000))]
    pub hops_max: u32,
    /// Connections at a time. (Restarts smtp.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: u32,
    /// Connections at a time from one client address. (Restarts smtp.)
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client_max: u32,
    /// Silence after which a session is closed (RFC 5321 section 4.5.3.2.7: at least 5 minutes). (Restarts smtp.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "1d"))]
    pub idle_timeout: Span,
    /// Waits between attempts to deliver what is in the queue; the last one repeats. (Restarts smtp.)
    #[schemars(length(min = 1, max = 100), extend("x-min" = "1s", "x-max" = "7d"))]
    pub retry_after: Vec<Span>,
    /// Age at which a message that could not be delivered goes back to its sender (RFC 5321 section 4.5.4.1). (Restarts smtp.)
    #[schemars(extend("x-min" = "1s"), extend("x-max" = "30d"))]
    pub queue_lifetime: Span,
    /// Free space below which mail is refused for the time being (452). Up to half of it, 64 MiB at most, is held in reserve beside it: with that, mail can be read and deleted when the disk is full. (Restarts smtp.)
    #[schemars(extend("x-max" = "1 PiB"))]
    pub free_space_min: Size,
}

impl Default for Smtp {
    fn default() -> Self {
        let any = |port| vec![SocketAddress::Tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))];
        Self {
            hostname: None,
            listen: any(25),
            listen_submission: any(587),
            listen_submissions: any(465),
            listen_backup: vec![SocketAddress::Unix("run/smtp.backup.sock".into())],
            lmtp: SocketAddress::Unix("run/lmtp.sock".into()),
            lmtp_site: false,
            cleartext_login: false,
            message_size_max: Size::mib(50),
            recipients_max: 1000,
            hops_max: 50,
            connections_max: 2000,
            connections_per_client_max: 50,
            idle_timeout: Span::mins(5),
            retry_after: vec![Span::secs(10), Span::mins(1), Span::mins(5), Span::mins(15), Span::hours(1)],
            queue_lifetime: Span::hours(120),
            free_space_min: Size::mib(256),
        }
    }
}
