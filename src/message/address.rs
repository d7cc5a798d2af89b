//! Addresses as an IMAP envelope has them: raw name, route, mailbox, host, group marks.
//!
//! Owns: `EnvelopeAddress`, splitting an address list field. Called by: `structure`.
//! Never: decodes encoded words (the client does), refuses a list: it gives what it can make out.
//! Spec: RFC 5322 section 3.4, section 4.4 (obsolete routes); RFC 9051 section 7.5.2 (address structure, groups).

/// Addresses of one field that are kept; what follows is left out of the envelope (never out of the message).
pub const ADDRESSES_MAX: usize = 1_000;
/// Comments inside comments; deeper ones end the list.
const COMMENT_DEPTH_MAX: usize = 16;

/// One address; or the start of a group (`mailbox` is its name, `host` absent); or its end (both absent). `T`: a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvelopeAddress<T = Vec<u8>> {
    /// Display name, or the comment that old messages have instead; not decoded.
    pub name: Option<T>,
    /// At-domain-list, the obsolete source route.
    pub route: Option<T>,
    /// Local part, unquoted.
    pub mailbox: Option<T>,
    /// Domain; empty when the address has none, as absent would mark a group.
    pub host: Option<T>,
}

/// Splits the value of From, To and the like; `value` may be folded.
#[must_use]
pub fn list(value: &[u8]) -> Vec<EnvelopeAddress> {
    let mut reader = ListReader { input: value, out: Vec::new(), element: Element::default(), in_group: false };
    while reader.out.len() < ADDRESSES_MAX && reader.step() {}
    reader.end_element();
    if reader.in_group {
        reader.out.push(EnvelopeAddress::default());
    }
    reader.out
}

/// What was seen of the address that is being read.
#[derive(Default)]
struct Element {
    /// Words before any `<` or `@`.
    words: Vec<Vec<u8>>,
    comment: Option<Vec<u8>>,
    /// Local part, once an `@` was seen.
    local: Option<Vec<u8>>,
    host: Vec<u8>,
    /// Route, local part, host out of angle brackets.
    angle: Option<EnvelopeAddress>,
}

struct ListReader<'a> {
    input: &'a [u8],
    out: Vec<EnvelopeAddress>,
    element: Element,
    in_group: bool,
}

impl ListReader<'_> {
    /// Reads one token; false at the end.
    fn step(&mut self) -> bool {
        let Some((&first, rest)) = self.input.split_first() else { return false };
        match first {
            b' ' | b'\t' | b'\r' | b'\n' | 0 => self.input = rest,
            b'(' => {
                let comment = comment(&mut self.input);
                self.element.comment = Some(comment);
            }
            b'"' => {
                let word = quoted(&mut self.input);
                self.word(word);
            }
            b'<' => {
                self.input = rest;
                self.element.angle = Some(angle(&mut self.input));
            }
            b',' => {
                self.input = rest;
                self.end_element();
            }
            b':' if !self.in_group => {
                self.input = rest;
                let element = std::mem::take(&mut self.element);
                self.in_group = true;
                self.out.push(EnvelopeAddress { mailbox: Some(element.words.join(&b' ')), ..Default::default() });
            }
            b';' => {
                self.input = rest;
                self.end_element();
                if std::mem::take(&mut self.in_group) {
                    self.out.push(EnvelopeAddress::default());
                }
            }
            b'@' => {
                self.input = rest;
                let words = std::mem::take(&mut self.element.words);
                self.element.local.get_or_insert_with(|| words.concat());
            }
            b'[' => {
                let literal = take_through(&mut self.input, b']');
                self.word(literal);
            }
            b':' | b')' | b'>' | b']' => self.input = rest,
            _ => {
                let word = atom(&mut self.input).to_vec();
                self.word(word);
            }
        }
        true
    }

    fn word(&mut self, word: Vec<u8>) {
        if self.element.local.is_some() {
            self.element.host.extend_from_slice(&word);
        } else {
            self.element.words.push(word);
        }
    }

    fn end_element(&mut self) {
        let element = std::mem::take(&mut self.element);
        let phrase = if element.words.is_empty() { None } else { Some(element.words.join(&b' ')) };
        let address = match (element.angle, element.local) {
            (Some(angle), _) => EnvelopeAddress { name: phrase.or(element.comment), ..angle },
            (None, Some(local)) => {
                EnvelopeAddress { name: element.comment, route: None, mailbox: Some(local), host: Some(element.host) }
            }
            // A word alone, as local mail has it.
            (None, None) => match phrase {
                Some(phrase) => EnvelopeAddress {
                    name: element.comment,
                    route: None,
                    mailbox: Some(phrase),
                    host: Some(Vec::new()),
                },
                None => return,
            },
        };
        self.out.push(address);
    }
}

