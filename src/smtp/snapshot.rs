//! Snapshots of the queue, to be backed up: of each message `queue/ID.eml`, as it would be sent, and `queue/ID.json`, its envelope.
//!
//! Owns: the form of the envelope. Called by: `serve`, through `net::snapshot`. Never: takes a message out of the queue.
//!
//! Always everything that waits: what waited yesterday is mostly gone. So nothing goes on from a token. What is delivered while the
//! snapshot is made may be missing in it; nothing that waits all the time is.

use std::sync::Arc;

use serde::Serialize;

use super::context::Context;
use super::envelope::{Recipient, Reports};
use super::queue::{Queue, QueueError, Queued};
use crate::base::address::Address;
use crate::base::clock;
use crate::base::id::Id;
use crate::net::snapshot::archive::Member;
use crate::net::snapshot::{Archive, Give, GiveError, Head, Outlet};

/// Ids that are asked of the index at once.
const PAGE: usize = 1_000;
/// How often a message is looked for again that has moved in the meantime.
const MOVED_RETRIES: usize = 3;
const FILE_MODE: u32 = 0o600;

/// `queue/ID.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Envelope {
    id: String,
    /// Milliseconds since 1970.
    arrived: u64,
    attempts: u32,
    /// None: the null reverse-path (RFC 5321 section 4.5.5).
    reverse_path: Option<Address>,
    /// Those only who do not have it yet.
    recipients: Vec<Recipient>,
    smtputf8: bool,
    reports: Reports,
}

/// What gives snapshots of the queue.
pub(super) fn of(context: Arc<Context>, host: String) -> Arc<Give> {
    Arc::new(move |since, outlet| match since {
        Some(_) => Err(GiveError::Gone),
        None => give(&context.queue, &host, outlet),
    })
}

fn give(queue: &Queue, host: &str, outlet: &mut Outlet) -> Result<(), GiveError> {
    let now = clock::unix_secs();
    let mut archive = Archive::new(outlet);
    archive.head(&Head::new("smtp", host, None, &now.to_string(), now), now)?;
    let mut after = None;
    loop {
        let page = queue.page(after, PAGE, clock::monotonic());
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for state in page {
            if let Some(queued) = load(queue, state.id).map_err(|error| GiveError::Source(error.to_string()))? {
                write(&mut archive, queued)?;
            }
        }
    }
    archive.finish()?;
    Ok(())
}

/// A message; none when it is in the queue no more.
fn load(queue: &Queue, id: Id) -> Result<Option<Queued>, QueueError> {
    let mut tries = 0;
    loop {
        match queue.load_all(id) {
            Ok(queued) => return Ok(Some(queued)),
            Err(QueueError::NoSuchMessage(_)) => return Ok(None),
            // Compaction has moved it since its place was looked up.
            Err(QueueError::Ledger(_)) if tries < MOVED_RETRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn write(archive: &mut Archive<&mut Outlet>, queued: Queued) -> Result<(), GiveError> {
    let Queued { message, arrived_millis, attempts, .. } = queued;
    let id = message.envelope.id.to_string();
    let envelope = Envelope {
        id: id.clone(),
        arrived: arrived_millis,
        attempts,
        reverse_path: message.envelope.reverse_path,
        recipients: message.envelope.recipients,
        smtputf8: message.envelope.smtputf8,
        reports: message.envelope.reports,
    };
    let mut json = serde_json::to_vec_pretty(&envelope).map_err(|error| GiveError::Source(error.to_string()))?;
    json.push(b'\n');
    let time = i64::try_from(arrived_millis / 1000).unwrap_or(i64::MAX);
    let (envelope, content) = (format!("queue/{id}.json"), format!("queue/{id}.eml"));
    archive.file(Member { path: &envelope, time, mode: FILE_MODE }, &[&json])?;
    archive.file(Member { path: &content, time, mode: FILE_MODE }, &[&message.trace, &message.content])?;
    Ok(())
}
