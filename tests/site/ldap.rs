//! The directory: ldap-proxy driven by OpenLDAP's tools, the commands, and the roles' client; that client also
//! against OpenLDAP's own server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use fife::base::address::Address;
use fife::config::address::SocketAddress;
use fife::config::directory::Directory as Settings;
use fife::config::secret::SecretText;
use fife::directory::admin::{self, Alias};
use fife::directory::{Account, AccountStatus, AdminError, AuthError, Directory, Expansion, Recipient};

use crate::harness::{DEADLINE, Site, good, run, text, wait_for};

const ADMIN: &str = "uid=admin,ou=example.test,o=demo";
const U1: &str = "uid=u1,ou=example.test,o=demo";
const U1_LDIF: &str = "dn: uid=u1,ou=example.test,o=demo
objectClass: inetOrgPerson
objectClass: qmailUser
cn: User One
sn: One
mail: u1@example.test
mailAlternateAddress: user.one@example.test
userPassword: secret1
";

/// A site that runs its directory and nothing else.
fn start() -> Site {
    let mut site = Site::prepare("");
    let toml = std::fs::read_to_string(site.config()).unwrap();
    let toml = toml.replace(r#"["ldap-proxy", "pop-imap", "smtp"]"#, r#"["ldap-proxy"]"#);
    std::fs::write(site.config(), toml).unwrap();
    site.launch();
    first_administrator(&site);
    site
}

/// Password of the first administrator, once the site has one.
fn first_administrator(site: &Site) -> String {
    let read = || std::fs::read_to_string(site.state().join("first-admin.txt")).unwrap_or_default();
    let bound = || {
        let password = read().lines().find_map(|line| line.strip_prefix("password: ").map(str::to_owned));
        password.filter(|password| tool(site, "ldapwhoami", &["-D", ADMIN, "-w", password], "").status.success())
    };
    let mut password = None;
    let made = || {
        password = bound();
        password.is_some()
    };
    wait_for("the first administrator", made, || site.log_tail());
    password.unwrap()
}

/// An OpenLDAP tool with simple authentication on the site's plain port.
fn tool(site: &Site, program: &str, args: &[&str], input: &str) -> Output {
    let url = format!("ldap://{}", site.at("ldap"));
    run(program, &[&["-x", "-H", &url][..], args].concat(), input.as_bytes())
}

/// The same as administrator.
fn as_admin(site: &Site, program: &str, args: &[&str], input: &str) -> Output {
    let password = first_administrator(site);
    tool(site, program, &[&["-D", ADMIN, "-w", &password][..], args].concat(), input)
}

/// Entries found as administrator, as LDIF without line folding.
fn found(site: &Site, args: &[&str]) -> String {
    good(&as_admin(site, "ldapsearch", &[&["-LLL", "-o", "ldif_wrap=no", "-b", "o=demo"][..], args].concat(), ""))
}

/// Fails unless the tool ended with this LDAP result code; ldappasswd tells it only in words.
fn refused(output: &Output, code: i32) {
    let told = text(output).contains(&format!("({code})")) && !output.status.success();
    assert!(output.status.code() == Some(code) || told, "{code} expected: {}", text(output));
}

fn socket_url(site: &Site) -> String {
    format!("ldapi://{}", site.state().join("run/ldap.sock").display().to_string().replace('/', "%2F"))
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn secret(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

/// The roles' client on the site's unix socket; remembers answers for so long.
fn client(site: &Site, cache_lifetime: &str) -> Directory {
    let settings = Settings { cache_lifetime: cache_lifetime.parse().unwrap(), ..Settings::default() };
    Directory::connect(&settings, "o=demo", &site.state(), None)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

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

#[test]
fn octets_that_are_not_ldap_are_answered_with_the_end_and_hurt_nobody() {
    let site = start();
    let pid = site.role_pid("ldap-proxy");
    let mut deep = vec![0x04, 0x00];
    for _ in 0..10_000 {
        let len = u32::try_from(deep.len()).unwrap().to_be_bytes();
        deep = [&[0xa2, 0x84][..], &len, &deep].concat();
    }
    let len = u32::try_from(deep.len() + 9).unwrap().to_be_bytes();
    let inner = u32::try_from(deep.len()).unwrap().to_be_bytes();
    let deep = [&[0x30, 0x84][..], &len, &[2, 1, 1, 0x63, 0x84], &inner, &deep].concat();
    let huge = [0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01];
    let many =
        [&[0x30, 0x82, 0xea, 0x66, 0x02, 0x01, 0x01, 0x63, 0x82, 0xea, 0x5f][..], &[5, 0].repeat(30_000)].concat();
    for (what, octets) in [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("NUL", vec![0; 5000]),
        ("a length of two gigabytes", huge.to_vec()),
        ("nesting", deep),
        ("many elements", many),
        ("an indefinite length", vec![0x30, 0x80, 2, 1, 1, 0x42, 0, 0, 0]),
        ("a response", vec![0x30, 0x0c, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0]),
    ] {
        let mut stream = TcpStream::connect(site.addr("ldap")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // The server may have closed before all of it is written.
        drop(stream.write_all(&octets));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let notice = b"1.3.6.1.4.1.1466.20036";
        assert!(answer.windows(notice.len()).any(|window| window == notice), "{what}: {answer:02x?}");
    }
    assert!(tool(&site, "ldapwhoami", &[], "").status.success());
    assert_eq!(site.role_pid("ldap-proxy"), pid, "the same process");
}

#[test]
fn answered_changes_survive_kill_9_and_the_loss_of_the_view() {
    let mut site = start();
    let runtime = runtime();
    let done = AtomicBool::new(false);
    let made: Vec<Address> = std::thread::scope(|scope| {
        let add = |worker: usize| {
            let (directory, mut made) = (client(&site, "1s"), Vec::new());
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let alias = Alias {
                    address: address(&format!("a{worker}-{n}@example.test")),
                    targets: vec![address("admin@example.test")],
                };
                match runtime.block_on(admin::add_alias(&directory, &alias)) {
                    // Made by the first of two tries, whose answer was lost.
                    Ok(()) | Err(AdminError::Exists(_)) => made.push(alias.address),
                    Err(AdminError::Directory(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            made
        };
        let workers: Vec<_> = (0..4).map(|worker| scope.spawn(move || add(worker))).collect();
        for _ in 0..3 {
            let before = found(&site, &["(deliveryMode=forwardonly)", "1.1"]).matches("dn:").count();
            let enough = || count(&site) > before + 20;
            wait_for("more entries", enough, || site.log_tail());
            let killed = site.kill_role("ldap-proxy");
            let back = || site.role_pid("ldap-proxy").is_some_and(|pid| pid != killed);
            wait_for("the role to come back", back, || site.log_tail());
            site.wait_healthy();
        }
        done.store(true, Ordering::Relaxed);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(made.len() > 60, "{}", made.len());
    let all_there = |site: &Site| {
        let shown = found(site, &["(deliveryMode=forwardonly)", "mail"]);
        for address in &made {
            assert!(shown.contains(&format!("mail: {address}\n")), "{address} was answered and is gone");
        }
        shown
    };
    let before = all_there(&site);
    for damage in ["missing", "overwritten", "truncated"] {
        site.kill_all();
        let view = site.state().join("ldap-proxy/view.sqlite");
        match damage {
            "missing" => std::fs::remove_file(&view).unwrap(),
            "overwritten" => std::fs::write(&view, [0x55; 9000]).unwrap(),
            _ => std::fs::OpenOptions::new().write(true).open(&view).unwrap().set_len(5000).unwrap(),
        }
        site.launch();
        assert_eq!(all_there(&site), before, "view {damage}");
    }
}

/// Aliases that the directory holds now; 0 while it does not answer.
fn count(site: &Site) -> usize {
    let url = socket_url(site);
    let args = ["-LLL", "-Q", "-Y", "EXTERNAL", "-H", &url, "-b", "o=demo", "(deliveryMode=forwardonly)", "1.1"];
    String::from_utf8_lossy(&run("ldapsearch", &args, b"").stdout).matches("dn:").count()
}

#[test]
fn roles_learn_who_an_address_is() {
    let site = start();
    site.user("u1", "secret1");
    good(&site.fife(&["domain", "add", "other.test"]));
    good(&site.fife(&[
        "alias",
        "add",
        "staff@example.test",
        "u1@example.test",
        "list@other.test",
        "far@elsewhere.test",
    ]));
    good(&site.fife(&[
        "alias",
        "add",
        "list@other.test",
        "staff@example.test",
        "admin@example.test",
        "gone@example.test",
    ]));
    let directory = client(&site, "0s");
    runtime().block_on(async {
        let account = account(&directory, "U1@Example.Test").await;
        assert_eq!(
            (account.address.to_string().as_str(), account.status, account.admin),
            ("u1@example.test", AccountStatus::Active, false)
        );
        assert_eq!(directory.resolve(&address("nobody@example.test")).await, Ok(Recipient::NoSuchUser));
        assert_eq!(directory.resolve(&address("u1@elsewhere.test")).await, Ok(Recipient::NotLocal));
        assert_eq!(directory.is_local_domain(&"other.test".parse().unwrap()).await, Ok(true));
        // Characters that mean something in a filter mean nothing here.
        assert_eq!(directory.resolve(&address("*@example.test")).await, Ok(Recipient::NoSuchUser));
        let Expansion { accounts, remote, missing } = directory.expand(&address("staff@example.test")).await.unwrap();
        let shown: Vec<String> = accounts.iter().map(|account| account.address.to_string()).collect();
        assert_eq!(shown.len(), 2, "the loop ends: {shown:?}");
        assert_eq!((remote, missing), (vec![address("far@elsewhere.test")], vec![address("gone@example.test")]));

        let login = async |name: &str, password: &str| directory.authenticate(name, &secret(password), None).await;
        assert_eq!(login("u1@example.test", "secret1").await.map(|account| account.id), Ok(account.id));
        for (name, password) in [
            ("u1@example.test", "wrong"),
            ("u1@example.test", ""),
            ("nobody@example.test", "secret1"),
            ("staff@example.test", "x"),
            ("u1", "secret1"),
            ("", ""),
        ] {
            assert_eq!(login(name, password).await, Err(AuthError::Refused), "{name:?} {password:?}");
        }
        let domain = "example.test".parse().unwrap();
        admin::set_domain_status(&directory, &domain, AccountStatus::Disabled).await.unwrap();
        assert_eq!(login("u1@example.test", "secret1").await, Err(AuthError::Suspended));
        assert_eq!(login("u1@example.test", "wrong").await, Err(AuthError::Refused));
        let Ok(Recipient::Account(suspended)) = directory.resolve(&address("u1@example.test")).await else {
            panic!("an account")
        };
        assert_eq!(suspended.status, AccountStatus::Disabled);
        admin::set_domain_status(&directory, &domain, AccountStatus::Active).await.unwrap();
    });
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

#[test]
fn a_user_forwards_mail_and_keeps_a_copy_or_does_not() {
    let site = start();
    for user in ["u1", "u2", "u3"] {
        site.user(user, "secret1");
    }
    let directory = client(&site, "0s");
    let runtime = runtime();
    let forward = |args: &[&str], code: i32| {
        let output = site.fife(&[&["user", "forward"][..], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    // Who gets mail for u1: mailboxes, then addresses elsewhere.
    let gets = || {
        let expansion = runtime.block_on(directory.expand(&address("u1@example.test"))).unwrap();
        assert_eq!(expansion.missing, []);
        let mut names: Vec<String> = expansion.accounts.iter().map(|account| account.address.to_string()).collect();
        names.sort();
        names.extend(expansion.remote.iter().map(Address::to_string));
        names.join(" ")
    };
    assert_eq!(forward(&["u1@example.test"], 0), "");
    forward(&["u1@example.test", "--to", "u2@example.test,far@elsewhere.test"], 0);
    assert_eq!(gets(), "u1@example.test u2@example.test far@elsewhere.test");
    let shown = forward(&["u1@example.test", "--no-keep"], 0);
    assert!(shown.contains("u2@example.test\n") && !shown.contains("kept"), "{shown}");
    assert_eq!(gets(), "u2@example.test far@elsewhere.test");
    let login = runtime.block_on(directory.authenticate("u1@example.test", &secret("secret1"), None));
    assert!(login.is_ok(), "who keeps no copy logs in all the same: {login:?}");
    assert!(good(&site.fife(&["user", "list"])).contains("u1@example.test"));
    assert_eq!(good(&site.fife(&["alias", "list"])), "", "a user is no alias");

    // A chain through an alias, and a loop: everybody once, and mail that would go round is kept.
    good(&site.fife(&["alias", "add", "team@example.test", "u3@example.test", "u1@example.test"]));
    forward(&["u2@example.test", "--to", "team@example.test", "--keep"], 0);
    assert_eq!(gets(), "u2@example.test u3@example.test far@elsewhere.test");
    forward(&["u1@example.test", "--to", "u2@example.test", "--no-keep"], 0);
    forward(&["u2@example.test", "--to", "u1@example.test", "--no-keep"], 0);
    assert_eq!(gets(), "u1@example.test u2@example.test");
    good(&site.fife(&["user", "suspend", "--refuse-mail", "u2@example.test"]));
    assert_eq!(gets(), "u2@example.test", "mail for who takes none is not passed on");
    forward(&["u1@example.test", "--off"], 0);
    assert_eq!(gets(), "u1@example.test");
    forward(&["u1@example.test", "--no-keep"], 1);
    forward(&["team@example.test", "--to", "u1@example.test"], 1); // an alias
    forward(&["u1@example.test", "--off", "--keep"], 2);
}

#[test]
fn a_password_is_hashed_once_for_many_logins_until_it_changes() {
    let site = start();
    site.user("u1", "secret1");
    let directory = client(&site, "0s");
    let hashes = || {
        let metrics = good(&run("curl", &["-s", &format!("http://{}/metrics", site.at("metrics"))], b""));
        let line = metrics.lines().find(|line| line.starts_with("fife_ldap_proxy_password_hashes_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_else(|| panic!("{metrics}"))
    };
    runtime().block_on(async {
        let login =
            async |password: &str| directory.authenticate("u1@example.test", &secret(password), None).await.is_ok();
        let before = hashes();
        for _ in 0..50 {
            assert!(login("secret1").await);
        }
        assert!(hashes() - before < 1.5, "{} hashes for 50 logins", hashes() - before);
        let (another, before) = (client(&site, "5s"), hashes());
        let password = secret("secret1");
        let at_once = (0..200).map(|_| another.authenticate("u1@example.test", &password, None));
        assert!(futures_util::future::join_all(at_once).await.iter().all(Result::is_ok));
        assert!(hashes() - before < 1.5, "{} hashes for 200 logins at once", hashes() - before);
        admin::set_password(&directory, &address("u1@example.test"), &secret("secret2")).await.unwrap();
        assert!(!login("secret1").await, "the old password is not remembered");
        assert!(login("secret2").await);
    });
}

#[test]
fn the_client_finds_the_way_back_to_a_server_that_was_away() {
    let mut site = start();
    site.user("u1", "secret1");
    let directory = client(&site, "0s");
    let runtime = runtime();
    let resolve = || runtime.block_on(directory.resolve(&address("u1@example.test")));
    assert!(matches!(resolve(), Ok(Recipient::Account(_))));
    site.kill_all();
    assert!(resolve().is_err());
    site.launch();
    let again = || matches!(resolve(), Ok(Recipient::Account(_)));
    wait_for("an answer", again, || site.log_tail());
}

async fn account(directory: &Directory, name: &str) -> Account {
    match directory.resolve(&address(name)).await {
        Ok(Recipient::Account(account)) => Account::clone(&account),
        other => panic!("{name}: {other:?}"),
    }
}

/// OpenLDAP's server with the attributes of qmail.schema that fife reads.
struct Slapd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Slapd {
    fn start(urls: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("slapd").tempdir_in("/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("data")).unwrap();
        std::fs::write(path("qmail.schema"), QMAIL_SCHEMA).unwrap();
        make_certificates(dir.path());
        std::fs::write(path("slapd.conf"), slapd_conf(dir.path())).unwrap();
        let loaded = run("slapadd", &["-f", path("slapd.conf").to_str().unwrap()], SLAPD_LDIF.as_bytes());
        good(&loaded);
        let child = Command::new("/usr/sbin/slapd")
            .args(["-d", "stats", "-h", &format!("{urls} {}", Self::socket(dir.path()).1), "-f"])
            .arg(path("slapd.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .expect("slapd starts");
        let slapd = Self { child, dir };
        let up = || run("ldapwhoami", &["-x", "-H", &Self::socket(slapd.dir.path()).1], b"").status.success();
        wait_for("slapd", up, String::new);
        slapd
    }

    fn socket(dir: &Path) -> (PathBuf, String) {
        let path = dir.join("ldapi");
        let url = format!("ldapi://{}", path.display().to_string().replace('/', "%2F"));
        (path, url)
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const QMAIL_SCHEMA: &str = "
attributetype ( 1.3.6.1.4.1.7914.1.2.1.4 NAME 'mailAlternateAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{256} )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.7 NAME 'mailForwardingAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{256} )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.10 NAME 'deliveryMode' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{32} )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.12 NAME 'accountStatus' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.15 NAME 'mailQuotaSize' EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.7914.1.2.2.1 NAME 'qmailUser' SUP top AUXILIARY MUST ( mail ) MAY ( uid $ userPassword $ mailAlternateAddress $ mailForwardingAddress $ deliveryMode $ accountStatus $ mailQuotaSize ) )
";

fn slapd_conf(dir: &Path) -> String {
    let dir = dir.display();
    let uid = nix::unistd::geteuid();
    let gid = nix::unistd::getegid();
    format!(
        "include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include {dir}/qmail.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/pid
TLSCACertificateFile {dir}/ca.pem
TLSCertificateFile {dir}/cert.pem
TLSCertificateKeyFile {dir}/key.pem
authz-regexp gidNumber={gid}.uidNumber={uid},cn=peercred,cn=external,cn=auth cn=reader,dc=school,dc=test
database mdb
suffix dc=school,dc=test
rootdn cn=root,dc=school,dc=test
directory {dir}/data
index mail,mailAlternateAddress eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=reader,dc=school,dc=test read by * none
"
    )
}

const SLAPD_LDIF: &str = "dn: dc=school,dc=test
objectClass: organization
objectClass: dcObject
o: School
dc: school

dn: cn=reader,dc=school,dc=test
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: reads

dn: ou=school.test,dc=school,dc=test
objectClass: organizationalUnit
objectClass: domainRelatedObject
ou: school.test
associatedDomain: school.test

dn: uid=wf,ou=school.test,dc=school,dc=test
objectClass: inetOrgPerson
objectClass: qmailUser
uid: wf
cn: Wang Fang
sn: Wang
mail: wf@school.test
mailAlternateAddress: fang.wang@school.test
mailQuotaSize: 1000000
userPassword: {SSHA}86ViTDmHyaaGX8LPHG0gPUH/vURID0LH

dn: uid=old,ou=school.test,dc=school,dc=test
objectClass: inetOrgPerson
objectClass: qmailUser
uid: old
cn: Old
sn: Old
mail: old@school.test
accountStatus: disabled
userPassword: {SSHA}86ViTDmHyaaGX8LPHG0gPUH/vURID0LH

dn: cn=info,ou=school.test,dc=school,dc=test
objectClass: applicationProcess
objectClass: qmailUser
cn: info
mail: info@school.test
deliveryMode: nolocal
mailForwardingAddress: wf@school.test
";

/// What a script prints that talks to the plain port octet by octet; `search` is a search of the schema, `pipelined` a StartTLS with a
/// request behind it.
const RAW: &str = r#"
import socket, ssl, sys, time
ip, port = sys.argv[1], int(sys.argv[2])
def ber(tag, content):
    head = bytes([tag, len(content)]) if len(content) < 128 else bytes([tag, 0x82, len(content) >> 8, len(content) & 255])
    return head + content
def message(n, operation): return ber(0x30, ber(2, bytes([n])) + operation)
def search(base, flt): return ber(0x63, ber(4, base) + b"\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00" + flt + ber(0x30, b""))
START_TLS = ber(0x77, ber(0x80, b"1.3.6.1.4.1.1466.20037"))
WHOAMI = ber(0x77, ber(0x80, b"1.3.6.1.4.1.4203.1.11.3"))
def connect():
    return socket.create_connection((ip, port), 60)
def until_closed(s):
    out = b""
    while True:
        try: piece = s.recv(65536)
        except ConnectionError: return out
        if not piece: return out
        out += piece

# A request behind StartTLS, in the clear: neither answered nor carried over into TLS.
s = connect(); s.sendall(message(1, START_TLS) + message(2, WHOAMI))
print("pipelined", b"1.3.6.1.4.1.1466.20036" in until_closed(s))
# StartTLS alone works, and within it nothing is answered that was not asked there.
s = connect(); s.sendall(message(1, START_TLS)); s.recv(4096)
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
t = context.wrap_socket(s); t.sendall(message(3, WHOAMI)); answer = t.recv(4096)
print("within", b"\x02\x01\x03" in answer and b"\x02\x01\x02" not in answer)

# Drips and silence: closed within the patience of the server, however alive the client looks.
for what, drip in (("drip", message(1, WHOAMI)[:-1]), ("silent", b"")):
    s = connect(); s.settimeout(0.2); closed = False
    for n in range(200):
        try:
            if n < len(drip): s.sendall(drip[n:n+1])
            if s.recv(4096) == b"": closed = True; break
        except TimeoutError: pass
        except ConnectionError: closed = True; break
    print(what, closed)

# Requests without end, no answer read: the server stops reading instead of storing answers.
s = connect(); s.settimeout(3); flood = message(1, search(b"cn=subschema", ber(0x87, b"objectClass"))) * 200; sent = 0
try:
    while sent < 50_000_000: sent += s.send(flood)
    print("flood", False)
except (TimeoutError, ConnectionError): print("flood", True)
s.close()
# Abandon without end: read and forgotten; the question behind them is answered.
s = connect(); s.sendall(message(1, ber(0x50, b"\x01")) * 20000 + message(9, WHOAMI))
print("abandon", b"\x02\x01\x09" in s.recv(4096))
# A filter of many assertions, from a stranger.
s = connect(); s.sendall(message(1, search(b"cn=subschema", ber(0xa1, ber(0x87, b"cn") * 500)))); answer = s.recv(4096)
print("filter", b"the filter is too large" in answer)
"#;

#[test]
fn hostile_clients_are_bounded_in_time_and_memory() {
    let mut site = Site::prepare("[ldap-proxy]\nidle-timeout = \"3s\"\n");
    let toml = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), toml.replace(r#"["ldap-proxy", "pop-imap", "smtp"]"#, r#"["ldap-proxy"]"#)).unwrap();
    site.launch();
    first_administrator(&site);
    let pid = site.role_pid("ldap-proxy").unwrap();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    let told = good(&crate::harness::python(RAW, &[&site.ip(), &site.port("ldap")]));
    for what in ["pipelined", "within", "drip", "silent", "flood", "abandon", "filter"] {
        assert!(told.contains(&format!("{what} True\n")), "{what}: {told}");
    }
    assert!(memory() < before + 40 * 1024, "{before} KiB, then {} KiB", memory());
    assert_eq!(site.role_pid("ldap-proxy"), Some(pid), "the same process");
}

/// A certificate authority, and a certificate for `ldap.school.test` from it.
fn make_certificates(dir: &Path) {
    let script = r#"
set -e
cd "$1"
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1" -subj "$2" "${@:3}" 2>/dev/null; }
new ca.key /CN=School -x509 -days 2 -out ca.pem
new key.pem /CN=ldap.school.test -out request.pem
printf 'subjectAltName=DNS:ldap.school.test' > san
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out cert.pem 2>/dev/null
"#;
    good(&run("bash", &["-c", script, "-", dir.to_str().unwrap()], b""));
}

#[test]
fn roles_ask_openldap_over_tls_and_only_the_one_that_they_trust() {
    use fife::config::directory::Tls;
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (plain, tls) = (free(), free());
    let slapd = Slapd::start(&format!("ldap://{plain} ldaps://{tls}"));
    let authority = secret(&std::fs::read_to_string(slapd.dir.path().join("ca.pem")).unwrap());
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let another = secret(&std::fs::read_to_string(other.path().join("ca.pem")).unwrap());
    let log_in = |tls, address, name: &str, authority: &SecretText, password: &str| {
        let settings = Settings {
            servers: vec![SocketAddress::Tcp(address)],
            bind_dn: "cn=reader,dc=school,dc=test".into(),
            tls,
            tls_name: name.into(),
            ..Settings::default()
        };
        let directory = Directory::connect(&settings, "dc=school,dc=test", slapd.dir.path(), Some(secret("reads")))
            .with_authority(&settings, Some(authority), None);
        let runtime = runtime();
        runtime
            .block_on(directory.authenticate("wf@school.test", &secret(password), None))
            .map(|account| account.name.clone())
    };
    for (mode, address) in [(Tls::StartTls, plain), (Tls::Tls, tls)] {
        let right = log_in(mode, address, "ldap.school.test", &authority, "secret");
        assert_eq!(right, Ok("Wang Fang".to_owned()), "{mode:?}");
        assert_eq!(log_in(mode, address, "ldap.school.test", &authority, "wrong"), Err(AuthError::Refused), "{mode:?}");
        for (name, authority) in [("other.school.test", &authority), ("", &authority), ("ldap.school.test", &another)] {
            let refused = log_in(mode, address, name, authority, "secret");
            assert!(matches!(refused, Err(AuthError::Unavailable(_))), "{mode:?} {name:?}: {refused:?}");
        }
    }
    let nothing = log_in(Tls::Tls, tls, "ldap.school.test", &secret("no certificate"), "secret");
    assert!(format!("{nothing:?}").contains("tls-ca"), "{nothing:?}");
}

#[test]
fn roles_can_ask_openldap_instead() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let slapd = Slapd::start(&format!("ldap://{free}"));
    let (socket, _) = Slapd::socket(slapd.dir.path());
    let over_unix = Settings { servers: vec![SocketAddress::Unix(socket)], ..Settings::default() };
    let over_tcp = Settings {
        servers: vec![SocketAddress::Tcp(free)],
        bind_dn: "cn=reader,dc=school,dc=test".into(),
        timeout: "20s".parse().unwrap(),
        ..Settings::default()
    };
    for (settings, password) in [(over_unix, None), (over_tcp, Some(secret("reads")))] {
        let directory = Directory::connect(&settings, "dc=school,dc=test", slapd.dir.path(), password);
        runtime().block_on(async {
            let account = account(&directory, "Fang.Wang@school.test").await;
            assert_eq!(
                (account.address.to_string().as_str(), account.quota_bytes),
                ("wf@school.test", Some(1_000_000))
            );
            assert_ne!(account.id, [0; 16]);
            let expansion = directory.expand(&address("info@school.test")).await.unwrap();
            assert_eq!(expansion.accounts.iter().map(|account| account.id).collect::<Vec<_>>(), [account.id]);
            assert_eq!(directory.resolve(&address("x@school.test")).await, Ok(Recipient::NoSuchUser));
            assert_eq!(directory.resolve(&address("x@elsewhere.test")).await, Ok(Recipient::NotLocal));
            let login = async |name: &str, password: &str| directory.authenticate(name, &secret(password), None).await;
            assert_eq!(login("wf@school.test", "secret").await.map(|found| found.id), Ok(account.id));
            assert_eq!(login("wf@school.test", "wrong").await, Err(AuthError::Refused));
            assert_eq!(login("x@school.test", "secret").await, Err(AuthError::Refused));
            assert_eq!(login("old@school.test", "secret").await, Err(AuthError::Suspended));
            // For whom a role asks stands in the server's own log.
            let client = "192.0.2.7".parse().ok();
            assert!(directory.authenticate("wf@school.test", &secret("other"), client).await.is_err());
            let log = || std::fs::read_to_string(slapd.dir.path().join("log")).unwrap();
            wait_for("the client's address in the log", || log().contains("IP=192.0.2.7"), log);
        });
    }
}
