//! What is refused, where it is said to lie, and what is said.

use super::{HOST, SITE, faults, load, tell};

/// Checks that a good site with `more` at its end has just this fault (place counted from the first line of `more`).
fn check(more: &str, expected: &str) {
    let before = format!("{SITE}{HOST}");
    let text = format!("{before}{more}\n");
    let faults = faults(&text);
    let told: Vec<String> = faults.list().iter().map(|fault| tell(&faults, &text, fault)).collect();
    let [told] = told.as_slice() else { panic!("not one fault for {more:?}: {told:#?}") };
    let (line, rest) = told.split_once(':').unwrap();
    let line = line.parse::<usize>().unwrap().saturating_sub(before.lines().count());
    let told = format!("{line}:{rest}");
    // `expected` ends with `…` when the rest does not matter.
    match expected.strip_suffix('…') {
        Some(start) => assert!(told.starts_with(start), "{more:?}\n got {told}\nwant {expected}"),
        None => assert_eq!(told, expected, "{more:?}"),
    }
}

/// Checks that a whole text has exactly these faults.
fn check_all(text: &str, expected: &[&str]) {
    let faults = faults(text);
    let told: Vec<String> = faults.list().iter().map(|fault| tell(&faults, text, fault)).collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "\n got {told}\nwant {expected}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    check(
        "[smpt]",
        "1:2 unknown table `smpt`; expected one of site, log, metrics, tls, directory, dns, smtp, smtp-authentication, smtp-outbound, pop-imap, ldap-proxy, update, backup-to-tape, hosts; did you mean `smtp`?",
    );
    check("[pop_imap]", "1:2 unknown table `pop_imap`…");
    check("[web]", "1:2 unknown table `web`…");
    check("[[smtp]]", "1:1 `smtp` is a list; expected a table");
    check(
        "[smtp]\nhop-max = 60",
        "2:1 unknown key `hop-max` in `smtp`; expected a key of `smtp`; did you mean `hops-max`?",
    );
    check(
        "[smtp]\nhops_max = 60",
        "2:1 unknown key `hops_max` in `smtp`; expected a key of `smtp`; did you mean `hops-max`?",
    );
    check(
        "[smtp]\nHOPS-MAX = 60",
        "2:1 unknown key `HOPS-MAX` in `smtp`; expected a key of `smtp`; did you mean `hops-max`?",
    );
    check(
        "[smtp]\n'hop max' = 60",
        "2:1 unknown key `hop max` in `smtp`; expected a key of `smtp`; did you mean `hops-max`?",
    );
    check("[smtp]\nservers = []", "2:1 unknown key `servers` in `smtp`; `servers` is a key of [directory], [dns]");
    check("[tls]\ncolour = 3", "2:1 unknown key `colour` in `tls`; expected one of certificate, key");
    check(
        "[smtp.listen-submision]",
        "1:7 unknown key `listen-submision` in `smtp`; expected a key of `smtp`; did you mean `listen-submission`?",
    );
    check(
        "smpt = { hops-max = 60 }",
        "1:1 unknown key `smpt` in `hosts`; expected a key of `hosts`; did you mean `smtp`?",
    );
    check("rolls = []", "1:1 unknown key `rolls` in `hosts`; expected a key of `hosts`; did you mean `roles`?");
    check(
        "match = { mca = \"\" }",
        "1:11 unknown key `mca` in `match`; expected a key of `match`; did you mean `mac`?",
    );
    check("[hosts.a.smtp]\nhop-max = 60", "2:1 unknown key `hop-max` in `smtp`…");
    check("[hosts.a.site]\nname = \"x\"", "1:10 unknown key `site` in `hosts`…");
    check(
        "[directory]\nbind-password = { fil = \"x\" }",
        "2:19 unknown key `fil` in a secret; expected a secret: text, …",
    );
}

