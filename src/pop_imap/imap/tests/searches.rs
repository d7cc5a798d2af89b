//! SEARCH becomes keys.

use bytes::Bytes;
use chrono::NaiveDate;

use crate::pop_imap::imap::command::{Command, CommandError, parse};
use crate::pop_imap::imap::search::{Key, Results, SearchRequest, sent_day};
use crate::pop_imap::imap::set::Set;
use crate::pop_imap::store::Flags;

fn parsed(text: &str) -> Result<SearchRequest, CommandError> {
    let command = parse(&Bytes::copy_from_slice(format!("a {text}\r\n").as_bytes()))?;
    let Command::Search(request) = command else { panic!("{command:?}") };
    Ok(request)
}

fn check(text: &str, key: Key) {
    assert_eq!(parsed(&format!("SEARCH {text}")), Ok(SearchRequest { uid: false, results: None, key }), "{text}");
}

fn not(key: Key) -> Key {
    Key::Not(Box::new(key))
}

#[test]
fn keys_are_understood() {
    let date = NaiveDate::from_ymd_opt(2024, 2, 1).unwrap();
    let header = |name: &str, text: &str| Key::Header(name.into(), text.into());
    check("ALL", Key::All);
    check("unseen", not(Key::Flag(Flags::SEEN)));
    check("NEW", Key::Recent);
    check("OLD", not(Key::Recent));
    check("1:3,*", Key::Numbers(Set::parse(b"1:3,*").unwrap()));
    check("UID 5", Key::Uids(Set::parse(b"5").unwrap()));
    check("KEYWORD $Forwarded", Key::Keyword("$Forwarded".into()));
    check("UNKEYWORD Junk", not(Key::Keyword("Junk".into())));
    check("SINCE 1-Feb-2024", Key::Since(date));
    check("BEFORE \"01-feb-2024\"", Key::Before(date));
    check("SENTON 1-Feb-2024", Key::SentOn(date));
    check("LARGER 1000", Key::Larger(1000));
    check("FROM bob", header("FROM", "bob"));
    check("HEADER X-Spam \"\"", header("X-Spam", ""));
    check("SUBJECT {6}\r\n考试", header("SUBJECT", "考试"));
    check("TEXT \"8-bit ü\"", Key::Text("8-bit ü".into()));
    check("CHARSET UTF-8 BODY \"x y\"", Key::Body("x y".into()));
    check("MODSEQ 620162338", Key::ModSeq(620_162_338));
    check("MODSEQ \"/flags/\\\\draft\" all 620162338", Key::ModSeq(620_162_338));
    check("SEEN ", Key::Flag(Flags::SEEN));
}

#[test]
fn keys_are_combined() {
    let seen = || Key::Flag(Flags::SEEN);
    let from = || Key::Header("FROM".into(), "a".into());
    check("SEEN FROM a", Key::And(vec![seen(), from()]));
    // What rows decide comes first.
    check("FROM a SEEN", Key::And(vec![seen(), from()]));
    check("(SEEN)", seen());
    check("NOT (SEEN FROM a)", not(Key::And(vec![seen(), from()])));
    check("OR SEEN FROM a", Key::Or(Box::new(seen()), Box::new(from())));
    let deep = format!("{}SEEN", "NOT ".repeat(50));
    assert!(parsed(&format!("SEARCH {deep}")).is_ok());
    let chain = format!("{}SEEN", "OR FROM a ".repeat(60));
    assert!(parsed(&format!("SEARCH {chain}")).is_ok());
    let too_deep = format!("{}SEEN{}", "(".repeat(20_000), ")".repeat(20_000));
    assert_eq!(parsed(&format!("SEARCH {too_deep}")), Err(CommandError::Unsupported));
}

#[test]
fn results_can_be_chosen() {
    let results = |text: &str| parsed(&format!("UID SEARCH RETURN ({text}) ALL")).unwrap().results.unwrap();
    assert_eq!(results(""), Results { all: true, ..Results::default() });
    assert_eq!(results("MIN MAX COUNT"), Results { min: true, max: true, count: true, all: false });
    assert_eq!(results("all"), Results { all: true, ..Results::default() });
    assert_eq!(parsed("SEARCH RETURN (SAVE) ALL"), Err(CommandError::Unsupported));
    assert!(parsed("UID SEARCH ALL").unwrap().uid);
}

#[test]
fn what_is_no_search_is_refused() {
    for text in
        ["", "SEEN)", "(SEEN", "()", "FROM", "SINCE 31-Feb-2024", "SINCE 1-2-2024", "OR SEEN", "NOT", "XYZZY", "1:"]
    {
        assert_eq!(parsed(&format!("SEARCH {text}")), Err(CommandError::Syntax), "{text:?}");
    }
    assert_eq!(parsed("SEARCH CHARSET KOI8-R ALL"), Err(CommandError::Charset));
}

#[test]
fn sent_dates_are_the_days_as_written() {
    let day = |text: &[u8]| sent_day(text);
    let first = day(b"Thu, 1 Feb 2024 00:30:00 +0100").unwrap();
    assert_eq!(day(b"1 Feb 2024 23:59:59 -1200"), Some(first));
    assert_eq!(day(b"2 Feb 2024 00:00:00 +0000"), Some(first + 1));
    assert_eq!(day(b"nonsense"), None);
}
