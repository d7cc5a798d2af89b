//! Mailbox names and patterns.

use crate::pop_imap::imap::name::{Pattern, decode, encode};

#[test]
fn names_go_to_the_wire_and_back() {
    for (name, wire) in [
        ("INBOX", "INBOX"),
        ("Entwürfe", "Entw&APw-rfe"),
        // RFC 3501 section 5.1.3, its own example.
        ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("A&B", "A&-B"),
        ("&", "&-"),
        ("已发送", "&XfJT0ZAB-"),
        ("🐦 bird", "&2D3cJg- bird"),
        ("a\"b\\c", "a\"b\\c"),
    ] {
        assert_eq!(encode(name), wire);
        assert_eq!(decode(wire.as_bytes()).as_deref(), Ok(name));
    }
    // Raw UTF-8 is understood.
    assert_eq!(decode("已发送".as_bytes()).as_deref(), Ok("已发送"));
}

#[test]
fn what_is_no_modified_utf_7_is_refused() {
    for wire in [b"&".as_slice(), b"&AB", b"&AA-", b"&2D0-", b"&!!-", b"\xff"] {
        assert!(decode(wire).is_err(), "{wire:?}");
    }
}

#[test]
fn wildcards_match_as_rfc_3501_says() {
    let check = |pattern: &str, name: &str, expected: bool| {
        let matches = Pattern::new(b"", pattern.as_bytes()).unwrap().matches(name);
        assert_eq!(matches, expected, "{pattern} on {name}");
    };
    check("*", "a/b/c", true);
    check("%", "a", true);
    check("%", "a/b", false);
    check("%/%", "a/b", true);
    check("a/%", "a/", true);
    check("a/%", "a", false);
    check("a*", "a", true);
    check("*c", "a/b/c", true);
    check("%c", "a/b/c", false);
    check("inbox", "INBOX", true);
    check("Inbox/x", "INBOX/x", true);
    check("sent", "Sent", false);
    check("&XfJT0ZAB-", "已发送", true);
    check("", "", true);
    // Would take an exponential matcher longer than the universe has.
    check(&"*a".repeat(200), &"a".repeat(150), false);
    let joined = Pattern::new(b"a/", b"%").unwrap();
    assert!(joined.matches("a/b") && !joined.matches("b"));
}
