//! Backoff, what a reload changes, sockets, the state directory, certificates, merged metrics.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::backoff::Backoff;
use super::plan::{Change, Plan, PlanError, Source};
use super::sockets::{Access, Sockets};
use super::state::{StateDir, StateError};
use super::{boot, certificate, control, observe, status};
use crate::config::address::SocketAddress;
use crate::config::hosts::Role;
use crate::config::load::parse;
use crate::net::tls::{Acceptor, Pem};

#[test]
fn a_role_is_started_at_once_then_ever_later_and_a_good_run_forgives() {
    let mut backoff = Backoff::default();
    let mut check = |uptime_secs, wait_secs| {
        assert_eq!(backoff.after(Duration::from_secs(uptime_secs)), Duration::from_secs(wait_secs));
    };
    for wait in [0, 1, 2, 4, 8, 16, 30, 30, 30] {
        check(0, wait);
    }
    check(59, 30); // not quite a good run
    check(60, 0);
    check(5, 1);
}

/// The plan of one host with these roles and this text behind it.
fn plan(state: &Path, roles: &str, more: &str) -> Plan {
    try_plan(state, roles, more).unwrap_or_else(|error| panic!("{error}"))
}

fn try_plan(state: &Path, roles: &str, more: &str) -> Result<Plan, PlanError> {
    fs::create_dir_all(state.join("tls")).unwrap();
    let text = format!("[site]\nname = \"s\"\ndomain = \"example.test\"\n[hosts.mail1]\nroles = {roles}\n{more}\n");
    let config = state.join("fife.toml");
    let source = Source { config: config.clone(), host: None, state_dir: state.to_owned(), stand_in: None };
    source.plan(&parse(&config, &text, &[]).map_err(PlanError::Faults)?)
}

const ALL: &str = r#"["ldap-proxy", "pop-imap", "smtp"]"#;

