//! `fife stop`: the roles finish what is in hand, then everything ends.
//!
//! Owns: nothing. Called by: `cli`. Exit: 0 it has ended, 3 nothing runs.

use super::{Exit, Global, complain, status};
use crate::supervisor::control::{Reply, Request};

pub(super) fn run(global: &Global) -> Exit {
    match status::ask(global, Request::Stop) {
        Ok(Reply::Stopping) => Exit::Done,
        Ok(other) => {
            complain(format_args!("unexpected answer: {other:?}"));
            Exit::Failed
        }
        Err(exit) => exit,
    }
}
