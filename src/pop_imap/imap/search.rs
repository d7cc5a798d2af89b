//! SEARCH: what is asked, and whether a message is it.
//!
//! Owns: `SearchRequest`, `Key`, their parsing and evaluation, the answers. Called by: `imap::command`, `imap::run`.
//! Never: reads the store: what a row tells is decided here, what stands in a message by the store.
//! Spec: RFC 3501 section 6.4.4, RFC 4731 (ESEARCH), RFC 7162 section 3.1.5 (MODSEQ).

use std::ops::{Range, RangeInclusive};

use chrono::{NaiveDate, NaiveTime};
use mail_parser::parsers::MessageStream;

use super::command::CommandError;
use super::cursor::{Cursor, SyntaxError};
use super::set::Set;
use super::write;
use crate::pop_imap::store::{Flags, Row, View, Where};

/// Keys within keys within keys; mail programs chain ORs as deep as a dialog has lines.
const DEPTH_MAX: usize = 100;

/// One SEARCH or UID SEARCH.
#[derive(Debug, PartialEq, Eq)]
pub struct SearchRequest {
    pub uid: bool,
    /// RFC 4731; none: the plain SEARCH answer.
    pub results: Option<Results>,
    pub key: Key,
}

/// RETURN (…).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Results {
    pub min: bool,
    pub max: bool,
    pub all: bool,
    pub count: bool,
}

/// A search key.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    All,
    And(Vec<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Numbers(Set),
    Uids(Set),
    /// The system flag is set.
    Flag(Flags),
    Keyword(String),
    /// `\Recent` is never set in fife.
    Recent,
    Larger(u32),
    Smaller(u32),
    Before(NaiveDate),
    On(NaiveDate),
    Since(NaiveDate),
    SentBefore(NaiveDate),
    SentOn(NaiveDate),
    SentSince(NaiveDate),
    /// Field name and text.
    Header(String, String),
    Body(String),
    Text(String),
    ModSeq(u64),
}

impl SearchRequest {
    /// Parses what follows SEARCH and its space.
    pub(super) fn parse(mut cursor: Cursor<'_>, uid: bool) -> Result<Self, CommandError> {
        let results = if cursor.skip("RETURN (") { Some(parse_results(&mut cursor)?) } else { None };
        if results.is_some() {
            cursor.expect(" ")?;
        }
        if cursor.skip("CHARSET ") {
            let charset = cursor.astring()?;
            // US-ASCII is a part of UTF-8. RFC 3501 section 6.4.4: any other may be refused.
            if !charset.eq_ignore_ascii_case(b"UTF-8") && !charset.eq_ignore_ascii_case(b"US-ASCII") {
                return Err(CommandError::Charset);
            }
            cursor.expect(" ")?;
        }
        let mut keys = vec![parse_key(&mut cursor, 0)?];
        while cursor.peek() == Some(b' ') && cursor.clone().end().is_err() {
            cursor.skip(" ");
            keys.push(parse_key(&mut cursor, 0)?);
        }
        cursor.end()?;
        Ok(Self { uid, results, key: all_of(keys) })
    }
}

/// Behind "RETURN (".
fn parse_results(cursor: &mut Cursor<'_>) -> Result<Results, CommandError> {
    let mut results = Results::default();
    while !cursor.skip(")") {
        match cursor.atom()?.to_ascii_uppercase().as_slice() {
            b"MIN" => results.min = true,
            b"MAX" => results.max = true,
            b"ALL" => results.all = true,
            b"COUNT" => results.count = true,
            _ => return Err(CommandError::Unsupported),
        }
        cursor.skip(" ");
    }
    // RFC 4731 section 3.1: an empty list means ALL.
    results.all |= results == Results::default();
    Ok(results)
}

/// A conjunction, what is cheap to decide first: the order of keys has no meaning (RFC 3501 section 6.4.4).
fn all_of(mut keys: Vec<Key>) -> Key {
    keys.sort_by_key(Key::cost);
    if keys.len() == 1 { keys.pop().unwrap_or(Key::All) } else { Key::And(keys) }
}

