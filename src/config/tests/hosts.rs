//! Which host a machine is; the types of `[hosts]`.

use std::fs;
use std::path::Path;

use super::super::hosts::{HostAddress, MacAddress, Match};
use super::super::identity::{HostError, Identity};
use super::super::site::TimeServer;
use super::{HOST, SITE, load};

/// Two hosts by MAC and serial, a third that is only ever named.
const THREE: &str = r#"
[hosts.mail1]
match = { mac = "52:54:00:00:00:01" }
roles = ["ldap-proxy", "pop-imap", "smtp"]
[hosts.mail2]
match = { serial = "S2", hostname = "two" }
roles = ["ldap-proxy", "pop-imap", "smtp"]
[hosts.spare]
roles = ["ldap-proxy", "pop-imap", "smtp"]
"#;

fn machine(root: &Path, files: &[(&str, &str)]) -> Identity {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Identity::read_under(root)
}

#[test]
fn a_machine_is_told_by_what_the_kernel_says_of_it() {
    let site = format!("{SITE}secret = \"0123456789abcdef\"\n{THREE}");
    let loaded = load(&site).unwrap();
    let mac = ("sys/class/net/eth0/address", "52:54:00:00:00:01\n");
    let other_mac = ("sys/class/net/eth0/address", "52:54:00:00:00:09\n");
    let serial = ("sys/class/dmi/id/product_serial", "S2\n");
    let hostname = ("proc/sys/kernel/hostname", "two\n");
    let argument = ("proc/cmdline", "quiet fife.host=spare console=ttyS0\n");
    let check = |files: &[(&str, &str)], asked: Option<&str>, expected: Result<&str, &str>| {
        let root = tempfile::tempdir().unwrap();
        let found = loaded.this_host(asked, &machine(root.path(), files));
        match expected {
            Ok(name) => assert_eq!(found, Ok(name.to_owned()), "{files:?} {asked:?}"),
            Err(part) => {
                assert!(found.as_ref().unwrap_err().to_string().contains(part), "{files:?} {asked:?}: {found:?}")
            }
        }
    };
    check(&[mac], None, Ok("mail1"));
    check(&[other_mac, ("sys/class/net/eth1/address", "52:54:00:00:00:01\n")], None, Ok("mail1"));
    let bonded = [
        ("sys/class/net/eth1/address", "52:54:00:00:00:09\n"),
        ("sys/class/net/eth1/bonding_slave/perm_hwaddr", "52:54:00:00:00:01\n"),
    ];
    check(&bonded, None, Ok("mail1"));
    check(&[serial, hostname], None, Ok("mail2"));
    check(&[serial], None, Err("none of the site's hosts")); // all that is given must fit
    check(&[hostname], None, Err("none of the site's hosts"));
    check(&[other_mac], None, Err("52:54:00:00:00:09")); // what it is, so that it can be written into `match`
    check(&[], None, Err("none of the site's hosts"));
    check(&[mac, serial, hostname], None, Err("more than one host: mail1, mail2"));
    check(&[mac, argument], None, Ok("spare")); // the kernel argument comes before the match
    check(&[mac, argument], Some("mail2"), Ok("mail2")); // and --host before both
    check(&[mac], Some("mail3"), Err("no host `mail3` (--host)"));
    check(&[mac, ("proc/cmdline", "fife.host=mail3")], None, Err("no host `mail3` (kernel argument fife.host=)"));
    check(&[mac, ("proc/cmdline", "fife.host=")], None, Ok("mail1")); // says nothing
    check(&[mac, ("proc/cmdline", "xfife.host=spare")], None, Ok("mail1"));
}

#[test]
fn the_only_host_without_match_is_this_machine() {
    let one = load(&format!("{SITE}{HOST}")).unwrap();
    assert_eq!(one.this_host(None, &Identity::default()), Ok("a".to_owned()));
    let one = load(&format!("{SITE}{HOST}match = {{ serial = \"X\" }}\n")).unwrap();
    assert!(matches!(one.this_host(None, &Identity::default()), Err(HostError::NoMatch { .. })));
}

