//! Envelopes, structures and sections of messages, as they go to the wire.

use std::path::Path;

use bytes::Bytes;
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder;

use crate::message::structure::Structure;
use crate::pop_imap::imap::command::{Command, Item, parse};
use crate::pop_imap::imap::{envelope, structure};

fn shown(message: &str, extended: bool) -> String {
    let mut out = Vec::new();
    structure::write(&mut out, &Structure::parse(message.as_bytes()).root, extended);
    String::from_utf8(out).unwrap()
}

/// A message with everything: alternatives, an attachment, a message that was forwarded.
const NESTED: &str = "From: a@b\r\nContent-Type: multipart/mixed; boundary=\"o\"\r\nSubject: outer\r\n\r\npreamble\r\n\
    --o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n\
    --i\r\nContent-Type: text/plain; charset=utf-8; format=flowed\r\nContent-Language: en, de\r\n\r\nplain\r\n\
    --i\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: QUOTED-PRINTABLE\r\nContent-Location: x.html\r\n\r\n<p>\r\n--i--\r\n\
    --o\r\nContent-Type: application/pdf; name=\"a \\\"b\\\".pdf\"\r\nContent-Disposition: attachment; filename=a.pdf; size=3\r\n\
    Content-ID: <id@x>\r\nContent-Description: a file\r\nContent-MD5: Q2hlY2s=\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n\
    --o\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nTo: c@d\r\n\r\nhello\r\nthere\r\n\r\n\
    --o\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=m\r\nSubject: deep\r\n\r\n\
    --m\r\n\r\nfirst\r\n--m\r\nContent-Type: image/png\r\n\r\nsecond\r\n--m--\r\n\
    --o--\r\nepilogue\r\n";

#[test]
fn body_structures_are_written_with_all_extension_data() {
    let plain = r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 1"#;
    assert_eq!(shown("Subject: x\r\n\r\nhi\r\n", false), format!("{plain})"));
    assert_eq!(shown("Subject: x\r\n\r\nhi\r\n", true), format!("{plain} NIL NIL NIL NIL)"));
    let expected = [
        r#"((("text" "plain" ("charset" "utf-8" "format" "flowed") NIL NIL "7bit" 5 0 NIL NIL ("en" "de") NIL)"#,
        r#"("text" "html" NIL NIL NIL "quoted-printable" 3 0 NIL NIL NIL "x.html")"#,
        r#" "alternative" ("boundary" "i") NIL NIL NIL)"#,
        r#"("application" "pdf" ("name" "a \"b\".pdf") "<id@x>" "a file" "base64" 4 "Q2hlY2s=" ("attachment" ("filename" "a.pdf" "size" "3")) NIL NIL)"#,
        r#"("message" "rfc822" NIL NIL NIL "7bit" 41 (NIL "inner" NIL NIL NIL ((NIL NIL "c" "d")) NIL NIL NIL NIL) "#,
        r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 14 2 NIL NIL NIL NIL) 5 NIL NIL NIL NIL)"#,
        r#"("message" "rfc822" NIL NIL NIL "7bit" 119 (NIL "deep" NIL NIL NIL NIL NIL NIL NIL NIL) "#,
        r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 0 NIL NIL NIL NIL)"#,
        r#"("image" "png" NIL NIL NIL "7bit" 6 NIL NIL NIL NIL) "mixed" ("boundary" "m") NIL NIL NIL) 10 NIL NIL NIL NIL)"#,
        r#" "mixed" ("boundary" "o") NIL NIL NIL)"#,
    ];
    assert_eq!(shown(NESTED, true), expected.concat());
}

