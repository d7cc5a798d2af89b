//! What a bounce says, and that a mail program understands it.

use std::sync::Arc;

use bytes::Bytes;
use mail_parser::{MessageParser, MimeHeaders as _};

use super::super::envelope::{Envelope, Message, Notify, Recipient, Reports, Return, Way};
use super::super::reply::Reply;
use super::{Fact, Kind, Writing};
use crate::base::address::Address;
use crate::base::id::Id;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn message(sender: &Address, content: &'static [u8]) -> Message {
    // 2026-11-24 03:31:05.
    let id = Id::from_u64(1_795_491_065_000 << 22);
    let reverse_path = Some(sender.clone());
    let reports = Reports::default();
    let envelope = Envelope { id, reverse_path, recipients: Vec::new(), smtputf8: false, reports };
    Message { envelope, trace: Bytes::from_static(b"Received: here\r\n"), content: Bytes::from_static(content) }
}

fn fact(given: &str) -> Fact {
    let recipient = Recipient::new(Arc::new(address(given)), address("u2@example.test"), Way::Mailbox);
    Fact::own(recipient, Reply::new(552, 2, 2, "mailbox full"))
}

fn text_of(message: &Message, kind: Kind, facts: &[Fact]) -> String {
    let sender = message.envelope.reverse_path.as_ref().unwrap();
    let writing = Writing { hostname: "mx.example.test", message, kind, facts, sender, unix_secs: 1_795_491_100 };
    let bounce = writing.write(vec![(address("u1@example.test"), Way::Mailbox)], Id::from_u64(5));
    assert_eq!(bounce.envelope.reverse_path, None, "a bounce never bounces");
    assert_eq!(bounce.envelope.recipients[0].mailbox, address("u1@example.test"));
    let text = String::from_utf8(bounce.content.to_vec()).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "lines end with CRLF: {text}");
    text
}

fn bounce(sender: &str, given: &str, content: &'static [u8]) -> String {
    text_of(&message(&address(sender), content), Kind::Failure, &[fact(given)])
}

#[test]
fn what_the_sender_asked_for_is_done() {
    let mut message = message(&address("u1@example.test"), b"Subject: Hello\r\n\r\nbody\r\n");
    message.envelope.reports = Reports { returned: Some(Return::Full), envelope_id: Some("QQ 1".into()) };
    let mut fact = fact("list@example.test");
    fact.recipient.original = Some("rfc822;first@example.test".into());
    fact.remote = Some("mx.far.test [192.0.2.1]:25".into());
    let facts = [fact];
    let failed = text_of(&message, Kind::Failure, &facts);
    for expected in [
        "Original-Envelope-Id: QQ 1\r\n",
        "Original-Recipient: rfc822; first@example.test\r\n",
        "Remote-MTA: dns; mx.far.test\r\n",
        "Content-Type: message/rfc822\r\n",
        "Received: here\r\nSubject: Hello\r\n\r\nbody\r\n",
    ] {
        assert!(failed.contains(expected), "{expected}\n---\n{failed}");
    }
    let delayed = text_of(&message, Kind::Delay { until_secs: 1_795_500_000 }, &facts);
    for expected in
        ["Action: delayed\r\n", "Will-Retry-Until: Tue, 24 Nov 2026 06:00:00 +0000\r\n", "text/rfc822-headers"]
    {
        assert!(delayed.contains(expected), "{expected}\n---\n{delayed}");
    }
    let [fact] = facts;
    let relayed = text_of(&message, Kind::Success, &[Fact { is_final: false, ..fact.clone() }]);
    assert!(relayed.contains("Action: relayed\r\n"), "{relayed}");
    assert!(text_of(&message, Kind::Success, &[fact]).contains("Action: delivered\r\n"));
}

#[test]
fn nobody_is_told_what_he_does_not_want_to_know() {
    let check = |notify: Notify, expected: [bool; 3]| {
        let mut fact = fact("u2@example.test");
        fact.recipient.notify = notify;
        let kinds = [Kind::Failure, Kind::Delay { until_secs: 0 }, Kind::Success];
        assert_eq!(kinds.map(|kind| kind.is_wanted(&fact)), expected, "{notify:?}");
    };
    check(Notify::default(), [true, true, false]);
    check(Notify::NEVER, [false, false, false]);
    check(Notify::FAILURE, [true, false, false]);
    check(Notify::SUCCESS.and(Notify::DELAY), [false, true, true]);
}

#[test]
fn a_bounce_is_a_report_in_three_parts() {
    let text = bounce("u1@example.test", "list@example.test", b"Subject: Hello\r\nX-A: b\r\n\r\nsecret body\r\n");
    let parsed = MessageParser::default().parse(text.as_bytes()).unwrap();
    let kind = parsed.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype().unwrap()), ("multipart", "report"));
    assert_eq!(kind.attribute("report-type").unwrap(), "delivery-status");
    let kinds: Vec<String> = parsed.parts[1..]
        .iter()
        .filter_map(|part| part.content_type().map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap())))
        .collect();
    assert_eq!(kinds, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    for expected in [
        "Auto-Submitted: auto-replied\r\n",
        "To: <u1@example.test>\r\n",
        "Date: Tue, 24 Nov 2026 03:31:40 +0000\r\n",
        "Reporting-MTA: dns; mx.example.test\r\n",
        "Arrival-Date: Tue, 24 Nov 2026 03:31:05 +0000\r\n",
        "Original-Recipient: rfc822; list@example.test\r\nFinal-Recipient: rfc822; u2@example.test\r\nAction: failed\r\nStatus: 5.2.2\r\nDiagnostic-Code: smtp; 552 5.2.2 mailbox full\r\n",
        "Subject: Hello\r\nX-A: b\r\n",
    ] {
        assert!(text.contains(expected), "{expected}\n---\n{text}");
    }
    assert!(!text.contains("secret body"));
}

#[test]
fn addresses_beyond_ascii_have_their_own_types() {
    let text = bounce("u1@example.test", "用户@example.test", "Subject: 你好\r\n\r\n".as_bytes());
    for expected in [
        "message/global-delivery-status",
        "message/global-headers",
        "Original-Recipient: utf-8; 用户@example.test",
        "Subject: 你好",
    ] {
        assert!(text.contains(expected), "{expected}\n---\n{text}");
    }
}
