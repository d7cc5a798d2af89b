//! Hostile dialogues with the POP3 session. Called by: `crate::fuzz`.
//!
//! The first octet says how the octets are cut.
//!
//! Invariants: no panic; lines of answers end with CR LF; what waits for more input is less than one command line; messages are
//! removed only after QUIT; how the input is cut changes nothing (but for STLS, where it must: clear text behind it is refused);
//! no command line stays without an answer.

use super::session::{COMMAND_LEN_MAX, OUT_LEN_MAX};
use super::tests::{POLICY, World};

/// Plays a dialogue. Returns the answers.
pub(crate) fn target(data: &[u8]) -> usize {
    let Some((&how, input)) = data.split_first() else { return 0 };
    let whole = play(input, input.len().max(1));
    let upper = input.to_ascii_uppercase();
    if memchr::memmem::find(&upper, b"STLS").is_none() {
        let piece = usize::from(how) + 1;
        assert_eq!(play(input, piece), whole, "cut in pieces of {piece}");
    }
    every_line_is_answered(input);
    whole.0.matches("+OK").count()
}

/// Answers, removed messages, whether the session ended.
fn play(input: &[u8], piece: usize) -> (String, Vec<u32>, bool) {
    let mut world = World::new(POLICY());
    for part in input.chunks(piece) {
        world.receive(part);
        assert!(world.closed || world.waiting() < COMMAND_LEN_MAX, "{} octets wait", world.waiting());
        assert!(world.out_len_max < 2 * OUT_LEN_MAX + 100);
        if world.closed {
            break;
        }
    }
    let out = String::from_utf8(world.out).unwrap();
    assert!(out.ends_with("\r\n") && !out.contains('\0'));
    assert!(out.split("\r\n").all(|line| !line.contains(['\r', '\n'])), "{out:?}");
    if !world.removed.is_empty() {
        assert!(out.ends_with("+OK bye\r\n"), "{out:?}");
    }
    (out, world.removed, world.closed)
}

fn every_line_is_answered(input: &[u8]) {
    let mut world = World::new(POLICY());
    for line in input.split_inclusive(|octet| *octet == b'\n') {
        let before = world.out.len();
        world.receive(line);
        let answered = world.out.len() > before;
        assert!(answered || world.closed || !line.ends_with(b"\r\n"), "{:?}", line.escape_ascii().to_string());
        if world.closed {
            return;
        }
    }
}
