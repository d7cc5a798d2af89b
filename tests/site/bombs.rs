//! Little that is sent, and much that it would cost: commands, lengths and floods that ask for more memory than they bring.
//!
//! Owns: bounds on what a role occupies meanwhile, seen through `fife status`. Called by: `cargo test`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::harness::{Site, good, python, run, wait_for};
use crate::hostile::{connect, still_well, throw};

/// What a role may occupy while it is attacked, beyond what it is known to be allowed to hold.
const RSS_BYTES_MAX: u64 = 200 << 20;
const LOGIN: &str = "l LOGIN u1@example.test secret-1\r\n";

fn rss(site: &Site, role: &str) -> u64 {
    let status = site.status();
    let entry = status["roles"].as_array().unwrap().iter().find(|entry| entry["role"] == role).unwrap().clone();
    entry["rss_bytes"].as_u64().unwrap()
}

/// Delivers so many messages of about so many octets to u1.
fn deliver(site: &Site, messages: usize, octets: usize) {
    let script = r#"
import smtplib, sys
text = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * (int(sys.argv[4]) // 18)
with smtplib.LMTP(sys.argv[1], int(sys.argv[2]), timeout=60) as server:
    for n in range(int(sys.argv[3])):
        server.sendmail("a@b.test", ["u1@example.test"], b"X-Number: %d\r\n" % n + text)
"#;
    good(&python(script, &[&site.ip(), &site.port("lmtp"), &messages.to_string(), &octets.to_string()]));
}

#[test]
fn imap_commands_that_are_larger_within_than_without_are_refused() {
    let site = Site::start();
    site.user("u1", "secret-1");
    deliver(&site, 3, 100);
    let many = |text: &str, times: usize| text.repeat(times);
    let deep = |open: &str, close: &str, times: usize| format!("{}ALL{}", many(open, times), many(close, times));
    let commands: Vec<(String, &[&str])> = vec![
        (format!("SEARCH {}", deep("(", ")", 30_000)), &["BAD", "NO"]),
        (format!("SEARCH {}", deep("NOT ", "", 15_000)), &["BAD", "NO"]),
        (format!("SEARCH {}ALL{}", many("OR ", 9000), many(" ALL", 9000)), &["BAD", "NO"]),
        (format!("SEARCH {}", many("OR ALL ", 9000)), &["BAD", "NO"]),
        (format!("SEARCH {}ALL", many("SUBJECT x ", 6000)), &["OK", "BAD", "NO"]),
        (format!("SEARCH {}ALL", many("TEXT {1+}\r\nx ", 20_000)), &["BAD", "NO"]),
        (format!("FETCH 1 {}", many("(", 60_000)), &["BAD"]),
        (format!("FETCH 1 ({})", many("BODY.PEEK[] ", 5000)), &["OK", "BAD", "NO"]),
        (format!("FETCH 1 BODY[{}1]", many("1.", 30_000)), &["OK", "BAD", "NO"]),
        (format!("FETCH 1 BODY[HEADER.FIELDS ({})]", many("a ", 30_000)), &["OK", "BAD", "NO"]),
        (format!("LIST \"\" {}", many("(", 60_000)), &["BAD"]),
        (format!("LIST \"\" \"{}x\"", many("%*", 400)), &["OK", "BAD", "NO"]),
        (format!("LIST \"\" ({})", many("* ", 30_000)), &["BAD", "NO", "OK"]),
        (format!("STATUS INBOX {}", many("(", 60_000)), &["BAD"]),
        (format!("CREATE \"{}x\"", many("a/", 30_000)), &["BAD", "NO"]),
        (format!("STORE 1 FLAGS {}", many("(", 60_000)), &["BAD"]),
        (
            format!("STORE 1 +FLAGS ({}x)", (0..6000).map(|n| format!("keyword{n} ")).collect::<String>()),
            &["BAD", "NO"],
        ),
        (format!("FETCH {}1 UID", many("1:4294967295,", 4500)), &["OK", "BAD", "NO"]),
        (format!("UID FETCH {}1 UID", many("1:*,", 15_000)), &["OK", "BAD", "NO"]),
        (format!("UID SEARCH UID {}1", many("1:*,", 15_000)), &["OK", "BAD", "NO"]),
        (
            format!("SEARCH {}1", (1..9000).map(|n| format!("{},", n * 400_000_u64)).collect::<String>()),
            &["OK", "BAD", "NO"],
        ),
        (format!("UID COPY {}1 INBOX", many("1,", 30_000)), &["OK", "BAD", "NO"]),
        (many("x", 70_000), &["BAD"]),
        ("SEARCH TEXT {4294967295}".to_owned(), &["BAD", "NO"]),
        ("APPEND INBOX {4294967295}".to_owned(), &["BAD", "NO"]),
        (format!("APPEND INBOX ({}x) {{1+}}\r\nx", many("\\Seen ", 9000)), &["OK", "BAD", "NO"]),
        (format!("AUTHENTICATE PLAIN {}", many("A", 60_000)), &["OK", "BAD", "NO"]),
        (format!("ID ({})", many("\"a\" \"b\" ", 7000)), &["OK", "BAD", "NO"]),
        (format!("ENABLE {}", many("CONDSTORE ", 6000)), &["OK", "BAD", "NO"]),
    ];
    let refused = |command: &str, ends: &[&str]| {
        let dialogue = format!("{LOGIN}s SELECT INBOX\r\na {command}\r\nz LOGOUT\r\n");
        let said = throw(&site, "imap", &[dialogue.as_bytes()], "\r\nz OK");
        let good = ends.iter().any(|end| said.contains(&format!("\r\na {end}")) || said.contains("\r\n* BAD"));
        assert!(good, "{}: {}", &command[..command.len().min(60)], &said[said.len().saturating_sub(500)..]);
    };
    // Several at a time: what one costs is seen better.
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (commands, refused) = (&commands, &refused);
            scope.spawn(move || {
                for (command, ends) in commands.iter().skip(part).chain(commands.iter().take(part)) {
                    refused(command, ends);
                }
            });
        }
    });
    assert!(rss(&site, "pop-imap") < RSS_BYTES_MAX, "{}", rss(&site, "pop-imap"));
    // What is announced and need not be asked for is read on to its end, and kept nowhere; nor is a line without end.
    let (before, megabytes) = (rss(&site, "pop-imap"), vec![b'a'; 64 << 20]);
    for command in [
        "SEARCH TEXT {4294967295+}\r\n",
        "APPEND INBOX {4294967295+}\r\n",
        "APPEND INBOX {99999999999+}\r\n",
        "APPEND INBOX (",
        "SEARCH TEXT ",
    ] {
        let mut stream = connect(&site, "imap");
        stream.write_all(format!("{LOGIN}a {command}").as_bytes()).unwrap();
        stream.write_all(&megabytes).ok();
        assert!(rss(&site, "pop-imap") < before + (32 << 20), "{command}: {before}, then {}", rss(&site, "pop-imap"));
    }
    still_well(&site);
}

