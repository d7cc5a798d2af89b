//! Seeded mutation of IMAP dialogues.
//!
//! Invariants: no panic; answers are lines that end in CRLF, begin with a tag, `*` or `+`, and never repeat a password; how
//! the input is cut changes nothing (but for STARTTLS, where it must: clear text behind it is refused); what waits is
//! bounded; a closed session stays closed.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::base::address::Address;
use crate::pop_imap::imap::command::{self, Command};
use crate::pop_imap::imap::session::{Policy, Session, Step, User, answer};

/// Dialogues to start from.
const SEEDS: [&[u8]; 5] = [
    b"a LOGIN u1 hunter2\r\nb SELECT INBOX\r\nc FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (From \"X\")]<0.100>)\r\nd IDLE\r\nDONE\r\ne LOGOUT\r\n",
    b"a AUTHENTICATE PLAIN AHUxAGh1bnRlcjI=\r\nb LIST (SUBSCRIBED) \"\" (\"%\" *) RETURN (CHILDREN STATUS (MESSAGES))\r\nc LSUB \"\" \"*\"\r\n",
    b"a LOGIN {2}\r\nu1 {7+}\r\nhunter2\r\nb APPEND x (\\Seen) \"17-Jul-1996 02:44:25 -0700\" {12+}\r\nhello\r\nworld\r\nc NOOP\r\n",
    b"a AUTHENTICATE PLAIN\r\nAHUxAGh1bnRlcjI=\r\nb UID SEARCH RETURN (MIN COUNT) CHARSET UTF-8 OR (FROM a NOT SEEN) SINCE 1-Feb-2024\r\nc UID STORE 1,3:* (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Deleted $X)\r\n",
    b"a CAPABILITY\r\nb ID (\"name\" \"x\")\r\nc LOGIN u1 hunter2\r\nd UID MOVE 1:4 \"&XfJT0ZAB-\"\r\ne STATUS x (MESSAGES UNSEEN)\r\nf ENABLE CONDSTORE\r\n",
];
/// Words to splice in.
const WORDS: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"{4294967295+}\r\n",
    b"{4294967296}\r\n",
    b"{0+}\r\n",
    b"{17}\r\n",
    b"((((((((((",
    b"NOT NOT NOT ",
    b"\"",
    b"\\",
    b"\xff\xfe",
    b"&-&AAA-&",
    b"1:*,4294967295,*:1 ",
    b"z IDLE\r\n",
];
/// Mutated dialogues in each run.
const ROUNDS: u64 = 15_000;
/// Largest message of this session: small, so that its bound is met.
const APPEND_BYTES_MAX: usize = 10_000;

#[test]
fn mutated_dialogues_break_nothing() {
    let first: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut commands, mut closed) = (0, 0);
    for seed in first..first + ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let input = mutate(&mut random);
        let whole = run(&input, input.len().max(1), seed);
        let piece = random.random_range(1..=input.len().max(1));
        assert_eq!(run(&input, piece, seed), whole, "seed {seed}: cut in pieces of {piece}");
        commands += whole.commands.len();
        closed += usize::from(whole.closed);
    }
    assert!(commands > 10_000 && closed > 1000, "the mutations still reach commands: {commands} {closed}");
}

fn mutate(random: &mut StdRng) -> Vec<u8> {
    let mut input = SEEDS[random.random_range(0..SEEDS.len())].to_vec();
    for _ in 0..random.random_range(0..3) {
        input.extend_from_slice(SEEDS[random.random_range(0..SEEDS.len())]);
    }
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..5) {
            0 | 1 => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            2 => {
                let end = (at + random.random_range(0..40)).min(input.len());
                input.drain(at..end);
            }
            3 => {
                let run = vec![random.random::<u8>(); random.random_range(1..20_000)];
                input.splice(at..at, run);
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.random();
                }
            }
        }
    }
    input
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    said: String,
    commands: Vec<String>,
    closed: bool,
}

fn run(input: &[u8], piece: usize, seed: u64) -> Outcome {
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
                Step::StartTls => panic!("seed {seed}: not offered"),
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
        assert!(matches!(session.next(&mut said), Step::Close), "seed {seed}");
        assert_eq!(said.len(), before, "seed {seed}: nothing is said after the end");
    }
    outcome.said = String::from_utf8(said).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(outcome.said.is_empty() || outcome.said.ends_with("\r\n"), "seed {seed}");
    for line in outcome.said.split_terminator("\r\n") {
        assert!(!line.contains(['\r', '\n', '\0']), "seed {seed}: {line:?}");
        // The tag is the client's own word, whatever a mutation made of it.
        let (tag, words) = line.split_once(' ').unwrap_or_else(|| panic!("seed {seed}: {line:?}"));
        assert!(!tag.is_empty(), "seed {seed}: {line:?}");
        assert!(!words.contains("hunter2") && !words.contains("h1bnRlcjI"), "seed {seed}: {line:?}");
    }
    outcome
}

#[test]
fn arbitrary_frames_are_parsed_without_a_panic() {
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut frame = mutate(&mut random);
        frame.extend_from_slice(b"\r\n");
        // Whatever it says about a frame that no framer would give, it says it without a panic.
        drop(command::parse(&Bytes::from(frame)));
    }
}
