//! Where the clock begins, who is believed, what is done, what is noted. No test touches this machine's clock: each has one of its own.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rsntp::KissCode;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::book::Book;
use super::decision::{self, Bounds, Decision, Refusal, Sample};
use super::device::{Device, RtcTime, Timepiece};
use super::keeper::{Keeper, Schedule, State};
use super::note::Note;
use super::report::{Source, date, span};
use super::servers::AskError;
use super::{Begun, Clock};
use crate::config::site::TimeServer;

/// When this version was built, for these tests: 2026-11-24 08:30:00.
const BUILT: u64 = 1_795_509_000;
const DAY: u64 = 24 * 3600;

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

/// A clock that stands still.
#[derive(Debug)]
struct Still {
    now: Mutex<SystemTime>,
    done: Mutex<Vec<String>>,
}

impl Still {
    fn at(secs: u64) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(at(secs)), done: Mutex::default() })
    }

    /// What was done to it since the last call.
    fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }
}

impl Timepiece for Still {
    fn now(&self) -> SystemTime {
        *self.now.lock().unwrap()
    }

    fn set(&self, to: SystemTime) -> io::Result<()> {
        *self.now.lock().unwrap() = to;
        self.done.lock().unwrap().push(format!("set {}", date(to)));
        Ok(())
    }

    fn slew(&self, by_secs: f64) -> io::Result<()> {
        self.done.lock().unwrap().push(format!("slew {by_secs}"));
        Ok(())
    }

    fn keep(&self) -> io::Result<()> {
        self.done.lock().unwrap().push("keep".to_owned());
        Ok(())
    }
}

#[test]
fn the_machines_clock_is_nobodys_but_process_1s() {
    let before = Device.now();
    for refused in [Device.set(at(BUILT)), Device.slew(1.0), Device.keep()] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    assert!(Device.now() >= before);
}

#[test]
fn a_clock_that_cannot_be_right_begins_at_the_last_known_time() {
    let check = |said: u64, seen: Option<u64>, expected: Option<u64>| {
        let bounds = Bounds { built: at(BUILT), seen: seen.map(at), sure: None };
        assert_eq!(decision::start(at(said), &bounds), expected.map(at), "{said} {seen:?}");
    };
    check(0, None, Some(BUILT));
    check(BUILT - 1, None, Some(BUILT));
    check(BUILT, None, None);
    check(BUILT + 9 * DAY, None, None);
    check(0, Some(BUILT + DAY), Some(BUILT + DAY));
    check(BUILT + 1, Some(BUILT + DAY), Some(BUILT + DAY));
    check(BUILT + DAY, Some(BUILT + DAY), None);
    // Noted by an older version; by a clock that was far ahead.
    check(0, Some(BUILT - DAY), Some(BUILT));
    check(0, Some(BUILT + 9000 * DAY), Some(BUILT));
    // A battery that fails can also make it later.
    check(BUILT + 9000 * DAY, Some(BUILT + DAY), Some(BUILT + DAY));
}

#[test]
fn most_servers_that_answer_must_agree() {
    let check = |samples: &[(f64, f64)], expected: Option<(f64, usize)>| {
        let samples: Vec<Sample> = samples
            .iter()
            .map(|(offset_secs, delay_secs)| Sample { offset_secs: *offset_secs, delay_secs: *delay_secs })
            .collect();
        let agreed = decision::agree(&samples).map(|agreed| (agreed.offset_secs, agreed.servers));
        assert_eq!(agreed, expected, "{samples:?}");
    };
    check(&[], None);
    check(&[(3.0, 0.01)], Some((3.0, 1)));
    // The one with the shorter way is taken.
    check(&[(3.0, 0.02), (3.01, 0.01)], Some((3.01, 2)));
    check(&[(3.0, 0.01), (900.0, 0.01)], None);
    check(&[(3.0, 0.01), (900.0, 0.001), (3.02, 0.02)], Some((3.0, 2)));
    check(&[(3.0, 0.01), (900.0, 0.001), (3.02, 0.02), (900.0, 0.01)], None);
    // One liar more than others, and they are believed: nothing can be done about that.
    check(&[(3.0, 0.01), (900.0, 0.001), (900.0, 0.01)], Some((900.0, 2)));
    // Each touches the next, and all three have a point in common only by two and two.
    check(&[(0.0, 0.0), (0.08, 0.0), (0.16, 0.0)], Some((0.08, 2)));
    // A long way allows much; too long a way, a way back in time, or no number, says nothing and still counts as an answer.
    check(&[(0.0, 1.9), (0.9, 0.01)], Some((0.9, 2)));
    check(&[(3.0, 2.1)], None);
    check(&[(3.0, -0.5)], None);
    check(&[(f64::NAN, 0.01)], None);
    check(&[(f64::INFINITY, 0.01)], None);
    check(&[(3.0, f64::NAN)], None);
    check(&[(3.0, 0.01), (3.0, 2.1)], None);
    // Decades behind, after a battery has failed.
    check(&[(1.8e9, 0.01), (1.8e9 + 0.01, 0.03)], Some((1.8e9, 2)));
}

