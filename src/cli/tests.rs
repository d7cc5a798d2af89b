//! The command line, and what is told to people.

use clap::{CommandFactory, Parser};

use super::{Line, run, status};
use crate::config::hosts::Role;
use crate::supervisor::boot::{clock, network};
use crate::supervisor::status::{DiskStatus, ListenerStatus, MountState, MountStatus, RoleStatus, State, Status};
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
        network: Some(network::Report {
            interfaces: vec![network::InterfaceReport {
                name: "lan".into(),
                link: "eth0".into(),
                mac: None,
                carrier: true,
                addresses: vec!["192.0.2.11/24".into()],
                mtu: 1500,
                dhcp: network::DhcpReport::Leased { server: [192, 0, 2, 1].into() },
                bond: None,
            }],
            ..network::Report::default()
        }),
        clock: Some(clock::Report {
            unix_secs: 1_795_509_000,
            source: clock::Source::LastKnown,
            synchronised: false,
            offset_secs: None,
            answer_age_secs: None,
            servers: vec![clock::ServerReport { server: "ntp.test".into(), fault: Some("does not answer".into()) }],
            troubles: vec!["the hardware clock says 1970".into()],
        }),
        mounts: vec![],
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
    assert_eq!(lines[6], "network: lan (eth0): up, 192.0.2.11/24 by DHCP from 192.0.2.1");
    assert_eq!(
        lines[7],
        "clock: 2026-11-24 08:30:00 UTC, wrong: the machine's own has lost the time; 0 of 1 time servers answer"
    );
    assert_eq!((lines[8].trim(), lines[9].trim()), ("ntp.test: does not answer", "the hardware clock says 1970"));
}

fn mount(name: &str, state: MountState, source: Option<&str>, reason: Option<&str>) -> MountStatus {
    MountStatus {
        name: name.into(),
        device: format!("LABEL={name}"),
        at: format!("/mnt/{name}"),
        source: source.map(str::to_owned),
        state,
        reason: reason.map(str::to_owned),
    }
}

#[test]
fn the_status_says_how_each_mount_is_and_need_not_have_any() {
    let text =
        r#"{"host":"a","version":"1","pid":1,"uptime_secs":1,"state_dir":"/s","good":true,"roles":[],"metrics":[]}"#;
    let mut status: Status = serde_json::from_str(text).unwrap();
    assert!(!status::table(&status).contains("mount"));
    status.mounts = vec![
        mount("archive", MountState::Mounted, Some("/dev/vdb (ext4)"), None),
        mount("nas", MountState::Waiting, None, Some("no route")),
    ];
    let table = status::table(&status);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[2], "mount archive      mounted  /dev/vdb (ext4) at /mnt/archive");
    assert_eq!(lines[3], "mount nas          waiting  LABEL=nas at /mnt/nas");
    assert_eq!(lines[4].trim(), "no route");
}