#[test]
fn composite_types_that_are_not_taken_apart_do_not_promise_parts() {
    let encoded = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA";
    assert_eq!(shown(encoded, false), r#"("application" "octet-stream" NIL NIL NIL "base64" 4)"#);
}

#[test]
fn envelopes_are_written() {
    let message = "Date: Thu, 1 Feb 2024 00:30:00 +0100\r\nSubject: =?utf-8?q?=C3=A4?= \"x\"\r\n folded\r\nFrom: A B <a@b>\r\n\
                   To: g: x@y, Z <z@y>;\r\nCc: ü@ö\r\nIn-Reply-To: <1@x>\r\nMessage-ID: <2@x>\r\n\r\n";
    let mut out = Vec::new();
    envelope::write(&mut out, &Structure::parse(message.as_bytes()).envelope);
    let from = r#"(("A B" NIL "a" "b"))"#;
    let expected = format!(
        "(\"Thu, 1 Feb 2024 00:30:00 +0100\" \"=?utf-8?q?=C3=A4?= \\\"x\\\" folded\" {from} {from} {from} {} {} NIL \"<1@x>\" \"<2@x>\")",
        r#"((NIL NIL "g" NIL)(NIL NIL "x" "y")("Z" NIL "z" "y")(NIL NIL NIL NIL))"#, "((NIL NIL {2}\r\nü {2}\r\nö))",
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

/// What `BODY[section]` of the message is, and how the answer names it.
fn check(message: &str, section: &str, expected: Option<&str>) {
    let command = parse(&Bytes::from(format!("a FETCH 1 BODY{section}\r\n"))).unwrap();
    let Command::Fetch(request) = command else { panic!("{command:?}") };
    let [Item::Section { section: parsed, partial, .. }] = request.items.as_slice() else { panic!("{request:?}") };
    let text = Bytes::copy_from_slice(message.as_bytes());
    let structure = Structure::parse(&text);
    let found = parsed.resolve(&text, Some(&structure));
    let found = found.map(|bytes| partial.map_or_else(|| bytes.clone(), |partial| partial.cut(&bytes)));
    assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), expected, "{section}");
    let mut named = Vec::new();
    parsed.write(&mut named);
    let asked = section.split('<').next().unwrap();
    assert_eq!(String::from_utf8(named).unwrap().to_ascii_uppercase(), asked.to_ascii_uppercase());
}

#[test]
fn sections_are_found_by_part_and_word() {
    let plain = "Subject: x\r\nTo: a\r\n b\r\nX: y\r\n\r\nbody\r\n";
    check(plain, "[]", Some(plain));
    check(plain, "[HEADER]", Some("Subject: x\r\nTo: a\r\n b\r\nX: y\r\n\r\n"));
    check(plain, "[TEXT]", Some("body\r\n"));
    check(plain, "[1]", Some("body\r\n"));
    check(plain, "[2]", None);
    check(plain, "[1.1]", None);
    check(plain, "[1.HEADER]", None);
    check(plain, "[HEADER.FIELDS (to SUBJECT)]", Some("Subject: x\r\nTo: a\r\n b\r\n\r\n"));
    check(plain, "[HEADER.FIELDS (None)]", Some("\r\n"));
    check(plain, "[HEADER.FIELDS.NOT (to)]", Some("Subject: x\r\nX: y\r\n\r\n"));
    check(
        NESTED,
        "[1]",
        Some(
            "--i\r\nContent-Type: text/plain; charset=utf-8; format=flowed\r\nContent-Language: en, de\r\n\r\nplain\r\n\
         --i\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: QUOTED-PRINTABLE\r\nContent-Location: x.html\r\n\r\n<p>\r\n--i--",
        ),
    );
    check(NESTED, "[1.1]", Some("plain"));
    check(
        NESTED,
        "[1.2.MIME]",
        Some(
            "Content-Type: text/html\r\nContent-Transfer-Encoding: QUOTED-PRINTABLE\r\nContent-Location: x.html\r\n\r\n",
        ),
    );
    check(NESTED, "[2]", Some("AAAA"));
    check(NESTED, "[2.HEADER]", None);
    check(NESTED, "[3.MIME]", Some("Content-Type: message/rfc822\r\n\r\n"));
    check(NESTED, "[3]", Some("Subject: inner\r\nTo: c@d\r\n\r\nhello\r\nthere\r\n"));
    check(NESTED, "[3.HEADER]", Some("Subject: inner\r\nTo: c@d\r\n\r\n"));
    check(NESTED, "[3.HEADER.FIELDS (To)]", Some("To: c@d\r\n\r\n"));
    check(NESTED, "[3.TEXT]", Some("hello\r\nthere\r\n"));
    check(NESTED, "[3.1]", Some("hello\r\nthere\r\n"));
    check(NESTED, "[3.2]", None);
    check(NESTED, "[4.1]", Some("first"));
    check(NESTED, "[4.2]", Some("second"));
    check(NESTED, "[4.2.MIME]", Some("Content-Type: image/png\r\n\r\n"));
    check(NESTED, "[5]", None);
}

#[test]
fn partial_fetches_are_cut_at_the_end() {
    let plain = "Subject: x\r\n\r\nbody\r\n";
    check(plain, "[TEXT]<0.2>", Some("bo"));
    check(plain, "[TEXT]<2.100>", Some("dy\r\n"));
    check(plain, "[TEXT]<100.1>", Some(""));
    check(plain, "[TEXT]<4294967295.4294967295>", Some(""));
    check(plain, "[9]<0.1>", None);
}

/// Real messages, old and broken ones too: what is written is what another implementation's grammar takes.
#[test]
fn structures_of_real_messages_are_grammatical() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mail");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let found = Structure::parse(&std::fs::read(&path).unwrap());
        for extended in [false, true] {
            let mut out = b"* 1 FETCH (ENVELOPE ".to_vec();
            envelope::write(&mut out, &found.envelope);
            out.extend_from_slice(if extended { b" BODYSTRUCTURE ".as_slice() } else { b" BODY " });
            structure::write(&mut out, &found.root, extended);
            out.extend_from_slice(b")\r\n");
            let decoded = ResponseCodec::default().decode(&out);
            let rest = decoded.map(|(rest, _)| rest.len());
            assert_eq!(rest, Ok(0), "{}: {}", path.display(), String::from_utf8_lossy(&out));
        }
        seen += 1;
    }
    assert!(seen > 50, "{seen} messages");
}
