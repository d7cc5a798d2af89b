//! What is wrong with a configuration, said to the person who wrote it.
//!
//! Owns: `Fault`, `Faults`, how they are printed. Called by: all of `config`; commands and the supervisor print them.
//! Never: shows a secret; the text that is shown has been through `mask`.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// How like a known name a misspelt one must be to be taken for it (0 to 1).
const NEAR_MIN: f64 = 0.75;

/// Where a fault lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file, at these bytes.
    File(Range<usize>),
    /// In this environment variable.
    Environment(String),
    /// In the machine: the file as a whole, or a file that it names.
    Machine(PathBuf),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What was expected at the place.
    pub expected: Option<String>,
    /// What to do about it; the nearest known name.
    pub help: Option<String>,
}

impl Fault {
    /// A fault of which no more than this is known.
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), expected: None, help: None }
    }

    /// With what was expected at the place.
    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// With what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With the nearest of the known names, when one is near.
    pub(crate) fn nearest<'a>(self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(name, known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// The nearest of the known names, when one is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase().replace('_', "-");
    let near = |known: &'a str| (likeness(&name, &known.to_lowercase()), known);
    let best = known.into_iter().map(near).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= NEAR_MIN).then_some(best.1)
}

/// How like two names are, 0 to 1: as Jaro-Winkler has it, but one slip of the finger is always near, two in a longer name.
fn likeness(name: &str, known: &str) -> f64 {
    let slips = match strsim::damerau_levenshtein(name, known) {
        0 => 1.0,
        1 => 0.9,
        2 if known.len() > 4 => 0.8,
        _ => 0.0,
    };
    strsim::jaro_winkler(name, known).max(slips)
}

/// Everything that is wrong with a configuration; at least one fault.
#[derive(Clone, PartialEq, Eq)]
pub struct Faults {
    path: PathBuf,
    /// The file's text, secrets masked.
    source: String,
    list: Vec<Fault>,
}

impl Faults {
    /// Faults of the file at `path` with the masked text `source`, put in the order in which they stand there.
    pub(crate) fn new(path: &Path, source: String, mut list: Vec<Fault>) -> Self {
        list.sort_by_key(|fault| match &fault.place {
            Place::Machine(_) => (0, 0),
            Place::File(span) => (1, span.start),
            Place::Environment(_) => (2, 0),
        });
        list.dedup();
        Self { path: path.to_owned(), source, list }
    }

    /// The faults, in the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// All faults as text: file, line, column, the line itself, what was expected. `color` is for terminals.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for fault in &self.list {
            out.push_str(&self.render_fault(&renderer, fault));
            out.push_str("\n\n");
        }
        let count = self.list.len();
        out.push_str(&format!("{}: {count} {}", self.path.display(), if count == 1 { "fault" } else { "faults" }));
        out
    }

    fn render_fault(&self, renderer: &Renderer, fault: &Fault) -> String {
        let path = self.path.display().to_string();
        let label = fault.expected.as_deref().map(|expected| format!("expected {expected}"));
        let title = match &fault.place {
            Place::File(_) => fault.message.clone(),
            Place::Environment(name) => format!("environment variable {name}: {}", fault.message),
            Place::Machine(at) => format!("{}: {}", at.display(), fault.message),
        };
        let mut group = match &fault.place {
            Place::File(span) => {
                let mark = AnnotationKind::Primary.span(self.mark(span)).label(label);
                let snippet = Snippet::source(self.source.as_str()).path(path).annotation(mark);
                Level::ERROR.primary_title(title).element(snippet)
            }
            Place::Environment(_) | Place::Machine(_) => {
                let group = annotate_snippets::Group::with_title(Level::ERROR.primary_title(title));
                match label {
                    Some(label) => group.element(Level::NOTE.message(label)),
                    None => group,
                }
            }
        };
        if let Some(help) = &fault.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// The span cut to one line inside the text and to whole characters, so that it can be drawn.
    fn mark(&self, span: &Range<usize>) -> Range<usize> {
        let floor = |at: usize| self.source.floor_char_boundary(at.min(self.source.len()));
        let start = floor(span.start);
        let rest = self.source.get(start..).unwrap_or_default();
        let line = rest.find('\n').unwrap_or(rest.len());
        start..floor(span.end.min(start + line)).max(start)
    }

    /// Line and column (in characters) of a place in the file, both from 1.
    fn position(&self, span: &Range<usize>) -> (usize, usize) {
        position(&self.source, span.start)
    }

    /// The faults as data, for `--json`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let entry = |fault: &Fault| {
            let (mut line, mut column, mut text, mut environment) = (None, None, None, None);
            let mut path = Some(self.path.clone());
            match &fault.place {
                Place::File(span) => {
                    let at = self.position(span);
                    (line, column) = (Some(at.0), Some(at.1));
                    text = self.source.lines().nth(at.0 - 1).map(str::to_owned);
                }
                Place::Environment(name) => (path, environment) = (None, Some(name.clone())),
                Place::Machine(at) => path = Some(at.clone()),
            }
            let Fault { message, expected, help, .. } = fault.clone();
            FaultFacts { path, line, column, text, environment, message, expected, help }
        };
        serde_json::json!({ "faults": self.list.iter().map(entry).collect::<Vec<_>>() })
    }
}

/// A fault as `--json` tells it.
#[derive(Serialize)]
struct FaultFacts {
    path: Option<PathBuf>,
    line: Option<usize>,
    column: Option<usize>,
    text: Option<String>,
    environment: Option<String>,
    message: String,
    expected: Option<String>,
    help: Option<String>,
}

/// Line and column (in characters) of the byte at `offset`, both from 1.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..text.floor_char_boundary(offset.min(text.len()))).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Faults {}
