//! Seeded mutation of LMTP dialogues.
//!
//! Invariants: no panic; every answer is lines of `NNN text` ended by CR LF; what waits for more input is less than one
//! command line; a message is stored only with its recipients accepted, within the size limit, without lone CR, LF or NUL;
//! how the input is cut changes nothing.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::session::COMMAND_LEN_MAX;
use super::tests::World;

/// Dialogues to start from, and words to splice in.
const SEEDS: [&[u8]; 4] = [
    b"LHLO a.test\r\nMAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<u1@example.test>\r\nDATA\r\nSubject: x\r\n\r\n..y\r\n.\r\nQUIT\r\n",
    b"LHLO [127.0.0.1]\r\nMAIL FROM:<>\r\nRCPT TO:<both@example.test>\r\nRCPT TO:<full@example.test>\r\nBDAT 5\r\nab\r\ncBDAT 3 LAST\r\n\r\nxNOOP\r\n",
    b"LHLO a\r\nMAIL FROM:<\"a b\"@b.test>\r\nRCPT TO:<nobody@example.test>\r\nRSET\r\nVRFY x\r\nHELP\r\nEXPN y\r\n",
    b"MAIL FROM:<a@b.test>\r\nRCPT TO:<u1@example.test> NOTIFY=NEVER ORCPT=rfc822;a+40b.test\r\nDATA\r\nMAIL FROM:<x@y.test> RET=HDRS\r\n.\r\n",
];
const WORDS: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b".\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"<",
    b">",
    b"@",
    b"\"",
    b"\\",
    b"BDAT 99999999999999999999 LAST\r\n",
    b"LHLO a\r\n",
    b"\xff\xfe",
    b" SIZE=18446744073709551615",
];
/// Mutated dialogues in each run.
const ROUNDS: u64 = 20_000;

#[test]
fn mutated_dialogues_break_nothing() {
    let first: u64 = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut stored, mut refused) = (0, 0);
    for seed in first..first + ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let input = mutate(&mut random);
        let whole = run(&input, input.len().max(1), seed);
        let piece = random.random_range(1..=input.len().max(1));
        assert_eq!(run(&input, piece, seed), whole, "seed {seed}: cut in pieces of {piece}");
        stored += whole.1.len();
        refused += usize::from(whole.0.contains("550 5.6.0"));
    }
    assert!(stored > 1000 && refused > 100, "the mutations still reach the store: {stored} {refused}");
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
            2 => input.splice(at..at, vec![random.random::<u8>(); random.random_range(1..3000)]).for_each(drop),
            _ => {
                if let Some(octet) = input.get_mut(at) {
                    *octet = random.random();
                }
            }
        }
    }
    input
}

/// Answers and stored texts.
fn run(input: &[u8], piece: usize, seed: u64) -> (String, Vec<Vec<u8>>) {
    let mut world = World::new();
    for part in input.chunks(piece) {
        world.receive(part);
        assert!(world.closed || world.waiting() < COMMAND_LEN_MAX, "seed {seed}: {} octets wait", world.waiting());
    }
    let out = String::from_utf8(world.out).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    for line in out.split_inclusive("\r\n") {
        let good = line.ends_with("\r\n")
            && !line.trim_end().contains(['\r', '\n', '\0'])
            && line.as_bytes()[..3].iter().all(u8::is_ascii_digit);
        assert!(good, "seed {seed}: {line:?}");
    }
    for stored in &world.stored {
        assert!(!stored.recipients.is_empty() && stored.text.len() <= 2000, "seed {seed}");
        let lines = stored.text.split(|octet| *octet == b'\n').rev().skip(1);
        for line in lines {
            let good = line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r') && !line.contains(&0);
            assert!(good, "seed {seed}: {:?}", String::from_utf8_lossy(line));
        }
    }
    (out, world.stored.into_iter().map(|stored| stored.text).collect())
}
