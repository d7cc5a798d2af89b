//! One file over HTTP or HTTPS.
//!
//! Owns: the connection, redirections, bounds in time and size. Called by: `update`. Never: keeps what it fetched; believes a server
//! whose certificate no authority of this machine vouches for.
//! Spec: RFC 9110, RFC 9112 (HTTP/1.1), RFC 9110 section 15.4 (redirections).

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::update::BundleUrl;
use crate::net::Stream;
use crate::net::tls::Connector;

/// What a server may take to answer, and to send the next piece.
const PATIENCE: Duration = Duration::from_secs(60);
/// What it may take to be reached.
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
const REDIRECTIONS_MAX: usize = 5;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url}: the server answers {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url}: the server sends on to an odd place")]
    Redirection { url: String },
    #[error("{url}: it has more than {limit} octets")]
    TooLarge { url: String, limit: u64 },
    #[error("{url}: it ends early: {reason}")]
    Early { url: String, reason: String },
    #[error("what was fetched cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Fetches a file of at most `limit` octets. Returns how many it has.
///
/// # Errors
/// What of it was written until then is of no use.
pub async fn fetch(
    url: &BundleUrl,
    resolver: &TokioResolver,
    limit: u64,
    to: &mut impl Write,
) -> Result<u64, FetchError> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTIONS_MAX {
        let answer = ask(&url, resolver).await?;
        match answer.status() {
            StatusCode::OK => return receive(&url, answer, limit, to).await,
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => url = next(&url, &answer)?,
            status => return Err(FetchError::Status { url: url.to_string(), status }),
        }
    }
    Err(FetchError::Redirection { url: url.to_string() })
}

async fn ask(url: &BundleUrl, resolver: &TokioResolver) -> Result<Response<Incoming>, FetchError> {
    let unreachable = |reason: String| FetchError::Unreachable { url: url.to_string(), reason };
    let stream = connect(url.uri(), resolver).await.map_err(&unreachable)?;
    let work = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's body, or with the sender.
        tokio::spawn(connection);
        let path = url.uri().path_and_query().map_or("/", |path| path.as_str());
        let authority = url.uri().authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("fife/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new());
        match request {
            Ok(request) => sender.send_request(request).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
        .map_or_else(|reason| Ok(Err(reason)), |answer| Ok::<_, hyper::Error>(Ok(answer)))
    };
    match timeout(PATIENCE, work).await {
        Err(_) => Err(unreachable("no answer".to_owned())),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Ok(Ok(answer)) => answer.map_err(unreachable),
    }
}

async fn connect(uri: &Uri, resolver: &TokioResolver) -> Result<Stream, String> {
    let is_tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => {
            let name = format!("{}.", host.trim_end_matches('.'));
            resolver.lookup_ip(name).await.map_err(|error| error.to_string())?.iter().collect()
        }
    };
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match timeout(CONNECT_PATIENCE, TcpStream::connect(SocketAddr::new(address, port))).await {
            Err(_) => last = format!("{address} port {port} does not answer"),
            Ok(Err(error)) => last = format!("{address} port {port}: {error}"),
            Ok(Ok(stream)) if is_tls => {
                let connector = Connector::verified().map_err(|error| error.to_string())?;
                let shaken = Stream::from(stream).connect_tls(&connector, host, CONNECT_PATIENCE).await;
                return shaken.map_err(|error| format!("TLS: {error}"));
            }
            Ok(Ok(stream)) => return Ok(stream.into()),
        }
    }
    Err(last)
}

/// Where a redirection leads. Never from HTTPS to HTTP.
fn next(url: &BundleUrl, answer: &Response<Incoming>) -> Result<BundleUrl, FetchError> {
    let odd = || FetchError::Redirection { url: url.to_string() };
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(odd)?;
    let uri = url.uri();
    let absolute = if location.starts_with('/') && !location.starts_with("//") {
        format!("{}://{}{location}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()))
    } else {
        location.to_owned()
    };
    let next: BundleUrl = absolute.parse().map_err(|_| odd())?;
    let is_worse = uri.scheme_str() == Some("https") && next.uri().scheme_str() != Some("https");
    if is_worse { Err(odd()) } else { Ok(next) }
}

async fn receive(
    url: &BundleUrl,
    answer: Response<Incoming>,
    limit: u64,
    to: &mut impl Write,
) -> Result<u64, FetchError> {
    let early = |reason: String| FetchError::Early { url: url.to_string(), reason };
    let mut body = answer.into_body();
    let mut octets: u64 = 0;
    loop {
        let frame = timeout(PATIENCE, body.frame()).await.map_err(|_| early("nothing more comes".to_owned()))?;
        let Some(frame) = frame else { return Ok(octets) };
        let Ok(data) = frame.map_err(|error| early(error.to_string()))?.into_data() else { continue };
        octets = octets.saturating_add(data.len() as u64);
        if octets > limit {
            return Err(FetchError::TooLarge { url: url.to_string(), limit });
        }
        to.write_all(&data)?;
    }
}