#[test]
fn a_reload_touches_only_what_the_file_changed() {
    let dir = tempfile::tempdir().unwrap();
    let old = plan(dir.path(), ALL, "");
    let check = |roles: &str, more: &str, expected: Change| {
        assert_eq!(Change::between(&old, &plan(dir.path(), roles, more)), expected, "{roles} {more}");
    };
    let one = |text: &str| BTreeSet::from([text.parse::<SocketAddress>().unwrap()]);
    let restart = |role: Role| Change { restart: vec![role], ..Change::default() };
    check(ALL, "", Change::default());
    check(ALL, "[smtp]\nrecipients-max = 500", restart(Role::Smtp));
    check(ALL, "[hosts.mail1.pop-imap]\nconnections-max = 5", restart(Role::PopImap));
    check(ALL, "[ldap-proxy]\nsearch-entries-max = 5", restart(Role::LdapProxy));
    let all = || Change { restart: Role::ALL.to_vec(), ..Change::default() };
    check(ALL, "[directory]\nbase = \"o=other\"", all());
    // The supervisor's own listener concerns no role.
    let metrics = Change { bind: one("127.0.0.1:9091"), close: one("127.0.0.1:9090"), ..Change::default() };
    check(ALL, "[metrics]\nlisten = [\"127.0.0.1:9091\"]", metrics);
    let moved =
        Change { bind: one("127.0.0.1:26"), close: one("[::]:25"), restart: vec![Role::Smtp], ..Change::default() };
    check(ALL, "[smtp]\nlisten = [\"127.0.0.1:26\"]", moved);
    let backup = format!("unix:{}", dir.path().join("run/smtp.backup.sock").display());
    let of_smtp = ["[::]:25", "[::]:587", "[::]:465", &backup].into_iter().flat_map(one).collect();
    let gone = Change { close: of_smtp, stop: vec![Role::Smtp], ..Change::default() };
    check(r#"["ldap-proxy", "pop-imap"]"#, "", gone);
    // What every line carries concerns every role.
    check(ALL, "[log]\nlevel = \"debug\"", all());
}

#[test]
fn a_role_that_comes_brings_its_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let (few, all) = (plan(dir.path(), r#"["ldap-proxy", "pop-imap"]"#, ""), plan(dir.path(), ALL, ""));
    let change = Change::between(&few, &all);
    assert_eq!((change.start, change.restart, change.bind.len()), (vec![Role::Smtp], vec![], 4));
}

#[test]
fn a_certificate_that_does_not_fit_its_key_is_no_plan() {
    let dir = tempfile::tempdir().unwrap();
    let make = || rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    let (one, other) = (make(), make());
    fs::write(dir.path().join("c.pem"), one.cert.pem()).unwrap();
    let with_key = |key: String| {
        fs::write(dir.path().join("k.pem"), key).unwrap();
        try_plan(dir.path(), ALL, "[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"")
    };
    let error = with_key(other.signing_key.serialize_pem()).unwrap_err().to_string();
    assert!(error.contains("no pair"), "{error}");
    let good = with_key(one.signing_key.serialize_pem()).unwrap();
    assert_eq!(good.roles[&Role::Smtp].tls.certificate, one.cert.pem());
    assert!(!dir.path().join("tls/key.pem").exists(), "none is made where one is given");
}

/// Is the certificate one for this name, at this time?
fn holds(pem: &Pem, name: &str) -> bool {
    let certificate = CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = rustls::crypto::ring::default_provider().into();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::now();
    rustls::client::danger::ServerCertVerifier::verify_server_cert(
        verifier.build().unwrap().as_ref(),
        &certificate,
        &[],
        &name,
        &[],
        now,
    )
    .is_ok()
}

#[test]
fn a_self_signed_certificate_names_the_host_and_is_kept_until_names_change() {
    let dir = tempfile::tempdir().unwrap();
    let tls = |roles: &str, more: &str| plan(dir.path(), roles, more).roles[&Role::Smtp].tls.clone();
    let first = tls(ALL, "[metrics]\nlisten = [\"192.0.2.7:1\"]");
    for name in ["mail1.example.test", "example.test", "localhost", "192.0.2.7", "127.0.0.1", "::1"] {
        assert!(holds(&first, name), "{name}");
    }
    assert!(!holds(&first, "other.test"));
    assert_eq!(tls(ALL, "[metrics]\nlisten = [\"192.0.2.7:2\"]"), first, "kept");
    let renamed = tls(ALL, "[smtp]\nhostname = \"mx.example.test\"");
    assert!(holds(&renamed, "mx.example.test") && renamed != first);
    for file in ["key.pem", "certificate.pem", "made.json"] {
        let mode = fs::metadata(dir.path().join("tls").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_certificate_is_made_anew_when_it_is_damaged_or_old_or_made_by_a_clock_that_was_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let names = BTreeSet::from(["mail1.example.test".to_owned()]);
    let first = certificate::self_signed(dir.path(), &names).unwrap();
    fs::write(dir.path().join("key.pem"), "cut off by a power failure").unwrap();
    let second = certificate::self_signed(dir.path(), &names).unwrap();
    assert!(second != first && Acceptor::from_pem(&second).is_ok());
    let path = dir.path().join("made.json");
    // Kept while its life has more than thirty days left, and an hour less is too old; more than its whole life and a day cannot be.
    for (hours_left, kept) in [(30 * 24 + 1, true), (30 * 24 - 1, false), (825 * 24 + 23, true), (825 * 24 + 25, false)]
    {
        let before = certificate::self_signed(dir.path(), &names).unwrap();
        let mut made: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        made["expires"] = (crate::base::clock::unix_secs() + hours_left * 3600).into();
        fs::write(&path, made.to_string()).unwrap();
        assert_eq!(certificate::self_signed(dir.path(), &names).unwrap() == before, kept, "{hours_left}");
    }
}

/// No address is waited for.
fn now() -> std::time::Instant {
    crate::base::clock::monotonic()
}

fn address(text: &str) -> SocketAddress {
    text.parse().unwrap()
}

#[test]
fn every_address_that_cannot_be_had_is_told_and_none_is_kept() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SocketAddress::Tcp(listener.local_addr().unwrap())
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    let wanted = [address(&taken), free.clone(), address("192.0.2.1:1"), SocketAddress::Unix(file.clone())];
    let mut sockets = Sockets::default();
    let told = sockets.bind(wanted.map(|address| (address, Access::Own)), now()).unwrap_err().to_string();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains(&format!("cannot listen on {taken}: ")) && told.contains("another program listens there"));
    assert!(told.contains("192.0.2.1:1: ") && told.contains("does not have the address"), "{told}");
    assert!(told.contains("a file that is no socket lies there"), "{told}");
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    assert!(sockets.get(&free).is_none());
    sockets.bind([(free, Access::Own)], now()).unwrap();
}

#[test]
fn a_stale_unix_socket_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sockets = Sockets::default();
    let wanted = || [(SocketAddress::Unix(path.clone()), Access::Own)];
    let living = UnixListener::bind(&path).unwrap();
    let told = sockets.bind(wanted(), now()).unwrap_err().to_string();
    assert!(told.contains("another process answers"), "{told}");
    drop(living);
    sockets.bind(wanted(), now()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    sockets.bind(wanted(), now()).unwrap(); // bound already: left as it is
    UnixStream::connect(&path).unwrap();
    sockets.close_all();
    assert!(!path.exists());
}

#[test]
fn clients_wait_in_the_backlog_while_nobody_accepts() {
    let mut sockets = Sockets::default();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    sockets.bind([(SocketAddress::Tcp(free), Access::Roles)], now()).unwrap();
    let mut client = TcpStream::connect(free).unwrap();
    client.write_all(b"early").unwrap();
    let fd = sockets.get(&SocketAddress::Tcp(free)).unwrap().try_clone_to_owned().unwrap();
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(false).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    let mut said = [0; 5];
    served.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"early");
}

#[test]
fn two_supervisors_never_share_a_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let state = dir.path().join("state");
    let first = StateDir::prepare(&state).unwrap();
    assert!(matches!(StateDir::prepare(&state), Err(StateError::Taken(_))));
    first.prepare_role(Role::Smtp).unwrap();
    let mode = |path: &str| fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("run"), mode("tls"), mode("smtp")], [0o711, 0o711, 0o700, 0o700]);
    drop(first);
    StateDir::prepare(&state).unwrap();
}