#[test]
fn wrong_types_are_refused() {
    for wrong in ["5", "true", "1.5", "2026-01-01", "{ a = 1 }", "[[]]", "[{}]", "[5]", "[true]"] {
        check(&format!("[smtp]\nlisten = {wrong}"), "2:1…");
    }
    for wrong in ["\"5\"", "true", "5.5", "-1", "4294967296", "9223372036854775807", "[]", "{}", "nan", "2026-01-01"] {
        check(&format!("[smtp]\nhops-max = {wrong}"), "2:12 …");
    }
    for wrong in ["\"true\"", "1", "0", "[]", "{}", "0.0"] {
        check(
            &format!("[smtp]\ncleartext-login = {wrong}"),
            &format!("2:19 wrong type for `cleartext-login`: {}; expected true or false", shown(wrong)),
        );
    }
    for wrong in ["5", "true", "[]", "{}", "1.5"] {
        check(&format!("[smtp]\nidle-timeout = {wrong}"), "2:16 wrong type for `idle-timeout`: …");
        check(&format!("[smtp]\nhostname = {wrong}"), "2:12 wrong type for `hostname`: …");
        check(&format!("[log]\nlevel = {wrong}"), "2:9 wrong …");
        check(&format!("[log]\nfile = {wrong}"), "2:8 wrong type for `file`: …");
        check(&format!("[directory]\nbase = {wrong}"), "2:8 wrong type for `base`: …");
    }
    for wrong in ["true", "[]", "{}", "-1", "1.5"] {
        check(&format!("[smtp]\nmessage-size-max = {wrong}"), "2:20 wrong …");
    }
    for wrong in ["5", "true", "[]", "[\"x\"]", "{}", "{ file = 5 }", "{ file = \"a\", env = \"b\" }", "{ env = [] }"] {
        check(&format!("[directory]\nbind-dn = \"cn=a\"\nbind-password = {wrong}"), "3:17 wrong …");
    }
    for wrong in ["5", "\"x\"", "[]"] {
        check(&format!("match = {wrong}"), "1:9 `match` is …");
        check(&format!("smtp = {wrong}"), "1:8 `smtp` is …");
    }
    check("match = { serial = 5 }", "1:20 wrong type for `serial`: 5; expected text in quotes");
    check(
        "[smtp]\nlisten = \"[::]:25\"",
        "2:10 `listen` is \"[::]:25\"; expected a list, each an address such as \"0.0.0.0:25\", \"[::]:25\" or \"unix:run/lmtp.sock\"; put it in brackets: a list can have one value",
    );
    check("[smtp]\nretry-after = \"5m\"", "2:15 `retry-after` is \"5m\"; …");
}

/// How a wrong value is told.
fn shown(value: &str) -> &str {
    match value {
        "\"true\"" => "\"true\"",
        "[]" => "a list",
        "{}" => "a table",
        "0.0" => "0",
        other => other,
    }
}

#[test]
fn wrong_values_are_refused() {
    for wrong in [
        "",
        "25",
        "0.0.0.0",
        "0.0.0.0:65536",
        "localhost:25",
        "[::]",
        "::25",
        "unix:",
        ":25",
        "0.0.0.0:25 ",
        "tcp:0.0.0.0:25",
    ] {
        check(
            &format!("[smtp]\nlisten = [\"{wrong}\"]"),
            &format!(
                "2:11 wrong value for `listen`: \"{wrong}\"; expected an address such as \"0.0.0.0:25\", \"[::]:25\" or \"unix:run/lmtp.sock\""
            ),
        );
    }
    for wrong in ["", "5", "5 parsecs", "m", "-5m", "five minutes"] {
        check(
            &format!("[smtp]\nidle-timeout = \"{wrong}\""),
            &format!(
                "2:16 wrong value for `idle-timeout`: \"{wrong}\"; expected a duration such as \"30s\", \"5m\" or \"1h 30m\", from 1s to 1d"
            ),
        );
    }
    for wrong in ["", "MiB", "-1", "25 parsecs"] {
        check(
            &format!("[smtp]\nmessage-size-max = \"{wrong}\""),
            &format!(
                "2:20 wrong value for `message-size-max`: \"{wrong}\"; expected a size such as \"64 KiB\", \"25 MiB\" or a number of bytes, from 64 KiB to 2 GiB"
            ),
        );
    }
    for wrong in ["", ".", "a..b", "-a.test", "a b.test", "a@b.test"] {
        check(&format!("[smtp]\nhostname = \"{wrong}\""), "2:12 wrong value for `hostname`: …");
    }
    for wrong in ["", "52:54:00:00:00", "eth0", "52:54:00:00:00:0x"] {
        check(&format!("match = {{ mac = \"{wrong}\" }}"), "1:17 wrong value for `mac`: …");
    }
    for wrong in ["", "192.0.2.1:25", "192.0.2.0/24", "300.1.1.1", "a b"] {
        check(&format!("addresses = [\"{wrong}\"]"), "1:14 wrong value for `addresses`: …");
    }
    check(
        "[log]\nlevel = \"inof\"",
        "2:9 wrong value for `level`: \"inof\"; expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; did you mean `info`?",
    );
    check(
        "[log]\nlevel = \"INFO\"",
        "2:9 wrong value for `level`: \"INFO\"; expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; did you mean `info`?",
    );
    check("[pop-imap]\nstore = \"cluster\"", "2:9 wrong value for `store`: \"cluster\"; expected \"embedded\"");
    let long = "x".repeat(500);
    check(&format!("[smtp]\nlmtp = \"{long}\""), &format!("2:8 wrong value for `lmtp`: \"{}…\"; …", "x".repeat(60)));
}

