//! Which layer wins, and the spelling of environment variables.

use super::super::environment::variable_name;
use super::super::schema::{Kind, Section};
use super::super::{Effective, Tables};
use super::{HOST, SITE, load, load_with};

const TWO: &str = r#"[site]
name = "s"
domain = "example.test"
secret = "0123456789abcdef"
[smtp]
hops-max = 60
recipients-max = 600
[directory]
bind-dn = "cn=fife"
bind-password = { file = "a" }
[hosts.a]
roles = ["ldap-proxy", "pop-imap", "smtp"]
[hosts.b]
roles = ["smtp", "pop-imap", "ldap-proxy"]
[hosts.b.smtp]
hops-max = 70
listen = ["0.0.0.0:2525"]
[hosts.b.directory]
bind-password = { env = "B" }
"#;

#[test]
fn without_a_word_in_the_file_everything_is_default() {
    let loaded = load(&format!("{SITE}{HOST}")).unwrap();
    assert_eq!(loaded.effective("a").unwrap().tables, Tables::default());
}

#[test]
fn each_layer_covers_the_one_below() {
    let variables =
        [("FIFE_SMTP__RECIPIENTS_MAX", "700"), ("FIFE_SITE__LANGUAGE", "zh-CN"), ("FIFE_STATE", "elsewhere")];
    let loaded = load_with(TWO, &variables).unwrap();
    let (a, b) = (loaded.effective("a").unwrap(), loaded.effective("b").unwrap());
    assert_eq!((a.tables.smtp.hops_max, b.tables.smtp.hops_max), (60, 70));
    assert_eq!((a.tables.smtp.recipients_max, b.tables.smtp.recipients_max), (700, 700));
    assert_eq!(a.tables.smtp.listen, Tables::default().smtp.listen);
    assert_eq!(b.tables.smtp.listen.len(), 1, "a list is replaced, not joined");
    assert_eq!(format!("{:?}", b.tables.directory.bind_password), "Some((from environment B))", "a secret is replaced");
    assert_eq!(a.site.language, super::super::site::Language::Chinese);
    assert_eq!(a.roles, b.roles, "roles stand in the order in which they are started");
}

#[test]
fn each_value_knows_where_it_came_from() {
    let loaded = load_with(TWO, &[("FIFE_SMTP__RECIPIENTS_MAX", "700")]).unwrap();
    let check = |host: &str, table: &str, key: &str, expected: &str| {
        let section = Section::from_name(table).unwrap();
        let origin = loaded.origin(host, &section, section.setting(key).unwrap());
        assert_eq!(origin.to_string(), expected, "{host} {table}.{key}");
    };
    check("a", "site", "name", "site.toml:2");
    check("a", "site", "state", "default");
    check("a", "smtp", "hops-max", "site.toml:6");
    check("b", "smtp", "hops-max", "host override site.toml:16");
    check("b", "smtp", "recipients-max", "environment FIFE_SMTP__RECIPIENTS_MAX");
    check("a", "directory", "bind-password", "site.toml:10");
    check("b", "directory", "bind-password", "host override site.toml:19");
    check("a", "pop-imap", "listen-imap", "default");
}

#[test]
fn environment_variables_set_what_their_name_says() {
    let check = |name: &str, value: &str, read: &dyn Fn(&Effective) -> String, expected: &str| {
        let loaded = load_with(&format!("{SITE}{HOST}"), &[(name, value)]);
        let found = read(loaded.as_ref().unwrap_or_else(|faults| panic!("{faults}")).effective("a").unwrap());
        assert_eq!(found, expected, "{name}={value}");
    };
    check("FIFE_SITE__NAME", "123", &|e| e.site.name.clone(), "123"); // text stays text
    check("FIFE_SITE__DOMAIN", "Other.Test", &|e| format!("{:?}", e.site.domain), "Some(Domain(\"other.test\"))");
    check("FIFE_SMTP__MESSAGE_SIZE_MAX", "10 MiB", &|e| e.tables.smtp.message_size_max.to_string(), "10 MiB");
    check("FIFE_SMTP__MESSAGE_SIZE_MAX", "1048576", &|e| e.tables.smtp.message_size_max.to_string(), "1 MiB");
    check("FIFE_SMTP__IDLE_TIMEOUT", "90s", &|e| e.tables.smtp.idle_timeout.to_string(), "1m 30s");
    check("FIFE_SMTP__CLEARTEXT_LOGIN", "true", &|e| e.tables.smtp.cleartext_login.to_string(), "true");
    check("FIFE_POP_IMAP__CONNECTIONS_MAX", " 7 ", &|e| e.tables.pop_imap.connections_max.to_string(), "7");
    check("FIFE_LOG__LEVEL", "debug", &|e| format!("{:?}", e.tables.log.level), "Debug");
    check("FIFE_METRICS__LISTEN", "", &|e| e.tables.metrics.listen.len().to_string(), "0");
    check("FIFE_SMTP__LISTEN", "127.0.0.1:1, [::1]:2", &|e| format!("{}", e.tables.smtp.listen[1]), "[::1]:2");
    check("FIFE_SMTP__LISTEN", "[::]:2525", &|e| format!("{}", e.tables.smtp.listen[0]), "[::]:2525");
    check("FIFE_SMTP__LISTEN", "[\"127.0.0.1:1\"]", &|e| format!("{}", e.tables.smtp.listen[0]), "127.0.0.1:1");
    check("FIFE_SMTP__RETRY_AFTER", "1m,2m", &|e| format!("{}", e.tables.smtp.retry_after[1]), "2m");
}

