//! Who sees what of the directory, and who changes what.

use super::{ADMIN, U1, U1_LDIF, as_admin, first_administrator, found, refused, socket_url, start, tool};
use crate::harness::{good, run, wait_for};

#[test]
fn a_user_sees_himself_and_changes_his_own_password() {
    let site = start();
    good(&as_admin(&site, "ldapadd", &[], U1_LDIF));
    let as_user = |program: &str, password: &str, args: &[&str], input: &str| {
        tool(&site, program, &[&["-D", U1, "-w", password][..], args].concat(), input)
    };
    assert_eq!(good(&as_user("ldapwhoami", "secret1", &[], "")), format!("dn:{U1}\n"));
    refused(&as_user("ldapwhoami", "secret2", &[], ""), 49);
    let seen = good(&as_user("ldapsearch", "secret1", &["-LLL", "-b", "o=demo", "*", "+", "userPassword"], ""));
    assert!(seen.starts_with(&format!("dn: {U1}\n")) && seen.matches("dn: ").count() == 1, "{seen}");
    assert!(!seen.contains("userPassword"), "{seen}");
    refused(&as_user("ldapsearch", "secret1", &["-b", ADMIN, "-s", "base"], ""), 32);
    let retitle = format!("dn: {U1}\nchangetype: modify\nreplace: mailQuotaSize\nmailQuotaSize: 9999999\n");
    refused(&as_user("ldapmodify", "secret1", &[], &retitle), 50);
    refused(&as_user("ldappasswd", "secret1", &["-s", "secret2"], ""), 53); // the old one is needed
    refused(&as_user("ldappasswd", "secret1", &["-a", "wrong", "-s", "secret2"], ""), 49);
    refused(&as_user("ldappasswd", "secret1", &["-a", "secret1", "-s", "x", ADMIN], ""), 50);
    good(&as_user("ldappasswd", "secret1", &["-a", "secret1", "-s", "secret2"], ""));
    refused(&as_user("ldapwhoami", "secret1", &[], ""), 49);
    good(&as_user("ldapwhoami", "secret2", &[], ""));
    let hash = "{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==";
    let bring = format!("dn: {U1}\nchangetype: modify\nreplace: userPassword\nuserPassword: {hash}\n");
    refused(&as_user("ldapmodify", "secret2", &[], &bring), 19);
    // An administrator may: this is how accounts come from qmail-ldap.
    good(&as_admin(&site, "ldapmodify", &[], &bring));
    let stored = || {
        let view = rusqlite::Connection::open(site.state().join("ldap-proxy/view.sqlite")).unwrap();
        view.query_row("SELECT body FROM entry WHERE body LIKE '%u1@example.test%'", [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    refused(&as_user("ldapwhoami", "wrong", &[], ""), 49);
    assert!(stored().contains(hash), "a wrong password renews nothing");
    good(&as_user("ldapwhoami", "secret", &[], ""));
    assert!(!stored().contains("{MD5}") && stored().contains("{ARGON2}$argon2id$"), "renewed: {}", stored());
    good(&as_user("ldapwhoami", "secret", &[], ""));
    let made = good(&as_admin(&site, "ldappasswd", &[U1], ""));
    let made = made.trim().strip_prefix("New password: ").expect("a password that the server made");
    good(&as_user("ldapwhoami", made, &[], ""));
    let admin = first_administrator(&site);
    for secret in ["secret1", "secret2", made, hash, admin.as_str()] {
        assert!(!site.log().contains(secret), "no password in the log");
    }
    let seen = found(&site, &["*", "+", "userPassword"]);
    assert!(!seen.contains("userPassword") && !seen.contains("argon2"), "{seen}");
}

#[test]
fn private_keys_are_read_by_those_who_read_everything_and_told_to_nobody_else() {
    let site = start();
    site.user("u1", "secret1");
    const DOMAIN: &str = "ou=example.test,o=demo";
    // As it would be if an administrator put a key into the wrong entry.
    let stray = format!("dn: {U1}\nchangetype: modify\nadd: fifeDkimKey\nfifeDkimKey: stray key\n");
    good(&as_admin(&site, "ldapmodify", &[], &stray));
    let of_domain = ["-s", "base", "-b", DOMAIN, "(objectClass=*)", "fifeDkimKey", "*", "+"];
    // A site's first domain gets its keys while it serves already.
    let mut key = String::new();
    let read = || {
        key = found(&site, &of_domain);
        key.contains("fifeDkimKey:")
    };
    wait_for("an administrator to read the key", read, || site.log_tail());
    let as_user =
        |program: &str, args: &[&str]| tool(&site, program, &[&["-D", U1, "-w", "secret1"][..], args].concat(), "");
    let seen = good(&as_user("ldapsearch", &["-LLL", "-b", "o=demo", "(objectClass=*)", "fifeDkimKey", "*", "+"]));
    assert!(seen.contains("dn: ") && !seen.contains("fifeDkimKey"), "{seen}");
    for filter in [
        "(fifeDkimKey=*)",
        "(fifeDkimKey=stray*)",
        "(!(fifeDkimKey=x))",
        "(fifeDkimKey>=a)",
        "(fifeDkimKey:=stray key)",
    ] {
        let seen = good(&as_user("ldapsearch", &["-LLL", "-b", "o=demo", filter, "dn"]));
        assert_eq!(seen, "", "{filter}");
    }
    // fife's roles read everything else.
    if nix::unistd::geteuid().is_root() {
        let url = socket_url(&site);
        let as_uid = |uid: &str| {
            let become_it =
                ["--reuid", uid, "--regid", uid, "--groups", "6100", "ldapsearch", "-LLL", "-Q", "-Y", "EXTERNAL"];
            good(&run("setpriv", &[&become_it[..], &["-H", &url], &of_domain].concat(), b""))
        };
        assert!(as_uid("6103").contains("fifeDkimKey:"), "smtp signs with it");
        let mailboxes = as_uid("6102");
        assert!(
            mailboxes.contains("associatedDomain: example.test") && !mailboxes.contains("fifeDkimKey"),
            "{mailboxes}"
        );
    }
    refused(&as_user("ldapsearch", &of_domain), 32);
    refused(&as_user("ldapcompare", &[U1, "fifeDkimKey:stray key"]), 50);
    refused(&as_user("ldapcompare", &[DOMAIN, "fifeDkimKey:x"]), 32);
    refused(&tool(&site, "ldapsearch", &of_domain, ""), 50);
    refused(&tool(&site, "ldapcompare", &[DOMAIN, "fifeDkimKey:x"], ""), 50);
    let steal = format!("dn: {DOMAIN}\nchangetype: modify\nreplace: fifeDkimKey\nfifeDkimKey: x\n");
    refused(&tool(&site, "ldapmodify", &["-D", U1, "-w", "secret1"], &steal), 50);
    // A service of the site, known by its entry, reads it over TLS from afar and changes nothing.
    let service = "uid=reader,ou=example.test,o=demo";
    site.user("reader", "secret2");
    let appoint = format!("dn: {service}\nchangetype: modify\nreplace: fifeRole\nfifeRole: service\n");
    good(&as_admin(&site, "ldapmodify", &[], &appoint));
    let as_service = |program: &str, args: &[&str], input: &str| {
        tool(&site, program, &[&["-D", service, "-w", "secret2"][..], args].concat(), input)
    };
    assert!(good(&as_service("ldapsearch", &of_domain, "")).contains("fifeDkimKey:"));
    refused(&as_service("ldapmodify", &[], &steal), 50);
    let private = key.lines().find(|line| line.starts_with("fifeDkimKey:")).unwrap();
    assert!(!site.log().contains(private.rsplit(' ').next().unwrap()), "no private key in the log");
}
