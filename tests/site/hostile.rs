//! Bytes that no client sends: each protocol answers with its own error or closes, and goes on serving others.
//!
//! Owns: malformed input from outside, on every port at once. What single sessions do with single faults stands in
//! the rooms' own tests; here the whole process has to live, in bounded memory.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{DEADLINE, Site, good, python, run, wait_for};

/// Every service that strangers can reach without TLS, and the role behind it.
const SERVICES: [(&str, &str); 6] = [
    ("smtp", "smtp"),
    ("submission", "smtp"),
    ("lmtp", "pop-imap"),
    ("imap", "pop-imap"),
    ("pop3", "pop-imap"),
    ("ldap", "ldap-proxy"),
];
/// What a role may occupy after all of this: far below what was thrown at it.
const RSS_BYTES_MAX: u64 = 400 << 20;

pub fn connect(site: &Site, service: &str) -> TcpStream {
    let stream = TcpStream::connect(site.addr(service)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Writes until the other side will have no more, then reads what it said until it closes or `enough` is in it.
pub fn throw(site: &Site, service: &str, parts: &[&[u8]], enough: &str) -> String {
    let mut stream = connect(site, service);
    for part in parts {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => {
                panic!("{service}: neither an answer nor an end: {error}; said {}", String::from_utf8_lossy(&said))
            }
        }
        if !enough.is_empty() && String::from_utf8_lossy(&said).contains(enough) {
            break;
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// All roles as they were: none has restarted, none has grown, each still serves.
pub fn still_well(site: &Site) {
    let status = site.status();
    for role in status["roles"].as_array().unwrap() {
        assert_eq!(role["restarts"], 0, "{role}");
        assert!(role["rss_bytes"].as_u64().unwrap() < RSS_BYTES_MAX, "{role}");
    }
    assert!(!site.log().contains("panicked"), "{}", site.log_tail());
    let to = site.at("smtp");
    good(&run("swaks", &["--server", &to, "--to", "u1@example.test", "--from", "a@example.org", "--silent", "2"], b""));
    let url = format!("imap://{}/INBOX;UID=1", site.at("imap"));
    good(&run("curl", &["-sS", "--user", "u1@example.test:secret-1", &url], b""));
}

#[test]
fn hostile_input_gets_an_error_and_no_role_falls() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let megabytes = vec![b'a'; 8 << 20];
    for (service, _) in SERVICES {
        throw(&site, service, &[&megabytes, b"\r\n", b"QUIT\r\n"], "");
        throw(&site, service, &[&[0; 4096], b"\r\nQUIT\r\na1 LOGOUT\r\n"], "");
    }
    let smtp = throw(&site, "smtp", &[b"EHLO a\r\nMAIL FROM:<a@b.test>\rRCPT TO:<u1@example.test>\r\nQUIT\r\n"], "221");
    assert!(smtp.contains("\r\n501 ") || smtp.contains("\r\n500 "), "bare CR in a command: {smtp}");
    let long = [b"EHLO ".as_slice(), &[b'a'; 5000], b"\r\nQUIT\r\n"].concat();
    let smtp = throw(&site, "smtp", &[&long], "221");
    assert!(smtp.contains("\r\n500 "), "a long line is refused and the session goes on: {smtp}");
    let imap = throw(&site, "imap", &[b"a1 LOGIN {4294967295}\r\n"], "a1 ");
    assert!(imap.contains("a1 BAD") || imap.contains("a1 NO") || imap.contains("* BYE"), "huge literal: {imap}");
    let imap = throw(&site, "imap", &[b"a1 LOGIN {4294967290+}\r\n", &megabytes], "a1 ");
    assert!(!imap.contains("a1 OK"), "huge non-synchronizing literal: {imap}");
    let pop3 = throw(&site, "pop3", &[b"USER \0\r\nQUIT\r\n"], "+OK bye");
    assert!(pop3.contains("-ERR"), "NUL in a name: {pop3}");
    // BER: a length of 2^32 - 1, a length of lengths of 127 bytes, and 100,000 nested sequences.
    throw(&site, "ldap", &[&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01]], "");
    throw(&site, "ldap", &[&[0x30, 0xff], &[0xff; 127]], "");
    throw(&site, "ldap", &[&[0x30, 0x80].repeat(100_000)], "");
    let filter = [0x30, 0x82, 0xff, 0xf0, 0x02, 0x01, 0x01, 0x63, 0x82, 0xff, 0xe9].to_vec();
    throw(&site, "ldap", &[&filter, &[0xa2, 0x82, 0xff, 0x00].repeat(20_000)], "");
    still_well(&site);
}

/// Half of real dialogues, half noise: what survives parsing meets the deeper rooms.
const SEEDS: [&[u8]; 8] = [
    b"EHLO c.example\r\nMAIL FROM:<a@b.test> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n",
    b"LHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nBDAT 5 LAST\r\nhello",
    b"a LOGIN u1@example.test secret-1\r\nb SELECT INBOX\r\nc FETCH 1:* (FLAGS BODY[1.2.HEADER.FIELDS (A B)]<0.10>)\r\n",
    b"a AUTHENTICATE PLAIN AHUxQGV4YW1wbGUudGVzdABzZWNyZXQtMQ==\r\nb SEARCH OR (FROM x) NOT (SEEN) UID 1:*\r\nc IDLE\r\nDONE\r\n",
    b"a LOGIN {15}\r\nu1@example.test {8}\r\nsecret-1\r\nb APPEND INBOX (\\Seen) {10}\r\n0123456789\r\n",
    b"USER u1@example.test\r\nPASS secret-1\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 1 1\r\nDELE 1\r\nRSET\r\n",
    b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00\x30\x25\x02\x01\x02\x63\x20\x04\x00\x0a\x01\x02\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\x87\x0bobjectClass\x30\x00",
    b"AUTH PLAIN AHUxQGV4YW1wbGUudGVzdABzZWNyZXQtMQ==\r\nSTARTTLS\r\nNOOP\r\n",
];

#[test]
fn mutated_dialogues_kill_no_role() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let seed: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("seed: FIFE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..600 {
        let (service, _) = SERVICES[round % SERVICES.len()];
        let mut bytes = SEEDS[random.random_range(0..SEEDS.len())].to_vec();
        for _ in 0..random.random_range(0..8) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 => bytes[at] = random.random(),
                1 => bytes.insert(at, random.random()),
                2 => drop(bytes.drain(at..bytes.len().min(at + 5))),
                _ => bytes.extend_from_within(at..),
            }
            if bytes.is_empty() {
                bytes.push(b'\n');
            }
        }
        let mut stream = connect(&site, service);
        // A peer that has closed already has said what it had to say.
        stream.write_all(&bytes).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "round {round} {service}: {error}"),
        }
    }
    still_well(&site);
}