#[test]
fn values_out_of_range_are_refused() {
    check("[smtp]\nhops-max = 4", "2:12 `hops-max` is out of range: 4; expected a whole number from 5 to 1000");
    check("[smtp]\nhops-max = 1001", "2:12 `hops-max` is out of range: 1001; expected a whole number from 5 to 1000");
    check("[smtp]\nrecipients-max = 99", "2:18 `recipients-max` is out of range: 99…");
    check("[smtp]\nconnections-max = 0", "2:19 `connections-max` is out of range: 0…");
    check(
        "[smtp]\nidle-timeout = \"999ms\"",
        "2:16 `idle-timeout` is out of range: \"999ms\"; expected a duration such as \"30s\", \"5m\" or \"1h 30m\", from 1s to 1d",
    );
    check("[smtp]\nidle-timeout = \"25h\"", "2:16 `idle-timeout` is out of range: \"25h\"…");
    check("[smtp]\nretry-after = []", "2:15 `retry-after` has 0 values…");
    check("[smtp]\nretry-after = [\"1m\", \"0s\"]", "2:22 `retry-after` is out of range: \"0s\"…");
    check("[smtp]\nmessage-size-max = \"1 KiB\"", "2:20 `message-size-max` is out of range: \"1 KiB\"…");
    check("[smtp]\nmessage-size-max = 1", "2:20 `message-size-max` is out of range: 1; …");
    check("[smtp]\nmessage-size-max = \"3 GiB\"", "2:20 `message-size-max` is out of range: \"3 GiB\"…");
    check("[directory]\ntimeout = \"0s\"", "2:11 `timeout` is out of range: \"0s\"…");
    check(
        "[directory]\ncache-lifetime = \"2d\"",
        "2:18 `cache-lifetime` is out of range: \"2d\"; expected a duration such as \"30s\", \"5m\" or \"1h 30m\", at most 1d",
    );
    for wrong in ["99999999999999999999d", "18446744073709551615s 1s", "1ns", "9999999999y"] {
        check(&format!("[smtp]\nqueue-lifetime = \"{wrong}\""), "2:18 …");
    }
    for wrong in ["18446744073709551616", "1e999 TiB", "NaN", "16 EiB", "99999999999999999 EiB"] {
        check(&format!("[smtp]\nfree-space-min = \"{wrong}\""), "2:18 …");
    }
    // The bounds themselves are good.
    for good in [
        "hops-max = 5",
        "hops-max = 1000",
        "idle-timeout = \"1s\"",
        "idle-timeout = \"24h\"",
        "message-size-max = 65536",
    ] {
        assert!(load(&format!("{SITE}{HOST}[smtp]\n{good}\n")).is_ok(), "{good}");
    }
}

