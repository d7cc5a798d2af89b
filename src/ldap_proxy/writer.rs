//! The one thread that writes: checks a change, appends it to the ledger, shows it in the view.
//!
//! Owns: the order of changes, the ledger, the view's writing connection. Called by: `engine`. Calls: `compaction`, between changes.
//! Never: answers before the change is durable and visible.
//!
//! Changes that wait at the same time are done as one group: one transaction of the view, one append to
//! the ledger (one flush), one commit. The ledger comes first: a change that is in the ledger and not yet in
//! the view is brought in by replay; the other way round it would be lost.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::change::{self, Change, Stamp};
use super::compaction::Compaction;
use super::dn::Dn;
use super::entry::Entry;
use super::load::Loader;
use super::metrics;
use super::record::Record;
use super::refusal::Refusal;
use super::rules::{self, Broken};
use super::schema;
use super::view::{self, Changing, View, ViewError};
use crate::ledger::{self, Ledger, LedgerError, Position};

/// Changes done as one group, at most.
const GROUP_MAX: usize = 256;
/// Changes that may wait; more are told "busy".
pub(super) const QUEUE_MAX: usize = 1024;
/// Octets of a segment of the ledger: small, so that space comes back to small sites too; a group of the largest entries fits in.
const SEGMENT_LEN: u64 = 96 << 20;
/// Records brought into the view in one transaction when it catches up.
const REPLAY_GROUP: usize = 2000;

/// The directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("ledger of the directory: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

/// A change and who waits for it.
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) stamp: Stamp,
    pub(super) answer: oneshot::Sender<Result<(), Refusal>>,
}

pub(super) struct Writer {
    ledger: Ledger,
    view: View,
    base: Dn,
    /// Time of the last change; the next one's is later, so that modifyTimestamp tells changes apart.
    last_millis: u64,
    /// The ledger has records that the view has not.
    behind: bool,
    compaction: Compaction,
}

impl Writer {
    /// Opens ledger and view, the view brought up to the ledger's end; made anew when it is missing or damaged.
    pub(super) fn open(dir: &Path, base: Dn) -> Result<Self, OpenError> {
        Self::open_with(dir, base, ledger::Options { segment_bytes: SEGMENT_LEN, ..ledger::Options::default() })
    }

    /// The same with another size of segments, for tests.
    pub(super) fn open_with(dir: &Path, base: Dn, options: ledger::Options) -> Result<Self, OpenError> {
        let (ledger, _) = Ledger::open(&dir.join("ledger"), options)?;
        let path = view_path(dir);
        let view = match open_view(&path, &ledger) {
            Ok(view) => view,
            Err(OpenError::View(error)) if error.is_damage() => {
                warn!(%error, "the view of the directory is damaged; it is made anew from the ledger");
                throw_away(&path)?;
                open_view(&path, &ledger)?
            }
            Err(error) => return Err(error),
        };
        Ok(Self { ledger, view, base, last_millis: 0, behind: false, compaction: Compaction::default() })
    }

    #[cfg(test)]
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    #[cfg(test)]
    pub(super) fn segments(&self) -> Vec<ledger::SegmentInfo> {
        self.ledger.segments()
    }

    /// Number of entries.
    pub(super) fn len(&self) -> Result<u64, ViewError> {
        self.view.len()
    }