#[test]
fn idle_and_slow_clients_keep_nobody_waiting() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let mut idle = Vec::new();
    for (service, _) in SERVICES {
        for _ in 0..150 {
            let mut stream = connect(&site, service);
            // Half a command each, and never more. In LDAP, half of a length.
            stream.write_all(if service == "ldap" { b"\x30\x83\x00" } else { b"E" }).unwrap();
            idle.push(stream);
        }
    }
    still_well(&site);
    good(&run("ldapwhoami", &["-x", "-H", &format!("ldap://{}", site.at("ldap"))], b""));
    drop(idle);
}

#[test]
fn commands_behind_starttls_are_not_taken_over_into_tls() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let args = [site.ip(), site.port("smtp"), site.port("imap"), site.port("pop3"), site.port("ldap")];
    good(&python(include_str!("starttls.py"), &args.iter().map(String::as_str).collect::<Vec<_>>()));
}

/// Every published sequence that some server takes for the end of a message, NUL among them (CVE-2023-51764 and its like).
const FALSE_ENDS: [&str; 14] = [
    "\n.\n",
    "\n.\r\n",
    "\n.\r",
    "\r.\r",
    "\r.\r\n",
    "\r.\n",
    "\r\n.\n",
    "\r\n.\r",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\r\n.\r\0\n",
    "\n\0.\n",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
];

