//! Mail out: to Debian's Postfix and from it, to servers of all kinds, by a real DNS; and what becomes of it when they fail.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::harness::{Site, good, python, run, text, wait_for};
use super::neighbours::{self, Exim, MX_PORT, Postfix, Receiver, address};

const PASSWORD: &str = "correct horse battery";

/// Sends one message by submission. argv: host, port, password, from, to (commas), options of MAIL, options of RCPT, message.
const SUBMIT: &str = r#"
import smtplib, sys
host, port, password, sender, to, mail, rcpt, message = sys.argv[1:]
with smtplib.SMTP(host, int(port), timeout=60) as s:
    s.ehlo("c.test")
    s.login("u1@example.test", password)
    code, reply = s.docmd("MAIL", f"FROM:<{sender}> {mail}".strip())
    assert code == 250, (code, reply)
    for one in to.split(","):
        s.send(f"RCPT TO:<{one}> {rcpt}".strip().encode() + b"\r\n")
        code, reply = s.getreply()
        assert code == 250, (one, code, reply)
    code, reply = s.data(message.replace("\n", "\r\n").encode())
    assert code == 250, (code, reply)
    print(reply.decode())
"#;

/// Sends a message as u1; `options` of MAIL and RCPT.
fn submit(site: &Site, to: &str, options: [&str; 2], message: &str) -> String {
    let [mail, rcpt] = options;
    let args = [&site.ip(), &site.port("submission"), PASSWORD, "u1@example.test", to, mail, rcpt, message];
    let output = python(SUBMIT, &args);
    assert!(output.status.success(), "{to}: {}\n{}", text(&output), site.log_tail());
    good(&output)
}

fn inbox(site: &Site, name: &str) -> Vec<String> {
    super::smtp::inbox(site, name)
}

/// Waits until a message with all of this is in the inbox.
fn wait_inbox(site: &Site, name: &str, parts: &[&str]) -> String {
    let found = || inbox(site, name).into_iter().find(|mail| parts.iter().all(|part| mail.contains(part)));
    wait_for(&parts.join(", "), || found().is_some(), || format!("{:#?}\n{}", inbox(site, name), site.log_tail()));
    found().unwrap()
}

fn launch(site: &mut Site) {
    site.launch();
    site.user("u1", PASSWORD);
}

/// Nothing is left in the queue.
fn wait_empty(site: &Site) {
    let is_empty = || good(&site.fife(&["queue", "list"])).starts_with("0 messages");
    wait_for("the queue to be empty", is_empty, || text(&site.fife(&["queue", "show"])) + &site.log_tail());
}

/// The dialogue that every neighbour takes part in. `wait` waits for its mail; `tls` is what it says of mail that came over TLS, `name` is its name;
/// `report` is in what it says of success.
fn both_ways(site: &Site, name: &str, wait: &dyn Fn(&str) -> String, tls: &str, report: &[&str]) {
    submit(site, "a@far.test", ["", ""], "Subject: plain\nFrom: u1@example.test\n\n.dot\ntext\n");
    let mail = wait("Subject: plain");
    assert!(mail.contains("\n.dot\ntext\n"), "{mail}");
    assert!(mail.contains(tls), "STARTTLS was used: {mail}");
    submit(
        site,
        "b@far.test",
        ["BODY=8BITMIME", ""],
        "Subject: eight\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\ngrün\n",
    );
    assert!(wait("Subject: eight").contains("\ngrün\n"));
    submit(site, "用户@far.test", ["SMTPUTF8 BODY=8BITMIME", ""], "Subject: 你好\n\ntext\n");
    assert!(wait("Subject: 你好").contains("用户@far.test"));
    // It tells success itself, for it knows DSN; what we passed on is what it says.
    submit(
        site,
        "c@far.test",
        ["RET=HDRS ENVID=me+2B1", "NOTIFY=SUCCESS ORCPT=rfc822;orig@far.test"],
        "Subject: tell me\n\ntext\n",
    );
    let told = wait_inbox(site, "u1", &["Action: delivered"]);
    for part in [&["multipart/report"], report].concat() {
        assert!(told.contains(part), "{part}\n{told}");
    }
    // And the other way round.
    let (ip, port) = (address(site, 0), MX_PORT.to_string());
    let from_there = |subject: &str, to: &str, options: &[&str]| {
        let header = format!("Subject: {subject}");
        let usual = ["--server", &ip, "--port", &port, "--from", "p@far.test", "--to", to, "--header", &header];
        good(&run("swaks", &[&usual[..], options].concat(), b""));
    };
    from_there("from there", "u1@example.test", &["--body", "grün"]);
    let mail = wait_inbox(site, "u1", &["Subject: from there", "grün"]);
    assert!(mail.contains("with ESMTPS (TLSv1.3"), "{name} used STARTTLS with us: {mail}");
    from_there("nobody there", "nobody@example.test", &[]);
    wait("no such user here");
    wait_empty(site);
}

