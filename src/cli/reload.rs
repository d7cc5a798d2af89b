//! `fife reload`: the running site follows the changed file.
//!
//! Owns: nothing. Called by: `cli`. Exit: 0 it does, 1 a role does not serve again, 2 the file is refused, 3 nothing runs.

use super::{Exit, Global, complain, print, status};
use crate::supervisor::control::{Reloaded, Reply, Request};

pub(super) fn run(global: &Global) -> Exit {
    match status::ask(global, Request::Reload) {
        Ok(Reply::Reloaded(reloaded)) => {
            if global.json {
                super::print_json(&reloaded);
            } else {
                print(text(&reloaded));
            }
            if reloaded.not_ready.is_empty() { Exit::Done } else { Exit::Failed }
        }
        Ok(Reply::Refused(reason)) => {
            complain(format_args!("refused, what runs runs on:\n{reason}"));
            Exit::Usage
        }
        Ok(other) => {
            complain(format_args!("unexpected answer: {other:?}"));
            Exit::Failed
        }
        Err(exit) => exit,
    }
}

fn text(reloaded: &Reloaded) -> String {
    let rows = [
        ("restarted", &reloaded.restarted),
        ("started", &reloaded.started),
        ("stopped", &reloaded.stopped),
        ("not serving yet", &reloaded.not_ready),
    ];
    let told: Vec<String> = rows
        .iter()
        .filter(|(_, roles)| !roles.is_empty())
        .map(|(what, roles)| format!("{what}: {}", roles.join(", ")))
        .collect();
    if told.is_empty() { "no role is affected".to_owned() } else { told.join("\n") }
}
