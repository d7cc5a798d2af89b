//! POP3 from Python, curl, fetchmail and a raw socket.
//!
//! Owns: what POP3 promises, seen from outside. Called by: `cargo test`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{DEADLINE, Site, good, python, run, text, wait_for};

/// A site whose `u1@example.test` has so many messages, "Subject: 1" and on.
fn site_with_mail(messages: usize) -> Site {
    let site = Site::start();
    site.user("u1", "pass word");
    deliver(&site, 1, messages);
    site
}

fn deliver(site: &Site, first: usize, last: usize) {
    let script = r#"
import smtplib, sys
server = smtplib.LMTP(sys.argv[1], int(sys.argv[2]))
for number in range(int(sys.argv[3]), int(sys.argv[4]) + 1):
    server.sendmail("a@other.test", ["u1@example.test"], b"Subject: %d\r\n\r\n.one\r\ntwo\r\n" % number)
server.quit()
"#;
    let (first, last) = (first.to_string(), last.to_string());
    good(&python(script, &[&site.ip(), &site.port("lmtp"), &first, &last]));
}

fn pop(script: &str, site: &Site) -> String {
    let script = format!("import poplib, ssl, sys\nhost, port = sys.argv[1], int(sys.argv[2])\n{script}");
    good(&python(&script, &[&site.ip(), &site.port("pop3"), &site.port("pop3s")]))
}

#[test]
fn poplib_reads_and_deletes() {
    let site = site_with_mail(5);
    pop(
        r#"
def login():
    pop = poplib.POP3(host, port, timeout=60)
    pop.user("u1@example.test"); pop.pass_("pass word")
    return pop
def subjects(pop):
    return [next(line for line in pop.top(number, 0)[1] if line.startswith(b"Subject:")) for number in range(1, pop.stat()[0] + 1)]
pop = login()
assert subjects(pop) == [b"Subject: %d" % n for n in (1, 2, 3, 4, 5)]
uidl = pop.uidl()[1]
assert len(uidl) == 5 and len(set(line.split()[1] for line in uidl)) == 5, uidl
sizes = pop.list()[1]
for number in range(1, 6):
    lines = pop.retr(number)[1]
    assert lines[-2:] == [b".one", b"two"], lines
    assert int(sizes[number - 1].split()[1]) == sum(len(line) + 2 for line in lines)
assert pop.top(1, 1)[1][-2:] == [b"", b".one"]
assert set(pop.capa()) >= {"TOP", "UIDL", "SASL", "RESP-CODES", "PIPELINING", "IMPLEMENTATION"}

# One session a maildrop.
other = poplib.POP3(host, port, timeout=60)
other.user("u1@example.test")
try:
    other.pass_("pass word"); assert False
except poplib.error_proto as error:
    assert b"[IN-USE]" in error.args[0], error
other.close()

# Deleted at QUIT only.
pop.dele(2)
pop.close()
import time
deadline = time.monotonic() + 60
while True:
    try:
        pop = login(); break
    except poplib.error_proto as error:
        assert b"[IN-USE]" in error.args[0] and time.monotonic() < deadline, error
assert pop.uidl()[1] == uidl
pop.dele(2); pop.dele(4); pop.dele(5); pop.rset(); pop.dele(1); pop.dele(3)
assert pop.quit().startswith(b"+OK")
pop = login()
assert subjects(pop) == [b"Subject: 2", b"Subject: 4", b"Subject: 5"]
kept = [line.split()[1] for line in uidl if line.split()[0] in (b"2", b"4", b"5")]
assert [line.split()[1] for line in pop.uidl()[1]] == kept, "unique ids stay"
pop.quit()
"#,
        &site,
    );
}

#[test]
fn the_maildrop_is_free_when_quit_is_answered() {
    let site = site_with_mail(1);
    pop(
        r#"
for _ in range(50):
    pop = poplib.POP3(host, port, timeout=60)
    pop.user("u1@example.test"); pop.pass_("pass word")
    assert pop.quit().startswith(b"+OK")
"#,
        &site,
    );
}

#[test]
fn what_was_deleted_stays_deleted_after_kill() {
    let site = site_with_mail(3);
    pop(
        r#"
pop = poplib.POP3(host, port, timeout=60)
pop.user("u1@example.test"); pop.pass_("pass word")
pop.dele(2)
assert pop.quit().startswith(b"+OK")
"#,
        &site,
    );
    let former = site.kill_role("pop-imap");
    wait_for("the role to be back", || site.role_pid("pop-imap").is_some_and(|pid| pid != former), || site.log_tail());
    site.wait_healthy();
    deliver(&site, 4, 4);
    pop(
        r#"
pop = poplib.POP3(host, port, timeout=60)
pop.user("u1@example.test"); pop.pass_("pass word")
found = [line for number in range(1, pop.stat()[0] + 1) for line in pop.retr(number)[1] if line.startswith(b"Subject:")]
assert found == [b"Subject: 1", b"Subject: 3", b"Subject: 4"], found
pop.quit()
"#,
        &site,
    );
}

#[test]
fn poplib_logs_in_over_tls() {
    let site = site_with_mail(1);
    pop(
        r#"
trust = ssl._create_unverified_context()
pop = poplib.POP3(host, port, timeout=60)
pop.stls(trust)
assert "STLS" not in pop.capa()
pop.user("u1@example.test"); pop.pass_("pass word")
assert pop.stat()[0] == 1
pop.quit()
pop = poplib.POP3_SSL(host, int(sys.argv[3]), timeout=60, context=trust)
pop.user("u1@example.test"); pop.pass_("pass word")
assert pop.retr(1)[1][-1] == b"two"
pop.quit()
"#,
        &site,
    );
}