#[test]
fn the_first_answer_may_step_and_later_ones_slew() {
    let now = BUILT + 100 * DAY;
    let check = |offset: f64, first: bool, expected: Decision| {
        let bounds = Bounds { built: at(BUILT), seen: Some(at(now)), sure: Some(at(BUILT + 50 * DAY)) };
        assert_eq!(decision::decide(offset, first, at(now), &bounds), expected, "{offset} {first}");
    };
    let day = 86_400.0;
    for first in [true, false] {
        check(0.000_1, first, Decision::Slew);
        check(-0.5, first, Decision::Slew);
        // Before the last time that was sure, less an hour; beyond all bounds.
        let early = -50.0 * day - 3601.0;
        check(early, first, Decision::Refuse(Refusal::Early(at(BUILT + 50 * DAY - 3601))));
        check(-1.0e9, first, Decision::Refuse(Refusal::Early(at(now - 1_000_000_000))));
        check(9000.0 * day, first, Decision::Refuse(Refusal::Late(at(now + 9000 * DAY))));
        check(1.0e300, first, Decision::Refuse(Refusal::Far(1.0e300)));
    }
    check(0.6, true, Decision::Step(at(now) + Duration::from_secs_f64(0.6)));
    check(0.6, false, Decision::Slew);
    check(-60.0, false, Decision::Slew);
    check(60.1, false, Decision::Refuse(Refusal::Far(60.1)));
    check(-day, false, Decision::Refuse(Refusal::Far(-day)));
    check(-day, true, Decision::Step(at(now - DAY)));
    check(-50.0 * day - 3600.0, true, Decision::Step(at(BUILT + 50 * DAY - 3600)));
    check(1000.0 * day, true, Decision::Step(at(now + 1000 * DAY)));
}

