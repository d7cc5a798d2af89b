//! Is everything there that was stored?
//!
//! Owns: the check of a whole store: ledger, view, every message of every mailbox. Called by: `fife store check` and its
//! like, tests. Never: repairs anything, stops at the first fault.

use rusqlite::Connection;

use super::error::StoreError;
use super::read::Reading;
use super::record;
use super::roll;
use super::tables::{from_sql, from_sql32};
use super::{MailboxId, Store};
use crate::ledger::{Position, Report};

/// Faults that are told one by one; more are only counted.
const FAULTS_MAX: usize = 1_000;

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// What the ledger says of itself.
    pub ledger: Report,
    /// Messages in mailboxes.
    pub messages: u64,
    /// Mailboxes that have a roll.
    pub rolls: u64,
    /// Messages whose bytes were read.
    pub contents: u64,
    /// What is wrong with the view or with messages; empty when all is well.
    pub faults: Vec<String>,
}

impl CheckReport {
    /// Whether all is well.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.ledger.faults.is_empty() && self.faults.is_empty()
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

impl Store {
    /// Checks everything while the store is in use: the ledger's records, the view's consistency, and that every message
    /// of every mailbox can be read and has the size that its mailbox says. Blocks for as long as reading all takes.
    ///
    /// # Errors
    /// When the disk cannot be read. Damage is no error but part of the report.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        let reading = self.reading();
        let mut report = CheckReport { ledger: reading.ledger.check()?, ..CheckReport::default() };
        check_view(&reading, &mut report)?;
        check_contents(&reading, &mut report)?;
        Ok(report)
    }
}

fn check_view(reading: &Reading, report: &mut CheckReport) -> Result<(), StoreError> {
    reading.readers.read(|sql| {
        let mut pragma = sql.prepare("PRAGMA integrity_check")?;
        let mut rows = pragma.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            if text != "ok" {
                report.fault(format!("view: {text}"));
            }
        }
        let questions = [
            ("message without mailbox", "SELECT count(*) FROM message WHERE mailbox NOT IN (SELECT id FROM mailbox)"),
            ("message without content", "SELECT count(*) FROM message WHERE content NOT IN (SELECT id FROM content)"),
            ("content without message", "SELECT count(*) FROM content c WHERE NOT EXISTS (SELECT 1 FROM message m WHERE m.content = c.id)"),
            ("trace without message", "SELECT count(*) FROM trace t WHERE NOT EXISTS (SELECT 1 FROM message m WHERE m.mailbox = t.mailbox AND m.uid = t.uid)"),
            ("two mailboxes of one name", "SELECT count(*) - count(DISTINCT hex(account) || name) FROM mailbox"),
            (
                "counter of a mailbox",
                "SELECT count(*) FROM mailbox b WHERE \
                 messages <> (SELECT count(*) FROM message m WHERE m.mailbox = b.id) \
                 OR unseen <> (SELECT count(*) FROM message m WHERE m.mailbox = b.id AND flags & 1 = 0) \
                 OR deleted <> (SELECT count(*) FROM message m WHERE m.mailbox = b.id AND flags & 8 <> 0) \
                 OR bytes <> (SELECT coalesce(sum(size), 0) FROM message m WHERE m.mailbox = b.id) \
                 OR uid_next <= (SELECT coalesce(max(uid), 0) FROM message m WHERE m.mailbox = b.id)",
            ),
            (
                "live bytes of a segment",
                "SELECT count(*) FROM segment s WHERE \
                 live <> (SELECT coalesce(sum(size), 0) FROM content c WHERE c.segment = s.id)",
            ),
        ];
        for (what, question) in questions {
            let wrong: i64 = sql.query_row(question, [], |row| row.get(0))?;
            if wrong != 0 {
                report.fault(format!("view: {what}: {wrong}"));
            }
        }
        check_rolls(sql, report)?;
        report.messages = from_sql(sql.query_row("SELECT count(*) FROM message", [], |row| row.get(0))?);
        Ok(())
    })
}

/// By means of its roll, a mailbox is what its rows are.
fn check_rolls(sql: &Connection, report: &mut CheckReport) -> Result<(), StoreError> {
    let mut select = sql.prepare("SELECT mailbox FROM roll")?;
    let mailboxes = select.query_map([], |row| Ok(MailboxId(from_sql(row.get(0)?))))?;
    for mailbox in mailboxes.collect::<rusqlite::Result<Vec<_>>>()? {
        report.rolls += 1;
        let rows = roll::read_rows(sql, mailbox, 0)?;
        let same = roll::read_with_roll(sql, mailbox)?.is_some_and(|(rolled, _)| rolled.iter().eq(rows.iter()));
        if !same {
            report.fault(format!("view: roll of mailbox {}", mailbox.0));
        }
    }
    Ok(())
}

fn check_contents(reading: &Reading, report: &mut CheckReport) -> Result<(), StoreError> {
    let mut last = 0;
    loop {
        // A few at a time: a long transaction would keep SQLite's log from beginning anew.
        let some = reading.readers.read(|sql| {
            let mut select = sql
                .prepare_cached("SELECT id, segment, offset, size FROM content WHERE id > ?1 ORDER BY id LIMIT 1000")?;
            let rows = select.query_map([last], |row| {
                let position = Position { segment: from_sql(row.get(1)?), offset: from_sql(row.get(2)?) };
                Ok((row.get::<_, i64>(0)?, position, from_sql32(row.get(3)?)))
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let Some((id, _, _)) = some.last() else { return Ok(()) };
        last = *id;
        for (id, position, size) in some {
            report.contents += 1;
            let read = reading.ledger.read(position).map_err(StoreError::from);
            let message = read.and_then(|entry| Ok(record::read_message(&entry.payload)?));
            match message {
                Ok((found, bytes)) if found.0 == from_sql(id) && u32::try_from(bytes.len()).ok() == Some(size) => {}
                Ok(_) => report.fault(format!("message {id} at {position}: another one stands there")),
                // Compaction or expunge may have come in between.
                Err(_) if moved(reading, id, position)? => {}
                Err(error) => report.fault(format!("message {id} at {position}: {error}")),
            }
        }
    }
}

fn moved(reading: &Reading, id: i64, position: Position) -> Result<bool, StoreError> {
    reading.readers.read(|sql| {
        let mut select = sql.prepare_cached("SELECT 1 FROM content WHERE id = ?1 AND segment = ?2 AND offset = ?3")?;
        let place = (id, super::tables::to_sql(position.segment), super::tables::to_sql(position.offset));
        Ok(!select.exists(place)?)
    })
}
