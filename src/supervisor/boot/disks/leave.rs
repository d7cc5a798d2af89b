//! The end: everything that was mounted beside the system is left, in reverse order, in a time that no server and no disk can stretch.
//!
//! Owns: the order and the patience. Called by: `power`, when all programs have ended. Never: touches /boot and /data (`power` does).
//! Spec: umount2(2).

use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MntFlags;

use super::super::{lines, mounts};
use super::child::{self, Failure, Task};
use crate::base::clock;
use crate::config::mounts::UNDER;

/// For all together. The watchdog gives the end three minutes (`watchdog`), and the data partition is still to be left.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a disk: a slow stick is written to until the end.
const DISK_PATIENCE: Duration = Duration::from_secs(40);
/// For a file server: one that is there answers at once.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);
/// For what is done at once where it is done at all.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);

/// Leaves them. What cannot be left is told.
pub(in super::super) fn leave_all() {
    let deadline = clock::monotonic() + PATIENCE;
    for mounts::Line { at, device, .. } in ours(&mounts::table()) {
        // The kernel gives what is no disk a number whose first part is 0.
        let patience = if device.starts_with("0:") { SERVER_PATIENCE } else { DISK_PATIENCE };
        let left = deadline.saturating_duration_since(clock::monotonic()).min(patience);
        let plainly = child::run_now(Task::Leave { at: &at, how: MntFlags::empty() }, left);
        match plainly {
            // Or not mounted any more.
            Ok(()) | Err(Failure::Refused(Errno::EINVAL)) => {}
            Err(error) => {
                lines::trouble(format_args!("{} cannot be left in order: {error}", at.display()));
                // First ends what waits for a server; then nobody can begin anything there any more.
                for how in [MntFlags::MNT_FORCE, MntFlags::MNT_DETACH] {
                    child::run_now(Task::Leave { at: &at, how }, SHORT_PATIENCE).ok();
                }
            }
        }
    }
}

/// What is mounted where further mounts may be, the last one first.
pub(super) fn ours(table: &[mounts::Line]) -> Vec<mounts::Line> {
    let is_ours = |line: &&mounts::Line| UNDER.iter().any(|top| line.at.starts_with(top));
    table.iter().rev().filter(is_ours).cloned().collect()
}
