//! Hostile replies to the LMTP and the SMTP client. Called by: `crate::fuzz`.
//!
//! The first octet says how the replies are cut, whether the message goes along with the commands, and whether we sign in.
//!
//! Invariants: no panic; every recipient of a finished transaction has exactly one outcome, of one line; nobody counts as having a message that
//! was not sent; what is sent are whole command lines, into which nothing of the replies goes; no password before TLS, and what was announced
//! before TLS is forgotten with it; how the replies are cut changes nothing.

use super::session::{Capabilities, Event, Framing};
use super::{Begin, Client, Credentials, Dialect, Target, Wishes};
use crate::base::address::Address;
use crate::config::secret::SecretText;
use crate::smtp::reply::Reply;

/// Recipients of each message.
const RECIPIENTS: [&str; 3] = ["a@example.test", "\"b c\"@example.test", "用户@example.test"];
/// Octets of replies that are played: more than one reply may have.
const LEN_MAX: usize = 48 * 1024;

/// Plays a server's replies. Returns the transactions finished.
pub(crate) fn target(dialect: Dialect, data: &[u8]) -> usize {
    let Some((&how, replies)) = data.split_first() else { return 0 };
    let replies = replies.get(..LEN_MAX).unwrap_or(replies);
    let credentials = Credentials { user: "u".into(), password: SecretText::new("p".into()) };
    let start_tls = dialect == Dialect::Smtp;
    let wishes = Wishes { start_tls, credentials: (start_tls && how & 0x80 == 0).then_some(credentials) };
    let play = |piece| play(dialect, &wishes, how & 1 == 0, replies, piece);
    let whole = play(replies.len().max(1));
    let piece = usize::from((how & 0x7f) >> 1) + 1;
    assert_eq!(play(piece), whole, "cut in pieces of {piece}");
    whole.events.iter().filter(|event| event.starts_with("Finished")).count()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    events: Vec<String>,
    said: String,
    fault: Option<String>,
}

fn play(dialect: Dialect, wishes: &Wishes, eager: bool, replies: &[u8], piece: usize) -> Outcome {
    let recipients: Vec<Address> = RECIPIENTS.iter().map(|text| text.parse().unwrap()).collect();
    let mut client = Client::new(dialect, "mx.example.test".into(), wishes.clone(), false);
    let mut outcome = Outcome::default();
    // What was said before TLS; all, as long as there is none. And whether the message of this transaction was sent.
    let (mut clear_len, mut sent) = (None, false);
    'all: for part in replies.chunks(piece) {
        let mut rest = part;
        while !rest.is_empty() {
            let (used, event) = match client.receive(rest) {
                Ok(taken) => taken,
                Err(fault) => {
                    outcome.fault = Some(fault.to_string());
                    break 'all;
                }
            };
            rest = &rest[used..];
            let Some(event) = event else { continue };
            outcome.events.push(format!("{event:?}"));
            match event {
                Event::SendMessage(framing) => {
                    sent = framing != Framing::Nothing;
                    client.message_sent();
                }
                Event::StartTls => {
                    assert!(clear_len.is_none(), "TLS is started once");
                    clear_len = Some(client.output().len());
                    client.tls_started();
                    assert_eq!(client.capabilities(), Capabilities::default());
                }
                Event::Ready => sent = begin(&mut client, &recipients, eager),
                Event::Finished(replies) => {
                    assert_eq!(replies.len(), recipients.len());
                    replies.iter().for_each(|reply| check(reply, sent));
                    sent = begin(&mut client, &recipients, eager);
                }
            }
        }
    }
    outcome.said = String::from_utf8(std::mem::take(client.output())).unwrap();
    let in_the_clear = outcome.said.get(..clear_len.unwrap_or(outcome.said.len())).unwrap_or_default();
    assert!(!in_the_clear.contains("AUTH"), "{in_the_clear}");
    check_said(&outcome.said);
    let open = client.abandon();
    assert!(open.is_empty() || open.len() == recipients.len());
    open.iter().flatten().for_each(|reply| check(reply, sent));
    outcome
}

/// What is said of a recipient.
fn check(reply: &Reply, sent: bool) {
    assert!((200..600).contains(&reply.code()));
    assert!(!reply.to_string().contains(['\r', '\n', '\0']));
    assert!(sent || !reply.is_positive(), "nothing was sent: {reply}");
}

fn check_said(said: &str) {
    for line in said.split_inclusive("\r\n") {
        let known = [
            "LHLO mx.example.test\r\n",
            "EHLO mx.example.test\r\n",
            "HELO mx.example.test\r\n",
            "STARTTLS\r\n",
            "AUTH PLAIN AHUAcA==\r\n",
            "AUTH LOGIN\r\n",
            "dQ==\r\n",
            "cA==\r\n",
            "RSET\r\n",
            "DATA\r\n",
            "BDAT 100 LAST\r\n",
        ];
        let path = line.starts_with("MAIL FROM:<s@elsewhere.test>") || line.starts_with("RCPT TO:<");
        assert!(known.contains(&line) || (path && line.ends_with("\r\n")), "{line:?}");
    }
}

/// Begins a message; whether it went along.
fn begin(client: &mut Client, recipients: &[Address], eager: bool) -> bool {
    let from: Address = "s@elsewhere.test".parse().unwrap();
    let targets: Vec<Target<'_>> = recipients.iter().map(Target::new).collect();
    let reverse_path = Some(&from);
    let begin = Begin {
        reverse_path,
        targets: &targets,
        message_len: 100,
        eight_bit: true,
        smtputf8: false,
        reports: None,
        eager,
    };
    let along = client.begin(&begin);
    if along {
        client.message_sent();
    }
    along
}
