//! Dialogues of the LMTP client with servers of all kinds; the pool against a server in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{Fate, Pool};
use crate::base::address::Address;
use crate::base::id::Id;
use crate::config::address::SocketAddress;
use crate::net::Shutdown;
use crate::smtp::client::session::{Event, Fault, Framing};
use crate::smtp::client::{Begin, Client, Dialect, Target, Wishes};
use crate::smtp::envelope::{Envelope, Message, Reports};

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn new(hostname: &str) -> Client {
    Client::new(Dialect::Lmtp, hostname.into(), Wishes::default(), false)
}

/// A client that has greeted a server with these extensions.
fn greeted(extensions: &[&str]) -> Client {
    let mut client = new("mx.example.test");
    assert_eq!(client.receive(b"220 store LMTP\r\n"), Ok((16, None)));
    assert_eq!(sent(&mut client), "LHLO mx.example.test\r\n");
    let lines: String = extensions.iter().map(|extension| format!("250-{extension}\r\n")).collect();
    let answer = format!("250-store\r\n{lines}250 HELP\r\n");
    assert_eq!(client.receive(answer.as_bytes()), Ok((answer.len(), Some(Event::Ready))));
    assert!(client.is_idle());
    client
}

const ALL: [&str; 5] = ["PIPELINING", "CHUNKING", "SMTPUTF8", "8BITMIME", "SIZE 50000"];

fn sent(client: &mut Client) -> String {
    String::from_utf8(std::mem::take(client.output())).unwrap()
}

fn begin(client: &mut Client, recipients: &[&str], eager: bool) -> bool {
    let recipients: Vec<Address> = recipients.iter().map(|text| address(text)).collect();
    let targets: Vec<Target<'_>> = recipients.iter().map(Target::new).collect();
    client.begin(&Begin {
        reverse_path: Some(&address("s@elsewhere.test")),
        targets: &targets,
        message_len: 100,
        eight_bit: true,
        smtputf8: false,
        reports: None,
        eager,
    })
}

fn codes(event: Option<Event>) -> Vec<u16> {
    match event {
        Some(Event::Finished(replies)) => replies.iter().map(super::super::reply::Reply::code).collect(),
        other => panic!("{other:?}"),
    }
}

/// What comes of these replies.
fn hear(client: &mut Client, replies: &str) -> Option<Event> {
    let (used, event) = client.receive(replies.as_bytes()).unwrap();
    assert_eq!(used, replies.len(), "all of it is used");
    event
}

#[test]
fn a_transaction_is_one_write_when_the_server_lets_us() {
    let mut client = greeted(&ALL);
    assert!(begin(&mut client, &["a@example.test", "b@example.test", "c@example.test"], true));
    assert_eq!(
        sent(&mut client),
        "MAIL FROM:<s@elsewhere.test> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nRCPT TO:<c@example.test>\r\nBDAT 100 LAST\r\n"
    );
    client.message_sent();
    let replies =
        "250 ok\r\n250 ok\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n250 ok\r\n250 2.0.0 stored\r\n452 4.2.2 full\r\n";
    assert_eq!(codes(hear(&mut client, replies)), [250, 550, 452]);
    assert!(client.is_idle());
    // And again on the same connection.
    assert!(begin(&mut client, &["a@example.test"], true));
    client.message_sent();
    assert_eq!(codes(hear(&mut client, "250 ok\r\n250 ok\r\n250 ok\r\n")), [250]);
}

#[test]
fn replies_may_come_in_any_pieces() {
    for piece in 1..20 {
        let mut client = greeted(&ALL);
        begin(&mut client, &["a@example.test", "b@example.test"], true);
        client.message_sent();
        let replies =
            b"250 2.1.0 ok\r\n250-2.1.5 two\r\n250 2.1.5 lines\r\n250 ok\r\n250 2.0.0 stored\r\n550 5.7.1 no\r\n";
        let events: Vec<Event> = replies.chunks(piece).filter_map(|chunk| client.receive(chunk).unwrap().1).collect();
        assert_eq!(events.len(), 1, "in pieces of {piece}");
        assert_eq!(codes(events.into_iter().next()), [250, 550]);
    }
}

#[test]
fn the_message_waits_for_the_recipients_on_a_silent_connection() {
    let mut client = greeted(&ALL);
    assert!(!begin(&mut client, &["a@example.test", "b@example.test"], false));
    assert!(!sent(&mut client).contains("BDAT"));
    assert!(!client.is_message_sent());
    let event = hear(&mut client, "250 ok\r\n550 no\r\n250 ok\r\n");
    assert_eq!(event, Some(Event::SendMessage(Framing::Chunk)));
    assert_eq!(sent(&mut client), "BDAT 100 LAST\r\n");
    client.message_sent();
    assert_eq!(codes(hear(&mut client, "250 ok\r\n")), [550, 250]);
}