#[test]
fn messages_that_come_in_halves_have_bounded_room_and_leave_some_for_others() {
    let site = Site::start();
    site.user("u1", "secret-1");
    site.user("u2", "secret-2");
    let before = rss(&site, "pop-imap");
    // What is announced takes nothing.
    let announced: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(&site, "imap");
            stream.write_all(format!("{LOGIN}a APPEND INBOX {{50000000}}\r\n").as_bytes()).unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"+ OK\r\n") {
                let mut octets = [0; 4096];
                let count = stream.read(&mut octets).unwrap();
                assert!(count > 0, "{}", String::from_utf8_lossy(&said));
                said.extend_from_slice(&octets[..count]);
            }
            stream
        })
        .collect();
    assert!(rss(&site, "pop-imap") < before + (50 << 20), "{}", rss(&site, "pop-imap"));
    // What has come is kept, but not without end: one of these has to give way.
    let half = vec![b'a'; 40_000_000];
    let mut halves: Vec<TcpStream> = announced;
    halves.truncate(5);
    for stream in &mut halves {
        stream.write_all(&half).unwrap();
    }
    let refused = || site.log().contains("a message is refused for now");
    wait_for("one to find no room", refused, || site.log_tail());
    let most = before + (128 << 20) + (100 << 20);
    assert!(rss(&site, "pop-imap") < most, "{}", rss(&site, "pop-imap"));
    let message = format!("Subject: x\r\n\r\n{}", "a".repeat(2 << 20));
    let append = |user: &str| {
        let dialogue = format!(
            "l LOGIN {user}@example.test secret-{}\r\na APPEND INBOX {{{}+}}\r\n{message}\r\nz LOGOUT\r\n",
            &user[1..],
            message.len()
        );
        throw(&site, "imap", &[dialogue.as_bytes()], "\r\nz OK")
    };
    assert!(append("u2").contains("a OK [APPENDUID"), "others append");
    // Whoever was refused is told so at the end of his message, and goes on.
    let mut told = 0;
    for mut stream in halves {
        stream.write_all(&half[..10_000_000]).unwrap();
        stream.write_all(b"\r\nz LOGOUT\r\n").unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("z OK"), "{said}");
        told += usize::from(said.contains("a NO [UNAVAILABLE] Too much is coming in at once"));
    }
    assert!((1..5).contains(&told), "{told}");
    assert!(append("u1").contains("a OK [APPENDUID"), "and there is room again");
    still_well(&site);
}

