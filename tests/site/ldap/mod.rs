//! The directory: ldap-proxy driven by OpenLDAP's tools, the commands, and the roles' client; that client also
//! against OpenLDAP's own server, and against servers that are none.
//!
//! Owns: what the modules below share. Called by: `cargo test`.

mod access;
mod clients;
mod crashes;
mod hostile;
mod impostors;
mod openldap;
mod tools;

use std::process::Output;

use fife::base::address::Address;
use fife::config::directory::Directory as Settings;
use fife::config::secret::SecretText;
use fife::directory::{Account, Directory, Recipient};

use crate::harness::{Site, good, run, text, wait_for};

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

async fn account(directory: &Directory, name: &str) -> Account {
    match directory.resolve(&address(name)).await {
        Ok(Recipient::Account(account)) => Account::clone(&account),
        other => panic!("{name}: {other:?}"),
    }
}
