//! The appliance's clock against time servers that nobody here wrote (chrony), and against one that means harm.
//!
//! Owns: those servers, on loopback. Called by: `cargo test`. Never: sets the clock of the machine that runs the tests: the clock under
//! test is a number in memory, and chrony runs without the capability to set one, and with `-x`.

use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fife::config::site::TimeServer;
use fife::supervisor::boot::clock::{Begun, Clock, Report, Source, Timepiece};
use nix::unistd::geteuid;

use crate::harness::{DEADLINE, good, run, text, wait_for};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that runs as the machine's, beside it.
#[derive(Debug, Default)]
struct Beside {
    set: Mutex<Vec<SystemTime>>,
    slewed: Mutex<Vec<f64>>,
}

#[expect(clippy::disallowed_methods, reason = "what chrony tells is compared with it")]
fn machine() -> SystemTime {
    SystemTime::now()
}

impl Timepiece for Beside {
    // rsntp measures by the machine's clock: until it is set, the one under test says the same.
    fn now(&self) -> SystemTime {
        self.set.lock().unwrap().last().copied().unwrap_or_else(machine)
    }

    fn set(&self, to: SystemTime) -> io::Result<()> {
        self.set.lock().unwrap().push(to);
        Ok(())
    }

    fn slew(&self, by_secs: f64) -> io::Result<()> {
        self.slewed.lock().unwrap().push(by_secs);
        Ok(())
    }

    fn keep(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A chrony, ended with this.
struct Chrony(Child);

impl Drop for Chrony {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a chrony that is ahead of the machine's clock by so many days.
fn chrony(dir: &Path, days_ahead: u32) -> (Chrony, TimeServer) {
    let port = free_port();
    let dir = dir.join(format!("chrony-{port}"));
    std::fs::create_dir(&dir).unwrap();
    // chrony wants the directory of its socket to be nobody else's.
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let (socket, file) = (dir.join("socket"), dir.join("chrony.conf"));
    let conf = format!(
        "port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 3\nmanual\ncmdport 0\nbindcmdaddress {}\npidfile {}\n",
        socket.display(),
        dir.join("pid").display()
    );
    std::fs::write(&file, conf).unwrap();
    let user = good(&run("id", &["-un"], b""));
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let without_clock: &[&str] = match geteuid().is_root() {
        true => &["setpriv", "--inh-caps", "-sys_time", "--bounding-set", "-sys_time"],
        false => &["env"],
    };
    let child = Command::new(without_clock[0])
        .args(&without_clock[1..])
        .args(["chronyd", "-x", "-d", "-U", "-u", user.trim(), "-f"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let chrony = Chrony(child);
    let said = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let then = machine() + DAY * days_ahead;
    let secs = then.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let date = good(&run("date", &["-u", "-d", &format!("@{secs}"), "+%b %d, %Y %H:%M:%S"], b""));
    let socket = socket.to_str().unwrap().to_owned();
    let ask = |words: &[&str]| run("env", &[&["TZ=UTC", "chronyc", "-h", &socket], words].concat(), b"");
    wait_for("chrony", || ask(&["tracking"]).status.success(), said);
    if days_ahead > 0 {
        let answer = ask(&["settime", date.trim()]);
        assert!(text(&answer).contains("200 OK"), "{}\n{}", text(&answer), said());
    }
    (chrony, format!("127.0.0.1:{port}").parse().unwrap())
}

/// A server that answers every question with what this makes of it.
fn hostile(answer: impl Fn(&[u8; 48]) -> Vec<u8> + Send + 'static) -> TimeServer {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut question = [0; 48];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            socket.send_to(&answer(&question), from).unwrap();
        }
    });
    format!("127.0.0.1:{port}").parse().unwrap()
}

/// An answer (RFC 4330 section 4) that says so many seconds since 1900 in both of its times.
fn says(question: &[u8; 48], first: u8, stratum: u8, reference: [u8; 4], secs: u32) -> Vec<u8> {
    let mut answer = vec![0; 48];
    (answer[0], answer[1]) = (first, stratum);
    answer[12..16].copy_from_slice(&reference);
    answer[24..32].copy_from_slice(&question[40..48]);
    for at in [32, 40] {
        answer[at..at + 4].copy_from_slice(&secs.to_be_bytes());
    }
    answer
}

/// A clock that asks these servers, once they have been asked; and what was done to it.
fn asked(servers: Vec<TimeServer>) -> (Report, Arc<Beside>) {
    let beside = Arc::new(Beside::default());
    let built = machine() - DAY;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let begun = Begun::new(Arc::<Beside>::clone(&beside), built);
        assert_eq!(begun.trouble(), None);
        let clock = Clock::start(begun, servers, None);
        clock.asked(DEADLINE).await;
        clock.report()
    });
    (report, beside)
}

