//! Sender authentication: the domains' DKIM keys, mail signed and verified, by programs that nobody here wrote.

use serde_json::Value;

use crate::harness::{Site, good, run, text, wait_for};

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
