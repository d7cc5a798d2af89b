//! Hostile dialogues with the IMAP session. Called by: `crate::fuzz`.
//!
//! The first octet says how the octets are cut.
//!
//! Invariants: no panic; answers are lines that end in CRLF, begin with a tag, `*` or `+`, and never repeat a password; no more
//! commands are answered than lines came; how the input is cut changes nothing (but for STARTTLS, where it must: clear text behind
//! it is refused); what waits is bounded; a closed session stays closed; mailbox names survive the way to the wire and back.

use bytes::Bytes;

use super::command::{self, Command};
use super::name::{self, NAME_BYTES_MAX};
use super::session::{Policy, Session, Step, User, answer};
use crate::base::address::Address;

/// Largest message of this session: small, so that its bound is met.
const APPEND_BYTES_MAX: usize = 10_000;
/// Octets of a pattern and of a name that are matched.
const PATTERN_LEN: usize = 60;

/// Plays a dialogue. Returns the commands that a store would have to carry out.
pub(crate) fn target(data: &[u8]) -> usize {
    let Some((&how, input)) = data.split_first() else { return 0 };
    let whole = play(input, input.len().max(1));
    let piece = usize::from(how) + 1;
    assert_eq!(play(input, piece), whole, "cut in pieces of {piece}");
    // Whatever it says about a frame that no framer would give, it says it without a panic.
    drop(command::parse(&Bytes::from([input, b"\r\n"].concat())));
    names(input);
    whole.commands.len()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    said: String,
    commands: Vec<String>,
    closed: bool,
}

fn play(input: &[u8], piece: usize) -> Outcome {
    let policy =
        Policy { starttls: false, encrypted: true, cleartext_login: false, append_bytes_max: APPEND_BYTES_MAX };
    let mut session = Session::new(policy);
    let (mut said, mut outcome) = (Vec::new(), Outcome::default());
    'all: for part in input.chunks(piece) {
        session.receive(part);
        loop {
            match session.next(&mut said) {
                Step::Read => break,
                Step::Run { tag, command: Command::Login { .. } } => {
                    let user = User { account: [1; 16], address: "u1@example.test".parse::<Address>().unwrap() };
                    session.logged_in(&mut said, &tag, user);
                }
                Step::Run { tag, command } => {
                    outcome.commands.push(format!("{command:?}"));
                    answer(&mut said, &tag, "OK", "done");
                }
                Step::StartTls => panic!("not offered"),
                Step::Close => {
                    outcome.closed = true;
                    break 'all;
                }
            }
        }
    }
    if outcome.closed {
        let before = said.len();
        session.receive(b"a NOOP\r\n");
        assert!(matches!(session.next(&mut said), Step::Close));
        assert_eq!(said.len(), before, "nothing is said after the end");
    }
    outcome.said = String::from_utf8(said).unwrap();
    assert!(outcome.said.is_empty() || outcome.said.ends_with("\r\n"));
    let mut tagged = 0;
    for line in outcome.said.split_terminator("\r\n") {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        // The tag is the client's own word, whatever a mutation made of it.
        let (tag, words) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(!tag.is_empty(), "{line:?}");
        assert!(!words.contains("hunter2") && !words.contains("h1bnRlcjI"), "{line:?}");
        tagged += usize::from(!matches!(tag, "*" | "+"));
    }
    let lines = input.iter().filter(|octet| **octet == b'\n').count();
    assert!(tagged <= lines + 1, "{tagged} answers to {lines} lines");
    outcome
}

fn names(input: &[u8]) {
    let Ok(text) = name::decode(input) else { return };
    if text.len() <= NAME_BYTES_MAX {
        assert_eq!(name::decode(name::encode(&text).as_bytes()).as_deref(), Ok(text.as_str()));
    }
    if let Ok(kept) = crate::pop_imap::store::name::canonical(&text) {
        assert!(!kept.contains(['\r', '\n', '\0']) && kept.split('/').all(|level| !level.is_empty()), "{kept:?}");
    }
    let half = input.get(..input.len().min(PATTERN_LEN)).unwrap_or_default();
    if let Ok(pattern) = name::Pattern::new(b"", half) {
        let letters: String = text.chars().take(PATTERN_LEN).collect();
        assert!(half != b"*" || pattern.matches(&letters));
    }
}