/// Clients that send requests, and read no answers: the server stops reading in its turn, and gives them up in the end.
#[test]
fn who_reads_no_answers_is_given_up_and_costs_little() {
    let site = Site::start_with(
        "[smtp]\nidle-timeout = \"4s\"\n[pop-imap]\nimap-idle-timeout = \"4s\"\npop3-idle-timeout = \"4s\"\nlmtp-idle-timeout = \"4s\"\n[ldap-proxy]\nidle-timeout = \"4s\"\n",
    );
    site.user("u1", "secret-1");
    deliver(&site, 1, 4_000_000);
    let before: Vec<u64> = ["smtp", "pop-imap", "ldap-proxy"].iter().map(|role| rss(&site, role)).collect();
    // A search of all of the schema, which everybody may read.
    let search = b"\x30\x34\x02\x01\x02\x63\x2f\x04\x0ccn=subschema\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\x87\x0bobjectClass\x30\x03\x04\x01+".as_slice();
    let pop3 = "USER u1@example.test\r\nPASS secret-1\r\n";
    let select = format!("{LOGIN}s SELECT INBOX\r\n");
    let mut streams: Vec<(&str, TcpStream)> = Vec::new();
    for (service, first, flood, clients) in [
        ("smtp", "EHLO a\r\n", b"NOOP\r\n".as_slice(), 10),
        ("lmtp", "LHLO a\r\n", b"NOOP\r\n", 10),
        ("imap", "", b"a CAPABILITY\r\n", 10),
        ("imap", &select, b"a FETCH 1 BODY.PEEK[]\r\n", 10),
        ("pop3", pop3, b"RETR 1\r\n", 1),
        ("ldap", "", search, 10),
    ] {
        for _ in 0..clients {
            let mut stream = connect(&site, service);
            stream.write_all(first.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            let flood = flood.repeat(2000);
            // Until it takes no more; kernels keep a few megabytes.
            let mut sent = 0;
            let end = loop {
                match stream.write(&flood) {
                    Ok(count) => sent += count,
                    Err(error) => break error.kind(),
                }
                assert!(sent < 64 << 20, "{service} takes in everything");
            };
            // SMTP has had enough of so many commands for nothing, perhaps before its answers are in the way.
            assert!(end == ErrorKind::WouldBlock || service == "smtp", "{service}: {end}");
            streams.push((service, stream));
        }
    }
    for (role, before) in ["smtp", "pop-imap", "ldap-proxy"].iter().zip(before) {
        assert!(rss(&site, role) < before + (100 << 20), "{role}: {before}, then {}", rss(&site, role));
    }
    good(&run("ldapwhoami", &["-x", "-H", &format!("ldap://{}", site.at("ldap"))], b""));
    let left = std::cell::RefCell::new(Vec::new());
    let given_up = || {
        streams.retain_mut(|(_, stream)| match stream.write(b"\r\n") {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        *left.borrow_mut() = streams.iter().map(|(service, _)| *service).collect();
        streams.is_empty()
    };
    wait_for("all to be given up", given_up, || format!("{:?}", left.borrow()));
    still_well(&site);
}
