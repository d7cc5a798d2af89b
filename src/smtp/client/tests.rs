//! Dialogues of the SMTP client with servers of all kinds. (What it has in common with LMTP is tested in `smtp::lmtp`.)

use super::session::{Event, Fault, Framing};
use super::{Begin, Client, Credentials, Dialect, Target, Wishes};
use crate::base::address::Address;
use crate::config::secret::SecretText;
use crate::smtp::envelope::{Notify, Reports, Return};

fn client(start_tls: bool, credentials: bool) -> Client {
    let password = SecretText::new("pass word".into());
    let credentials = credentials.then(|| Credentials { user: "us".into(), password });
    Client::new(Dialect::Smtp, "mx.example.test".into(), Wishes { start_tls, credentials }, false)
}

fn sent(client: &mut Client) -> String {
    String::from_utf8(std::mem::take(client.output())).unwrap()
}

/// Plays `S:` (the server says), `C:` (we said), and gives the last event.
fn play(client: &mut Client, script: &[&str]) -> Result<Option<Event>, Fault> {
    let mut last = None;
    for line in script {
        match line.split_at(2) {
            ("S:", text) => {
                let text = format!("{}\r\n", text.replace('|', "\r\n"));
                let (used, event) = client.receive(text.as_bytes())?;
                assert_eq!(used, text.len(), "{line}");
                last = event;
                if last == Some(Event::StartTls) {
                    client.tls_started();
                }
            }
            (_, text) => assert_eq!(sent(client), format!("{}\r\n", text.replace('|', "\r\n")), "{line}"),
        }
    }
    Ok(last)
}

const FULL: &str = "S:250-mx|250-PIPELINING|250-SIZE 1000|250-8BITMIME|250-SMTPUTF8|250-DSN|250 HELP";

