//! The table and the curves, on the terminal and in docs/performance.md.
//!
//! Owns: how figures are shown. Called by: `main`. Never: leaves out a row in which fife is behind.

use std::fmt::Write as _;
use std::path::Path;

use crate::profile::Cost;
use crate::rows::growth::Point;
use crate::rows::{Board, ROWS, Row, float};
use crate::server::Kind;
use crate::{Failure, Sizes};

/// Characters of the longest bar.
const BAR_MAX: f64 = 40.0;

/// Everything there is to tell.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) sizes: Sizes,
    pub(crate) board: Board,
    pub(crate) by_messages: Vec<Point>,
    pub(crate) by_accounts: Vec<Point>,
    pub(crate) costs: Vec<(&'static str, Vec<Cost>)>,
    pub(crate) minutes: f64,
}

impl Report {
    /// The page.
    pub(crate) fn markdown(&self) -> Result<String, Failure> {
        let mut page = String::from(
            "# Performance\n\n(Written by `cargo bench --bench scoreboard`; nothing here is edited by hand.)\n\n\
             fife beside Debian's Postfix and Dovecot on the same machine, driven by the same client over loopback. Every\n\
             250 of every server is durable: nobody's fsyncs are turned off. What the client costs is not counted, but it\n\
             runs on the same cores. CPU is that of all processes of a server, children included; fsyncs are the system\n\
             calls fsync and fdatasync as the kernel counts them.\n\n## The machine\n\n| | |\n|---|---|\n",
        );
        for (name, value) in &self.facts {
            writeln!(page, "| {name} | {value} |")?;
        }
        writeln!(page, "| the run took | {:.0} minutes |", self.minutes)?;
        write!(page, "\n## The table\n\n{}\n{}", self.table()?, self.sizes.explain())?;
        if !self.board.failures.is_empty() {
            page.push_str("\nRows that failed:\n\n");
            for failure in &self.board.failures {
                writeln!(page, "- {}", failure.replace('\n', " "))?;
            }
        }
        page.push_str("\n## What it costs when there is more\n\n");
        page.push_str(
            "Deliveries of 10 KB by 20 connections to 100 mailboxes, SELECT of a mailbox of 1,000 messages; what grows\n\
             lies in other mailboxes. Flat is good.\n",
        );
        page.push_str(&curves("messages in the store", &self.by_messages)?);
        page.push_str(&curves("accounts", &self.by_accounts)?);
        page.push_str(&self.where_time_goes()?);
        Ok(page)
    }

