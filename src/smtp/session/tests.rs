//! Dialogues: what a client says and what it hears, against a session in memory.
//!
//! Script lines: `C: text` is sent with its line end; `P: text` too, but together with the line that follows; `R: text` is sent as it is,
//! with `\r`, `\n`, `\0`, `\x80` written out, and without a line end; `S: text` is the beginning of the next line heard; `M: text` is what a delivered
//! message must contain; `X` is the closed connection. Every line heard must be in the script.

mod chunks;
mod signing_in;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{Ask, Client, Found, Message, Now, Personality, Session, Settings};
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::directory::{Account, AccountStatus};
use crate::smtp::command::ForwardPath;
use crate::smtp::envelope::Way;
use crate::smtp::reply::{self, Reply};

/// A session and a world that answers it.
pub(super) struct World {
    pub(super) session: Session,
    pub(super) now: Now,
    pub(super) delivered: Vec<Message>,
    pub(super) closed: bool,
    /// What is answered to a delivered message.
    verdict: Reply,
    waiting: Vec<u8>,
}

impl World {
    pub(super) fn new(personality: Personality, is_local: bool) -> Self {
        let settings = Settings {
            hostname: "mx.example.test".into(),
            message_size_max: 10_000,
            recipients_max: 5,
            hops_max: 3,
            idle_timeout: Duration::from_secs(300),
            cleartext_login: false,
            tls_available: true,
        };
        let address = IpAddr::V4(if is_local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(192, 0, 2, 7) });
        let client = Client { address: Some(address), is_local, tls: None };
        let now = Now { monotonic: clock::monotonic(), unix_secs: 1_795_491_065 };
        let session = Session::new(Arc::new(settings), personality, client, Id::from_u64(7), &now);
        let verdict = Reply::new(250, 0, 0, "delivered");
        Self { session, now, delivered: Vec::new(), closed: false, verdict, waiting: Vec::new() }
    }

    /// Sends octets, answers what the session asks, gives the lines heard.
    pub(super) fn send(&mut self, octets: &[u8]) -> String {
        self.waiting.extend_from_slice(octets);
        loop {
            let input = std::mem::take(&mut self.waiting);
            let (used, ask) = self.session.receive(&input, &self.now);
            self.waiting = input[used..].to_vec();
            match ask {
                Some(ask) => self.answer(ask),
                None => break,
            }
            if self.closed {
                break;
            }
        }
        String::from_utf8(std::mem::take(self.session.output())).unwrap()
    }

    fn answer(&mut self, ask: Ask) {
        let now = self.now;
        match ask {
            Ask::Sender(sender) => {
                let refused = match (self.session.account(), &sender) {
                    (_, Some(address)) if address.local() == "full" => Some(reply::NO_ROOM),
                    (Some(account), Some(address)) if account.address != *address => Some(reply::NOT_OWN_ADDRESS),
                    _ => None,
                };
                self.session.sender_is(refused.map_or(Ok(Id::from_u64(9)), Err), &now);
            }
            Ask::Recipient(path) => self.session.recipient_is(recipient(path), &now),
            Ask::SignIn(credentials) => {
                let good = credentials.login == "u1@example.test" && credentials.password.reveal() == "secret";
                self.session.sign_in_is(if good { Ok(account()) } else { Err(reply::AUTH_REFUSED) }, &now);
            }
            Ask::Deliver(message) => {
                self.delivered.push(*message);
                self.session.message_is(&self.verdict, &now);
            }
            Ask::StartTls => {
                // Taken off the wire before TLS runs.
                self.session.output().clear();
                self.session.tls_started("TLSv1.3 TLS13_AES_256_GCM_SHA384".into(), &now);
                self.waiting.clear();
                self.session.output().extend_from_slice(b"220 2.0.0 (TLS runs)\r\n");
            }
            Ask::Close => self.closed = true,
        }
    }
}

