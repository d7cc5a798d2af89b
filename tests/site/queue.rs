//! `fife queue`: looking at mail that waits, and changing what becomes of it.

use super::harness::{Site, good, python, text, wait_for};
use super::neighbours::{self, Receiver};

const PASSWORD: &str = "correct horse battery";

/// Sends a message to each of these. argv: host, port, password, recipients…
const SEND: &str = r#"
import smtplib, sys
host, port, password, *recipients = sys.argv[1:]
with smtplib.SMTP(host, int(port), timeout=60) as s:
    s.login("u1@example.test", password)
    for to in recipients:
        s.sendmail("u1@example.test", [to], f"Subject: {to}\r\n\r\n{'x' * (5000 if to.startswith('big') else 5)}\r\n")
"#;

fn send(site: &Site, recipients: &[&str]) {
    let (ip, port) = (site.ip(), site.port("submission"));
    let output = python(SEND, &[&[ip.as_str(), &port, PASSWORD], recipients].concat());
    assert!(output.status.success(), "{}\n{}", text(&output), site.log_tail());
}

/// Messages that this selection lists.
fn listed(site: &Site, selection: &[&str]) -> Vec<serde_json::Value> {
    let output = site.fife(&[&["queue", "list", "--json"], selection].concat());
    good(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn waiting_mail_is_listed_held_released_and_deleted() {
    let (mut site, _dns) = neighbours::site(
        "one A {0}\ntwo A {0}\nnobody A {1}\n",
        "[[smtp-outbound.routes]]\ndomains = [\"held.test\"]\nhost = \"127.0.0.1\"\nhold = true\n",
    );
    site.launch();
    site.user("u1", PASSWORD);
    send(&site, &["a@one.test", "b@two.test", "big@two.test", "c@nobody.test", "h@held.test"]);
    let to = |selection: &[&str]| -> Vec<String> {
        let names = listed(&site, selection)
            .iter()
            .map(|one| one["recipients"][0]["address"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>();
        names.iter().map(|name| name.split('@').next().unwrap().to_owned()).collect()
    };
    assert_eq!(to(&[]), ["a", "b", "big", "c", "h"], "in the order in which they came");
    assert_eq!(to(&["--domain", "two.test"]), ["b", "big"]);
    assert_eq!(to(&["--recipient", "b@"]), ["b"]);
    assert_eq!(to(&["--sender", "u1@", "--larger", "4 KiB"]), ["big"]);
    assert_eq!(to(&["--sender", "<>"]), [""; 0]);
    assert_eq!(to(&["--older", "1h"]), [""; 0]);
    assert_eq!(to(&["--in", "held"]), ["h"]);
    let unreachable = || good(&site.fife(&["queue", "show", "--domain", "one.test"])).contains("refused");
    wait_for("the reason to be shown", unreachable, || site.log_tail());

    let first = listed(&site, &["--recipient", "a@"])[0]["id"].as_str().unwrap().to_owned();
    good(&site.fife(&["queue", "hold", &first]));
    good(&site.fife(&["queue", "delete", "--domain", "nobody.test"]));
    assert_eq!(site.fife(&["queue", "delete"]).status.code(), Some(2), "nothing chosen is not everything");
    assert_eq!(site.fife(&["queue", "retry", "0000000000000"]).status.code(), Some(1), "no such message");
    site.kill_role("smtp");
    site.wait_healthy();
    assert_eq!(to(&["--in", "held"]), ["a", "h"], "over a restart");
    assert_eq!(to(&["--recipient", "c@"]), [""; 0]);

    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    good(&site.fife(&["queue", "flush"]));
    receiver.wait(2, &site);
    wait_for("the rest to be held", || to(&[]) == ["a", "h"], || site.log_tail());
    good(&site.fife(&["queue", "release", "--domain", "one.test"]));
    receiver.wait(3, &site);
    good(&site.fife(&["queue", "delete", "--all"]));
    assert_eq!(to(&[]), [""; 0]);
    assert_eq!(receiver.received().len(), 3, "and nothing of what was deleted");
    assert!(site.log().contains("deleted from the queue by an administrator"));
}

#[test]
fn without_a_running_site_there_is_nothing_to_ask() {
    let site = Site::prepare("");
    let output = site.fife(&["queue", "list"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
}