#[test]
fn curl_lists_and_reads() {
    let site = site_with_mail(2);
    let (plain, tls) = (format!("pop3://{}", site.at("pop3")), format!("pop3s://{}", site.at("pop3s")));
    let user = ["-sS", "--user", "u1@example.test:pass word", "--insecure"];
    let curl = |more: &[&str]| {
        let args: Vec<&str> = user.iter().chain(more).copied().collect();
        good(&run("curl", &args, b""))
    };
    for list in [
        curl(&[&plain]),
        curl(&[&tls]),
        curl(&["--ssl-reqd", &plain]),
        curl(&["--login-options", "AUTH=PLAIN", &plain]),
    ] {
        let numbers: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(numbers, ["1", "2"], "{list}");
    }
    let message = curl(&[&format!("{tls}/2")]);
    assert!(message.starts_with("Return-Path: <a@other.test>\r\nDelivered-To: u1@example.test\r\n"), "{message}");
    assert!(message.ends_with("\r\nSubject: 2\r\n\r\n.one\r\ntwo\r\n"), "{message}");
    let wrong = run("curl", &["-sS", "--user", "u1@example.test:wrong", &plain], b"");
    assert!(!wrong.status.success(), "{}", text(&wrong));
}

#[test]
fn fetchmail_fetches_over_stls_and_deletes() {
    let site = site_with_mail(3);
    let (taken, control) = (site.dir().join("taken"), site.dir().join("fetchmailrc"));
    let rules = format!(
        "poll {ip} service {port} protocol POP3 uidl user 'u1@example.test' password 'pass word' ssl no sslproto 'TLS1+' no sslcertck fetchall mda 'cat >> {taken}'\n",
        ip = site.ip(),
        port = site.port("pop3"),
        taken = taken.display(),
    );
    std::fs::write(&control, rules.replace("ssl no ", "")).unwrap();
    std::fs::set_permissions(&control, PermissionsExt::from_mode(0o600)).unwrap();
    let output = Command::new("timeout")
        .args([
            "60",
            "fetchmail",
            "-f",
            control.to_str().unwrap(),
            "--pidfile",
            site.dir().join("pid").to_str().unwrap(),
        ])
        .env("FETCHMAILHOME", site.dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output), site.log_tail());
    let taken = std::fs::read_to_string(taken).unwrap();
    for number in 1..=3 {
        assert!(taken.contains(&format!("Subject: {number}\n\n.one\ntwo\n")), "{taken}");
    }
    let left =
        run("curl", &["-sS", "--user", "u1@example.test:pass word", &format!("pop3://{}", site.at("pop3"))], b"");
    assert_eq!(good(&left).trim(), "");
}

#[test]
fn hostile_clients_get_errors_and_nothing_else() {
    let site = site_with_mail(1);
    let connect = || {
        let stream = TcpStream::connect(site.addr("pop3")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut reader = BufReader::new(stream);
        let mut greeting = String::new();
        reader.read_line(&mut greeting).unwrap();
        assert!(greeting.starts_with("+OK "), "{greeting}");
        reader
    };
    let said = |mut reader: BufReader<TcpStream>| {
        let mut lines = Vec::new();
        let mut line = String::new();
        // A connection that was closed with input unread ends in an error.
        while reader.read_line(&mut line).is_ok_and(|octets| octets > 0) {
            lines.push(std::mem::take(&mut line));
        }
        lines
    };
    // A command injected behind STLS in clear text (as in CVE-2011-0411).
    let mut reader = connect();
    reader.get_mut().write_all(b"STLS\r\nUSER u1@example.test\r\nPASS pass word\r\n").unwrap();
    assert_eq!(said(reader), ["-ERR nothing may follow STLS before the handshake\r\n"]);
    // A line without end: bounded memory, then the protocol's error.
    let mut reader = connect();
    reader.get_mut().write_all(&b"x".repeat(10_000_000)).unwrap();
    reader.get_mut().write_all(b"\r\nQUIT\r\n").unwrap();
    assert_eq!(said(reader), ["-ERR line too long\r\n", "+OK bye\r\n"]);
    // Another protocol.
    let mut reader = connect();
    reader.get_mut().write_all(&b"GET / HTTP/1.1\r\n".repeat(20)).unwrap();
    assert_eq!(said(reader).last().map(String::as_str), Some("-ERR too many errors\r\n"));
    // Guesses: the third ends the session.
    let mut reader = connect();
    reader.get_mut().write_all(&b"USER u1@example.test\r\nPASS wrong\r\n".repeat(4)).unwrap();
    let lines = said(reader);
    assert_eq!(lines.iter().filter(|line| line.starts_with("-ERR [AUTH]")).count(), 3, "{lines:?}");
    // Pipelined from start to end.
    let mut reader = connect();
    let all = b"USER u1@example.test\r\nPASS pass word\r\nSTAT\r\nRETR 1\r\nRETR 2\r\nQUIT\r\n";
    reader.get_mut().write_all(all).unwrap();
    let lines = said(reader);
    assert!(lines.iter().any(|line| line == "..one\r\n"), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("+OK bye\r\n"), "{lines:?}");
}

#[test]
fn a_client_that_drips_is_sent_away_before_login() {
    let site = Site::start_with("[pop-imap]\nlogin-timeout = \"1s\"\n");
    let mut stream = TcpStream::connect(site.addr("pop3")).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // One octet now and then is no silence, but no login either.
    wait_for(
        "the connection to be closed",
        || {
            let broken = stream.write_all(b"U").is_err();
            let read = stream.read(&mut [0; 100]);
            broken
                || match read {
                    Ok(octets) => octets == 0,
                    Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                }
        },
        || site.log_tail(),
    );
}
