//! Tests of header blocks, addresses, MIME structure and the packed coding.

use super::address::{self, EnvelopeAddress};
use super::header;
use super::pack::{Packer, Unpacker};
use super::structure::{Content, DEPTH_MAX, Envelope, PARTS_MAX, Part, Structure};

/// `name|route|mailbox|host` of each address, `-` for what is absent.
fn shown<T: AsRef<[u8]>>(list: impl IntoIterator<Item = EnvelopeAddress<T>>) -> String {
    let text = |text: Option<T>| text.map_or("-".into(), |text| String::from_utf8_lossy(text.as_ref()).into_owned());
    let one = |a: EnvelopeAddress<T>| [a.name, a.route, a.mailbox, a.host].map(text).join("|");
    list.into_iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn addresses_are_split_as_envelopes_have_them() {
    let check = |input: &str, expected: &str| assert_eq!(shown(address::list(input.as_bytes())), expected, "{input}");
    check("a@b", "-|-|a|b");
    check(" <a@b> ", "-|-|a|b");
    check("Jo Q <a@b>, c@d", "Jo Q|-|a|b -|-|c|d");
    check("\"Q, Jo \\\"x\\\"\" <a@b>", "Q, Jo \"x\"|-|a|b");
    check("=?UTF-8?B?5byg?= <a@b>", "=?UTF-8?B?5byg?=|-|a|b"); // not decoded
    check("a@b (Jo (the) Q)", "Jo (the) Q|-|a|b"); // the name as old messages have it
    check("<@x,@y:a@b>", "-|@x,@y|a|b");
    check("\"a b\"@c", "-|-|a b|c");
    check("a . b @ c . d", "-|-|a.b|c.d");
    check("a@[127.0.0.1]", "-|-|a|[127.0.0.1]");
    check("Team: a@b, c@d;, e@f", "-|-|Team|- -|-|a|b -|-|c|d -|-|-|- -|-|e|f");
    check("undisclosed-recipients:;", "-|-|undisclosed-recipients|- -|-|-|-");
    check("Team: a@b", "-|-|Team|- -|-|a|b -|-|-|-"); // a group that is not closed
    check("root", "-|-|root|"); // absent host would be a group
    check("<>", "-|-||");
    check("", "");
    check(",,;", "");
    check("a@b\r\n c@d", "-|-|a|bcd"); // no comma: what can be made out
    check("Jo\r\n Q\0 <a\r\n@b>", "Jo Q|-|a|b"); // line ends and NUL never come out
    check("\"open <a@b>", "-|-|open <a@b>|");
    check("<a@b", "-|-|a|b");
    check(")>]:x", "-|-||- -|-|x| -|-|-|-");
}

#[test]
fn address_lists_and_comments_are_bounded() {
    assert_eq!(address::list("a@b,".repeat(5000).as_bytes()).len(), address::ADDRESSES_MAX);
    assert_eq!(address::list("(".repeat(1 << 20).as_bytes()), Vec::new());
}

#[test]
fn fields_are_found_and_what_is_none_is_passed_over() {
    let block = b"From jo\r\nA: 1\r\nB :2\r\n\t3\r\nnot a field\r\n: x\r\nb: \r\n\r\nbody: no\r\n";
    let found: Vec<(String, String)> = header::fields(block)
        .map(|f| {
            (
                String::from_utf8_lossy(f.name).into_owned(),
                String::from_utf8_lossy(&header::unfold(f.value)).into_owned(),
            )
        })
        .collect();
    let expected = [("A", "1"), ("B", "2\t3"), ("b", "")];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(header::block_end(block), block.len() - b"body: no\r\n".len());
}

#[test]
fn header_blocks_end_at_the_first_empty_line() {
    let check = |input: &str, expected: usize| assert_eq!(header::block_end(input.as_bytes()), expected, "{input:?}");
    check("", 0);
    check("\r\n", 2);
    check("\r\nbody", 2);
    check("A: 1\r\n\r\nbody", 8);
    check("A: 1\n\nbody", 6); // bare LF
    check("A: 1\r\n", 6);
    check("A: 1", 4);
    check("A: 1\r\n \r\n\r\n", 11); // a line of blanks continues the field
}

/// The parts as `path media/subtype header..body..end lines`, one a line.
fn outline(structure: &Structure) -> Vec<String> {
    fn walk(part: &Part, path: &str, out: &mut Vec<String>) {
        let kind =
            format!("{}/{}", String::from_utf8_lossy(&part.mime.media), String::from_utf8_lossy(&part.mime.subtype));
        let place = format!("{}..{}..{}", part.header.start, part.body.start, part.body.end);
        match &part.content {
            Content::Leaf { lines } => out.push(format!("{path} {kind} {place} lines {lines}")),
            Content::Multipart(parts) => {
                out.push(format!("{path} {kind} {place}"));
                for (index, part) in parts.iter().enumerate() {
                    walk(part, &format!("{path}.{}", index + 1), out);
                }
            }
            Content::Message { message, lines } => {
                out.push(format!("{path} {kind} {place} lines {lines}"));
                walk(&message.root, &format!("{path}.m"), out);
            }
        }
    }
    let mut out = Vec::new();
    walk(&structure.root, "r", &mut out);
    out
}

#[test]
fn parts_are_told_apart() {
    let check = |input: &str, expected: &[&str]| {
        let structure = Structure::parse(input.as_bytes());
        assert_eq!(outline(&structure), expected, "{input:?}");
        assert_eq!(Structure::decode(&structure.encode(), 0).unwrap(), structure, "{input:?}");
    };
    check("", &["r text/plain 0..0..0 lines 0"]);
    check("Subject: x\r\n\r\nbody\r\n", &["r text/plain 0..14..20 lines 1"]);
    check("Content-Type: nonsense\r\n\r\n", &["r text/plain 0..26..26 lines 0"]); // RFC 2045 section 5.2
    check(
        "Content-Type: multipart/mixed\r\n\r\nx",
        &["r multipart/mixed 0..33..34", "r.1 text/plain 34..34..34 lines 0"],
    );
    // Preamble, epilogue, the line end before a delimiter, blanks after it.
    check(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b \t\r\n\r\none\r\n--b\r\n\r\n--b--\r\nepi\r\n--b\r\n",
        &["r multipart/mixed 0..45..88", "r.1 text/plain 57..59..62 lines 0", "r.2 text/plain 69..69..69 lines 0"],
    );
    // A boundary that begins like another is another; no closing delimiter.
    check(
        "Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n\r\none\r\n--bb\r\ntwo\r\n--",
        &["r multipart/mixed 0..47..72", "r.1 text/plain 52..54..72 lines 3"],
    );
    // The inner multipart is left open and ends with the outer one.
    check(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/alternative; boundary=i\n\n--i\n\nx\n--o\n\ny\n--o--\n",
        &[
            "r multipart/mixed 0..43..116",
            "r.1 multipart/alternative 47..96..102",
            "r.1.1 text/plain 100..101..102 lines 0",
            "r.2 text/plain 107..108..109 lines 0",
        ],
    );
    check(
        "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx\r\n",
        &["r message/rfc822 0..32..50 lines 3", "r.m text/plain 32..47..50 lines 1"],
    );
    // An encoded message is opaque (RFC 2046 section 5.2.1 forbids it).
    check(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogaW4KCng=\r\n",
        &["r message/rfc822 0..67..89 lines 1"],
    );
    // Parts of a digest are messages (RFC 2046 section 5.1.5).
    check(
        "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: in\r\n\r\nx\r\n--b--",
        &[
            "r multipart/digest 0..46..76",
            "r.1 message/rfc822 51..53..69 lines 2",
            "r.1.m text/plain 53..68..69 lines 0",
        ],
    );
}

#[test]
fn mime_fields_are_read_with_their_defaults() {
    let text = "Content-Type: TEXT/HTML (comment); Charset=\"u\\\"8\"; name = a b.txt; filename*0*=utf-8''x\r\n\
                Content-Transfer-Encoding: Quoted-Printable\r\nContent-ID: <i>\r\nContent-Description: d\r\n e\r\n\
                Content-Disposition: Attachment; filename=x\r\nContent-Language: zh, en\r\nContent-Location: l\r\nContent-MD5: m\r\n\r\n";
    let mime = Structure::parse(text.as_bytes()).root.mime;
    let param = |name: &str| mime.param(name.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned());
    assert_eq!((mime.media.as_slice(), mime.subtype.as_slice()), (b"text".as_slice(), b"html".as_slice()));
    assert_eq!(param("charset").as_deref(), Some("u\"8"));
    assert_eq!(param("name").as_deref(), Some("a b.txt"));
    assert_eq!(param("filename*0*").as_deref(), Some("utf-8''x"));
    assert_eq!(mime.encoding, b"quoted-printable");
    assert_eq!(mime.description.as_deref(), Some(b"d e".as_slice()));
    let disposition = mime.disposition.clone().unwrap();
    assert_eq!(disposition.kind, b"attachment");
    assert_eq!(disposition.params, vec![(b"filename".to_vec(), b"x".to_vec())]);
    assert_eq!(mime.language, vec![b"zh".to_vec(), b"en".to_vec()]);
    assert_eq!((mime.md5.as_deref(), mime.location.as_deref()), (Some(b"m".as_slice()), Some(b"l".as_slice())));

    let plain = Structure::parse(b"Content-Type: text/plain; format=flowed\r\n\r\n").root.mime;
    assert_eq!(plain.param(b"charset"), Some(b"us-ascii".as_slice()));
    assert_eq!(plain.encoding, b"7bit");
}

#[test]
fn envelopes_are_read_raw_and_filled() {
    let text = "Date: d\r\nSubject: =?utf-8?q?x?=\r\n y\r\nFrom: a@b\r\nTo: c@d\r\nTo: e@f\r\nReply-To: \r\nMessage-ID: <m>\r\nsubject: 2\r\n\r\n";
    let envelope = Structure::parse(text.as_bytes()).envelope;
    let fields = envelope.fields();
    assert_eq!(fields.subject, Some(b"=?utf-8?q?x?= y".as_slice()));
    assert_eq!(shown(fields.from.clone()), "-|-|a|b");
    assert_eq!((&fields.sender, &fields.reply_to), (&fields.from, &fields.from));
    assert_eq!(shown(fields.to), "-|-|c|d -|-|e|f");
    assert_eq!(fields.message_id, Some(b"<m>".as_slice()));
    assert_eq!(fields.in_reply_to, None);
}

#[test]
fn parts_are_found_by_their_numbers() {
    let text = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
                Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\ntwo\r\n--c--\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\r\nthree\r\n--b--\r\n";
    let structure = Structure::parse(text.as_bytes());
    let check = |path: &[u32], expected: Option<&str>| {
        let body = structure.part(path).map(|part| text.get(part.body.start as usize..part.body.end as usize).unwrap());
        match expected {
            Some(expected) => assert!(body.unwrap().ends_with(expected), "{path:?} {body:?}"),
            None => assert_eq!(body, None, "{path:?}"),
        }
    };
    check(&[], Some("--b--\r\n"));
    check(&[1], Some("one"));
    check(&[1, 1], None);
    check(&[2], Some("--c--"));
    check(&[2, 1], Some("two"));
    check(&[2, 2], None);
    check(&[3, 1], Some("three"));
    check(&[0], None);
    check(&[4], None);
    let plain = Structure::parse(b"\r\nbody");
    assert_eq!(plain.part(&[1]), Some(&plain.root));
    assert_eq!(plain.part(&[2]), None);
    assert_eq!(plain.part(&[1, 1]), None);
}

#[test]
fn hostile_structures_are_bounded() {
    fn depth(part: &Part) -> usize {
        match &part.content {
            Content::Leaf { .. } => 0,
            Content::Multipart(parts) => 1 + parts.iter().map(depth).max().unwrap_or(0),
            Content::Message { message, .. } => 1 + depth(&message.root),
        }
    }
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(20_000);
    let structure = Structure::parse(nested.as_bytes());
    assert_eq!(depth(&structure.root), DEPTH_MAX);
    assert_eq!(Structure::decode(&structure.encode(), 0).unwrap(), structure);

    let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\n".repeat(50_000));
    let Content::Multipart(parts) = Structure::parse(wide.as_bytes()).root.content else { panic!("a multipart") };
    assert_eq!(parts.len(), PARTS_MAX - 1);

    let mut turns = String::new();
    for level in 0..5_000 {
        turns.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
    }
    assert_eq!(depth(&Structure::parse(turns.as_bytes()).root), DEPTH_MAX);
}

#[test]
fn trace_moves_all_offsets_but_the_first() {
    let text = "Subject: x\r\n\r\nbody";
    let structure = Structure::decode(&Structure::parse(text.as_bytes()).encode(), 100).unwrap();
    assert_eq!((structure.root.header, structure.root.body), (0..114, 114..118));
}

#[test]
fn damaged_coding_is_refused_not_trusted() {
    let bytes = Structure::parse(include_bytes!("testdata/structure-000.eml")).encode();
    Structure::decode(&bytes, 0).unwrap();
    for cut in 0..bytes.len() {
        drop(Structure::decode(&bytes[..cut], 0));
        let mut flipped = bytes.clone();
        flipped[cut] ^= 0x81;
        drop(Structure::decode(&flipped, 7));
        drop(Envelope::decode(&flipped));
    }
    assert!(Structure::decode(&bytes[..bytes.len() - 1], 0).is_err());
    assert!(Structure::decode(&bytes, u32::MAX).is_err());
}

#[test]
fn packed_numbers_read_back() {
    for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
        let mut packer = Packer::default();
        packer.number(number);
        packer.signed(number.cast_signed());
        let bytes = packer.finish();
        let mut reader = Unpacker::new(&bytes);
        assert_eq!(reader.number(), Ok(number));
        assert_eq!(reader.signed(), Ok(number.cast_signed()));
        assert!(reader.is_empty());
    }
    assert!(Unpacker::new(&[0xff; 9]).number().is_err()); // cut off
    assert!(Unpacker::new(&[0xff; 11]).number().is_err()); // more than 64 bits
    assert!(Unpacker::new(&[200, 1, b'x']).bytes().is_err()); // longer than what is there
}
