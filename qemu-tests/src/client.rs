//! Who answers at a port, and what.
//!
//! Owns: waiting for a greeting, senders that outlive power cuts. Called by: suites; mail itself goes by swaks and Python's imaplib.

use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::guest::Guest;
use crate::wait_for;

/// How long one connection may wait for its greeting. QEMU takes connections before the guest does.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first line that a service says, waited for until it comes.
pub fn greeting(guest: &Guest, port: u16) -> String {
    wait_for(&format!("a greeting at port {port}"), || try_greeting(guest.at(port)), || guest.console.tail())
}

/// What stands on the console once in the life of a site: the first administrator's address and password.
pub fn first_administrator(guest: &Guest) -> (String, String) {
    guest.console.wait("fife: first administrator ");
    let line = guest.console.wait("\n");
    let (address, password) = line.trim().split_once(", password ").expect("an address and a password");
    (address.to_owned(), password.to_owned())
}

/// A greeting, if it comes at once.
#[must_use]
pub fn try_greeting(at: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line).filter(|line| !line.is_empty())
}

/// Sends one message by swaks; what swaks says, and whether the server took it.
#[must_use]
pub fn send(at: SocketAddr, to: &str, subject: &str) -> (bool, String) {
    let subject = format!("Subject: {subject}");
    let output = Command::new("swaks")
        .args(["--server", &at.to_string(), "--from", "a@example.org", "--to", to, "--header", &subject])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Subjects in a mailbox's INBOX, by Python's imaplib.
#[must_use]
pub fn subjects(at: SocketAddr, login: &str, password: &str) -> Vec<String> {
    let script = r"
import imaplib, ssl, sys
imap = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
anybody = ssl.create_default_context()
anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
imap.starttls(anybody)
imap.login(sys.argv[3], sys.argv[4])
imap.select('INBOX', readonly=True)
found = imap.search(None, 'ALL')[1][0].split()
for number in found:
    head = imap.fetch(number, '(BODY.PEEK[HEADER.FIELDS (SUBJECT)])')[1][0][1]
    print(head.decode().split(':', 1)[1].strip())
";
    let output = Command::new("python3")
        .args(["-c", script, &at.ip().to_string(), &at.port().to_string(), login, password])
        .output()
        .unwrap();
    assert!(output.status.success(), "imaplib: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The settings of a machine whose power is cut. Its clients come from another machine, and are not the point: no TLS for them,
/// no questions to DNS.
pub const SETTINGS_UNDER_LOAD: &str = r#"
[site]
name = "school"
domain = "example.test"

[hosts.mail1]
roles = ["ldap-proxy", "pop-imap", "smtp"]

[smtp-authentication]
dmarc = "off"

[pop-imap]
cleartext-login = true
"#;

/// Programs that send mail by SMTP and append it by IMAP, eight at once, and go on whatever happens to the server.
#[derive(Debug)]
pub struct Senders {
    child: Child,
    /// One acknowledged message each.
    lines: Lines<BufReader<ChildStdout>>,
}

impl Senders {
    /// Mail for this account.
    #[must_use]
    pub fn start(guest: &Guest, address: &str, password: &str) -> Self {
        let (smtp, imap) = (guest.at(25).port().to_string(), guest.at(143).port().to_string());
        let mut child = Command::new("python3")
            .arg(crate::image::root().join("tests/site/kill_send.py"))
            .args(["127.0.0.1", &smtp, &imap, address, password, "8"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next message that a server has acknowledged.
    pub fn acknowledged(&mut self) -> String {
        self.lines.next().expect("senders run until told to stop").unwrap()
    }

    /// Stops them; what was acknowledged meanwhile.
    #[must_use]
    pub fn stop(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let rest = self.lines.map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

/// Fails unless all these messages are in the account's INBOX, and none twice. Says how many were found.
#[must_use]
pub fn check_acknowledged(imap: SocketAddr, address: &str, password: &str, acknowledged: &[String]) -> String {
    let checked = Command::new("python3")
        .arg(crate::image::root().join("tests/site/kill_check.py"))
        .args([&imap.ip().to_string(), &imap.port().to_string(), address, password, &acknowledged.join("\n")])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    String::from_utf8_lossy(&checked.stdout).into_owned()
}
