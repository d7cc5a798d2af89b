//! The configuration from outside: `fife check`, `fife config`, exit codes, and what others make of the schema.
//!
//! Independent: Python's tomllib reads what is printed and what is loaded, its jsonschema holds files against the schema,
//! openssl makes certificates.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{FIFE, good, python, run, text};

/// A good file, with one host `a`.
const GOOD: &str = r#"[site]
name = "s"
domain = "example.test"
[hosts.a]
roles = ["ldap-proxy", "pop-imap", "smtp"]
"#;

/// Runs fife on a file `fife.toml` in `dir`, with this environment only.
fn fife(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(FIFE);
    command.args(args).arg("--config").arg(dir.join("fife.toml")).env_clear().envs(env.iter().copied());
    command.current_dir(dir).output().unwrap()
}

/// A directory with this text as `fife.toml`.
fn written(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fife.toml"), text).unwrap();
    dir
}

/// A file of this repository.
fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

#[test]
fn check_prints_host_by_host_what_would_run() {
    let site = format!(
        "{GOOD}match = {{ serial = \"A\" }}\n[hosts.b]\nmatch = {{ serial = \"B\" }}\nroles = [\"ldap-proxy\"]\n"
    );
    let dir = written(&site.replace("[hosts.a]", "secret = \"0123456789abcdef\"\nstate = \"data\"\n[hosts.a]"));
    let told = good(&fife(dir.path(), &["check", "--host", "b"], &[]));
    for expected in [
        "fife.toml: good",
        "\nhost a\n",
        "\nhost b (this machine)\n",
        "submissions  [::]:465 (TLS)",
        "certificate  self-signed",
        "state        data",
    ] {
        assert!(told.contains(expected), "no {expected:?} in:\n{told}");
    }
    let facts: Value =
        serde_json::from_str(&good(&fife(dir.path(), &["check", "--json", "--host", "b"], &[]))).unwrap();
    let hosts = facts["hosts"].as_array().unwrap();
    assert_eq!(hosts.iter().map(|host| host["host"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((&hosts[0]["this-machine"], &hosts[1]["this-machine"]), (&false.into(), &true.into()));
    assert_eq!(hosts[1]["roles"][0]["role"], "ldap-proxy");
    assert_eq!(hosts[0]["roles"].as_array().unwrap().len(), 3);
    let told = good(&fife(dir.path(), &["check", "--host", "b", "--state", "/elsewhere"], &[]));
    assert!(told.contains("state        /elsewhere"), "{told}");
    let told = good(&fife(dir.path(), &["check", "--host", "b"], &[("FIFE_STATE", "/by/env")]));
    assert!(told.contains("state        /by/env"), "{told}");
}

#[test]
fn every_fault_is_told_with_its_line_and_the_exit_code_is_2() {
    let dir = written(
        "[site]\nname = \"s\"\n[hosts.a]\nroles = [\"smpt\"]\n[smtp]\nlisten = \"0.0.0.0:25\"\nhop-max = 60\nidle-timeout = \"5 parsecs\"\n[pop-imap]\nconnections-max = 0\n",
    );
    let output = fife(dir.path(), &["check"], &[]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(output.stdout.is_empty());
    for expected in [
        "fife.toml:1:2",
        "`domain` is missing in [site]",
        "fife.toml:4:10",
        "4 | roles = [\"smpt\"]",
        "did you mean `smtp`?",
        "fife.toml:6:10",
        "put it in brackets",
        "fife.toml:7:1",
        "did you mean `hops-max`?",
        "fife.toml:8:16",
        "expected a duration such as",
        "fife.toml:10:19",
        "expected a whole number from 1 to 1000000",
        "fife.toml: 6 faults",
    ] {
        assert!(told.contains(expected), "no {expected:?} in:\n{told}");
    }
    assert!(!told.contains('\u{1b}'), "plain where there is no terminal");
    let output = fife(dir.path(), &["check", "--json"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts["faults"].as_array().unwrap().len(), 6, "{facts}");
    assert_eq!((&facts["faults"][3]["line"], &facts["faults"][3]["text"]), (&7.into(), &"hop-max = 60".into()));
    // Other commands refuse it too.
    for args in [&["config", "show"][..], &["run"], &["status"], &["reload"]] {
        let output = fife(dir.path(), args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?} {}", text(&output));
    }
}

#[test]
fn what_cannot_be_used_ends_with_2() {
    let dir = written(GOOD);
    let code = |args: &[&str]| fife(dir.path(), args, &[]).status.code();
    assert_eq!(code(&["check"]), Some(0));
    assert_eq!(code(&["check", "--host", "nobody"]), Some(2));
    assert_eq!(code(&["config", "show", "--host", "nobody"]), Some(2));
    assert_eq!(code(&["check", "--nonsense"]), Some(2));
    assert_eq!(code(&["config"]), Some(2));
    assert_eq!(run(FIFE, &["check", "--config", "/nonexistent/fife.toml"], b"").status.code(), Some(2));
    for bad in [&b"\xff\xfe[\0s\0"[..], b"[site]\nname = \"\xe9\"\n", b""] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("fife.toml"), bad).unwrap();
        assert_eq!(fife(dir.path(), &["check"], &[]).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn show_tells_values_and_where_they_came_from() {
    let dir = written(&format!(
        "{GOOD}[hosts.a.smtp]\nhops-max = 70\n[smtp]\nhops-max = 60\nrecipients-max = 600\n[directory]\nbind-dn = \"cn=a\"\nbind-password = \"hunter2hunter2\"\n"
    ));
    let env = [("FIFE_SMTP__RECIPIENTS_MAX", "700"), ("FIFE_SMTP__LISTEN", "127.0.0.1:2525,[::1]:2525")];
    let told = good(&fife(dir.path(), &["config", "show"], &env));
    let line = |key: &str| {
        told.lines().find(|line| line.starts_with(&format!("{key} ="))).unwrap_or_else(|| panic!("no {key}"))
    };
    let origin = |key: &str| line(key).split(" # ").nth(1).unwrap().to_owned();
    assert!(origin("hops-max").starts_with("host override ") && origin("hops-max").ends_with("fife.toml:7"), "{told}");
    assert_eq!(origin("recipients-max"), "environment FIFE_SMTP__RECIPIENTS_MAX");
    assert!(origin("bind-dn").ends_with("fife.toml:12"));
    assert_eq!(origin("lmtp"), "default");
    assert!(!told.contains("hunter2"));
    // What is printed is TOML, and says the same as --json.
    let script = r#"
import json, sys, tomllib
shown = tomllib.loads(open(sys.argv[1]).read())
facts = json.loads(open(sys.argv[2]).read())
for name, fact in facts["settings"].items():
    table, key = name.split(".")
    assert shown[table].get(key) == fact["value"], (name, fact, shown[table].get(key))
assert shown["smtp"]["hops-max"] == 70 and shown["smtp"]["listen"] == ["127.0.0.1:2525", "[::1]:2525"], shown
assert facts["settings"]["smtp.hops-max"]["from"] == "host", facts
print(len(facts["settings"]))
"#;
    let json = good(&fife(dir.path(), &["config", "show", "--json"], &env));
    assert!(!json.contains("hunter2"));
    let (shown, facts) = (dir.path().join("shown.toml"), dir.path().join("facts.json"));
    std::fs::write(&shown, &told).unwrap();
    std::fs::write(&facts, json).unwrap();
    let count = good(&python(script, &[&shown.display().to_string(), &facts.display().to_string()]));
    assert!(count.trim().parse::<u32>().unwrap() > 40, "{count}");
}

#[test]
fn an_independent_validator_agrees_with_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.json");
    std::fs::write(&schema, good(&run(FIFE, &["config", "schema"], b""))).unwrap();
    // Each row: good or not, what is added to a good file. fife and the validator must both say so.
    let rows = [
        (true, ""),
        (true, "[smtp]\nhops-max = 60\nlisten = []\n"),
        (true, "[hosts.a.smtp]\nhops-max = 60\n"),
        (true, "[smtp]\nmessage-size-max = 1048576\n"),
        (true, "[directory]\nbind-dn = \"cn=a\"\nbind-password = { env = \"X\" }\n"),
        (false, "[smtp]\nhop-max = 60\n"),
        (false, "[smtp]\nhops-max = 4\n"),
        (false, "[smtp]\nhops-max = \"60\"\n"),
        (false, "[smtp]\nhops-max = 1001\n"),
        (false, "[smtp]\nlisten = \"0.0.0.0:25\"\n"),
        (false, "[smtp]\nretry-after = []\n"),
        (false, "[smtp]\ncleartext-login = \"yes\"\n"),
        (false, "[smtp]\nmessage-size-max = true\n"),
        (false, "[log]\nlevel = \"inof\"\n"),
        (false, "[web]\n"),
        (false, "[hosts.a.web]\n"),
        (false, "[hosts.a.site]\n"),
        (false, "[hosts.b]\n"),
        (false, "[hosts.b]\nroles = []\n"),
        (false, "[hosts.b]\nroles = [\"smpt\"]\n"),
        (false, "[hosts.a.match]\nmca = \"52:54:00:00:00:01\"\n"),
        (false, "[directory]\nbind-dn = \"cn=a\"\nbind-password = { fil = \"x\" }\n"),
        (false, "[directory]\nbind-dn = \"cn=a\"\nbind-password = { file = \"x\", env = \"y\" }\n"),
    ];
    let mut arguments = vec![schema.display().to_string(), "good".to_owned(), repository("etc/fife.toml")];
    arguments.extend(["good".to_owned(), repository("etc/demo.toml")]);
    for (number, (is_good, more)) in rows.iter().enumerate() {
        let own = dir.path().join(number.to_string());
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("fife.toml"), format!("{GOOD}{more}")).unwrap();
        let output = fife(&own, &["check"], &[("X", "secret")]);
        assert_eq!(output.status.code(), Some(if *is_good { 0 } else { 2 }), "{more}\n{}", text(&output));
        arguments
            .extend([if *is_good { "good" } else { "bad" }.to_owned(), own.join("fife.toml").display().to_string()]);
    }
    let script = r#"
import json, sys, tomllib
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
assert schema["$schema"].endswith("2020-12/schema"), schema["$schema"]
validator = Draft202012Validator(schema)
for verdict, path in zip(sys.argv[2::2], sys.argv[3::2]):
    text = open(path).read()
    errors = [error.message for error in validator.iter_errors(tomllib.loads(text))]
    assert (verdict == "good") == (not errors), (verdict, text[-200:], errors)
print("agreed", len(sys.argv) // 2 - 1)
"#;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = good(&python(script, &arguments));
    assert!(told.contains(&format!("agreed {}", rows.len() + 2)), "{told}");
}

#[test]
fn files_that_the_configuration_names_are_checked_and_never_shown() {
    let dir = written(&format!(
        "{GOOD}[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n[directory]\nbind-dn = \"cn=a\"\nbind-password = {{ env = \"PASS\" }}\n"
    ));
    let output = fife(dir.path(), &["check"], &[]);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("cert.pem cannot be read") && told.contains("environment variable PASS is not set"),
        "{told}"
    );
    for (key, cert) in [("key.pem", "cert.pem"), ("other.pem", "other-cert.pem")] {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                "/CN=a.example.test",
            ])
            .args(["-days", "2", "-keyout", key, "-out", cert])
            .current_dir(dir.path())
            .output()
            .unwrap();
        good(&made);
    }
    let env = [("PASS", "hunter2hunter2")];
    let told = good(&fife(dir.path(), &["check"], &env));
    assert!(told.contains("certificate  ") && told.contains("cert.pem") && !told.contains("hunter2"), "{told}");
    std::fs::copy(dir.path().join("other.pem"), dir.path().join("key.pem")).unwrap();
    let output = fife(dir.path(), &["check"], &env);
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("are no pair") && told.contains("fife.toml:8:7") && !told.contains("PRIVATE"), "{told}");
}
