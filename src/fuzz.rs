//! Hostile input for every parser and session: what each of them must hold, whatever it is given.
//!
//! Owns: the list of targets. Called by: `fuzz/` (coverage-guided, `cargo +nightly fuzz`) and the tests below (on stable, over the
//! seeds in `fuzz/seeds/` and their random mutations). Not part of the product. The invariants stand in the rooms' own `fuzz.rs`.
//!
//! A target takes octets, panics where something is wrong, and returns how much came through to the deeper rooms (messages, commands,
//! records): of seeds that reach nothing, no mutation would either. Where an input is a dialogue, its first octet says how it is played.

use crate::smtp::client::Dialect;

/// SMTP server session.
pub fn smtp(data: &[u8]) -> usize {
    crate::smtp::session::fuzz::target(data)
}

/// LMTP: the mailboxes' server, and the client that hands mail to one.
pub fn lmtp(data: &[u8]) -> usize {
    match data.split_first() {
        Some((b'c', rest)) => crate::smtp::client::fuzz::target(Dialect::Lmtp, rest),
        Some(_) => crate::pop_imap::lmtp::fuzz::target(data),
        None => 0,
    }
}

/// What other sites' servers say to the SMTP client.
pub fn outbound(data: &[u8]) -> usize {
    crate::smtp::client::fuzz::target(Dialect::Smtp, data)
}

/// IMAP session, commands, mailbox names, search.
pub fn imap(data: &[u8]) -> usize {
    crate::pop_imap::imap::fuzz::target(data)
}

/// POP3 session.
pub fn pop3(data: &[u8]) -> usize {
    crate::pop_imap::pop3::fuzz::target(data)
}

/// LDAP session, names, filters, changes.
pub fn ldap(data: &[u8]) -> usize {
    crate::ldap_proxy::fuzz::target(data)
}

/// The TOML, and the environment behind the first NUL.
pub fn config(data: &[u8]) -> usize {
    crate::config::fuzz::target(data)
}

/// A damaged ledger, and the records that roles keep in theirs.
pub fn ledger(data: &[u8]) -> usize {
    match data.split_first() {
        Some((b'd', rest)) => crate::ldap_proxy::fuzz::record(rest),
        Some((b'q', rest)) => crate::smtp::queue::fuzz::record(rest),
        Some((b's', rest)) => crate::pop_imap::store::fuzz::record(rest),
        Some((_, rest)) => crate::ledger::fuzz::target(rest),
        None => 0,
    }
}

/// A message: structure, header, addresses, dots, search.
pub fn message(data: &[u8]) -> usize {
    crate::pop_imap::store::fuzz::search(data);
    crate::message::fuzz::target(data)
}

/// A volume of a backup: tar stream, label, frames, catalogue.
pub fn volume(data: &[u8]) -> usize {
    crate::backup_to_tape::volume::fuzz::target(data)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use crate::base::clock;

    /// Time for the mutations of one target; little more than a minute for all.
    const BUDGET: Duration = Duration::from_secs(8);
    /// Octets of a mutated input, at most.
    const LEN_MAX: usize = 64 * 1024;

    fn root(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    fn files(path: &str) -> Vec<Vec<u8>> {
        let mut paths: Vec<PathBuf> = fs::read_dir(root(path)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// Words of a dictionary in libFuzzer's form: a quoted word a line, `\xNN` for octets.
    fn words(name: &str) -> Vec<Vec<u8>> {
        let text = fs::read_to_string(root("fuzz/dictionaries").join(name)).unwrap();
        let quoted = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
        quoted.map(word).collect()
    }

    fn word(quoted: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut octets = quoted.bytes();
        while let Some(octet) = octets.next() {
            match (octet, octet == b'\\') {
                (_, true) => match octets.next().unwrap() {
                    b'x' => {
                        let digits = [octets.next().unwrap(), octets.next().unwrap()];
                        out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    }
                    other => out.push(other),
                },
                (octet, false) => out.push(octet),
            }
        }
        out
    }

    #[test]
    fn a_dictionary_is_read_as_libfuzzer_reads_it() {
        assert_eq!(word(r#"a\x0d\x0A\\\""#), b"a\r\n\\\"");
    }

    /// One input made of others.
    fn mutate(random: &mut StdRng, seeds: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[random.random_range(0..seeds.len())].clone();
        for _ in 0..random.random_range(0..12) {
            let at = random.random_range(0..=input.len());
            match random.random_range(0..7) {
                0 => {
                    let other = &seeds[random.random_range(0..seeds.len())];
                    let from = random.random_range(0..=other.len());
                    let end = (from + random.random_range(0..2000)).min(other.len());
                    input.splice(at..at, other[from..end].iter().copied()).for_each(drop);
                }
                1 => drop(input.drain(at..(at + random.random_range(0..40)).min(input.len()))),
                2 => {
                    let run = vec![random.random::<u8>(); random.random_range(1..3000)];
                    input.splice(at..at, run).for_each(drop);
                }
                3 if at > 0 => input[at - 1] = random.random(),
                4 if at > 0 => input[at - 1] ^= 1 << random.random_range(0..8),
                _ if words.is_empty() => {}
                _ => {
                    let word = &words[random.random_range(0..words.len())];
                    input.splice(at..at, word.iter().copied()).for_each(drop);
                }
            }
            input.truncate(LEN_MAX);
        }
        input
    }

    /// Says how to play an input again when the target panics.
    struct Told<'a> {
        name: &'a str,
        seed: u64,
        input: &'a [u8],
    }

    impl Drop for Told<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("{}: FIFE_SEED={} input {}", self.name, self.seed, self.input.escape_ascii());
            }
        }
    }

    fn run(name: &str, target: fn(&[u8]) -> usize) {
        let mut seeds = files(&format!("fuzz/seeds/{name}"));
        if name == "message" {
            seeds.extend(files("tests/data/mail"));
        }
        let mut reached = 0;
        for input in &seeds {
            let told = Told { name, seed: 0, input };
            reached += target(input);
            target(&input[..input.len() / 2]);
            drop(told);
        }
        assert!(reached >= seeds.len() / 2, "{name}: the seeds reach the deeper rooms: {reached}");
        let words = words(name);
        let first = std::env::var("FIFE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        println!("{name}: FIFE_SEED={first}");
        let started = clock::monotonic();
        let mut seed: u64 = first;
        while clock::monotonic().saturating_duration_since(started) < BUDGET {
            let input = mutate(&mut StdRng::seed_from_u64(seed), &seeds, &words);
            let _told = Told { name, seed, input: &input };
            target(&input);
            seed = seed.wrapping_add(1);
        }
        println!("{name}: {} inputs", seed.wrapping_sub(first));
    }

    #[test]
    fn smtp_holds() {
        run("smtp", super::smtp);
    }

    #[test]
    fn lmtp_holds() {
        run("lmtp", super::lmtp);
    }

    #[test]
    fn outbound_holds() {
        run("outbound", super::outbound);
    }

    #[test]
    fn imap_holds() {
        run("imap", super::imap);
    }

    #[test]
    fn pop3_holds() {
        run("pop3", super::pop3);
    }

    #[test]
    fn ldap_holds() {
        run("ldap", super::ldap);
    }

    #[test]
    fn config_holds() {
        run("config", super::config);
    }

    #[test]
    fn ledger_holds() {
        run("ledger", super::ledger);
    }

    #[test]
    fn message_holds() {
        run("message", super::message);
    }

    #[test]
    fn volume_holds() {
        run("volume", super::volume);
    }
}
