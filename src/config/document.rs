//! TOML text to values that know where they stand.
//!
//! Owns: `Node`, a value with the place of its key and of itself. Called by: `load`, `walk`, `layers`, `environment`.
//! Never: knows which keys there are.
//! Spec: TOML 1.0 (toml_edit's parser, which bounds nesting).

use std::ops::Range;

use figment::value::{Dict, Tag, Value as Plain};
use toml_edit::{Document, Item, TableLike, Value};

use super::fault::{Fault, Place};
use super::mask;

/// Syntax faults that are looked for in one file, at most: each costs a pass over it.
const SYNTAX_FAULTS_MAX: usize = 20;

/// Where something stands in the text: byte offsets.
pub(crate) type Span = Range<usize>;

/// A value, where it stands and where its key stands.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) key: Span,
    pub(crate) value: Span,
    pub(crate) content: Content,
}

/// What a node holds. Tables keep the order of the file.
#[derive(Clone)]
pub(crate) enum Content {
    Leaf(Plain),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Node {
    /// An empty table at the beginning of the file.
    pub(crate) fn empty() -> Self {
        Self { key: 0..0, value: 0..0, content: Content::Table(Vec::new()) }
    }

    /// The value of this key, when this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Whether this is a table.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.content, Content::Table(_))
    }

    /// What a table holds; nothing when this is no table.
    pub(crate) fn entries(&self) -> &[(String, Self)] {
        match &self.content {
            Content::Table(entries) => entries,
            Content::Leaf(_) | Content::List(_) => &[],
        }
    }

    /// The value without places.
    pub(crate) fn plain(&self) -> Plain {
        match &self.content {
            Content::Leaf(value) => value.clone(),
            Content::List(items) => Plain::Array(Tag::Default, items.iter().map(Self::plain).collect()),
            Content::Table(_) => Plain::Dict(Tag::Default, self.dict()),
        }
    }

    /// The table without places; empty when this is no table.
    pub(crate) fn dict(&self) -> Dict {
        self.entries().iter().map(|(name, node)| (name.clone(), node.plain())).collect()
    }
}

/// Parses the text. With syntax faults, the lines that hold them are left out of what is returned, as far
/// as the rest can be understood without them; `None` when it cannot.
pub(crate) fn parse(text: &str) -> (Option<Node>, Vec<Fault>) {
    let mut faults = Vec::new();
    let mut text = text.to_owned();
    loop {
        let error = match Document::parse(text.as_str()) {
            Ok(document) => return (Some(from_table(document.as_table(), 0..0, 0..0)), faults),
            Err(error) => error,
        };
        let mut span = error.span().unwrap_or(0..0);
        let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
        let mut broken = line_around(&text, span.start);
        // The parser tells where it noticed, which is the end of the file; the writer wants to know where it begins.
        let unclosed = message.starts_with("unclosed").then(|| unclosed(&text, span.start)).flatten();
        let can_go_on = match unclosed {
            Some(opened) => {
                broken = opened.clone();
                span = opened.start..opened.start + 1;
                true
            }
            None => is_whole_line(&text, &broken),
        };
        faults.push(Fault::new(Place::File(span), message));
        if faults.len() >= SYNTAX_FAULTS_MAX || !can_go_on {
            return (None, faults);
        }
        blank(&mut text, broken);
    }
}

/// The list or inline table that is not closed before the byte at `end`, from its bracket to where something new begins.
fn unclosed(text: &str, end: usize) -> Option<Span> {
    let mut open: Option<(usize, usize)> = None;
    let mut offset = 0;
    for line in text.get(..end)?.split_inclusive('\n') {
        let opens = line.matches(['[', '{']).count();
        let closes = line.matches([']', '}']).count();
        let value = line.split_once('=').map(|(key, value)| (key.len() + 1, value.trim_start()));
        match (open, value) {
            (None, Some((key, value))) if value.starts_with(['[', '{']) && opens > closes => {
                let bracket = line.get(key..).and_then(|rest| rest.find(['[', '{']))?;
                open = Some((offset + key + bracket, opens - closes));
            }
            (Some((at, depth)), _) => {
                open = Some((at, (depth + opens).saturating_sub(closes))).filter(|(_, depth)| *depth > 0);
            }
            (None, _) => {}
        }
        offset += line.len();
    }
    let (start, _) = open?;
    Some(start..start + mask::end_of_open(text.get(start..)?))
}

/// The line that holds the byte at `offset`, without its line end.
fn line_around(text: &str, offset: usize) -> Span {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let end = text.get(start..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| start + at);
    start..end
}

/// Whether a line is `key = value` by itself, so that the rest can be understood without it: no table header, no value
/// of several lines.
fn is_whole_line(text: &str, line: &Span) -> bool {
    let content = text.get(line.clone()).unwrap_or_default();
    let several = ["\"\"\"", "'''"].iter().any(|quotes| content.contains(quotes));
    let balanced = content.matches(['[', '{']).count() == content.matches([']', '}']).count();
    !content.trim_start().starts_with('[') && content.contains('=') && !several && balanced
}

/// Puts spaces in place of whole lines.
fn blank(text: &mut String, broken: Span) {
    let start = line_around(text, broken.start).start;
    if let Some(content) = text.get(start..broken.end) {
        let spaces: String = content.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
        text.replace_range(start..broken.end, &spaces);
    }
}

fn from_item(item: &Item, key: Span) -> Option<Node> {
    let value = item.span().unwrap_or_else(|| key.clone());
    match item {
        Item::None => None,
        Item::Value(inner) => Some(from_value(inner, key)),
        Item::Table(table) => Some(from_table(table, key, value)),
        Item::ArrayOfTables(tables) => {
            let items = tables.iter().map(|table| {
                let span = table.span().unwrap_or_else(|| value.clone());
                from_table(table, span.clone(), span)
            });
            Some(Node { key, value: value.clone(), content: Content::List(items.collect()) })
        }
    }
}

fn from_value(value: &Value, key: Span) -> Node {
    let span = value.span().unwrap_or_else(|| key.clone());
    let leaf = |plain: Plain| Content::Leaf(plain);
    let content = match value {
        Value::String(text) => leaf(text.value().as_str().into()),
        Value::Integer(number) => leaf((*number.value()).into()),
        Value::Float(number) => leaf((*number.value()).into()),
        Value::Boolean(flag) => leaf((*flag.value()).into()),
        Value::Datetime(time) => leaf(time.value().to_string().into()),
        Value::Array(array) => Content::List(array.iter().map(|item| from_value(item, key.clone())).collect()),
        Value::InlineTable(table) => return from_table(table, key, span),
    };
    Node { key, value: span, content }
}

fn from_table(table: &dyn TableLike, key: Span, value: Span) -> Node {
    let entries = table.iter().filter_map(|(name, item)| {
        let at = table.key(name).and_then(toml_edit::Key::span).unwrap_or(0..0);
        Some((name.to_owned(), from_item(item, at)?))
    });
    Node { key, value, content: Content::Table(entries.collect()) }
}
