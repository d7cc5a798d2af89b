//! Commands of the appliance on a machine that is none; and `fife preflight` against nsd, a greeting and a clock on loopback.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};

use crate::dns::Nsd;
use crate::harness::{FIFE, Site, run};

#[test]
fn a_machine_that_did_not_boot_from_the_image_is_neither_updated_nor_installed_from() {
    for arguments in
        [&["update", "x.update"][..], &["update", "--status"], &["update", "--rollback"], &["install", "/dev/null"]]
    {
        let output = run(FIFE, arguments, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("did not boot from fife's image"), "{arguments:?}: {said}");
    }
    assert_eq!(run(FIFE, &["update", "--status", "--rollback"], b"").status.code(), Some(2));
}

/// Greets whoever comes; ends with the test.
fn greets(greeting: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who asks may have gone.
            stream.unwrap().write_all(greeting.as_bytes()).ok();
        }
    });
    at
}

/// A time server that is `secs` ahead (RFC 4330 section 4).
fn clock(secs: u64) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut packet = [0; 48];
        loop {
            let (_, from) = socket.recv_from(&mut packet).unwrap();
            let since_1900 = fife::base::clock::unix_secs() + 2_208_988_800 + secs;
            let now = (u32::try_from(since_1900).unwrap().to_be_bytes(), [0; 4]);
            let mut answer = [0; 48];
            // Version 4, server; stratum 2. Originate is the question's transmit time.
            answer[0] = 0b00_100_100;
            answer[1] = 2;
            answer[24..32].copy_from_slice(&packet[40..48]);
            for at in [16, 32, 40] {
                answer[at..at + 4].copy_from_slice(&now.0);
                answer[at + 4..at + 8].copy_from_slice(&now.1);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    at
}

/// Grades by check, of one call.
fn preflight(site: &Site, arguments: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let mut all = vec!["preflight", "--json"];
    all.extend(arguments);
    let output = site.fife(&all);
    let told: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = told["findings"].as_array().unwrap().iter();
    (output.status.code(), findings.map(|one| (text(one, "check"), text(one, "grade"), text(one, "found"))).collect())
}

#[test]
fn preflight_tells_what_dns_other_servers_and_clocks_say() {
    let site = Site::prepare("");
    let at = format!("{}:5300", site.ip());
    let records = "example.test. MX 10 mx.example.test.\n\
                   mail.example.test. A 192.0.2.2\nother.example.test. A 192.0.2.9\n\
                   2.2.0.192.in-addr.arpa. PTR mail.example.test.\n3.2.0.192.in-addr.arpa. PTR other.example.test.\n\
                   3.2.0.192.list.test. A 127.0.0.4\n2.2.0.192.refusing.test. A 127.255.255.254\n";
    let _nsd = Nsd::start(at.parse().unwrap(), records, &["broken.test"]);
    let toml = std::fs::read_to_string(site.config()).unwrap();
    let dns = format!("[dns]\nservers = [\"{at}\"]\ntimeout = \"500ms\"\nretries = 0\n");
    std::fs::write(site.config(), format!("{toml}\n{dns}")).unwrap();
    let (good, gone) = (greets("220 mx.example.test ESMTP\r\n"), greets("554 go away\r\n"));
    let check = |arguments: &[&str], check: &str, grade: &str, found: &str| {
        let (code, findings) = preflight(&site, arguments);
        let is_it = |one: &&(String, String, String)| one.0 == check && one.1 == grade && one.2.contains(found);
        assert!(findings.iter().any(|one| is_it(&one)), "{arguments:?}: {check} {grade} {found}: {findings:?}");
        assert_eq!(code == Some(0), findings.iter().all(|one| one.1 != "bad"), "{findings:?}");
    };
    let (now, late) = (clock(0), clock(90));
    let usual = |more: &[&'static str]| -> Vec<String> {
        let all = ["--time-server", &now, "--smtp", &good, "--block-list", "list.test"];
        all.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let with = |more: &[&'static str], name: &str, grade: &str, found: &str| {
        let all = usual(more);
        check(&all.iter().map(String::as_str).collect::<Vec<_>>(), name, grade, found);
    };
    with(&["--address", "192.0.2.2"], "reverse", "ok", "mail.example.test. and back");
    with(&["--address", "192.0.2.2"], "block-list", "ok", "not on list.test");
    with(&["--address", "192.0.2.3"], "reverse", "bad", "has other addresses");
    with(&["--address", "192.0.2.3"], "block-list", "bad", "127.0.0.4");
    with(&["--address", "192.0.2.4"], "reverse", "bad", "has no name");
    with(&["--address", "10.0.0.1"], "reverse", "warn", "inside address");
    with(&["--address", "192.0.2.2"], "outbound", "ok", "220 mx.example.test ESMTP");
    with(&["--address", "192.0.2.2"], "clock", "ok", "ms off");
    let rest = ["--address", "192.0.2.2", "--time-server", &late, "--block-list", "refusing.test"];
    let with_peers = |peers: &str| -> Vec<String> {
        rest.iter().map(|word| (*word).to_owned()).chain(["--smtp".to_owned(), peers.to_owned()]).collect()
    };
    let asked = with_peers(&format!("{gone},example.test"));
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    check(&asked, "outbound", "bad", "554 go away");
    check(&asked, "dns", "ok", "example.test was found");
    check(&asked, "clock", "bad", "ms off");
    check(&asked, "block-list", "warn", "does not answer by this DNS server");
    let asked = with_peers("broken.test");
    check(&asked.iter().map(String::as_str).collect::<Vec<_>>(), "dns", "bad", "broken.test");
}
