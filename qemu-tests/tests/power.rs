//! The power is cut under load, again and again: what was acknowledged is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fault in the set-up ends the test")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use fife_qemu_tests::client::{first_administrator, greeting};
use fife_qemu_tests::{Disk, Firmware, Machine};

/// Times that the power is cut.
const CUTS: usize = 20;
const SENDERS: &str = "8";
/// Acknowledged messages between two cuts: so many, and a few more each time, so that the cut falls at no fixed place.
const ACKNOWLEDGED_MIN: usize = 40;

/// One host. Its clients come from another machine, and are not the point here: no TLS for them, no questions to DNS.
const SETTINGS: &str = r#"
[site]
name = "school"
domain = "example.test"

[hosts.mail1]
roles = ["ldap-proxy", "pop-imap", "smtp"]

[pop-imap]
cleartext-login = true

[smtp-authentication]
dmarc = "off"
"#;

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 1024);
    disk.write_esp("fife.toml", SETTINGS.as_bytes());
    let machine = Machine::new("mail1", Firmware::Bios, &disk);
    let mut guest = machine.start();
    let (admin, password) = first_administrator(&guest);
    let (smtp, imap) = (guest.at(25).port().to_string(), guest.at(143).port().to_string());
    let scripts = fife_qemu_tests::image::root().join("tests/site");
    let mut senders = Command::new("python3")
        .arg(scripts.join("kill_send.py"))
        .args(["127.0.0.1", &smtp, &imap, &admin, &password, SENDERS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(senders.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for cut in 0..CUTS {
        let until = acknowledged.len() + ACKNOWLEDGED_MIN + cut * 7 % 30;
        while acknowledged.len() < until {
            acknowledged.push(lines.next().expect("senders run until told to stop").unwrap());
        }
        guest.cut();
        println!("cut {cut}: {} acknowledged", acknowledged.len());
        guest = machine.start();
        assert!(greeting(&guest, 25).starts_with("220 "));
    }
    drop(senders.stdin.take());
    acknowledged.extend(lines.map(Result::unwrap));
    assert!(senders.wait().unwrap().success());
    let checked = Command::new("python3")
        .arg(scripts.join("kill_check.py"))
        .args(["127.0.0.1", &imap, &admin, &password, &acknowledged.join("\n")])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    println!("{}", String::from_utf8_lossy(&checked.stdout));
    guest.press_power_button();
    guest.wait_off();
}