#[test]
fn servers_are_asked_ever_more_rarely_and_never_too_often() {
    let check = |answers: &[Option<f64>], expected: &[u64]| {
        let mut wait = Duration::ZERO;
        let mut next = |offset: &Option<f64>| {
            wait = decision::wait_after(wait, *offset);
            wait.as_secs()
        };
        assert_eq!(answers.iter().map(&mut next).collect::<Vec<_>>(), expected, "{answers:?}");
    };
    check(&[None; 9], &[16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
    check(&[Some(0.0); 6], &[64, 128, 256, 512, 1024, 1024]);
    // Off again: looked at closely. Silent: as before.
    check(&[Some(0.0), Some(0.05), Some(-0.2), Some(0.01), None, None], &[64, 128, 64, 128, 256, 512]);
    check(&[None, Some(9.0)], &[16, 64]);
}

#[test]
fn the_note_survives_and_garbage_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clock.json");
    assert_eq!(Note::read(&path), Note::default());
    let mut note = Note::default();
    note.trust(at(BUILT));
    note.see(at(BUILT + 5));
    note.write(&path).unwrap();
    let read = Note::read(&path);
    assert_eq!((read.seen(), read.sure()), (Some(at(BUILT + 5)), Some(at(BUILT))));
    // Who sets the clock may mistype: servers are believed again, whatever they said before.
    note.take(at(BUILT + DAY));
    assert_eq!((note.seen(), note.sure()), (Some(at(BUILT + DAY)), None));
    for garbage in
        ["", "{", "[]", "{\"seen\":-1}", "{\"seen\":\"now\"}", "{\"seen\":18446744073709551616}", &"x".repeat(9999)]
    {
        fs::write(&path, garbage).unwrap();
        assert_eq!(Note::read(&path), Note::default(), "{garbage:.20}");
    }
    // A number that is no time.
    fs::write(&path, "{\"seen\":18446744073709551615}").unwrap();
    assert_eq!(Note::read(&path).seen(), None);
}

#[test]
fn a_boot_in_1970_goes_on_where_the_machine_was() {
    let dir = tempfile::tempdir().unwrap();
    let boot = |said: u64| {
        let still = Still::at(said);
        let mut begun = Begun::new(Arc::<Still>::clone(&still), at(BUILT));
        begun.remember(dir.path());
        (still, begun)
    };
    let (still, begun) = boot(3);
    assert_eq!(still.now(), at(BUILT));
    let trouble = begun.trouble().unwrap();
    for expected in
        ["says 1970-01-01 00:00:03 UTC", "is set to 2026-11-24 08:30:00 UTC", "(console, 3)", "time-servers"]
    {
        assert!(trouble.contains(expected), "{expected}: {trouble}");
    }
    // It ran for a day, and the clock on the board has lost the time again.
    begun.book.note(at(BUILT + DAY));
    let (still, begun) = boot(BUILT - DAY);
    assert_eq!(still.done(), ["set 2026-11-24 08:30:00 UTC", "set 2026-11-25 08:30:00 UTC"]);
    assert!(begun.trouble().unwrap().contains("is set to 2026-11-25 08:30:00 UTC"));
    let (still, begun) = boot(BUILT + DAY);
    assert_eq!((still.done(), begun.trouble()), (vec![], None));
}

/// A keeper that has these servers, and what it says.
fn keeper(still: &Arc<Still>, dir: &Path) -> (Keeper, watch::Receiver<State>) {
    let mut begun = Begun::new(Arc::<Still>::clone(still), at(BUILT));
    begun.remember(dir);
    let (state, told) = watch::channel(State::new(begun.trouble()));
    let keeper = Keeper {
        timepiece: begun.timepiece,
        book: Arc::new(begun.book),
        state,
        settings: watch::channel(Vec::new()).1,
        network: None,
        orders: mpsc::channel(1).1,
        schedule: Schedule::new(Instant::now()),
    };
    still.done();
    (keeper, told)
}

fn server(name: &str) -> TimeServer {
    name.parse().unwrap()
}

/// Three servers answer with these offsets; none: not at all.
fn answer(keeper: &mut Keeper, offsets: [Option<f64>; 3], now: Instant) {
    let servers = ["a.test", "b.test", "192.0.2.3:1123"].map(server);
    let sample = |offset: Option<f64>| match offset {
        Some(offset_secs) => Ok(Sample { offset_secs, delay_secs: 0.01 }),
        None => Err(AskError::Silent(io::ErrorKind::TimedOut.into())),
    };
    keeper.take(&servers, servers.iter().cloned().zip(offsets.map(sample)).collect(), now);
}

#[test]
fn servers_are_followed_noted_and_later_not_believed_in_everything() {
    let dir = tempfile::tempdir().unwrap();
    let still = Still::at(1);
    let (mut keeper, told) = keeper(&still, dir.path());
    let begin = Instant::now();
    let report = || told.borrow().report(begin, still.now());
    assert_eq!((report().source, report().synchronised, report().troubles.len()), (Source::LastKnown, false, 1));
    assert!(report().brief().contains("has lost the time"));

    // One of them lies. The first answer steps, and the clock on the board follows.
    let ten_days = 864_000.0;
    answer(&mut keeper, [Some(ten_days), Some(-5.0e9), Some(ten_days)], begin);
    assert_eq!(still.done(), ["set 2026-12-04 08:30:00 UTC", "keep"]);
    let first = report();
    assert_eq!((first.source, first.synchronised, first.offset_secs), (Source::Servers, true, Some(ten_days)));
    assert_eq!(first.brief(), "right by 2 of 3 time servers");
    assert_eq!((first.servers[1].fault.as_deref(), &first.troubles), (Some("says another time than most"), &vec![]));
    assert_eq!(Note::read(&dir.path().join("clock.json")).sure(), Some(still.now()), "noted at once");

    // Later it is slewed, and the board waits for a day.
    answer(&mut keeper, [Some(0.25), None, Some(0.25)], begin);
    assert_eq!(still.done(), ["slew 0.25"]);
    assert!(report().servers[1].fault.as_ref().unwrap().contains("does not answer"));
    answer(&mut keeper, [Some(0.25), None, Some(0.25)], begin + Duration::from_secs(DAY + 1));
    assert_eq!(still.done(), ["slew 0.25", "keep"]);

    // All of them lie now: a day back, far ahead, each another time. The clock stays, and people are told.
    let mut check = |offsets: [Option<f64>; 3], trouble: &str| {
        answer(&mut keeper, offsets, begin);
        assert_eq!(still.done(), Vec::<String>::new(), "{offsets:?}");
        let report = report();
        assert!(report.troubles.iter().any(|told| told.contains(trouble)), "{trouble}: {:?}", report.troubles);
        assert_eq!(report.source, Source::Servers);
    };
    check([Some(-86_400.0); 3], "time servers name 2026-12-03, which is over already");
    check([Some(7300.0); 3], "the clock is 2 hours late");
    check([Some(-61.0); 3], "the clock is 60.0 s early");
    check([Some(1.0e9); 3], "time servers name 2058-08-12");
    check([Some(0.0), Some(5.0), Some(10.0)], "disagree");
    // Silence does not make them right again.
    check([None; 3], "disagree");
    answer(&mut keeper, [Some(0.0); 3], begin);
    assert!(report().troubles.is_empty());
}

#[test]
fn a_server_that_wants_to_be_left_alone_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keeper, told) = keeper(&Still::at(BUILT), dir.path());
    let now = Instant::now();
    let servers = [server("a.test")];
    let kiss = (servers[0].clone(), Err(AskError::Kiss(KissCode::RateExceeded)));
    keeper.take(&servers, [kiss].into(), now);
    let fault = told.borrow().report(now, at(BUILT)).servers[0].fault.clone().unwrap();
    assert!(fault.starts_with("is not to be asked: Rate exceeded"), "{fault}");
    assert!(keeper.schedule.is_shunned(&servers[0]));
    // Not asked: what it said last is what is known of it.
    keeper.take(&servers, [].into(), now);
    assert_eq!(told.borrow().report(now, at(BUILT)).servers[0].fault.as_ref(), Some(&fault));
    // It takes a while until people are bothered.
    assert!(told.borrow().report(now + Duration::from_secs(60), at(BUILT)).troubles.is_empty());
    let late = told.borrow().report(now + Duration::from_secs(300), at(BUILT)).troubles;
    assert!(late[0].starts_with("no time server answers: a.test is not to be asked"), "{late:?}");
}

