//! A search, as asked and in the steps in which it is done.
//!
//! Owns: `Search`, the walk over candidates. Called by: `session` (makes it), `engine` (does it).
//! Never: holds more than one step's entries in memory, however many there are.

use std::time::Duration;

use ldap3_proto::LdapFilter;
use ldap3_proto::proto::{LdapSearchResultEntry, LdapSearchScope};

use super::access::Reads;
use super::dn::Dn;
use super::entry::{Entry, Selection};
use super::filter;
use super::plan::{self, Cursor, Plan};
use super::view::{View, ViewError};

/// Candidates read at a time.
const CANDIDATES: usize = 256;
/// Candidates looked at in one step, so that a step is short whatever the filter.
const STEP_CANDIDATES_MAX: usize = 2048;
/// Octets of entries that one step returns, about.
const STEP_OCTETS_MAX: usize = 256 * 1024;

/// A search as asked.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) base: Dn,
    pub(super) scope: LdapSearchScope,
    pub(super) filter: LdapFilter,
    pub(super) selection: Selection,
    /// Entries that the client wants at most.
    pub(super) entries_max: Option<usize>,
    /// How long the client will wait.
    pub(super) time_max: Option<Duration>,
    pub(super) page: Option<Page>,
}

/// RFC 2696.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) size: usize,
    pub(super) cursor: Cursor,
}

/// What one step found.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) entries: Vec<LdapSearchResultEntry>,
    /// Where to go on; none at the end.
    pub(super) next: Option<Cursor>,
}

impl Search {
    /// How candidates are found.
    pub(super) fn plan(&self, top: &Dn) -> Plan {
        plan::plan(&self.base, &self.scope, &self.filter, top)
    }

    /// The next step from `cursor`, with at most `wanted` entries.
    pub(super) fn step(
        &self,
        view: &View,
        plan: &Plan,
        mut cursor: Cursor,
        wanted: usize,
        reads: &Reads,
    ) -> Result<Step, ViewError> {
        let (mut entries, mut seen, mut octets) = (Vec::new(), 0, 0);
        loop {
            let candidates = view.candidates(plan, &cursor, CANDIDATES)?;
            let last = candidates.len() < CANDIDATES;
            seen += candidates.len();
            for (after, entry) in candidates {
                if entries.len() >= wanted {
                    return Ok(Step { entries, next: Some(cursor) });
                }
                cursor = after;
                if let Some(shown) = self.show(entry, reads) {
                    octets += shown.1;
                    entries.push(shown.0);
                }
            }
            if last {
                return Ok(Step { entries, next: None });
            }
            if seen >= STEP_CANDIDATES_MAX || octets >= STEP_OCTETS_MAX {
                return Ok(Step { entries, next: Some(cursor) });
            }
        }
    }

    /// The entry as it is returned, and about its octets; none when it does not fit or is not to be seen.
    pub(super) fn show(&self, entry: Entry, reads: &Reads) -> Option<(LdapSearchResultEntry, usize)> {
        let visible = match reads {
            Reads::Everything | Reads::AllButSecrets => true,
            Reads::Own { uuid } => entry.text("entryUUID") == Some(uuid),
            Reads::Nothing => false,
        };
        if !visible || !plan::in_scope(&entry.dn, &self.base, &self.scope) {
            return None;
        }
        let mut entry = entry.with_derived();
        if *reads != Reads::Everything {
            entry.hide_secrets();
        }
        if !filter::matches(&self.filter, &entry) {
            return None;
        }
        let octets = entry.len();
        Some((self.show_unconditionally(&entry), octets))
    }

    pub(super) fn show_unconditionally(&self, entry: &Entry) -> LdapSearchResultEntry {
        LdapSearchResultEntry { dn: entry.dn.to_string(), attributes: self.selection.show(entry) }
    }
}
