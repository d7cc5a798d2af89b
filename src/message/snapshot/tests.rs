//! Full snapshots and later ones become one.

use super::{Account, Kept, Line, Listing};

/// The account after these snapshots, each a listing and its lines: mailbox name, UID, flags, and where the message is.
fn check(snapshots: &[(&str, &[&str])], expected: &[&str]) {
    let mut account = Account::default();
    for (number, (listing, lines)) in snapshots.iter().enumerate() {
        let mailboxes: Vec<String> = listing.split_whitespace().map(listed).collect();
        let listing = format!(r#"{{"account": "u", "mailboxes": [{}], "subscriptions": []}}"#, mailboxes.join(","));
        account.listing(serde_json::from_str::<Listing>(&listing).unwrap());
        for line in *lines {
            account.line(number, serde_json::from_str::<Line>(&line_of(line)).unwrap());
        }
    }
    let place = |kept: &Kept| kept.place.as_ref().map(|place| format!("{}:{}", place.snapshot, place.file));
    let shown = |name: &str, kept: &Kept| {
        format!("{name} {} {} {}", kept.line.uid, kept.line.flags.join(","), place(kept).unwrap_or_default())
    };
    let mailboxes = account.listing.mailboxes.iter();
    let all: Vec<String> =
        mailboxes.flat_map(|listed| account.messages(listed.id).map(|kept| shown(&listed.name, kept))).collect();
    assert_eq!(all, expected);
}

/// `1=INBOX` is a mailbox, with `!` at the end a complete one.
fn listed(text: &str) -> String {
    let (id, name) = text.split_once('=').unwrap();
    let (name, complete) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
    format!(
        r#"{{"id": {id}, "name": "{name}", "directory": "Maildir", "uid-validity": 1, "uid-next": 9, "highest-modseq": 9,
            "keywords": [], "complete": {complete}}}"#
    )
}

/// `1 7 \Seen m5 file`: mailbox, UID, flags, message, file; `1 -7`: gone.
fn line_of(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [mailbox, uid, rest @ ..] = words.as_slice() else { panic!("{text}") };
    if let Some(gone) = uid.strip_prefix('-') {
        return format!(r#"{{"mailbox": {mailbox}, "gone": [{gone}]}}"#);
    }
    let message = rest[1].strip_prefix('m').unwrap();
    let flags = serde_json::to_string(&[rest[0]]).unwrap();
    let file = rest.get(2).map(|file| format!(r#", "file": "{file}""#)).unwrap_or_default();
    format!(
        r#"{{"mailbox": {mailbox}, "uid": {uid}, "flags": {flags}, "modseq": 1, "date": 5, "size": 3, "message": {message}{file}}}"#
    )
}

const FULL: (&str, &[&str]) = ("1=INBOX! 2=Sent!", &["1 1 - m1 a", "1 2 - m2 b", "2 1 - m3 c"]);

#[test]
fn flags_change_messages_come_and_go_and_the_rest_stays() {
    check(&[FULL], &["INBOX 1 - 0:a", "INBOX 2 - 0:b", "Sent 1 - 0:c"]);
    check(
        &[FULL, ("1=INBOX 2=Sent", &["1 1 \\Seen m1", "1 -2", "1 3 - m4 d"]), ("1=INBOX 2=Sent", &["1 3 \\Seen m4"])],
        &["INBOX 1 \\Seen 0:a", "INBOX 3 \\Seen 1:d", "Sent 1 - 0:c"],
    );
}

#[test]
fn mailboxes_get_other_names_and_go() {
    check(&[FULL, ("1=INBOX 2=Old", &[])], &["INBOX 1 - 0:a", "INBOX 2 - 0:b", "Old 1 - 0:c"]);
    check(&[FULL, ("1=INBOX 3=Sent", &["3 1 - m9 x"])], &["INBOX 1 - 0:a", "INBOX 2 - 0:b", "Sent 1 - 1:x"]);
}

#[test]
fn what_is_complete_forgets_what_it_had_but_finds_its_messages_again() {
    // INBOX was renamed: its messages stand in another mailbox, under the same UIDs.
    check(
        &[FULL, ("1=INBOX! 2=Sent 4=Old!", &["4 1 - m1", "4 2 \\Seen m2"])],
        &["Sent 1 - 0:c", "Old 1 - 0:a", "Old 2 \\Seen 0:b"],
    );
    check(
        &[FULL, ("1=INBOX! 2=Sent", &["1 2 \\Seen m2", "1 7 - m8"])],
        &["INBOX 2 \\Seen 0:b", "INBOX 7 - ", "Sent 1 - 0:c"],
    );
}