#[test]
fn site_and_hosts_must_be_said() {
    check_all(
        "",
        &["1:1 `name` is missing in [site]", "1:1 `domain` is missing in [site]", "1:1 the site has no hosts"],
    );
    check_all(&format!("[site]\n{HOST}"), &["1:2 `name` is missing in [site]", "1:2 `domain` is missing in [site]"]);
    check_all(
        &format!("[site]\nname = \"s\"\n{HOST}"),
        &["1:2 `domain` is missing in [site]; expected domain = \"example.edu.cn\""],
    );
    check_all(&format!("{SITE}[hosts]\n"), &["4:2 the site has no hosts"]);
    check_all(&format!("hosts = 5\n{SITE}"), &["1:9 `hosts` is 5; expected a table"]);
    check_all(&format!("{SITE}[hosts]\na = 5\n"), &["5:5 `a` is 5; expected a table"]);
    check_all(&format!("{SITE}[hosts.a]\n"), &["4:8 host `a` has no roles"]);
    check_all(&format!("{SITE}[hosts.a]\nroles = []\n"), &["5:9 `roles` has 0 values"]);
    for wrong in ["a,b", "", " a", "a ", "a+b", "a\\\\b", "o=x", "a\\nb", &"x".repeat(65)] {
        let text = format!("[site]\nname = \"{wrong}\"\ndomain = \"example.test\"\n{HOST}");
        check_all(&text, &["2:8 wrong value for `name`"]);
    }
    for good in ["campus", "第一中学", "St. John-s_2 x", &"x".repeat(64)] {
        assert!(load(&format!("[site]\nname = \"{good}\"\ndomain = \"example.test\"\n{HOST}")).is_ok(), "{good}");
    }
    for name in ["-a", "a-", "a.b", "a_b", "a b", "\\u4e00", ""] {
        let host = HOST.replace("hosts.a", &format!("hosts.\"{name}\""));
        check_all(&format!("{SITE}{host}"), &["4:8 `"]);
    }
}

#[test]
fn a_role_must_have_what_it_needs() {
    let site = |roles: &str, more: &str| format!("{SITE}[hosts.a]\nroles = [{roles}]\n{more}\n");
    check_all(
        &site("\"smtp\"", ""),
        &[
            "4:8 host `a` delivers to its own pop-imap at unix:run/lmtp.sock, but does not have that role",
            "4:8 host `a` asks its own ldap-proxy at unix:run/ldap.sock, but does not have that role",
        ],
    );
    check_all(
        &site("\"smtp\"", "[smtp]\nlmtp = \"unix:run/lmtp.sock\"\n[directory]\nservers = [\"192.0.2.1:389\"]"),
        &["7:8 host `a` delivers"],
    );
    check_all(
        &site(
            "\"smtp\"",
            "[smtp]\nlmtp = \"192.0.2.1:24\"\n[hosts.a.directory]\nservers = [\"192.0.2.1:389\", \"unix:run/ldap.sock\"]",
        ),
        &["9:11 host `a` asks its own ldap-proxy"],
    );
    check_all(&site("\"pop-imap\"", ""), &["4:8 host `a` asks its own ldap-proxy"]);
    check(
        "[pop-imap]\nlisten-lmtp = []",
        "0:8 host `a` delivers to unix:run/lmtp.sock, where its pop-imap does not listen…",
    );
    check(
        "[ldap-proxy]\nlisten = [\"unix:run/other.sock\"]",
        "0:8 host `a` asks unix:run/ldap.sock, where its ldap-proxy does not listen…",
    );
    check(
        "[directory]\nservers = [\"127.0.0.1:389\"]\n[ldap-proxy]\nlisten = [\"127.0.0.1:389\"]",
        "4:10 ldap-proxy has no unix socket, over which its first administrator is made and `fife user` comes…",
    );
    check("[directory]\ntls = \"start-tls\"", "2:7 `tls` without `tls-ca` in [directory]: nobody would be trusted…");
    check("[directory]\nservers = []", "2:11 host `a` has no directory to ask who a user is…");
    check(
        "[smtp]\nlisten = []\nlisten-submission = []\nlisten-submissions = []",
        "2:10 role `smtp` of host `a` has nothing to listen on",
    );
    check("[tls]\ncertificate = \"x\"", "2:15 `certificate` without `key` in [tls]; expected both, or neither");
    check("[tls]\nkey = \"x\"", "2:7 `key` without `certificate` in [tls]; expected both, or neither");
    check("[directory]\nbind-dn = \"cn=a\"", "2:11 `bind-dn` without `bind-password` in [directory]");
    check("[directory]\nbind-password = \"x\"", "2:17 `bind-password` without `bind-dn` in [directory]");
    check(
        "[smtp]\nmessage-size-max = \"60 MiB\"",
        "2:20 host `a` accepts messages of 60 MiB that its pop-imap refuses…",
    );
    check(
        "[pop-imap]\nmessage-size-max = \"40 MiB\"",
        "2:20 host `a` accepts messages of 50 MiB that its pop-imap refuses…",
    );
    check("roles = [\"smtp\"]", "1:1 duplicate key…");
    check_all(&site("\"ldap-proxy\", \"ldap-proxy\"", ""), &["5:24 role `ldap-proxy` is given twice"]);
    // Elsewhere is good: Dovecot by an absolute path, another host by TCP.
    for lmtp in ["unix:/run/dovecot/lmtp", "192.0.2.1:24"] {
        let text = site("\"smtp\", \"ldap-proxy\"", &format!("[smtp]\nlmtp = \"{lmtp}\""));
        assert!(load(&text).is_ok(), "{lmtp}");
    }
    assert!(load(&site("\"ldap-proxy\"", "")).is_ok());
}

