//! What a session says without a store, as scripts.
//!
//! `C:` the client sends a line, `c:` it sends text without line end; `S:` the session says a line (`…` at its end: and more);
//! `run:` it wants a command run under this tag; `in:` the login was right; `out:` it was not; `tls:` it wants the handshake,
//! which is then done; `end:` it wants to close. At the end of the script it must want to read and have nothing more to say.

use crate::base::address::Address;
use crate::pop_imap::imap::session::{Policy, Session, Step, User};

const ANYWHERE: Policy = Policy { starttls: true, encrypted: false, cleartext_login: false, append_bytes_max: 1000 };
const LOCAL: Policy = Policy { cleartext_login: true, ..ANYWHERE };
const TLS: Policy = Policy { encrypted: true, ..ANYWHERE };

struct Talk {
    session: Session,
    said: Vec<u8>,
    step: Option<Step>,
}

impl Talk {
    fn advance(&mut self) {
        if !matches!(self.step, Some(Step::Run { .. } | Step::StartTls | Step::Close)) {
            self.step = Some(self.session.next(&mut self.said));
        }
    }

    fn line(&mut self, expected: &str) {
        if self.said.is_empty() {
            self.advance();
        }
        let end = self.said.windows(2).position(|pair| pair == b"\r\n");
        let end =
            end.unwrap_or_else(|| panic!("{expected:?} expected, {:?} said", String::from_utf8_lossy(&self.said)));
        let line = String::from_utf8(self.said.drain(..end + 2).collect()).unwrap();
        let line = line.trim_end_matches("\r\n");
        match expected.strip_suffix('…') {
            Some(start) => assert!(line.starts_with(start), "{expected:?} expected, {line:?} said"),
            None => assert_eq!(line, expected),
        }
    }

    fn step(&mut self) -> Step {
        self.advance();
        self.step.take().unwrap()
    }
}

fn check(policy: Policy, script: &str) {
    let mut talk = Talk { session: Session::new(policy), said: Vec::new(), step: None };
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let (who, text) = line.split_once(':').unwrap();
        let text = text.strip_prefix(' ').unwrap_or(text);
        let refused =
            |talk: &mut Talk| talk.session.login_refused(&mut talk.said, text.as_bytes(), "[AUTHENTICATIONFAILED] No");
        match who {
            "C" => talk.session.receive(format!("{text}\r\n").as_bytes()),
            "c" => talk.session.receive(text.replace("\\r", "\r").replace("\\n", "\n").as_bytes()),
            "S" => talk.line(text),
            "run" => match talk.step() {
                Step::Run { tag, command } => {
                    let run = format!("{} {command:?}", String::from_utf8_lossy(&tag));
                    assert!(run.starts_with(text), "{text} expected, {run} wanted");
                }
                step @ (Step::Read | Step::StartTls | Step::Close) => {
                    panic!("{text}: {step:?}, {:?}", String::from_utf8_lossy(&talk.said))
                }
            },
            "in" => {
                let user = User { account: [1; 16], address: "u1@example.test".parse::<Address>().unwrap() };
                talk.session.logged_in(&mut talk.said, text.as_bytes(), user);
            }
            "out" => refused(&mut talk),
            "tls" => {
                assert!(matches!(talk.step(), Step::StartTls));
                talk.session.encrypted();
            }
            "end" => {
                assert!(matches!(talk.step(), Step::Close), "{line}: {:?}", String::from_utf8_lossy(&talk.said));
                return;
            }
            _ => panic!("{line}"),
        }
    }
    assert!(matches!(talk.step(), Step::Read), "reads on");
    assert_eq!(String::from_utf8_lossy(&talk.said), "", "nothing more said");
}

#[test]
fn capabilities_follow_the_state() {
    let mut said = Vec::new();
    Session::new(ANYWHERE).greet(&mut said);
    let greeting = "* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE STARTTLS LOGINDISABLED] fife ready\r\n";
    assert_eq!(String::from_utf8(said).unwrap(), greeting);
    check(
        ANYWHERE,
        "C: a CAPABILITY
         S: * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE STARTTLS LOGINDISABLED
         S: a OK Capability completed
         C: b STARTTLS
         tls:
         S: b OK Begin TLS negotiation now
         C: c CAPABILITY
         S: * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE AUTH=PLAIN
         S: c OK Capability completed
         C: d LOGIN u1 pw
         run: d Login { user: \"u1\", password: (hidden) }
         in: d
         S: d OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE UIDPLUS UNSELECT MOVE CHILDREN SPECIAL-USE LIST-EXTENDED LIST-STATUS STATUS=SIZE ESEARCH CONDSTORE APPENDLIMIT=1000] Logged in",
    );
    check(
        LOCAL,
        "C: a CAPABILITY
         S: * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID ENABLE STARTTLS AUTH=PLAIN
         S: a OK Capability completed",
    );
}

#[test]
fn passwords_do_not_come_in_the_clear() {
    check(
        ANYWHERE,
        "C: a LOGIN u1 pw
         S: a NO [PRIVACYREQUIRED] Use TLS first
         C: b AUTHENTICATE PLAIN
         S: b NO [PRIVACYREQUIRED] Use TLS first
         C: c AUTHENTICATE PLAIN AHUxAHB3
         S: c NO [PRIVACYREQUIRED] Use TLS first",
    );
}

