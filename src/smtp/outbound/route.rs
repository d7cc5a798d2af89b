//! Which way mail for an address goes.
//!
//! Owns: `Key` (the name of a destination), `Routes`, `Plan`. Called by: the queue (gathers by destination), `outbound` (goes there).
//! Never: asks DNS.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::address::Address;
use crate::config::hosts::HostAddress;
use crate::config::secret::SecretText;
use crate::config::smtp_outbound::{Pattern, Route, SmtpOutbound, Tls};
use crate::smtp::client::Credentials;
use crate::smtp::envelope::{Recipient, Way};

/// Ports of submission, with TLS from the start and with STARTTLS (RFC 8314 section 3.3, RFC 6409).
const SUBMISSIONS_PORT: u16 = 465;
const SUBMISSION_PORT: u16 = 587;

/// A destination: what is reached over the same connections, and fails together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// This site's mailboxes.
    Mailboxes,
    /// The host of the route at this place.
    Route(usize),
    /// A domain, by its MX.
    Domain(Arc<str>),
}

/// How fast a destination may be fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub sessions_max: usize,
    /// Time between two messages; zero: none.
    pub interval: Duration,
}

/// How a destination is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// None: by MX.
    pub host: Option<HostAddress>,
    pub port: u16,
    pub implicit_tls: bool,
    pub tls: Tls,
    pub credentials: Option<Credentials>,
    /// Mail waits until it is released.
    pub hold: bool,
    pub pace: Pace,
}

/// All ways.
#[derive(Debug, Clone)]
pub struct Routes {
    /// What holds without a route.
    usual: Plan,
    routes: Vec<(Vec<Pattern>, Plan)>,
    mailboxes: Pace,
}

impl Routes {
    /// The ways of these settings. `password` gives that of the route at a place; `mailbox_sessions` is how many messages go to our own mailboxes at a time.
    #[must_use]
    pub fn new(
        settings: &SmtpOutbound,
        mailbox_sessions: usize,
        password: &dyn Fn(usize) -> Option<SecretText>,
    ) -> Self {
        let usual = Plan {
            host: None,
            port: settings.port,
            implicit_tls: false,
            tls: settings.tls,
            credentials: None,
            hold: false,
            pace: pace(settings.destination_sessions_max, settings.destination_messages_per_minute_max),
        };
        let plan = |(at, route): (usize, &Route)| (route.domains.clone(), plan(route, settings, password(at)));
        let routes = settings.routes.iter().enumerate().map(plan).collect();
        Self { usual, routes, mailboxes: Pace { sessions_max: mailbox_sessions, interval: Duration::ZERO } }
    }

    /// Where this recipient's mail is gathered.
    #[must_use]
    pub fn key(&self, recipient: &Recipient) -> Key {
        match recipient.way {
            Way::Mailbox => Key::Mailboxes,
            Way::Elsewhere => self.key_of(&recipient.mailbox),
        }
    }

    fn key_of(&self, address: &Address) -> Key {
        let domain = address.domain().as_str();
        let found = self.routes.iter().position(|(patterns, _)| patterns.iter().any(|pattern| pattern.fits(domain)));
        match found.and_then(|at| Some((at, self.routes.get(at)?))) {
            Some((at, (_, plan))) if plan.host.is_some() => Key::Route(at),
            Some(_) | None => Key::Domain(domain.into()),
        }
    }

    /// How a destination is reached. (Our own mailboxes are not reached by a plan.)
    #[must_use]
    pub fn plan(&self, key: &Key) -> &Plan {
        let found = match key {
            Key::Route(at) => self.routes.get(*at),
            Key::Domain(domain) => {
                self.routes.iter().find(|(patterns, _)| patterns.iter().any(|pattern| pattern.fits(domain)))
            }
            Key::Mailboxes => None,
        };
        found.map_or(&self.usual, |(_, plan)| plan)
    }

    /// How fast a destination may be fed.
    #[must_use]
    pub fn pace(&self, key: &Key) -> Pace {
        if *key == Key::Mailboxes { self.mailboxes } else { self.plan(key).pace }
    }

    /// Whether new mail for this destination waits until it is released.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        *key != Key::Mailboxes && self.plan(key).hold
    }

    /// The destination of this name; one by MX when no route has it.
    #[must_use]
    pub fn named(&self, name: &str) -> Key {
        if name == self.name(&Key::Mailboxes) {
            return Key::Mailboxes;
        }
        let route = (0..self.routes.len()).map(Key::Route).find(|key| {
            let is_host = self.plan(key).host.is_some();
            is_host && self.name(key) == name
        });
        route.unwrap_or_else(|| Key::Domain(name.into()))
    }

    /// The destination's name, for people and on record.
    #[must_use]
    pub fn name(&self, key: &Key) -> String {
        match (key, &self.plan(key).host) {
            (Key::Mailboxes, _) => "mailboxes".to_owned(),
            (Key::Route(_), Some(host)) => format!("{host}:{}", self.plan(key).port),
            (Key::Route(at), None) => format!("route {at}"),
            (Key::Domain(domain), _) => domain.to_string(),
        }
    }
}

fn pace(sessions_max: u32, messages_per_minute_max: u32) -> Pace {
    let interval = Duration::from_secs(60).checked_div(messages_per_minute_max).unwrap_or_default();
    Pace { sessions_max: usize::try_from(sessions_max).unwrap_or(usize::MAX), interval }
}

fn plan(route: &Route, settings: &SmtpOutbound, password: Option<SecretText>) -> Plan {
    let credentials = route.user.clone().zip(password).map(|(user, password)| Credentials { user, password });
    let port = match (&route.host, route.implicit_tls, &route.user) {
        (None, ..) | (Some(_), false, None) => settings.port,
        (Some(_), true, _) => SUBMISSIONS_PORT,
        (Some(_), false, Some(_)) => SUBMISSION_PORT,
    };
    let tls = if route.user.is_some() || route.implicit_tls { Tls::Verified } else { settings.tls };
    Plan {
        host: route.host.clone(),
        port: route.port.unwrap_or(port),
        implicit_tls: route.implicit_tls,
        tls: route.tls.unwrap_or(tls),
        credentials,
        hold: route.hold,
        pace: pace(
            route.sessions_max.unwrap_or(settings.destination_sessions_max),
            route.messages_per_minute_max.unwrap_or(settings.destination_messages_per_minute_max),
        ),
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailboxes => f.write_str("mailboxes"),
            Self::Route(at) => write!(f, "route {at}"),
            Self::Domain(domain) => f.write_str(domain),
        }
    }
}
