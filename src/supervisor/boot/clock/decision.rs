//! What is believed of a time, and what is done about it.
//!
//! Owns: where the clock begins (`start`), which servers are believed (`agree`), whether the clock is stepped, slewed or left
//! (`decide`), when they are asked again (`wait_after`). Called by: `clock`, `keeper`. Never: reads or sets a clock; times are arguments.
//! Spec: RFC 5905 section 11.2.1 (what servers claim, intersected), RFC 4330 section 10 (how often a client may ask).

use std::fmt;
use std::time::{Duration, SystemTime};

use super::report::{day, span};

/// No machine runs a version so long after it was built: a clock beyond is wrong.
const LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Times that were sure may be undercut by this: who noted them was a moment ahead.
const SURE_SLACK: Duration = Duration::from_secs(3600);
/// At the first answer the clock is stepped when it is off by more than this; else, and later, it is slewed.
const STEP_SECS: f64 = 0.5;
/// The kernel slews by 500 ppm: this takes a day and a half. What is beyond is left to people.
const SLEW_SECS_MAX: f64 = 60.0;
/// A round trip that took longer says nothing.
const DELAY_SECS_MAX: f64 = 2.0;
/// What the two clocks may run apart within a round trip.
const DELAY_SECS_MIN: f64 = -0.001;
/// What a server's clock is allowed to be wrong by, beside half the round trip.
const ERROR_SECS: f64 = 0.05;
/// A clock that is off by less has come to rest, and is looked at more and more rarely.
const REST_SECS: f64 = 0.1;
/// Between two rounds when nobody has answered yet (RFC 4330 section 10: never under 15 seconds).
pub(super) const WAIT_MIN: Duration = Duration::from_secs(16);
/// Between two rounds when somebody has.
const WAIT_GOOD_MIN: Duration = Duration::from_secs(64);
const WAIT_MAX: Duration = Duration::from_secs(1024);

/// What is known before anybody is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// When this version was built: no clock is right before.
    pub(super) built: SystemTime,
    /// The last time at which this machine is known to have run.
    pub(super) seen: Option<SystemTime>,
    /// The last time on which servers agreed.
    pub(super) sure: Option<SystemTime>,
}

impl Bounds {
    /// Where a clock that is wrong is set to.
    fn floor(&self) -> SystemTime {
        let seen = self.seen.filter(|seen| *seen <= self.latest());
        seen.map_or(self.built, |seen| seen.max(self.built))
    }

    /// Earlier than this nobody is believed.
    pub(super) fn earliest(&self) -> SystemTime {
        let sure = self.sure.filter(|sure| *sure <= self.latest()).and_then(|sure| sure.checked_sub(SURE_SLACK));
        sure.map_or(self.built, |sure| sure.max(self.built))
    }

    /// Later than this nobody is believed.
    pub(super) fn latest(&self) -> SystemTime {
        self.built.checked_add(LIFE).unwrap_or(self.built)
    }
}

/// What the clock is to be set to at boot when it says `said`; none when that can be right.
pub(super) fn start(said: SystemTime, bounds: &Bounds) -> Option<SystemTime> {
    let floor = bounds.floor();
    (said < floor || said > bounds.latest()).then_some(floor)
}

/// What one server said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// What has to be added to our clock.
    pub(super) offset_secs: f64,
    /// Round trip.
    pub(super) delay_secs: f64,
}

impl Sample {
    /// The offsets that this answer allows; none when it says nothing.
    fn interval(&self) -> Option<(f64, f64)> {
        let is_sound = self.offset_secs.is_finite() && (DELAY_SECS_MIN..=DELAY_SECS_MAX).contains(&self.delay_secs);
        let radius = self.delay_secs.max(0.0) / 2.0 + ERROR_SECS;
        is_sound.then_some((self.offset_secs - radius, self.offset_secs + radius))
    }

