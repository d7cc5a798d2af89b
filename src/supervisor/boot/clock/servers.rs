//! Asking time servers.
//!
//! Owns: one question to one server, all within a bound. Called by: `keeper`. Never: believes an answer (`decision` does).
//! Spec: RFC 4330 (SNTP), by rsntp; RFC 4330 section 8 (kiss-o'-death).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use rsntp::{AsyncSntpClient, Config, KissCode, ProtocolError, SynchronizationError};

use super::decision::{self, Sample};
use crate::base::clock;
use crate::config::dns::Dns;
use crate::config::hosts::HostAddress;
use crate::config::site::TimeServer;
use crate::net::dns;

/// Time that a server has for its answer. A round trip of more than two seconds is not believed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);
/// Time for everything, with DNS and a second address.
const ROUND_PATIENCE: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 3;

/// 2036-02-07 06:28:16, since 1970: where NTP's seconds begin again at zero.
const SECOND_ERA: Duration = Duration::from_secs(2_085_978_496);
/// What the way of an answer may add to it.
const NO_TIME_SLACK: Duration = Duration::from_secs(5);

/// Why a server says nothing that counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("its name is not found: {0}")]
    Name(String),
    #[error("does not answer: {0}")]
    Silent(std::io::Error),
    #[error("is not to be asked: {0}")]
    Kiss(KissCode),
    #[error("its answer is none: {0}")]
    Answer(ProtocolError),
    #[error("does not answer in time")]
    Late,
}

/// Asks all of them at once; answers in the order of the servers.
pub(super) async fn ask(servers: &[&TimeServer]) -> Vec<Result<Sample, AskError>> {
    let resolver = if servers.iter().any(|server| matches!(server.host, HostAddress::Name(_))) {
        resolver()
    } else {
        Err("no name was asked for".to_owned())
    };
    let one = async |server: &TimeServer| {
        let asked = tokio::time::timeout(ROUND_PATIENCE, ask_one(server, resolver.as_ref()));
        asked.await.unwrap_or(Err(AskError::Late))
    };
    join_all(servers.iter().map(|server| one(server))).await
}

/// Made for each round: the network may have named other DNS servers.
fn resolver() -> Result<TokioResolver, String> {
    if dns::named_servers().is_empty() {
        return Err("no DNS server is known".to_owned());
    }
    dns::resolver(&Dns::default()).map_err(|error| error.to_string())
}

async fn ask_one(server: &TimeServer, resolver: Result<&TokioResolver, &String>) -> Result<Sample, AskError> {
    let addresses: Vec<IpAddr> = match &server.host {
        HostAddress::Ip(ip) => vec![*ip],
        HostAddress::Name(name) => {
            let resolver = resolver.map_err(|error| AskError::Name(error.clone()))?;
            let found = resolver.lookup_ip(format!("{name}.")).await;
            found.map_err(|error| AskError::Name(error.to_string()))?.iter().take(ADDRESSES_MAX).collect()
        }
    };
    let mut last = AskError::Name("it has no address".to_owned());
    for ip in addresses {
        match exchange(SocketAddr::new(ip, server.port())).await {
            Ok(sample) => return Ok(sample),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A timestamp of zero says that there is no time (RFC 4330 section 3). rsntp 4.1.2 takes it for the begin of NTP's second era, and so for
/// a time in February 2036: what names that moment says nothing.
fn is_no_time(then: SystemTime) -> bool {
    let since = then.duration_since(UNIX_EPOCH + SECOND_ERA);
    since.unwrap_or_else(|before| before.duration()) < NO_TIME_SLACK
}

async fn exchange(address: SocketAddr) -> Result<Sample, AskError> {
    let any = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let config = Config::default().bind_address(SocketAddr::new(any, 0)).timeout(ANSWER_PATIENCE);
    match AsyncSntpClient::with_config(config).synchronize(address).await {
        Ok(answer) => {
            let sample = Sample {
                offset_secs: answer.clock_offset().as_secs_f64(),
                delay_secs: answer.round_trip_delay().as_secs_f64(),
            };
            // By the clock that rsntp has measured by.
            let then = decision::shifted(clock::wall(), sample.offset_secs);
            if then.is_some_and(is_no_time) {
                Err(AskError::Answer(ProtocolError::InvalidTransmitTimestamp))
            } else {
                Ok(sample)
            }
        }
        Err(SynchronizationError::IOError(error)) => Err(AskError::Silent(error)),
        Err(SynchronizationError::ProtocolError(ProtocolError::KissODeath(code))) => Err(AskError::Kiss(code)),
        Err(SynchronizationError::ProtocolError(error)) => Err(AskError::Answer(error)),
    }
}
