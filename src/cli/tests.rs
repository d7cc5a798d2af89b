//! The command line, and what is told to people.

use clap::{CommandFactory, Parser};

use super::{Line, run, status};
use crate::config::hosts::Role;
use crate::supervisor::status::{DiskStatus, ListenerStatus, RoleStatus, State, Status};
use crate::supervisor::{FirstAdministrator, Serving};

#[test]
fn the_command_line_is_sound() {
    Line::command().debug_assert();
}

#[test]
fn global_flags_stand_before_or_behind_the_command() {
    for line in ["fife --config a.toml --state s status --json", "fife status --json --state s --config a.toml"] {
        let global = Line::parse_from(line.split(' ')).global;
        assert_eq!((global.config.to_str(), global.json), (Some("a.toml"), true), "{line}");
        assert_eq!(global.state.unwrap().to_str(), Some("s"), "{line}");
    }
}

fn serving(first_administrator: Option<FirstAdministrator>) -> Serving<'static> {
    let listeners = [("smtp", "0.0.0.0:2525"), ("imap", "[::]:2143"), ("lmtp", "unix:run/lmtp.sock")];
    Serving {
        host: "demo",
        domain: "example.test".into(),
        listeners: listeners.map(|(service, address)| (service, address.parse().unwrap())).into(),
        first_administrator,
    }
}

#[test]
fn the_first_start_tells_who_may_enter_and_lines_that_work() {
    let first = FirstAdministrator {
        address: "admin@example.test".parse().unwrap(),
        password: crate::config::secret::SecretText::new("pass-word".into()),
        file: "/s/first-admin.txt".into(),
    };
    let told = run::text(&serving(Some(first)), "fife", "--config a.toml");
    for line in [
        "  password  pass-word",
        "  file      /s/first-admin.txt",
        "  swaks --server 127.0.0.1:2525 --from you@example.org --to admin@example.test --header 'Subject: first mail'",
        "  curl --silent --user 'admin@example.test:pass-word' 'imap://[::1]:2143/INBOX;MAILINDEX=1'",
        "  fife user add u1@example.test --config a.toml",
        "  lmtp         unix:run/lmtp.sock",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}\nin\n{told}");
    }
    let later = run::text(&serving(None), "fife", "--config a.toml");
    assert!(!later.contains("password"), "{later}");
}

#[test]
fn the_status_says_what_is_wrong_below_the_role() {
    let role = RoleStatus {
        role: Role::Smtp,
        state: State::Bad,
        reason: Some("the queue cannot be written".into()),
        pid: Some(42),
        uptime_secs: 3700,
        restarts: 2,
        rss_bytes: Some(9 << 20),
        listeners: vec![ListenerStatus { service: "smtp".into(), address: "[::]:25".into() }],
    };
    let status = Status {
        host: "mail1".into(),
        version: "1".into(),
        pid: 41,
        uptime_secs: 90_000,
        state_dir: "/s".into(),
        good: false,
        roles: vec![role],
        disk: Some(DiskStatus {
            size_bytes: 400 << 20,
            free_bytes: 3 << 20,
            reserve_bytes: 0,
            trouble: Some("the disk is full".into()),
        }),
        metrics: vec![],
    };
    let table = status::table(&status);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "host mail1: not good; fife 1, pid 41, up 1d 1h");
    assert!(
        lines[2].starts_with("smtp         bad             42      1h 1m        2     9 MiB  smtp [::]:25"),
        "{table}"
    );
    assert_eq!(lines[3].trim(), "the queue cannot be written");
    assert_eq!(lines[4], "disk: 3 of 400 MiB free");
    assert_eq!(lines[5].trim(), "the disk is full");
}
