//! The desk at which an administrator looks at the queue.
//!
//! Owns: what can be asked for and done, by which filter, over HTTP on the role's own socket (which only root and fife's own user can reach). Called by:
//! `smtp::serve` (serves it), `fife queue` (asks). Never: shows a message's text, only its envelope; tells a sender of what is deleted.
//!
//! Lists come page by page, so that a long queue is neither held in memory nor keeps anybody waiting: each page says where the next begins.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::context::Context;
use super::queue;
use crate::base::clock;
use crate::base::id::Id;

/// Messages that are looked at for one page.
const PAGE_LEN: usize = 1000;

/// What of a message has to be so. Nothing said: all messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    pub ids: Vec<String>,
    /// The reverse-path, or a part of it; "<>" for the null one.
    pub sender: Option<String>,
    /// One of the pending recipients, or a part of it.
    pub recipient: Option<String>,
    /// The domain of a pending recipient.
    pub domain: Option<String>,
    /// Seconds since it was taken in, at least and at most.
    pub older_secs: Option<u64>,
    pub younger_secs: Option<u64>,
    /// Octets, at least and at most.
    pub larger: Option<u64>,
    pub smaller: Option<u64>,
    pub state: Option<Progress>,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Is being sent just now.
    Active,
    /// Waits for its turn.
    Waiting,
    /// Was tried, and waits for the next attempt.
    Deferred,
    /// Waits for an administrator.
    Held,
}

/// What is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    #[serde(default)]
    pub filter: Filter,
    /// Behind this message; none: from the first.
    #[serde(default)]
    pub after: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page {
    pub messages: Vec<Listed>,
    /// What `after` has to be for the next page; none: this was the last.
    pub next: Option<String>,
}

/// What an action did, on one page of the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acted {
    pub count: usize,
    pub next: Option<String>,
}

/// A message as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    pub id: String,
    /// Empty: the null reverse-path.
    pub sender: String,
    pub size: u64,
    pub age_secs: u64,
    pub state: Progress,
    pub recipients: Vec<ListedRecipient>,
}

/// A recipient who has not got it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedRecipient {
    pub address: String,
    /// As the sender gave it, when that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
    pub destination: String,
    pub state: Progress,
    pub attempts: u32,
    /// Seconds until it is tried again.
    pub retry_secs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is done to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Retry,
    Hold,
    Release,
    Delete,
}

/// The desk's HTTP.
pub(super) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/queue/list", post(list))
        .route("/queue/flush", post(flush))
        .route("/queue/{action}", post(act))
        .with_state(context)
}

async fn list(State(context): State<Arc<Context>>, body: String) -> Response {
    answer(&body, async |question| {
        let (messages, next) = page(&context, &question).await?;
        Ok(Page { messages, next })
    })
    .await
}

async fn act(State(context): State<Arc<Context>>, Path(action): Path<Action>, body: String) -> Response {
    answer(&body, async |question| {
        let (messages, next) = page(&context, &question).await?;
        let ids: Vec<Id> = messages.iter().filter_map(|message| message.id.parse().ok()).collect();
        let count = context.act(action, &ids).await?;
        Ok(Acted { count, next })
    })
    .await
}

async fn flush(State(context): State<Arc<Context>>) -> Response {
    context.queue.wake(None, clock::monotonic());
    info!("all that waits in the queue is tried now");
    json(&Acted { count: context.queue.len(), next: None })
}