fn account() -> Arc<Account> {
    Arc::new(Account {
        id: [1; 16],
        address: address("u1@example.test"),
        name: String::new(),
        quota_bytes: None,
        status: AccountStatus::Active,
        admin: false,
    })
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn recipient(path: ForwardPath) -> Result<Found, Reply> {
    let given = match path {
        ForwardPath::Postmaster => address("postmaster@example.test"),
        ForwardPath::Mailbox(address) => address,
    };
    if given.domain().as_str() != "example.test" {
        return Err(reply::RELAY_DENIED);
    }
    let mailboxes = match given.local() {
        "all" => vec![address("u1@example.test"), address("u2@example.test")],
        "away" => return Err(reply::DIRECTORY_AWAY),
        "nobody" => return Err(reply::NO_SUCH_USER),
        _ => vec![given.clone()],
    };
    let targets = mailboxes.into_iter().map(|mailbox| (mailbox, Way::Mailbox)).collect();
    Ok(Found { given, targets })
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next().unwrap() {
                'r' => out.push(b'\r'),
                'n' => out.push(b'\n'),
                't' => out.push(b'\t'),
                '0' => out.push(0),
                'x' => {
                    let digits: String = chars.by_ref().take(2).collect();
                    out.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                other => panic!("\\{other}"),
            },
            (c, false) => out.extend_from_slice(c.to_string().as_bytes()),
        }
    }
    out
}

fn run(world: &mut World, script: &str) {
    let mut heard: VecDeque<String> = VecDeque::new();
    let mut together = Vec::new();
    let take = |heard: &mut VecDeque<String>, output: String| heard.extend(output.lines().map(str::to_owned));
    let greeting = String::from_utf8(std::mem::take(world.session.output())).unwrap();
    take(&mut heard, greeting);
    assert_eq!(heard.pop_front().unwrap(), "220 mx.example.test ESMTP");
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "X" {
            assert!(heard.is_empty(), "before the close: {heard:?}");
            assert!(world.closed, "closed\n{script}");
            continue;
        }
        let (kind, text) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
        let text = text.strip_prefix(' ').unwrap_or(text);
        match kind {
            "C" | "P" | "R" => {
                assert!(heard.is_empty() || kind == "P", "at {line}: heard {heard:?}");
                let octets = if kind == "R" { unescape(text) } else { format!("{text}\r\n").into_bytes() };
                together.extend_from_slice(&octets);
                if kind != "P" {
                    let output = world.send(&std::mem::take(&mut together));
                    take(&mut heard, output);
                }
            }
            "S" => {
                let next = heard.pop_front().unwrap_or_else(|| panic!("silence at {line}\n{script}"));
                assert!(next.starts_with(text), "at {line}: heard {next}\n{script}");
            }
            "M" => {
                let message = world.delivered.last().expect("a message");
                let whole = [&message.trace[..], &message.content[..]].concat();
                let text = String::from_utf8(unescape(text)).unwrap();
                assert!(
                    String::from_utf8_lossy(&whole).contains(&text),
                    "at {line}: {}",
                    String::from_utf8_lossy(&whole)
                );
            }
            other => panic!("{other}"),
        }
    }
    assert!(heard.is_empty(), "at the end: heard {heard:?}\n{script}");
}

/// A dialogue on port 25 with a machine elsewhere; gives the messages that were delivered.
fn mx(script: &str) -> Vec<Message> {
    let mut world = World::new(Personality::Mx, false);
    run(&mut world, script);
    world.delivered
}

/// A dialogue on the submission port with a client on this machine, which may sign in without TLS.
fn submission(script: &str) -> Vec<Message> {
    let mut world = World::new(Personality::Submission, true);
    run(&mut world, script);
    world.delivered
}

/// A message up to DATA's 354.
const UP_TO_DATA: &str = "C: EHLO c.test
    S: 250-mx.example.test
    S: 250-PIPELINING
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-SIZE 10000
    S: 250-CHUNKING
    S: 250-DSN
    S: 250-STARTTLS
    S: 250 ENHANCEDSTATUSCODES
    C: MAIL FROM:<s@elsewhere.test>
    S: 250 2.1.0
    C: RCPT TO:<u1@example.test>
    S: 250 2.1.5
    C: DATA
    S: 354
    ";

