//! Compaction: histories of changes on small segments, cut off within and behind every step of it. What was answered must come
//! back from the ledger alone, from the ledger with the view of now, and with a view of some time ago.
//!
//! Seeded; a failure names its seed. (Torn writes are the ledger's own simulation.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::changes::{add, alias, dn, domain, modify, user};
use crate::ldap_proxy::change::{Change, Stamp};
use crate::ldap_proxy::record;
use crate::ldap_proxy::writer::Writer;
use crate::ledger;
use ldap3_proto::proto::LdapModifyType as Type;

const SEEDS: std::ops::Range<u64> = 0..2;
const CHANGES: usize = 250;
const SEGMENT_BYTES: u64 = 16 * 1024;

/// Entries by key, as JSON.
type Contents = BTreeMap<String, String>;

struct History {
    dir: tempfile::TempDir,
    writer: Writer,
    random: StdRng,
    /// What was answered: what must be there.
    expected: Contents,
    millis: u64,
    /// The view's files of some time ago.
    old_view: Option<PathBuf>,
}

fn open(dir: &Path) -> Writer {
    let options = ledger::Options { segment_bytes: SEGMENT_BYTES, prepare_bytes: 0, ..ledger::Options::default() };
    Writer::open_with(dir, dn("o=demo"), options).unwrap()
}

fn contents(writer: &Writer) -> Contents {
    let entries = writer.view().everything();
    entries.into_iter().map(|entry| (entry.dn.key(), record::to_json(&entry).unwrap())).collect()
}

fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        if file.file_type().unwrap().is_file() && wanted(&name) {
            std::fs::copy(file.path(), to.join(name)).unwrap();
        }
    }
}

impl History {
    fn begin(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let writer = open(dir.path());
        let random = StdRng::seed_from_u64(seed);
        let mut history = Self { dir, writer, random, expected: Contents::new(), millis: 0, old_view: None };
        history.change(add("o=demo", &[("objectClass", "organization")]));
        history.change(domain("example.test"));
        history
    }

    fn change(&mut self, change: Change) {
        self.millis += 1;
        let stamp = Stamp { unix_millis: self.millis, author: "uid=tester".into() };
        // Refusals (exists, not there) are as good as changes: nothing is expected of them.
        drop(self.writer.commit(vec![(change, stamp)]).unwrap());
        self.expected = contents(&self.writer);
    }

    fn random_change(&mut self) {
        let name = format!("n{}", self.random.random_range(0..30));
        let (user_dn, alias_dn) =
            (format!("uid={name},ou=example.test,o=demo"), format!("cn={name},ou=example.test,o=demo"));
        let len = self.random.random_range(1..400);
        let title: String = (0..len).map(|_| self.random.random_range('a'..='z')).collect();
        let change = match self.random.random_range(0..10) {
            0..3 => user(&name, &[("title", &title)]),
            3 => alias(&name, "far@elsewhere.test"),
            4 => Change::Delete { dn: dn(&user_dn) },
            5 => Change::Delete { dn: dn(&alias_dn) },
            _ => modify(&user_dn, &[(Type::Replace, "title", &[&title])]),
        };
        self.change(change);
    }

    /// Everything as a kill -9 would leave it now: opened beside the running one, with and without a view.
    fn cut(&mut self, seed: u64, step: usize) {
        for view in ["none", if step.is_multiple_of(2) { "now" } else { "old" }] {
            let dir = tempfile::tempdir().unwrap();
            copy(&self.dir.path().join("ledger"), &dir.path().join("ledger"), |_| true);
            match (view, &self.old_view) {
                ("now", _) => copy(self.dir.path(), dir.path(), |name| name.starts_with("view.sqlite")),
                ("old", Some(old)) => copy(old, dir.path(), |_| true),
                _ => {}
            }
            let found = contents(&open(dir.path()));
            assert!(
                found == self.expected,
                "seed {seed}, step {step}, view {view}: {} entries for {}",
                found.len(),
                self.expected.len()
            );
        }
    }

    /// Everything as a kill -9 within the last step of compaction would have left it: what was appended is not in the view yet, or the
    /// segment that goes is still there, or both. `before`: everything as it was before the step.
    fn cut_within(&self, seed: u64, step: usize, before: &Path) {
        let after = self.dir.path();
        for (what, ledgers, view) in [
            ("not shown", [after, after], before),
            ("not removed", [before, after], after),
            ("neither", [before, after], before),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for ledger in ledgers {
                copy(&ledger.join("ledger"), &dir.path().join("ledger"), |_| true);
            }
            copy(view, dir.path(), |name| name.starts_with("view.sqlite"));
            let found = contents(&open(dir.path()));
            let (found_len, expected_len) = (found.len(), self.expected.len());
            assert!(found == self.expected, "seed {seed}, step {step}, {what}: {found_len} entries for {expected_len}");
        }
    }

    /// One step of compaction, cut off within and behind.
    fn compact(&mut self, seed: u64, step: usize) -> bool {
        let before = tempfile::tempdir().unwrap();
        copy(&self.dir.path().join("ledger"), &before.path().join("ledger"), |_| true);
        copy(self.dir.path(), before.path(), |name| name.starts_with("view.sqlite"));
        if !self.writer.compact().unwrap() {
            return false;
        }
        self.cut_within(seed, step, before.path());
        self.cut(seed, step);
        true
    }

    fn keep_view(&mut self, step: usize) {
        let old = self.dir.path().join(format!("old{step}"));
        copy(self.dir.path(), &old, |name| name.starts_with("view.sqlite"));
        self.old_view = Some(old);
    }
}

#[test]
fn what_was_answered_is_there_after_a_cut_within_or_behind_any_step_of_compaction() {
    for seed in SEEDS {
        let mut history = History::begin(seed);
        let mut steps = 0;
        for n in 0..CHANGES {
            history.random_change();
            if n % 67 == 0 {
                history.keep_view(n);
            }
            // Sometimes at once, sometimes with changes in between.
            while history.random.random_bool(0.6) && history.compact(seed, n) {
                steps += 1;
            }
            if n % 60 == 0 {
                history.cut(seed, n);
            }
        }
        while history.compact(seed, CHANGES) {
            steps += 1;
        }
        let (kept, living) = (history.writer.segments(), history.expected.len() as u64);
        let records: u64 = kept.iter().filter(|one| one.sealed).map(|one| one.records).sum();
        assert!(
            steps > 2 && records <= living * 2 + 40,
            "seed {seed}: {records} records for {living} entries, {steps} steps"
        );
        assert!(kept.first().unwrap().id > 2, "seed {seed}: segments are gone");
    }
}
