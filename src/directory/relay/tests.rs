//! What a server may send, and what closes the connection before ldap3 has seen it.

use std::time::Duration;

use ldap3::asn1::{ASNTag, OctetString, Sequence, Tag, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ANSWER_LEN_MAX, RelayError, UNFINISHED_LEN_MAX, ask, pass_on};
use crate::directory::frame::{FrameError, NESTING_MAX};

const PATIENCE: Duration = Duration::from_millis(50);

fn ber(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x84][..], &length, content].concat()
}

fn message(id: u8, tag: u8, content: &[u8]) -> Vec<u8> {
    ber(0x30, &[&[2, 1, id][..], &ber(tag, content)].concat())
}

/// How it ends when the server sends this and closes, and what the client has got by then.
async fn relayed(sent: &[u8]) -> (Result<(), RelayError>, Vec<u8>) {
    let (client, mut got) = tokio::io::duplex(1 << 24);
    let ended = pass_on(sent, client, PATIENCE).await;
    let mut all = Vec::new();
    got.read_to_end(&mut all).await.unwrap();
    (ended, all)
}

#[tokio::test]
async fn whole_answers_pass_and_nothing_else_does() {
    let good = [message(1, 0x64, b"\x04\x00"), message(1, 0x65, b"\x0a\x01\x00")].concat();
    let (ended, got) = relayed(&good).await;
    assert!(ended.is_ok() && got == good, "{ended:?}");
    let (ended, got) = relayed(&good[..good.len() - 1]).await;
    assert!(ended.is_ok() && got == message(1, 0x64, b"\x04\x00"), "half an answer is none: {ended:?}");
    let mut deep = Vec::new();
    for _ in 0..NESTING_MAX {
        deep = ber(0x30, &deep);
    }
    let too_large = message(1, 0x64, &ber(0x04, &vec![0; ANSWER_LEN_MAX]));
    for (what, bad) in [
        ("indefinite length", vec![0x30, 0x80, 2, 1, 1, 0x64, 0x80]),
        ("four gigabytes", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2, 1, 1]),
        ("too large", too_large),
        ("too deep", message(1, 0x64, &deep)),
        ("too many", message(1, 0x64, &[5, 0].repeat(30_000))),
        (
            "a control that is none",
            ber(0x30, &[&[2, 1, 1][..], &ber(0x65, b""), &ber(0xa0, &ber(0x30, &[5, 0]))].concat()),
        ),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
    ] {
        let (ended, got) = relayed(&[good.clone(), bad, good.clone()].concat()).await;
        assert!(matches!(ended, Err(RelayError::Frame(_))), "{what}: {ended:?}");
        assert_eq!(got, good, "{what}");
    }
    let (ended, _) = relayed(&message(1, 0x64, &deep)).await;
    assert!(matches!(ended, Err(RelayError::Frame(FrameError::TooDeep))), "{ended:?}");
}

#[tokio::test]
async fn entries_without_an_end_are_cut_off_whoever_asked_for_them() {
    let entry = |id| message(id, 0x64, &ber(0x04, &[0; 64 * 1024]));
    let too_many = UNFINISHED_LEN_MAX / entry(1).len() + 1;
    for ids in [1, 100] {
        let mut sent = Vec::new();
        for n in 0..too_many {
            sent.extend(entry(u8::try_from(n % ids + 1).unwrap()));
        }
        let ended = pass_on(&sent[..], tokio::io::sink(), PATIENCE).await;
        assert!(matches!(ended, Err(RelayError::TooMuch)), "{ids}: {ended:?}");
        // With an end to it now and then, it may go on for ever.
        for n in (0..ids).rev() {
            let at = sent.len() / 2 / entry(1).len() * entry(1).len();
            sent.splice(at..at, message(u8::try_from(n + 1).unwrap(), 0x65, b"\x0a\x01\x00"));
        }
        let ended = pass_on(&sent[..], tokio::io::sink(), PATIENCE).await;
        assert!(ended.is_ok(), "{ids}: {ended:?}");
    }
}

#[tokio::test]
async fn who_takes_nothing_is_given_up() {
    let (client, _kept) = tokio::io::duplex(16);
    let ended = pass_on(&message(1, 0x64, &ber(0x04, &[0; 64]))[..], client, PATIENCE).await;
    assert!(matches!(ended, Err(RelayError::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut));
    let (server, _kept) = tokio::io::duplex(16);
    let (mut asking, client) = tokio::io::duplex(1024);
    asking.write_all(&[0; 100]).await.unwrap();
    assert_eq!(ask(client, server, PATIENCE).await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

/// The largest that is ever answered, an alias with a thousand targets, passes.
#[tokio::test]
async fn the_largest_entry_that_is_asked_for_passes() {
    let text = |text: String| Tag::OctetString(OctetString { inner: text.into_bytes(), ..OctetString::default() });
    let targets = (0..1000).map(|n| text(format!("{n:0>250}@{}.test", "a".repeat(60)))).collect();
    let mut values = bytes::BytesMut::new();
    write::encode_into(&mut values, Tag::Sequence(Sequence { inner: targets, ..Sequence::default() }).into_structure())
        .unwrap();
    let sent = message(1, 0x64, &values);
    let (ended, got) = relayed(&sent).await;
    assert!(ended.is_ok() && got == sent, "{ended:?}");
}
