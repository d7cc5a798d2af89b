//! Hostile dialogues with the LMTP server. Called by: `crate::fuzz`.
//!
//! The first octet says how the octets are cut.
//!
//! Invariants: no panic; every answer is lines of `NNN text` ended by CR LF; what waits for more input is less than one
//! command line; a message is stored only with its recipients accepted, within the size limit, without lone CR, LF or NUL;
//! how the input is cut changes nothing.

use super::session::COMMAND_LEN_MAX;
use super::tests::World;

/// Plays a dialogue. Returns the messages stored.
pub(crate) fn target(data: &[u8]) -> usize {
    let Some((&how, input)) = data.split_first() else { return 0 };
    let whole = play(input, input.len().max(1));
    let piece = usize::from(how) + 1;
    assert_eq!(play(input, piece), whole, "cut in pieces of {piece}");
    whole.1.len()
}

/// Answers and stored texts.
fn play(input: &[u8], piece: usize) -> (String, Vec<Vec<u8>>) {
    let mut world = World::new();
    for part in input.chunks(piece) {
        world.receive(part);
        assert!(world.closed || world.waiting() < COMMAND_LEN_MAX, "{} octets wait", world.waiting());
        if world.closed {
            break;
        }
    }
    let out = String::from_utf8(world.out).unwrap();
    for line in out.split_inclusive("\r\n") {
        let good = line.ends_with("\r\n")
            && !line.trim_end().contains(['\r', '\n', '\0'])
            && line.as_bytes()[..3].iter().all(u8::is_ascii_digit);
        assert!(good, "{line:?}");
    }
    for stored in &world.stored {
        assert!(!stored.recipients.is_empty() && stored.text.len() <= 2000);
        let lines = stored.text.split(|octet| *octet == b'\n').rev().skip(1);
        for line in lines {
            let good = line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r') && !line.contains(&0);
            assert!(good, "{:?}", String::from_utf8_lossy(line));
        }
    }
    (out, world.stored.into_iter().map(|stored| stored.text).collect())
}
