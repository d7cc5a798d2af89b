//! The console's dialogue, what it shows, and the edit of the file.

use std::path::Path;

use super::menu::{Action, Menu, Network, Password, Said};
use super::screen::Overview;
use crate::supervisor::status::State;

/// Answers, one after the other; what the last one leads to.
fn last(answers: &[&str]) -> Said {
    let mut menu = Menu::new(vec!["eth0".to_owned(), "eth1".to_owned()], vec!["sda".to_owned(), "sdb".to_owned()]);
    answers.iter().map(|answer| menu.answer(answer)).last().expect("an answer")
}

#[test]
fn each_way_through_the_menu_ends_in_what_was_asked_for() {
    let network = |address: Option<&str>, gateway: Option<&str>, servers: &[&str]| {
        Said::Do(Action::SetNetwork(Network {
            interface: "eth1".to_owned(),
            address: address.map(str::to_owned),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
        }))
    };
    let check = |answers: &[&str], expected: Said| assert_eq!(last(answers), expected, "{answers:?}");
    check(&[""], Said::Overview);
    check(&["9"], Said::Overview);
    check(&["7"], Said::Do(Action::Check));
    check(&["8", "sdb"], Said::Do(Action::Install("sdb".to_owned())));
    check(&["8", ""], Said::Overview);
    check(&["2"], Said::Do(Action::ShowLog));
    check(&["4", "yes"], Said::Do(Action::Reboot));
    check(&["4", "no"], Said::Overview);
    check(&["4", ""], Said::Overview);
    check(&["5", "yes"], Said::Do(Action::PowerOff));
    check(&["3", "2026-11-24 08:30:00", "yes"], Said::Do(Action::SetTime(1_795_509_000)));
    check(&["1", "eth1", "dhcp", "yes"], network(None, None, &[]));
    check(&["1", "eth1", "192.0.2.11/24", "", "", "yes"], network(Some("192.0.2.11/24"), None, &[]));
    let all = ["1", "eth1", "2001:db8::1/64", "2001:db8::fe", "192.0.2.53, 192.0.2.54", "yes"];
    check(&all, network(Some("2001:db8::1/64"), Some("2001:db8::fe"), &["192.0.2.53", "192.0.2.54"]));
    let shell = Action::Shell("admin@example.test".to_owned(), Password("secret".to_owned()));
    assert!(!format!("{shell:?}").contains("secret"));
    check(&["6", "admin@example.test", "secret"], Said::Do(shell));
}

#[test]
fn what_makes_no_sense_is_asked_again() {
    let check = |answers: &[&str], expected: &str| match last(answers) {
        Said::Ask(question, false) => assert!(question.contains(expected), "{answers:?}: {question}"),
        other @ (Said::Overview | Said::Ask(..) | Said::Do(_)) => panic!("{answers:?}: {other:?}"),
    };
    check(&["1", "eth7"], "one of eth0, eth1");
    check(&["1", "eth0", "192.0.2.11"], "again");
    check(&["1", "eth0", "192.0.2.11/33"], "again");
    check(&["1", "eth0", "192.0.2.11/24", "nowhere"], "again");
    check(&["1", "eth0", "192.0.2.11/24", "", "192.0.2.53 x"], "again");
    check(&["3", "tomorrow"], "again");
    check(&["8", "sdc"], "one of sda, sdb");
    // A password is asked for unseen.
    assert_eq!(last(&["6", "admin"]), Said::Ask("password".to_owned(), true));
}

#[test]
fn the_overview_is_read_at_a_glance_and_steers_no_terminal() {
    let mut overview = Overview {
        version: "1.2.3".to_owned(),
        name: "mail1.example.test".to_owned(),
        addresses: vec!["192.0.2.11 (eth0)".to_owned()],
        roles: vec![("smtp".to_owned(), State::Good, None)],
        clock: Some("set by hand; no time server is named".to_owned()),
        troubles: Vec::new(),
    };
    let text = overview.text();
    for expected in [
        "fife 1.2.3   mail1.example.test",
        "192.0.2.11 (eth0)",
        "smtp good",
        "clock      set by hand",
        "health     good",
        "1 network",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    overview.roles = vec![("smtp".to_owned(), State::Backoff, Some("it ended\nby itself\x1b[2J".to_owned()))];
    let text = overview.text();
    for expected in ["health     not good", "smtp backoff", "smtp: it ended", "           by itself?[2J"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!Overview::default().is_good(), "nothing runs");
}

const FILE: &str = "# kept\n[site]\nname = \"s\"\ndomain = \"example.test\"\n\n[hosts.a] # this one\nroles = [\"smtp\", \"pop-imap\", \"ldap-proxy\"]\n";

fn edited(text: &str, network: &Network) -> Result<String, String> {
    super::network::edit(Path::new("fife.toml"), text, "a", network)
}

#[test]
fn the_file_is_changed_where_the_network_stands_and_nowhere_else() {
    let network = |address: Option<&str>, servers: &[&str]| Network {
        interface: "eth0".to_owned(),
        address: address.map(str::to_owned),
        gateway: address.map(|_| "192.0.2.1".parse().unwrap()),
        servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
    };
    let first = edited(FILE, &network(Some("192.0.2.11/24"), &["192.0.2.53"])).unwrap();
    assert!(first.starts_with(FILE), "{first}");
    for expected in
        ["[hosts.a.network.eth0]", "address = [\"192.0.2.11/24\"]", "gateway = \"192.0.2.1\"", "[hosts.a.dns]"]
    {
        assert!(first.contains(expected), "{expected}: {first}");
    }
    // Once more: in place of what was there; DNS servers stay when none are given.
    let second = edited(&first, &network(None, &[])).unwrap();
    assert!(
        second.contains("dhcp = true") && !second.contains("192.0.2.11") && second.contains("192.0.2.53"),
        "{second}"
    );
    let inline = "[site]\nname = \"s\"\ndomain = \"example.test\"\n[hosts]\na = { roles = [\"smtp\", \"pop-imap\", \"ldap-proxy\"] }\n";
    assert!(edited(inline, &network(None, &[])).unwrap().contains("dhcp = true"));
}

#[test]
fn an_edit_that_makes_a_bad_file_is_no_edit() {
    let elsewhere = Network {
        interface: "eth0".to_owned(),
        address: Some("192.0.2.11/24".to_owned()),
        gateway: "198.51.100.1".parse().ok(),
        servers: Vec::new(),
    };
    let fault = edited(FILE, &elsewhere).unwrap_err();
    assert!(fault.contains("198.51.100.1"), "{fault}");
    assert!(edited("[site", &elsewhere).is_err());
}
