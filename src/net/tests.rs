//! Limits, the accept loop, TLS, the handover, log lines, metrics.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdTcpListener};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::handover::{HandedListener, HandoverError, Letter, Revealed};
use super::tls::{Acceptor, Pem};
use super::*;
use crate::config::address::SocketAddress;
use crate::config::hosts::Role;
use crate::config::{Effective, Tables, site};

/// Long enough for a busy machine; no test waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn effective() -> Effective {
    let site = site::Site { name: "campus".into(), domain: "example.test".parse().ok(), ..Default::default() };
    Effective { host: "mail1".into(), roles: vec![Role::Smtp], site, tables: Tables::default() }
}

fn tcp(text: &str) -> Peer {
    Peer::tcp(text.parse().unwrap())
}

/// A listener on loopback and where it is.
fn listener() -> (OwnedFd, std::net::SocketAddr) {
    let listener = StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener.into(), address)
}

/// The value of a sample, with or without the label `role`, which a test that receives a handover brings in.
fn sample<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.split(['{', ' ']).next() == Some(name))?;
    line.rsplit_once(' ').map(|(_, value)| value)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

#[test]
fn counts_by_ipv4_address_and_by_ipv6_network() {
    let check = |first: &str, second: &str, both: bool| {
        let limits = Limits::new(10, 1);
        let permit = limits.admit(&tcp(first));
        assert!(permit.is_some());
        assert_eq!(limits.admit(&tcp(second)).is_some(), both, "{first} and {second}");
    };
    check("192.0.2.1:1", "192.0.2.1:2", false);
    check("192.0.2.1:1", "192.0.2.2:1", true);
    check("[::ffff:192.0.2.1]:1", "192.0.2.1:2", false); // one machine, written in two ways
    check("[2001:db8::1]:1", "[2001:db8::2]:1", false); // one /64: addresses in it cost nothing
    check("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", true);
}

#[test]
fn a_dropped_permit_makes_room_and_leaves_no_trace() {
    let limits = Limits::new(2, 2);
    let one = limits.admit(&tcp("192.0.2.1:1")).unwrap();
    let two = limits.admit(&Peer::unix(Some(0))).unwrap();
    assert!(limits.admit(&tcp("192.0.2.9:1")).is_none(), "the whole is full");
    drop(one);
    assert_eq!(limits.open(), 1);
    let three = limits.admit(&tcp("192.0.2.9:1")).unwrap();
    drop((two, three));
    assert_eq!(limits.open(), 0);
}

#[test]
fn knows_who_is_local_and_who_is_of_the_site() {
    let check = |peer: Peer, local: bool, site: bool, text: &str| {
        assert_eq!((peer.is_local(), peer.is_site(), peer.to_string().as_str()), (local, site, text));
    };
    check(tcp("127.0.0.1:7"), true, false, "127.0.0.1:7");
    check(tcp("[::1]:7"), true, false, "[::1]:7");
    check(tcp("[::ffff:127.0.0.1]:7"), true, false, "127.0.0.1:7");
    check(tcp("192.0.2.1:7"), false, false, "192.0.2.1:7");
    check(Peer::unix(Some(0)), true, true, "unix:uid=0");
    check(Peer::unix(Some(6103)), true, true, "unix:uid=6103");
    check(Peer::unix(Some(65_534)), true, false, "unix:uid=65534");
}

/// Accepts with at most one connection a client; the session answers one line, or panics when told to.
async fn start(shutdown: Shutdown) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let (fd, address) = listener();
    let listener = Listener::from_fd(fd).unwrap();
    let stop = shutdown.clone();
    let accepting = accept_loop(listener, Limits::new(10, 1), b"busy\r\n", shutdown, move |mut stream, _, _| {
        let mut stop = stop.clone();
        async move {
            let mut byte = [0];
            tokio::select! {
                read = stream.read_exact(&mut byte) => { read.unwrap(); }
                () = stop.stopping() => byte = *b"s",
            }
            assert_ne!(&byte, b"!", "told to panic");
            stream.write_all(&byte).await.unwrap();
        }
    });
    (address, tokio::spawn(accepting))
}

