//! Two hosts of one site: smtp on one, mailboxes and directory on the other, mutual TLS between them.
//!
//! Owns: what crosses hosts. Witnesses: swaks and Python's imaplib at the ends, OpenSSL and ldap-utils at the seam.

use crate::harness::{Site, good, python, run, text};

const SECRET: &str = "the hosts of this site know it";

/// The file of both hosts, each at an address of its own.
fn site_toml(secret: &str, front: &Site, store: &Site) -> String {
    format!(
        r#"
[site]
name = "demo"
domain = "example.test"
secret = "{secret}"

[hosts.front]
roles = ["smtp"]
match = {{ hostname = "front" }}
[hosts.front.metrics]
listen = []
[hosts.front.smtp]
listen = ["{front}:2525"]
listen-submission = ["{front}:2587"]
listen-submissions = []
lmtp = "{store}:2424"
lmtp-site = true
free-space-min = "4 MiB"
[hosts.front.directory]
servers = ["{store}:2636"]
tls = "site"

[hosts.store]
roles = ["ldap-proxy", "pop-imap"]
match = {{ hostname = "store" }}
[hosts.store.metrics]
listen = []
[hosts.store.pop-imap]
listen-imap = ["{store}:2143"]
listen-imaps = []
listen-pop3 = []
listen-pop3s = []
listen-lmtp-site = ["{store}:2424"]
free-space-min = "4 MiB"
[hosts.store.ldap-proxy]
listen = ["unix:run/ldap.sock"]
listen-tls = []
listen-site = ["{store}:2636"]
"#,
        front = front.ip(),
        store = store.ip(),
    )
}

/// Both hosts, not started.
fn two_hosts(front_secret: &str) -> (Site, Site) {
    let (mut front, mut store) = (Site::prepare(""), Site::prepare(""));
    for (site, secret, host) in [(&front, front_secret, "front"), (&store, SECRET, "store")] {
        std::fs::write(site.config(), site_toml(secret, &front, &store)).unwrap();
        println!("{host}: {}", site.ip());
    }
    front.be("front");
    store.be("store");
    (front, store)
}

#[test]
fn mail_comes_in_at_one_host_and_is_read_at_the_other() {
    let (mut front, mut store) = two_hosts(SECRET);
    store.launch();
    front.launch();
    store.user("u1", "secret-1");
    let swaks = |more: &[&str]| {
        let mut args = vec!["--to", "u1@example.test", "--from", "u1@example.test", "--h-Subject", "across"];
        args.extend(more);
        run("swaks", &args, b"")
    };
    let (relay, submission) = (front.at("smtp"), front.at("submission"));
    good(&swaks(&["--server", &relay, "--from", "a@example.org"]));
    // A login at the front is decided by the directory behind it.
    let login = ["--auth", "PLAIN", "--auth-user", "u1@example.test", "--auth-password"];
    good(&swaks(&[&["--server", &submission, "-tls"], &login[..], &["secret-1"]].concat()));
    let wrong = swaks(&[&["--server", &submission, "-tls"], &login[..], &["secret-2"]].concat());
    assert!(text(&wrong).contains("535 5.7.8"), "{}", text(&wrong));
    // Nobody here is no recipient there.
    let nobody = run("swaks", &["--server", &relay, "--to", "nobody@example.test", "--from", "a@example.org"], b"");
    assert!(text(&nobody).contains("550 5.1.1"), "{}", text(&nobody));
    let count = r"
import imaplib, sys
imap = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
imap.login('u1@example.test', 'secret-1')
imap.select('INBOX')
print(len(imap.search(None, 'SUBJECT', 'across')[1][0].split()))
";
    assert_eq!(good(&python(count, &[&store.ip(), &store.port("imap")])).trim(), "2");
}

/// An LDAP unbind request: the server closes.
const UNBIND: &str = "\x30\x05\x02\x01\x01\x42\x00";