fn begin(client: &mut Client, recipients: &[&str], change: impl FnOnce(&mut Begin<'_>)) {
    let recipients: Vec<Address> = recipients.iter().map(|text| text.parse().unwrap()).collect();
    let targets: Vec<Target<'_>> = recipients.iter().map(Target::new).collect();
    let from: Address = "s@example.test".parse().unwrap();
    let mut begin = Begin {
        reverse_path: Some(&from),
        targets: &targets,
        message_len: 100,
        eight_bit: false,
        smtputf8: false,
        reports: None,
        eager: false,
    };
    change(&mut begin);
    client.begin(&begin);
}

fn codes(event: Option<Event>) -> Vec<u16> {
    match event {
        Some(Event::Finished(replies)) => replies.iter().map(crate::smtp::reply::Reply::code).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_reply_is_for_all_who_were_taken() {
    let mut client = client(false, false);
    assert_eq!(play(&mut client, &["S:220 mx", "C:EHLO mx.example.test", FULL]), Ok(Some(Event::Ready)));
    begin(&mut client, &["a@far.test", "b@far.test", "c@far.test"], |_| {});
    let commands =
        "C:MAIL FROM:<s@example.test> SIZE=100|RCPT TO:<a@far.test>|RCPT TO:<b@far.test>|RCPT TO:<c@far.test>|DATA";
    let event = play(&mut client, &[commands, "S:250 ok|250 ok|550 5.1.1 no|250 ok|354 go"]);
    assert_eq!(event, Ok(Some(Event::SendMessage(Framing::Dots))));
    client.message_sent();
    assert_eq!(codes(play(&mut client, &["S:250 2.0.0 queued"]).unwrap()), [250, 550, 250]);
    assert!(client.is_idle());
    // And again: the next message on the same connection.
    begin(&mut client, &["a@far.test"], |_| {});
    play(&mut client, &["S:250 ok|250 ok|354 go"]).unwrap();
    client.message_sent();
    assert_eq!(codes(play(&mut client, &["S:452 4.3.1 full"]).unwrap()), [452]);
}

#[test]
fn whoever_takes_a_message_before_it_was_sent_has_not_got_it() {
    let mut client = client(true, false);
    play(&mut client, &["S:220 mx", "C:EHLO mx.example.test", FULL]).unwrap();
    begin(&mut client, &["a@far.test"], |_| {});
    let taken = play(&mut client, &["S:250 ok|250 ok|250 2.0.0 taken"]);
    assert_eq!(taken, Err(Fault::Malformed("DATA needs 354")));
    assert!(!client.is_message_sent());
    assert_eq!(client.abandon(), [None]);
}

#[test]
fn a_server_that_does_not_know_ehlo_is_greeted_with_helo() {
    let mut client = client(true, false);
    let script = ["S:220 old", "C:EHLO mx.example.test", "S:502 what?", "C:HELO mx.example.test", "S:250 old"];
    assert_eq!(play(&mut client, &script), Ok(Some(Event::Ready)));
    begin(&mut client, &["a@far.test"], |begin| begin.eight_bit = true);
    let one_by_one = [
        "C:MAIL FROM:<s@example.test>",
        "S:250 ok",
        "C:RCPT TO:<a@far.test>",
        "S:450 4.2.0 later",
        "C:DATA",
        "S:503 5.5.1 no recipients",
    ];
    assert_eq!(codes(play(&mut client, &one_by_one).unwrap()), [450]);
    let mut client = self::client(true, false);
    let refused = play(&mut client, &["S:220 x", "C:EHLO mx.example.test", "S:450 not now"]);
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
}

#[test]
fn tls_comes_before_anything_is_said() {
    let mut client = client(true, true);
    let script = [
        "S:220 mx",
        "C:EHLO mx.example.test",
        "S:250-mx|250-STARTTLS|250 AUTH PLAIN",
        "C:STARTTLS",
        "S:220 go",
        "C:EHLO mx.example.test",
        "S:250-mx|250 AUTH LOGIN PLAIN",
        "C:AUTH PLAIN AHVzAHBhc3Mgd29yZA==",
        "S:235 welcome",
    ];
    assert_eq!(play(&mut client, &script), Ok(Some(Event::Ready)));
    assert!(client.is_tls());
    // What comes behind the reply to STARTTLS is another's.
    let mut client = self::client(true, false);
    play(&mut client, &["S:220 mx", "C:EHLO mx.example.test", "S:250-mx|250 STARTTLS"]).unwrap();
    let injected = b"220 go\r\n250 injected\r\n";
    let (used, event) = client.receive(injected).unwrap();
    assert_eq!((used, event), (8, Some(Event::StartTls)), "the caller sees that something is left");
    // Refused: on we go, in the clear; the caller knows what it wanted.
    let mut client = self::client(true, false);
    let script = ["S:220 mx", "C:EHLO mx.example.test", "S:250-mx|250 STARTTLS", "C:STARTTLS", "S:454 4.7.0 not now"];
    assert_eq!(play(&mut client, &script), Ok(Some(Event::Ready)));
    assert!(!client.is_tls());
}

#[test]
fn a_password_is_never_sent_in_the_clear() {
    let mut client = client(true, true);
    let script = ["S:220 mx", "C:EHLO mx.example.test", "S:250-mx|250 AUTH PLAIN"];
    assert_eq!(play(&mut client, &script), Err(Fault::NoSignIn));
    assert_eq!(sent(&mut client), "");
}

#[test]
fn login_is_spoken_where_there_is_no_plain() {
    let credentials = Some(Credentials { user: "us".into(), password: SecretText::new("pass word".into()) });
    let wishes = Wishes { start_tls: false, credentials };
    let new = || Client::new(Dialect::Smtp, "mx.example.test".into(), wishes.clone(), true);
    let mut client = new();
    let script = [
        "S:220 mx",
        "C:EHLO mx.example.test",
        "S:250-mx|250 AUTH LOGIN",
        "C:AUTH LOGIN",
        "S:334 VXNlcm5hbWU6",
        "C:dXM=",
        "S:334 UGFzc3dvcmQ6",
        "C:cGFzcyB3b3Jk",
        "S:235 welcome",
    ];
    assert_eq!(play(&mut client, &script), Ok(Some(Event::Ready)));
    let refused =
        play(&mut new(), &["S:220 mx", "C:EHLO mx.example.test", "S:250-mx|250 AUTH PLAIN", "S:535 5.7.8 no"]);
    assert!(matches!(refused, Err(Fault::NotSignedIn(_))), "{refused:?}");
}

#[test]
fn what_the_sender_said_goes_on_to_servers_that_understand_it() {
    let mut client = client(false, false);
    play(&mut client, &["S:220 mx", "C:EHLO mx.example.test", FULL]).unwrap();
    let reports = Reports { returned: Some(Return::Header), envelope_id: Some("a=b".into()) };
    let to: Address = "用户@far.test".parse().unwrap();
    let notify = Notify::SUCCESS.and(Notify::FAILURE);
    let targets = [Target { address: &to, notify, original: Some("rfc822;x+y@far.test") }];
    client.begin(&Begin {
        reverse_path: None,
        targets: &targets,
        message_len: 5,
        eight_bit: true,
        smtputf8: true,
        reports: Some(&reports),
        eager: false,
    });
    assert_eq!(
        sent(&mut client),
        "MAIL FROM:<> SIZE=5 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+3Db\r\nRCPT TO:<用户@far.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x+2By@far.test\r\nDATA\r\n"
    );
}