/// `@route:local@host>`, the opening bracket already read.
fn angle(input: &mut &[u8]) -> EnvelopeAddress {
    let mut address =
        EnvelopeAddress { mailbox: Some(Vec::new()), host: Some(Vec::new()), ..EnvelopeAddress::default() };
    let mut part: Vec<u8> = Vec::new();
    let mut local: Option<Vec<u8>> = None;
    while let Some((&first, rest)) = input.split_first() {
        match first {
            b'>' => {
                *input = rest;
                break;
            }
            b' ' | b'\t' | b'\r' | b'\n' | 0 => *input = rest,
            b'(' => drop(comment(input)),
            b'"' => part.extend_from_slice(&quoted(input)),
            b'[' => part.extend_from_slice(&take_through(input, b']')),
            // RFC 5322 section 4.4: "<@a,@b:local@host>".
            b':' if local.as_ref().is_some_and(Vec::is_empty) => {
                *input = rest;
                let mut route = b"@".to_vec();
                route.append(&mut part);
                address.route = Some(route);
                local = None;
            }
            b'@' if local.is_none() => {
                *input = rest;
                local = Some(std::mem::take(&mut part));
            }
            b':' | b',' | b'@' | b';' | b'<' | b')' | b']' => {
                part.push(first);
                *input = rest;
            }
            _ => part.extend_from_slice(atom(input)),
        }
    }
    match local {
        Some(local) => {
            address.mailbox = Some(local);
            address.host = Some(part);
        }
        None => address.mailbox = Some(part),
    }
    address
}

/// Bytes up to the next blank or special. The first byte is taken whatever it is.
fn atom<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let special = |byte: &u8| b" \t\r\n\0()<>[],;:\"@".contains(byte);
    let length = input.iter().skip(1).position(special).map_or(input.len(), |at| at + 1);
    let (atom, rest) = input.split_at_checked(length).unwrap_or((*input, &[]));
    *input = rest;
    atom
}

/// A quoted string without its quotes and backslashes; an open one ends with the field.
fn quoted(input: &mut &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = input.iter().enumerate().skip(1);
    let mut end = input.len();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => {
                end = at + 1;
                break;
            }
            b'\\' => out.extend(bytes.next().map(|(_, &byte)| byte).filter(|byte| !b"\r\n\0".contains(byte))),
            b'\r' | b'\n' | 0 => {}
            other => out.push(other),
        }
    }
    *input = input.get(end..).unwrap_or_default();
    out
}

/// A comment without its outer parentheses; an open one ends with the field.
pub(super) fn comment(input: &mut &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut depth = 0;
    let mut bytes = input.iter().enumerate();
    let mut end = input.len();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'(' => {
                depth += 1;
                if depth > COMMENT_DEPTH_MAX {
                    break;
                }
                if depth > 1 {
                    out.push(byte);
                }
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    end = at + 1;
                    break;
                }
                out.push(byte);
            }
            b'\\' => out.extend(bytes.next().map(|(_, &byte)| byte).filter(|byte| !b"\r\n\0".contains(byte))),
            b'\r' | b'\n' | 0 => {}
            other => out.push(other),
        }
    }
    *input = input.get(end..).unwrap_or_default();
    out
}

/// Bytes up to and with `end`; the first byte is taken whatever it is.
fn take_through(input: &mut &[u8], end: u8) -> Vec<u8> {
    let length = memchr::memchr(end, input).map_or(input.len(), |at| at + 1);
    let (taken, rest) = input.split_at_checked(length).unwrap_or((*input, &[]));
    *input = rest;
    taken.iter().copied().filter(|byte| !b"\r\n\0 \t".contains(byte)).collect()
}
