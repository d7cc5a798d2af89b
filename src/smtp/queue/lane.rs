//! Lanes: the queue's messages by destination, and whose turn it is.
//!
//! Owns: what is due where, how many sessions a destination has, which destinations are down. Called by: `queue::index`.
//! Never: knows a message; reads the clock.
//!
//! A lane that is dead costs one session now and then, however many messages wait in it: they are looked at only when it is up again. Lanes that
//! are due take turns; those of which nothing good is known share half of all sessions, so that hosts that keep us waiting do not keep the others waiting.
//!
//! Invariants: `slot` says where in the agenda the lane stands; a lane is in `lanes` as long as it has a part or a session.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::base::id::Id;
use crate::smtp::outbound::route::{Key, Pace};

/// Sessions to a destination of which nothing is known yet (RFC 5321 section 4.5.4.1 leaves it to us): two, so that one that hangs is not all.
const SESSIONS_AT_FIRST: usize = 2;

/// Where a lane stands in the agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Nowhere,
    /// Its turn, among the proven or the others.
    Ready(u64, bool),
    Later(Instant),
}

/// One destination.
#[derive(Debug)]
pub(super) struct Lane {
    /// Parts that nobody has taken and that are not held, by when they are due.
    due: BTreeSet<(Instant, Id)>,
    /// All parts.
    parts: usize,
    sessions: usize,
    /// Of these, sessions with nothing to carry.
    idle: usize,
    /// Sessions, at most, for now.
    limit: usize,
    pace: Pace,
    next_message_at: Option<Instant>,
    /// A message was taken there, and nothing failed since.
    proven: bool,
    down_until: Option<Instant>,
    failures: u32,
    reason: Option<Arc<str>>,
    slot: Slot,
    /// Told when there is something for an idle session.
    work: Arc<Notify>,
}

/// A destination as it is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneState {
    pub messages: usize,
    pub sessions: usize,
    /// When it is tried again, and why not before.
    pub down: Option<(Duration, Arc<str>)>,
}

/// All destinations that have mail.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<Key, Lane>,
    ready: BTreeSet<(u64, Key)>,
    ready_unproven: BTreeSet<(u64, Key)>,
    later: BTreeSet<(Instant, Key)>,
    turn: u64,
    /// Sessions to lanes that are not proven.
    unproven_sessions: usize,
    /// Destinations of which something is not on record.
    unwritten: BTreeSet<Key>,
}

