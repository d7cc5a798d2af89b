//! Guessing passwords: bounded over all protocols together, and the owner gets in all the same.

use crate::harness::{Site, good, python, run, text};

/// Logs in as often as told, all at once, over one protocol from one address; prints each answer on a line of its own.
const LOGINS: &str = r#"
import imaplib, poplib, smtplib, sys, threading
protocol, ip, port, source, *pairs = sys.argv[1:]
def log_in(user, password):
    try:
        if protocol == "imap":
            class Imap(imaplib.IMAP4):
                def _create_socket(self, timeout):
                    import socket
                    return socket.create_connection((self.host, self.port), timeout, (source, 0))
            return str(Imap(ip, int(port)).login(user, password))
        if protocol == "pop3":
            class Pop3(poplib.POP3):
                def _create_socket(self, timeout):
                    import socket
                    return socket.create_connection((self.host, self.port), timeout, (source, 0))
            pop3 = Pop3(ip, int(port))
            pop3.user(user)
            return str(pop3.pass_(password))
        smtp = smtplib.SMTP(ip, int(port), source_address=(source, 0))
        smtp.ehlo()
        smtp.user, smtp.password = user, password
        return str(smtp.auth("plain", smtp.auth_plain))
    except Exception as error:
        return str(error)
def tell(pair):
    print(log_in(*pair.split(" ")), flush=True)
threads = [threading.Thread(target=tell, args=(pair,)) for pair in pairs]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"#;

/// The answers to these logins (`USER PASSWORD`).
fn log_in(site: &Site, protocol: &str, source: &str, pairs: &[&str]) -> Vec<String> {
    let service = if protocol == "smtp" { "submission" } else { protocol };
    let (ip, port) = (site.ip(), site.port(service));
    let args = [&[protocol, &ip, &port, source][..], pairs].concat();
    good(&python(LOGINS, &args)).lines().map(str::to_owned).collect()
}

fn hashes(site: &Site) -> f64 {
    let metrics = good(&run("curl", &["-s", &format!("http://{}/metrics", site.at("metrics"))], b""));
    let line = metrics.lines().find(|line| line.starts_with("fife_ldap_proxy_password_hashes_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
}

#[test]
fn guessing_is_bounded_over_all_protocols_and_the_owner_gets_in_from_elsewhere() {
    let site = Site::start_with("[ldap-proxy]\naccount-failures-max = 4\nnetwork-failures-max = 12\n");
    site.user("u1", "secret1");
    site.user("u2", "secret2");
    site.user("u3", "secret3");
    let (attacker, owner) = ("127.0.0.1", "127.77.0.2");
    let guesses: Vec<String> = (0..8).map(|n| format!("u1@example.test guess{n}")).collect();
    let guesses: Vec<&str> = guesses.iter().map(String::as_str).collect();
    let answers = log_in(&site, "imap", attacker, &guesses);
    let seen = answers.iter().filter(|answer| answer.contains("AUTHENTICATIONFAILED")).count();
    // As many more as there are hashes computed at a time.
    assert!((4..8).contains(&seen), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("UNAVAILABLE")), "{answers:?}");

    let before = hashes(&site);
    let right = &["u1@example.test secret1"];
    for (protocol, expected) in [("imap", "[UNAVAILABLE]"), ("pop3", "[SYS/TEMP]"), ("smtp", "454")] {
        let answers = log_in(&site, protocol, attacker, right);
        assert!(answers.iter().all(|answer| answer.contains(expected)), "{protocol}: {answers:?}");
    }
    assert!(hashes(&site) - before < 0.5, "a refused password is not looked at");
    for (protocol, expected) in [("imap", "OK"), ("pop3", "+OK"), ("smtp", "235")] {
        let answers = log_in(&site, protocol, owner, right);
        assert!(answers.iter().all(|answer| answer.contains(expected)), "{protocol}: {answers:?}");
    }
    // Who asks the directory himself is counted with the others.
    let whoami = |password: &str| {
        let url = format!("ldap://{}", site.at("ldap"));
        let output = run("ldapwhoami", &["-x", "-H", &url, "-D", "uid=u1,ou=example.test,o=demo", "-w", password], b"");
        text(&output)
    };
    let codes: Vec<bool> = (0..4).map(|n| whoami(&format!("guess{n}")).contains("(19)")).collect();
    assert!(codes.contains(&true) && whoami("secret1").contains("too many failed logins"), "{codes:?}");
    assert!(site.log().contains("too many failed logins"));

    // Through many accounts: the network is closed, but not to those who log in from there.
    let sprayer = "127.88.0.2";
    assert!(log_in(&site, "smtp", sprayer, &["u2@example.test secret2"]).concat().contains("235"));
    let sprayed: Vec<String> = (0..24).map(|n| format!("nobody{n}@example.test guess")).collect();
    let sprayed: Vec<&str> = sprayed.iter().map(String::as_str).collect();
    let answers = log_in(&site, "smtp", sprayer, &sprayed).concat();
    assert!(answers.contains("535") && answers.contains("454"), "{answers}");
    assert!(log_in(&site, "pop3", sprayer, &["u3@example.test secret3"]).concat().contains("SYS/TEMP"));
    assert!(log_in(&site, "pop3", sprayer, &["u2@example.test secret2"]).concat().contains("+OK"));
    for secret in ["secret1", "secret2", "secret3", "guess"] {
        assert!(!site.log().contains(secret), "no password in the log");
    }
}