#[test]
fn a_transaction_without_recipients_is_reset_before_the_next() {
    let mut client = greeted(&ALL);
    begin(&mut client, &["a@example.test"], false);
    sent(&mut client);
    assert_eq!(codes(hear(&mut client, "250 ok\r\n451 4.3.0 later\r\n")), [451]);
    begin(&mut client, &["b@example.test"], true);
    assert!(sent(&mut client).starts_with("RSET\r\nMAIL FROM:"));
    client.message_sent();
    assert_eq!(codes(hear(&mut client, "250 reset\r\n250 ok\r\n250 ok\r\n250 ok\r\n")), [250]);

    // Sent along: the server takes the chunk and has one answer to it (503 or 554).
    begin(&mut client, &["a@example.test", "b@example.test"], true);
    client.message_sent();
    assert_eq!(codes(hear(&mut client, "250 ok\r\n550 no\r\n551 no\r\n503 no recipients\r\n")), [550, 551]);
    begin(&mut client, &["b@example.test"], true);
    assert!(sent(&mut client).contains("RSET\r\nMAIL FROM:"));
}

#[test]
fn a_refused_sender_is_the_reason_for_every_recipient() {
    let mut client = greeted(&ALL);
    begin(&mut client, &["a@example.test", "b@example.test"], true);
    client.message_sent();
    let replies = "452 4.3.1 no room\r\n503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n";
    assert_eq!(codes(hear(&mut client, replies)), [452, 452]);
}

