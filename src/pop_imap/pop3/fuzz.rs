//! Seeded mutation of POP3 dialogues.
//!
//! Invariants: no panic; every answer begins with `+` or `-ERR`, and lines end with CR LF; what waits for more input is less
//! than one command line; messages are removed only after QUIT; how the input is cut changes nothing (but for STLS, where
//! it must: clear text behind it is refused).

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::session::{COMMAND_LEN_MAX, OUT_LEN_MAX};
use super::tests::{POLICY, World};

/// Dialogues to start from, and words to splice in.
const SEEDS: [&[u8]; 4] = [
    b"USER u1\r\nPASS pass word\r\nSTAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nTOP 2 0\r\nDELE 2\r\nQUIT\r\n",
    b"AUTH PLAIN AHUxAHBhc3Mgd29yZA==\r\nDELE 1\r\nRSET\r\nDELE 3\r\nUIDL 1\r\nLIST 2\r\nNOOP\r\nQUIT\r\n",
    b"CAPA\r\nAUTH PLAIN\r\nAHUxAHBhc3Mgd29yZA==\r\nRETR 3\r\n",
    b"UTF8\r\nAUTH\r\nUSER u1\r\nPASS wrong\r\nUSER busy\r\nPASS x\r\n",
];
const WORDS: [&[u8]; 12] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b".\r\n",
    b" 4294967296",
    b"*\r\n",
    b"AUTH PLAIN\r\n",
    b"\xff\xfe",
    b" 0",
    b"QUIT\r\n",
    b"TOP 1 4294967295\r\n",
];
/// Mutated dialogues in each run.
const ROUNDS: u64 = 20_000;

#[test]
fn mutated_dialogues_break_nothing() {
    let first: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut removed, mut closed) = (0, 0);
    for seed in first..first + ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let input = mutate(&mut random);
        let whole = run(&input, input.len().max(1), seed);
        let piece = random.random_range(1..=input.len().max(1));
        assert_eq!(run(&input, piece, seed), whole, "seed {seed}: cut in pieces of {piece}");
        removed += whole.1.len();
        closed += usize::from(whole.2);
    }
    assert!(removed > 1000 && closed > 1000, "the mutations still reach QUIT: {removed} {closed}");
}

fn mutate(random: &mut StdRng) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..random.random_range(1..4) {
        input.extend_from_slice(SEEDS[random.random_range(0..SEEDS.len())]);
    }
    for _ in 0..random.random_range(0..8) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..4) {
            0 => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            1 => {
                let end = (at + random.random_range(0..40)).min(input.len());
                input.drain(at..end);
            }
            2 => {
                let run = vec![random.random::<u8>(); random.random_range(1..3000)];
                input.splice(at..at, run);
            }
            _ => {
                if let Some(octet) = input.get_mut(at) {
                    *octet = random.random();
                }
            }
        }
    }
    input
}

/// Answers, removed messages, whether the session ended.
fn run(input: &[u8], piece: usize, seed: u64) -> (String, Vec<u32>, bool) {
    let mut world = World::new(POLICY());
    for part in input.chunks(piece) {
        world.receive(part);
        assert!(world.closed || world.waiting() < COMMAND_LEN_MAX, "seed {seed}: {} octets wait", world.waiting());
        assert!(world.out_len_max < 2 * OUT_LEN_MAX + 100, "seed {seed}");
    }
    let out = String::from_utf8(world.out).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(out.ends_with("\r\n") && !out.contains('\0'), "seed {seed}");
    assert!(out.split("\r\n").all(|line| !line.contains(['\r', '\n'])), "seed {seed}: {out:?}");
    if !world.removed.is_empty() {
        assert!(out.ends_with("+OK bye\r\n"), "seed {seed}: {out:?}");
    }
    (out, world.removed, world.closed)
}
