//! OpenLDAP's tools and fife's commands at work on the directory.

use super::{ADMIN, U1, U1_LDIF, as_admin, first_administrator, found, refused, socket_url, start, tool};
use crate::harness::Site;
use crate::harness::{good, run, text};

#[test]
fn openldap_tools_add_find_change_rename_and_delete_entries() {
    let site = start();
    good(&as_admin(&site, "ldapadd", &[], U1_LDIF));
    refused(&as_admin(&site, "ldapadd", &[], U1_LDIF), 68);

    let by_address = found(&site, &["(mailAlternateAddress=USER.One@example.test)"]);
    assert!(by_address.contains("dn: uid=u1,ou=example.test,o=demo\n"), "{by_address}");
    assert!(by_address.contains("objectClass: organizationalPerson\n"), "superior classes: {by_address}");
    assert!(!by_address.contains("entryUUID"), "operational attributes only when asked for: {by_address}");
    let operational = found(&site, &["(uid=u1)", "+"]);
    assert!(operational.contains("entryUUID: ") && operational.contains("modifyTimestamp: 20"), "{operational}");
    assert!(!operational.contains("cn: "), "{operational}");
    assert_eq!(found(&site, &["(uid=u1)", "CN"]), format!("dn: {U1}\ncn: User One\n\n"));
    assert_eq!(found(&site, &["-A", "(uid=u1)", "cn"]), format!("dn: {U1}\ncn:\n\n"), "types only");
    assert_eq!(found(&site, &["-s", "one", "dn"]), "dn: ou=example.test,o=demo\n\n");
    assert_eq!(found(&site, &["(&(cn=user*)(!(sn=two))(|(uid>=u0)(title=*)))", "1.1"]), format!("dn: {U1}\n\n"));
    assert_eq!(found(&site, &["(uid=nobody)"]), "");
    refused(&as_admin(&site, "ldapsearch", &["-b", "ou=absent.test,o=demo"], ""), 32);
    refused(&as_admin(&site, "ldapsearch", &["-b", "o=demo", "-z", "1"], ""), 4);
    refused(&as_admin(&site, "ldapsearch", &["-b", "o=demo", "-e", "!1.2.3.4"], ""), 12);

    let change = format!(
        "dn: {U1}\nchangetype: modify\nadd: mailQuotaSize\nmailQuotaSize: 5000\n-\nreplace: cn\ncn: 王芳\n-\nincrement: mailQuotaSize\nmailQuotaSize: 1\n"
    );
    good(&as_admin(&site, "ldapmodify", &[], &change));
    let changed = found(&site, &["(cn=王芳)", "mailQuotaSize"]);
    assert_eq!(changed, format!("dn: {U1}\nmailQuotaSize: 5001\n\n"));
    // ldapcompare: 6 is compareTrue, 5 compareFalse.
    refused(&as_admin(&site, "ldapcompare", &[U1, "sn:ONE"], ""), 6);
    refused(&as_admin(&site, "ldapcompare", &[U1, "sn:Two"], ""), 5);
    refused(&as_admin(&site, "ldapcompare", &[U1, "userPassword:secret1"], ""), 6);
    refused(&as_admin(&site, "ldapcompare", &[U1, "userPassword:secret2"], ""), 5);

    good(&as_admin(&site, "ldapmodrdn", &["-r", U1, "uid=u2"], ""));
    assert_eq!(found(&site, &["(mail=u1@example.test)", "uid"]), "dn: uid=u2,ou=example.test,o=demo\nuid: u2\n\n");
    refused(&as_admin(&site, "ldapdelete", &["ou=example.test,o=demo"], ""), 66);
    good(&as_admin(&site, "ldapdelete", &["uid=u2,ou=example.test,o=demo"], ""));
    assert_eq!(found(&site, &["(mail=u1@example.test)"]), "");
}