    /// One line for each row.
    pub(crate) fn table(&self) -> Result<String, Failure> {
        let mut lines = vec![
            [
                "",
                "unit",
                "fife",
                "Postfix + Dovecot maildir",
                "Postfix + Dovecot sdbox",
                "fife / best peer",
                "promised",
                "",
            ]
            .map(str::to_owned),
        ];
        for row in ROWS {
            lines.push(self.line(row));
        }
        let widths: Vec<usize> = (0..8)
            .map(|column| {
                lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for (nth, line) in lines.iter().enumerate() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let left = !(2..=5).contains(&column);
                if left { write!(text, "| {cell:<width$} ")? } else { write!(text, "| {cell:>width$} ")? }
            }
            text.push_str("|\n");
            if nth == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let end = if (2..=5).contains(&column) { ":" } else { "-" };
                    write!(text, "|{}{end}", "-".repeat(width + 1))?;
                }
                text.push_str("|\n");
            }
        }
        Ok(text)
    }

    fn line(&self, row: &Row) -> [String; 8] {
        let [fife, maildir, sdbox] = Kind::ALL.map(|kind| self.board.get(row, kind));
        let best = [maildir, sdbox].into_iter().flatten().reduce(|a, b| if row.more { a.max(b) } else { a.min(b) });
        let ahead = fife.zip(best).map(|(fife, best)| if row.more { fife / best } else { best / fife });
        let mut promised = match row.ahead {
            0.0 => String::new(),
            1.0 => "ahead".to_owned(),
            factor if row.more => format!("at least {factor:.0} times"),
            factor => format!("at most 1/{factor:.0}"),
        };
        if let Some(own) = row.own {
            write!(promised, ", at most {own} {}", row.unit).ok();
        }
        let own = row.own.zip(fife).map(|(limit, fife)| if row.more { fife >= limit } else { fife <= limit });
        let verdict = match (ahead, own) {
            (None, _) => "",
            (Some(ahead), _) if ahead < 1.0 => "**behind**",
            (Some(ahead), own) if ahead < row.ahead || own == Some(false) => "ahead, less than promised",
            (Some(_), _) => "holds",
        };
        let ratio = fife.zip(best).map_or("-".to_owned(), |(fife, best)| figure(fife / best));
        let cell = |value: Option<f64>| value.map_or("-".to_owned(), figure);
        [
            row.title.to_owned(),
            row.unit.to_owned(),
            cell(fife),
            cell(maildir),
            cell(sdbox),
            ratio,
            promised.trim_end().to_owned(),
            verdict.to_owned(),
        ]
    }

    fn where_time_goes(&self) -> Result<String, Failure> {
        let mut text = String::from(
            "\n## Where fife's time goes\n\nThe three largest costs of each path: `perf record -e cpu-clock` on all of fife's processes, functions sorted by\n\
             what they are for. In percent of the path's CPU time.\n",
        );
        if self.costs.is_empty() {
            text.push_str("\nNot recorded in this run.\n");
        }
        for (path, costs) in &self.costs {
            writeln!(text, "\n### {path}\n\n| cost | % | largest functions |\n|---|--:|---|")?;
            for cost in costs {
                let functions: Vec<String> = cost
                    .functions
                    .iter()
                    .map(|(name, percent)| format!("`{}` {percent:.1}", name.replace('|', "/")))
                    .collect();
                writeln!(text, "| {} | {:.0} | {} |", cost.name, cost.percent, functions.join(", "))?;
            }
        }
        Ok(text)
    }

    /// Writes the page where it belongs.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        std::fs::write(path, self.markdown()?)?;
        println!("written: {}", path.display());
        Ok(())
    }
}

/// Table and bars of what grows with `size`.
fn curves(size: &str, points: &[Point]) -> Result<String, Failure> {
    let mut text = format!("\n### By {size}\n\n");
    if points.is_empty() {
        text.push_str("Not measured in this run.\n");
        return Ok(text);
    }
    writeln!(
        text,
        "| {size} | | delivered/s | CPU a message, ms | SELECT cold, ms | SELECT warm, ms |\n|--:|---|--:|--:|--:|--:|"
    )?;
    for point in points {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            thousands(float(point.size)),
            point.kind,
            figure(point.delivered),
            figure(point.cpu_millis),
            figure(point.select_cold_millis),
            figure(point.select_warm_millis)
        )?;
    }
    type Value = fn(&Point) -> f64;
    let shown: [(&str, Value); 3] = [
        ("delivered/s", |point| point.delivered),
        ("CPU a message, ms", |point| point.cpu_millis),
        ("SELECT cold, ms", |point| point.select_cold_millis),
    ];
    text.push_str("\n```text\n");
    for (title, value) in shown {
        let most = points.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
        writeln!(text, "{title}")?;
        for point in points {
            let length = (value(point) / most * BAR_MAX).round();
            let bar: String = (0..40).take_while(|nth| f64::from(*nth) < length).map(|_| '#').collect();
            writeln!(
                text,
                "  {:<25} {:>9} {bar:<40} {}",
                point.kind.to_string(),
                thousands(float(point.size)),
                figure(value(point))
            )?;
        }
    }
    text.push_str("```\n");
    Ok(text)
}

/// Three digits that count, and commas.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => thousands(value),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value if value >= 0.01 => format!("{value:.3}"),
        value => format!("{value:.4}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