#[test]
fn takes_a_message_and_traces_it() {
    let delivered = mx(&format!(
        "{UP_TO_DATA}
        C: Subject: one
        C:
        C: ..stuffed
        C: .
        S: 250 2.0.0 delivered
        M: Received: from c.test ([192.0.2.7])\\r\\n\\tby mx.example.test with ESMTP\\r\\n\\t(session 0000000000007) id 0000000000009\\r\\n\\tfor <u1@example.test>;\\r\\n\\tTue, 24 Nov 2026 03:31:05 +0000\\r\\nSubject: one\\r\\n\\r\\n.stuffed\\r\\n
        C: QUIT
        S: 221 2.0.0
        X"
    ));
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].envelope.reverse_path, Some(address("s@elsewhere.test")));
}

#[test]
fn commands_keep_their_order() {
    mx("C: MAIL FROM:<s@elsewhere.test>
        S: 503 5.5.1 EHLO first
        C: HELO c.test
        S: 250 mx.example.test
        C: RCPT TO:<u1@example.test>
        S: 503 5.5.1 MAIL first
        C: DATA
        S: 503 5.5.1 MAIL first
        C: MAIL FROM:<>
        S: 250
        C: MAIL FROM:<s@elsewhere.test>
        S: 503 5.5.1
        C: DATA
        S: 554 5.5.1
        C: RSET
        S: 250
        C: RCPT TO:<u1@example.test>
        S: 503
        C: MAIL FROM:<s@elsewhere.test>
        S: 250
        C: HELO again.test
        S: 250
        C: RCPT TO:<u1@example.test>
        S: 503");
}

#[test]
fn other_domains_unknown_users_and_a_silent_directory_are_told_apart() {
    mx("C: HELO c.test
        S: 250
        C: MAIL FROM:<s@elsewhere.test>
        S: 250
        C: RCPT TO:<someone@elsewhere.test>
        S: 550 5.7.1
        C: RCPT TO:<nobody@example.test>
        S: 550 5.1.1
        C: RCPT TO:<away@example.test>
        S: 451 4.3.0
        C: RCPT TO:<>
        S: 501 5.1.3
        C: RCPT TO:<u1@[127.0.0.1]>
        S: 550 5.7.1
        C: DATA
        S: 554 5.5.1");
}

#[test]
fn postmaster_needs_no_domain() {
    let delivered = mx("C: HELO c.test
        S: 250
        C: MAIL FROM:<>
        S: 250
        C: RCPT TO:<PostMaster>
        S: 250
        C: DATA
        S: 354
        C: .
        S: 250");
    assert_eq!(delivered[0].envelope.recipients[0].mailbox, address("postmaster@example.test"));
    assert_eq!(delivered[0].envelope.reverse_path, None);
    assert_eq!(&delivered[0].content[..], b"\r\n", "a message without a line is still one");
}

#[test]
fn a_mailbox_gets_a_message_once_however_often_it_is_named() {
    let delivered = mx("C: HELO c.test
        S: 250
        C: MAIL FROM:<>
        S: 250
        C: RCPT TO:<all@example.test>
        S: 250
        C: RCPT TO:<u1@example.test>
        S: 250
        C: RCPT TO:<U2@Example.Test>
        S: 250
        C: DATA
        S: 354
        C: .
        S: 250");
    let mailboxes: Vec<String> =
        delivered[0].envelope.recipients.iter().map(|recipient| recipient.mailbox.to_string()).collect();
    // `U2` differs by letter case only; the directory gives the one spelling, this world does not.
    assert_eq!(mailboxes, ["u1@example.test", "u2@example.test", "U2@example.test"]);
}

#[test]
fn recipients_beyond_the_limit_wait_for_the_next_message() {
    mx("C: HELO c.test
        S: 250
        C: MAIL FROM:<>
        S: 250
        P: RCPT TO:<a@example.test>
        P: RCPT TO:<b@example.test>
        P: RCPT TO:<c@example.test>
        P: RCPT TO:<d@example.test>
        P: RCPT TO:<e@example.test>
        C: RCPT TO:<f@example.test>
        S: 250
        S: 250
        S: 250
        S: 250
        S: 250
        S: 452 4.5.3");
}

#[test]
fn arguments_are_read_strictly() {
    let check = |line: &str, expected: &str| {
        mx(&format!("C: EHLO c.test\n{}\nC: {line}\nS: {expected}", UP_TO_EHLO_REPLY));
    };
    check("MAIL FROM:<s@elsewhere.test> SIZE=9999 BODY=8BITMIME", "250 2.1.0");
    check("mail from:<s@elsewhere.test> body=7bit", "250 2.1.0");
    check("MAIL FROM: <s@elsewhere.test>", "250 2.1.0"); // a space that many programs put there
    check("MAIL FROM:<@a.test,@b.test:s@elsewhere.test>", "250 2.1.0"); // RFC 5321 appendix C
    check("MAIL FROM:<\"a b\"@elsewhere.test>", "250 2.1.0");
    check("MAIL FROM:<\"a>b\"@elsewhere.test>", "250 2.1.0");
    check("MAIL FROM:<a b@elsewhere.test>", "501");
    check("MAIL FROM:<a@b@elsewhere.test>", "501 5.1.7");
    check("MAIL FROM:<s@elsewhere..test>", "501 5.1.7");
    check("MAIL FROM:<Postmaster>", "501 5.1.7");
    check("MAIL FROM:s@elsewhere.test", "501 5.5.4");
    check("MAIL FROM:<s@elsewhere.test", "501");
    check("MAIL", "501 5.5.4");
    check("MAIL FROM:<s@elsewhere.test> SIZE=10001", "552 5.3.4");
    check("MAIL FROM:<s@elsewhere.test> SIZE=99999999999999999999999", "501");
    check("MAIL FROM:<s@elsewhere.test> BODY=BINARYMIME", "555 5.6.3");
    check("MAIL FROM:<s@elsewhere.test> BODY=NONE", "501");
    check("MAIL FROM:<s@elsewhere.test> AUTH=<>", "555 5.5.4"); // nor is AUTH, on port 25
    check("MAIL FROM:<s@elsewhere.test> REQUIRETLS", "555 5.5.4");
    check("MAIL FROM:<s@elsewhere.test> FOO=BAR", "555 5.5.4");
    check("MAIL FROM:<grün@elsewhere.test>", "550 5.6.7");
    check("MAIL FROM:<grün@elsewhere.test> SMTPUTF8", "250 2.1.0");
    check("MAIL FROM:<full@elsewhere.test>", "452 4.3.1");
    check("QUIT now", "501 5.5.4");
    check("RSET now", "501 5.5.4");
    check("NOOP whatever", "250 2.0.0");
    check("VRFY u1", "252 2.5.0");
    check("EXPN all", "502 5.5.1");
    check("ETRN example.test", "502 5.5.1");
    check("HELP", "214 2.0.0");
    check("LHLO c.test", "500 5.5.2");
    check("TURN", "500 5.5.2");
    check("", "500 5.5.2");
    check("AUTH PLAIN", "503 5.5.1"); // users are on another port
    check("BDAT", "501 5.5.4");
    check("BDAT 184467440737095516150", "501 5.5.4"); // beyond 64 bits
}

const UP_TO_EHLO_REPLY: &str = "S: 250-mx
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250-
    S: 250 ENHANCEDSTATUSCODES";

#[test]
fn addresses_beyond_ascii_need_smtputf8() {
    let delivered = mx(&format!(
        "C: EHLO c.test
        {UP_TO_EHLO_REPLY}
        C: MAIL FROM:<s@elsewhere.test>
        S: 250
        C: RCPT TO:<用户@example.test>
        S: 553 5.6.7
        C: RSET
        S: 250
        C: MAIL FROM:<s@elsewhere.test> SMTPUTF8
        S: 250
        C: RCPT TO:<用户@example.test>
        S: 250
        R: RCPT TO:<\\xff@example.test>\\r\\n
        S: 500 5.5.2
        C: DATA
        S: 354
        C: .
        S: 250
        M: with UTF8SMTP\\r\\n"
    ));
    assert!(delivered[0].envelope.smtputf8);
}

#[test]
fn lines_end_with_crlf_and_nothing_else() {
    mx("R: NOOP\\n
        S: 500 5.5.2
        R: NO\\rOP\\r\\n
        S: 500 5.5.2
        R: NOOP \\0\\r\\n
        S: 500 5.5.2
        R: NOOP\\r\\r\\n
        S: 500 5.5.2
        R: NO
        R: OP\\r
        R: \\nNOOP\\r\\n
        S: 250
        S: 250");
}

#[test]
fn long_lines_are_read_to_their_end_and_refused_once() {
    for (len, expected) in [(2047 - 6, "250 2.0.0"), (2048, "500 5.5.2"), (12_300, "500 5.5.2"), (500_000, "500 5.5.2")]
    {
        let mut world = World::new(Personality::Mx, false);
        world.send(b"");
        let line = format!("NOOP {}\r\nNOOP\r\n", "x".repeat(len - 1));
        let heard: String = line.as_bytes().chunks(1000).map(|chunk| world.send(chunk)).collect();
        let lines: Vec<&str> = heard.lines().collect();
        assert_eq!(lines.len(), 2, "{len}: {heard}");
        assert!(lines[0].starts_with(expected) && lines[1].starts_with("250"), "{len}: {heard}");
    }
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_a_message() {
    // Every sequence that some server was found to take for the end, followed by what would then be commands.
    for end in [
        "\\n.\\n",
        "\\n.\\r\\n",
        "\\r.\\r",
        "\\r.\\r\\n",
        "\\r\\n.\\n",
        "\\r\\n.\\r",
        "\\r\\n\\0.\\r\\n",
        "\\r\\n.\\0\\r\\n",
        "\\n\\r.\\r\\n",
        "\\r\\n.\\r\\r\\n",
        "\\n.\\r",
        "\\r.\\n",
        "\\n\\n.\\n\\n",
        "\\r\\r.\\r\\r\\n",
    ] {
        let delivered = mx(&format!(
            "{UP_TO_DATA}
            R: Subject: outer\\r\\n\\r\\ntext{end}MAIL FROM:<forged@example.test>\\r\\nRCPT TO:<u2@example.test>\\r\\nDATA\\r\\nforged\\r\\n.\\r\\n
            S: 550 5.6.0
            C: NOOP
            S: 250"
        ));
        assert!(delivered.is_empty(), "{end}");
    }
}

#[test]
fn too_big_is_said_at_the_end_and_the_session_goes_on() {
    let mut world = World::new(Personality::Mx, false);
    run(&mut world, UP_TO_DATA);
    for _ in 0..30 {
        assert_eq!(world.send(&[b"x".repeat(998), b"\r\n".to_vec()].concat()), "");
    }
    assert_eq!(world.session.buffered(), 0, "what is refused is not kept");
    assert!(world.send(b".\r\nNOOP\r\n").starts_with("552 5.3.4 message too big\r\n250"));
    assert!(world.delivered.is_empty());
}

#[test]
fn what_never_ends_is_cut_off() {
    let mut world = World::new(Personality::Mx, false);
    run(&mut world, UP_TO_DATA);
    let heard: String = (0..100).map(|_| world.send(&b"y".repeat(1000))).collect();
    assert!(heard.starts_with("552 5.3.4") && world.closed, "{heard}");
}

#[test]
fn loops_are_found_by_their_trace() {
    mx(&format!(
        "{UP_TO_DATA}
        P: Received: a
        P: received: b
        P: X-Received: not one
        P: RECEIVED : c
        P: Received: d
        P:
        P: Received: in the body
        C: .
        S: 554 5.4.6"
    ));
    mx(&format!(
        "{UP_TO_DATA}
        P: Received: a
        P: Received: b
        P: Received: c
        P:
        P: Received: in the body
        C: .
        S: 250"
    ));
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let delivered = mx("C: HELO c.test
        S: 250
        P: MAIL FROM:<s@elsewhere.test>
        P: RCPT TO:<nobody@example.test>
        P: RCPT TO:<u1@example.test>
        C: DATA
        S: 250 2.1.0
        S: 550 5.1.1
        S: 250 2.1.5
        S: 354
        P: text
        P: .
        P: MAIL FROM:<s@elsewhere.test>
        P: RCPT TO:<u2@example.test>
        P: DATA
        P: more
        P: .
        C: QUIT
        S: 250 2.0.0 delivered
        S: 250 2.1.0
        S: 250 2.1.5
        S: 354
        S: 250 2.0.0 delivered
        S: 221
        X");
    assert_eq!(delivered.len(), 2);
    assert!(delivered[0].trace.ends_with(b"+0000\r\n"));
    assert!(String::from_utf8_lossy(&delivered[0].trace).contains("with SMTP\r\n"), "greeted by HELO");
}

#[test]
fn nothing_said_before_tls_is_remembered_and_nothing_is_smuggled_in() {
    mx(&format!(
        "C: EHLO c.test
        {UP_TO_EHLO_REPLY}
        C: STARTTLS
        S: 220 2.0.0
        C: MAIL FROM:<s@elsewhere.test>
        S: 503 5.5.1 EHLO first
        C: EHLO c.test
        S: 250-mx
        S: 250-PIPELINING
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-SIZE
        S: 250-CHUNKING
        S: 250-DSN
        S: 250 ENHANCEDSTATUSCODES
        C: STARTTLS
        S: 503 5.5.1
        C: MAIL FROM:<s@elsewhere.test>
        S: 250
        C: RCPT TO:<u1@example.test>
        S: 250
        C: DATA
        S: 354
        C: .
        S: 250
        M: with ESMTPS (TLSv1.3 TLS13_AES_256_GCM_SHA384)\\r\\n"
    ));
    mx(&format!(
        "C: EHLO c.test
        {UP_TO_EHLO_REPLY}
        P: STARTTLS
        C: MAIL FROM:<forged@example.test>
        S: 554 5.5.0
        X"
    ));
    mx("C: STARTTLS
        S: 503 5.5.1
        C: HELO c.test
        S: 250
        C: STARTTLS now
        S: 501 5.5.4
        C: MAIL FROM:<>
        S: 250
        C: STARTTLS
        S: 503 5.5.1");
}

#[test]
fn who_errs_too_often_is_sent_away() {
    let mut world = World::new(Personality::Mx, false);
    let heard: String = (0..30).map(|_| world.send(b"FOO\r\n")).collect();
    assert!(heard.ends_with("421 4.7.0 too many errors, closing\r\n") && world.closed);
    assert_eq!(heard.matches("500").count(), 21);

    let mut world = World::new(Personality::Mx, false);
    world.send(b"HELO c\r\nMAIL FROM:<>\r\n");
    let heard: String = (0..200).map(|_| world.send(b"RCPT TO:<nobody@example.test>\r\n")).collect();
    assert_eq!(heard.matches("550").count(), 100);
    assert!(world.closed);

    let mut world = World::new(Personality::Mx, false);
    let heard: String = (0..2000).map(|_| world.send(b"NOOP\r\n")).collect();
    assert!(heard.contains("421 4.7.0 too many commands") && world.closed);
}

#[test]
fn a_client_name_cannot_forge_trace() {
    mx("C: HELO a)(b\"<c>;\\
        S: 250
        C: MAIL FROM:<>
        S: 250
        C: RCPT TO:<u1@example.test>
        S: 250
        C: DATA
        S: 354
        C: .
        S: 250
        M: Received: from a??b??c??? ([192.0.2.7])");
}

#[test]
fn slow_clients_have_a_deadline_that_dribbling_does_not_move() {
    let mut world = World::new(Personality::Mx, false);
    let start = world.now.monotonic;
    let idle = Duration::from_secs(300);
    assert_eq!(world.session.deadline(), start + idle);
    world.now.monotonic += Duration::from_secs(100);
    world.send(b"HEL");
    assert_eq!(world.session.deadline(), start + idle, "half a command is no progress");
    world.send(b"O c\r\n");
    assert_eq!(world.session.deadline(), start + idle + Duration::from_secs(100));
    world.send(b"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\n");
    let began = world.now.monotonic;
    world.now.monotonic += Duration::from_secs(200);
    world.send(&b"x".repeat(5 * 1024));
    assert_eq!(world.session.deadline(), began + idle + Duration::from_secs(5), "a KiB earns a second");
    world.session.time_out();
    assert!(world.send(b"").starts_with("421 4.4.2") || world.closed);
}

#[test]
fn a_message_without_memory_is_refused_at_its_end() {
    let mut world = World::new(Personality::Mx, false);
    run(&mut world, UP_TO_DATA);
    world.send(b"one\r\n");
    assert!(world.session.buffered() > 0);
    world.session.refuse_message(reply::NO_MEMORY);
    assert_eq!(world.send(b"two\r\n"), "");
    assert_eq!(world.session.buffered(), 0);
    assert!(world.send(b".\r\n").starts_with("452 4.3.1"));
    assert!(world.send(b"MAIL FROM:<>\r\n").starts_with("250"));
}

#[test]
fn who_signed_in_before_tls_does_it_again_within() {
    let mut world = World::new(Personality::Submission, true);
    let signed_in = world.send(b"EHLO c.test\r\nAUTH PLAIN AHUxQGV4YW1wbGUudGVzdABzZWNyZXQ=\r\n");
    assert!(signed_in.contains("\r\n235 "), "{signed_in}");
    world.send(b"STARTTLS\r\n");
    let said = world.send(b"EHLO c.test\r\nMAIL FROM:<u1@example.test>\r\n");
    assert!(said.lines().last().unwrap().starts_with("530 "), "{said}");
    assert!(world.session.account().is_none());
}

#[test]
fn messages_that_are_taken_keep_a_session_open_and_those_refused_do_not() {
    let message = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nx\r\n.\r\n";
    for (verdict, stays) in [(Reply::new(250, 0, 0, "delivered"), true), (reply::NO_ROOM, false)] {
        let mut world = World { verdict, ..World::new(Personality::Mx, false) };
        world.send(b"EHLO c.test\r\n");
        // MAIL and DATA each count.
        for _ in 0..600 {
            world.send(message);
        }
        assert_eq!(!world.closed, stays, "{} messages", world.delivered.len());
        assert_eq!(world.delivered.len() == 600, stays, "{} messages", world.delivered.len());
    }
}

#[test]
fn trace_names_a_recipient_only_when_it_betrays_no_other() {
    let trace = |recipients: &str| {
        let mut world = World::new(Personality::Mx, false);
        world.send(format!("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n{recipients}DATA\r\nx\r\n.\r\n").as_bytes());
        String::from_utf8(world.delivered.remove(0).trace.to_vec()).unwrap()
    };
    assert!(trace("RCPT TO:<u1@example.test>\r\n").contains("for <u1@example.test>"));
    // Whoever gets a blind copy is nobody's business (RFC 5321 section 7.2).
    let several = trace("RCPT TO:<u1@example.test>\r\nRCPT TO:<u2@example.test>\r\n");
    assert!(!several.contains("u1@") && !several.contains("u2@"), "{several}");
}

#[test]
fn a_chunk_that_nobody_wants_is_not_read_without_end() {
    let mut world = World::new(Personality::Mx, false);
    world.send(b"EHLO c.test\r\nBDAT 4000000 LAST\r\n");
    assert_eq!(world.send(&b"x".repeat(40_000)), "");
    assert!(!world.closed);
    assert!(world.send(&b"x".repeat(10_000)).starts_with("552 "));
    assert!(world.closed);
}