#[test]
fn this_machine_can_be_read() {
    let identity = Identity::read();
    assert!(identity.hostname.is_some(), "{identity}");
}

#[test]
fn hardware_addresses_are_six_bytes() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(text.parse::<MacAddress>().ok().map(|mac| mac.to_string()).as_deref(), expected, "{text}");
    };
    check("52:54:00:00:00:01", Some("52:54:00:00:00:01"));
    check("52-54-00-AB-CD-EF", Some("52:54:00:ab:cd:ef"));
    for bad in [
        "",
        "52:54:00:00:00",
        "52:54:00:00:00:01:02",
        "52:54:00:00:00:1",
        "52:54:00:00:00:0g",
        "52:54:00:00:00:+1",
        "525400000001",
    ] {
        check(bad, None);
    }
}

#[test]
fn host_addresses_are_names_or_addresses() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(text.parse::<HostAddress>().ok().map(|address| address.to_string()).as_deref(), expected, "{text}");
    };
    check("192.0.2.1", Some("192.0.2.1"));
    check("2001:db8::1", Some("2001:db8::1"));
    check("::ffff:192.0.2.1", Some("192.0.2.1")); // the same machine
    check("Mail1.Example.Test", Some("mail1.example.test"));
    for bad in ["", "192.0.2", "192.0.2.256", "192.0.2.1:25", "[::1]", "a b", "-a", "192.0.2.0/24"] {
        check(bad, None);
    }
}

#[test]
fn time_servers_are_names_or_addresses_with_a_port_or_without() {
    let check = |text: &str, expected: Option<(&str, u16)>| {
        let server = text.parse::<TimeServer>().ok();
        let read = server.as_ref().map(|server| (server.to_string(), server.port()));
        assert_eq!(read.as_ref().map(|(text, port)| (text.as_str(), *port)), expected, "{text}");
    };
    check("NTP.example.test", Some(("ntp.example.test", 123)));
    check("ntp.example.test:1123", Some(("ntp.example.test:1123", 1123)));
    check("192.0.2.1", Some(("192.0.2.1", 123)));
    check("192.0.2.1:65535", Some(("192.0.2.1:65535", 65535)));
    check("2001:db8::1", Some(("2001:db8::1", 123)));
    check("[2001:db8::1]:1123", Some(("[2001:db8::1]:1123", 1123)));
    for bad in [
        "",
        ":123",
        "ntp.test:",
        "ntp.test:0",
        "ntp.test:65536",
        "ntp.test:+1",
        "192.0.2.1:x",
        "[2001:db8::1]",
        "[192.0.2.1:5",
        "a b:1",
    ] {
        check(bad, None);
    }
}

#[test]
fn two_matches_are_ambiguous_when_one_machine_fits_both() {
    let match_ = |mac: &str, serial: &str, hostname: &str| {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Match { mac: some(mac).map(|mac| mac.parse().unwrap()), serial: some(serial), hostname: some(hostname) }
    };
    let (m1, m2) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
    let check = |a: &Match, b: &Match, expected: bool| {
        assert_eq!(a.is_ambiguous_with(b), expected, "{a:?} {b:?}");
        assert_eq!(b.is_ambiguous_with(a), expected, "{b:?} {a:?}");
    };
    check(&match_(m1, "", ""), &match_(m1, "", ""), true);
    check(&match_(m1, "", ""), &match_(m2, "", ""), false);
    check(&match_(m1, "", ""), &match_(m1, "S", ""), true);
    check(&match_(m1, "S", ""), &match_(m1, "T", ""), false); // told apart by the serial
    check(&match_(m1, "", ""), &match_("", "S", ""), false); // perhaps one machine, perhaps not: seen at start
    check(&match_("", "", ""), &match_("", "", ""), false);
}
