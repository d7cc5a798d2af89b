//! Sender authentication: the domains' DKIM keys, mail signed and verified, by programs that nobody here wrote.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use fife::base::address::Address;
use fife::base::clock;
use fife::config::dns::Dns;
use fife::net::dns::resolver;
use fife::smtp::authentication::verify::{Sender, Verifier};
use serde_json::Value;

use crate::dns::{Nsd, txt};
use crate::harness::{Site, good, run, text, wait_for};
use crate::neighbours;

/// The first domain's keys, once they are made.
fn keys(site: &Site) -> Vec<Value> {
    let mut keys = Vec::new();
    let made = || {
        let shown = site.fife(&["dkim", "show", "example.test", "--json"]);
        keys = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        !keys.is_empty()
    };
    wait_for("DKIM keys of the first domain", made, || site.log_tail());
    keys
}

fn column<'a>(keys: &'a [Value], name: &str) -> Vec<&'a str> {
    keys.iter().map(|key| key[name].as_str().unwrap()).collect()
}

fn states(site: &Site) -> String {
    let listed = good(&site.fife(&["dkim", "list", "example.test"]));
    listed.lines().map(|line| line.split_whitespace().last().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_domain_has_keys_from_its_beginning_and_they_rotate_without_a_gap() {
    let site = directory_only();
    let first = keys(&site);
    assert_eq!(column(&first, "algorithm"), ["ed25519", "rsa"]);
    assert_eq!(column(&first, "state"), ["active", "active"]);
    assert_eq!(states(&site), "active active");
    good(&site.fife(&["dkim", "rotate", "example.test"]));
    assert_eq!(states(&site), "waiting waiting active active");
    let again = site.fife(&["dkim", "rotate", "example.test"]);
    assert!(!again.status.success() && text(&again).contains("waiting already"), "{}", text(&again));
    good(&site.fife(&["dkim", "activate", "example.test"]));
    assert_eq!(states(&site), "active active retired retired");
    let selector = column(&keys(&site), "selector")[0].to_owned();
    let busy = site.fife(&["dkim", "remove", "example.test", &selector]);
    assert!(!busy.status.success() && text(&busy).contains("signs now"), "{}", text(&busy));
    good(&site.fife(&["dkim", "remove", "example.test"]));
    assert_eq!(states(&site), "active active");
    // A domain that is added has its own at once.
    good(&site.fife(&["domain", "add", "second.test"]));
    let all = good(&site.fife(&["dkim", "list"]));
    assert_eq!(
        all.lines().filter(|line| line.starts_with("second.test") && line.ends_with("active")).count(),
        2,
        "{all}"
    );
    let missing = site.fife(&["dkim", "show", "third.test"]);
    assert_eq!(missing.status.code(), Some(1), "{}", text(&missing));
}

#[test]
fn private_keys_are_shown_to_administrators_and_to_nobody_else() {
    let site = directory_only();
    keys(&site);
    site.user("u1", "secret1");
    let first_admin = || std::fs::read_to_string(site.state().join("first-admin.txt")).unwrap_or_default();
    wait_for("the first administrator", || first_admin().contains("password: "), || site.log_tail());
    let text = first_admin();
    let password = text.lines().find_map(|line| line.strip_prefix("password: ")).unwrap();
    let url = format!("ldap://{}", site.at("ldap"));
    let search = |who: &[&str]| {
        let what = ["-LLL", "-o", "ldif_wrap=no", "-b", "o=demo", "(objectClass=*)", "*", "fifeDkimKey"];
        let found = run("ldapsearch", &[&["-x", "-H", &url][..], who, &what].concat(), b"");
        String::from_utf8_lossy(&found.stdout).matches("fifeDkimKey:").count()
    };
    let dn = |uid: &str| format!("uid={uid},ou=example.test,o=demo");
    assert_eq!(search(&["-D", &dn("admin"), "-w", password]), 2);
    assert_eq!(search(&["-D", &dn("u1"), "-w", "secret1"]), 0);
    assert_eq!(search(&[]), 0);
}

/// A site that runs its directory and nothing else.
fn directory_only() -> Site {
    let mut site = Site::prepare("");
    let toml = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), toml.replace(r#"["ldap-proxy", "pop-imap", "smtp"]"#, r#"["ldap-proxy"]"#)).unwrap();
    site.launch();
    site
}

const PASSWORD: &str = "correct horse battery";
/// Where senders may send from, as their SPF records say; and where they may not.
const GOOD: &str = "127.0.0.77";
const BAD: &str = "127.0.0.78";

/// Prints the last message of a mailbox as it came over the wire.
const LAST: &str = r#"
import poplib, sys
host, port, user, password = sys.argv[1:]
box = poplib.POP3(host, int(port), timeout=60)
box.user(user)
box.pass_(password)
sys.stdout.buffer.write(b"".join(line + b"\r\n" for line in box.retr(len(box.list()[1]))[1]))
"#;

/// Verifies every signature of a message with dkimpy: prints one line each.
const DKIMPY: &str = r#"
import sys, dkim, dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers = [sys.argv[1]]
def txt(name, timeout=5):
    return b"".join(resolver.resolve(name.decode(), "TXT")[0].strings)
message = open(sys.argv[2], "rb").read()
verifier = dkim.DKIM(message)
for index in range(message.count(b"DKIM-Signature:")):
    try:
        print(verifier.verify(idx=index, dnsfunc=txt))
    except dkim.ValidationError as error:
        print(False, error)
"#;

/// A site with u1 that checks mail from every client, and asks the DNS server at its own address, port 53.
fn checking(more: &str) -> (Site, SocketAddr) {
    let mut site = Site::prepare(&format!("[smtp-authentication]\ntrusted-networks = []\n{more}"));
    let toml = std::fs::read_to_string(site.config()).unwrap();
    let dns: SocketAddr = format!("{}:53", site.ip()).parse().unwrap();
    std::fs::write(site.config(), format!("{toml}\n[dns]\nservers = [\"{dns}\"]\ntimeout = \"2s\"\nretries = 1\n"))
        .unwrap();
    site.launch();
    keys(&site);
    site.user("u1", PASSWORD);
    (site, dns)
}

/// Records of a domain that sends from `GOOD` only, and has this policy.
fn sender(domain: &str, policy: &str) -> String {
    let spf = txt(domain, &format!("v=spf1 ip4:{GOOD} -all"));
    spf + &txt(&format!("_dmarc.{domain}"), &format!("v=DMARC1; p={policy}"))
}

/// swaks to port 25.
fn swaks(site: &Site, from_ip: &str, envelope: &str, args: &[&str]) -> Output {
    let (ip, port) = (site.ip(), site.port("smtp"));
    let usual =
        ["--server", &ip, "--port", &port, "--to", "u1@example.test", "--local-interface", from_ip, "--timeout", "60"];
    run("swaks", &[&usual[..], &["--from", envelope], args].concat(), b"")
}

fn last(site: &Site) -> String {
    good(&run("/usr/bin/python3", &["-c", LAST, &site.ip(), &site.port("pop3"), "u1@example.test", PASSWORD], b""))
}

/// The topmost Authentication-Results of the last message, on one line.
fn results(site: &Site) -> String {
    let message = last(site).replace("\r\n\t", " ");
    message.lines().find_map(|line| line.strip_prefix("Authentication-Results: ")).unwrap_or_default().to_owned()
}

#[test]
fn policies_of_senders_are_obeyed_and_the_results_noted() {
    let (site, dns) = checking("");
    let zone = [
        sender("strict.test", "reject"),
        sender("careful.test", "quarantine"),
        sender("curious.test", "none"),
        sender("rival.test", "none"),
        txt("nopolicy.test", &format!("v=spf1 ip4:{GOOD} -all")),
        txt("mail.strict.test", &format!("v=spf1 ip4:{GOOD} -all")),
    ];
    let _dns = Nsd::start(dns, &zone.concat(), &["broken.test"]);
    let check = |from_ip: &str, envelope: &str, header: &str, expected: &[&str]| {
        good(&swaks(&site, from_ip, envelope, &["--ehlo", "mail.strict.test", "--h-From", header]));
        let results = results(&site);
        assert!(results.starts_with("demo.example.test; "), "{results}");
        for part in expected {
            assert!(results.contains(part), "{envelope} from {from_ip}: {part} in {results}");
        }
    };
    let refused = |from_ip: &str, envelope: &str, header: &str| {
        let output = text(&swaks(&site, from_ip, envelope, &["--h-From", header]));
        assert!(output.contains("<** 550 5.7.1 refused as the DMARC policy of strict.test asks"), "{output}");
    };
    let strict = ["spf=pass", "smtp.mailfrom=u@strict.test", "dkim=none", "dmarc=pass", "header.from=strict.test"];
    check(GOOD, "u@strict.test", "U <u@strict.test>", &strict);
    // A subdomain in the envelope aligns (RFC 9989 section 4.10.2), another domain does not.
    check(GOOD, "u@mail.strict.test", "U <u@strict.test>", &["spf=pass", "dmarc=pass"]);
    check(GOOD, "<>", "U <u@strict.test>", &["smtp.helo=mail.strict.test", "dmarc=pass"]);
    refused(BAD, "u@strict.test", "U <u@strict.test>");
    refused(GOOD, "u@rival.test", "U <u@strict.test>");
    // Two authors: the one who may not is not hidden behind the one who may.
    refused(GOOD, "u@rival.test", "u@rival.test, u@strict.test");
    check(BAD, "u@careful.test", "u@careful.test", &["spf=fail", "dmarc=fail", "policy.dmarc=quarantine"]);
    check(BAD, "u@curious.test", "u@curious.test", &["spf=fail", "dmarc=fail", "policy.dmarc=none"]);
    check(GOOD, "u@nopolicy.test", "u@nopolicy.test", &["spf=pass", "dmarc=none"]);
    check(GOOD, "u@nowhere.test", "u@nowhere.test", &["spf=none", "dmarc=none"]);
    check(GOOD, "u@broken.test", "u@broken.test", &["spf=temperror", "dmarc=temperror"]);
    let forged = "Authentication-Results: demo.example.test; dkim=pass header.d=bank.test";
    check(GOOD, "u@nopolicy.test", "u@nopolicy.test", &["spf=pass"]);
    good(&swaks(&site, GOOD, "u@nopolicy.test", &["--add-header", forged]));
    assert!(!last(&site).contains("bank.test"), "{}", last(&site));
    let metrics = good(&run("curl", &["-s", &format!("http://{}/metrics", site.at("metrics"))], b""));
    let counted = metrics.lines().find(|line| {
        line.starts_with("fife_smtp_authentication_messages_total")
            && line.contains("dmarc")
            && line.contains("\"pass\"")
    });
    assert!(counted.is_some_and(|line| line.ends_with(" 3")), "{counted:?}");
}

#[test]
fn a_site_may_only_mark_and_another_may_wait_for_dns() {
    let (site, dns) = checking("dmarc = \"mark\"\n");
    let nsd = Nsd::start(dns, &sender("strict.test", "reject"), &[]);
    good(&swaks(&site, BAD, "u@strict.test", &["--h-From", "u@strict.test"]));
    let found = results(&site);
    assert!(found.contains("dmarc=fail") && found.contains("policy.dmarc=reject"), "{found}");
    drop((site, nsd));
    // Nobody answers: the budget bounds the wait, the client is told to come again.
    let (site, _) = checking("dns-failure = \"defer\"\ntime-max = \"1s\"\n");
    let output = text(&swaks(&site, GOOD, "u@strict.test", &["--h-From", "u@strict.test"]));
    assert!(output.contains("<** 451 4.4.3"), "{output}");
}

#[test]
fn dkimpy_and_opendkim_accept_what_fife_signs_and_see_what_was_changed() {
    let (site, dns) = checking("");
    let published = keys(&site);
    let check = || {
        let output = site.fife(&["dkim", "check", "example.test", "--json"]);
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), column(&found, "dns").join(" "))
    };
    assert_eq!(check(), (Some(1), "unknown unknown".into()), "nobody answers yet");
    let wrong = txt(published[0]["name"].as_str().unwrap(), published[1]["record"].as_str().unwrap());
    let nsd = Nsd::start(dns, &wrong, &[]);
    assert_eq!(check(), (Some(1), "different missing".into()));
    drop(nsd);
    let zone: String =
        published.iter().map(|key| txt(key["name"].as_str().unwrap(), key["record"].as_str().unwrap())).collect();
    let _dns = Nsd::start(dns, &zone, &[]);
    assert_eq!(check(), (Some(0), "published published".into()));
    let (ip, port) = (site.ip(), site.port("submission"));
    let submit = |from: &str| {
        let output = Command::new("swaks")
            .args(["--server", &ip, "--port", &port, "--to", "u1@example.test", "--from", "u1@example.test"])
            .args(["--auth-user", "u1@example.test", "--auth-password", PASSWORD, "--h-From", from])
            .args(["--header", "Subject: f\u{fc}r dich", "--body", "\u{4f60}\u{597d}, all.  \n.\nLast line."])
            .output();
        good(&output.unwrap());
        last(&site)
    };
    let message = submit("U <u1@example.test>");
    assert_eq!(message.matches("DKIM-Signature:").count(), 2, "{message}");
    let file = site.dir().join("signed.eml");
    std::fs::write(&file, &message).unwrap();
    let verified = dkimpy(&site, &file);
    assert_eq!(verified, "True\nTrue\n");
    let told = opendkim(&site, &file);
    assert!(told.status.success(), "{}", text(&told));
    std::fs::write(&file, message.replace("Last line.", "Last line!")).unwrap();
    assert!(!dkimpy(&site, &file).contains("True"));
    assert!(!opendkim(&site, &file).status.success());
    // What the site itself writes is signed too: here, that there is no such domain.
    let lost = ["--auth-user", "u1@example.test", "--auth-password", PASSWORD, "--from", "u1@example.test"];
    let to = ["--server", &ip, "--port", &port, "--to", "x@nowhere.test"];
    good(&run("swaks", &[&to[..], &lost].concat(), b""));
    wait_for("the bounce", || last(&site).contains("From: Mail delivery"), || site.log_tail());
    std::fs::write(&file, last(&site)).unwrap();
    assert_eq!(dkimpy(&site, &file), "True\nTrue\n", "{}", last(&site));
    // Nobody signs in another user's domain, and a domain without keys here is nobody's to sign for.
    assert!(!submit("Bank <u@bank.test>").contains("DKIM-Signature:"));
}