#[test]
fn postfix_takes_our_mail_and_we_take_its() {
    let (mut site, _dns) = neighbours::site("far MX 10 mx.far\nmx.far A {0}\n", "");
    launch(&mut site);
    let postfix = Postfix::start(&site, 0);
    let report = ["Original-Envelope-Id: me+1", "Original-Recipient: rfc822;orig@far.test"];
    both_ways(&site, "Postfix", &|text| postfix.wait(text, &site), "using TLSv1.3", &report);
    assert!(postfix.log().contains(": BDAT "), "it offers CHUNKING, and we use it");
    let script = "import smtplib,sys\nwith smtplib.SMTP(sys.argv[1],int(sys.argv[2])) as s:\n s.ehlo('c.test')\n s.mail('p@far.test',['RET=HDRS','ENVID=e1'])\n s.rcpt('u1@example.test',['NOTIFY=SUCCESS'])\n assert s.data(b'Subject: asks\\r\\n\\r\\nx\\r\\n')[0]==250";
    good(&python(script, &[&address(&site, 0), &MX_PORT.to_string()]));
    // We know DSN, so we report, and by the queue to where it came from.
    let report = postfix.wait("Action: delivered", &site);
    assert!(report.contains("Original-Envelope-Id: e1"), "{report}");
    wait_empty(&site);
}

#[test]
fn exim_takes_our_mail_and_we_take_its() {
    let (mut site, _dns) = neighbours::site("far MX 10 mx.far\nmx.far A {0}\n", "");
    launch(&mut site);
    let exim = Exim::start(&site, 0);
    let report = ["Reporting-MTA: dns; mx.far.test"];
    both_ways(&site, "Exim", &|text| exim.wait(text, &site), "with esmtps", &report);
}

#[test]
fn mail_finds_the_right_host() {
    let zone = "pref MX 20 worse\npref MX 10 dead\npref MX 10 better\nworse A {1}\nbetter A {0}\ndead A {2}\n\
        direct A {0}\nalias CNAME direct\nnull MX 0 .\nnohost MX 10 nowhere.test.\nself MX 5 better\nself MX 10 demo.example.test.\nself MX 20 worse\n\
        loop MX 10 demo.example.test.\ntwo A {2}\ntwo A {0}\n";
    let (mut site, _dns) = neighbours::site(zone, "connect-timeout = \"2s\"\n");
    launch(&mut site);
    let best = Receiver::start(&site, 0, &["PIPELINING", "8BITMIME", "SIZE 100000"]);
    let other = Receiver::start(&site, 1, &[]);
    let literal = format!("lit@[{}]", address(&site, 1));
    let good_ones = ["a@pref.test", "b@direct.test", "c@alias.test", "d@self.test", "e@two.test"];
    submit(&site, &format!("{},{literal}", good_ones.join(",")), ["", ""], "Subject: found\n\nx\n");
    let at_best = best.wait(good_ones.len(), &site);
    for address in good_ones {
        let taken = at_best.iter().filter(|one| one["rcpt"].to_string().contains(&format!("<{address}>")));
        assert_eq!(taken.count(), 1, "{address}: {at_best:#?}");
    }
    let at_other = other.wait(1, &site);
    assert!(at_other[0]["rcpt"].to_string().contains("<lit@[127."), "{at_other:#?}");
    // Those who never will be reached come back at once, each for its own reason.
    let check = |address: &str, status: &str, words: &str| {
        submit(&site, address, ["", ""], &format!("Subject: to {address}\n\nx\n"));
        wait_inbox(&site, "u1", &[&format!("<{address}>"), status, words]);
    };
    check("x@null.test", "Status: 5.1.10", "does not accept mail");
    check("x@nowhere.test", "Status: 5.1.2", "no such domain");
    check("x@nohost.test", "Status: 5.4.4", "no server of the domain has an address");
    check("x@loop.test", "Status: 5.4.6", "would come back");
    wait_empty(&site);
    assert_eq!((best.received().len(), other.received().len()), (5, 1), "and nobody got anything twice");
}

