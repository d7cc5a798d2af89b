//! Mail in by SMTP, out by IMAP and POP3, byte for byte; and what survives kill -9.
//!
//! Owns: the way of a message through the whole site. Witnesses: Python's smtplib, imaplib, poplib.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::harness::{Site, good, python, wait_for};

#[test]
fn every_sample_message_comes_out_as_it_went_in() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mail");
    let (ip, smtp, imap, pop3) = (site.ip(), site.port("smtp"), site.port("imap"), site.port("pop3"));
    let args = [&ip, &smtp, &imap, &pop3, "u1@example.test", "secret-1", samples];
    good(&python(include_str!("mail.py"), &args));
}

/// Senders of the kill test.
const SENDERS: usize = 16;
/// Times that everything is killed.
const KILLS: usize = 10;

/// 16 senders, the process group killed ten times: what was answered 250 or OK is there, once.
#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let mut site = Site::start();
    site.user("u1", "secret-1");
    let mut senders = Command::new("python3")
        .args(["-c", include_str!("kill_send.py"), &site.ip(), &site.port("smtp"), &site.port("imap")])
        .args(["u1@example.test", "secret-1", &SENDERS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(senders.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for kill in 0..KILLS {
        // A number of acknowledgements that differs each time: the kill falls into the midst of work, at no fixed place.
        let until = acknowledged.len() + 30 + rand::random_range(0..150);
        while acknowledged.len() < until {
            acknowledged.push(lines.next().expect("senders run until told to stop").unwrap());
        }
        site.kill_all();
        site.launch();
        println!("kill {kill}: {} acknowledged", acknowledged.len());
    }
    drop(senders.stdin.take());
    acknowledged.extend(lines.map(Result::unwrap));
    assert!(senders.wait().unwrap().success());
    let list = acknowledged.join("\n");
    let output =
        python(include_str!("kill_check.py"), &[&site.ip(), &site.port("imap"), "u1@example.test", "secret-1", &list]);
    println!("{}", good(&output));
}

/// The README's way: an ordinary user without privileges, loopback only.
#[test]
fn runs_without_privileges() {
    let site = Site::prepare("");
    std::fs::create_dir(site.state()).unwrap();
    std::os::unix::fs::chown(site.state(), Some(65534), Some(65534)).unwrap();
    let (config, state) = (site.config().display().to_string(), site.state().display().to_string());
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", crate::harness::FIFE];
    let mut fife = Command::new("setpriv")
        .args(as_nobody)
        .args(["run", "--config", &config, "--state", &state])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let run = |args: &[&str]| {
        let mut all = as_nobody.to_vec();
        all.extend([args[0], "--config", &config, "--state", &state]);
        all.extend(&args[1..]);
        crate::harness::run("setpriv", &all, b"secret-1")
    };
    wait_for("every role to be healthy", || run(&["status"]).status.success(), String::new);
    good(&run(&["user", "add", "u1@example.test", "--password-stdin"]));
    let server = site.at("smtp");
    good(&crate::harness::run(
        "swaks",
        &["--server", &server, "--to", "u1@example.test", "--from", "a@example.org"],
        b"",
    ));
    let url = format!("imap://{}/INBOX;UID=1", site.at("imap"));
    let mail = good(&crate::harness::run("curl", &["-sS", "--user", "u1@example.test:secret-1", &url], b""));
    assert!(mail.contains("This is a test mailing"), "{mail}");
    good(&run(&["stop"]));
    wait_for("fife to end", || fife.try_wait().unwrap().is_some(), String::new);
    let mut said = String::new();
    fife.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let password = std::fs::read_to_string(site.state().join("first-admin.txt")).unwrap();
    assert!(
        said.contains(password.split_whitespace().last().unwrap()) && said.contains("swaks ") && said.contains("curl "),
        "the first password is printed: {said}"
    );
}