#[test]
fn chrony_is_followed_from_next_year_and_from_now() {
    let dir = tempfile::tempdir().unwrap();
    let (_now, now) = chrony(dir.path(), 0);
    let (_ahead, ahead) = chrony(dir.path(), 400);
    let silent: TimeServer = format!("127.0.0.1:{}", free_port()).parse().unwrap();

    let (report, beside) = asked(vec![ahead.clone(), silent.clone()]);
    assert!(report.synchronised && report.source == Source::Servers, "{report:#?}");
    let set = beside.set.lock().unwrap().clone();
    let (from, to) = (machine() + DAY * 400 - DEADLINE, machine() + DAY * 400 + Duration::from_secs(2));
    assert!(set.len() == 1 && (from..=to).contains(&set[0]), "{set:?} {from:?} {to:?}");
    assert!(report.servers[1].fault.as_ref().unwrap().contains("refused"), "{report:#?}");

    let (report, beside) = asked(vec![now.clone()]);
    assert!(report.synchronised && report.offset_secs.unwrap().abs() < 0.1, "{report:#?}");
    assert!(beside.set.lock().unwrap().is_empty() && beside.slewed.lock().unwrap().len() == 1);

    // Two that differ: nobody is right.
    let (report, beside) = asked(vec![now, ahead]);
    assert!(!report.synchronised && report.troubles[0].contains("disagree"), "{report:#?}");
    assert!(beside.set.lock().unwrap().is_empty() && beside.slewed.lock().unwrap().is_empty());
}

#[test]
fn an_answer_that_means_harm_moves_no_clock() {
    let before = machine();
    let check = |server: TimeServer, expected: &str| {
        let (report, beside) = asked(vec![server]);
        let told: Vec<String> =
            report.servers.iter().filter_map(|one| one.fault.clone()).chain(report.troubles.clone()).collect();
        assert!(told.iter().any(|told| told.contains(expected)), "{expected}: {told:?}");
        assert!(!report.synchronised);
        assert!(beside.set.lock().unwrap().is_empty() && beside.slewed.lock().unwrap().is_empty(), "{expected}");
    };
    const SERVER: u8 = 0x24;
    // 1970, as before everything; 2079, after everything; 1900 stands for "no time" (RFC 4330 section 5).
    check(hostile(|question| says(question, SERVER, 2, *b"GPS\0", 2_208_988_800)), "name 1970-01-01");
    check(hostile(|question| says(question, SERVER, 2, *b"GPS\0", 1_357_000_000)), "not believed");
    check(hostile(|question| says(question, SERVER, 2, *b"GPS\0", 0)), "its answer is none");
    // Kiss-o'-death; a server that does not know the time itself; one that answers somebody else.
    check(hostile(|question| says(question, SERVER, 0, *b"DENY", 3_900_000_000)), "not to be asked: Access denied");
    check(hostile(|question| says(question, SERVER | 0xc0, 2, *b"GPS\0", 3_900_000_000)), "its answer is none");
    check(hostile(|question| says(question, SERVER, 16, *b"GPS\0", 3_900_000_000)), "its answer is none");
    check(hostile(|_| says(&[7; 48], SERVER, 2, *b"GPS\0", 3_900_000_000)), "its answer is none");
    // No answer at all in it.
    check(hostile(|_| b"x".to_vec()), "its answer is none");
    check(hostile(|question| question.to_vec()), "not to be asked");
    check(hostile(|_| vec![0xff; 48]), "its answer is none");
    assert!(machine() >= before, "this machine's clock is as it was");
}