#[test]
fn a_signature_outlives_a_server_that_takes_7_bit_text_only() {
    let (site, dns) = checking(&format!("[smtp-outbound]\nport = {}\n", neighbours::MX_PORT));
    let record = |key: &Value| txt(key["name"].as_str().unwrap(), key["record"].as_str().unwrap());
    let zone: String = keys(&site).iter().map(record).collect();
    let _dns = Nsd::start(dns, &format!("{zone}far.test. A {}\n", neighbours::address(&site, 0)), &[]);
    let receiver = neighbours::Receiver::start(&site, 0, &["PIPELINING"]);
    let usual = "From: U <u1@example.test>\nTo: x@far.test\nMIME-Version: 1.0\n";
    let plain = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n";
    let messages = [
        format!("{usual}Subject: one part\n{plain}\n\u{4f60}\u{597d}, all.  \n..\nEnd\n"),
        format!(
            "{usual}Subject: parts\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n--b\n{plain}\ngr\u{fc}n\n--b\n\
             Content-Type: image/png\nContent-Transfer-Encoding: 8bit\n\n\u{fc}\u{fc}\n--b--\n"
        ),
    ];
    for (count, message) in (1..).zip(&messages) {
        let (file, server, port) = (site.dir().join("send.eml"), site.ip(), site.port("submission"));
        std::fs::write(&file, message).unwrap();
        let data = format!("@{}", file.display());
        let login = ["--auth-user", "u1@example.test", "--auth-password", PASSWORD, "--from", "u1@example.test"];
        let to = ["--server", &server, "--port", &port, "--to", "x@far.test", "--data", &data];
        good(&run("swaks", &[&to[..], &login].concat(), b""));
        let received = receiver.wait(count, &site);
        let taken = received.last().unwrap()["text"].as_str().unwrap();
        assert!(taken.is_ascii() && taken.contains("quoted-printable"), "{taken}");
        assert_eq!(taken.matches("DKIM-Signature:").count(), 2, "{taken}");
        std::fs::write(&file, taken).unwrap();
        assert_eq!(dkimpy(&site, &file), "True\nTrue\n", "{taken}");
        let told = opendkim(&site, &file);
        assert!(told.status.success(), "{}\n{taken}", text(&told));
    }
}