#[test]
fn a_person_sets_the_clock_and_servers_may_correct_him() {
    let dir = tempfile::tempdir().unwrap();
    let still = Still::at(1);
    let (mut keeper, told) = keeper(&still, dir.path());
    let now = Instant::now();
    for impossible in [BUILT - 1, BUILT + 9000 * DAY] {
        assert!(keeper.obey(at(impossible), now).unwrap_err().contains("this version was built at 2026-11-24"));
    }
    assert_eq!(still.done(), Vec::<String>::new());
    assert_eq!(keeper.obey(at(BUILT + 2 * DAY), now).unwrap(), "the clock is set");
    assert_eq!(still.done(), ["set 2026-11-26 08:30:00 UTC", "keep"]);
    let report = told.borrow().report(now, still.now());
    assert_eq!((report.source, report.synchronised, report.troubles.len()), (Source::Hand, false, 0));
    assert_eq!(report.brief(), "set by hand; no time server is named");
    assert_eq!(Note::read(&dir.path().join("clock.json")).seen(), Some(at(BUILT + 2 * DAY)));
    // He was a day ahead.
    answer(&mut keeper, [Some(-86_400.0); 3], now);
    assert_eq!(still.done(), ["set 2026-11-25 08:30:00 UTC", "keep"]);
    assert_eq!(told.borrow().steps, 2);
}

#[test]
fn who_named_no_server_gets_those_of_the_network() {
    let named = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let check = |settings: &[&str], expected: &[&str]| {
        let settings: Vec<TimeServer> = settings.iter().map(|text| server(text)).collect();
        let asked: Vec<String> = super::keeper::asked(&settings, &named).iter().map(ToString::to_string).collect();
        assert_eq!(asked, expected);
    };
    check(&[], &["192.0.2.1", "2001:db8::1"]);
    check(&["ntp.test"], &["ntp.test"]);
    assert!(super::keeper::asked(&[], &[]).is_empty());
}

#[tokio::test]
async fn the_end_is_noted_and_the_board_gets_only_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let still = Still::at(1);
    let start = || {
        let mut begun = Begun::new(Arc::<Still>::clone(&still), at(BUILT));
        begun.remember(dir.path());
        Clock::start(begun, Vec::new(), None)
    };
    let clock = start();
    still.done();
    *still.now.lock().unwrap() = at(BUILT + 60);
    clock.end();
    assert_eq!(still.done(), Vec::<String>::new(), "the board still says that it has lost the time");
    assert_eq!(Note::read(&dir.path().join("clock.json")).seen(), Some(at(BUILT + 60)));
    assert_eq!(clock.set(at(BUILT + 2 * DAY)).await.unwrap(), "the clock is set");
    still.done();
    clock.end();
    assert_eq!(still.done(), ["keep"]);
}

#[test]
fn times_are_written_for_people_and_for_the_board() {
    let check = |secs: f64, expected: &str| assert_eq!(span(secs), expected);
    check(0.000_25, "0.2 ms");
    check(0.1, "0.1 s");
    check(61.0, "61.0 s");
    check(7100.0, "118 minutes");
    check(7300.0, "2 hours");
    check(1.0e9, "11574 days");
    let board = format!("{:?}", RtcTime::of(at(BUILT)).unwrap());
    assert_eq!(board, "RtcTime { sec: 0, min: 30, hour: 8, mday: 24, mon: 10, year: 126, wday: 0, yday: 0, isdst: 0 }");
}

#[test]
fn a_book_without_a_file_is_kept_in_memory() {
    let book = Book::new(at(BUILT));
    book.note(at(BUILT + 5));
    assert_eq!(book.bounds().seen, Some(at(BUILT + 5)));
}
