//! Log lines: logfmt text for people, JSON for machines.
//!
//! Owns: the form of a line, where lines go, what a panic leaves in the log. Called by: `fife role`,
//! `fife run`, once. Never: writes what a panic message or a field above `VALUE_BYTES_MAX` might carry of a mail.
//!
//! A line: `time`, `level`, `role`, `host`, `msg` (what happened), then the event's fields, then those of the spans
//! around it (`session`, `peer`) that the event did not give itself. The field `message` is the id of a mail.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::base::clock;
use crate::config::log::{Format, Level as Threshold, Log};

/// Bytes of one value in a line, at most; the rest is cut off. What peers send ends in lines.
const VALUE_BYTES_MAX: usize = 1024;

/// The output and the filter of this process, for `change`.
static CURRENT: OnceLock<Changeable> = OnceLock::new();

struct Changeable {
    output: Arc<RwLock<Output>>,
    filter: reload::Handle<Targets, Registry>,
}

/// Sets up logging for this process. A second call changes nothing.
pub fn init(role: &'static str, host: &str, log: &Log, file: Option<File>) {
    let output = Arc::new(RwLock::new(Output::of(log, file)));
    let (filter, handle) = reload::Layer::new(filter(log));
    let lines = Lines { role, host: host.to_owned(), output: Arc::clone(&output) };
    if Registry::default().with(lines.with_filter(filter)).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            // A literal is ours. A formatted text may quote the data that the code stumbled over: kept out.
            let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(formatted)");
            error!(place, text, "panic");
        }));
        // Nobody else sets it: `try_init` lets only one through.
        CURRENT.set(Changeable { output, filter: handle }).ok();
    }
}

/// Makes lines follow other settings from now on. For the supervisor, which is not restarted when they change.
pub fn change(log: &Log, file: Option<File>) {
    if let Some(current) = CURRENT.get() {
        *current.output.write().unwrap_or_else(PoisonError::into_inner) = Output::of(log, file);
        if let Err(error) = current.filter.reload(filter(log)) {
            error!(%error, "the log level stays as it was");
        }
    }
}

fn filter(log: &Log) -> Targets {
    let level = match log.level {
        Threshold::Error => LevelFilter::ERROR,
        Threshold::Warn => LevelFilter::WARN,
        Threshold::Info => LevelFilter::INFO,
        Threshold::Debug => LevelFilter::DEBUG,
        Threshold::Trace => LevelFilter::TRACE,
    };
    // Libraries speak up only about trouble: their debug lines may carry what a peer sent.
    Targets::new().with_target("fife", level).with_default(level.min(LevelFilter::WARN))
}

struct Lines {
    role: &'static str,
    host: String,
    output: Arc<RwLock<Output>>,
}

/// Where lines go, and in which form.
struct Output {
    json: bool,
    /// None: standard error.
    file: Option<File>,
}

impl Output {
    fn of(log: &Log, file: Option<File>) -> Self {
        let json = match log.format {
            Format::Text => false,
            Format::Json => true,
            Format::Auto => file.is_some() || !io::stderr().is_terminal(),
        };
        Self { json, file }
    }

    fn write(&self, line: Fields) -> io::Result<()> {
        let mut bytes = if self.json { line.json() } else { line.logfmt() }.into_bytes();
        bytes.push(b'\n');
        match &self.file {
            Some(file) => (&*file).write_all(&bytes),
            None => io::stderr().write_all(&bytes),
        }
    }
}

/// Fields in the order in which they were given.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Fields::default();
        event.record(&mut own);
        let mut line = Fields(vec![
            ("time", humantime::format_rfc3339_millis(clock::wall()).to_string().into()),
            ("level", level_name(*event.metadata().level()).into()),
            ("role", self.role.into()),
            ("host", self.host.clone().into()),
        ]);
        line.0.extend(own.with_text_first());
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                for (key, value) in &fields.0 {
                    if !line.0.iter().any(|(known, _)| known == key) {
                        line.0.push((key, value.clone()));
                    }
                }
            }
        }
        // A log that cannot be written (disk full, terminal gone) must not stop the mail.
        drop(self.output.read().unwrap_or_else(PoisonError::into_inner).write(line));
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        self.0.push((field.name(), value));
    }

    /// tracing calls the text of an event "message", which here is the id of a mail: the text is renamed "msg". It is
    /// the first field of that name, put in front by tracing's macros.
    fn with_text_first(mut self) -> Vec<(&'static str, Value)> {
        if let Some(index) = self.0.iter().position(|(key, _)| *key == "message") {
            let (_, text) = self.0.remove(index);
            self.0.insert(0, ("msg", text));
        }
        self.0
    }

    fn json(self) -> String {
        let object: Map<String, Value> = self.0.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Value::Object(object).to_string()
    }

    fn logfmt(self) -> String {
        let mut line = String::new();
        for (key, value) in self.0 {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(key);
            line.push('=');
            match &value {
                Value::String(text) => push_logfmt(&mut line, text),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    line.push_str(&value.to_string());
                }
            }
        }
        line
    }
}

/// A value as it is when it is one plain word, in quotes otherwise.
fn push_logfmt(line: &mut String, text: &str) {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(plain) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => line.extend(['\\', char]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_control() => line.extend(control.escape_unicode()),
            other => line.push(other),
        }
    }
    line.push('"');
}

fn cut(mut text: String) -> Value {
    if text.len() > VALUE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(VALUE_BYTES_MAX));
        text.push('…');
    }
    Value::String(text)
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, cut(value.to_owned()));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, cut(value.to_string()));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, cut(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests;