fn parse_key(cursor: &mut Cursor<'_>, depth: usize) -> Result<Key, CommandError> {
    if depth > DEPTH_MAX {
        return Err(CommandError::Unsupported);
    }
    if cursor.skip("(") {
        let mut keys = vec![parse_key(cursor, depth + 1)?];
        while !cursor.skip(")") {
            cursor.expect(" ")?;
            keys.push(parse_key(cursor, depth + 1)?);
        }
        return Ok(all_of(keys));
    }
    if cursor.peek().is_some_and(|byte| byte.is_ascii_digit() || byte == b'*') {
        return Ok(Key::Numbers(parse_set(cursor)?));
    }
    let word = cursor.atom()?.to_ascii_uppercase();
    if let Some(key) = flag_key(&word) {
        return Ok(key);
    }
    cursor.expect(" ")?;
    Ok(match word.as_slice() {
        b"NOT" => Key::Not(Box::new(parse_key(cursor, depth + 1)?)),
        b"OR" => {
            let first = parse_key(cursor, depth + 1)?;
            cursor.expect(" ")?;
            Key::Or(Box::new(first), Box::new(parse_key(cursor, depth + 1)?))
        }
        b"UID" => Key::Uids(parse_set(cursor)?),
        b"KEYWORD" => Key::Keyword(parse_keyword(cursor)?),
        b"UNKEYWORD" => Key::Not(Box::new(Key::Keyword(parse_keyword(cursor)?))),
        b"LARGER" => Key::Larger(cursor.number32()?),
        b"SMALLER" => Key::Smaller(cursor.number32()?),
        b"BEFORE" => Key::Before(parse_date(cursor)?),
        b"ON" => Key::On(parse_date(cursor)?),
        b"SINCE" => Key::Since(parse_date(cursor)?),
        b"SENTBEFORE" => Key::SentBefore(parse_date(cursor)?),
        b"SENTON" => Key::SentOn(parse_date(cursor)?),
        b"SENTSINCE" => Key::SentSince(parse_date(cursor)?),
        b"BCC" | b"CC" | b"FROM" | b"SUBJECT" | b"TO" => Key::Header(lossy(&word), parse_needle(cursor)?),
        b"HEADER" => {
            let name = lossy(&cursor.astring()?);
            cursor.expect(" ")?;
            Key::Header(name, parse_needle(cursor)?)
        }
        b"BODY" => Key::Body(parse_needle(cursor)?),
        b"TEXT" => Key::Text(parse_needle(cursor)?),
        b"MODSEQ" => Key::ModSeq(parse_modseq(cursor)?),
        _ => return Err(CommandError::Syntax),
    })
}

/// Keys of one word.
fn flag_key(word: &[u8]) -> Option<Key> {
    let not = |key: Key| Key::Not(Box::new(key));
    Some(match word {
        b"ALL" => Key::All,
        b"ANSWERED" => Key::Flag(Flags::ANSWERED),
        b"DELETED" => Key::Flag(Flags::DELETED),
        b"DRAFT" => Key::Flag(Flags::DRAFT),
        b"FLAGGED" => Key::Flag(Flags::FLAGGED),
        b"SEEN" => Key::Flag(Flags::SEEN),
        b"UNANSWERED" => not(Key::Flag(Flags::ANSWERED)),
        b"UNDELETED" => not(Key::Flag(Flags::DELETED)),
        b"UNDRAFT" => not(Key::Flag(Flags::DRAFT)),
        b"UNFLAGGED" => not(Key::Flag(Flags::FLAGGED)),
        b"UNSEEN" => not(Key::Flag(Flags::SEEN)),
        // NEW is RECENT UNSEEN, and nothing is recent.
        b"RECENT" | b"NEW" => Key::Recent,
        b"OLD" => not(Key::Recent),
        _ => return None,
    })
}

fn parse_set(cursor: &mut Cursor<'_>) -> Result<Set, SyntaxError> {
    let text = cursor.word(|byte| byte.is_ascii_digit() || matches!(byte, b'*' | b':' | b','))?;
    Set::parse(text).ok_or(SyntaxError)
}

fn parse_keyword(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    cursor.atom().map(lossy)
}