#[test]
fn mail_goes_by_ipv6_first_and_by_ipv4_when_that_fails() {
    let (mut site, _dns) = neighbours::site("both AAAA ::1\nboth A {0}\nsix MX 5 mx.six\nmx.six AAAA ::1\n", "");
    // `::1` is everybody's: the port is this site's own.
    let port = site.ip().split('.').skip(2).fold(20_000, |port: u16, octet| port + octet.parse::<u16>().unwrap() * 64);
    let toml = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), toml.replace(&format!("port = {MX_PORT}"), &format!("port = {port}"))).unwrap();
    launch(&mut site);
    let six = Receiver::start_at(&site, "::1", port, &["PIPELINING"]);
    let four = Receiver::start_at(&site, &address(&site, 0), port, &["PIPELINING"]);
    submit(&site, "a@both.test,b@six.test,c@[ipv6:::1]", ["", ""], "Subject: six\n\nx\n");
    let taken = six.wait(3, &site);
    for to in ["<a@both.test>", "<b@six.test>", "<c@[ipv6:::1]>"] {
        assert!(taken.iter().any(|one| one["rcpt"].to_string().contains(to)), "{to}: {taken:#?}");
    }
    assert!(four.received().is_empty());
    drop(six);
    submit(&site, "a@both.test", ["", ""], "Subject: four\n\nx\n");
    four.wait(1, &site);
    wait_empty(&site);
}

/// Sends a message with each of these in the middle, by DATA and by BDAT, each over a connection of its own. argv: host, port, password. Prints
/// what the server said to each.
const SMUGGLE: &str = r#"
import smtplib, sys
host, port, password = sys.argv[1:]
dots = ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n", "\r\r\n.\r\n", "\r\n.\r\r\n", "\r\n\0.\r\n", "\r\n.\0\r\n", "\r\n..\r\n", "\r\n.\r\n"]
smuggled = "MAIL FROM:<evil@example.test>\r\nRCPT TO:<evil@far.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n"
for way in ["DATA", "BDAT"]:
    # By DATA the last of them is the end of the message, and what follows is said in earnest.
    for nth, dot in enumerate(dots if way == "BDAT" else dots[:-1]):
        with smtplib.SMTP(host, int(port), timeout=60) as s:
            s.ehlo("c.test")
            s.login("u1@example.test", password)
            s.mail("u1@example.test")
            s.rcpt("to@far.test")
            text = f".Subject: {way}-{nth}\r\n\r\nfirst{dot}{smuggled}".encode()
            try:
                if way == "DATA":
                    assert s.docmd("DATA")[0] == 354
                    s.send(b"." + text + b".\r\n")
                else:
                    s.send(b"BDAT %d LAST\r\n" % len(text) + text)
                code, reply = s.getreply()
            except smtplib.SMTPServerDisconnected:
                code = 0
            print(f"{way}-{nth}", code)
            s.close()
"#;

