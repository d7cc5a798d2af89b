//! Hostile dialogues with the session. Called by: `crate::fuzz`.
//!
//! The first octet says for whom the session is and how the octets are cut.
//!
//! Invariants: no panic; what is heard does not depend on how the octets are cut (but for STARTTLS, for which it must matter whether
//! something comes with it); every command line has exactly one reply; memory is bounded; only lines of the form `ddd[ -]text` are
//! heard; a delivered message has at least one recipient and no bare `<CR>`, bare `<LF>` or NUL, so that nothing smuggled travels on.

use super::Personality;
use super::tests::World;
use crate::smtp::command;
use crate::smtp::line::LINE_LEN_MAX;

/// Plays a dialogue. Returns the messages delivered.
pub(crate) fn target(data: &[u8]) -> usize {
    let Some((&how, octets)) = data.split_first() else { return 0 };
    let personality = if how & 1 == 0 { Personality::Mx } else { Personality::Submission };
    let whole = play(octets, personality, octets.len().max(1));
    for line in whole.0.lines() {
        let digits = line.bytes().take(3).filter(u8::is_ascii_digit).count();
        assert!(digits == 3 && matches!(line.as_bytes().get(3), Some(b' ' | b'-')), "{line}");
    }
    let upper = octets.to_ascii_uppercase();
    if memchr::memmem::find(&upper, b"STARTTLS").is_none() {
        let piece = usize::from(how >> 1) + 1;
        assert_eq!(play(octets, personality, piece), whole, "in pieces of {piece}");
    }
    one_reply_a_line(octets, personality);
    // Whatever it says of a line that no framer would give, it says without a panic.
    drop(command::parse(octets.get(..LINE_LEN_MAX).unwrap_or(octets)));
    whole.1
}

/// What is heard and delivered when the octets come in pieces of at most `piece`.
fn play(octets: &[u8], personality: Personality, piece: usize) -> (String, usize, bool) {
    let mut world = World::new(personality, true);
    let mut heard = String::new();
    for chunk in octets.chunks(piece) {
        heard.push_str(&world.send(chunk));
        assert!(world.session.buffered() <= 64 * 1024);
        if world.closed {
            break;
        }
    }
    for message in &world.delivered {
        assert!(!message.envelope.recipients.is_empty());
        let bare = message.content.windows(2).any(|two| (two[0] == b'\r') != (two[1] == b'\n'));
        let edges = message.content.first() == Some(&b'\n') || message.content.last() == Some(&b'\r');
        assert!(!bare && !edges && !message.content.contains(&0), "{:?}", message.content);
    }
    (heard, world.delivered.len(), world.closed)
}

/// Up to the first message, each line that is one has one reply.
fn one_reply_a_line(octets: &[u8], personality: Personality) {
    let mut world = World::new(personality, true);
    world.send(b"");
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let Some(text) = line.strip_suffix(b"\r\n").filter(|text| !text.contains(&b'\r')) else { return };
        let upper = text.to_ascii_uppercase();
        if [b"DATA", b"BDAT"].iter().any(|verb| memchr::memmem::find(&upper, *verb).is_some()) {
            return;
        }
        let heard = world.send(line);
        let replies = heard.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).count();
        assert!(replies == 1 || world.closed, "{heard:?} to {:?}", line.escape_ascii().to_string());
        if world.closed {
            return;
        }
    }
}
