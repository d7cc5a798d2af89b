//! Tests of the configuration.

mod faults;
mod hosts;
mod layers;
mod machine;
mod manual;
mod material;
mod mutation;
mod secrets;

use std::path::Path;

use super::load::{Loaded, parse};
use super::{Fault, Faults};

/// Loads a text as `site.toml`, without environment.
fn load(text: &str) -> Result<Loaded, Faults> {
    load_with(text, &[])
}

/// Loads a text with these environment variables.
fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Faults> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    parse(Path::new("site.toml"), text, &variables)
}

/// The faults of a text that must have some.
fn faults(text: &str) -> Faults {
    load(text).err().unwrap_or_else(|| panic!("no fault in:\n{text}"))
}

/// A fault as "line:column message; expected …; help", a place outside the file by its name.
fn tell(faults: &Faults, text: &str, fault: &Fault) -> String {
    use super::fault::{Place, position};
    let at = match &fault.place {
        Place::File(span) => {
            let (line, column) = position(text, span.start);
            format!("{line}:{column}")
        }
        Place::Environment(name) => name.clone(),
        Place::Machine(path) => path.display().to_string(),
    };
    assert!(faults.render(false).contains(&fault.message), "{fault:?}");
    let expected = fault.expected.as_deref().map(|expected| format!("; expected {expected}")).unwrap_or_default();
    let help = fault.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("{at} {}{expected}{help}", fault.message)
}

/// What a good site begins with.
const SITE: &str = "[site]\nname = \"s\"\ndomain = \"example.test\"\n";
/// A good host with everything.
const HOST: &str = "[hosts.a]\nroles = [\"ldap-proxy\", \"pop-imap\", \"smtp\"]\n";

#[test]
fn the_example_of_two_hosts_is_a_good_site() {
    let loaded = load(include_str!("../../etc/two-hosts.toml")).unwrap();
    let services = |host: &str| -> Vec<_> {
        loaded.effective(host).unwrap().listening_all().map(|listening| listening.service).collect()
    };
    assert!(services("store").contains(&"lmtp-site") && services("store").contains(&"ldap-site"));
    assert!(!services("front").contains(&"ldap-site"));
}

#[test]
fn the_demo_loads_and_listens_where_the_readme_says() {
    let loaded = load(include_str!("../../etc/demo.toml")).unwrap();
    let demo = loaded.effective("demo").unwrap();
    let listening: Vec<String> =
        demo.listening_all().map(|listening| format!("{} {}", listening.service, listening.address)).collect();
    for expected in [
        "smtp 127.0.0.1:2525",
        "submission 127.0.0.1:2587",
        "submissions 127.0.0.1:2465",
        "imap 127.0.0.1:2143",
        "imaps 127.0.0.1:2993",
        "pop3 127.0.0.1:2110",
        "pop3s 127.0.0.1:2995",
        "lmtp unix:run/lmtp.sock",
        "lmtp 127.0.0.1:2424",
        "ldap 127.0.0.1:2389",
        "ldaps 127.0.0.1:2636",
        "metrics 127.0.0.1:2090",
    ] {
        assert!(listening.iter().any(|line| line == expected), "{expected} not in {listening:?}");
    }
    assert_eq!(demo.site.state, Path::new("state"));
}
