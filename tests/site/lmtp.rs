//! Mail in by LMTP from swaks and Python, read back by POP3; kill -9 in between.
//!
//! Owns: what LMTP promises, seen from outside. Called by: `cargo test`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::harness::{DEADLINE, Site, good, python, run, text, wait_for};

/// Python: reads all of a maildrop, each message without the trace that LMTP put before it.
const READ_ALL: &str = r#"
import poplib, re, sys
TRACE = re.compile(rb"Return-Path: <[^\r\n]*>\r\nDelivered-To: [^\r\n]+\r\nReceived: from [^\r\n]+\r\n(?:\t[^\r\n]+\r\n)+")
def read_all(host, port, user, password):
    pop = poplib.POP3(host, int(port), timeout=60)
    poplib._MAXLINE = 1 << 20
    pop.user(user); pop.pass_(password)
    found = []
    for number in range(1, pop.stat()[0] + 1):
        answer, lines, _ = pop.retr(number)
        raw = b"".join(line + b"\r\n" for line in lines)
        size = int(answer.split()[1])
        assert size == len(raw), (size, len(raw))
        trace = TRACE.match(raw)
        assert trace, raw[:400]
        found.append(raw[trace.end():])
    pop.quit()
    return found
"#;

fn python_pop(script: &str, site: &Site, more: &[&str]) -> String {
    let (ip, pop3, lmtp) = (site.ip(), site.port("pop3"), site.port("lmtp"));
    let mut args = vec![ip.as_str(), &pop3, &lmtp];
    args.extend(more);
    good(&python(&format!("{READ_ALL}\n{script}"), &args))
}

#[test]
fn swaks_delivers_by_tcp_and_by_unix_socket() {
    let site = Site::start();
    site.user("u1", "password");
    let socket = site.state().join("run/lmtp.sock").display().to_string();
    let (ip, port) = (site.ip(), site.port("lmtp"));
    for way in [vec!["--server", &ip, "--port", &port], vec!["--socket", &socket]] {
        let mut args = vec!["--protocol", "LMTP", "--from", "sender@other.test", "--to", "u1@example.test"];
        args.extend(["--header", "Subject: by swaks", "--body", ".a dot\nand more"]);
        args.extend(way);
        let output = run("swaks", &args, b"");
        assert!(output.status.success(), "{}\n{}", text(&output), site.log_tail());
        assert!(String::from_utf8_lossy(&output.stdout).contains("250 2.0.0 <u1@example.test>"), "{}", text(&output));
    }
    let nobody = ["--protocol", "LMTP", "--server", &ip, "--port", &port, "--to", "nobody@example.test"];
    let output = run("swaks", &nobody, b"");
    assert!(String::from_utf8_lossy(&output.stdout).contains("550 5.1.1"), "{}", text(&output));
    python_pop(
        r#"
found = read_all(sys.argv[1], sys.argv[2], "u1@example.test", "password")
assert len(found) == 2, found
for message in found:
    assert b"Subject: by swaks\r\n" in message and b"\r\n.a dot\r\nand more\r\n" in message, message
"#,
        &site,
        &[],
    );
}

#[test]
fn what_goes_in_comes_out_octet_for_octet() {
    let site = Site::start();
    site.user("u1", "password");
    let socket = site.state().join("run/lmtp.sock").display().to_string();
    python_pop(
        r#"
import smtplib
head = b"From: a@other.test\r\nSubject: x\r\n\r\n"
messages = [
    b"\r\n", b"no header at all\r\n", head, head + b"\r\n\r\n",
    head + b".\r\n..\r\n...\r\n.a\r\n", head + b"a\r\n.\r\nb\r\n",
    head + "用户 üöä\r\n".encode(), head + bytes(range(128, 256)) + b"\r\n",
    head + b"x" * 998 + b"\r\n" + b"y" * 900 + b"\r\n", head + b"tab\tand \x01 control\r\n",
    head + b"0123456789abcdef\r\n" * 200000,
]
sent = []
for server in [smtplib.LMTP(sys.argv[4]), smtplib.LMTP(sys.argv[1], int(sys.argv[3]))]:
    for message in messages:
        refused = server.sendmail("sender@other.test", ["u1@example.test"], message, ["BODY=8BITMIME"])
        assert not refused, refused
        sent.append(message)
    server.quit()
found = read_all(sys.argv[1], sys.argv[2], "u1@example.test", "password")
assert len(found) == len(sent), (len(found), len(sent))
for number, (a, b) in enumerate(zip(sent, found)):
    assert a == b, (number, a[:300], b[:300])
"#,
        &site,
        &[&socket],
    );
}

