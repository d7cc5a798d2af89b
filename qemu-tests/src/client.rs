//! Who answers at a port, and what.
//!
//! Owns: waiting for a greeting. Called by: suites; mail itself goes by swaks and Python's imaplib.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
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
