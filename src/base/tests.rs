//! Tests of the small types.

use super::address::{Address, Domain};
use super::duration::Span;
use super::id::Id;
use super::size::Size;

#[test]
fn sizes_read_back_as_printed() {
    for (text, bytes) in [("25 MiB", 25 << 20), ("64KiB", 64 << 10), ("1 GB", 1_000_000_000), ("10", 10)] {
        let size: Size = text.parse().unwrap();
        assert_eq!(size.get(), bytes, "{text}");
        assert_eq!(size.to_string().parse::<Size>().unwrap(), size, "{text}");
    }
    for bad in ["", "MiB", "-1", "12 parsec"] {
        assert!(bad.parse::<Size>().is_err(), "{bad}");
    }
}

#[test]
fn spans_read_back_as_printed() {
    for (text, secs) in [("5m", 300), ("1h 30m", 5400), ("4d", 345_600)] {
        let span: Span = text.parse().unwrap();
        assert_eq!(span.get().as_secs(), secs, "{text}");
        assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
    }
    for bad in ["", "5", "m", "five minutes"] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
}

#[test]
fn ids_sort_by_time_and_read_back() {
    let id = Id::new();
    assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
    assert_eq!(id.to_string().len(), 13);
    assert!(Id::from_u64(id.to_u64() + (1 << 22)).to_string() > id.to_string());
    assert!("short".parse::<Id>().is_err());
}

#[test]
fn addresses_are_strict() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(text.parse::<Address>().ok().map(|a| a.to_string()).as_deref(), expected, "{text}");
    };
    check("u1@example.test", Some("u1@example.test"));
    check("U1@EXAMPLE.test", Some("U1@example.test"));
    check("\"a b\"@example.test", Some("\"a b\"@example.test"));
    check("\"ab\"@example.test", Some("ab@example.test")); // needless quotes are dropped
    check("用户@例子.test", Some("用户@例子.test"));
    check("a@b@example.test", None); // an @ needs quotes
    check("\"a@b\"@example.test", Some("\"a@b\"@example.test"));
    check(".a@example.test", None);
    check("a..b@example.test", None);
    check("a@", None);
    check("@example.test", None);
    check("a\r\nRCPT@example.test", None);
    check("\"a\r\n\"@example.test", None);
    check("a@-bad.test", None);
    check("a@bad..test", None);
    check(&format!("{}@example.test", "a".repeat(65)), None);
}

#[test]
fn one_account_whatever_the_letter_case() {
    let a: Address = "U.One@Example.TEST".parse().unwrap();
    assert_eq!(a.key(), "u.one@example.test");
    assert_eq!("EXAMPLE.test".parse::<Domain>().unwrap().as_str(), "example.test");
}