#[test]
fn servers_without_chunking_get_data() {
    let mut client = greeted(&["PIPELINING"]);
    assert!(!begin(&mut client, &["a@example.test", "b@example.test"], true), "nothing goes along");
    assert_eq!(
        sent(&mut client),
        "MAIL FROM:<s@elsewhere.test>\r\nRCPT TO:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n"
    );
    let event = hear(&mut client, "250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(event, Some(Event::SendMessage(Framing::Dots)));
    client.message_sent();
    assert_eq!(codes(hear(&mut client, "250 ok\r\n")), [250, 550]);

    // DATA refused for all.
    begin(&mut client, &["a@example.test"], false);
    assert_eq!(codes(hear(&mut client, "250 ok\r\n250 ok\r\n451 4.3.0 later\r\n")), [451]);
    // 354 although there is nobody: an empty message, one answer (RFC 2920 section 3.1).
    begin(&mut client, &["a@example.test"], false);
    let event = hear(&mut client, "250 reset\r\n250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(event, Some(Event::SendMessage(Framing::Nothing)));
    assert_eq!(codes(hear(&mut client, "554 nobody\r\n")), [550]);
}

#[test]
fn servers_without_pipelining_get_one_command_at_a_time() {
    let mut client = greeted(&[]);
    begin(&mut client, &["a@example.test", "b@example.test"], true);
    assert_eq!(sent(&mut client), "MAIL FROM:<s@elsewhere.test>\r\n");
    assert_eq!(hear(&mut client, "250 ok\r\n"), None);
    assert_eq!(sent(&mut client), "RCPT TO:<a@example.test>\r\n");
    assert_eq!(hear(&mut client, "550 no\r\n"), None);
    assert_eq!(sent(&mut client), "RCPT TO:<b@example.test>\r\n");
    assert_eq!(hear(&mut client, "250 ok\r\n"), None);
    assert_eq!(sent(&mut client), "DATA\r\n");
    assert_eq!(hear(&mut client, "354 go\r\n"), Some(Event::SendMessage(Framing::Dots)));
    assert_eq!(codes(hear(&mut client, "250 ok\r\n")), [550, 250]);
}

#[test]
fn addresses_beyond_ascii_ask_for_smtputf8_where_it_is_known() {
    for (extensions, expected) in [(&ALL[..], " SMTPUTF8\r\n"), (&["PIPELINING"][..], "<s@elsewhere.test>\r\n")] {
        let mut client = greeted(extensions);
        begin(&mut client, &["用户@example.test"], false);
        assert!(sent(&mut client).contains(expected));
    }
}

#[test]
fn what_is_no_server_is_told_apart() {
    let fault = |octets: &[u8]| new("c").receive(octets).unwrap_err();
    assert!(matches!(fault(b"SSH-2.0-OpenSSH\r\n"), Fault::Malformed(_)));
    assert!(matches!(fault(b"099 odd\r\n"), Fault::Malformed(_)));
    assert!(matches!(fault(b"554 go away\r\n"), Fault::Refused(_)));
    assert!(matches!(fault(b"421 busy\r\n"), Fault::Closing(_)));
    assert!(matches!(fault(&[b"220-", &[b'x'; 100_000][..]].concat()), Fault::Malformed(_)));
    let endless: Vec<u8> = b"220-x\r\n".repeat(10_000);
    assert!(matches!(fault(&endless), Fault::Malformed(_)));
    // More than was asked.
    let mut client = greeted(&ALL);
    assert_eq!(client.receive(b"250 what?\r\n"), Err(Fault::Malformed("more replies than commands")));
}

#[test]
fn what_is_known_of_a_lost_connection_is_kept() {
    let mut client = greeted(&ALL);
    begin(&mut client, &["a@example.test", "b@example.test", "c@example.test", "d@example.test"], true);
    client.message_sent();
    hear(&mut client, "250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n250 stored\r\n");
    assert!(matches!(client.receive(b"421 4.3.2 stopping\r\n"), Err(Fault::Closing(_))));
    let codes: Vec<Option<u16>> =
        client.abandon().iter().map(|reply| reply.as_ref().map(super::super::reply::Reply::code)).collect();
    assert_eq!(codes, [Some(250), Some(550), Some(421), None]);
}

#[test]
fn a_server_cannot_put_words_on_other_lines() {
    let mut client = greeted(&ALL);
    begin(&mut client, &["a@example.test"], true);
    let text = "x".repeat(3000);
    let Some(Event::Finished(replies)) =
        hear(&mut client, &format!("250 ok\r\n250 ok\r\n550-5.1.1 a\x07\rb\r\n550 5.1.1 {text}\r\n"))
    else {
        panic!("not finished")
    };
    let reply = replies[0].to_string();
    assert!(reply.starts_with("550 5.1.1 a") && reply.len() < 500 && !reply.contains(['\r', '\n', '\x07']), "{reply}");
}

fn message(recipients: &[&str]) -> (Message, Vec<Address>) {
    let envelope = Envelope {
        id: Id::from_u64(1),
        reverse_path: None,
        recipients: Vec::new(),
        smtputf8: false,
        reports: Reports::default(),
    };
    let content = Bytes::from_static(b"Subject: x\r\n\r\n.dot\r\n");
    let message = Message { envelope, trace: Bytes::from_static(b"Received: y\r\n"), content };
    (message, recipients.iter().map(|text| address(text)).collect())
}

/// How a server in this process behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Takes everything.
    Good,
    /// Closes after the commands, before any reply.
    DiesEarly,
    /// Takes the whole message and closes.
    DiesLate,
    /// Knows no extension.
    Plain,
    /// Closes after one message.
    Tired,
}

/// Serves one connection.
async fn converse(stream: UnixStream, manner: Manner) {
    let mut stream = BufReader::new(stream);
    let mut recipients = 0;
    stream.write_all(b"220 store\r\n").await.unwrap();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let reply = match (line.split([' ', '\r']).next().unwrap(), manner) {
            ("LHLO", Manner::Plain) => "250 store\r\n".to_owned(),
            ("LHLO", _) => "250-store\r\n250-PIPELINING\r\n250 CHUNKING\r\n".to_owned(),
            ("DATA", _) => "354 go\r\n".to_owned(),
            ("MAIL", Manner::DiesEarly) | (".dot", Manner::DiesLate) => return,
            ("MAIL" | "RSET", _) => "250 ok\r\n".to_owned(),
            ("RCPT", _) => {
                recipients += 1;
                "250 ok\r\n".to_owned()
            }
            // The last line of the message; dots are stuffed in DATA only, where the end follows.
            (".dot", _) | (".", Manner::Plain) => "250 stored\r\n".repeat(std::mem::take(&mut recipients)),
            _ => String::new(),
        };
        if stream.write_all(reply.as_bytes()).await.is_err() || (manner == Manner::Tired && reply.contains("stored")) {
            return;
        }
    }
}

fn serve(path: &std::path::Path, manners: &'static [Manner]) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(path).unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let nth = count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(converse(stream, manners[nth.min(manners.len() - 1)]));
        }
    });
    accepted
}

async fn deliver(pool: &Pool, recipients: &[&str]) -> Vec<Fate> {
    let (message, mailboxes) = message(recipients);
    pool.deliver(&message, &mailboxes.iter().collect::<Vec<_>>()).await
}

fn is_positive(fate: &Fate) -> bool {
    matches!(fate, Fate::Answered(reply) if reply.is_positive())
}

