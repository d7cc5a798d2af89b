//! A secret is in no fault, no `Debug`, no JSON, whatever is wrong around it.

use super::super::mask::{is_secret_key, mask};
use super::{HOST, SITE, load, load_with};

/// What must never be seen.
const SECRET: &str = "hunter2hunter2hunter2";

/// Everything that is said of a text, whether it is good or not.
fn said(text: &str) -> String {
    match load(text) {
        Ok(loaded) => {
            let effective = loaded.effectives();
            let material =
                loaded.material("a").map_or_else(|faults| faults.to_string(), |material| format!("{material:?}"));
            format!("{effective:?} {} {:?} {material}", serde_json::json!(effective), loaded.hosts())
        }
        Err(faults) => format!("{} {} {faults:?} {}", faults.render(true), faults.render(false), faults.to_json()),
    }
}

#[test]
fn a_secret_is_never_shown() {
    let rows = [
        format!("[directory]\nbind-dn = \"cn=a\"\nbind-password = \"{SECRET}\""),
        format!("[directory]\nbind-password = \"{SECRET}\""),
        format!("[directory]\nbind-dn = \"cn=a\"\nbind-password = '{SECRET}' # comment"),
        format!("[directory]\nbind-password = \"\"\"\n{SECRET}\n{SECRET}\"\"\"\nbase = 5"),
        format!("[directory]\nbind-password = '''{SECRET}\nbase = {SECRET}'''\nbase = 5"),
        format!("[directory]\nbind-password = [\"{SECRET}\"]"),
        format!("[directory]\nbind-password = [\n  \"{SECRET}\",\n  \"{SECRET}\",\n]\nbase = 5"),
        format!("[directory]\nbind-password = {{ text = \"{SECRET}\" }}"),
        format!("[directory]\nbind-password = {{ fil = \"{SECRET}\" }}"),
        format!("[directory]\nbind-password = {SECRET}"),
        format!("[directory]\nbind-password = \"{SECRET}"),
        format!("[directory]\nbind-password = \"\"\"{SECRET}\n{SECRET}"),
        format!("[directory]\nbind-password = \"\"\"{SECRET}\\\"\"\"\"{SECRET}\n{SECRET}"),
        format!("[directory]\nbind-password = [\"{SECRET}\"\n\"{SECRET}\""),
        format!("[directory]\nbind-password \"{SECRET}\""),
        format!("[directory]\nbind-password: \"{SECRET}\""),
        format!("[directory]\nbind-password = \"\\x {SECRET}\""),
        format!("[directory]\nbind_password = \"{SECRET}\""),
        format!("[directory]\nbind-passwrd = \"{SECRET}\""),
        format!("[directory]\nbindpassword = \"{SECRET}\""),
        format!("[directory]\npassword = \"{SECRET}\""),
        format!("[directory]\nPassword = \"{SECRET}\""),
        format!("[directory]\n\"bind-password\" = \"{SECRET}\"\nbase = 5"),
        format!("[directory]\n'bind-password' = \"{SECRET}\" x"),
        format!("[directory]\n\"bind-pass\\u0077ord\" = \"{SECRET}\" x"),
        format!("[directory]\nbind-password=\"{SECRET}\" bind-dn = 5"),
        format!("[directory]\nbind-password = \"{SECRET}\"\nbind-password = \"{SECRET}\""),
        format!("directory.bind-password = \"{SECRET}\" x"),
        format!("[hosts.a.directory]\nbind-password = \"{SECRET}\""),
        format!("[hosts.a.directory]\nbind-password = \"{SECRET}\"\nbind-dn = 5"),
        format!("[hosts.a]\nsmtp = {{ hops-max = \"x\", secret = \"{SECRET}\" }}"),
        format!("directory = {{ bind-dn = 5, bind-password = \"{SECRET}\" }}"),
        format!("directory = {{ bind-password = \"{SECRET}\", bind-dn = 5 }}"),
        format!("directory = {{ bind-password = \"{SECRET}\", bind-dn = }}"),
        format!("[smtp]\nlmtp = \"\"\"\nbind-password = '{SECRET}'\"\"\""),
        format!("[site]\nsecret = \"{SECRET}\""),
        format!("[site]\nsecrte = \"{SECRET}\""),
        format!("[sight]\nsecret = \"{SECRET}\""),
        format!("secret = \"{SECRET}\""),
        format!("secret = \"{SECRET}\" and more"),
        format!("site = {{ secret = \"{SECRET}\" }}"),
    ];
    for row in &rows {
        for text in [format!("{SITE}{HOST}{row}\n"), format!("{row}\n{SITE}{HOST}"), format!("{SITE}{HOST}{row}")] {
            let said = said(&text);
            assert!(!said.contains(SECRET), "{text}\n{said}");
            assert!(!said.contains("hunter2"), "{text}\n{said}");
        }
    }
    let good = format!("{SITE}secret = \"{SECRET}\"\n{HOST}");
    assert!(said(&good).contains("(hidden)"));
}

#[test]
fn a_secret_from_the_environment_is_never_shown() {
    for name in
        ["FIFE_DIRECTORY__BIND_PASSWORD", "FIFE_SITE__SECRET", "FIFE_DIRECTORY__BIND_PASSWRD", "FIFE_SITE_SECRET"]
    {
        let said = match load_with(&format!("{SITE}{HOST}"), &[(name, SECRET)]) {
            Ok(loaded) => format!("{:?}", loaded.effectives()),
            Err(faults) => faults.render(false),
        };
        assert!(!said.contains("hunter2"), "{name}: {said}");
    }
}

#[test]
fn masks_keep_places_and_lines() {
    let check = |text: &str, expected: &str| assert_eq!(mask(text), expected, "{text}");
    check("a = 1\nb = \"x\"\n", "a = 1\nb = \"x\"\n");
    check("secret = \"x\"\nb = 1\n", "secret = ***\nb = 1\n");
    check("secret = \"例\"\r\nb = 1", "secret = *****\r\nb = 1");
    check("secret = { file = \"x\" }\n", "secret = { file = \"x\" }\n");
    check("secret={env=\"x\"}\n", "secret={env=\"x\"}\n");
    check("secret = { text = \"x\" }\nb = 1", "secret = **************\nb = 1");
    check("secret = '''\na = 1\n''' # x\nb = 1", "secret = ***\n*****\n*******\nb = 1");
    check("secret = [\n \"x\"\n]\nb = [1]", "secret = *\n****\n*\nb = [1]");
    check("secret =", "secret =");
    check("secret \"x\" = 5\nb", "secret *******\nb");
    check("a.bind-password: x\n", "a.bind-password***\n");
    check("=", "=");
    check("例 = 1\nsecret =\"", "例 = 1\nsecret =*");
}

#[test]
fn names_that_speak_of_secrets_are_known() {
    for secret in
        ["secret", "secrte", "bind-password", "bind_password", "BIND-PASSWORD", "passwd", "site-secret", "passphrase"]
    {
        assert!(is_secret_key(secret), "{secret}");
    }
    for plain in ["listen", "key", "servers", "service", "bind-dn", "message-size-max", "roles", "base", "certificate"]
    {
        assert!(!is_secret_key(plain), "{plain}");
    }
}