fn dkimpy(site: &Site, file: &Path) -> String {
    good(&run("/usr/bin/python3", &["-c", DKIMPY, &site.ip(), &file.display().to_string()], b""))
}

/// OpenDKIM's verifier, in a mount namespace of its own in which the site's DNS server is the system's.
fn opendkim(site: &Site, file: &Path) -> Output {
    let conf = site.dir().join("resolv.conf");
    std::fs::write(&conf, format!("nameserver {}\n", site.ip())).unwrap();
    let script = "mount --bind \"$1\" \"$(readlink -f /etc/resolv.conf)\" && exec opendkim-testmsg -C <\"$2\"";
    let (conf, file) = (conf.display().to_string(), file.display().to_string());
    run("unshare", &["--mount", "--map-root-user", "sh", "-c", script, "sh", &conf, &file], b"")
}

#[test]
fn fife_accepts_what_dkimpy_and_opendkim_sign_and_sees_what_was_changed() {
    let (site, dns) = checking("");
    let dir = site.dir().to_owned();
    let path = |name: &str| dir.join(name).display().to_string();
    let bits = ["genrsa", "-traditional", "-out"];
    good(&run("openssl", &[&bits[..], &[&path("rsa.key"), "2048"]].concat(), b""));
    let public = good(&run("openssl", &["rsa", "-in", &path("rsa.key"), "-pubout"], b""));
    let rsa: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    let make = "import sys, nacl.signing, nacl.encoding\nkey = nacl.signing.SigningKey.generate()\n\
                open(sys.argv[1], 'wb').write(key.encode(nacl.encoding.Base64Encoder))\n\
                print(key.verify_key.encode(nacl.encoding.Base64Encoder).decode())";
    let ed25519 = good(&run("/usr/bin/python3", &["-c", make, &path("ed.key")], b""));
    let zone = [
        txt("r._domainkey.signer.test", &format!("v=DKIM1; k=rsa; p={rsa}")),
        txt("e._domainkey.signer.test", &format!("v=DKIM1; k=ed25519; p={}", ed25519.trim())),
        txt("_dmarc.signer.test", "v=DMARC1; p=reject"),
    ];
    let _dns = Nsd::start(dns, &zone.concat(), &[]);
    let message = "From: U <u@signer.test>\r\nTo: u1@example.test\r\nSubject: signed\r\n elsewhere\r\n\
                   Date: Tue, 24 Nov 2026 03:30:00 +0000\r\nMessage-ID: <1@signer.test>\r\n\r\nHello,  there.\r\n\r\n";
    let (rsa_key, ed_key) = (path("rsa.key"), path("ed.key"));
    let dkimsign = |args: &[&str]| good(&run("dkimsign", args, message.as_bytes()));
    let opendkim = ["-C", "-d", "signer.test", "-s", "r", "-k", &rsa_key];
    let signed = [
        dkimsign(&["r", "signer.test", &rsa_key]),
        dkimsign(&["--hcanon", "simple", "--bcanon", "simple", "r", "signer.test", &rsa_key]),
        dkimsign(&["--signalg", "ed25519-sha256", "--bcanon", "relaxed", "e", "signer.test", &ed_key]),
        good(&run("opendkim-testmsg", &opendkim, message.as_bytes())),
    ];
    for message in signed {
        let message = message.replace("\r\n", "\n");
        let send = |message: &str| {
            let file = dir.join("send.eml");
            std::fs::write(&file, message).unwrap();
            swaks(&site, BAD, "bounces@list.test", &["--data", &format!("@{}", file.display())])
        };
        good(&send(&message));
        let found = results(&site);
        assert!(found.contains("dkim=pass") && found.contains("dmarc=pass"), "{found}\n{message}");
        let changed = text(&send(&message.replace("Hello", "Hallo")));
        assert!(changed.contains("550 5.7.1 refused as the DMARC policy of signer.test asks"), "{changed}");
    }
}

