//! `fife stop`, `fife reboot`: the roles finish what is in hand, then everything ends; the appliance is switched off, or starts again.
//!
//! Owns: nothing. Called by: `cli`. Exit: 0 it has ended, 3 nothing runs.

use super::{Exit, Global, complain, status};
use crate::supervisor::control::{Reply, Request};

/// Asks for `Request::Stop` or `Request::Reboot`.
pub(super) fn run(global: &Global, request: Request) -> Exit {
    match status::ask(global, request) {
        Ok(Reply::Stopping) => Exit::Done,
        Ok(Reply::Refused(reason)) => {
            complain(reason);
            Exit::Failed
        }
        Ok(other) => {
            complain(format_args!("unexpected answer: {other:?}"));
            Exit::Failed
        }
        Err(exit) => exit,
    }
}