#[test]
fn plaintext_after_starttls_is_never_carried_out() {
    check(
        ANYWHERE,
        "c: a STARTTLS\\r\\nb NOOP\\r\\n
         S: a BAD Nothing may follow STARTTLS
         S: * BYE Plaintext after STARTTLS
         end:",
    );
    check(
        ANYWHERE,
        "c: a STARTTLS\\r\\nb
         S: a BAD Nothing may follow STARTTLS
         S: * BYE Plaintext after STARTTLS
         end:",
    );
    check(
        TLS,
        "C: a STARTTLS
         S: a BAD STARTTLS not available",
    );
    check(
        Policy { starttls: false, ..LOCAL },
        "C: a STARTTLS
         S: a BAD STARTTLS not available",
    );
}

#[test]
fn authenticate_plain_works_with_and_without_initial_response() {
    check(
        TLS,
        "C: a AUTHENTICATE PLAIN AHUxAHB3
         run: a Login { user: \"u1\", password: (hidden) }
         out: a
         S: a NO [AUTHENTICATIONFAILED] No
         C: b AUTHENTICATE PLAIN
         S: + 
         C: dTEAdTEAcHc=
         run: b Login { user: \"u1\", password: (hidden) }
         out: b
         S: b NO [AUTHENTICATIONFAILED] No
         C: c AUTHENTICATE PLAIN
         S: + 
         C: *
         S: c BAD Authentication cancelled
         C: d AUTHENTICATE PLAIN
         S: + 
         C: !!!
         S: d BAD Invalid base64
         C: e AUTHENTICATE PLAIN dTIAdTEAcHc=
         S: e NO [AUTHORIZATIONFAILED] Nobody may act for another
         C: f AUTHENTICATE PLAIN =
         S: f BAD Invalid PLAIN response
         C: g AUTHENTICATE CRAM-MD5
         S: g NO [CANNOT] Mechanism not offered",
    );
}

#[test]
fn whoever_guesses_is_sent_away() {
    check(
        TLS,
        "C: a LOGIN u1 x
         run: a Login
         out: a
         S: a NO [AUTHENTICATIONFAILED] No
         C: b LOGIN u1 y
         run: b Login
         out: b
         S: b NO [AUTHENTICATIONFAILED] No
         C: c LOGIN u1 z
         run: c Login
         out: c
         S: c NO [AUTHENTICATIONFAILED] No
         S: * BYE Too many failed logins
         end:",
    );
}

#[test]
fn commands_have_their_state() {
    check(
        TLS,
        "C: a SELECT INBOX
         S: a BAD Log in first
         C: b IDLE
         S: b BAD Log in first
         C: c NOOP
         S: c OK NOOP completed
         C: d ID NIL
         S: * ID (\"name\" \"fife\")
         S: d OK ID completed
         C: e LOGIN u1 pw
         run: e Login
         in: e
         S: e OK [CAPABILITY …
         C: f LOGIN u1 pw
         S: f BAD Already logged in
         C: g STARTTLS
         S: g BAD Already logged in
         C: h FETCH 1 FLAGS
         S: h BAD Select a mailbox first
         C: i SELECT INBOX
         run: i Select(SelectRequest { mailbox: \"INBOX\", read_only: false, condstore: false })
         C: j NAMESPACE
         S: * NAMESPACE ((\"\" \"/\")) NIL NIL
         S: j OK Namespace completed
         C: k ENABLE CONDSTORE
         S: * ENABLED CONDSTORE
         S: k OK Enabled
         C: l LOGOUT
         S: * BYE Logging out
         S: l OK Logout completed
         end:",
    );
}

#[test]
fn idle_ends_with_done() {
    let login = "C: a LOGIN u1 pw
                 run: a Login
                 in: a
                 S: a OK [CAPABILITY …
                 C: b IDLE
                 S: + idling\n";
    check(TLS, &format!("{login}C: DONE\nrun: b Idle\nC: c NOOP\nrun: c Noop"));
    check(TLS, &format!("{login}C: done\nrun: b Idle"));
    check(TLS, &format!("{login}C: c NOOP\nS: b BAD Expected DONE\nC: d NOOP\nrun: d Noop"));
}

#[test]
fn literals_are_asked_for() {
    check(
        TLS,
        "c: a LOGIN {2}\\r\\n
         S: + OK
         c: u1 {2}\\r\\n
         S: + OK
         c: pw\\r\\n
         run: a Login { user: \"u1\"
         in: a
         S: a OK [CAPABILITY …
         C: b APPEND INBOX {1001}
         S: b BAD [TOOBIG] Literal too long
         C: c NOOP
         run: c Noop",
    );
}

#[test]
fn bad_input_is_answered_and_bounded() {
    check(
        TLS,
        "c: a NOOP\\n
         S: a BAD Line must end in CRLF
         C: * NOOP
         S: * BAD Invalid tag
         C: b XYZZY
         S: b BAD Syntax error
         C: c GETQUOTAROOT INBOX
         S: c BAD Command or option not supported",
    );
    let nine = "C: a X\nS: a BAD Syntax error\n".repeat(9);
    check(TLS, &format!("{nine}C: a X\nS: a BAD Syntax error\nS: * BYE Too many bad commands\nend:"));
    check(TLS, "C: a LOGIN {4294967295+}\nS: a BAD [TOOBIG] Literal too long\nS: * BYE Cannot go on\nend:");
    check(TLS, &format!("c: a LOGIN {}\nS: a BAD Line too long\nS: * BYE Cannot go on\nend:", "x".repeat(10_000)));
    // Empty lines come from clients that end a literal once too often: an answer, no more.
    check(TLS, "c: \\r\\n\nS: * BAD Invalid tag\nC: a NOOP\nS: a OK NOOP completed");
}
