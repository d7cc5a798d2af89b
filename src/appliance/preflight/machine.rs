//! What is built into the machine: memory, processors, network cards, serial ports, tape, changer; and a modem, asked by name.
//!
//! Owns: what of it is enough. Called by: `fife preflight`. Never: opens a serial port that it was not told of.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{ControlFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::super::filesystem::printable;
use super::Finding;
use crate::base::clock;

/// Memory below which it does not run, and below which it is slow, in MiB. Firmware and kernel have taken theirs.
const MEMORY_MIB_BAD: u64 = 400;
const MEMORY_MIB_WARN: u64 = 900;
/// What a modem may take to answer.
const MODEM_PATIENCE: Duration = Duration::from_secs(3);
/// Octets of its answer, at most.
const ANSWER_LEN_MAX: usize = 512;
// Kinds of SCSI devices (SPC-4 table 61).
const TAPE: &str = "1";
const CHANGER: &str = "8";

/// The checks that read what the kernel shows, below `root` (`/`).
#[must_use]
pub fn check(root: &Path) -> Vec<Finding> {
    let mut findings = vec![memory(root), processors(root)];
    findings.extend(cards(root));
    findings.extend([serial(root), scsi(root, "tape", TAPE), scsi(root, "changer", CHANGER)]);
    findings
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn memory(root: &Path) -> Finding {
    let text = read(&root.join("proc/meminfo")).unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0);
    let (mib, advice) = (kib >> 10, "1 GiB is enough for a small school; more makes large mailboxes fast");
    match mib {
        ..MEMORY_MIB_BAD => Finding::bad("memory", format!("{mib} MiB"), advice),
        MEMORY_MIB_BAD..MEMORY_MIB_WARN => Finding::warn("memory", format!("{mib} MiB"), advice),
        _ => Finding::ok("memory", format!("{mib} MiB")),
    }
}

fn processors(root: &Path) -> Finding {
    let text = read(&root.join("proc/cpuinfo")).unwrap_or_default();
    let value = |line: &str| line.split_once(':').map(|(_, value)| printable(value));
    let models: Vec<String> = text.lines().filter(|line| line.starts_with("model name")).filter_map(value).collect();
    Finding::ok("processors", format!("{} × {}", models.len(), models.first().map_or("unknown", String::as_str)))
}

fn cards(root: &Path) -> Vec<Finding> {
    const CHECK: &str = "network";
    let net = root.join("sys/class/net");
    // Bridges, VLANs and the like have no device of their own.
    let real = names(&net).into_iter().filter(|name| net.join(name).join("device").exists());
    let findings: Vec<Finding> = real
        .map(|name| {
            let dir = net.join(&name);
            let driver = fs::read_link(dir.join("device/driver")).ok();
            let driver = driver.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
            let address = read(&dir.join("address")).unwrap_or_default();
            let speed = read(&dir.join("speed")).filter(|speed| !speed.starts_with('-'));
            let speed = speed.map(|speed| format!(", {speed} Mbit/s")).unwrap_or_default();
            let card = format!("{name}: {address}, driver {}{speed}", driver.as_deref().unwrap_or("unknown"));
            if read(&dir.join("carrier")).as_deref() == Some("1") {
                Finding::ok(CHECK, card)
            } else {
                Finding::warn(CHECK, format!("{card}, no cable or not up"), "plug the cable in, if it is to be used")
            }
        })
        .collect();
    if findings.is_empty() {
        let advice = "there is none, or none that the image has a driver for";
        return vec![Finding::bad(CHECK, "no network card", advice)];
    }
    findings
}

fn serial(root: &Path) -> Finding {
    let tty = root.join("sys/class/tty");
    let is_port = |name: &String| {
        // Of the numbered ports the kernel always has four; those without hardware are of type 0.
        let is_built_in =
            name.starts_with("ttyS") && read(&tty.join(name).join("type")).is_some_and(|kind| kind != "0");
        is_built_in || name.starts_with("ttyUSB") || name.starts_with("ttyACM")
    };
    let ports: Vec<String> = names(&tty).into_iter().filter(is_port).collect();
    Finding::ok("serial", if ports.is_empty() { "no serial port".to_owned() } else { ports.join(", ") })
}

fn scsi(root: &Path, check: &'static str, kind: &str) -> Finding {
    let all = root.join("sys/class/scsi_generic");
    let describe = |name: String| {
        let device = all.join(&name).join("device");
        let fact = |fact: &str| read(&device.join(fact)).map(|text| printable(&text)).unwrap_or_default();
        (fact("type") == kind).then(|| format!("/dev/{name}: {} {}", fact("vendor"), fact("model")))
    };
    let found: Vec<String> = names(&all).into_iter().filter_map(describe).collect();
    Finding::ok(check, if found.is_empty() { "none".to_owned() } else { found.join(", ") })
}

/// Whether a modem answers on this port.
#[must_use]
pub fn modem(port: &Path) -> Finding {
    const CHECK: &str = "modem";
    let advice = "look whether it is switched on, and on this port; other programs must not have it open";
    match ask_modem(port) {
        Ok(answer) if answer.lines().any(|line| line.trim() == "OK") => {
            Finding::ok(CHECK, format!("{} answers", port.display()))
        }
        Ok(answer) => Finding::bad(CHECK, format!("{} says {:?}", port.display(), printable(&answer)), advice),
        Err(error) => Finding::bad(CHECK, format!("{}: {error}", port.display()), advice),
    }
}

fn ask_modem(port: &Path) -> io::Result<String> {
    let mut file = fs::File::options();
    // Without O_NONBLOCK the open waits for a carrier.
    let mut file = file.read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(port)?;
    let mut settings = tcgetattr(&file)?;
    cfmakeraw(&mut settings);
    // Not by cfsetspeed: a static glibc does not have the version of it that the libc crate asks for.
    let flags = settings.control_flags.bits() & !libc::CBAUD | libc::B115200;
    settings.control_flags = ControlFlags::from_bits_retain(flags);
    tcsetattr(&file, SetArg::TCSANOW, &settings)?;
    file.write_all(b"AT\r")?;
    let end = clock::monotonic() + MODEM_PATIENCE;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_LEN_MAX && !answer.ends_with(b"OK\r\n") {
        let left = end.saturating_duration_since(clock::monotonic());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            break;
        }
        let mut octets = [0; 64];
        match file.read(&mut octets)? {
            0 => break,
            count => answer.extend_from_slice(octets.get(..count).unwrap_or_default()),
        }
    }
    if answer.is_empty() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
