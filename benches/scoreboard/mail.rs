//! The mail that is sent: text and an attachment, as many are, no two the same.
//!
//! Owns: templates and the number stamped on each copy. Called by: the rows and `fill`. Never: depends on chance; the
//! same seed makes the same mail for every contender.

use std::fmt::Write as _;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Failure;

/// Digits of the number that tells messages apart.
const STAMP_DIGITS: usize = 12;
/// Where it stands, until it is stamped.
const BLANK: &str = "############";
/// Different words that the text is made of.
const WORDS: u64 = 4000;

/// A message with places for its number.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    text: Vec<u8>,
    places: Vec<usize>,
}

impl Mail {
    /// Messages of about so many octets, all different, line ends CRLF.
    pub(crate) fn templates(count: u64, octets: usize) -> Vec<Self> {
        (0..count).map(|seed| Self::new(seed, octets)).collect()
    }

    fn new(seed: u64, octets: usize) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let text = compose(&mut chance, seed, octets);
        let places = memchr::memmem::find_iter(&text, BLANK.as_bytes()).collect();
        Self { text, places }
    }

    /// The text with this number on it.
    pub(crate) fn stamp(&mut self, number: u64) -> &[u8] {
        let digits = format!("{number:0STAMP_DIGITS$}");
        for place in &self.places {
            if let Some(target) = self.text.get_mut(*place..place + STAMP_DIGITS) {
                target.copy_from_slice(digits.as_bytes());
            }
        }
        &self.text
    }

    /// Ready for DATA: a lone dot at the end. No line of ours begins with a dot.
    pub(crate) fn for_data(mut self) -> Self {
        self.text.extend_from_slice(b".\r\n");
        self
    }
}

/// What `SEARCH TEXT` has to look for to find message `number`.
pub(crate) fn stamp_text(number: u64) -> String {
    format!("{number:0STAMP_DIGITS$}")
}

/// Address of account `number`.
pub(crate) fn address(number: u64) -> String {
    format!("u{number}@{}", crate::DOMAIN)
}

/// The template for message `number`, and the message stamped.
pub(crate) fn pick(templates: &mut [Mail], number: u64) -> Result<&[u8], Failure> {
    let count = templates.len();
    let nth = usize::try_from(number)? % count.max(1);
    Ok(templates.get_mut(nth).ok_or("no templates")?.stamp(number))
}

fn compose(chance: &mut Chance, seed: u64, octets: usize) -> Vec<u8> {
    let mut text = format!(
        "Date: Tue, 24 Nov 2026 03:00:00 +0800\r\nFrom: \"Sender {seed}\" <sender{seed}@client.bench.test>\r\n\
         To: \"Recipient\" <recipient@{}>\r\nSubject: {} {BLANK}\r\nMessage-ID: <{BLANK}.{seed}@client.bench.test>\r\n\
         MIME-Version: 1.0\r\n",
        crate::DOMAIN,
        sentence(chance, 5),
    );
    let attached = octets > 4096;
    let boundary = "=_part_of_the_message";
    let end = if attached {
        text.push_str(&format!(
            "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\r\n"
        ));
        octets * 6 / 10
    } else {
        text.push_str("Content-Type: text/plain; charset=utf-8\r\n\r\n");
        octets
    };
    while text.len() + 70 < end {
        text.push_str(&sentence(chance, 9));
        text.push_str("\r\n");
    }
    if attached {
        text.push_str(&format!(
            "--{boundary}\r\nContent-Type: application/octet-stream; name=\"a.bin\"\r\n\
             Content-Disposition: attachment; filename=\"a.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        ));
        while text.len() + 100 < octets {
            let bytes: Vec<u8> = (0..57).map(|_| u8::try_from(chance.below(256)).unwrap_or(0)).collect();
            text.push_str(&BASE64_STANDARD.encode(bytes));
            text.push_str("\r\n");
        }
        text.push_str(&format!("--{boundary}--\r\n"));
    }
    text.into_bytes()
}

fn sentence(chance: &mut Chance, words: u32) -> String {
    let mut line = String::new();
    for nth in 0..words {
        if nth > 0 {
            line.push(' ');
        }
        // Frequent words are frequent: the square of an even distribution.
        let rank = chance.below(WORDS) * chance.below(WORDS) / WORDS;
        word(rank, &mut line);
    }
    line
}

/// The word of that rank: syllables spelled from its number.
fn word(rank: u64, line: &mut String) {
    const SYLLABLES: [&str; 16] =
        ["ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "du", "fa", "ge", "hi", "jo", "pu", "sha"];
    let mut rest = rank + 17;
    while rest > 0 {
        let nth = usize::try_from(rest % 16).unwrap_or(0);
        // Writing to a string does not fail.
        write!(line, "{}", SYLLABLES.get(nth).unwrap_or(&"")).ok();
        rest /= 16;
    }
}

/// A sequence that looks like chance and is the same each time.
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}
