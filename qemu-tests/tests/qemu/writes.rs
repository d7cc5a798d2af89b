//! The disk as a power cut leaves it, two hundred times, from one log of its writes: what was acknowledged by then is there.
//!
//! Cheaper than to boot so often: the filesystem is read here (e2fsprogs), and fife serves from it on this machine.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use fife_image::disk::{DATA_FIRST_LBA, SECTOR};
use fife_qemu_tests::client::{SETTINGS_UNDER_LOAD, Senders, check_acknowledged, first_administrator, try_greeting};
use fife_qemu_tests::writes::{self, Log, Replay};
use fife_qemu_tests::{Disk, Firmware, Machine, image, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MOMENTS: usize = 200;
/// Messages that are acknowledged while the log is written.
const ACKNOWLEDGED: usize = 1_500;
const DISK_MIB: u64 = 512;

/// A fife on this machine. Ended when dropped.
struct Served {
    child: Child,
    imap: SocketAddr,
}

impl Served {
    /// From a state directory, with the settings that the guest had, at an address of loopback.
    fn start(fife: &Path, dir: &Path, address: Ipv4Addr) -> Self {
        let imap = SocketAddr::from((address, 1143));
        let listeners = format!(
            "listen-imap = [\"{imap}\"]\nlisten-imaps = []\nlisten-pop3 = []\nlisten-pop3s = []\n\
             [smtp]\nlisten = [\"{address}:1025\"]\nlisten-submission = []\nlisten-submissions = []\n\
             [ldap-proxy]\nlisten = [\"unix:run/ldap.sock\"]\nlisten-tls = []\n\
             [metrics]\nlisten = []\n"
        );
        let settings = dir.join("fife.toml");
        std::fs::write(&settings, format!("{SETTINGS_UNDER_LOAD}{listeners}")).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        let child = Command::new(fife)
            .args(["run", "--config"])
            .arg(&settings)
            .arg("--state")
            .arg(dir.join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut served = Self { child, imap };
        let answers = || {
            let ended = served.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}", std::fs::read_to_string(dir.join("log")).unwrap());
            try_greeting(imap)
        };
        wait_for("fife to serve", answers, || std::fs::read_to_string(dir.join("log")).unwrap());
        served
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).ok();
        drop(self.child.wait());
    }
}

/// Runs a program of e2fsprogs on the data partition; its status code and what it said.
fn e2(program: &str, arguments: &[&str], partition: &Path) -> (i32, String) {
    let output = Command::new(program).args(arguments).arg(partition).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

/// What the machine finds after its next boot.
fn take_out(partition: &Path, state: &Path) {
    let (code, said) = e2("e2fsck", &["-p"], partition);
    assert!(code <= 1, "e2fsck -p: {code} {said}");
    let (code, said) = e2("e2fsck", &["-f", "-n"], partition);
    assert_eq!(code, 0, "e2fsck -f: {said}");
    std::fs::create_dir(state).unwrap();
    let (code, said) = e2("debugfs", &["-R", &format!("rdump / {}", state.display())], partition);
    assert_eq!(code, 0, "debugfs: {said}");
}

#[test]
fn what_was_acknowledged_by_then_is_on_the_disk_at_two_hundred_moments() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), DISK_MIB);
    disk.write_esp("fife.toml", SETTINGS_UNDER_LOAD.as_bytes());
    let machine = Machine::new("mail1", Firmware::Bios, &disk);
    let mut guest = machine.start();
    let (admin, password) = first_administrator(&guest);
    guest.press_power_button();
    guest.wait_off();

    let before = dir.path().join("before");
    data_partition(&disk, &before);
    let log = dir.path().join("log");
    let guest = machine.log_writes(&log).start();
    guest.console.wait("fife: serving");
    let mut senders = Senders::start(&guest, &admin, &password);
    // With the number of entries that the log had when the acknowledgement was here: all that counts is among them.
    let mut acknowledged = Vec::new();
    while acknowledged.len() < ACKNOWLEDGED {
        acknowledged.push((senders.acknowledged(), writes::count(&log)));
    }
    guest.cut();
    drop(senders.stop());

    let log = Log::read(&log);
    let fife = image::fife(&image::root());
    let seed: u64 = rand::random();
    println!("{} writes logged, {} messages acknowledged; seed {seed}", log.len(), acknowledged.len());
    let mut random = StdRng::seed_from_u64(seed);
    let mut moments: Vec<usize> = (0..MOMENTS).map(|_| random.random_range(0..=log.len())).collect();
    moments.sort_unstable();
    let work = Mutex::new((moments.into_iter().enumerate(), log.replay(&before, DATA_FIRST_LBA), random));
    let next = || -> Option<(usize, usize, tempfile::TempDir, usize)> {
        let mut work = work.lock().unwrap();
        let (moments, replay, random) = &mut *work;
        let (number, moment) = moments.next()?;
        let there = tempfile::tempdir().unwrap();
        let left_out = as_the_cut_left_it(replay, moment, &before, &there.path().join("data"), random);
        Some((number, moment, there, left_out))
    };
    // One for each core: most of the time goes into e2fsck and the start of fife.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((number, moment, there, left_out)) = next() {
                    let due: Vec<String> =
                        acknowledged.iter().filter(|(_, at)| *at <= moment).map(|(name, _)| name.clone()).collect();
                    println!("{number}: after {moment} writes, {left_out} left out: {} messages are due", due.len());
                    take_out(&there.path().join("data"), &there.path().join("state"));
                    let address = Ipv4Addr::new(127, 99, u8::try_from(number).unwrap(), 1);
                    let served = Served::start(&fife, there.path(), address);
                    let _said = check_acknowledged(served.imap, &admin, &password, &due);
                }
            });
        }
    });
}

/// Copies the data partition out of a disk.
fn data_partition(disk: &Disk, partition: &Path) {
    let (mut from, mut to) = (File::open(disk.path()).unwrap(), File::create(partition).unwrap());
    from.seek(SeekFrom::Start(DATA_FIRST_LBA * SECTOR)).unwrap();
    std::io::copy(&mut from, &mut to).unwrap();
}

/// Makes the data partition of one moment; returns how many writes were lost.
fn as_the_cut_left_it(
    replay: &mut Replay<'_>,
    moment: usize,
    durable: &Path,
    partition: &Path,
    random: &mut StdRng,
) -> usize {
    replay.advance(moment);
    let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([durable, partition]).status();
    assert!(copied.unwrap().success());
    replay.add_some(moment, partition, random)
}