#[test]
fn wrong_environment_variables_are_refused() {
    let check = |name: &str, value: &str, expected: &str| {
        let text = format!("{SITE}{HOST}");
        let faults = load_with(&text, &[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value}"));
        let told: Vec<String> = faults.list().iter().map(|fault| super::tell(&faults, &text, fault)).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(name) && told[0].contains(expected), "{told:?}");
    };
    check("FIFE_SMTP__HOPS_MAX", "many", "wrong type for `hops-max`: \"many\"; expected a whole number from 5 to 1000");
    check("FIFE_SMTP__HOPS_MAX", "4", "`hops-max` is out of range: 4");
    check("FIFE_SMTP__HOP_MAX", "4", "names no setting; did you mean `FIFE_SMTP__HOPS_MAX`?");
    check("FIFE_SMTP_HOPS_MAX", "50", "did you mean `FIFE_SMTP__HOPS_MAX`?");
    check("FIFE_SMTP__hops_max", "50", "names no setting");
    check("FIFE_HOSTS__A__ROLES", "smtp", "names no setting");
    check("FIFE_SMTP__CLEARTEXT_LOGIN", "yes", "expected true or false");
    check("FIFE_SMTP__LISTEN", "127.0.0.1", "expected an address such as");
    check("FIFE_SMTP__LISTEN", "[\"127.0.0.1:1\"", "expected an address such as");
    check("FIFE_SMTP__RETRY_AFTER", "", "has 0 values");
    check("FIFE_LOG__LEVEL", "inof", "did you mean `info`?");
    check("FIFE_SITE__NAME", "a,b", "wrong value for `name`");
}

#[test]
fn other_variables_are_not_ours() {
    for name in ["FIFE_STATE", "FIFE_BLESS", "PATH", "XFIFE_SMTP__HOP_MAX", "FIFE_", "FIFE_SITE"] {
        assert!(load_with(&format!("{SITE}{HOST}"), &[(name, "x")]).is_ok(), "{name}");
    }
}

#[test]
fn every_setting_has_a_variable_of_its_own() {
    let names: Vec<String> = Section::shared()
        .flat_map(|section| section.settings().iter().map(move |setting| variable_name(&section, setting.key)))
        .collect();
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names.len(), sorted.len());
    assert!(names.len() > 40 && names.contains(&"FIFE_POP_IMAP__LISTEN_POP3S".to_owned()), "{names:?}");
}

#[test]
fn every_setting_is_known_with_its_kind_and_says_what_restarts() {
    for section in Section::shared().chain([Section::Host]).chain(Section::OF_HOST) {
        assert!(!section.settings().is_empty(), "{section:?}");
        let asked = section.trial([("\0".to_owned(), 0.into())].into()).unwrap_err();
        assert!(asked.to_string().contains(section.settings().last().unwrap().key), "{asked}");
        for setting in section.settings().iter().filter(|setting| setting.kind != Kind::Table) {
            let says = ["(Restarts ", "(Takes effect ", "(Needs ", "(Read "];
            let description = setting.description;
            assert!(
                says.iter().any(|says| description.contains(says)),
                "[{}] {}: {description}",
                section.name(),
                setting.key
            );
            assert!(!description.contains('\n'), "[{}] {}: one paragraph", section.name(), setting.key);
        }
    }
    let smtp = Section::Table("smtp");
    assert_eq!(smtp.setting("hops-max").unwrap().kind, Kind::Integer(5, 1000));
    assert_eq!(smtp.setting("message-size-max").unwrap().bounds, (Some("64 KiB"), Some("2 GiB")));
    assert!(matches!(smtp.setting("listen").unwrap().kind, Kind::List(_)));
}

#[test]
fn every_default_keeps_its_own_bounds() {
    use std::fmt::Write;
    let mut text = format!("{SITE}{HOST}");
    for section in Section::shared().filter(|section| *section != Section::Site) {
        writeln!(text, "[{}]", section.name()).unwrap();
        for setting in section.settings() {
            if let Some(default) = setting.default {
                writeln!(text, "{} = {}", setting.key, super::super::schema::toml_text(default)).unwrap();
            }
        }
    }
    let loaded = load(&text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(loaded.effective("a").unwrap().tables, Tables::default());
}