#[test]
fn two_listeners_of_a_host_cannot_share_an_address() {
    let clash = |a: &str, b: &str| {
        load(&format!("{SITE}{HOST}[smtp]\nlisten = [\"{a}\"]\nlisten-submission = [\"{b}\"]\n")).is_err()
    };
    for (a, b, expected) in [
        ("0.0.0.0:25", "0.0.0.0:25", true),
        ("0.0.0.0:25", "[::]:25", true), // [::] takes IPv4 too
        ("127.0.0.1:25", "[::]:25", true),
        ("[::1]:25", "[::]:25", true),
        ("127.0.0.1:25", "0.0.0.0:25", true),
        ("[::1]:25", "0.0.0.0:25", false),
        ("[::ffff:127.0.0.1]:25", "127.0.0.1:25", true),
        ("127.0.0.1:25", "127.0.0.2:25", false),
        ("127.0.0.1:25", "127.0.0.1:26", false),
        ("127.0.0.1:0", "127.0.0.1:0", false), // any free port, each its own
        ("unix:run/a.sock", "unix:run/a.sock", true),
        ("unix:run/a.sock", "unix:run/b.sock", false),
        ("127.0.0.1:995", "127.0.0.1:26", true), // pop3s, by default
    ] {
        assert_eq!(clash(a, b), expected, "{a} {b}");
    }
    check(
        "[smtp]\nlisten = [\"0.0.0.0:2525\", \"[::]:2525\"]",
        "2:10 two listeners of host `a` on one address: 0.0.0.0:2525 and [::]:2525, from [smtp] listen and [smtp] listen",
    );
    check(
        "[metrics]\nlisten = [\"127.0.0.1:143\"]",
        "2:10 two listeners of host `a` on one address: [::]:143 and 127.0.0.1:143, from [pop-imap] listen-imap and [metrics] listen",
    );
}

#[test]
fn two_hosts_cannot_share_what_is_one_machines() {
    let two = |a: &str, b: &str, more: &str| {
        let roles = "roles = [\"ldap-proxy\", \"pop-imap\", \"smtp\"]";
        format!("{SITE}secret = \"0123456789abcdef\"\n[hosts.a]\n{roles}\n{a}\n[hosts.b]\n{roles}\n{b}\n{more}\n")
    };
    let mac = "match = { mac = \"52:54:00:00:00:01\" }";
    check_all(&two(mac, mac, ""), &["10:9 hosts `a` and `b` match the same machine"]);
    let serial = "match = { serial = \"X\" }";
    check_all(&two(serial, "match = { serial = \"X\", hostname = \"y\" }", ""), &["10:9 hosts `a` and `b` match"]);
    let addresses = "addresses = [\"192.0.2.1\", \"mail.example.test\"]";
    check_all(
        &two(addresses, "addresses = [\"192.0.2.2\", \"MAIL.example.test\"]", ""),
        &["10:13 hosts `a` and `b` have one address: mail.example.test"],
    );
    check_all(
        &two(addresses, "addresses = [\"::ffff:192.0.2.1\"]", ""),
        &["10:13 hosts `a` and `b` have one address: 192.0.2.1"],
    );
    check_all(
        &two("", "", "[smtp]\nlisten = [\"192.0.2.1:25\"]"),
        &["12:10 hosts `a` and `b` listen on one address: 192.0.2.1"],
    );
    check_all(
        &two("addresses = [\"192.0.2.1\"]", "", "[hosts.b.smtp]\nlisten = [\"192.0.2.1:25\"]"),
        &["12:10 host `b` listens on the address of host `a`: 192.0.2.1"],
    );
    assert!(load(&two("", "", "[smtp]\nlisten = [\"127.0.0.1:25\"]")).is_ok(), "every machine has its own loopback");
    assert!(
        load(&two(
            mac,
            serial,
            "[hosts.a.smtp]\nlisten = [\"192.0.2.1:25\"]\n[hosts.b.smtp]\nlisten = [\"192.0.2.2:25\"]"
        ))
        .is_ok()
    );
    let no_secret = two("", "", "").replace("secret = \"0123456789abcdef\"\n", "");
    check_all(&no_secret, &["1:2 `secret` is missing in [site]: the site has more than one host"]);
}