#[tokio::test]
async fn connections_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    let accepted = serve(&path, &[Manner::Good]);
    let (_stopper, shutdown) = Shutdown::pair();
    let pool = Pool::new(SocketAddress::Unix(path), None, "c".into(), shutdown);
    for _ in 0..5 {
        assert!(deliver(&pool, &["a@example.test"]).await.iter().all(is_positive));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_plain_server_is_served_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    serve(&path, &[Manner::Plain]);
    let (_stopper, shutdown) = Shutdown::pair();
    let pool = Pool::new(SocketAddress::Unix(path), None, "c".into(), shutdown);
    assert!(deliver(&pool, &["a@example.test"]).await.iter().all(is_positive));
}

#[tokio::test]
async fn an_idle_connection_that_died_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    let accepted = serve(&path, &[Manner::Tired, Manner::Good]);
    let (_stopper, shutdown) = Shutdown::pair();
    let pool = Pool::new(SocketAddress::Unix(path), None, "c".into(), shutdown);
    assert!(deliver(&pool, &["a@example.test"]).await.iter().all(is_positive));
    assert!(deliver(&pool, &["a@example.test"]).await.iter().all(is_positive));
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_away_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    let (_stopper, shutdown) = Shutdown::pair();
    let pool = Pool::new(SocketAddress::Unix(path.clone()), None, "c".into(), shutdown);
    let mut away = pool.away();
    assert_eq!(deliver(&pool, &["a@example.test", "b@example.test"]).await, [Fate::NotTried, Fate::NotTried]);
    assert!(*away.borrow_and_update());
    serve(&path, &[Manner::Good]);
    away.wait_for(|away| !away).await.unwrap();
    assert!(deliver(&pool, &["a@example.test"]).await.iter().all(is_positive));
}

#[tokio::test]
async fn doubt_begins_only_when_the_whole_message_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (_stopper, shutdown) = Shutdown::pair();
    let path = dir.path().join("early");
    serve(&path, &[Manner::DiesEarly]);
    let pool = Pool::new(SocketAddress::Unix(path), None, "c".into(), shutdown.clone());
    let fates = deliver(&pool, &["a@example.test"]).await;
    assert!(matches!(fates[..], [Fate::NotTried | Fate::Unknown]), "{fates:?}");
    let path = dir.path().join("late");
    serve(&path, &[Manner::DiesLate]);
    let pool = Pool::new(SocketAddress::Unix(path), None, "c".into(), shutdown);
    assert_eq!(deliver(&pool, &["a@example.test"]).await, [Fate::Unknown]);
}

#[tokio::test]
async fn more_recipients_than_a_transaction_holds_take_several() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    serve(&path, &[Manner::Good]);
    let (_stopper, shutdown) = Shutdown::pair();
    let pool = Pool::new(SocketAddress::Unix(path), None, "c".into(), shutdown);
    let names: Vec<String> = (0..2500).map(|number| format!("u{number}@example.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fates = deliver(&pool, &names).await;
    assert_eq!(fates.len(), 2500);
    assert!(fates.iter().all(is_positive));
}

#[test]
fn replies_of_all_kinds_break_nothing() {
    // Invariants: no panic; every recipient has one outcome when the transaction is finished; an end comes, or the input does.
    const PIECES: [&str; 14] = [
        "250 ok\r\n",
        "250 2.1.5 ok\r\n",
        "250-a\r\n",
        "550 5.1.1 no\r\n",
        "354 go\r\n",
        "421 bye\r\n",
        "451 x\r\n",
        "\n",
        "\r",
        "2",
        "503 order\r\n",
        "250\r\n",
        "\0",
        "999 x\r\n",
    ];
    let seed: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("FIFE_SEED={seed}");
    let mut finished = 0;
    for number in 0..20_000 {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + number);
        let mut client = greeted([&ALL[..], &["PIPELINING"], &[]][random.random_range(0..3)]);
        let recipients = random.random_range(1..5);
        let names: Vec<String> = (0..recipients).map(|name| format!("u{name}@example.test")).collect();
        if begin(&mut client, &names.iter().map(String::as_str).collect::<Vec<_>>(), random.random()) {
            client.message_sent();
        }
        for _ in 0..20 {
            let common = random.random_range(0..4) > 0;
            let piece = PIECES[if common { random.random_range(0..5) } else { random.random_range(0..PIECES.len()) }];
            match client.receive(piece.as_bytes()) {
                Ok((_, Some(Event::Finished(replies)))) => {
                    assert_eq!(replies.len(), recipients, "{number}");
                    finished += 1;
                    break;
                }
                Ok((_, Some(Event::SendMessage(_)))) => client.message_sent(),
                Ok(_) => {}
                Err(_) => {
                    let known = client.abandon();
                    assert_eq!(known.len(), recipients, "{number}");
                    break;
                }
            }
        }
    }
    assert!(finished > 1000, "transactions still come to an end: {finished}");
}
