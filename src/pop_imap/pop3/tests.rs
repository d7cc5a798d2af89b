//! Dialogues with a POP3 session in memory.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::lock::Maildrops;
use super::maildrop::{Entry, Maildrop};
use super::session::{
    BAD_COMMANDS_MAX, COMMAND_LEN_MAX, FetchError, LOGINS_MAX, Login, OUT_LEN_MAX, Policy, Session, Step,
};

/// A session with its world: one account, one maildrop.
pub(super) struct World {
    session: Session,
    waiting: Vec<u8>,
    pub(super) out: Vec<u8>,
    pub(super) messages: BTreeMap<u32, Bytes>,
    pub(super) removed: Vec<u32>,
    pub(super) closed: bool,
    /// The most that stood in `out` between two sendings.
    pub(super) out_len_max: usize,
    update_works: bool,
    /// What could have been read ahead at each fetch.
    asked_ahead: Vec<Vec<u32>>,
}

pub(super) const POLICY: fn() -> Policy =
    || Policy { hostname: "mx.example.test".into(), is_tls: false, offers_tls: true, cleartext_login: true };

impl World {
    pub(super) fn new(policy: Policy) -> Self {
        let mut out = Vec::new();
        let session = Session::new(policy, &mut out);
        let texts: [&'static [u8]; 3] =
            [b"A: b\r\n\r\none\r\ntwo\r\n.dot\r\n", b"A: c\r\n\r\n\r\nx\r\n", b"no body\r\n"];
        let messages = [3, 5, 8].into_iter().zip(texts.map(Bytes::from_static)).collect();
        Self {
            session,
            waiting: Vec::new(),
            out,
            messages,
            removed: Vec::new(),
            closed: false,
            out_len_max: 0,
            update_works: true,
            asked_ahead: Vec::new(),
        }
    }

    fn log_in(&self, login: &str, password: &str) -> Login {
        match (login, password) {
            ("u1" | "用户", "pass word" | " p ") => {
                let entry = |(uid, text): (&u32, &Bytes)| Entry { uid: *uid, size: u32::try_from(text.len()).unwrap() };
                Login::Opened(Maildrop::new(77, self.messages.iter().map(entry).collect()))
            }
            ("suspended", "x") => Login::Suspended,
            ("busy", "x") => Login::InUse,
            ("away", "x") => Login::Unavailable,
            _ => Login::Refused,
        }
    }

    /// Gives the session octets and answers what it asks, until it wants more.
    pub(super) fn receive(&mut self, input: &[u8]) {
        let mut unsent = Vec::new();
        self.waiting.extend_from_slice(input);
        while !self.closed {
            let (used, step) = self.session.step(&self.waiting, &mut unsent);
            self.waiting.drain(..used);
            self.out_len_max = self.out_len_max.max(unsent.len());
            match step {
                Step::More => break,
                Step::Flush => self.out.append(&mut unsent),
                Step::Close => self.closed = true,
                Step::StartTls => {
                    assert!(self.waiting.is_empty(), "clear text must not reach the secured session");
                    self.session.secured();
                }
                Step::Login { login, password } => {
                    self.session.logged_in(self.log_in(&login, password.reveal()), &mut unsent);
                }
                Step::Fetch(uid) => {
                    self.asked_ahead.push(self.session.ahead(&self.waiting, 2));
                    self.session.fetched(self.messages.get(&uid).cloned().ok_or(FetchError::Gone), &mut unsent);
                }
                Step::Update(uids) => {
                    self.session.updated(self.update_works, &mut unsent);
                    self.removed = uids;
                }
            }
        }
        self.out.append(&mut unsent);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// Runs a script: lines `C: …` are sent, lines `S: …` must be exactly what came back; once line by line, once pipelined.
fn dialogue_with(policy: fn() -> Policy, script: &str) -> World {
    let mut last = None;
    for whole in [false, true] {
        let mut world = World::new(policy());
        let (mut sent, mut expected) = (Vec::new(), String::new());
        for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            if let Some(text) = line.strip_prefix("S:") {
                let text = text.strip_prefix(' ').unwrap_or(text);
                expected.push_str(text);
                expected.push_str("\r\n");
            } else {
                let text = line.strip_prefix("C: ").expect("C: or S:");
                let octets = [text.as_bytes(), b"\r\n"].concat();
                if whole { sent.extend_from_slice(&octets) } else { world.receive(&octets) }
            }
        }
        world.receive(&sent);
        assert_eq!(String::from_utf8_lossy(&world.out), expected, "pipelined: {whole}");
        last = Some(world);
    }
    last.expect("the loop ran")
}

fn dialogue(script: &str) -> World {
    dialogue_with(POLICY, &format!("S: +OK mx.example.test POP3 fife\n{script}"))
}

const LOGIN: &str = "C: USER u1
    S: +OK send PASS
    C: PASS pass word
    S: +OK 3 messages\n";

fn logged_in(script: &str) -> World {
    dialogue(&format!("{LOGIN}{script}"))
}

#[test]
fn reads_a_maildrop() {
    logged_in(
        "C: STAT
         S: +OK 3 46
         C: LIST
         S: +OK 3 messages
         S: 1 24
         S: 2 13
         S: 3 9
         S: .
         C: uidl
         S: +OK 3 messages
         S: 1 77.3
         S: 2 77.5
         S: 3 77.8
         S: .
         C: LIST 2
         S: +OK 2 13
         C: UIDL 3
         S: +OK 3 77.8
         C: UIDL 4
         S: -ERR no such message
         C: RETR 1
         S: +OK 24 octets
         S: A: b
         S:
         S: one
         S: two
         S: ..dot
         S: .
         C: NOOP
         S: +OK
         C: QUIT
         S: +OK bye",
    );
}

#[test]
fn top_gives_the_header_and_so_many_lines() {
    let check = |message: &'static [u8], lines: u32, expected: &str| {
        let mut world = World::new(POLICY());
        world.messages = BTreeMap::from([(1, Bytes::from_static(message))]);
        world.receive(b"USER u1\r\nPASS pass word\r\n");
        world.out.clear();
        world.receive(format!("TOP 1 {lines}\r\n").as_bytes());
        let expected = format!("+OK top of message follows\r\n{expected}.\r\n");
        assert_eq!(String::from_utf8_lossy(&world.out), expected, "{message:?} {lines}");
    };
    check(b"A: b\r\n\r\none\r\ntwo\r\n", 0, "A: b\r\n\r\n");
    check(b"A: b\r\n\r\none\r\ntwo\r\n", 1, "A: b\r\n\r\none\r\n");
    check(b"A: b\r\n\r\none\r\ntwo\r\n", 2, "A: b\r\n\r\none\r\ntwo\r\n");
    check(b"A: b\r\n\r\none\r\ntwo\r\n", u32::MAX, "A: b\r\n\r\none\r\ntwo\r\n");
    check(b"A: b\r\n\r\none\r\ntwo", 1, "A: b\r\n\r\none\r\n");
    check(b"A: b\r\n\r\none\r\ntwo", 2, "A: b\r\n\r\none\r\ntwo\r\n"); // the last line gets its end
    check(b"A: b\r\n", 0, "A: b\r\n"); // no body
    check(b"", 3, "");
    check(b"\r\nbody\r\n", 0, "\r\n"); // no header
    check(b"A: b\n\none\n", 0, "A: b\n\n\r\n"); // appended with bare LF
}

#[test]
fn deletes_at_quit_and_only_then() {
    let world = logged_in(
        "C: DELE 2
         S: +OK deleted at QUIT
         C: DELE 2
         S: -ERR no such message
         C: RETR 2
         S: -ERR no such message
         C: STAT
         S: +OK 2 33
         C: LIST
         S: +OK 2 messages
         S: 1 24
         S: 3 9
         S: .
         C: RSET
         S: +OK nothing is deleted
         C: STAT
         S: +OK 3 46
         C: DELE 3
         S: +OK deleted at QUIT
         C: DELE 1
         S: +OK deleted at QUIT
         C: QUIT
         S: +OK bye",
    );
    assert_eq!(world.removed, [3, 8]);
    assert_eq!(world.session.tally().deleted, 2);
    let mut world = World::new(POLICY());
    world.update_works = false;
    world.receive(b"USER u1\r\nPASS pass word\r\nDELE 1\r\nQUIT\r\n");
    assert!(world.out.ends_with(b"-ERR [SYS/TEMP] messages were not deleted\r\n"));
    assert_eq!(world.session.tally().deleted, 0);
    let mut world = World::new(POLICY());
    world.receive(b"USER u1\r\nPASS pass word\r\nDELE 1\r\n");
    assert!(world.removed.is_empty(), "a connection that breaks deletes nothing");
}

#[test]
fn a_message_that_others_deleted_is_gone() {
    let mut world = World::new(POLICY());
    world.receive(b"USER u1\r\nPASS pass word\r\n");
    world.messages.remove(&5);
    world.out.clear();
    world.receive(b"RETR 2\r\nSTAT\r\n");
    assert_eq!(world.out, b"-ERR the message is gone\r\n+OK 3 46\r\n");
}

#[test]
fn commands_have_their_place() {
    dialogue(
        "C: STAT
         S: -ERR log in first
         C: PASS x
         S: -ERR say USER first
         C: USER
         S: -ERR arguments are not what the command wants
         C: NOPE
         S: -ERR no such command
         C: USER u1
         S: +OK send PASS
         C: CAPA
         S: +OK capabilities
         S: TOP
         S: UIDL
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: PIPELINING
         S: EXPIRE NEVER
         S: UTF8 USER
         S: USER
         S: SASL PLAIN
         S: STLS
         S: IMPLEMENTATION fife
         S: .
         C: PASS pass word
         S: -ERR say USER first
         C: UTF8
         S: +OK UTF-8
         C: QUIT
         S: +OK bye",
    );
    logged_in(
        "C: USER u1
         S: -ERR you are logged in already
         C: STLS
         S: -ERR you are logged in already
         C: RETR
         S: -ERR arguments are not what the command wants
         C: RETR 0
         S: -ERR no such message
         C: RETR -1
         S: -ERR arguments are not what the command wants
         C: RETR 99999999999999999999
         S: -ERR arguments are not what the command wants
         C: RETR 1 2
         S: -ERR arguments are not what the command wants
         C: TOP 1
         S: -ERR arguments are not what the command wants
         C: DELE +1
         S: -ERR arguments are not what the command wants
         C: CAPA
         S: +OK capabilities
         S: TOP
         S: UIDL
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: PIPELINING
         S: EXPIRE NEVER
         S: UTF8 USER
         S: USER
         S: SASL PLAIN
         S: IMPLEMENTATION fife
         S: .",
    );
}

#[test]
fn passwords_come_by_pass_or_auth_plain() {
    dialogue(
        "C: USER 用户
         S: +OK send PASS
         C: PASS  p\u{20}
         S: +OK 3 messages",
    );
    // \0u1\0pass word, u1\0u1\0pass word
    for response in ["AHUxAHBhc3Mgd29yZA==", "dTEAdTEAcGFzcyB3b3Jk"] {
        dialogue(&format!("C: AUTH PLAIN {response}\nS: +OK 3 messages"));
        dialogue(&format!("C: auth plain\nS: +\u{20}\nC: {response}\nS: +OK 3 messages"));
    }
    dialogue(
        "C: AUTH
         S: +OK mechanisms
         S: PLAIN
         S: .
         C: AUTH CRAM-MD5
         S: -ERR no such mechanism
         C: AUTH PLAIN
         S: +\u{20}
         C: *
         S: -ERR cancelled
         C: AUTH PLAIN =
         S: -ERR not a PLAIN response
         C: AUTH PLAIN !!!!
         S: -ERR not a PLAIN response
         C: AUTH PLAIN dTIAdTEAcGFzcyB3b3Jk
         S: -ERR [AUTH] name and password are wanted, and nobody may act for another
         C: AUTH PLAIN AHUxAA==
         S: -ERR [AUTH] name and password are wanted, and nobody may act for another
         C: STAT
         S: -ERR log in first",
    );
}

#[test]
fn refused_logins_say_why_and_are_counted() {
    let world = dialogue(
        "C: USER busy
         S: +OK send PASS
         C: PASS x
         S: -ERR [IN-USE] another session has the maildrop
         C: USER away
         S: +OK send PASS
         C: PASS x
         S: -ERR [SYS/TEMP] try again later
         C: USER suspended
         S: +OK send PASS
         C: PASS x
         S: -ERR [AUTH] the account may not log in
         C: USER u1
         S: +OK send PASS
         C: PASS wrong
         S: -ERR [AUTH] name or password is wrong
         C: AUTH PLAIN AHUxAHdyb25n
         S: -ERR [AUTH] name or password is wrong
         C: USER u1",
    );
    assert_eq!(LOGINS_MAX, 3);
    assert!(world.closed, "the third refusal ends the session");
}

#[test]
fn passwords_are_not_taken_outside_tls() {
    let world = dialogue_with(
        || Policy { cleartext_login: false, ..POLICY() },
        "S: +OK mx.example.test POP3 fife
         C: USER u1
         S: -ERR [AUTH] passwords are taken within TLS only: say STLS first
         C: AUTH PLAIN AHUxAHBhc3Mgd29yZA==
         S: -ERR [AUTH] passwords are taken within TLS only: say STLS first
         C: CAPA
         S: +OK capabilities
         S: TOP
         S: UIDL
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: PIPELINING
         S: EXPIRE NEVER
         S: UTF8 USER
         S: STLS
         S: IMPLEMENTATION fife
         S: .",
    );
    assert!(!world.closed);
}

#[test]
fn stls_forgets_what_was_said_and_takes_no_command_with_it() {
    let mut world = World::new(Policy { cleartext_login: false, ..POLICY() });
    world.receive(b"STLS\r\n");
    world.receive(b"STLS\r\nPASS pass word\r\nUSER u1\r\nPASS pass word\r\n");
    let expected = "+OK mx.example.test POP3 fife\r\n+OK begin TLS\r\n-ERR STLS is not offered here\r\n-ERR say USER first\r\n+OK send PASS\r\n+OK 3 messages\r\n";
    assert_eq!(String::from_utf8_lossy(&world.out), expected);

    // Injected behind STLS in clear text.
    for injected in [b"STLS\r\nUSER u1\r\nPASS pass word\r\n".as_slice(), b"STLS\r\nx", b"STLS\r\n\0"] {
        let mut world = World::new(POLICY());
        world.out.clear();
        world.receive(injected);
        assert_eq!(world.out, b"-ERR nothing may follow STLS before the handshake\r\n");
        assert!(world.closed);
    }
}

#[test]
fn long_lines_are_refused_and_too_many_errors_end_the_session() {
    let mut world = World::new(POLICY());
    world.out.clear();
    world.receive(&b"x".repeat(COMMAND_LEN_MAX * 50));
    assert_eq!(world.waiting(), 0, "a line that is too long is not kept");
    world.receive(b"\r\nUTF8\r\nUTF8\nQUIT\0\r\nUSER \xff\r\n");
    let octets = "-ERR lines end with CR LF; no CR, LF or NUL within\r\n";
    let expected = format!("-ERR line too long\r\n+OK UTF-8\r\n{octets}{octets}-ERR not UTF-8\r\n");
    assert_eq!(String::from_utf8_lossy(&world.out), expected);
    for _ in 0..BAD_COMMANDS_MAX {
        world.receive(b"GET / HTTP/1.1\r\n");
    }
    assert!(world.out.ends_with(b"-ERR too many errors\r\n"));
    assert!(world.closed);
}

#[test]
fn long_answers_are_made_in_pieces() {
    let mut world = World::new(POLICY());
    let text: Bytes = b"0123456789\r\n".repeat(100_000).into();
    world.messages = (1..=30_000).map(|uid| (uid, Bytes::from_static(b"x\r\n"))).collect();
    world.messages.insert(1, text.clone());
    world.receive(b"USER u1\r\nPASS pass word\r\nLIST\r\nUIDL\r\n");
    world.out.clear();
    world.receive(b"RETR 1\r\nRETR 2\r\n");
    let expected = [b"+OK 1200000 octets\r\n".as_slice(), &text, b".\r\n+OK 3 octets\r\nx\r\n.\r\n"].concat();
    assert!(world.out == expected, "{} octets", world.out.len());
    assert!(world.out_len_max < 2 * OUT_LEN_MAX + 100, "{} octets waited to be sent", world.out_len_max);
}

#[test]
fn pipelined_retr_can_be_read_ahead() {
    let mut world = World::new(POLICY());
    world.receive(
        b"USER u1\r\nPASS pass word\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 1\r\nNOOP\r\nRETR 2\r\nRETR 9\r\nRETR",
    );
    let expected: [&[u32]; 5] = [&[5, 8], &[8, 3], &[3], &[], &[]];
    assert_eq!(world.asked_ahead, expected);
}

#[test]
fn one_session_a_maildrop() {
    let maildrops = Maildrops::default();
    let held = maildrops.take([1; 16]);
    assert!(held.is_some());
    assert!(maildrops.take([1; 16]).is_none());
    assert!(maildrops.take([2; 16]).is_some());
    drop(held);
    assert!(maildrops.take([1; 16]).is_some());
}
