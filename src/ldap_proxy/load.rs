//! The view made anew from the whole ledger: half a million entries in a few seconds.
//!
//! Owns: the groups in which records are brought in, what is known of earlier groups. Called by: `writer`, when the
//! view is empty. Never: is used on a view that somebody reads.
//!
//! Of the records of one entry in a group only the last counts. Rows of the index go in sorted, group by group; the
//! other indexes are made at the end. Until then the view calls itself unfinished: a crash costs a new beginning.

use std::collections::HashMap;

use super::entry::Entry;
use super::record::Record;
use super::view::{Changing, View, ViewError};
use crate::ledger::Position;

/// Records brought in together.
const GROUP: usize = 50_000;

pub(super) struct Loader<'a> {
    view: &'a mut View,
    /// Row of each entry that is in the view, by entryUUID.
    rows: HashMap<u128, i64>,
    /// What the group makes of each entry; none: gone.
    group: HashMap<u128, Option<Loaded>>,
    last: Option<Position>,
}

/// An entry of the group.
struct Loaded {
    entry: Entry,
    /// As in the record, which is as in the view.
    body: String,
    position: Position,
}

impl<'a> Loader<'a> {
    pub(super) fn begin(view: &'a mut View) -> Result<Self, ViewError> {
        view.begin_load()?;
        Ok(Self { view, rows: HashMap::new(), group: HashMap::new(), last: None })
    }

    /// Takes a record in, in the ledger's order.
    pub(super) fn take(&mut self, position: Position, kind: u8, payload: &[u8]) -> Result<(), ViewError> {
        match Record::parse(kind, payload)? {
            Record::Put(entry) => {
                let uuid = uuid_number(entry.text("entryUUID").unwrap_or_default())?;
                let body = String::from_utf8_lossy(payload).into_owned();
                self.group.insert(uuid, Some(Loaded { entry, body, position }));
            }
            Record::Delete(uuid) => drop(self.group.insert(uuid_number(&uuid)?, None)),
        }
        self.last = Some(position);
        if self.group.len() < GROUP { Ok(()) } else { self.bring_in() }
    }

    /// Brings in what is left; the view is then as any other.
    pub(super) fn finish(mut self) -> Result<(), ViewError> {
        self.bring_in()?;
        self.view.end_load()
    }

    fn bring_in(&mut self) -> Result<(), ViewError> {
        let changing = self.view.begin()?;
        for (uuid, loaded) in &self.group {
            if let Some(row) = self.rows.get(uuid) {
                changing.forget_rows_of(*row)?;
                if loaded.is_none() {
                    changing.delete_row(*row)?;
                }
            }
        }
        let mut living = Vec::new();
        for (uuid, loaded) in self.group.drain() {
            match loaded {
                Some(loaded) => living.push((uuid, loaded)),
                None => drop(self.rows.remove(&uuid)),
            }
        }
        // Rows count up in the order in which entries were made: the order in which searches show them.
        living.sort_unstable_by_key(|(_, loaded)| loaded.position);
        let mut index = Vec::new();
        for (uuid, Loaded { entry, body, position }) in living {
            let row = changing.load(self.rows.get(&uuid).copied(), &entry, &body, position.segment)?;
            self.rows.insert(uuid, row);
            index.push((row, entry));
        }
        load_index(&changing, index)?;
        if let Some(last) = self.last {
            changing.set_position(last)?;
        }
        changing.commit()
    }
}

/// Rows in the order of their keys: each page of the index is then written once a group.
fn load_index(changing: &Changing<'_>, entries: Vec<(i64, Entry)>) -> Result<(), ViewError> {
    let (mut values, mut addresses) = (Vec::new(), Vec::new());
    for (row, entry) in entries {
        values.extend(super::plan::rows(&entry).into_iter().map(|(attribute, value)| (attribute, value, row)));
        addresses.extend(super::plan::addresses(&entry).into_iter().map(|address| (address, row)));
    }
    values.sort_unstable();
    addresses.sort_unstable();
    for (attribute, value, row) in values {
        changing.add_value(attribute, &value, row)?;
    }
    for (address, row) in addresses {
        changing.add_address(&address, row)?;
    }
    Ok(())
}

/// An entryUUID as a number: a third of its text.
fn uuid_number(text: &str) -> Result<u128, ViewError> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    u128::from_str_radix(&digits, 16).map_err(|_| ViewError::NoUuid)
}
