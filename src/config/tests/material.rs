//! Secrets and certificates read in, and what makes a role restart.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::super::hosts::Role;
use super::super::load::{Loaded, parse};
use super::super::material::{Material, RoleView, role_view};
use super::{HOST, SITE};

fn load_in(dir: &Path, text: &str) -> Loaded {
    parse(&dir.join("site.toml"), text, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn material(loaded: &Loaded) -> Result<Material, String> {
    let env = |name: &str| (name == "SET").then(|| OsString::from("from the environment"));
    loaded.material_with("a", &env).map_err(|faults| faults.to_string())
}

/// A certificate and its key, as PEM.
fn pair(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn secrets_are_read_from_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "from the file, 16+\r\n").unwrap();
    let check = |secret: &str, expected: Result<&str, &str>| {
        let loaded = load_in(dir.path(), &format!("{SITE}secret = {secret}\n{HOST}"));
        match (material(&loaded), expected) {
            (Ok(material), Ok(expected)) => assert_eq!(material.secrets["site.secret"].reveal(), expected, "{secret}"),
            (Err(told), Err(expected)) => {
                assert!(told.contains(expected) && told.contains("site.toml:4:10"), "{secret}: {told}");
            }
            (got, _) => panic!("{secret}: {got:?}"),
        }
    };
    check("\"0123456789abcdef\"", Ok("0123456789abcdef"));
    check("{ file = \"secret\" }", Ok("from the file, 16+"));
    check(&format!("{{ file = \"{}/secret\" }}", dir.path().display()), Ok("from the file, 16+"));
    check("{ env = \"SET\" }", Ok("from the environment"));
    check("\"\"", Err("the secret is empty"));
    check("\"short\"", Err("too short: at least 16 bytes"));
    check("{ file = \"none\" }", Err("none cannot be read: No such file"));
    check("{ file = \".\" }", Err("cannot be read: Is a directory"));
    check("{ env = \"UNSET\" }", Err("environment variable UNSET is not set"));
}

#[test]
fn a_certificate_and_its_key_are_read_and_must_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let ((cert, key), (_, other)) = (pair("a.example.test"), pair("b.example.test"));
    for (name, text) in [("cert", &cert), ("key", &key), ("other", &other), ("empty", &String::new())] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let check = |certificate: &str, with: &str, expected: Result<(), &str>| {
        let tls = format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{with}\"\n");
        let found = material(&load_in(dir.path(), &format!("{SITE}{HOST}{tls}")));
        match (&found, expected) {
            (Ok(material), Ok(())) => assert_eq!(material.certificate.as_ref().unwrap().chain, cert),
            (Err(told), Err(expected)) => {
                assert!(told.contains(expected) && !told.contains("-----"), "{certificate} {with}: {told}");
            }
            _ => panic!("{certificate} {with}: {found:?}"),
        }
    };
    check("cert", "key", Ok(()));
    check("cert", "other", Err("are no pair"));
    check("cert", "none", Err("none cannot be read"));
    check("none", "key", Err("none cannot be read"));
    check("empty", "key", Err("empty holds no certificate in PEM"));
    check("cert", "empty", Err("empty holds no private key in PEM"));
    check("key", "key", Err("holds no certificate in PEM"));
}

#[test]
fn every_missing_file_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{SITE}secret = {{ file = \"s\" }}\n{HOST}[tls]\ncertificate = \"c\"\nkey = \"k\"\n[directory]\nbind-dn = \"cn=a\"\nbind-password = {{ file = \"p\" }}\n"
    );
    let told = material(&load_in(dir.path(), &text)).unwrap_err();
    assert!(told.contains("3 faults"), "{told}");
}

/// Which roles restart when the second configuration takes the place of the first.
fn restarts(dir: &Path, before: &str, after: &str) -> Vec<&'static str> {
    let views = |text: &str| -> Vec<(Role, RoleView)> {
        let loaded = load_in(dir, text);
        let material = material(&loaded).unwrap();
        Role::ALL.into_iter().map(|role| (role, role_view(loaded.effective("a").unwrap(), role, &material))).collect()
    };
    let (before, after) = (views(before), views(after));
    before.iter().zip(&after).filter(|(a, b)| a != b).map(|((role, _), _)| role.name()).collect()
}

#[test]
fn only_the_roles_whose_settings_changed_restart() {
    let dir = tempfile::tempdir().unwrap();
    let base = format!("{SITE}{HOST}");
    let all = ["ldap-proxy", "pop-imap", "smtp"];
    let check = |more: &str, expected: &[&str]| {
        assert_eq!(restarts(dir.path(), &base, &format!("{base}{more}")), expected, "{more}");
    };
    check("", &[]);
    check("# a comment\n", &[]);
    check("[smtp]\nhops-max = 50\n", &[]); // the default, said aloud
    check("[smtp]\nhops-max = 51\n", &["smtp"]);
    check("[hosts.a.smtp]\nhops-max = 51\n", &["smtp"]);
    check("[pop-imap]\nlogin-timeout = \"2m\"\n", &["pop-imap"]);
    check("[ldap-proxy]\nsearch-entries-max = 5\n", &["ldap-proxy"]);
    check("[directory]\ntimeout = \"2s\"\n", &["pop-imap", "smtp"]);
    check("[directory]\nbase = \"o=other\"\n", &all);
    check("[directory]\nbind-dn = \"cn=a\"\nbind-password = \"x\"\n", &["pop-imap", "smtp"]);
    check("[metrics]\nlisten = []\n", &[]);
    check("[log]\nlevel = \"debug\"\n", &all);
    assert_eq!(restarts(dir.path(), &base, &base.replace("\"s\"", "\"t\"")), all);
    assert_eq!(restarts(dir.path(), &base, &base.replace("[hosts.a]", "state = \"x\"\n[hosts.a]")), [""; 0]);
}

#[test]
fn a_changed_secret_or_certificate_restarts_though_the_settings_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let text = format!(
        "{SITE}{HOST}[directory]\nbind-dn = \"cn=a\"\nbind-password = {{ file = \"p\" }}\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n"
    );
    let view = |role| {
        let loaded = load_in(dir.path(), &text);
        role_view(loaded.effective("a").unwrap(), role, &material(&loaded).unwrap())
    };
    let put_pair = || {
        let (cert, key) = pair("a.example.test");
        write("c", &cert);
        write("k", &key);
    };
    write("p", "one");
    put_pair();
    let before = Role::ALL.map(view);
    assert_eq!(before, Role::ALL.map(view), "nothing changed");
    write("p", "two");
    let after = Role::ALL.map(view);
    assert_eq!(before.map(Some)[0], Some(after[0]), "ldap-proxy does not bind to the directory");
    assert!(before[1] != after[1] && before[2] != after[2]);
    put_pair();
    let renewed = Role::ALL.map(view);
    assert!((0..3).all(|at| renewed[at] != after[at]));
}

#[test]
fn an_inline_secret_that_changes_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let with = |secret: &str| format!("{SITE}{HOST}[directory]\nbind-dn = \"cn=a\"\nbind-password = \"{secret}\"\n");
    assert_eq!(restarts(dir.path(), &with("one"), &with("two")), ["pop-imap", "smtp"]);
}
