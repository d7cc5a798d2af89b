//! Boots fife's image under QEMU, for tests from outside.
//!
//! Owns: guests and what they are made of. Called by: the suites in `tests/`. Never: waits for a time; it waits for a line on the
//! console, a port, or the end of the guest, with a deadline.
//!
//! - `image`: the image that is tested, built when it is not there; `disk`: a guest's own copy, and what is put on it from outside;
//! - `guest`: one machine, from power on to power cut; `console`: its serial line; `monitor`: QEMU's own (QMP);
//! - `writes`: what a power cut at any moment leaves on a disk;
//! - `https`, `nfs`: file servers for guests; `tape`: a tape library; `shell`: commands inside a guest; `switch`: a network between guests; `client`: the least of SMTP and IMAP that a suite needs to see who answers.
//!
//! QEMU emulates (TCG): minutes are what a boot may take on a busy machine, eight seconds what it takes on an idle one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fault in the set-up ends the test")]

pub mod client;
pub mod console;
pub mod disk;
pub mod guest;
pub mod https;
pub mod image;
pub mod monitor;
pub mod nfs;
pub mod shell;
pub mod switch;
pub mod tape;
pub mod writes;

use std::io::Write;
use std::time::{Duration, Instant};

pub use console::Console;
pub use disk::Disk;
pub use guest::{Firmware, Guest, Machine};

/// How long anything may take before it counts as hanging.
pub const DEADLINE: Duration = Duration::from_secs(300);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Asks again until there is an answer; past the deadline it fails and shows `context`.
#[expect(clippy::disallowed_methods, reason = "a poll needs a pause and a deadline")]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>, context: impl FnOnce() -> String) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}\n{}", context());
        std::thread::sleep(ASK_AGAIN);
    }
}

/// Tells whoever watches the tests, past the test runner, which shows only what failing tests print.
pub fn tell(text: &str) {
    let mut err = std::io::stderr().lock();
    writeln!(err, "{text}").expect("standard error");
}
