//! POP3 commands as text.
//!
//! Owns: `Command`. Called by: the session. Never: knows what is allowed when.
//! Spec: RFC 1939 sections 5 to 7, RFC 2449 section 5, RFC 5034 section 4, RFC 6856 section 2.

use std::str::FromStr;

/// A command with its arguments. Texts with secrets are borrowed and not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Capa,
    Stls,
    User(&'a str),
    Pass(&'a str),
    /// None: which mechanisms are there? (RFC 1734's way to ask, still in use.)
    Auth(Option<Sasl<'a>>),
    Utf8,
    Stat,
    List(Option<u32>),
    Uidl(Option<u32>),
    Retr(u32),
    /// The header and so many lines of the body.
    Top(u32, u32),
    Dele(u32),
    Rset,
    Noop,
    Quit,
}

/// Arguments of AUTH.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sasl<'a> {
    pub(super) mechanism: &'a str,
    pub(super) initial_response: Option<&'a str>,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommandError {
    /// No such command.
    Unknown,
    /// Arguments missing, superfluous or not numbers.
    Arguments,
    /// Not UTF-8.
    Text,
}

impl<'a> Command<'a> {
    /// Reads a line, with or without its `<CR><LF>`.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        let line = std::str::from_utf8(line).map_err(|_| CommandError::Text)?.trim_end_matches(['\r', '\n']);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word.eq_ignore_ascii_case("PASS") {
            // RFC 1939 section 7: the password may have spaces in it, also at its ends.
            return if rest.is_empty() { Err(CommandError::Arguments) } else { Ok(Self::Pass(rest)) };
        }
        let arguments = rest.trim();
        let mut words = arguments.split_ascii_whitespace();
        let command = match word.to_ascii_uppercase().as_str() {
            "CAPA" => Self::Capa,
            "STLS" => Self::Stls,
            // A login name may have spaces (RFC 1939 does not say otherwise).
            "USER" if arguments.is_empty() => return Err(CommandError::Arguments),
            "USER" => return Ok(Self::User(arguments)),
            "AUTH" => Self::Auth(words.next().map(|mechanism| Sasl { mechanism, initial_response: words.next() })),
            "UTF8" => Self::Utf8,
            "STAT" => Self::Stat,
            "LIST" => Self::List(words.next().map(number).transpose()?),
            "UIDL" => Self::Uidl(words.next().map(number).transpose()?),
            "RETR" => Self::Retr(required(words.next())?),
            "TOP" => Self::Top(required(words.next())?, required(words.next())?),
            "DELE" => Self::Dele(required(words.next())?),
            "RSET" => Self::Rset,
            "NOOP" => Self::Noop,
            "QUIT" => Self::Quit,
            _ => return Err(CommandError::Unknown),
        };
        if words.next().is_some() { Err(CommandError::Arguments) } else { Ok(command) }
    }
}

fn required(word: Option<&str>) -> Result<u32, CommandError> {
    number(word.ok_or(CommandError::Arguments)?)
}

/// Digits only: `u32::from_str` would take a `+`.
fn number(word: &str) -> Result<u32, CommandError> {
    if !word.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(CommandError::Arguments);
    }
    u32::from_str(word).map_err(|_| CommandError::Arguments)
}
