//! Hostile replies to the LMTP and the SMTP client. Called by: `crate::fuzz`.
//!
//! The first octet says which of the two it is, how the replies are cut and whether the message goes along with the commands.
//!
//! Invariants: no panic; every recipient of a finished transaction has exactly one outcome, of one line; what is sent are whole
//! command lines, into which nothing of the replies goes; how the replies are cut changes nothing; a failed connection stays failed.

use crate::base::address::Address;
use crate::config::secret::SecretText;
use crate::smtp::client::session::Event;
use crate::smtp::client::{Begin, Client, Credentials, Dialect, Target, Wishes};

/// Recipients of each message.
const RECIPIENTS: [&str; 3] = ["a@example.test", "\"b c\"@example.test", "用户@example.test"];
/// Octets of replies that are played: more than one reply may have.
const LEN_MAX: usize = 48 * 1024;

/// Plays a server's replies. Returns the transactions finished.
pub(crate) fn target(data: &[u8]) -> usize {
    let Some((&how, replies)) = data.split_first() else { return 0 };
    let replies = replies.get(..LEN_MAX).unwrap_or(replies);
    let eager = how & 1 == 0;
    let dialect = if how & 0x80 == 0 { Dialect::Lmtp } else { Dialect::Smtp };
    let whole = play(dialect, replies, eager, replies.len().max(1));
    let piece = usize::from((how & 0x7f) >> 1) + 1;
    assert_eq!(play(dialect, replies, eager, piece), whole, "cut in pieces of {piece}");
    whole.events.iter().filter(|event| event.starts_with("Finished")).count()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    events: Vec<String>,
    said: String,
    fault: Option<String>,
}

fn play(dialect: Dialect, replies: &[u8], eager: bool, piece: usize) -> Outcome {
    let recipients: Vec<Address> = RECIPIENTS.iter().map(|text| text.parse().unwrap()).collect();
    let credentials = Credentials { user: "u".into(), password: SecretText::new("p".into()) };
    let wishes = match dialect {
        Dialect::Lmtp => Wishes::default(),
        Dialect::Smtp => Wishes { start_tls: true, credentials: Some(credentials) },
    };
    let mut client = Client::new(dialect, "mx.example.test".into(), wishes, false);
    let mut outcome = Outcome::default();
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
                Event::SendMessage(_) => client.message_sent(),
                Event::StartTls => client.tls_started(),
                Event::Ready => begin(&mut client, &recipients, eager),
                Event::Finished(replies) => {
                    assert_eq!(replies.len(), recipients.len());
                    assert!(replies.iter().all(|reply| (200..600).contains(&reply.code())));
                    assert!(replies.iter().all(|reply| !reply.to_string().contains(['\r', '\n', '\0'])));
                    begin(&mut client, &recipients, eager);
                }
            }
        }
    }
    outcome.said = String::from_utf8(std::mem::take(client.output())).unwrap();
    for line in outcome.said.split_inclusive("\r\n") {
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
    let open = client.abandon().len();
    assert!(open == 0 || open == recipients.len());
    outcome
}

fn begin(client: &mut Client, recipients: &[Address], eager: bool) {
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
    if client.begin(&begin) {
        client.message_sent();
    }
}