#[test]
fn syntax_faults_have_a_place_too() {
    check("[smtp", "1:6 …");
    check("[smtp]\nhops-max 60", "2:…");
    check("[smtp]\nhops-max = ", "2:…");
    check("[smtp]\nlisten = [\"a\"", "2:10 unclosed array…"); // where it begins, not where the file ends
    check("[smtp]\nhostname = \"a.test", "2:…");
    check("[smtp]\nhops-max = 60\nhops-max = 70", "3:1 duplicate key…");
    check("[smtp]\n[smtp]", "2:…");
    check("[smtp]\nhops-max = 60 70", "2:…");
    check("\0", "1:2 key with no value…");
    let deep = format!("[smtp]\nlisten = {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(load(&format!("{SITE}{HOST}{deep}\n")).is_err());
}

#[test]
fn every_fault_is_told_at_once_in_the_order_of_the_file() {
    let text = r#"[site]
name = "s,"
[hosts.a]
roles = ["smpt"]
[smtp]
listen = "0.0.0.0:25"
hops-max = 4
idle_timeout = "5m"
message-size-max = "lots"
[pop-imap]
login-timeout =
free-space-min = [
[tsl]
"#;
    // Lines that are no TOML are told, and what is behind them is looked at all the same.
    check_all(
        text,
        &[
            "2:8 wrong value for `name`",
            "4:10 wrong value for `roles`: \"smpt\"",
            "6:10 `listen` is \"0.0.0.0:25\"",
            "7:12 `hops-max` is out of range",
            "8:1 unknown key `idle_timeout`",
            "9:20 wrong value for `message-size-max`",
            "11:",
            "12:18 unclosed array",
            "13:2 unknown table `tsl`",
        ],
    );
}

#[test]
fn a_fault_is_drawn_with_its_line() {
    let text = format!("{SITE}{HOST}[smtp]\nhop-max = 60\n");
    let expected = "error: unknown key `hop-max` in `smtp`
 --> site.toml:7:1
  |
7 | hop-max = 60
  | ^^^^^^^ expected a key of `smtp`
  |
  = help: did you mean `hops-max`?

site.toml: 1 fault";
    assert_eq!(faults(&text).render(false), expected);
    assert!(faults(&text).render(true).contains('\u{1b}'), "colours on a terminal");
    let json = faults(&text).to_json();
    let fault = &json["faults"][0];
    assert_eq!((&fault["line"], &fault["column"], &fault["text"]), (&7.into(), &1.into(), &"hop-max = 60".into()));
}

#[test]
fn columns_are_counted_in_characters() {
    check("[smtp]\nhostname = \"例子.test\" # 例\nlmtp = \"例\"", "3:8 wrong value for `lmtp`: \"例\"…");
    check("match = { hostname = \"例例例\", mac = \"x\" }", "1:35 wrong value for `mac`…");
}

#[test]
fn a_file_from_notepad_is_good() {
    let text = format!("\u{feff}{SITE}{HOST}[smtp]\nhops-max = 60\n").replace('\n', "\r\n");
    assert_eq!(load(&text).unwrap().effective("a").unwrap().tables.smtp.hops_max, 60);
}
