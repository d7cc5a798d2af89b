//! Text of a configuration file with its secrets hidden, so that lines of it can be shown.
//!
//! Owns: `mask`. Called by: `load`, before anything of the file is put into a fault.
//! Never: relies on the text being TOML; a secret on a broken line is hidden too. It would rather hide too much.
//!
//! What is hidden is replaced by as many bytes, so that places in the text stay right.

use std::ops::Range;
use std::sync::LazyLock;

use super::schema::{Kind, Section};

/// Names of settings that hold secrets.
static SECRET_KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let settings = Section::shared().flat_map(|section| section.settings().iter());
    settings.filter(|setting| setting.kind == Kind::Secret).map(|setting| setting.key).collect()
});

/// Whether the value of this key is to be hidden: a secret setting, a name that may be meant as one, or one that
/// speaks of passwords at all.
pub(crate) fn is_secret_key(key: &str) -> bool {
    let key = key.to_lowercase().replace('_', "-");
    // Nearer than what is offered as "did you mean": `secrte` yes, `service` no.
    let near = |known: &&str| strsim::damerau_levenshtein(&key, known) <= 2;
    ["secret", "passw", "passphrase"].iter().any(|word| key.contains(word)) || SECRET_KEYS.iter().any(near)
}

/// The text with the values of secret keys hidden.
pub(crate) fn mask(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while let Some(sign) = text.get(at..).and_then(|rest| rest.find('=')).map(|found| at + found) {
        let before = text.get(..sign).unwrap_or_default();
        at = sign + 1;
        if is_secret_key(&key_before(before)) {
            let value = value_after(text, at);
            at = value.end.max(at);
            hide(&mut out, value);
        }
    }
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(end) = secret_without_sign(line) {
            hide(&mut out, value_after(text, start + end));
        }
        start += line.len();
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Where the key ends in a line that begins with the name of a secret and goes on without an equals sign.
fn secret_without_sign(line: &str) -> Option<usize> {
    let word = line.trim_start_matches([' ', '\t', '"', '\'']);
    let skipped = line.len() - word.len();
    let end = word.find(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))).unwrap_or(word.len());
    let (key, rest) = word.split_at_checked(end)?;
    let rest_of_key = rest.trim_start_matches(['"', '\'', ' ', '\t']);
    let key = key.rsplit('.').next().unwrap_or_default();
    (is_secret_key(key) && !rest_of_key.starts_with('=')).then_some(skipped + end)
}

/// The key that ends just before an equals sign: the last part of a dotted or quoted key.
fn key_before(before: &str) -> String {
    let trimmed = before.trim_end();
    let quotes = ['"', '\''].into_iter().find(|quote| trimmed.ends_with(*quote));
    let Some(quote) = quotes else {
        let start = trimmed
            .rfind(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'))
            .map_or(0, |found| trimmed.ceil_char_boundary(found + 1));
        return trimmed.get(start..).unwrap_or_default().to_owned();
    };
    let inner = trimmed.strip_suffix(quote).unwrap_or_default();
    let key = inner.rsplit(quote).next().unwrap_or_default();
    // A key with escapes in it says nothing about what it is: taken for a secret.
    if key.contains('\\') { "secret".to_owned() } else { key.to_owned() }
}

/// The value that begins at `start`, as far as a broken one can be told from what follows it.
fn value_after(text: &str, start: usize) -> Range<usize> {
    let rest = text.get(start..).unwrap_or_default();
    let value = rest.trim_start_matches([' ', '\t']);
    let from = start + (rest.len() - value.len());
    let line = value.find('\n').unwrap_or(value.len());
    let first_line = value.get(..line).unwrap_or_default();
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inner) = value.strip_prefix(quotes) {
            let end = inner.find(quotes).map_or(value.len(), |found| found + 2 * quotes.len());
            // The line in which it ends, too: an escaped quote may have ended it too early.
            let tail = value.get(end..).and_then(|tail| tail.find('\n')).unwrap_or(value.len().saturating_sub(end));
            return from..from + end + tail;
        }
    }
    let names_place = first_line.starts_with('{')
        && ["file", "env"].iter().any(|key| first_line.trim_start_matches(['{', ' ']).starts_with(key))
        && first_line.contains('}');
    if names_place {
        return from..from;
    }
    if first_line.starts_with(['[', '{']) {
        return from..from + end_of_open(value);
    }
    from..from + line
}

/// The length of a list or table of unknown shape: up to the line before one that starts a key or a header.
pub(super) fn end_of_open(value: &str) -> usize {
    let mut length = 0;
    for (number, line) in value.split_inclusive('\n').enumerate() {
        let starts_anew = |line: &str| {
            let word = line.trim_start();
            let head = word.trim_start_matches(|c: char| c.is_alphanumeric() || "-_.\"' ".contains(c));
            (word.starts_with('[') && word.trim_end().ends_with(']'))
                || (head.starts_with('=') && word.len() > head.len())
        };
        if number > 0 && starts_anew(line) {
            break;
        }
        length += line.len();
    }
    length
}

/// Puts stars in place of everything but line ends.
fn hide(out: &mut [u8], range: Range<usize>) {
    for byte in out.get_mut(range).into_iter().flatten() {
        if !matches!(byte, b'\n' | b'\r') {
            *byte = b'*';
        }
    }
}