async fn answer<T: Serialize>(body: &str, act: impl AsyncFnOnce(Question) -> Result<T, String>) -> Response {
    let question = match serde_json::from_str(body) {
        Ok(question) => question,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match act(question).await {
        Ok(answer) => json(&answer),
        Err(reason) => (StatusCode::CONFLICT, reason).into_response(),
    }
}

fn json(answer: &impl Serialize) -> Response {
    match serde_json::to_string(answer) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Context {
    async fn act(&self, action: Action, ids: &[Id]) -> Result<usize, String> {
        let (millis, now) = (clock::unix_millis(), clock::monotonic());
        let failed = |error: queue::QueueError| {
            warn!(%error, "queue was not changed");
            error.to_string()
        };
        let count = match action {
            Action::Retry => self.queue.retry(ids, now),
            Action::Hold => self.queue.hold(ids, true, millis, now).await.map_err(failed)?,
            Action::Release => self.queue.hold(ids, false, millis, now).await.map_err(failed)?,
            Action::Delete => {
                let gone = self.queue.delete(ids, millis, now).await.map_err(failed)?;
                for id in &gone {
                    info!(message = %id, "deleted from the queue by an administrator");
                }
                gone.len()
            }
        };
        if count > 0 && action != Action::Delete {
            info!(?action, messages = count, "queue changed by an administrator");
        }
        Ok(count)
    }
}

/// The messages of the next page that the filter lets through, and where the page after it begins.
async fn page(context: &Arc<Context>, question: &Question) -> Result<(Vec<Listed>, Option<String>), String> {
    let (context, question) = (Arc::clone(context), question.clone());
    let read = tokio::task::spawn_blocking(move || {
        let now = clock::monotonic();
        let parse = |text: &String| text.parse::<Id>().map_err(|_| format!("`{text}` is no message id"));
        let ids = question.filter.ids.iter().map(parse).collect::<Result<Vec<Id>, String>>()?;
        let (states, next) = if ids.is_empty() {
            let after = question.after.as_ref().map(parse).transpose()?;
            let states = context.queue.page(after, PAGE_LEN, now);
            let next = states.last().filter(|_| states.len() == PAGE_LEN).map(|state| state.id.to_string());
            (states, next)
        } else {
            (ids.iter().filter_map(|id| context.queue.state(*id, now)).collect(), None)
        };
        let listed = states.iter().filter(|state| question.filter.fits_state(state));
        let listed = listed.filter_map(|state| context.listed(state)).filter(|listed| question.filter.fits(listed));
        Ok((listed.collect(), next))
    });
    read.await.map_err(|error| error.to_string())?
}

impl Filter {
    /// What can be told without reading the message.
    fn fits_state(&self, state: &queue::State) -> bool {
        let age = age_secs(state);
        self.older_secs.is_none_or(|secs| age >= secs)
            && self.younger_secs.is_none_or(|secs| age <= secs)
            && self.larger.is_none_or(|size| state.size >= size)
            && self.smaller.is_none_or(|size| state.size <= size)
            && self.state.is_none_or(|wanted| progress(&state.parts) == wanted)
    }

    fn fits(&self, listed: &Listed) -> bool {
        let has = |text: &str, wanted: &str| text.to_lowercase().contains(&wanted.to_lowercase());
        let sender =
            |wanted: &String| if wanted == "<>" { listed.sender.is_empty() } else { has(&listed.sender, wanted) };
        let any = |test: &dyn Fn(&ListedRecipient) -> bool| listed.recipients.iter().any(test);
        let to = |wanted: &String| {
            any(&|one| has(&one.address, wanted) || one.given.as_ref().is_some_and(|given| has(given, wanted)))
        };
        let at = |wanted: &String| {
            any(&|one| one.address.rsplit('@').next().is_some_and(|domain| domain.eq_ignore_ascii_case(wanted)))
        };
        self.sender.as_ref().is_none_or(sender)
            && self.recipient.as_ref().is_none_or(to)
            && self.domain.as_ref().is_none_or(at)
    }
}

fn age_secs(state: &queue::State) -> u64 {
    clock::unix_millis().saturating_sub(state.arrived_millis) / 1000
}

fn progress(parts: &[queue::PartState]) -> Progress {
    let of = |part: &queue::PartState| match part {
        queue::PartState { taken: true, .. } => Progress::Active,
        queue::PartState { held: true, .. } => Progress::Held,
        queue::PartState { attempts: 0, .. } => Progress::Waiting,
        queue::PartState { .. } => Progress::Deferred,
    };
    let has = |wanted| parts.iter().any(|part| of(part) == wanted);
    [Progress::Active, Progress::Held, Progress::Deferred]
        .into_iter()
        .find(|one| has(*one))
        .unwrap_or(Progress::Waiting)
}

impl Context {
    /// A message with what is in its record; none when it is gone by now.
    fn listed(&self, state: &queue::State) -> Option<Listed> {
        let now = clock::monotonic();
        let queued = self.queue.load_all(state.id).ok()?;
        let recipients = queued.message.envelope.recipients.iter().map(|recipient| {
            let key = self.routes.key(recipient);
            let part = state.parts.iter().find(|part| part.destination == key);
            let down = self.queue.destination(&key, now).and_then(|lane| lane.down);
            let due = part.map_or(0, |part| part.due_in.as_secs());
            let given = recipient.given.to_string();
            let own_reason = part.and_then(|part| part.reason.clone());
            ListedRecipient {
                address: recipient.mailbox.to_string(),
                given: (*recipient.given != recipient.mailbox).then_some(given),
                destination: self.routes.name(&key),
                state: part.map_or(Progress::Waiting, |part| progress(std::slice::from_ref(part))),
                attempts: part.map_or(0, |part| part.attempts),
                retry_secs: down.as_ref().map_or(due, |(left, _)| left.as_secs().max(due)),
                reason: own_reason.or(down.map(|(_, reason)| reason)).map(|reason| reason.to_string()),
            }
        });
        let sender = queued.message.envelope.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default();
        let state_of_all = progress(&state.parts);
        Some(Listed {
            id: state.id.to_string(),
            sender,
            size: state.size,
            age_secs: age_secs(state),
            state: state_of_all,
            recipients: recipients.collect(),
        })
    }
}