async fn talk(address: std::net::SocketAddr, say: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(say).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_panic_ends_one_session_only() {
    let (stopper, shutdown) = Shutdown::pair();
    let (address, accepting) = start(shutdown).await;
    assert_eq!(within(talk(address, b"!")).await.unwrap(), b"");
    // The slot of the one client is free again, and the loop still accepts. Its permit may outlive its socket by a
    // moment, so the answer can be "busy" before it is what it must be.
    within(async {
        while talk(address, b"x").await.unwrap_or_default() != b"x" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stopper.stop();
    within(accepting).await.unwrap();
    assert_eq!(sample(&metrics::text(), "fife_net_session_panics_total"), Some("1"));
}

#[tokio::test]
async fn the_surplus_is_told_and_shutdown_waits_for_sessions() {
    let (stopper, shutdown) = Shutdown::pair();
    let (address, accepting) = start(shutdown).await;
    let mut first = within(TcpStream::connect(address)).await.unwrap();
    let mut second = within(TcpStream::connect(address)).await.unwrap();
    let mut text = String::new();
    within(second.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "busy\r\n");
    stopper.stop();
    let mut last = Vec::new();
    within(first.read_to_end(&mut last)).await.unwrap();
    assert_eq!(last, b"s", "the session in hand ended by itself");
    within(accepting).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody else holds this socket");
}

fn pem(name: &str) -> Pem {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    Pem { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

#[tokio::test]
async fn tls_is_resumed_in_both_versions() {
    let pem = pem("mail1.example.test");
    let acceptor = Acceptor::from_pem(&pem).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap()).unwrap();
    for (version, named) in [(&rustls::version::TLS12, "TLSv1.2 "), (&rustls::version::TLS13, "TLSv1.3 ")] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        for resumed in [false, true] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let acceptor = acceptor.clone();
            let server = tokio::spawn(async move {
                let mut stream = Stream::from(ours).start_tls(&acceptor, PATIENCE).await.unwrap();
                stream.write_all(b"+").await.unwrap();
                stream.flush().await.unwrap();
                stream.tls_description().unwrap()
            });
            let name = ServerName::try_from("mail1.example.test").unwrap();
            let mut stream = within(connector.connect(name, theirs)).await.unwrap();
            within(stream.read_u8()).await.unwrap();
            assert!(within(server).await.unwrap().starts_with(named));
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            assert_eq!(kind == rustls::HandshakeKind::Resumed, resumed, "{named}");
        }
    }
}

#[tokio::test]
async fn a_silent_tls_client_is_given_up() {
    let acceptor = Acceptor::from_pem(&pem("mail1.example.test")).unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = Stream::from(ours).start_tls(&acceptor, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_certificate_with_another_key_is_refused() {
    let mixed = Pem { key: pem("a").key, ..pem("b") };
    assert!(matches!(Acceptor::from_pem(&mixed), Err(tls::TlsError::Unusable(_))));
    let empty = Pem { certificate: String::new(), ..mixed };
    assert!(matches!(Acceptor::from_pem(&empty), Err(tls::TlsError::NoCertificate)));
}

/// A letter as the supervisor writes it.
fn letter(listeners: Vec<HandedListener>) -> Letter {
    Letter {
        role: Role::Smtp,
        effective: effective(),
        state_dir: "/nowhere/state".into(),
        addresses: vec!["192.0.2.7".parse().unwrap()],
        secrets: [("directory.bind-password".to_owned(), Revealed("s3cret".into()))].into(),
        tls: Some(pem("mail1.example.test")),
        site: None,
        listeners,
        metrics: None,
        ready: None,
        log: None,
    }
}

#[tokio::test]
async fn what_the_supervisor_writes_the_role_receives() {
    let (imap, _) = listener();
    let (smtp, address) = listener();
    let handed = |service: &str, fd: OwnedFd| HandedListener { service: service.into(), fd: fd.into_raw_fd() };
    let letter = letter(vec![handed("imap", imap), handed("smtp", smtp)]);
    let mut handover = Handover::receive(letter.write().unwrap().into_raw_fd()).unwrap();
    assert_eq!(handover.role, Role::Smtp);
    assert_eq!(handover.effective, effective());
    assert_eq!(handover.secret("directory.bind-password").unwrap().reveal(), "s3cret");
    assert_eq!(handover.secret("other"), None);
    assert_eq!(handover.addresses, ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(handover.site_hostname(), "mail1.example.test");
    assert_eq!(handover.base_dn(), "o=campus");
    assert_eq!(handover.role_dir().to_str(), Some("/nowhere/state/smtp"));
    let lmtp = SocketAddress::Unix("run/lmtp.sock".into());
    assert_eq!(handover.path_of(&lmtp).to_string(), "unix:/nowhere/state/run/lmtp.sock");
    handover.tls().unwrap();
    let smtp = handover.listeners("smtp").unwrap();
    assert_eq!(smtp.len(), 1);
    assert_eq!(smtp[0].local_address(), address.to_string());
    assert!(handover.listeners("smtp").unwrap().is_empty(), "given out once");
    assert!(!format!("{handover:?} {letter:?}").contains("s3cret"));
    assert!(!format!("{handover:?} {letter:?}").contains("PRIVATE"));
}

#[test]
fn a_letter_that_names_what_is_not_there_is_refused() {
    let check = |fds: &[i32]| {
        let listeners = fds.iter().map(|fd| HandedListener { service: "smtp".into(), fd: *fd }).collect();
        let received = Handover::receive(letter(listeners).write().unwrap().into_raw_fd());
        assert!(matches!(received, Err(HandoverError::Descriptor(_))), "{fds:?}");
    };
    check(&[0]); // standard input
    check(&[-1]);
    check(&[1_000_000]);
    let (fd, _) = listener();
    check(&[fd.as_raw_fd(), fd.into_raw_fd()]);
    assert!(matches!(Handover::receive(1_000_000), Err(HandoverError::Descriptor(_))));
}

#[test]
fn a_site_name_becomes_one_dn_value() {
    let check = |name: &str, expected: &str| {
        let mut effective = effective();
        effective.site.name = name.into();
        assert_eq!(handover::base_dn(&effective), expected);
    };
    check("campus", "o=campus");
    check("School, Inc. + Sons", "o=School\\, Inc. \\+ Sons");
    check(" #x ", "o=\\ #x\\ ");
    check("#x", "o=\\#x");
    check("中学", "o=中学");
}

#[tokio::test]
async fn metrics_and_health_are_answered_and_slow_clients_do_not_hold_them_up() {
    let (fd, address) = listener();
    let (stopper, shutdown) = Shutdown::pair();
    let served = tokio::spawn(metrics::serve(
        Listener::from_fd(fd).unwrap(),
        || Health::Bad("no directory".into()),
        axum::Router::new(),
        shutdown,
    ));
    metrics::counter("fife_test_questions_total", "Questions that were asked.").inc();
    let _slow = within(TcpStream::connect(address)).await.unwrap();
    let ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        String::from_utf8(within(talk(address, request.as_bytes())).await.unwrap()).unwrap()
    };
    let health = ask("/health").await;
    assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
    assert!(health.ends_with(r#"{"health":"bad","reason":"no directory"}"#), "{health}");
    let metrics = ask("/metrics").await;
    assert_eq!(sample(&metrics, "fife_test_questions_total"), Some("1"), "{metrics}");
    assert!(ask("/").await.starts_with("HTTP/1.1 404 "));
    stopper.stop();
    drop(_slow);
    within(served).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_is_seen_by_all_and_again() {
    let (stopper, mut shutdown) = Shutdown::pair();
    let mut other = shutdown.clone();
    assert!(!shutdown.is_stopping());
    stopper.stop();
    within(shutdown.stopping()).await;
    within(other.stopping()).await;
    within(other.stopping()).await;
    assert!(shutdown.is_stopping() && other.clone().is_stopping());
    let (stopper, mut orphan) = Shutdown::pair();
    drop(stopper);
    within(orphan.stopping()).await;
    assert!(orphan.is_stopping());
}

#[test]
fn dripping_octets_gain_no_time_and_a_steady_pace_does() {
    let (start, patience) = (crate::base::clock::monotonic(), Duration::from_secs(300));
    let at = |secs| start + Duration::from_secs(secs);
    let mut pace = Pace::default();
    // Between commands silence counts, from now.
    assert_eq!(pace.deadline(false, at(100), patience), at(400));
    // Within one it counts from its beginning, however often something comes.
    for secs in [100, 200, 399] {
        assert_eq!(pace.deadline(true, at(secs), patience), at(400), "{secs}");
        pace.received(1);
    }
    pace.received(60 * 1024);
    assert_eq!(pace.deadline(true, at(399), patience), at(460));
    pace.done();
    assert_eq!(pace.deadline(true, at(500), patience), at(800));
    assert_eq!(pace.deadline(false, at(600), patience), at(900));
}
