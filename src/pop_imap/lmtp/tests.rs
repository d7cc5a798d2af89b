//! Dialogues with an LMTP session in memory.

use super::session::{
    BAD_COMMANDS_MAX, COMMAND_LEN_MAX, Limits, Outcome, RECIPIENTS_MAX, Resolved, Session, Step, TARGETS_MAX, Target,
    Transaction,
};
use crate::base::address::Address;

/// Largest message of these sessions.
const SIZE_MAX: usize = 2000;

/// A session with its world: a directory of a few names and a store that keeps what it gets.
pub(super) struct World {
    session: Session,
    /// Octets that were not used yet.
    waiting: Vec<u8>,
    pub(super) out: Vec<u8>,
    pub(super) stored: Vec<Transaction>,
    pub(super) closed: bool,
    outcomes: fn(&Address) -> Outcome,
}

impl World {
    pub(super) fn new() -> Self {
        let mut out = Vec::new();
        let limits = Limits { hostname: "mx.example.test".into(), message_size_max: SIZE_MAX };
        let session = Session::new(limits, &mut out);
        Self { session, waiting: Vec::new(), out, stored: Vec::new(), closed: false, outcomes: outcome }
    }

    /// Gives the session octets and answers what it asks, until it wants more.
    pub(super) fn receive(&mut self, input: &[u8]) {
        self.waiting.extend_from_slice(input);
        while !self.closed {
            let (used, step) = self.session.step(&self.waiting, &mut self.out);
            self.waiting.drain(..used);
            match step {
                Step::More => return,
                Step::Close => self.closed = true,
                Step::Resolve(address) => self.session.resolved(resolve(&address), &mut self.out),
                Step::Deliver(transaction) => {
                    let outcomes: Vec<Outcome> =
                        transaction.recipients.iter().map(|to| (self.outcomes)(&to.address)).collect();
                    self.session.delivered(&outcomes, "ID", &mut self.out);
                    self.stored.push(*transaction);
                }
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

fn resolve(address: &Address) -> Resolved {
    let target = |name: &str| Target {
        account: [u8::try_from(name.len()).unwrap(); 16],
        address: format!("{name}@example.test").parse().unwrap(),
    };
    match (address.local(), address.domain().as_str()) {
        ("u1" | "full" | "broken" | "a b" | "用户", "example.test") => Resolved::Targets(vec![target("u1")]),
        ("both", "example.test") => Resolved::Targets(vec![target("u1"), target("u22")]),
        ("suspended", "example.test") => Resolved::Suspended,
        ("away", "example.test") => Resolved::Unavailable,
        ("forward", "example.test") => Resolved::Elsewhere,
        (_, "example.test") => Resolved::NoSuchUser,
        _ => Resolved::NotLocal,
    }
}

fn outcome(address: &Address) -> Outcome {
    match address.local() {
        "full" => Outcome::Refused(452, "4.3.1", "no room now, try again"),
        "broken" => Outcome::FAILED,
        _ => Outcome::Delivered,
    }
}

/// Runs a script: lines `C: …` are sent (with CR LF; `\n`-like escapes as in Rust), lines `S: …` must be exactly what came back since.
fn dialogue(script: &str) -> World {
    for whole in [false, true] {
        let mut world = World::new();
        let (mut sent, mut expected) = (Vec::new(), String::new());
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(text) = line.strip_prefix("S: ") {
                expected.push_str(text);
                expected.push_str("\r\n");
            } else {
                let text = line.strip_prefix("C:").expect("C: or S:");
                let octets = [text.strip_prefix(' ').unwrap_or(text).as_bytes(), b"\r\n"].concat();
                if whole { sent.extend_from_slice(&octets) } else { world.receive(&octets) }
            }
        }
        // Pipelined in one piece, the answers are the same.
        if whole {
            world.receive(&sent);
        }
        assert_eq!(String::from_utf8_lossy(&world.out), expected, "pipelined: {whole}");
        if whole {
            return world;
        }
    }
    unreachable!("the loop ends with `whole`");
}

#[test]
fn delivers_and_answers_once_for_each_recipient() {
    let world = dialogue(
        "S: 220 mx.example.test LMTP fife
         C: LHLO client.example.test
         S: 250-mx.example.test
         S: 250-PIPELINING
         S: 250-ENHANCEDSTATUSCODES
         S: 250-8BITMIME
         S: 250-SMTPUTF8
         S: 250-CHUNKING
         S: 250 SIZE 2000
         C: MAIL FROM:<a@b.test> SIZE=500 BODY=8BITMIME
         S: 250 2.1.0 sender ok
         C: RCPT TO:<u1@example.test>
         S: 250 2.1.5 <u1@example.test> is here
         C: RCPT TO:<nobody@example.test>
         S: 550 5.1.1 <nobody@example.test> does not exist
         C: RCPT TO:<u1@other.test>
         S: 550 5.1.2 <u1@other.test> is not of this site
         C: RCPT TO:<suspended@example.test>
         S: 550 5.2.1 <suspended@example.test> takes no mail
         C: RCPT TO:<forward@example.test>
         S: 550 5.1.1 <forward@example.test> has no mailbox here
         C: RCPT TO:<away@example.test>
         S: 451 4.3.0 directory is away, try again
         C: RCPT TO:<full@example.test>
         S: 250 2.1.5 <full@example.test> is here
         C: RCPT TO:<broken@example.test>
         S: 250 2.1.5 <broken@example.test> is here
         C: RCPT TO:<both@example.test>
         S: 250 2.1.5 <both@example.test> is here
         C: DATA
         S: 354 text, then a dot on a line
         C: Subject: x
         C:
         C: ..dot
         C: .
         S: 250 2.0.0 <u1@example.test> delivered as ID
         S: 452 4.3.1 <full@example.test> no room now, try again
         S: 451 4.3.0 <broken@example.test> local error, try again
         S: 250 2.0.0 <both@example.test> delivered as ID
         C: QUIT
         S: 221 2.0.0 bye",
    );
    assert_eq!(world.stored.len(), 1);
    assert_eq!(world.stored[0].text, b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(world.stored[0].recipients[3].targets.len(), 2);
    assert_eq!(world.stored[0].sender.as_ref().unwrap().to_string(), "a@b.test");
    assert!(world.closed);
}

const HELLO: &str = "S: 220 mx.example.test LMTP fife
    C: LHLO [127.0.0.1]
    S: 250-mx.example.test
    S: 250-PIPELINING
    S: 250-ENHANCEDSTATUSCODES
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-CHUNKING
    S: 250 SIZE 2000\n";

fn after_hello(script: &str) -> World {
    dialogue(&format!("{HELLO}{script}"))
}

#[test]
fn one_connection_carries_many_messages() {
    let one = "C: MAIL FROM:<>
        S: 250 2.1.0 sender ok
        C: RCPT TO:<u1@example.test>
        S: 250 2.1.5 <u1@example.test> is here
        C: DATA
        S: 354 text, then a dot on a line
        C: x
        C: .
        S: 250 2.0.0 <u1@example.test> delivered as ID\n";
    let world = after_hello(&one.repeat(50));
    assert_eq!(world.stored.len(), 50);
    assert!(world.stored.iter().all(|stored| stored.sender.is_none() && stored.text == b"x\r\n"));
}

#[test]
fn commands_have_their_order() {
    dialogue(
        "S: 220 mx.example.test LMTP fife
         C: MAIL FROM:<a@b.test>
         S: 503 5.5.1 say LHLO first
         C: EHLO client.example.test
         S: 500 5.5.1 this is LMTP: say LHLO
         C: HELO client.example.test
         S: 500 5.5.1 this is LMTP: say LHLO
         C: RCPT TO:<u1@example.test>
         S: 503 5.5.1 say MAIL first
         C: DATA
         S: 503 5.5.1 no recipients
         C: NOOP
         S: 250 2.0.0 ok
         C: VRFY u1
         S: 252 2.5.1 try RCPT
         C: STARTTLS
         S: 502 5.5.1 not offered
         C: WHAT
         S: 500 5.5.1 no such command",
    );
    after_hello(
        "C: MAIL FROM:<a@b.test>
         S: 250 2.1.0 sender ok
         C: MAIL FROM:<a@b.test>
         S: 503 5.5.1 a transaction is under way
         C: DATA
         S: 503 5.5.1 no recipients
         C: RSET
         S: 250 2.0.0 forgotten
         C: RCPT TO:<u1@example.test>
         S: 503 5.5.1 say MAIL first
         C: MAIL FROM:<a@b.test>
         S: 250 2.1.0 sender ok
         C: RCPT TO:<nobody@example.test>
         S: 550 5.1.1 <nobody@example.test> does not exist
         C: DATA
         S: 503 5.5.1 no recipients
         C: LHLO again.example.test
         S: 250-mx.example.test
         S: 250-PIPELINING
         S: 250-ENHANCEDSTATUSCODES
         S: 250-8BITMIME
         S: 250-SMTPUTF8
         S: 250-CHUNKING
         S: 250 SIZE 2000
         C: MAIL FROM:<a@b.test>
         S: 250 2.1.0 sender ok",
    );
}

#[test]
fn addresses_and_parameters_are_strict() {
    after_hello(
        "C: MAIL FROM:<a@b.test> SIZE=2001
         S: 552 5.3.4 larger than 2000 octets
         C: MAIL FROM:<a@b.test> BODY=BINARYMIME
         S: 501 5.5.4 BINARYMIME is not offered
         C: MAIL FROM:<a@b.test> FOO=BAR
         S: 555 5.5.4 no such parameter
         C: MAIL FROM:a@b.test
         S: 501 5.5.4 expected: MAIL FROM:<reverse-path> [parameters]
         C: MAIL FROM:<ü@b.test>
         S: 553 5.6.7 the address needs SMTPUTF8
         C: LHLO not a name\u{7f}
         S: 250-mx.example.test
         S: 250-PIPELINING
         S: 250-ENHANCEDSTATUSCODES
         S: 250-8BITMIME
         S: 250-SMTPUTF8
         S: 250-CHUNKING
         S: 250 SIZE 2000
         C: LHLO <script>
         S: 501 5.5.4 LHLO wants a domain or an address literal
         C: MAIL FROM:<ü@b.test> SMTPUTF8
         S: 250 2.1.0 sender ok
         C: RCPT TO:<用户@example.test>
         S: 250 2.1.5 <用户@example.test> is here
         C: RCPT TO:<\"a b\"@example.test>
         S: 250 2.1.5 <\"a b\"@example.test> is here
         C: RCPT TO:<@relay.test:u1@example.test>
         S: 250 2.1.5 <u1@example.test> is here
         C: RCPT TO:<>
         S: 553 5.1.3 expected an address such as \"user@example.edu.cn\"
         C: RCPT TO:<a@b@example.test>
         S: 501 5.1.3 not an address",
    );
}

#[test]
fn takes_chunks() {
    let mut world = after_hello("");
    world.out.clear();
    world.receive(b"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<both@example.test>\r\n");
    world.receive(b"BDAT 6\r\nA: b\r\nBDAT 4\r\n\r\n.\r");
    world.receive(b"BDAT 9 LAST\r\n\n..DATA\r\nNOOP\r\n");
    let said = String::from_utf8_lossy(&world.out).into_owned();
    let last: Vec<&str> = said.lines().skip(3).collect();
    let delivered = ["250 2.0.0 <u1@example.test> delivered as ID", "250 2.0.0 <both@example.test> delivered as ID"];
    assert_eq!(last, ["250 2.0.0 6 octets", "250 2.0.0 10 octets", delivered[0], delivered[1], "250 2.0.0 ok"]);
    assert_eq!(world.stored[0].text, b"A: b\r\n\r\n.\r\n..DATA\r\n");
}

#[test]
fn a_refused_chunk_is_read_to_its_end() {
    let mut world = after_hello("");
    world.out.clear();
    world.receive(
        b"BDAT 12\r\nQUIT\r\nQUIT\r\nNOOP\r\nMAIL FROM:<>\r\nBDAT 6 LAST\r\nQUIT\r\nRCPT TO:<u1@example.test>\r\n",
    );
    let expected = "503 5.5.1 no recipients\r\n250 2.0.0 ok\r\n250 2.1.0 sender ok\r\n503 5.5.1 no recipients\r\n503 5.5.1 say MAIL first\r\n";
    assert_eq!(String::from_utf8_lossy(&world.out), expected);
    assert!(!world.closed);
}

#[test]
fn refuses_text_that_is_too_big_or_ambiguous_to_each_recipient() {
    let check = |text: &[u8], reply: &str| {
        let mut world = after_hello("");
        world.out.clear();
        world.receive(b"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nRCPT TO:<both@example.test>\r\nDATA\r\n");
        world.receive(text);
        world.receive(b"\r\n.\r\nNOOP\r\n");
        let said = String::from_utf8_lossy(&world.out).into_owned();
        let last: Vec<&str> = said.lines().skip(4).collect();
        assert_eq!(last, [reply, reply, "250 2.0.0 ok"], "{:?}", String::from_utf8_lossy(text));
        assert!(world.stored.is_empty());
    };
    check(&b"x".repeat(SIZE_MAX), "552 5.3.4 larger than 2000 octets");
    check(&b"line\r\n".repeat(SIZE_MAX), "552 5.3.4 larger than 2000 octets");
    let ambiguous = "550 5.6.0 text has a CR or LF that stands alone, or a NUL";
    check(b"a\n.\nMAIL FROM:<forged@example.test>", ambiguous);
    check(b"a\r.\rb", ambiguous);
    check(b"a\0b", ambiguous);
}

#[test]
fn recipients_are_bounded() {
    let mut world = after_hello("");
    world.receive(b"MAIL FROM:<>\r\n");
    world.out.clear();
    for _ in 0..RECIPIENTS_MAX {
        world.receive(b"RCPT TO:<u1@example.test>\r\n");
    }
    let said = String::from_utf8_lossy(&world.out).into_owned();
    assert_eq!(said.lines().filter(|line| line.starts_with("250 ")).count(), RECIPIENTS_MAX);
    world.out.clear();
    world.receive(b"RCPT TO:<u1@example.test>\r\n");
    assert_eq!(world.out, b"452 4.5.3 too many recipients\r\n");
}

#[test]
fn mailboxes_behind_recipients_are_bounded() {
    let mut out = Vec::new();
    let mut session = Session::new(Limits { hostname: "h".into(), message_size_max: SIZE_MAX }, &mut out);
    let crowd = |count: usize| vec![Target { account: [1; 16], address: "u1@example.test".parse().unwrap() }; count];
    let mut ask = |count: usize| {
        let input: &[u8] = if count == TARGETS_MAX {
            b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<list@example.test>\r\n"
        } else {
            b"RCPT TO:<list@example.test>\r\n"
        };
        let (used, step) = session.step(input, &mut out);
        assert_eq!((used, step), (input.len(), Step::Resolve("list@example.test".parse().unwrap())));
        out.clear();
        session.resolved(Resolved::Targets(crowd(count)), &mut out);
        String::from_utf8(std::mem::take(&mut out)).unwrap()
    };
    assert!(ask(TARGETS_MAX).starts_with("250 "));
    assert!(ask(1).starts_with("452 4.5.3 "));
}

#[test]
fn a_message_without_room_is_read_to_its_end_and_refused_for_now() {
    for chunked in [false, true] {
        let mut world = after_hello("");
        world.out.clear();
        world.receive(b"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\n");
        world.receive(if chunked { b"BDAT 13 LAST\r\nfirst\r\n" } else { b"DATA\r\nfirst\r\n" });
        assert!(world.session.held() > 0);
        world.session.give_up();
        world.receive(if chunked { b"last\r" } else { b"last" });
        assert_eq!(world.session.held(), 0);
        world.receive(if chunked { b"\nNOOP\r\n" } else { b"\r\n.\r\nNOOP\r\n" });
        let said = String::from_utf8_lossy(&world.out).into_owned();
        assert!(said.ends_with("452 4.3.1 too much mail at once, try again\r\n250 2.0.0 ok\r\n"), "{said}");
        assert!(world.stored.is_empty());
        // The next one is taken.
        world.receive(b"MAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nx\r\n.\r\n");
        assert_eq!(world.stored.len(), 1);
    }
}

#[test]
fn long_lines_are_refused_and_too_many_errors_end_the_session() {
    let mut world = after_hello("");
    world.out.clear();
    world.receive(&b"x".repeat(COMMAND_LEN_MAX * 50));
    assert_eq!(world.waiting(), 0, "a line that is too long is not kept");
    world.receive(b"\r\nNOOP\r\nNOOP\nQUIT\0\r\n");
    let octets = "500 5.5.2 lines end with CR LF; no CR, LF or NUL within\r\n";
    let expected = format!("500 5.5.2 line too long\r\n250 2.0.0 ok\r\n{octets}{octets}");
    assert_eq!(String::from_utf8_lossy(&world.out), expected);
    for _ in 0..BAD_COMMANDS_MAX {
        world.receive(b"GET / HTTP/1.1\r\n");
    }
    assert!(world.out.ends_with(b"421 4.7.0 too many errors\r\n"));
    assert!(world.closed);
}

#[test]
fn a_recipient_that_nobody_vouched_for_is_not_acknowledged() {
    let mut out = Vec::new();
    let limits = Limits { hostname: "h".into(), message_size_max: SIZE_MAX };
    let mut session = Session::new(limits, &mut out);
    let mut input: &[u8] = b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nx\r\n.\r\n";
    loop {
        let (used, step) = session.step(input, &mut out);
        input = &input[used..];
        match step {
            Step::Resolve(address) => session.resolved(resolve(&address), &mut out),
            Step::Deliver(_) => break,
            Step::More | Step::Close => panic!("no delivery: {step:?}"),
        }
    }
    assert!(session.is_in_transaction());
    out.clear();
    session.delivered(&[], "ID", &mut out);
    assert!(out.starts_with(b"451 4.3.0 "));
    assert!(!session.is_in_transaction());
}

#[test]
fn a_message_is_known_again_by_the_id_that_a_server_gave_it() {
    let check = |message: &str, expected: bool| {
        let found = super::repeat::identity(message.as_bytes());
        assert_eq!(found.is_some(), expected, "{message:?}");
        assert!(found.is_none_or(|found| found == blake3::hash(message.as_bytes())));
    };
    let received = "Received: from a.test (a.test [192.0.2.1])\r\n\tby b.test (Postfix) with ESMTPS id 4ABC\r\n\tfor <u@b.test>; Tue, 24 Nov 2026 03:00:00 +0800\r\n";
    check(&format!("{received}Subject: x\r\n\r\nbody\r\n"), true);
    check(&format!("Return-Path: <a@b>\r\nAuthentication-Results: b.test; spf=pass\r\n{received}\r\n"), true);
    check("received: by b.test id\r\n\t<7@b>; date\r\n\r\n", true);
    check("Received: (qmail 4711 invoked by uid 0); 24 Nov 2026 03:00:00 -0000\r\n\r\n", false);
    check("Received: from id by b.test with SMTP; id 7\r\n\r\n", false); // what follows ";" is the date
    check("Received: from id b.test; date\r\n\r\n", false); // a client that calls itself "id"
    check("Received: by b.test (an id 7 \\) in (a comment)) with SMTP; date\r\n\r\n", false);
    check("Received: by b.test with SMTP id; date\r\n\r\n", false);
    check(&format!("Subject: forwarded by hand\r\n{received}\r\n"), false); // not the last server's
    check(&format!("\r\n{received}"), false); // in the body
    check("", false);
}

#[test]
fn numbers_beyond_64_bits_end_the_session() {
    for line in [
        "MAIL FROM:<a@b.test> SIZE=18446744073709551617",
        "MAIL FROM:<a@b.test> BODY=8BITMIME size=99999999999999999999999999",
        "BDAT 18446744073709551621 LAST",
        "bdat 0000000000000000000000000000000000000000000005",
    ] {
        let mut world = World::new();
        world.receive(b"LHLO a.test\r\n");
        world.out.clear();
        world.receive(format!("{line}\r\nNOOP\r\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&world.out), "501 5.5.4 number out of range\r\n", "{line}");
        assert!(world.closed);
    }
    let mut world = World::new();
    world.receive(b"LHLO a.test\r\nMAIL FROM:<12345678901234567890@b.test> SIZE=1000\r\n");
    assert!(String::from_utf8_lossy(&world.out).ends_with("250 2.1.0 sender ok\r\n"));
}