    /// Works until every sender is gone, or until only opening everything again can help; then the role ends and is started anew.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = self.next_job(&mut jobs) {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = jobs.try_recv()
            {
                group.push(next);
            }
            if let Err(error) = self.work(group) {
                error!(%error, "changes to the directory could not be made");
                if self.is_hopeless(&error) {
                    return;
                }
            }
        }
    }

    /// The next change; meanwhile, as long as none comes, space is given back. One portion of that goes before the change:
    /// under constant change, too, it gets done.
    fn next_job(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        loop {
            match self.compact() {
                Ok(true) => {}
                Ok(false) => return jobs.blocking_recv(),
                Err(error) => {
                    error!(%error, "the directory's ledger cannot be compacted");
                    self.compaction.pause(&self.ledger);
                    return jobs.blocking_recv();
                }
            }
            match jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Empty) => {}
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// One portion of compaction; false when there is nothing to be done.
    pub(super) fn compact(&mut self) -> Result<bool, OpenError> {
        if self.behind {
            return Ok(false);
        }
        self.compaction.step(&self.ledger, &mut self.view)
    }

    /// Whether nothing will come of trying again. A damaged view is thrown away for the next start.
    fn is_hopeless(&self, error: &OpenError) -> bool {
        match error {
            OpenError::Ledger(LedgerError::Closed) => true,
            OpenError::View(error) if error.is_damage() => {
                if let Some(path) = self.view.path()
                    && let Err(error) = throw_away(&path)
                {
                    error!(%error, "the damaged view cannot be removed");
                }
                true
            }
            OpenError::Ledger(_) | OpenError::View(_) | OpenError::Io { .. } => false,
        }
    }

    fn work(&mut self, group: Vec<Job>) -> Result<(), OpenError> {
        if self.behind {
            if let Err(error) = catch_up(&mut self.view, &self.ledger) {
                refuse(group.into_iter().map(|job| job.answer).collect());
                return Err(error);
            }
            self.behind = false;
        }
        let (mut answers, mut changes) = (Vec::new(), Vec::new());
        for mut job in group {
            self.last_millis = job.stamp.unix_millis.max(self.last_millis + 1);
            job.stamp.unix_millis = self.last_millis;
            answers.push(job.answer);
            changes.push((job.change, job.stamp));
        }
        match self.commit(changes) {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // Whoever asked may have gone; the change stands all the same.
                    drop(answer.send(outcome));
                }
            }
            Err(error) => {
                refuse(answers);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Does a group of changes; an error means that none of them was made (or that the view will learn of them by replay).
    pub(super) fn commit(&mut self, changes: Vec<(Change, Stamp)>) -> Result<Vec<Result<(), Refusal>>, OpenError> {
        // Nobody else appends: what is appended below stands here or in a later segment.
        let segment = self.ledger.end().segment;
        let changing = self.view.begin()?;
        let (mut outcomes, mut entries, mut grown) = (Vec::new(), Vec::new(), 0);
        for (change, stamp) in changes {
            let growth = match &change {
                Change::Add { .. } => 1,
                Change::Delete { .. } => -1,
                Change::Modify { .. } | Change::Rename { .. } => 0,
            };
            match apply(&changing, change, &stamp, &self.base, segment) {
                Ok(record) => {
                    grown += growth;
                    let payload = record.payload().map_err(ViewError::from)?.into();
                    entries.push(ledger::Entry { kind: record.kind(), time_millis: stamp.unix_millis, payload });
                    outcomes.push(Ok(()));
                }
                Err(Broken::Refused(refusal)) => outcomes.push(Err(refusal)),
                Err(Broken::View(error)) => return Err(error.into()),
            }
        }
        if entries.is_empty() {
            return Ok(outcomes);
        }
        let positions = self.ledger.append_blocking(entries)?;
        self.behind = true;
        if let Some(last) = positions.last() {
            changing.set_position(*last)?;
        }
        changing.commit()?;
        self.behind = false;
        metrics::ENTRIES.add(grown);
        Ok(outcomes)
    }
}

fn refuse(answers: Vec<oneshot::Sender<Result<(), Refusal>>>) {
    for answer in answers {
        drop(answer.send(Err(Refusal::unavailable())));
    }
}

pub(super) fn view_path(dir: &Path) -> PathBuf {
    dir.join("view.sqlite")
}

fn open_view(path: &Path, ledger: &Ledger) -> Result<View, OpenError> {
    let mut view = View::open(path)?;
    // A view that has seen what the ledger does not hold (a ledger brought back from a backup) is worth nothing.
    if view.position()?.is_some_and(|seen| seen >= ledger.end() || ledger.read(seen).is_err()) {
        warn!("the view of the directory does not belong to its ledger; it is made anew");
        drop(view);
        throw_away(path)?;
        view = View::open(path)?;
    }
    if view.position()?.is_none() {
        load(&mut view, ledger)?;
    } else {
        catch_up(&mut view, ledger)?;
    }
    Ok(view)
}

/// Removes the view's files; the ledger gives all of it back.
pub(super) fn throw_away(path: &Path) -> Result<(), OpenError> {
    for file in view::files(path) {
        match std::fs::remove_file(&file) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::Io { path: file, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Brings all records into an empty view.
fn load(view: &mut View, ledger: &Ledger) -> Result<(), OpenError> {
    let mut loader = Loader::begin(view)?;
    replay(ledger, None, |position, entry| loader.take(position, entry.kind, &entry.payload))?;
    loader.finish()?;
    info!(entries = view.len()?, "the view of the directory is made from its ledger");
    Ok(())
}

/// Brings records into the view that it has not seen. The last one seen is seen again, which does no harm.
fn catch_up(view: &mut View, ledger: &Ledger) -> Result<(), OpenError> {
    let mut waiting: Vec<(Position, Record)> = Vec::new();
    let mut records = 0_u64;
    replay(ledger, view.position()?, |position, entry| {
        waiting.push((position, Record::parse(entry.kind, &entry.payload)?));
        records += 1;
        if waiting.len() < REPLAY_GROUP { Ok(()) } else { bring_in(view, &mut waiting) }
    })?;
    bring_in(view, &mut waiting)?;
    if records > 1 {
        info!(records, "the view of the directory has caught up with its ledger");
    }
    Ok(())
}

/// Shows the records from `from` on, or all of them, until one cannot be taken.
fn replay(
    ledger: &Ledger,
    from: Option<Position>,
    mut take: impl FnMut(Position, &ledger::Entry) -> Result<(), ViewError>,
) -> Result<(), OpenError> {
    let mut failed = None;
    ledger.replay(from, &mut |position, entry| match take(position, &entry) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn bring_in(view: &mut View, waiting: &mut Vec<(Position, Record)>) -> Result<(), ViewError> {
    let changing = view.begin()?;
    for (position, record) in waiting.drain(..) {
        match &record {
            Record::Put(entry) => changing.put(entry, position.segment)?,
            Record::Delete(uuid) => changing.delete(uuid)?,
        }
        changing.set_position(position)?;
    }
    changing.commit()
}

/// One change on what the view shows; gives what is to be written to the ledger.
/// `segment`: of the ledger, where the record will stand, or one before that.
pub(super) fn apply(
    view: &Changing<'_>,
    change: Change,
    stamp: &Stamp,
    base: &Dn,
    segment: u64,
) -> Result<Record, Broken> {
    match change {
        Change::Add { dn, attributes } => {
            if view.by_key(&dn.key())?.is_some() {
                return Err(refused(ldap3_proto::LdapResultCode::EntryAlreadyExists, "").into());
            }
            if dn.key() != base.key() {
                require_parent(view, &dn, base)?;
            }
            let entry = change::added(&dn, attributes, &schema::uuid_text(&new_uuid()), stamp)?;
            put(view, entry, base, segment)
        }
        Change::Modify { dn, modifications } => {
            let old = existing(view, &dn, base)?;
            put(view, change::modified(&old, modifications, stamp)?, base, segment)
        }
        Change::Delete { dn } => {
            let old = existing(view, &dn, base)?;
            if view.has_children(&old.dn.key())? {
                return Err(refused(ldap3_proto::LdapResultCode::NotAllowedOnNonLeaf, "entries stand below it").into());
            }
            let uuid = old.text("entryUUID").ok_or(ViewError::NoUuid)?.to_owned();
            view.delete(&uuid)?;
            Ok(Record::Delete(uuid))
        }
        Change::Rename { dn, rdn, delete_old, superior } => {
            let old = existing(view, &dn, base)?;
            if view.has_children(&old.dn.key())? {
                return Err(refused(ldap3_proto::LdapResultCode::NotAllowedOnNonLeaf, "entries stand below it").into());
            }
            let new = Dn::child(&superior.unwrap_or_else(|| old.dn.parent()), rdn);
            if new.key() != old.dn.key() && view.by_key(&new.key())?.is_some() {
                return Err(refused(ldap3_proto::LdapResultCode::EntryAlreadyExists, "").into());
            }
            require_parent(view, &new, base)?;
            put(view, change::renamed(&old, new, delete_old, stamp)?, base, segment)
        }
    }
}

fn put(view: &Changing<'_>, entry: Entry, base: &Dn, segment: u64) -> Result<Record, Broken> {
    rules::check(view, &entry, base)?;
    view.put(&entry, segment)?;
    Ok(Record::Put(entry))
}

fn existing(view: &Changing<'_>, dn: &Dn, base: &Dn) -> Result<Entry, Broken> {
    match view.by_key(&dn.key())? {
        Some(entry) => Ok(entry),
        None => Err(Refusal::no_such_object(matched(view, dn, base)?).into()),
    }
}

fn require_parent(view: &Changing<'_>, dn: &Dn, base: &Dn) -> Result<(), Broken> {
    if view.by_key(&dn.parent().key())?.is_some() {
        return Ok(());
    }
    Err(Refusal::no_such_object(matched(view, dn, base)?).into())
}

/// The lowest entry above a name that is there (RFC 4511 section 4.1.9, matchedDN).
fn matched(view: &Changing<'_>, dn: &Dn, base: &Dn) -> Result<String, ViewError> {
    let mut above = dn.parent();
    while !above.is_root() && above.is_within(base) {
        if let Some(entry) = view.by_key(&above.key())? {
            return Ok(entry.dn.to_string());
        }
        above = above.parent();
    }
    Ok(String::new())
}

fn refused(code: ldap3_proto::LdapResultCode, text: &str) -> Refusal {
    Refusal::new(code, text)
}

/// A random UUID (RFC 9562 section 5.4).
fn new_uuid() -> [u8; 16] {
    let mut uuid: [u8; 16] = rand::random();
    if let Some(byte) = uuid.get_mut(6) {
        *byte = (*byte & 0x0f) | 0x40;
    }
    if let Some(byte) = uuid.get_mut(8) {
        *byte = (*byte & 0x3f) | 0x80;
    }
    uuid
}