/// A raw connection, for what clients do not say by themselves.
struct Raw(BufReader<TcpStream>);

impl Raw {
    fn connect(site: &Site, service: &str) -> Self {
        let stream = TcpStream::connect(site.addr(service)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, octets: &[u8]) {
        self.0.get_mut().write_all(octets).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The last line of the next reply.
    fn reply(&mut self) -> String {
        loop {
            let line = self.line();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }
}

#[test]
fn each_recipient_gets_a_reply_and_nothing_is_smuggled() {
    let site = Site::start();
    site.user("u1", "password");
    site.user("u2", "password");
    let mut raw = Raw::connect(&site, "lmtp");
    assert!(raw.reply().starts_with("220 "));
    // Everything that may be pipelined in one piece.
    raw.send(b"LHLO client.test\r\nMAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<x@example.test>\r\nRCPT TO:<u2@example.test>\r\nDATA\r\n");
    let replies: Vec<String> = (0..6).map(|_| raw.reply()).collect();
    let codes: Vec<&str> = replies.iter().map(|reply| &reply[..4]).collect();
    assert_eq!(codes, ["250 ", "250 ", "250 ", "550 ", "250 ", "354 "], "{replies:?}");
    raw.send(b"Subject: two\r\n\r\nx\r\n.\r\n");
    assert!(raw.reply().starts_with("250 2.0.0 <u1@example.test>"));
    assert!(raw.reply().starts_with("250 2.0.0 <u2@example.test>"));
    // Chunks, then text that another server might read as two messages.
    raw.send(b"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 9\r\nA: b\r\n\r\n.BDAT 2 LAST\r\n\r\n");
    let replies: Vec<String> = (0..4).map(|_| raw.reply()).collect();
    assert!(replies[3].starts_with("250 2.0.0 <u1@example.test>"), "{replies:?}");
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r\n\0.\r\n"] {
        let text = format!(
            "Subject: first\r\n\r\nx{end}MAIL FROM:<forged@example.test>\r\nRCPT TO:<u2@example.test>\r\nDATA\r\nforged\r\n.\r\n"
        );
        raw.send(b"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n");
        let replies: Vec<String> = (0..3).map(|_| raw.reply()).collect();
        assert!(replies[2].starts_with("354 "), "{replies:?}");
        raw.send(text.as_bytes());
        assert!(raw.reply().starts_with("550 5.6.0 "), "{end:?}");
    }
    raw.send(b"QUIT\r\n");
    assert!(raw.reply().starts_with("221 "));
    assert_eq!(raw.line(), "", "closed after QUIT");
    python_pop(
        r#"
one = read_all(sys.argv[1], sys.argv[2], "u1@example.test", "password")
two = read_all(sys.argv[1], sys.argv[2], "u2@example.test", "password")
assert one == [b"Subject: two\r\n\r\nx\r\n", b"A: b\r\n\r\n.\r\n"], one
assert two == [b"Subject: two\r\n\r\nx\r\n"], two
"#,
        &site,
        &[],
    );
}

/// Python: four senders; prints the number of each message that was acknowledged. A connection that breaks is made anew.
const SENDERS: &str = r#"
import smtplib, sys, threading, time
host, port = sys.argv[1], int(sys.argv[2])
stop = time.monotonic() + 60
def send(sender):
    number, server = 0, None
    while number < 250 and time.monotonic() < stop:
        number += 1
        text = b"Subject: %d-%d\r\n\r\nbody\r\n" % (sender, number)
        try:
            if server is None:
                server = smtplib.LMTP(host, port, timeout=20)
            server.sendmail("a@other.test", ["u1@example.test"], text)
            sys.stdout.write("%d-%d\n" % (sender, number)); sys.stdout.flush()
        except (OSError, smtplib.SMTPException):
            server = None
            time.sleep(0.05)
threads = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"#;

#[test]
fn what_was_acknowledged_before_kill_is_there_once() {
    let site = Site::start();
    site.user("u1", "password");
    let mut senders = Command::new("python3")
        .args(["-c", SENDERS, &site.ip(), &site.port("lmtp")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    let mut lines = BufReader::new(senders.stdout.take().unwrap()).lines();
    for (nth, line) in lines.by_ref().enumerate() {
        acknowledged.push(line.unwrap());
        // In the middle of it, three times; the role is back before the next.
        if [100, 300, 500].contains(&nth) {
            let former = site.kill_role("pop-imap");
            wait_for(
                "the role to be back",
                || site.role_pid("pop-imap").is_some_and(|pid| pid != former),
                || site.log_tail(),
            );
        }
    }
    assert!(senders.wait().unwrap().success());
    site.wait_healthy();
    assert!(acknowledged.len() > 600, "{} were acknowledged\n{}", acknowledged.len(), site.log_tail());
    let list = acknowledged.join(",");
    python_pop(
        r#"
found = read_all(sys.argv[1], sys.argv[2], "u1@example.test", "password")
names = [re.match(rb"Subject: (\S+)\r\n\r\nbody\r\n$", message).group(1).decode() for message in found]
wanted = sys.argv[4].split(",")
missing = [name for name in wanted if name not in names]
twice = [name for name in set(names) if names.count(name) > 1]
assert not missing and not twice, (missing, twice)
print(len(wanted), "acknowledged,", len(names), "there")
"#,
        &site,
        &[&list],
    );
}

/// What a server sends that was killed before it had noted the answers: the same octets, for all recipients or for some.
const AGAIN: &str = r#"
import smtplib
def send(text, *to):
    with smtplib.LMTP(sys.argv[1], int(sys.argv[3]), timeout=60) as lmtp:
        refused = lmtp.sendmail("sender@other.test", [name + "@example.test" for name in to], text)
        # smtplib reads one reply; there is one a recipient.
        replies = [lmtp.getreply() for _ in to[1:]]
        assert not refused and all(code == 250 for code, _ in replies), (refused, replies)
received = b"Received: from a.test ([192.0.2.1])\r\n\tby mx.test with ESMTP id %s;\r\n\tTue, 24 Nov 2026 03:00:00 +0800\r\n"
known = (received % b"4711") + b"Subject: known\r\n\r\nx\r\n"
other = (received % b"4712") + b"Subject: known\r\n\r\nx\r\n"
plain = b"Subject: plain\r\n\r\nx\r\n"
"#;

#[test]
fn a_delivery_that_comes_again_after_kill_9_is_not_made_again() {
    let site = Site::start();
    for user in ["u1", "u2"] {
        site.user(user, "password");
    }
    python_pop(&format!("{AGAIN}\nsend(known, 'u1'); send(plain, 'u1', 'u2')"), &site, &[]);
    let former = site.kill_role("pop-imap");
    wait_for("the role to be back", || site.role_pid("pop-imap").is_some_and(|pid| pid != former), || site.log_tail());
    site.wait_healthy();
    // u2 had no answer before the connection was lost.
    let checks = r#"
send(known, "u1", "u2"); send(known, "u2"); send(other, "u1"); send(plain, "u1", "u2")
one = read_all(sys.argv[1], sys.argv[2], "u1@example.test", "password")
two = read_all(sys.argv[1], sys.argv[2], "u2@example.test", "password")
assert one == [known, plain, other, plain], one
assert two == [plain, known, plain], two
"#;
    python_pop(&format!("{AGAIN}\n{checks}"), &site, &[]);
    assert!(site.log().contains("delivered before"), "{}", site.log_tail());
    // By another program, which makes the field itself.
    let (ip, port) = (site.ip(), site.port("lmtp"));
    let data = "Received: by swaks.test with LMTP id 1; Tue, 24 Nov 2026 03:00:00 +0800\nSubject: by swaks\n\nx";
    let args =
        ["--protocol", "LMTP", "--server", &ip, "--port", &port, "--to", "u1@example.test", "--data", data, "--from"];
    for _ in 0..2 {
        good(&run("swaks", &[&args[..], &["a@other.test"]].concat(), b""));
    }
    python_pop(r#"assert len(read_all(sys.argv[1], sys.argv[2], "u1@example.test", "password")) == 5"#, &site, &[]);
}
