//! The end of the machine: who may wish for it, and the way there.
//!
//! Owns: signals to process 1, Ctrl-Alt-Del, the power button; the last steps before reboot(2). Called by: boot. Never: stops roles (the
//! supervisor does, before the last steps).
//! Spec: reboot(2), signal(7); busybox's reboot, poweroff and halt, which signal process 1 (SIGTERM, SIGUSR2, SIGUSR1); the kernel's
//! Documentation/input/event-codes.rst.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::warn;

use super::data::{BOOT, DATA};
use super::logs::Logs;
use super::watchdog::Watchdog;
use super::{disks, lines, mounts};
use crate::base::clock;
use crate::supervisor::Ending;

/// Each signal that is a wish, and for what.
const SIGNALS: [(Signal, Ending); 5] = [
    // Ctrl-Alt-Del, once the kernel leaves it to us.
    (Signal::SIGINT, Ending::Reboot),
    (Signal::SIGTERM, Ending::Reboot),
    (Signal::SIGUSR1, Ending::Stop),
    (Signal::SIGUSR2, Ending::Stop),
    // The power fails, says a UPS daemon.
    (Signal::SIGPWR, Ending::Stop),
];
const INPUT_DEVICES: &str = "/sys/class/input";
/// `struct input_event`: two longs of time, then type, code and value.
const INPUT_EVENT_LEN: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// Time that programs have which are no roles (a shell on the console) to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time that everything has which is still to be written.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

/// Listens to all who may wish for the end. Each wish is a new value, also when it is the same again.
///
/// # Errors
/// The system gives no signals.
pub(super) fn listen() -> io::Result<watch::Receiver<Option<Ending>>> {
    let (wish, wishes) = watch::channel(None);
    for (number, ending) in SIGNALS {
        let mut come = signal(SignalKind::from_raw(number as i32))?;
        let wish = wish.clone();
        tokio::spawn(async move {
            while come.recv().await.is_some() {
                wish.send_replace(Some(ending));
            }
        });
    }
    if let Err(error) = set_cad_enabled(false) {
        warn!(%error, "Ctrl-Alt-Del resets the machine at once");
    }
    for button in power_buttons() {
        let wish = wish.clone();
        std::thread::Builder::new().name("power-button".to_owned()).spawn(move || attend_button(button, &wish))?;
    }
    Ok(wishes)
}

/// Every input device that has a power key: the machine's button, as ACPI shows it.
fn power_buttons() -> Vec<File> {
    let entries = fs::read_dir(INPUT_DEVICES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("event"))?;
        let keys = fs::read_to_string(entry.path().join("device/capabilities/key")).ok()?;
        has_key(&keys, KEY_POWER).then_some(name)
    });
    names.filter_map(|name| File::open(Path::new("/dev/input").join(name)).ok()).collect()
}

/// Whether the bit is set in sysfs's words of 64 bits, written in hexadecimal, the highest first.
fn has_key(words: &str, key: u16) -> bool {
    let word = words.split_ascii_whitespace().rev().nth(usize::from(key / 64));
    word.and_then(|word| u64::from_str_radix(word, 16).ok()).is_some_and(|word| word >> (key % 64) & 1 == 1)
}

fn attend_button(mut button: File, wish: &watch::Sender<Option<Ending>>) {
    let mut event = [0; INPUT_EVENT_LEN];
    while button.read_exact(&mut event).is_ok() {
        if is_pressed(&event) {
            wish.send_replace(Some(Ending::Stop));
        }
    }
}

/// Whether this says that the power key went down.
fn is_pressed(event: &[u8; INPUT_EVENT_LEN]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event;
    u16::from_ne_bytes([t0, t1]) == EV_KEY
        && u16::from_ne_bytes([c0, c1]) == KEY_POWER
        && i32::from_ne_bytes([v0, v1, v2, v3]) == 1
}

/// The last steps. The roles have ended.
pub(super) fn down(ending: Ending, logs: Option<Logs>, watchdog: Option<Watchdog>) -> ! {
    if let Some(watchdog) = &watchdog {
        watchdog.watch_the_end();
    }
    end_programs();
    if let Some(logs) = logs {
        logs.end();
    }
    disks::leave_all();
    synced();
    for at in [BOOT, DATA] {
        if let Err(error) = mounts::leave(Path::new(at)) {
            lines::trouble(format_args!("{at} cannot be unmounted: {error}"));
        }
    }
    synced();
    let (mode, words) = match ending {
        Ending::Stop => (RebootMode::RB_POWER_OFF, "powering off"),
        Ending::Reboot => (RebootMode::RB_AUTOBOOT, "rebooting"),
    };
    if let Some(watchdog) = watchdog {
        watchdog.disarm();
    }
    lines::say(words);
    let Err(error) = reboot(mode);
    lines::trouble(format_args!("{words}: {error}; switch the machine off"));
    // Process 1 must not end: the kernel would take it for a crash.
    loop {
        nix::unistd::pause();
    }
}

/// Has everything written that is on its way; what waits for a disk or a server that is gone is not waited for.
fn synced() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        sync();
        // Late: nobody listens any more.
        done.send(()).ok();
    });
    if is_done.recv_timeout(SYNC_PATIENCE).is_err() {
        lines::trouble("not everything could be written to the disks");
    }
}

/// Ends every program that is left, first by asking.
fn end_programs() {
    let everyone = Pid::from_raw(-1);
    for (how, patience) in [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, PATIENCE)] {
        // Nobody is left to be signalled: good.
        kill(everyone, how).ok();
        let deadline = clock::monotonic() + patience;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                // No child is left.
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) if clock::monotonic() >= deadline => break,
                Ok(WaitStatus::StillAlive) => std::thread::park_timeout(Duration::from_millis(20)),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEY_POWER, has_key, is_pressed};

    #[test]
    fn a_power_button_is_known_by_its_key() {
        let check = |words: &str, expected: bool| assert_eq!(has_key(words, KEY_POWER), expected, "{words}");
        // ACPI's button in QEMU; a keyboard that has a power key; one that has none; a mouse.
        check("10000000000000 0\n", true);
        check("402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n", true);
        check("fffffffffffffffe\n", false);
        check("1f0000 0 0 0 0\n", false);
        check("", false);
        check("x y", false);
    }

    #[test]
    fn only_the_key_going_down_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut event = [0; 24];
            event[16..18].copy_from_slice(&kind.to_ne_bytes());
            event[18..20].copy_from_slice(&code.to_ne_bytes());
            event[20..24].copy_from_slice(&value.to_ne_bytes());
            event
        };
        assert!(is_pressed(&event(1, KEY_POWER, 1)));
        assert!(!is_pressed(&event(1, KEY_POWER, 0)));
        assert!(!is_pressed(&event(1, 30, 1)));
        assert!(!is_pressed(&event(0, 0, 0)));
    }
}
