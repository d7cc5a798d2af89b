//! A connection to the first host of a destination that answers as it should.
//!
//! Owns: connecting, what TLS has to be, whom to try next. Called by: `outbound::session`. Never: sends a message.
//! Spec: RFC 5321 section 5.1, RFC 3207, RFC 7435 (opportunistic: in the clear when TLS fails), RFC 8314 section 3 (TLS from the start).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info};

use super::exchanger::{self, Candidate, Own, Unreachable};
use super::route::{Key, Plan};
use crate::base::clock;
use crate::config::hosts::HostAddress;
use crate::config::smtp_outbound::{SmtpOutbound, Tls};
use crate::net::Stream;
use crate::net::tls::Connector;
use crate::smtp::client::{Client, Connection, Dialect, Lost, Timeouts, Wishes};
use crate::smtp::reply::Reply;

const NOT_CONNECTED: Reply = Reply::new(451, 4, 1, "no answer");
const NO_TLS: Reply = Reply::new(451, 7, 4, "TLS is required, and the server does not offer it");

/// What the way out needs beside the queue.
pub(in crate::smtp) struct Outbound {
    pub settings: SmtpOutbound,
    pub resolver: TokioResolver,
    pub own: Own,
    pub unverified: Connector,
    pub verified: Connector,
}

/// A connection that can carry messages.
pub(super) struct Line {
    pub(super) connection: Connection,
    /// Name and address of the server.
    pub(super) remote: Arc<str>,
    /// Messages so far.
    pub(super) messages: u32,
    pub(super) used_at: Instant,
}

impl Outbound {
    /// Connects to a destination.
    ///
    /// # Errors
    /// No host of it answers, or none as it has to.
    pub(super) async fn dial(&self, key: &Key, plan: &Plan) -> Result<Line, Unreachable> {
        let mut last = NOT_CONNECTED;
        for candidate in self.candidates(key, plan).await? {
            match self.connect(&candidate, plan).await {
                Ok(line) => return Ok(line),
                Err(reply) => {
                    debug!(destination = %key, host = candidate.host, address = %candidate.address, %reply, "host passed over");
                    last = reply;
                }
            }
        }
        Err(Unreachable::Later(last))
    }

    async fn candidates(&self, key: &Key, plan: &Plan) -> Result<Vec<Candidate>, Unreachable> {
        let literal = |address: IpAddr| Ok(vec![Candidate { host: address.to_string(), address }]);
        match (&plan.host, key) {
            (Some(HostAddress::Ip(address)), _) => literal(*address),
            (Some(HostAddress::Name(name)), _) => {
                let found = exchanger::addresses(&self.resolver, name.as_str()).await;
                // Whoever wrote the route will mend it: nobody's mail is lost over it.
                let found = found.map_err(|(Unreachable::Never(reply) | Unreachable::Later(reply))| {
                    Unreachable::Later(NOT_CONNECTED.with_text(format!("{name}: {}", reply.text())))
                })?;
                Ok(found.into_iter().map(|address| Candidate { host: name.to_string(), address }).collect())
            }
            (None, Key::Domain(domain)) => match literal_of(domain) {
                Some(address) => literal(address),
                None => exchanger::candidates(&self.resolver, domain, plan.port, &self.own).await,
            },
            (None, Key::Route(_) | Key::Mailboxes) => Err(Unreachable::Later(NOT_CONNECTED)),
        }
    }

    /// One address, with TLS or without.
    async fn connect(&self, candidate: &Candidate, plan: &Plan) -> Result<Line, Reply> {
        let address = SocketAddr::new(candidate.address, plan.port);
        let remote: Arc<str> = format!("{} [{}]:{}", candidate.host, candidate.address, plan.port).into();
        let failed = |lost: &Lost| NOT_CONNECTED.with_text(format!("{remote}: {lost}"));
        let wants_tls = plan.tls != Tls::None && !plan.implicit_tls;
        let greeted = match self.greet(candidate, address, plan, wants_tls).await {
            Err(Lost::Tls(error)) if plan.tls == Tls::Opportunistic && wants_tls => {
                // RFC 7435 section 3: better in the clear than not at all.
                info!(%remote, %error, "TLS failed: going on without");
                self.greet(candidate, address, plan, false).await
            }
            greeted => greeted,
        };
        let connection = greeted.map_err(|lost| failed(&lost))?;
        if matches!(plan.tls, Tls::Required | Tls::Verified) && connection.tls_description().is_none() {
            connection.quit().await;
            return Err(NO_TLS.with_text(format!("{remote}: {}", NO_TLS.text())));
        }
        let tls = connection.tls_description().unwrap_or_default();
        debug!(%remote, tls, "connected");
        Ok(Line { connection, remote, messages: 0, used_at: clock::monotonic() })
    }

    async fn greet(
        &self,
        candidate: &Candidate,
        address: SocketAddr,
        plan: &Plan,
        start_tls: bool,
    ) -> Result<Connection, Lost> {
        let patience = self.settings.connect_timeout.get();
        let opened = timeout(patience, TcpStream::connect(address)).await;
        let stream = opened.map_err(|_| Lost::Timeout(patience))??;
        stream.set_nodelay(true)?;
        let connector = if plan.tls == Tls::Verified { &self.verified } else { &self.unverified };
        let mut stream = Stream::from(stream);
        if plan.implicit_tls {
            stream = stream.connect_tls(connector, &candidate.host, patience).await.map_err(Lost::Tls)?;
        }
        let wishes = Wishes { start_tls, credentials: plan.credentials.clone() };
        let client = Client::new(Dialect::Smtp, self.own.hostname.clone(), wishes, plan.implicit_tls);
        Connection::greet(stream, client, Timeouts::SMTP, Some((connector, &candidate.host))).await
    }
}

/// The address in an address literal (RFC 5321 section 4.1.3).
fn literal_of(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    let six = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).and_then(|_| inner.get(5..));
    match six {
        Some(six) => six.parse().ok().map(IpAddr::V6),
        None => inner.parse().ok().map(IpAddr::V4),
    }
}
