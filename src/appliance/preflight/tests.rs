//! What facts are taken to mean. DNS, greetings and time servers are in `tests/site/preflight.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::pty::openpty;

use super::disk::{Build, Times, judge};
use super::network::{Peer, is_global, offset_finding, reversed};
use super::*;

#[test]
fn a_sync_that_is_too_fast_for_its_disk_is_not_believed() {
    let check = |name: &str, is_rotating: bool, has_write_cache: bool, half_micros: u64, expected: Grade| {
        let build = Build { name: name.to_owned(), is_rotating, has_write_cache, is_memory: false };
        let half = Duration::from_micros(half_micros);
        let finding = judge(&build, Times { half, most: half * 3 });
        assert_eq!(finding.grade, expected, "{finding:?}");
        assert_eq!(finding.advice.is_some(), expected != Grade::Ok);
    };
    check("/dev/sda", true, true, 8000, Grade::Ok);
    check("/dev/sda", true, true, 100, Grade::Bad);
    // A controller with a battery says that there is no cache to flush; who trusts it should know.
    check("/dev/sda", true, false, 100, Grade::Warn);
    check("/dev/nvme0n1", false, true, 30, Grade::Ok);
    check("/dev/nvme0n1", false, true, 3, Grade::Bad);
    // A virtual disk of which the host says nothing.
    check("/dev/vda", true, true, 200, Grade::Warn);
    check("/dev/vda", true, true, 5, Grade::Bad);
    check("/dev/sda", true, true, 50_000, Grade::Warn);
    let memory = Build { is_memory: true, ..Build::default() };
    assert_eq!(
        judge(&memory, Times { half: Duration::from_millis(1), most: Duration::from_millis(1) }).grade,
        Grade::Bad
    );
}

#[test]
fn a_directory_is_measured_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let finding = disk::check(dir.path());
    assert!(finding.found.contains("takes") || finding.found.contains("in memory"), "{finding:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(disk::check(Path::new("/proc/nowhere")).grade, Grade::Bad);
}

#[test]
fn addresses_are_reversed_and_inside_ones_known() {
    let check = |address: &str, expected: &str, global: bool| {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!((reversed(address).as_str(), is_global(address)), (expected, global), "{address}");
    };
    check("192.0.2.99", "99.2.0.192", true);
    check("10.1.2.3", "3.2.1.10", false);
    check("100.64.0.1", "1.0.64.100", false);
    check("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2", true);
    check("fe80::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f", false);
}

#[test]
fn a_peer_is_a_domain_or_an_address() {
    let check = |text: &str, expected: Peer| assert_eq!(text.parse(), Ok(expected));
    check("example.test", Peer::Domain("example.test".to_owned()));
    check("192.0.2.1", Peer::Host("192.0.2.1:25".parse().unwrap()));
    check("[2001:db8::1]:2525", Peer::Host("[2001:db8::1]:2525".parse().unwrap()));
}

#[test]
fn a_clock_is_graded_by_its_offset() {
    let check = |millis: i64, expected: Grade| assert_eq!(offset_finding("t", millis).grade, expected, "{millis}");
    check(3, Grade::Ok);
    check(-999, Grade::Ok);
    check(-1000, Grade::Warn);
    check(60_000, Grade::Bad);
    check(i64::MIN, Grade::Bad);
}

/// A machine as a directory.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn what_is_built_in_is_found() {
    let dir = machine(&[
        ("proc/meminfo", "MemTotal:        2031616 kB\nMemFree: 1 kB\n"),
        ("proc/cpuinfo", "model name\t: A CPU\nflags: x\n\nmodel name\t: A CPU\n"),
        ("sys/class/net/eth0/device/x", ""),
        ("sys/class/net/eth0/address", "52:54:00:00:00:01\n"),
        ("sys/class/net/eth0/carrier", "1\n"),
        ("sys/class/net/eth1/device/x", ""),
        ("sys/class/net/lo/address", "00:00:00:00:00:00\n"),
        ("sys/class/tty/ttyS0/type", "4\n"),
        ("sys/class/tty/ttyS1/type", "0\n"),
        ("sys/class/tty/ttyUSB0/x", ""),
        ("sys/class/scsi_generic/sg0/device/type", "0\n"),
        ("sys/class/scsi_generic/sg1/device/type", "1\n"),
        ("sys/class/scsi_generic/sg1/device/vendor", "IBM\x1b\n"),
        ("sys/class/scsi_generic/sg1/device/model", "LTO\n"),
    ]);
    let findings = machine::check(dir.path());
    let told: Vec<(&str, &str, Grade)> =
        findings.iter().map(|finding| (finding.check, finding.found.as_str(), finding.grade)).collect();
    assert_eq!(
        told,
        [
            ("memory", "1984 MiB", Grade::Ok),
            ("processors", "2 × A CPU", Grade::Ok),
            ("network", "eth0: 52:54:00:00:00:01, driver unknown", Grade::Ok),
            ("network", "eth1: , driver unknown, no cable or not up", Grade::Warn),
            ("serial", "ttyS0, ttyUSB0", Grade::Ok),
            ("tape", "/dev/sg1: IBM? LTO", Grade::Ok),
            ("changer", "none", Grade::Ok),
        ]
    );
    let empty = machine::check(machine(&[]).path());
    assert_eq!(empty.iter().filter(|finding| finding.grade == Grade::Bad).count(), 2, "{empty:?}");
}

/// A port at whose other end somebody answers so. Who joins the thread gets both ends: a port does not vanish before.
fn port(answer: &'static str) -> (PathBuf, std::thread::JoinHandle<(fs::File, OwnedFd)>) {
    let pty = openpty(None, None).unwrap();
    let path = nix::unistd::ttyname(&pty.slave).unwrap();
    let thread = std::thread::spawn(move || {
        let mut other = fs::File::from(pty.master);
        let mut asked = Vec::new();
        while !asked.ends_with(b"AT\r") && !asked.ends_with(b"AT\n") {
            let mut octet = [0];
            other.read_exact(&mut octet).unwrap();
            asked.push(octet[0]);
        }
        other.write_all(answer.as_bytes()).unwrap();
        (other, pty.slave)
    });
    (path, thread)
}

#[test]
fn a_modem_is_asked_and_must_answer() {
    let check = |answer: &'static str, expected: Grade| {
        let (path, thread) = port(answer);
        let finding = machine::modem(&path);
        drop(thread.join().unwrap());
        assert_eq!(finding.grade, expected, "{finding:?}");
    };
    check("AT\r\r\nOK\r\n", Grade::Ok);
    assert_eq!(machine::modem(Path::new("/dev/no-such-port")).grade, Grade::Bad);
    assert_eq!(machine::modem(Path::new("/dev/null")).grade, Grade::Bad);
}