    /// Whether the clock may be off by this.
    pub(super) fn allows(&self, at_secs: f64) -> bool {
        self.interval().is_some_and(|(lower, upper)| lower <= at_secs && at_secs <= upper)
    }
}

/// An offset on which most servers agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Agreed {
    pub(super) offset_secs: f64,
    /// The offset that every one of them allows.
    pub(super) at_secs: f64,
    /// How many agree.
    pub(super) servers: usize,
}

/// The offset on which most of those that answered agree; none when no majority does. One that answers alone is believed: who names
/// one server trusts it.
pub(super) fn agree(samples: &[Sample]) -> Option<Agreed> {
    // The point that lies in most of the intervals is the lower end of one of them.
    let holders = |at: f64| samples.iter().filter(move |sample| sample.allows(at));
    let ends = samples.iter().filter_map(|sample| Some(sample.interval()?.0));
    let at_secs = ends.max_by_key(|at| holders(*at).count())?;
    let servers = holders(at_secs).count();
    if servers * 2 <= samples.len() {
        return None;
    }
    // Of those that agree, the one with the shortest way knows best.
    let nearest = holders(at_secs).min_by(|one, other| one.delay_secs.total_cmp(&other.delay_secs))?;
    Some(Agreed { offset_secs: nearest.offset_secs, at_secs, servers })
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Decision {
    /// Set the clock to this.
    Step(SystemTime),
    Slew,
    Refuse(Refusal),
}

/// Why servers that agree are not followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Refusal {
    /// They name this time, and it was later already.
    Early(SystemTime),
    /// They name this time, so long after this version was built that it cannot be.
    Late(SystemTime),
    /// The clock is off by this many seconds, and things run.
    Far(f64),
}

impl fmt::Display for Refusal {
    /// Without what changes from round to round: each new text is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Early(then) => {
                write!(f, "time servers name {}, which is over already: they are not believed", day(*then))
            }
            Self::Late(then) => write!(f, "time servers name {}: they are not believed", day(*then)),
            Self::Far(secs) => write!(
                f,
                "by the time servers the clock is {} {}: it is not moved so far while services run. Set the time (console, 3), or reboot",
                span((secs.abs() / 60.0).round() * 60.0),
                if *secs > 0.0 { "late" } else { "early" }
            ),
        }
    }
}

/// What is done about this offset. `first`: nobody was followed before, since boot or since somebody set the clock.
pub(super) fn decide(offset_secs: f64, first: bool, now: SystemTime, bounds: &Bounds) -> Decision {
    let Some(then) = shifted(now, offset_secs) else { return Decision::Refuse(Refusal::Far(offset_secs)) };
    if then < bounds.earliest() {
        return Decision::Refuse(Refusal::Early(then));
    }
    if then > bounds.latest() {
        return Decision::Refuse(Refusal::Late(then));
    }
    match offset_secs.abs() {
        size if first && size > STEP_SECS => Decision::Step(then),
        size if size <= SLEW_SECS_MAX => Decision::Slew,
        _ => Decision::Refuse(Refusal::Far(offset_secs)),
    }
}

/// A time and so many seconds; none where that is no time.
pub(super) fn shifted(time: SystemTime, by_secs: f64) -> Option<SystemTime> {
    let by = Duration::try_from_secs_f64(by_secs.abs()).ok()?;
    if by_secs < 0.0 { time.checked_sub(by) } else { time.checked_add(by) }
}

/// How long after a round the next one is, when it was so long before this one. `offset_secs`: on which they agreed, if they did.
pub(super) fn wait_after(before: Duration, offset_secs: Option<f64>) -> Duration {
    match offset_secs {
        Some(offset) if offset.abs() > REST_SECS => WAIT_GOOD_MIN,
        Some(_) => (before * 2).clamp(WAIT_GOOD_MIN, WAIT_MAX),
        None => (before * 2).clamp(WAIT_MIN, WAIT_MAX),
    }
}