#[test]
fn nothing_is_smuggled_to_other_sites() {
    let (mut site, _dns) = neighbours::site("far A {0}\n", "");
    launch(&mut site);
    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    let said = good(&python(SMUGGLE, &[&site.ip(), &site.port("submission"), PASSWORD]));
    let taken: Vec<&str> = said.lines().filter_map(|line| line.strip_suffix(" 250")).collect();
    println!("{said}");
    // By DATA, two dots are one; by BDAT, dots are nothing special.
    assert_eq!(taken, ["DATA-12", "BDAT-12", "BDAT-13"], "{said}");
    wait_empty(&site);
    let received = receiver.received();
    assert_eq!(received.len(), taken.len(), "{received:#?}");
    for one in &received {
        let text = one["text"].as_str().unwrap();
        assert!(one["mail"].as_str().unwrap().starts_with("MAIL FROM:<u1@example.test>"), "{one}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "{text:?}");
        assert!(text.contains("\r\n.Subject: ") && text.ends_with("Subject: smuggled\r\n\r\nx\r\n"), "{text:?}");
        let dots = if text.contains("BDAT-12") { ".." } else { "." };
        assert!(text.contains(&format!("\r\nfirst\r\n{dots}\r\nMAIL FROM:<evil")), "{text:?}");
    }
}

#[test]
fn what_the_other_side_says_of_each_recipient_holds() {
    let (mut site, _dns) = neighbours::site("far MX 10 mx.far\nmx.far A {0}\nold MX 10 mx.old\nmx.old A {1}\n", "");
    launch(&mut site);
    site.user("u2", PASSWORD);
    let receiver = Receiver::start(&site, 0, &["PIPELINING", "8BITMIME", "DSN"]);
    let old = Receiver::start(&site, 1, &["NOEHLO"]);
    submit(&site, "ok@far.test,never@far.test,later@far.test,u2@example.test", ["", ""], "Subject: mixed\n\nbody\n");
    super::smtp::each_once(&site, "u2", &["mixed"]);
    let bounce = wait_inbox(&site, "u1", &["Action: failed"]);
    for part in [
        "<never@far.test>",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.far.test",
        "Diagnostic-Code: smtp; 550 5.1.1 never",
        "Subject: mixed",
    ] {
        assert!(bounce.contains(part), "{part}\n{bounce}");
    }
    assert!(!bounce.contains("later@far.test") && !bounce.contains("body"), "{bounce}");
    let shown = good(&site.fife(&["queue", "show"]));
    assert!(shown.contains("later@far.test by far.test") && shown.contains("450 4.2.0 later"), "{shown}");
    assert!(!shown.contains("ok@far.test"), "{shown}");
    // NEVER is never, FULL is all of it.
    submit(&site, "never@far.test", ["", "NOTIFY=NEVER"], "Subject: quiet\n\nx\n");
    submit(&site, "never@far.test", ["RET=FULL", ""], "Subject: loud\n\nall of it\n");
    let bounce = wait_inbox(&site, "u1", &["Subject: loud"]);
    assert!(bounce.contains("Content-Type: message/rfc822") && bounce.contains("all of it"), "{bounce}");
    assert!(!inbox(&site, "u1").iter().any(|mail| mail.contains("Subject: quiet")));
    // A server without extensions: HELO, one command at a time, 8-bit text coded, success told by us.
    submit(
        &site,
        "p@old.test",
        ["BODY=8BITMIME", "NOTIFY=SUCCESS"],
        "Subject: old\nContent-Type: text/plain; charset=utf-8\n\ngrün\n",
    );
    let taken = old.wait(1, &site);
    assert!(taken[0]["text"].as_str().unwrap().contains("\r\n\r\ngr=C3=BCn\r\n"), "{taken:#?}");
    wait_inbox(&site, "u1", &["Action: relayed", "p@old.test"]);
    submit(&site, "用户@old.test", ["SMTPUTF8", ""], "Subject: no\n\nx\n");
    wait_inbox(&site, "u1", &["Status: 5.6.7", "用户@old.test"]);
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn aliases_lead_out_and_strangers_do_not() {
    let (mut site, _dns) = neighbours::site("far A {0}\n", "");
    launch(&mut site);
    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    good(&site.fife(&["alias", "add", "both@example.test", "u1@example.test", "x@far.test"]));
    let (ip, port) = (site.ip(), site.port("smtp"));
    let swaks = |to: &str| {
        run(
            "swaks",
            &["--server", &ip, "--port", &port, "--from", "s@far.test", "--to", to, "--header", "Subject: forwarded"],
            b"",
        )
    };
    let refused = swaks("x@far.test");
    assert!(text(&refused).contains("550 5.7.1 relaying denied"), "{}", text(&refused));
    good(&swaks("both@example.test"));
    super::smtp::each_once(&site, "u1", &["forwarded"]);
    let taken = receiver.wait(1, &site);
    assert!(taken[0]["mail"].as_str().unwrap().starts_with("MAIL FROM:<s@far.test>"), "{taken:#?}");
}

/// Sends many messages over several connections. argv: host, port, password, connections, messages each, domain.
const MANY: &str = r#"
import smtplib, sys, threading
host, port, password, connections, each, domain = sys.argv[1:]
def work(number):
    try:
        with smtplib.SMTP(host, int(port), timeout=60) as s:
            s.login("u1@example.test", password)
            for nth in range(int(each)):
                name = f"m{number}-{nth}"
                s.sendmail("u1@example.test", [f"{name}@{domain}"], f"Subject: {name}\r\n\r\nx\r\n")
                sys.stdout.write(name + "\n")
                sys.stdout.flush()
    except (smtplib.SMTPException, OSError) as error:
        print(error, file=sys.stderr)
threads = [threading.Thread(target=work, args=(number,)) for number in range(int(connections))]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;

#[test]
fn kill_9_under_load_loses_nothing_and_repeats_nothing_that_was_recorded() {
    let (mut site, _dns) = neighbours::site("far A {0}\n", "");
    launch(&mut site);
    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let (ip, port) = (site.ip(), site.port("submission"));
        let sender = std::thread::spawn(move || {
            let domain = "far.test";
            let script = MANY.replace("m{number}", &format!("r{round}-{{number}}"));
            python(&script, &[&ip, &port, PASSWORD, "8", "60", domain])
        });
        let before = receiver.received().len();
        receiver.wait(before + 100, &site);
        site.kill_role("smtp");
        let output = sender.join().unwrap();
        acknowledged.extend(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned));
        site.wait_healthy();
    }
    wait_empty(&site);
    let received = receiver.received();
    let mut times = std::collections::BTreeMap::new();
    for one in &received {
        let rcpt = one["rcpt"][0].as_str().unwrap();
        let name = rcpt.split(['<', '@']).nth(1).unwrap().to_owned();
        *times.entry(name).or_insert(0) += 1;
    }
    let missing: Vec<_> = acknowledged.iter().filter(|name| !times.contains_key(*name)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} missing: {missing:?}\n{}",
        missing.len(),
        acknowledged.len(),
        site.log_tail()
    );
    // What the log says was delivered is on record: none of it was sent again after that line.
    let again = times.values().filter(|count| **count > 1).count();
    println!(
        "{} acknowledged, {} received, {again} sent again by kill -9 between the reply and its record",
        acknowledged.len(),
        received.len()
    );
    assert!(again <= 3 * 20 * 17, "not more than was under way");
    let log = site.log();
    for (name, count) in times.iter().filter(|(_, count)| **count > 1) {
        let id = received.iter().find(|one| one["rcpt"][0].as_str().unwrap().contains(&format!("<{name}@"))).unwrap();
        let id = id["text"].as_str().unwrap().split(" id ").nth(1).unwrap().split([';', '\r']).next().unwrap();
        let recorded = log.lines().filter(|line| line.contains(id) && line.contains("outcome=\"delivered\"")).count();
        assert!(recorded <= 1, "{name} was recorded {recorded} times and sent {count} times");
    }
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
}