#[test]
fn no_message_is_smuggled_in_behind_a_false_end() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let auth = "AUTH PLAIN AHUxQGV4YW1wbGUudGVzdABzZWNyZXQtMQ==\r\n";
    for (service, hello) in [
        ("smtp", "EHLO a\r\n".to_owned()),
        ("submission", format!("EHLO a\r\n{auth}")),
        ("lmtp", "LHLO a\r\n".to_owned()),
    ] {
        for end in FALSE_ENDS {
            let envelope = "MAIL FROM:<u1@example.test>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n";
            let dialogue = format!(
                "{hello}{envelope}Subject: outer\r\n\r\ntext{end}{envelope}Subject: smuggled\r\n\r\n\r\n.\r\nQUIT\r\n"
            );
            let said = throw(&site, service, &[dialogue.as_bytes()], "\r\n221 ");
            let after = said.split_once("\r\n354 ").unwrap_or_else(|| panic!("{service} {end:?}: {said}")).1;
            let replies: Vec<&str> = after.lines().skip(1).collect();
            let refused = replies.first().is_some_and(|reply| reply.starts_with("55"));
            assert!(refused && replies.len() == 2 && replies[1].starts_with("221 "), "{service} {end:?}: {said}");
        }
    }
    let url = format!("imap://{}/INBOX", site.at("imap"));
    let found = good(&run("curl", &["-sS", "--user", "u1@example.test:secret-1", "-X", "SEARCH ALL", &url], b""));
    assert_eq!(found.trim(), "* SEARCH", "nothing of it is in the mailbox");
}

#[test]
fn floods_of_commands_have_one_reply_each_and_an_end() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let said = throw(&site, "smtp", &[b"EHLO a\r\nQUIT\r\nMAIL FROM:<a@b.test>\r\nNOOP\r\n"], "");
    assert!(said.lines().last().is_some_and(|line| line.starts_with("221 ")), "nothing is said after QUIT: {said}");
    for (service, command, reply) in [
        ("smtp", "NOOP\r\n", "250 "),
        ("lmtp", "NOOP\r\n", "250 "),
        ("pop3", "NOOP\r\n", "-ERR"),
        ("imap", "a NOOP\r\n", "a OK"),
    ] {
        let flood = command.repeat(20_000);
        let said = throw(&site, service, &[flood.as_bytes(), b"QUIT\r\nz LOGOUT\r\n"], "");
        let replies = said.lines().filter(|line| line.starts_with(reply)).count();
        assert!(
            (1..=20_000).contains(&replies),
            "{service}: {replies} replies, {}",
            said.lines().last().unwrap_or_default()
        );
    }
    still_well(&site);
}

/// An octet now and then is no silence, and yet it has an end.
#[test]
fn a_slow_loris_is_sent_away() {
    let site = Site::start_with(
        "[smtp]\nidle-timeout = \"2s\"\n[pop-imap]\nlogin-timeout = \"2s\"\npop3-idle-timeout = \"2s\"\nimap-idle-timeout = \"2s\"\nlmtp-idle-timeout = \"2s\"\n[ldap-proxy]\nidle-timeout = \"2s\"\n",
    );
    site.user("u1", "secret-1");
    let login = "USER u1@example.test\r\nPASS secret-1\r\n";
    let data = "MAIL FROM:<a@b.test>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n";
    let (smtp, lmtp) = (format!("EHLO a\r\n{data}"), format!("LHLO a\r\n{data}"));
    let append = "a LOGIN u1@example.test secret-1\r\nb APPEND INBOX {9000+}\r\n";
    // Headers that announce more than ever comes: of a BER element, of a TLS record.
    let (ber, record) = (b"\x30\x84\x00\x00\x3f\xff".as_slice(), b"\x16\x03\x01\x3f\xff".as_slice());
    let mut streams: Vec<TcpStream> = [
        ("smtp", b"".as_slice()),
        ("submission", b"EHLO a\r\n"),
        ("submissions", record),
        ("smtp", smtp.as_bytes()),
        ("lmtp", b"LHLO a\r\nMAIL"),
        ("lmtp", lmtp.as_bytes()),
        ("imap", b""),
        ("imaps", record),
        ("imap", b"a LOGIN {900}\r\n"),
        ("imap", append.as_bytes()),
        ("pop3", b""),
        ("pop3s", record),
        ("pop3", login.as_bytes()),
        ("ldap", ber),
        ("ldaps", record),
    ]
    .into_iter()
    .map(|(service, first)| {
        let mut stream = connect(&site, service);
        stream.write_all(first).unwrap();
        // Between two octets all servers are listened to, each for so long.
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        stream
    })
    .collect();
    let mut buffer = [0; 4096];
    wait_for(
        "all to give up",
        || {
            streams.retain_mut(|stream| {
                let closed = match stream.read(&mut buffer) {
                    Ok(len) => len == 0,
                    Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                };
                !closed && stream.write_all(b"a").is_ok()
            });
            streams.is_empty()
        },
        || site.log_tail(),
    );
    still_well(&site);
}