#[test]
fn a_state_directory_behind_a_closed_door_is_shown_to_roles_elsewhere() {
    if crate::net::identity::own_uid() != 0 {
        return; // Roles run as we do then, and reach what we reach.
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    match StateDir::prepare(&dir.path().join("state")) {
        Ok(state) => assert_eq!(state.path_for_roles(), Path::new("/mnt")),
        // Root without the right to mount (a container) is told which door it is.
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains(&format!("{} has mode 700", dir.path().display())), "{told}");
        }
    }
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let open = dir.path().join("open");
    assert_eq!(StateDir::prepare(&open).unwrap().path_for_roles(), open);
}

#[test]
fn a_role_is_told_the_addresses_of_this_machine() {
    assert!(super::process::addresses().contains(&std::net::Ipv4Addr::LOCALHOST.into()));
}

#[test]
fn metrics_of_several_roles_become_one_valid_text() {
    let one =
        "# HELP a_total As.\n# TYPE a_total counter\na_total{role=\"smtp\"} 1\n# HELP b Bs.\n# TYPE b gauge\nb 2\n";
    let other = "# HELP a_total As.\n# TYPE a_total counter\na_total{role=\"pop-imap\"} 3\n\n# comment\n";
    let merged = observe::merge(&[one.to_owned(), other.to_owned(), String::new()]);
    let expected = "# HELP a_total As.\n# TYPE a_total counter\na_total{role=\"smtp\"} 1\na_total{role=\"pop-imap\"} 3\n\
                    # HELP b Bs.\n# TYPE b gauge\nb 2\n";
    assert_eq!(merged, expected);
}

