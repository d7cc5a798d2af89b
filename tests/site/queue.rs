//! Mail that waits: looked at, changed and released by `fife queue`; tried again as it should be, also over `kill -9`; given up.

use nix::sys::signal::{Signal, kill};

use super::harness::{Site, good, python, text, wait_for};
use super::neighbours::{self, Receiver};

const PASSWORD: &str = "correct horse battery";

/// Mail that waits until it is released, and goes by MX then.
const HELD: &str = "[[smtp-outbound.routes]]\ndomains = [\"held.test\"]\nhold = true\n";

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

/// A site with u1 in whose usual configuration something else stands in place of this.
fn changed(zone: &str, more: &str, usual: &str, instead: &str) -> (Site, neighbours::Program) {
    let (mut site, dns) = neighbours::site(zone, more);
    let toml = std::fs::read_to_string(site.config()).unwrap();
    assert!(toml.contains(usual));
    std::fs::write(site.config(), toml.replace(usual, instead)).unwrap();
    site.launch();
    site.user("u1", PASSWORD);
    (site, dns)
}

fn inbox(site: &Site) -> Vec<String> {
    super::smtp::inbox(site, "u1")
}

/// For each recipient who waits: whether it is tried again within half an hour, attempts, reason.
fn waiting(site: &Site) -> Vec<(bool, i64, String)> {
    let recipient = |one: &serde_json::Value| {
        let one = &one["recipients"][0];
        let reason = one["reason"].as_str().unwrap_or_default().to_owned();
        (one["retry_secs"].as_i64().unwrap() < 1800, one["attempts"].as_i64().unwrap(), reason)
    };
    listed(site, &[]).iter().map(recipient).collect()
}

#[test]
fn what_was_put_off_waits_on_after_kill_9() {
    let (site, _dns) = changed("far A {0}\ndead A {1}\n", "", "[\"1s\"]", "[\"1h\"]");
    let _receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    send(&site, &["later@far.test", "a@dead.test"]);
    let put_off = || {
        let waiting = waiting(&site);
        let [(false, 1, later), (false, 0, refused)] = waiting.as_slice() else { return false };
        later.contains("450 4.2.0 later") && refused.contains("refused")
    };
    wait_for("both to be put off for an hour", put_off, || text(&site.fife(&["queue", "show"])) + &site.log_tail());
    let on_record = || {
        let segments = std::fs::read_dir(site.state().join("smtp/queue")).unwrap();
        let text: Vec<u8> = segments.flat_map(|one| std::fs::read(one.unwrap().path()).unwrap_or_default()).collect();
        text.windows(14).filter(|window| window == b"\"until_millis\"").count() >= 2
    };
    wait_for("that to be on record", on_record, || site.log_tail());
    site.kill_role("smtp");
    site.wait_healthy();
    assert!(put_off(), "{:?}", waiting(&site));
    // New mail does not wake what waits, and a command does.
    send(&site, &["ok@far.test"]);
    wait_for("the new one to go", || waiting(&site).len() == 2, || site.log_tail());
    assert!(put_off(), "{:?}", waiting(&site));
    let dead = Receiver::start(&site, 1, &[]);
    good(&site.fife(&["queue", "flush"]));
    dead.wait(1, &site);
    wait_for("the second attempt", || waiting(&site).iter().any(|one| one.1 == 2), || site.log_tail());
}

#[test]
fn a_server_that_hangs_up_is_asked_again_and_nothing_is_lost() {
    let (mut site, _dns) = neighbours::site("far A {0}\n", "");
    site.launch();
    site.user("u1", PASSWORD);
    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    // 421 at RCPT twice, then taken; taken twice without an answer, then with one.
    send(&site, &["bye@far.test", "drop@far.test", "ok@far.test"]);
    wait_for("all to be delivered", || listed(&site, &[]).is_empty(), || site.log_tail());
    let received = receiver.received();
    let times = |who: &str| received.iter().filter(|one| one["rcpt"].to_string().contains(who)).count();
    assert_eq!((times("<bye@"), times("<drop@"), times("<ok@")), (1, 3, 1), "{received:#?}");
    let log = site.log();
    assert!(log.contains("server closes: 421") && log.contains("connection lost before the reply"), "{log}");
    assert_eq!(inbox(&site), [""; 0], "and nobody was told of a failure");
}

#[test]
fn what_cannot_be_delivered_in_time_goes_back_unless_it_is_held() {
    let (site, _dns) =
        changed("far A {0}\ndead A {1}\nheld A {0}\n", HELD, "[\"1s\"]", "[\"1s\"]\nqueue-lifetime = \"3s\"");
    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    send(&site, &["h@held.test", "later@far.test", "a@dead.test"]);
    let first = &listed(&site, &["--recipient", "later@"])[0]["id"].as_str().unwrap().to_owned();
    wait_for("both to come back", || inbox(&site).len() == 2, || site.log_tail());
    let check = |who: &str, why: &str| {
        let found = inbox(&site).into_iter().find(|mail| mail.contains(&format!("rfc822; {who}"))).unwrap();
        for part in ["Action: failed", "Status: 5.4.7", "could not be delivered in time", why] {
            assert!(found.contains(part), "{part}\n{found}");
        }
    };
    check("later@far.test", "450 4.2.0 later");
    check("a@dead.test", "refused");
    let left = listed(&site, &[]);
    assert!(left.len() == 1 && left[0]["recipients"][0]["address"] == "h@held.test", "{left:#?}");
    good(&site.fife(&["queue", "release", "--all"]));
    receiver.wait(1, &site);
    let log = site.log();
    let tries = log.lines().filter(|line| line.contains(first.as_str()) && line.contains("not delivered yet")).count();
    assert!(tries >= 2, "it was tried again before that: {tries}");
}

#[test]
fn what_was_delivered_is_on_record_before_anything_is_done_about_the_rest() {
    let (mut site, _dns) = neighbours::site("far A {0}\nelsewhere A {1}\n", "");
    site.launch();
    site.user("u1", PASSWORD);
    good(&site.fife(&["alias", "add", "both@example.test", "ok@far.test", "never@far.test"]));
    let (ip, port) = (site.ip(), site.port("smtp"));
    let send = ["--server", &ip, "--port", &port, "--from", "s@elsewhere.test", "--to", "both@example.test"];
    good(&super::harness::run("swaks", &send, b""));
    // The report of the failure needs the directory, which says nothing.
    let directory = site.role_pid("ldap-proxy").unwrap();
    kill(directory, Signal::SIGSTOP).unwrap();
    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    receiver.wait(1, &site);
    let left = || -> Vec<String> {
        let listed = listed(&site, &[]);
        let recipients = listed.iter().flat_map(|one| one["recipients"].as_array().unwrap().clone());
        recipients.map(|one| one["address"].as_str().unwrap().to_owned()).collect()
    };
    wait_for("the delivery to be noted", || left() == ["never@far.test"], || site.log_tail());
    assert!(!site.log().contains("directory gives no answer"), "before that was known");
    site.kill_role("smtp");
    kill(directory, Signal::SIGCONT).unwrap();
    site.wait_healthy();
    wait_for("the failure to be told", || left() == ["s@elsewhere.test"], || site.log_tail());
    assert_eq!(receiver.received().len(), 1, "nobody got it twice");
}