/// Where mail-auth's sources lie, with the data that it is tested with.
fn mail_auth() -> PathBuf {
    let args = ["metadata", "--format-version", "1", "--locked", "--offline"];
    let output = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let metadata: Value = serde_json::from_str(&good(&output)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "mail-auth").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// One case of the suite.
#[derive(Debug, Default, Clone)]
struct Case {
    helo: String,
    sender: String,
    ip: String,
}

/// The suite's own order (RFC 7208 section 2.4): a HELO that fails decides, so does a HELO without reverse-path.
#[test]
fn the_spf_suite_of_rfc_7208_passes_over_a_real_server() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(mail_auth().join("resources/spf")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut faults, mut cases, mut stages) = (Vec::new(), 0, 0);
    for file in &files {
        for (zone, broken, tests) in std::fs::read_to_string(file).unwrap().split("---\n").flat_map(suite_stages) {
            stages += 1;
            let at: SocketAddr = format!("127.53.{}.{stages}:53", std::process::id() % 250).parse().unwrap();
            let broken: Vec<&str> = broken.iter().map(String::as_str).collect();
            let _dns = Nsd::start(at, &zone, &broken);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let settings = Dns { servers: vec![at.to_string().parse().unwrap()], ..Dns::default() };
                let verifier =
                    Verifier::new(resolver(&settings).unwrap(), "localdomain.org".into(), Duration::from_secs(20));
                for (case, expected) in tests {
                    cases += 1;
                    let found = spf(&verifier, &case).await;
                    if found != expected {
                        faults.push(format!("{}: {case:?}: {found}, not {expected}", file.display()));
                    }
                }
            });
        }
    }
    assert!(cases > 100, "{cases} cases");
    assert!(faults.is_empty(), "{} of {cases}: {faults:#?}", faults.len());
}