#[test]
fn the_clocks_metrics_are_told_where_there_is_one_and_what_is_not_known_is_not() {
    let clock = |answered: bool| boot::clock::Report {
        unix_secs: 1_795_509_000,
        source: boot::clock::Source::Servers,
        synchronised: answered,
        offset_secs: answered.then_some(-0.25),
        answer_age_secs: answered.then_some(42),
        servers: Vec::new(),
        troubles: Vec::new(),
    };
    let text = |clock: Option<boot::clock::Report>| {
        let status = status::Status {
            host: "mail1".to_owned(),
            version: "1".to_owned(),
            pid: 1,
            uptime_secs: 0,
            state_dir: "/data".to_owned(),
            good: true,
            roles: Vec::new(),
            disk: None,
            metrics: Vec::new(),
            network: None,
            clock,
            mounts: Vec::new(),
        };
        observe::own_metrics(&status).unwrap()
    };
    assert!(!text(None).contains("clock"));
    let silent = text(Some(clock(false)));
    assert!(silent.contains("fife_supervisor_clock_synchronised 0\n") && !silent.contains("offset"), "{silent}");
    let right = text(Some(clock(true)));
    for line in [
        "# TYPE fife_supervisor_clock_offset_seconds gauge\n",
        "fife_supervisor_clock_synchronised 1\n",
        "fife_supervisor_clock_offset_seconds -0.25\n",
        "fife_supervisor_clock_answer_age_seconds 42\n",
    ] {
        assert!(right.contains(line), "{line}: {right}");
    }
}

#[test]
fn requests_and_replies_cross_the_control_socket() {
    let check = |request: control::Request, expected: &str| {
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<control::Request>(&text).unwrap(), request);
    };
    check(control::Request::Status, r#"{"command":"status"}"#);
    check(control::Request::SetTime { unix_secs: 5 }, r#"{"command":"set-time","unix_secs":5}"#);
    let done = serde_json::to_string(&control::Reply::Done("so".to_owned())).unwrap();
    assert_eq!(done, r#"{"reply":"done","content":"so"}"#);
}

#[test]
fn resident_memory_is_read_from_proc() {
    let check = |text: &str, expected: Option<u64>| assert_eq!(status::parse_rss(text), expected, "{text:?}");
    check("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n", Some(2 << 20));
    check("Name:\tx\n", None); // a zombie has none
    check("VmRSS:\t18446744073709551615 kB\n", None);
    assert!(status::rss_bytes(std::process::id()).unwrap() > 1 << 16);
    assert_eq!(status::rss_bytes(0), None);
}

#[test]
fn hosts_of_a_site_make_one_authority_and_certificates_of_their_own() {
    let secret = |text: &str| crate::config::secret::SecretText::new(text.to_owned());
    let make =
        |dir: &Path, site: &str, host: &str, text: &str| super::site::tls(dir, site, host, &secret(text)).unwrap();
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (make(one.path(), "s", "a", "sixteen letters."), make(other.path(), "s", "b", "sixteen letters."));
    assert_eq!(a.authority, b.authority);
    assert_ne!(a.own, b.own);
    // Kept: a reload without a change restarts nobody.
    assert_eq!(make(one.path(), "s", "a", "sixteen letters."), a);
    // Another secret, another site: another authority, and nothing of the old certificate stays.
    for (site, text) in [("s", "Sixteen letters."), ("t", "sixteen letters.")] {
        let changed = make(one.path(), site, "a", text);
        assert_ne!(changed.authority, a.authority);
        assert_ne!(changed.own, a.own);
    }
    assert!(!a.own.certificate.contains("PRIVATE") && !format!("{a:?}").contains("PRIVATE"));
}
