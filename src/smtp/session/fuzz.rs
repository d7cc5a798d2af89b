//! Seeded mutation of dialogues against the session.
//!
//! Invariants checked: no panic; what is heard does not depend on how the octets are cut; memory is bounded; only whole lines of the form
//! `ddd[ -]text` are heard; a delivered message has at least one recipient and no bare `<CR>`, bare `<LF>` or NUL.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Personality;
use super::tests::World;
use crate::smtp::line::LINE_LEN_MAX;

const HISTORIES: u64 = 3000;

/// Pieces that dialogues are made of.
const PIECES: [&[u8]; 44] = [
    b"EHLO c.test\r\n",
    b"HELO c.test\r\n",
    b"MAIL FROM:<s@elsewhere.test>\r\n",
    b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<u1@example.test> SIZE=100 BODY=8BITMIME SMTPUTF8\r\n",
    b"RCPT TO:<u1@example.test>\r\n",
    b"RCPT TO:<nobody@example.test>\r\n",
    b"RCPT TO:<all@example.test>\r\n",
    b"RCPT TO:<Postmaster>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\ntext\r\n.\r\n",
    b"..\r\n",
    b".\r\n",
    b".",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"BDAT 5 LAST\r\nabc\r\n",
    b"BDAT 5\r\nabc\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 99999999999\r\n",
    b"BDAT 18446744073709551615 LAST\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN AHUxQGV4YW1wbGUudGVzdABzZWNyZXQ=\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH LOGIN\r\n",
    b"dTFAZXhhbXBsZS50ZXN0\r\n",
    b"c2VjcmV0\r\n",
    b"*\r\n",
    b"VRFY x\r\n",
    b"HELP\r\n",
    b" ",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"\xff",
    b"@",
    b":",
    b"=",
];

fn history(random: &mut StdRng) -> Vec<u8> {
    let mut octets = Vec::new();
    for _ in 0..random.random_range(1..40) {
        octets.extend_from_slice(PIECES[random.random_range(0..PIECES.len())]);
    }
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..octets.len());
        match random.random_range(0..4) {
            0 => octets[at] = random.random(),
            1 => drop(octets.remove(at)),
            2 => octets.insert(at, random.random()),
            _ => {
                let run = octets[at..].to_vec();
                octets.extend_from_slice(&run[..run.len().min(200)]);
            }
        }
        if octets.is_empty() {
            return history(random);
        }
    }
    octets
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
        let text = &message.content;
        assert!(!text.contains(&0));
        let bare = String::from_utf8_lossy(text).replace("\r\n", "");
        assert!(!bare.contains(['\r', '\n']), "{bare:?}");
    }
    (heard, world.delivered.len(), world.closed)
}

#[test]
fn seeded_histories_hold_the_invariants() {
    let seed: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("FIFE_SEED={seed}");
    for number in 0..HISTORIES {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let octets = history(&mut random);
        let personality = if random.random() { Personality::Mx } else { Personality::Submission };
        let whole = play(&octets, personality, octets.len());
        for line in whole.0.lines() {
            let digits = line.bytes().take(3).filter(u8::is_ascii_digit).count();
            assert!(digits == 3 && matches!(line.as_bytes()[3], b' ' | b'-'), "{number}: {line}");
        }
        // STARTTLS is the one command for which it matters whether something comes with it.
        let tls = octets.to_ascii_uppercase().windows(8).any(|window| window == b"STARTTLS");
        if !tls {
            for piece in [1, 2, 7, 100] {
                assert_eq!(play(&octets, personality, piece), whole, "history {number} in pieces of {piece}");
            }
        }
    }
}

#[test]
fn noise_is_bounded() {
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..200 {
        let octets: Vec<u8> = (0..random.random_range(1..3 * LINE_LEN_MAX)).map(|_| random.random()).collect();
        let (_, delivered, _) = play(&octets, Personality::Mx, 4096);
        assert_eq!(delivered, 0);
    }
}
