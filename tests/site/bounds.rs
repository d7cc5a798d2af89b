//! What the mailboxes' role does not wait for, and what it has no room for.
//!
//! Owns: timeouts, peers that hang, a stop in the midst of them, full disks, messages nested without end; seen from
//! outside. Called by: `cargo test`.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{DEADLINE, Site, good, python, run, wait_for};

const PASSWORD: &str = "secret-1";
const USER: &str = "u1@example.test";

fn connect(site: &Site, service: &str) -> TcpStream {
    let stream = TcpStream::connect(site.addr(service)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Everything until the other side closes.
fn to_the_end(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn who_is_silent_is_sent_away() {
    let site = Site::start_with(
        "[pop-imap]\nlogin-timeout = \"1s\"\nimap-idle-timeout = \"1s\"\npop3-idle-timeout = \"1s\"\n",
    );
    site.user("u1", PASSWORD);
    let silent = ["imap", "imaps", "pop3", "pop3s"].map(|service| (service, connect(&site, service)));
    // A client that drips octets gains nothing before login.
    let mut dripping = connect(&site, "imap");
    let mut imap = connect(&site, "imap");
    imap.write_all(format!("a LOGIN {USER} {PASSWORD}\r\nb SELECT INBOX\r\nc IDLE\r\n").as_bytes()).unwrap();
    let mut pop3 = connect(&site, "pop3");
    pop3.write_all(format!("USER {USER}\r\nPASS {PASSWORD}\r\n").as_bytes()).unwrap();
    wait_for("the dripping client to be sent away", || dripping.write_all(b"a").is_err(), || site.log_tail());
    for (service, stream) in silent {
        let said = to_the_end(stream);
        assert!(service != "imap" || said.ends_with("* BYE [UNAVAILABLE] Idle for too long\r\n"), "{service}: {said}");
    }
    let said = to_the_end(imap);
    assert!(said.contains("+ idling\r\n") && said.ends_with("* BYE [UNAVAILABLE] Idle for too long\r\n"), "{said}");
    assert!(to_the_end(pop3).contains("+OK"), "{}", site.log_tail());
}

/// Clients that ask for more than their connection holds, and read nothing.
fn who_do_not_read(site: &Site) -> Vec<TcpStream> {
    let big = format!("Subject: big\r\n\r\n{}", "0123456789abcdef\r\n".repeat(400_000));
    let deliver = "import smtplib, sys\nsmtplib.LMTP(sys.argv[1], int(sys.argv[2])).sendmail('a@b.test', [sys.argv[3]], open(sys.argv[4], 'rb').read())";
    let file = site.dir().join("big").display().to_string();
    std::fs::write(&file, big).unwrap();
    good(&python(deliver, &[&site.ip(), &site.port("lmtp"), USER, &file]));
    let mut imap = connect(site, "imap");
    let fetch = "c FETCH 1 BODY[]\r\n".repeat(8);
    imap.write_all(format!("a LOGIN {USER} {PASSWORD}\r\nb SELECT INBOX\r\n{fetch}").as_bytes()).unwrap();
    let mut pop3 = connect(site, "pop3");
    pop3.write_all(format!("USER {USER}\r\nPASS {PASSWORD}\r\n{}", "RETR 1\r\n".repeat(8)).as_bytes()).unwrap();
    let both = || site.log().matches("\"msg\":\"logged in\"").count() == 2;
    wait_for("both to be logged in", both, || site.log_tail());
    vec![imap, pop3]
}

#[test]
fn who_does_not_read_is_given_up() {
    let site = Site::start_with("[pop-imap]\npop3-idle-timeout = \"1s\"\n");
    site.user("u1", PASSWORD);
    let _hanging = who_do_not_read(&site);
    let given_up = || site.log().lines().any(|line| line.contains("\"end\":\"client does not read\""));
    wait_for("POP3 to give the client up", given_up, || site.log_tail());
}

#[test]
fn a_stop_waits_for_no_handshake_and_for_nobody_who_does_not_read() {
    let mut site = Site::start();
    site.user("u1", PASSWORD);
    let mut hanging = who_do_not_read(&site);
    for service in ["imaps", "pop3s"] {
        hanging.push(connect(&site, service));
    }
    for (service, command) in [("imap", "a STARTTLS\r\n"), ("pop3", "STLS\r\n")] {
        let mut stream = connect(&site, service);
        stream.write_all(command.as_bytes()).unwrap();
        // The answer means that the handshake has begun.
        let mut said = String::new();
        let mut buffer = [0; 512];
        while !said.contains("a OK") && said.matches("+OK").count() < 2 {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{said}");
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        hanging.push(stream);
    }
    assert!(site.stop(), "{}", site.log_tail());
    assert!(!site.log().contains("did not end in time"), "{}", site.log_tail());
}

/// A file system of its own, unmounted when the test ends.
struct Small(String);

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0], b"");
    }
}