#[test]
fn a_route_signs_in_at_its_host_over_tls() {
    let mut relay = Site::start();
    relay.user("u1", PASSWORD);
    good(&relay.fife(&["domain", "add", "other.test"]));
    for name in ["started", "implicit"] {
        good(&relay.fife(&["alias", "add", &format!("{name}@other.test"), "u1@example.test"]));
    }
    let route = |domains: &str, port: &str, more: &str| {
        let (host, user) = (relay.ip(), "u1@example.test");
        format!(
            "[[smtp-outbound.routes]]\ndomains = [{domains}]\nhost = \"{host}\"\nport = {port}\nuser = \"{user}\"\npassword = \"{PASSWORD}\"\n{more}\n"
        )
    };
    let started = route("\"other.test\"", &relay.port("submission"), "tls = \"required\"");
    let unknown = route("\"strict.test\"", &relay.port("submissions"), "implicit-tls = true");
    let (mut site, _dns) = neighbours::site("", &format!("{started}{unknown}"));
    launch(&mut site);
    submit(&site, "started@other.test", ["", ""], "Subject: relayed\n\nx\n");
    let mail = wait_inbox(&relay, "u1", &["Subject: relayed"]);
    assert!(mail.contains("with ESMTPSA (TLSv1.3"), "signed in, over TLS: {mail}");
    // The relay's certificate is by nobody whom this machine trusts: neither the password nor the mail goes there.
    submit(&site, "implicit@strict.test", ["", ""], "Subject: kept\n\nx\n");
    let is_refused = || good(&site.fife(&["queue", "show"])).contains("TLS: invalid peer certificate");
    wait_for("the certificate to be refused", is_refused, || text(&site.fife(&["queue", "show"])) + &site.log_tail());
    assert!(!site.log().contains(PASSWORD), "and no log knows the password");
    assert!(relay.stop());
}