impl Lanes {
    /// A part more for this destination.
    pub(super) fn join(&mut self, key: &Key, pace: Pace) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.parts += 1;
            return;
        }
        let lane = Lane {
            due: BTreeSet::new(),
            parts: 1,
            sessions: 0,
            idle: 0,
            limit: SESSIONS_AT_FIRST.min(pace.sessions_max),
            pace,
            next_message_at: None,
            proven: *key == Key::Mailboxes,
            down_until: None,
            failures: 0,
            reason: None,
            slot: Slot::Nowhere,
            work: Arc::default(),
        };
        let limit = if lane.proven { pace.sessions_max } else { lane.limit };
        self.lanes.insert(key.clone(), Lane { limit, ..lane });
    }

    /// A part less.
    pub(super) fn leave(&mut self, key: &Key, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.parts = lane.parts.saturating_sub(1);
            self.refresh(key, now);
        }
    }

    /// A part waits from now on, until `due`.
    pub(super) fn wait(&mut self, key: &Key, due: Instant, id: Id, now: Instant) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.due.insert((due, id));
        if lane.idle > 0 && due <= now {
            lane.work.notify_one();
        }
        self.refresh(key, now);
    }

    /// A part waits no more: it was taken, or held, or is gone.
    pub(super) fn unwait(&mut self, key: &Key, due: Instant, id: Id, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key)
            && lane.due.remove(&(due, id))
        {
            self.refresh(key, now);
        }
    }

    /// A destination to which one more session may be opened now; it counts as open. `sessions_max`: of all destinations together.
    pub(super) fn open_session(&mut self, now: Instant, sessions_max: usize) -> Option<Key> {
        while let Some((at, key)) = self.later.first().cloned() {
            if at > now {
                break;
            }
            self.later.remove(&(at, key.clone()));
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.slot = Slot::Nowhere;
            }
            self.refresh(&key, now);
        }
        let unproven = self.ready_unproven.first().filter(|_| self.unproven_sessions < sessions_max.div_ceil(2));
        let (_, key) = match (self.ready.first(), unproven) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) => a,
            (None, Some(b)) => b,
            (None, None) => return None,
        }
        .clone();
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.sessions += 1;
            self.unproven_sessions += usize::from(!lane.proven);
        }
        self.unslot(&key);
        self.refresh(&key, now);
        Some(key)
    }

    /// A session ended.
    pub(super) fn close_session(&mut self, key: &Key, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.sessions = lane.sessions.saturating_sub(1);
            self.unproven_sessions = self.unproven_sessions.saturating_sub(usize::from(!lane.proven));
            self.refresh(key, now);
        }
    }

    /// A session has nothing to carry, and waits on what is returned; or it goes on.
    pub(super) fn set_idle(&mut self, key: &Key, idle: bool, now: Instant) -> Option<Arc<Notify>> {
        let lane = self.lanes.get_mut(key)?;
        lane.idle = if idle { lane.idle + 1 } else { lane.idle.saturating_sub(1) };
        let work = Arc::clone(&lane.work);
        self.refresh(key, now);
        Some(work)
    }

    /// The message of this destination that has been due longest, if one may be sent now.
    pub(super) fn next(&mut self, key: &Key, now: Instant) -> Option<Id> {
        let lane = self.lanes.get_mut(key)?;
        if lane.down_until.is_some_and(|until| until > now) || lane.next_message_at.is_some_and(|at| at > now) {
            return None;
        }
        let (due, id) = *lane.due.first()?;
        if due > now {
            return None;
        }
        lane.due.remove(&(due, id));
        if !lane.pace.interval.is_zero() {
            lane.next_message_at = Some(now + lane.pace.interval);
        }
        self.refresh(key, now);
        Some(id)
    }

    /// A message was taken there: the destination is well, and may have one session more.
    pub(super) fn good(&mut self, key: &Key, now: Instant) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.proven && lane.down_until.is_none() && lane.limit >= lane.pace.sessions_max {
            return;
        }
        if !lane.proven {
            self.unproven_sessions = self.unproven_sessions.saturating_sub(lane.sessions);
            self.unslot(key);
        }
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.failures > 0 {
            self.unwritten.insert(key.clone());
        }
        (lane.proven, lane.down_until, lane.failures, lane.reason) = (true, None, 0, None);
        lane.limit = (lane.limit + 1).min(lane.pace.sessions_max);
        self.refresh(key, now);
    }

    /// The destination cannot be reached: nothing is tried for a while, then one session tries. `pause` is told how often it failed before.
    /// Gives the pause.
    pub(super) fn down(
        &mut self,
        key: &Key,
        reason: &str,
        pause: &dyn Fn(u32) -> Duration,
        now: Instant,
    ) -> Option<Duration> {
        let lane = self.lanes.get_mut(key)?;
        // Sessions that were opened together fail together: that is one failure.
        if lane.down_until.is_some_and(|until| until > now) {
            return None;
        }
        if lane.proven && *key != Key::Mailboxes {
            lane.proven = false;
            self.unproven_sessions += lane.sessions;
        }
        let pause = pause(lane.failures);
        lane.failures = lane.failures.saturating_add(1);
        lane.down_until = Some(now + pause);
        lane.reason = Some(reason.into());
        if *key != Key::Mailboxes {
            lane.limit = 1;
        }
        self.unwritten.insert(key.clone());
        self.unslot(key);
        self.refresh(key, now);
        Some(pause)
    }

    /// Whatever was wrong there is forgotten.
    pub(super) fn up(&mut self, key: &Key, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key) {
            if lane.down_until.take().is_some() {
                self.unwritten.insert(key.clone());
            }
            self.refresh(key, now);
        }
    }

    /// How often a destination failed in a row, how long it is left alone, and why.
    pub(super) fn failures(&self, key: &Key, now: Instant) -> Option<(u32, Duration, Option<Arc<str>>)> {
        let lane = self.lanes.get(key)?;
        let left = lane.down_until.map(|until| until.saturating_duration_since(now)).unwrap_or_default();
        Some((lane.failures, left, lane.reason.clone()))
    }

    /// A destination as it was on record; failures of 0: all is well.
    pub(super) fn restore(&mut self, key: &Key, failures: u32, until: Instant, reason: &str, now: Instant) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let is_down = failures > 0;
        lane.limit = if is_down { 1 } else { SESSIONS_AT_FIRST.min(lane.pace.sessions_max) };
        (lane.failures, lane.down_until) = (failures, is_down.then_some(until));
        lane.reason = is_down.then(|| reason.into());
        self.unslot(key);
        self.refresh(key, now);
    }

    /// A destination of which something is not on record; it counts as written.
    pub(super) fn pop_unwritten(&mut self) -> Option<Key> {
        self.unwritten.pop_first()
    }

    /// Everything that is known of failures counts as not on record.
    pub(super) fn renew(&mut self) {
        self.unwritten.extend(self.lanes.iter().filter(|(_, lane)| lane.failures > 0).map(|(key, _)| key.clone()));
    }

    /// When something can be done next that cannot be done now.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        if self.ready.is_empty() && self.ready_unproven.is_empty() {
            return self.later.first().map(|(at, _)| *at);
        }
        Some(now)
    }

    /// A destination as it is.
    pub(super) fn state(&self, key: &Key, now: Instant) -> Option<LaneState> {
        let lane = self.lanes.get(key)?;
        let until = lane.down_until.map(|until| until.saturating_duration_since(now));
        let down = until.zip(lane.reason.clone());
        Some(LaneState { messages: lane.parts, sessions: lane.sessions, down })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.lanes.keys()
    }

    fn unslot(&mut self, key: &Key) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        match std::mem::replace(&mut lane.slot, Slot::Nowhere) {
            Slot::Nowhere => {}
            Slot::Ready(turn, true) => drop(self.ready.remove(&(turn, key.clone()))),
            Slot::Ready(turn, false) => drop(self.ready_unproven.remove(&(turn, key.clone()))),
            Slot::Later(at) => drop(self.later.remove(&(at, key.clone()))),
        }
    }

    /// Puts the lane where it belongs in the agenda; forgets it when it has nothing.
    fn refresh(&mut self, key: &Key, now: Instant) {
        let Some(lane) = self.lanes.get(key) else { return };
        if lane.parts == 0 && lane.sessions == 0 {
            self.unslot(key);
            self.lanes.remove(key);
            return;
        }
        let due = lane.due.first().map(|(due, _)| *due).filter(|_| lane.sessions < lane.limit && lane.idle == 0);
        let at = due.map(|due| [lane.down_until, lane.next_message_at].into_iter().flatten().fold(due, Instant::max));
        match (lane.slot, at) {
            (Slot::Nowhere, None) => return,
            (Slot::Ready(_, proven), Some(at)) if at <= now && proven == lane.proven => return,
            (Slot::Later(have), Some(at)) if at > now && have == at => return,
            (Slot::Nowhere | Slot::Ready(..) | Slot::Later(_), _) => {}
        }
        self.unslot(key);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        match at {
            None => {}
            Some(at) if at > now => {
                lane.slot = Slot::Later(at);
                self.later.insert((at, key.clone()));
            }
            Some(_) => {
                self.turn += 1;
                lane.slot = Slot::Ready(self.turn, lane.proven);
                let ready = if lane.proven { &mut self.ready } else { &mut self.ready_unproven };
                ready.insert((self.turn, key.clone()));
            }
        }
    }
}