#[test]
fn append_and_lmtp_are_refused_on_a_full_disk_and_go_on_when_there_is_room() {
    let mut site = Site::prepare("");
    std::fs::create_dir(site.state()).unwrap();
    let state = site.state().display().to_string();
    good(&run("mount", &["-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", &state], b""));
    let _small = Small(state.clone());
    site.launch();
    site.user("u1", PASSWORD);
    let both = |expected: &str| {
        let script = r#"
import imaplib, smtplib, sys
ip, imap, lmtp, user, password, expected = sys.argv[1:]
client = imaplib.IMAP4(ip, int(imap), timeout=30); client.login(user, password)
kind, text = client.append("Drafts", None, None, b"Subject: d\r\n\r\nx\r\n")
try:
    smtplib.LMTP(ip, int(lmtp), timeout=30).sendmail("a@b.test", [user], b"Subject: l\r\n\r\nx\r\n")
    code = 250
except smtplib.SMTPDataError as error:
    code = error.smtp_code
said = "%s %s %s" % (kind, "OVERQUOTA" in str(text), code)
assert said == expected, (said, expected)
client.select("Drafts"); print(client.search(None, "ALL")[1][0].decode())
"#;
        python(script, &[&site.ip(), &site.port("imap"), &site.port("lmtp"), USER, PASSWORD, expected])
    };
    assert_eq!(good(&both("OK False 250")).trim(), "1");
    let disk = nix::sys::statvfs::statvfs(state.as_str()).unwrap();
    let free = usize::try_from(disk.blocks_available() * disk.fragment_size()).unwrap();
    let ballast = site.state().join("ballast");
    std::fs::write(&ballast, vec![0; free.saturating_sub(256 << 10)]).unwrap();
    assert_eq!(good(&both("NO True 452")).trim(), "1");
    std::fs::remove_file(&ballast).unwrap();
    wait_for("room to be used again", || both("OK False 250").status.success(), || site.log_tail());
    let status = site.status();
    assert!(status["roles"].as_array().unwrap().iter().all(|role| role["restarts"] == 0), "{status}");
    site.kill_all();
}

#[test]
fn a_message_nested_without_end_is_delivered_shown_and_searched() {
    let site = Site::start();
    site.user("u1", PASSWORD);
    let script = r#"
import imaplib, smtplib, sys
imaplib._MAXLINE = 100_000_000
ip, imap, lmtp, user, password = sys.argv[1:]
levels = 20000
inside = b"Content-Type: message/rfc822\r\n\r\n"
mixed = b"".join(b'Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n' % (n, n) for n in range(levels))
both = b"".join(b'Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\nContent-Type: message/rfc822\r\n\r\n' % (n, n) for n in range(levels))
messages = [inside * levels + b"\r\nneedle\r\n", mixed + b"\r\nneedle\r\n", both + b"\r\nneedle\r\n",
    b"From: " + b"(" * 100000 + b"\r\nContent-Type: text/plain; x=" + b"(" * 100000 + b"\r\n\r\nneedle\r\n",
    b"Subject: " + b"=?utf-8?q?=3D?= " * 50000 + b"\r\n\r\nneedle\r\n"]
with smtplib.LMTP(ip, int(lmtp), timeout=60) as server:
    for message in messages:
        assert not server.sendmail("a@b.test", [user], message)
client = imaplib.IMAP4(ip, int(imap), timeout=60); client.login(user, password); client.select()
for number, message in enumerate(messages, 1):
    for items in ["(ENVELOPE BODYSTRUCTURE)", "(BODY.PEEK[" + ".".join(["1"] * 40) + "])", "(BODY.PEEK[HEADER])"]:
        kind, data = client.fetch(str(number), items)
        assert kind == "OK" and data != [None], (number, items, data)
    kind, data = client.fetch(str(number), "(BODY.PEEK[])")
    assert data[0][1].endswith(message), number
for key in [("TEXT", "needle"), ("BODY", "nowhere"), ("HEADER", "Content-Type", "rfc822")]:
    kind, data = client.search(None, *key)
    assert kind == "OK", (key, data)
assert client.search(None, "TEXT", "needle")[1][0].split()[-2:] == [b"4", b"5"]
"#;
    good(&python(script, &[&site.ip(), &site.port("imap"), &site.port("lmtp"), USER, PASSWORD]));
    let status = site.status();
    assert!(status["roles"].as_array().unwrap().iter().all(|role| role["restarts"] == 0), "{status}");
    assert!(!site.log().contains("panicked"), "{}", site.log_tail());
}