#[test]
fn a_route_trusts_a_host_whose_certificate_an_authority_vouches_for() {
    let mut relay = Site::prepare("");
    let dir = relay.dir().to_owned();
    let path = |name: &str| dir.join(name).display().to_string();
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let authority = ["-subj", "/CN=authority", "-keyout", &path("ca.key"), "-out", &path("ca.pem")];
    good(&run("openssl", &[&kind[..], &authority].concat(), b""));
    let name = format!("subjectAltName=IP:{}", relay.ip());
    let signed = ["-CA", &path("ca.pem"), "-CAkey", &path("ca.key"), "-addext", "basicConstraints=critical,CA:FALSE"];
    let own = ["-subj", "/CN=relay", "-addext", &name, "-keyout", &path("key.pem"), "-out", &path("cert.pem")];
    good(&run("openssl", &[&kind[..], &signed, &own].concat(), b""));
    let toml = std::fs::read_to_string(relay.config()).unwrap();
    std::fs::write(relay.config(), format!("{toml}\n[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n")).unwrap();
    relay.launch();
    relay.user("u1", PASSWORD);
    good(&relay.fife(&["domain", "add", "other.test"]));
    good(&relay.fife(&["alias", "add", "a@other.test", "u1@example.test"]));
    let route = format!(
        "[[smtp-outbound.routes]]\ndomains = [\"other.test\"]\nhost = \"{}\"\nport = {}\nimplicit-tls = true\nuser = \"u1@example.test\"\npassword = \"{PASSWORD}\"\n",
        relay.ip(),
        relay.port("submissions")
    );
    let (mut site, _dns) = neighbours::site("", &route);
    // The authorities of this machine, for this thread and what it starts.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    mount(Some(path("ca.pem").as_str()), authorities, nothing, MsFlags::MS_BIND, nothing).unwrap();
    launch(&mut site);
    submit(&site, "a@other.test", ["", ""], "Subject: vouched for\n\nx\n");
    let mail = wait_inbox(&relay, "u1", &["Subject: vouched for"]);
    assert!(mail.contains("with ESMTPSA (TLSv1.3"), "{mail}");
    wait_empty(&site);
}

#[test]
fn the_sender_of_a_late_message_is_told_once() {
    let (mut site, _dns) = neighbours::site("far A {0}\n", "delay-warning-after = \"1s\"\n");
    launch(&mut site);
    submit(&site, "a@far.test", ["", ""], "Subject: slow\n\nx\n");
    submit(&site, "b@far.test", ["", "NOTIFY=FAILURE"], "Subject: patient\n\nx\n");
    let warning = wait_inbox(&site, "u1", &["Action: delayed", "Will-Retry-Until: "]);
    assert!(warning.contains("a@far.test") && warning.contains("refused"), "{warning}");
    site.kill_role("smtp");
    site.wait_healthy();
    let receiver = Receiver::start(&site, 0, &["PIPELINING"]);
    good(&site.fife(&["queue", "flush"]));
    receiver.wait(2, &site);
    wait_empty(&site);
    assert_eq!(inbox(&site, "u1").len(), 1, "one warning, for the one who wanted it");
}

#[test]
fn broken_tls_is_gone_without_and_injected_replies_are_not_read() {
    let (mut site, _dns) = neighbours::site("far A {0}\nmitm A {1}\n", "");
    launch(&mut site);
    let broken = Receiver::start(&site, 0, &["STARTTLS"]);
    let injected = Receiver::start(&site, 1, &["STARTTLS", "INJECT"]);
    submit(&site, "a@far.test", ["", ""], "Subject: in the clear\n\nx\n");
    broken.wait(1, &site);
    assert!(site.log().contains("TLS failed: going on without"));
    submit(&site, "a@mitm.test", ["", ""], "Subject: kept\n\nx\n");
    let is_refused = || good(&site.fife(&["queue", "show"])).contains("more replies than commands");
    wait_for("the injected reply to be seen", is_refused, || text(&site.fife(&["queue", "show"])) + &site.log_tail());
    assert!(injected.received().is_empty());
}