fn parse_needle(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    cursor.astring().map(|text| lossy(&text))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `1-Feb-1994`, quoted or not.
fn parse_date(cursor: &mut Cursor<'_>) -> Result<NaiveDate, SyntaxError> {
    let quoted = cursor.skip("\"");
    let text = cursor.word(|byte| byte.is_ascii_alphanumeric() || byte == b'-')?;
    if quoted {
        cursor.expect("\"")?;
    }
    let text = std::str::from_utf8(text).map_err(|_| SyntaxError)?;
    NaiveDate::parse_from_str(text, "%d-%b-%Y").map_err(|_| SyntaxError)
}

/// `620162338`, or `"/flags/\\draft" all 620162338`: per-flag modseqs are not kept, the message's is used (RFC 7162 section 3.1.5).
fn parse_modseq(cursor: &mut Cursor<'_>) -> Result<u64, SyntaxError> {
    if cursor.peek() == Some(b'"') {
        cursor.astring()?;
        cursor.expect(" ")?;
        if !(cursor.skip("all ") || cursor.skip("priv ") || cursor.skip("shared ")) {
            return Err(SyntaxError);
        }
    }
    cursor.number()
}

impl Key {
    /// What it takes to decide: nothing but the row, the header, or the body.
    #[must_use]
    pub fn cost(&self) -> Cost {
        match self {
            Self::And(keys) => keys.iter().map(Self::cost).max().unwrap_or(Cost::Row),
            Self::Or(first, second) => first.cost().max(second.cost()),
            Self::Not(key) => key.cost(),
            Self::SentBefore(_) | Self::SentOn(_) | Self::SentSince(_) | Self::Header(..) => Cost::Header,
            Self::Body(_) | Self::Text(_) => Cost::Body,
            Self::All
            | Self::Numbers(_)
            | Self::Uids(_)
            | Self::Flag(_)
            | Self::Keyword(_)
            | Self::Recent
            | Self::Larger(_)
            | Self::Smaller(_)
            | Self::Before(_)
            | Self::On(_)
            | Self::Since(_)
            | Self::ModSeq(_) => Cost::Row,
        }
    }

    /// Whether MODSEQ is asked for: the answer then tells the highest (RFC 7162 section 3.1.5).
    #[must_use]
    pub fn names_modseq(&self) -> bool {
        match self {
            Self::And(keys) => keys.iter().any(Self::names_modseq),
            Self::Or(first, second) => first.names_modseq() || second.names_modseq(),
            Self::Not(key) => key.names_modseq(),
            Self::ModSeq(_) => true,
            Self::All
            | Self::Numbers(_)
            | Self::Uids(_)
            | Self::Flag(_)
            | Self::Keyword(_)
            | Self::Recent
            | Self::Larger(_)
            | Self::Smaller(_)
            | Self::Before(_)
            | Self::On(_)
            | Self::Since(_)
            | Self::SentBefore(_)
            | Self::SentOn(_)
            | Self::SentSince(_)
            | Self::Header(..)
            | Self::Body(_)
            | Self::Text(_) => false,
        }
    }
}

/// How much of a message a key needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    Row,
    Header,
    Body,
}

/// A key made ready for one view: sets are positions, keywords are bits, dates are days since 1970.
#[derive(Debug)]
pub(super) enum Matcher {
    Constant(bool),
    And(Vec<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Positions(Vec<Range<usize>>),
    Flag(Flags),
    Size(RangeInclusive<u32>),
    /// Of the internal date.
    Day(Range<i64>),
    ModSeq(u64),
    /// Of the Date field: needs the envelope.
    SentDay(Range<i64>),
    /// Needs the content.
    Content(String, Where),
}

const DAY_SECS: i64 = 86_400;

impl Matcher {
    /// Makes the key ready; positions are those of the view.
    pub(super) fn new(key: Key, view: &View) -> Self {
        match key {
            Key::All => Self::Constant(true),
            Key::Recent => Self::Constant(false),
            Key::And(keys) => Self::And(keys.into_iter().map(|key| Self::new(key, view)).collect()),
            Key::Or(first, second) => Self::Or(Box::new(Self::new(*first, view)), Box::new(Self::new(*second, view))),
            Key::Not(key) => Self::Not(Box::new(Self::new(*key, view))),
            Key::Numbers(set) => Self::Positions(set.positions(view, false)),
            Key::Uids(set) => Self::Positions(set.positions(view, true)),
            Key::Flag(flag) => Self::Flag(flag),
            Key::Keyword(name) => {
                let index = view.keywords.iter().position(|keyword| keyword.eq_ignore_ascii_case(&name));
                index.map_or(Self::Constant(false), |index| Self::Flag(Flags::keyword(index)))
            }
            Key::Larger(size) => size.checked_add(1).map_or(Self::Constant(false), |from| Self::Size(from..=u32::MAX)),
            Key::Smaller(size) => size.checked_sub(1).map_or(Self::Constant(false), |to| Self::Size(0..=to)),
            Key::Before(date) => Self::Day(i64::MIN..day(date)),
            Key::On(date) => Self::Day(day(date)..day(date) + 1),
            Key::Since(date) => Self::Day(day(date)..i64::MAX),
            Key::SentBefore(date) => Self::SentDay(i64::MIN..day(date)),
            Key::SentOn(date) => Self::SentDay(day(date)..day(date) + 1),
            Key::SentSince(date) => Self::SentDay(day(date)..i64::MAX),
            Key::Header(name, needle) => Self::Content(needle, Where::Header(name)),
            Key::Body(needle) => Self::Content(needle, Where::Body),
            Key::Text(needle) => Self::Content(needle, Where::Text),
            Key::ModSeq(modseq) => Self::ModSeq(modseq),
        }
    }