#[test]
fn paged_searches_bring_everything_once() {
    let site = start();
    let mut ldif = String::new();
    for n in 0..25 {
        ldif.push_str(&format!(
            "dn: cn=a{n},ou=example.test,o=demo\nobjectClass: applicationProcess\nobjectClass: qmailUser\nmail: a{n}@example.test\ndeliveryMode: forwardonly\nmailForwardingAddress: admin@example.test\n\n"
        ));
    }
    good(&as_admin(&site, "ldapadd", &[], &ldif));
    for filter in ["(objectClass=applicationProcess)", "(deliveryMode=forwardonly)", "(&(cn=a*)(deliveryMode=*))"] {
        let paged = found(&site, &["-E", "pr=4/noprompt", filter, "dn"]);
        let mut names: Vec<&str> = paged.lines().filter(|line| line.starts_with("dn: ")).collect();
        assert_eq!(names.len(), 25, "{filter}: {paged}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 25, "{filter}: each once");
    }
}

#[test]
fn a_list_of_users_comes_page_by_page_and_brings_everybody_once() {
    let site = start();
    let user = |n: usize| {
        let name = format!("p{n:04}");
        format!(
            "dn: uid={name},ou=example.test,o=demo\nobjectClass: inetOrgPerson\nobjectClass: qmailUser\ncn: {name}\nsn: {name}\nmail: {name}@example.test\nuserPassword: {{MD5}}Xr4ilOzQ4PCOq3aQ0qbuaQ==\n\n"
        )
    };
    good(&as_admin(&site, "ldapadd", &[], &(0..2100).map(user).collect::<String>()));
    let users: serde_json::Value = serde_json::from_str(&good(&site.fife(&["user", "list", "--json"]))).unwrap();
    let listed: Vec<&str> = users.as_array().unwrap().iter().map(|user| user["address"].as_str().unwrap()).collect();
    let mut expected: Vec<String> = (0..2100).map(|n| format!("p{n:04}@example.test")).collect();
    expected.insert(0, "admin@example.test".to_owned());
    assert_eq!(listed, expected);
}

#[test]
fn the_server_tells_what_it_can_and_nothing_more_to_strangers() {
    let site = start();
    let root = good(&tool(&site, "ldapsearch", &["-LLL", "-s", "base", "-b", "", "+"], ""));
    for line in [
        "namingContexts: o=demo",
        "supportedLDAPVersion: 3",
        "supportedControl: 1.2.840.113556.1.4.319",
        "subschemaSubentry: cn=subschema",
        "vendorName: fife",
    ] {
        assert!(root.lines().any(|have| have == line), "{line} in {root}");
    }
    let schema = good(&tool(
        &site,
        "ldapsearch",
        &["-LLL", "-o", "ldif_wrap=no", "-s", "base", "-b", "cn=subschema", "attributeTypes", "objectClasses"],
        "",
    ));
    assert!(schema.contains("NAME 'mailAlternateAddress' EQUALITY caseIgnoreIA5Match"), "{schema}");
    assert!(schema.contains("NAME 'inetOrgPerson' SUP organizationalPerson STRUCTURAL"), "{schema}");
    refused(&tool(&site, "ldapsearch", &["-b", "o=demo"], ""), 50);
    refused(&tool(&site, "ldapadd", &[], U1_LDIF), 50);
    refused(&tool(&site, "ldapdelete", &[ADMIN], ""), 50);
    assert_eq!(good(&tool(&site, "ldapwhoami", &[], "")), "anonymous\n");
}

#[test]
fn tls_is_had_by_start_tls_and_on_a_port_of_its_own() {
    let site = start();
    let password = first_administrator(&site);
    let whoami = |url: &str, more: &[&str]| {
        let args = ["LDAPTLS_REQCERT=never", "ldapwhoami", "-x", "-H", url, "-D", ADMIN, "-w", &password];
        run("env", &[&args[..], more].concat(), b"")
    };
    good(&whoami(&format!("ldap://{}", site.at("ldap")), &["-ZZ"]));
    good(&whoami(&format!("ldaps://{}", site.at("ldaps")), &[]));
}

#[test]
fn whoever_runs_fife_administers_over_the_unix_socket() {
    let site = start();
    let url = socket_url(&site);
    let whoami = good(&run("ldapwhoami", &["-Q", "-Y", "EXTERNAL", "-H", &url], b""));
    assert_eq!(whoami, format!("dn:uid={},cn=peercred,cn=external,cn=auth\n", nix::unistd::geteuid()));
    good(&run("ldapadd", &["-Q", "-Y", "EXTERNAL", "-H", &url], U1_LDIF.as_bytes()));
    let over_tcp = run("ldapwhoami", &["-Q", "-Y", "EXTERNAL", "-H", &format!("ldap://{}", site.at("ldap"))], b"");
    assert!(!over_tcp.status.success(), "nothing outside says who that is: {}", text(&over_tcp));
}

#[test]
fn commands_change_the_directory_and_tell_how_it_went() {
    let mut site = start();
    let exit = |site: &Site, args: &[&str], code: i32| {
        let output = site.fife(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    site.user("u1", "secret1");
    exit(&site, &["user", "add", "u1@example.test"], 1); // exists
    exit(&site, &["user", "add", "u1@absent.test"], 1); // no such domain
    exit(&site, &["user", "add", "u1"], 2);
    let made = exit(&site, &["user", "add", "u2@example.test", "--name", "User Two", "--quota", "1 GiB", "--admin"], 0);
    let made = made.trim().strip_prefix("password: ").expect("a password that was made");
    good(&tool(&site, "ldapwhoami", &["-D", "uid=u2,ou=example.test,o=demo", "-w", made], ""));
    let users: serde_json::Value = serde_json::from_str(&exit(&site, &["user", "list", "--json"], 0)).unwrap();
    let addresses: Vec<_> = users.as_array().unwrap().iter().map(|user| user["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["admin@example.test", "u1@example.test", "u2@example.test"]);
    assert_eq!((&users[2]["name"], &users[2]["quota-bytes"]), (&"User Two".into(), &(1_u64 << 30).into()));
    assert_eq!((&users[2]["administrator"], &users[1]["administrator"]), (&true.into(), &false.into()));

    let login = |site: &Site, password: &str| tool(site, "ldapwhoami", &["-D", U1, "-w", password], "");
    exit(&site, &["user", "suspend", "u1@example.test"], 0);
    refused(&login(&site, "secret1"), 53);
    refused(&login(&site, "wrong"), 49);
    exit(&site, &["user", "resume", "u1@example.test"], 0);
    good(&login(&site, "secret1"));
    exit(&site, &["domain", "suspend", "example.test"], 0);
    refused(&login(&site, "secret1"), 53);
    assert_eq!(
        exit(&site, &["domain", "list"], 0).split_whitespace().collect::<Vec<_>>(),
        ["example.test", "noaccess"]
    );
    exit(&site, &["domain", "resume", "example.test"], 0);
    let made = exit(&site, &["user", "passwd", "u1@example.test"], 0);
    good(&login(&site, made.trim().strip_prefix("password: ").unwrap()));

    exit(&site, &["domain", "add", "other.test"], 0);
    exit(&site, &["domain", "add", "other.test"], 1);
    exit(&site, &["alias", "add", "info@other.test", "u1@example.test", "somebody@elsewhere.test"], 0);
    exit(&site, &["alias", "add", "u1@example.test", "u2@example.test"], 1); // somebody's address
    let aliases: serde_json::Value = serde_json::from_str(&exit(&site, &["alias", "list", "--json"], 0)).unwrap();
    assert_eq!(aliases, serde_json::json!([{ "address": "info@other.test", "targets": aliases[0]["targets"] }]));
    assert_eq!(aliases[0]["targets"].as_array().unwrap().len(), 2);
    exit(&site, &["domain", "del", "other.test"], 1); // not empty
    exit(&site, &["alias", "del", "u1@example.test"], 1); // a user is no alias
    exit(&site, &["alias", "del", "info@other.test"], 0);
    exit(&site, &["domain", "del", "other.test"], 0);
    exit(&site, &["user", "del", "u2@example.test"], 0);
    exit(&site, &["user", "del", "u2@example.test"], 1);
    assert!(site.stop());
    exit(&site, &["user", "list"], 3);
}