#[test]
fn names_and_addresses_are_no_paths_and_no_header_lines() {
    let site = Site::start();
    site.user("u1", "secret-1");
    let create = |name: &str| {
        let dialogue =
            format!("a LOGIN u1@example.test secret-1\r\nb CREATE {name}\r\nc LIST \"\" \"*\"\r\nd LOGOUT\r\n");
        throw(&site, "imap", &[dialogue.as_bytes()], "d OK")
    };
    // CR, LF and NUL, plain and in modified UTF-7; wildcards.
    for name in ["\"a\0b\"", "\"&AA0ACg-x\"", "\"x&AAA-\"", "\"a%b\"", "{6+}\r\na\r\nb*c", "\"&AC8ALg-\"", "\"//\""] {
        let said = create(name);
        assert!(!said.contains("b OK") || name.contains("AC8ALg"), "{name:?}: {said}");
        assert!(said.lines().all(|line| !line.contains('\0')), "{said}");
    }
    // Whatever such a name is to IMAP, no file bears it.
    for name in ["../../hostile-name", "\"../hostile-name\"", "/tmp/hostile-name", "\"&AC4ALg-/hostile-name\""] {
        create(name);
    }
    let find = good(&run("find", &[&site.dir().display().to_string(), "-name", "*hostile-name*"], b""));
    assert_eq!(find, "");
    assert!(!std::path::Path::new("/tmp/hostile-name").exists());
    let rcpt = |path: &str| {
        let dialogue = format!("LHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<{path}>\r\nQUIT\r\n");
        throw(&site, "lmtp", &[dialogue.as_bytes()], "\r\n221 ")
    };
    for path in [
        "../u1@example.test",
        "\"../../u1\"@example.test",
        "u1@example.test\rX: y",
        "u1\0@example.test",
        "u1@../example.test",
        "u1@example.test>\r\nRCPT TO:<",
    ] {
        assert!(!rcpt(path).contains("2.1.5") || path.contains('>'), "{path:?}: {}", rcpt(path));
    }
    for address in
        ["../u2@example.test", "u2\n@example.test", "u2\r\nX: y@example.test", "u2@example.test,ou=x", "u2@../x"]
    {
        let output = site.fife(&["user", "add", address]);
        assert!(!output.status.success(), "{address:?}");
    }
    let listed = good(&site.fife(&["user", "list"]));
    assert!(!listed.contains("u2"), "{listed}");
    still_well(&site);
}

/// A disk without room: mail is refused for the time being, and taken again when there is room.
#[test]
fn a_full_disk_refuses_with_452_and_goes_on_when_there_is_room() {
    let mut site = Site::prepare("");
    std::fs::create_dir(site.state()).unwrap();
    let state = site.state().display().to_string();
    good(&run("mount", &["-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", &state], b""));
    let _unmount = Unmount(state.clone());
    site.launch();
    site.user("u1", "secret-1");
    let to = site.at("smtp");
    let send = || run("swaks", &["--server", &to, "--to", "u1@example.test", "--from", "a@example.org"], b"");
    good(&send());
    let free: u64 = {
        let stat = nix::sys::statvfs::statvfs(state.as_str()).unwrap();
        stat.blocks_available() * stat.fragment_size()
    };
    let ballast = site.state().join("ballast");
    std::fs::write(&ballast, vec![0; usize::try_from(free).unwrap().saturating_sub(256 << 10)]).unwrap();
    let refused = send();
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && said.contains(" 452 "), "{said}");
    std::fs::remove_file(&ballast).unwrap();
    wait_for("mail to be taken again", || send().status.success(), || site.log_tail());
    let status = site.status();
    assert!(status["roles"].as_array().unwrap().iter().all(|role| role["restarts"] == 0), "{status}");
    site.kill_all();
}

/// Unmounts when the test ends, however it ends.
struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0], b"");
    }
}
