//! What a bounce says, and that a mail program understands it.

use std::sync::Arc;

use bytes::Bytes;
use mail_parser::{MessageParser, MimeHeaders as _};

use super::super::envelope::{Envelope, Message, Recipient};
use super::super::reply::Reply;
use super::{Failure, write};
use crate::base::address::Address;
use crate::base::id::Id;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn bounce(sender: &str, given: &str, content: &'static [u8]) -> String {
    let recipient = Recipient { given: Arc::new(address(given)), mailbox: address("u2@example.test") };
    let failures = [Failure { recipient, reply: Reply::new(552, 2, 2, "mailbox full") }];
    let sender = address(sender);
    // 2026-11-24 03:31:05.
    let id = Id::from_u64(1_795_491_065_000 << 22);
    let envelope = Envelope { id, reverse_path: Some(sender.clone()), recipients: Vec::new(), smtputf8: false };
    let message = Message { envelope, trace: Bytes::new(), content: Bytes::from_static(content) };
    let mailboxes = vec![address("u1@example.test")];
    let bounce = write("mx.example.test", &message, &failures, &sender, mailboxes, Id::from_u64(5), 1_795_491_100);
    assert_eq!(bounce.envelope.reverse_path, None, "a bounce never bounces");
    assert_eq!(bounce.envelope.recipients[0].mailbox, address("u1@example.test"));
    let text = String::from_utf8(bounce.content.to_vec()).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "lines end with CRLF: {text}");
    text
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