/// What OpenSSL says to a connection that shows this certificate, if any, and sends these lines.
fn openssl(at: &str, certificate: Option<&str>, lines: &str) -> String {
    let mut args = vec!["s_client", "-connect", at, "-quiet", "-ign_eof", "-servername", "host.site.internal"];
    let key;
    if let Some(dir) = certificate {
        key = (format!("{dir}/certificate.pem"), format!("{dir}/key.pem"));
        args.extend(["-cert", &key.0, "-key", &key.1]);
    }
    text(&run("openssl", &args, lines.as_bytes()))
}

#[test]
fn strangers_are_not_let_in_between_hosts() {
    let (mut front, mut store) = two_hosts("the hosts of that site know it");
    store.launch();
    store.user("u1", "secret-1");
    // A front of another site makes its certificate, and can do nothing with it.
    front.spawn();
    let own = store.state().join("tls/site").display().to_string();
    let foreign = front.state().join("tls/site");
    crate::harness::wait_for("the front's certificate", || foreign.join("made.json").exists(), || front.log_tail());
    let foreign = foreign.display().to_string();
    let lhlo = "LHLO c\r\nQUIT\r\n";
    let check = |certificate: Option<&str>, greeted: bool| {
        let said = openssl(&store.at("lmtp"), certificate, lhlo);
        assert_eq!(said.contains("220 "), greeted, "{certificate:?}: {said}");
        let said = openssl(&store.at("ldaps"), certificate, UNBIND);
        assert_eq!(said.contains("alert"), !greeted, "{certificate:?}: {said}");
    };
    check(Some(&own), true);
    check(None, false);
    check(Some(&foreign), false);
    // In the clear there is nothing at all.
    let ldap = ["-x", "-H", &format!("ldap://{}", store.at("ldaps")), "-b", "o=demo", "-s", "base"];
    assert!(!run("ldapsearch", &ldap, b"").status.success());
    // The front with the wrong secret delivers nothing, and says so; its own roles run.
    front.wait_healthy();
    let args = ["--server", &front.at("smtp"), "--to", "u1@example.test", "--from", "a@example.org"];
    let said = text(&run("swaks", &args, b""));
    assert!(said.contains("451 4."), "{said}");
}

/// OpenLDAP's client binds by SASL EXTERNAL with a host's certificate, and reads everything.
#[test]
fn a_host_is_known_to_the_directory_by_its_certificate() {
    let (_front, mut store) = two_hosts(SECRET);
    store.launch();
    store.user("u1", "secret-1");
    let dir = store.state().join("tls/site");
    // Any certificate may stand for the server's here: ldap-utils is to prove who we are.
    let url = format!("ldaps://{}", store.at("ldaps"));
    let environment = [
        format!("LDAPTLS_CERT={}/certificate.pem", dir.display()),
        format!("LDAPTLS_KEY={}/key.pem", dir.display()),
        "LDAPTLS_REQCERT=never".to_owned(),
    ];
    let ldap = |program: &str, args: &[&str], input: &str| {
        let mut all: Vec<&str> = environment.iter().map(String::as_str).collect();
        all.extend([program, "-Q", "-Y", "EXTERNAL", "-H", &url]);
        all.extend(args);
        run("env", &all, input.as_bytes())
    };
    assert_eq!(good(&ldap("ldapwhoami", &[], "")).trim(), "dn:cn=host,cn=site,cn=external,cn=auth");
    let found = good(&ldap("ldapsearch", &["-LLL", "-b", "o=demo", "(mail=u1@example.test)", "mail"], ""));
    assert!(found.contains("mail: u1@example.test"), "{found}");
    // It reads; it changes nothing.
    let change = "dn: ou=other.test,o=demo\nobjectClass: organizationalUnit\nou: other.test\n";
    let refused = text(&ldap("ldapadd", &[], change));
    assert!(refused.contains("Insufficient access"), "{refused}");
}