async fn spf(verifier: &Verifier, case: &Case) -> String {
    let reverse_path: Option<Address> = case.sender.parse().ok();
    let client: IpAddr = case.ip.parse().unwrap();
    let sender = Sender { client, helo: &case.helo, reverse_path: reverse_path.as_ref() };
    let found = verifier.spf(&sender, clock::monotonic() + Duration::from_secs(20)).await;
    let helo = found.helo.map(|output| output.result().to_string().to_lowercase());
    let mail_from = found.mail_from.map(|output| output.result().to_string().to_lowercase());
    match (helo, mail_from) {
        (Some(helo), _) if helo == "fail" => helo,
        (_, Some(mail_from)) => mail_from,
        (helo, None) => helo.unwrap_or_else(|| "none".into()),
    }
}

/// A zone, names that the server cannot answer for, and the cases with what is expected.
type Stage = (String, Vec<String>, Vec<(Case, String)>);

/// The stages of a block: its records, each replaced by a later one of the same kind and name, and the cases in between.
fn suite_stages(block: &str) -> Vec<Stage> {
    // The suite's name for a name that cannot be looked up.
    let unanswered = |word: &str| word.starts_with("_dns_error.").then(|| word.trim_end_matches('.').to_owned());
    let words = || block.split(|c: char| c.is_whitespace() || ":=@".contains(c));
    let mut broken: Vec<String> = words().filter_map(unanswered).collect();
    broken.sort();
    broken.dedup();
    let mut records = std::collections::BTreeMap::new();
    let (mut stages, mut tests, mut case) = (Vec::new(), Vec::new(), Case::default());
    let zone = |records: &std::collections::BTreeMap<_, String>| records.values().cloned().collect::<String>();
    for line in block.lines().map(|line| line.trim().trim_start_matches('-').trim()) {
        let Some((key, value)) = line.split_once(':').map(|(key, value)| (key, value.trim())) else { continue };
        match key {
            "domain" => case.helo = value.to_owned(),
            "sender" => case.sender = value.to_owned(),
            "ip" => case.ip = value.to_owned(),
            "expect" => tests.push((case.clone(), value.split(' ').next().unwrap().to_lowercase())),
            "spf" | "exp" | "a" | "aaaa" | "mx" | "ptr" => {
                if !tests.is_empty() {
                    stages.push((zone(&records), broken.clone(), std::mem::take(&mut tests)));
                }
                let (name, rest) = value.split_once(' ').unwrap();
                records.insert((key.to_owned(), name.to_owned()), suite_record(key, name, rest));
            }
            _ => {}
        }
    }
    stages.push((zone(&records), broken, tests));
    stages
}

/// One line of the suite's records, as lines of a zone file; none for a name that DNS cannot have.
fn suite_record(key: &str, name: &str, rest: &str) -> String {
    let items = || rest.split(',').map(|item| item.trim().trim_end_matches('.'));
    match key {
        "spf" | "exp" if name.len() > 250 || name.split('.').any(|label| label.len() > 63) => String::new(),
        "spf" | "exp" => txt(name, rest),
        "a" => items().map(|ip| format!("{name}. A {ip}\n")).collect(),
        "aaaa" => items().map(|ip| format!("{name}. AAAA {ip}\n")).collect(),
        "ptr" => items().map(|host| format!("{}. PTR {host}.\n", reverse(name.parse().unwrap()))).collect(),
        _ => {
            let kind = |ip: &str| if ip.contains(':') { "AAAA" } else { "A" };
            let host = |(at, ip)| format!("{name}. MX {at} mx{at}.{name}.\nmx{at}.{name}. {} {ip}\n", kind(ip));
            items().enumerate().map(host).collect()
        }
    }
}

/// RFC 1035 section 3.5, RFC 3596 section 2.5.
fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles: Vec<String> = format!("{:032x}", ip.to_bits()).chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa", nibbles.join("."))
        }
    }
}
