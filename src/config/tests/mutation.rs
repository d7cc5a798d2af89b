//! Broken files by the thousand, from a seed.
//!
//! Invariants: loading ends without panic; a refusal has at least one fault, each inside the text, drawn without
//! panic; the secret in the file is never in what is said.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::load;

const ROUNDS: u32 = 1000;
const SECRET: &str = "hunter2hunter2";

#[test]
fn no_mutation_of_the_reference_panics_or_tells_the_secret() {
    let seed = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("FIFE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let reference = include_str!("../../../etc/fife.toml");
    // Settings as they stand in the comments, and a secret among them.
    let active =
        reference.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
    let secret = format!("[directory]\nbind-password = \"{SECRET}\"");
    let base = active.collect::<Vec<_>>().join("\n").replace("[directory]", &secret);
    assert!(base.contains(SECRET));
    let mut refused = 0_u32;
    for _ in 0..ROUNDS {
        let text = mutate(&base, &mut random);
        if let Err(faults) = load(&text) {
            refused += 1;
            assert!(!faults.list().is_empty());
            let said = format!("{}{}{}", faults.render(false), faults.render(true), faults.to_json());
            assert!(!said.contains(SECRET), "seed {seed}: {text}\n{said}");
        }
    }
    assert!(refused > ROUNDS / 2, "seed {seed}: only {refused} were refused");
}

/// One to four changes; none in the line of the secret, which may hide it no longer when its key is gone.
fn mutate(base: &str, random: &mut StdRng) -> String {
    let mut lines: Vec<String> = base.lines().map(str::to_owned).collect();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..lines.len());
        if lines[at].contains(SECRET) {
            continue;
        }
        match random.random_range(0..6) {
            0 => drop(lines.remove(at)),
            1 => lines[at] = lines.choose(random).unwrap().replace(SECRET, ""),
            2 => {
                let chars: Vec<char> = lines[at].chars().collect();
                let cut = random.random_range(0..=chars.len());
                lines[at] = chars[..cut].iter().collect();
            }
            3 => {
                let junk = [
                    "\"", "'''", "\"\"\"", "[", "]", "{", "}", "=", "#", "\0", "例", "\\", ".", ",", "-1", "1e999",
                    "\u{feff}",
                ];
                let mut chars: Vec<char> = lines[at].chars().collect();
                let place = random.random_range(0..=chars.len());
                for c in junk.choose(random).unwrap().chars().rev() {
                    chars.insert(place, c);
                }
                lines[at] = chars.into_iter().collect();
            }
            4 => {
                let key = lines[at].split('=').next().unwrap_or_default().to_owned();
                let values =
                    ["5", "\"\"", "[]", "{}", "true", "-9223372036854775808", "1.0", "\"x\"", "[[[]]]", "1979-05-27"];
                lines[at] = format!("{key}= {}", values.choose(random).unwrap());
            }
            _ => {
                let other = random.random_range(0..lines.len());
                lines.swap(at, other);
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}
