//! SEARCH: rows are looked at here, messages by the store.
//!
//! Owns: the order in which keys are decided. Called by: `imap::run`. Never: reads a message that the rows have ruled out.
//! Spec: RFC 3501 section 6.4.4.

use std::pin::Pin;
use std::sync::Arc;

use tokio::io::AsyncWrite;

use super::{Done, RunError, Work, ok};
use crate::pop_imap::imap::search::{self, Matcher, SearchRequest};
use crate::pop_imap::store::{OpenMailbox, Store, StoreError, UIDS_PER_READ_MAX, View};

/// A message that may be what is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    position: usize,
    uid: u32,
}

impl<W: AsyncWrite + Unpin + Send> Work<'_, W> {
    pub(super) async fn search(&mut self, request: SearchRequest) -> Result<Done, RunError> {
        let modseq = request.key.names_modseq();
        self.session.condstore |= modseq;
        let telling = self.session.telling(false, request.uid);
        let Some(selected) = self.session.selected() else { return Ok(Done::Bad("Select a mailbox first")) };
        selected.catch_up(&mut self.out.buffer, telling, &[]);
        let (open, view) = (Arc::clone(&selected.open), Arc::clone(&selected.view));
        let SearchRequest { uid, results, key } = request;
        let matcher = Matcher::new(key, &view);
        let all =
            view.messages.iter().enumerate().map(|(position, row)| Candidate { position, uid: row.uid }).collect();
        let found = decide(self.store, &open, &view, &matcher, all).await?;
        let highest = found.iter().filter_map(|found| view.messages.get(found.position)).map(|row| row.modseq).max();
        let number =
            |found: &Candidate| if uid { found.uid } else { u32::try_from(found.position + 1).unwrap_or(u32::MAX) };
        let numbers: Vec<u32> = found.iter().map(number).collect();
        search::write_answer(&mut self.out.buffer, &self.tag, uid, results, &numbers, highest.filter(|_| modseq));
        Ok(ok("Search completed"))
    }
}

type Deciding<'a> = Pin<Box<dyn Future<Output = Result<Vec<Candidate>, StoreError>> + Send + 'a>>;

/// Those of the candidates, which ascend, that the matcher wants.
fn decide<'a>(
    store: &'a Store,
    open: &'a OpenMailbox,
    view: &'a View,
    matcher: &'a Matcher,
    candidates: Vec<Candidate>,
) -> Deciding<'a> {
    Box::pin(async move {
        let (mut found, open_ones) = by_rows(view, matcher, candidates);
        if open_ones.is_empty() {
            return Ok(found);
        }
        let more = match matcher {
            Matcher::And(all) => {
                let mut left = open_ones;
                for matcher in all {
                    left = decide(store, open, view, matcher, left).await?;
                }
                left
            }
            Matcher::Or(first, second) => {
                let by_first = decide(store, open, view, first, open_ones.clone()).await?;
                let rest = without(open_ones, &by_first);
                merge(by_first, decide(store, open, view, second, rest).await?)
            }
            Matcher::Not(matcher) => {
                let not_wanted = decide(store, open, view, matcher, open_ones.clone()).await?;
                without(open_ones, &not_wanted)
            }
            Matcher::Content(needle, place) => {
                let uids: Vec<u32> = open_ones.iter().map(|candidate| candidate.uid).collect();
                let mut uids = store.search_text(open, &uids, needle, place).await?;
                uids.sort_unstable();
                open_ones.into_iter().filter(|candidate| uids.binary_search(&candidate.uid).is_ok()).collect()
            }
            Matcher::SentDay(days) => {
                let mut left = Vec::new();
                for chunk in open_ones.chunks(UIDS_PER_READ_MAX) {
                    let uids: Vec<u32> = chunk.iter().map(|candidate| candidate.uid).collect();
                    let envelopes = store.envelopes(open, &uids).await?;
                    left.extend(chunk.iter().zip(envelopes).filter_map(|(candidate, envelope)| {
                        let day = search::sent_day(envelope?.fields().date?)?;
                        days.contains(&day).then_some(*candidate)
                    }));
                }
                left
            }
            // Rows decide these.
            Matcher::Constant(_)
            | Matcher::Positions(_)
            | Matcher::Flag(_)
            | Matcher::Size(_)
            | Matcher::Day(_)
            | Matcher::ModSeq(_) => Vec::new(),
        };
        found = merge(found, more);
        Ok(found)
    })
}

/// What the rows tell: those that are wanted, and those that they do not decide.
fn by_rows(view: &View, matcher: &Matcher, candidates: Vec<Candidate>) -> (Vec<Candidate>, Vec<Candidate>) {
    let (mut found, mut open_ones) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let Some(row) = view.messages.get(candidate.position) else { continue };
        match matcher.verdict(candidate.position, row) {
            Some(true) => found.push(candidate),
            Some(false) => {}
            None => open_ones.push(candidate),
        }
    }
    (found, open_ones)
}

fn without(all: Vec<Candidate>, less: &[Candidate]) -> Vec<Candidate> {
    let among = |candidate: &Candidate| less.binary_search_by_key(&candidate.position, |less| less.position).is_ok();
    all.into_iter().filter(|candidate| !among(candidate)).collect()
}

fn merge(mut first: Vec<Candidate>, second: Vec<Candidate>) -> Vec<Candidate> {
    if !second.is_empty() {
        first.extend(second);
        first.sort_unstable_by_key(|candidate| candidate.position);
    }
    first
}