    /// Whether the message at `position` is what is searched; `None` when its row does not tell.
    pub(super) fn verdict(&self, position: usize, row: &Row) -> Option<bool> {
        match self {
            Self::Constant(verdict) => Some(*verdict),
            Self::And(all) => {
                let mut known = true;
                for key in all {
                    match key.verdict(position, row) {
                        Some(false) => return Some(false),
                        Some(true) => {}
                        None => known = false,
                    }
                }
                known.then_some(true)
            }
            Self::Or(first, second) => match (first.verdict(position, row), second.verdict(position, row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                (None, _) | (_, None) => None,
            },
            Self::Not(key) => key.verdict(position, row).map(|verdict| !verdict),
            Self::Positions(ranges) => Some(Set::contains(ranges, position)),
            Self::Flag(flag) => Some(row.flags.contains(*flag)),
            Self::Size(range) => Some(range.contains(&row.size)),
            // RFC 3501 section 6.4.4: time and zone are disregarded; the days are those of UTC.
            Self::Day(days) => Some(days.contains(&row.internal_date.div_euclid(DAY_SECS))),
            Self::ModSeq(modseq) => Some(row.modseq >= *modseq),
            Self::SentDay(_) | Self::Content(..) => None,
        }
    }
}

fn day(date: NaiveDate) -> i64 {
    date.and_time(NaiveTime::MIN).and_utc().timestamp().div_euclid(DAY_SECS)
}

/// The day of a Date field, in the zone that it names: the date as written (RFC 3501 section 6.4.4, SENTON).
pub fn sent_day(field: &[u8]) -> Option<i64> {
    let mut line = field.to_vec();
    // The parser of dates stops at a line end.
    line.push(b'\n');
    let date = MessageStream::new(&line).parse_date().into_datetime()?;
    NaiveDate::from_ymd_opt(i32::from(date.year), u32::from(date.month), u32::from(date.day)).map(day)
}

/// What was found, in ascending order; numbers or UIDs as asked for.
pub(super) fn write_answer(
    out: &mut Vec<u8>,
    tag: &[u8],
    uid: bool,
    results: Option<Results>,
    found: &[u32],
    highest_modseq: Option<u64>,
) {
    let Some(results) = results else {
        out.extend_from_slice(b"* SEARCH");
        for &number in found {
            out.push(b' ');
            write::number(out, u64::from(number));
        }
        if let Some(modseq) = highest_modseq.filter(|_| !found.is_empty()) {
            write::text(out, format_args!(" (MODSEQ {modseq})"));
        }
        out.extend_from_slice(b"\r\n");
        return;
    };
    out.extend_from_slice(b"* ESEARCH (TAG ");
    write::string(out, tag);
    out.push(b')');
    if uid {
        out.extend_from_slice(b" UID");
    }
    // RFC 4731 section 3.1: MIN, MAX and ALL are left out when nothing was found.
    if let (Some(min), Some(max)) = (found.first(), found.last()) {
        if results.min {
            write::text(out, format_args!(" MIN {min}"));
        }
        if results.max {
            write::text(out, format_args!(" MAX {max}"));
        }
        if results.all {
            out.extend_from_slice(b" ALL ");
            write::set(out, found.iter().copied());
        }
    }
    if results.count {
        write::text(out, format_args!(" COUNT {}", found.len()));
    }
    if let Some(modseq) = highest_modseq.filter(|_| !found.is_empty()) {
        write::text(out, format_args!(" MODSEQ {modseq}"));
    }
    out.extend_from_slice(b"\r\n");
}
