//! The supervisor from outside: roles come back, reloads touch what they must, stopping ends, roles have no rights.
//!
//! Owns: what `fife run|status|reload|stop` promise. Called by: `cargo test`. Checked with: curl, strace, Python's pty, /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::harness::{DEADLINE, FIFE, Site, good, python, run, text, wait_for};

const ROLES: [&str; 3] = ["ldap-proxy", "pop-imap", "smtp"];

fn pids(site: &Site) -> BTreeMap<&'static str, Pid> {
    ROLES.into_iter().map(|role| (role, site.role_pid(role).unwrap_or_else(|| panic!("{role} is down")))).collect()
}

/// The first line that the server at `address` says.
fn greeting(stream: TcpStream) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn is_gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Changes the TOML of a site.
fn edit(site: &Site, from: &str, to: &str) {
    let toml = std::fs::read_to_string(site.config()).unwrap();
    assert!(toml.contains(from), "{from} is not in\n{toml}");
    std::fs::write(site.config(), toml.replace(from, to)).unwrap();
}

fn state_of(site: &Site, role: &str) -> (String, String) {
    let status = site.status();
    let entry = status["roles"].as_array().unwrap().iter().find(|entry| entry["role"] == role).unwrap().clone();
    let word = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    (word("state"), word("reason"))
}

#[test]
fn a_killed_role_comes_back_and_clients_wait_meanwhile() {
    let site = Site::start();
    let others = pids(&site);
    // The first death is answered at once, the second after a second: time for a client to come in between.
    let first = site.kill_role("pop-imap");
    wait_for("a new pop-imap", || site.role_pid("pop-imap").is_some_and(|pid| pid != first), || site.log_tail());
    let mut deaths = 1;
    let last = loop {
        let killed = site.kill_role("pop-imap");
        deaths += 1;
        // On a busy machine the wait may be over before it is seen; the next one is longer.
        let mut state = String::new();
        let ended = || {
            state = state_of(&site, "pop-imap").0;
            state == "backoff" || site.role_pid("pop-imap").is_some_and(|pid| pid != killed)
        };
        wait_for("the backoff, or its end", ended, || site.log_tail());
        if state == "backoff" {
            break killed;
        }
    };
    let waiting = TcpStream::connect(site.addr("pop3")).expect("the supervisor still listens");
    assert!(greeting(waiting).starts_with("+OK"));
    site.wait_healthy();
    let now = pids(&site);
    assert!(now["pop-imap"] != last && now["pop-imap"] != first);
    assert_eq!((now["smtp"], now["ldap-proxy"]), (others["smtp"], others["ldap-proxy"]), "nobody else was touched");
    let restarts = |role| {
        let status = site.status();
        let entry = status["roles"].as_array().unwrap().iter().find(|entry| entry["role"] == role).unwrap().clone();
        entry["restarts"].as_u64().unwrap()
    };
    assert_eq!((restarts("pop-imap"), restarts("smtp")), (deaths, 0));
}

#[test]
fn a_broken_file_is_told_and_what_runs_runs_on() {
    let site = Site::start();
    let before = pids(&site);
    edit(&site, "[hosts.demo.metrics]", "[hosts.demo.metrix]");
    let output = site.fife(&["reload"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("metrix") && text(&output).contains("fife.toml"), "{}", text(&output));
    kill(site.pid(), Signal::SIGHUP).unwrap();
    wait_for("SIGHUP's reload", || site.log().matches("reload refused").count() == 2, || site.log_tail());
    assert_eq!(pids(&site), before);
    assert!(greeting(TcpStream::connect(site.addr("smtp")).unwrap()).starts_with("220 "));
    edit(&site, "[hosts.demo.metrix]", "[hosts.demo.metrics]");
    // Nor does a host become another one while it runs.
    edit(&site, "hosts.demo", "hosts.other");
    let output = site.fife(&["reload"]);
    assert!(text(&output).contains("would be another host, other"), "{}", text(&output));
    assert_eq!(pids(&site), before);
    edit(&site, "hosts.other", "hosts.demo");
    // An address that cannot be had is a fault as well, and none of the rest is done either.
    edit(&site, "[hosts.demo.pop-imap]", "[hosts.demo.pop-imap]\nconnections-max = 7");
    let pop3 = format!("\"{}\"", site.at("pop3"));
    edit(&site, &pop3, &format!("{pop3}, \"192.0.2.1:110\""));
    let output = site.fife(&["reload"]);
    assert!(text(&output).contains("cannot listen on 192.0.2.1:110"), "{}", text(&output));
    assert_eq!(pids(&site), before);
}

#[test]
fn a_reload_onto_an_occupied_address_changes_nothing_until_it_is_free() {
    let site = Site::start();
    let before = pids(&site);
    let more = format!("{}:2526", site.ip());
    let other = std::net::TcpListener::bind(&more).unwrap();
    let smtp = format!("\"{}\"", site.at("smtp"));
    edit(&site, &smtp, &format!("{smtp}, \"{more}\""));
    // Of another role, on an address that could be had.
    let free = format!("{}:2111", site.ip());
    edit(&site, &format!("[\"{}\"]", site.at("pop3")), &format!("[\"{free}\"]"));
    for _ in 0..2 {
        let output = site.fife(&["reload"]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(&format!("cannot listen on {more}: ")), "{}", text(&output));
        assert!(text(&output).contains("another program listens there"), "{}", text(&output));
    }
    assert_eq!(pids(&site), before, "what runs, runs on");
    for service in ["smtp", "pop3"] {
        assert!(!greeting(TcpStream::connect(site.addr(service)).unwrap()).is_empty(), "{service}");
    }
    TcpStream::connect(&free).expect_err("nothing of the change is done");
    drop(other);
    // A process that a test next door has just forked may hold it for a moment.
    let mut told = String::new();
    let reloaded = || {
        let output = site.fife(&["reload"]);
        told = text(&output);
        output.status.success()
    };
    wait_for("a reload on the free address", reloaded, || site.log_tail());
    assert!(told.contains("pop-imap") && told.contains("smtp"), "{told}");
    assert!(greeting(TcpStream::connect(&more).unwrap()).starts_with("220 "));
    assert!(greeting(TcpStream::connect(&free).unwrap()).starts_with("+OK"));
    TcpStream::connect(site.addr("pop3")).expect_err("closed");
    assert_eq!(pids(&site)["ldap-proxy"], before["ldap-proxy"]);
}

#[test]
fn a_reload_restarts_only_the_role_that_it_concerns() {
    let site = Site::start();
    let before = pids(&site);
    let unchanged = site.fife(&["reload", "--json"]);
    assert_eq!(good(&unchanged).matches('"').count(), 8, "no role is named: {}", text(&unchanged));
    let more = format!("{}:2526", site.ip());
    edit(
        &site,
        &format!("listen = [\"{}\"]", site.at("smtp")),
        &format!("listen = [\"{}\", \"{more}\"]", site.at("smtp")),
    );
    let output = site.fife(&["reload"]);
    assert_eq!(good(&output).trim(), "restarted: smtp");
    let after = pids(&site);
    assert!(after["smtp"] != before["smtp"]);
    assert_eq!((after["pop-imap"], after["ldap-proxy"]), (before["pop-imap"], before["ldap-proxy"]));
    // It was answered when the role served, on the new address too.
    assert!(greeting(TcpStream::connect(&more).unwrap()).starts_with("220 "));
    assert!(greeting(TcpStream::connect(site.addr("smtp")).unwrap()).starts_with("220 "));
    // The host's own listener concerns no role.
    let elsewhere = format!("{}:2091", site.ip());
    edit(&site, &site.at("metrics"), &elsewhere);
    assert_eq!(good(&site.fife(&["reload"])).trim(), "no role is affected");
    assert_eq!(pids(&site), after);
    let health = run("curl", &["--silent", "--fail", &format!("http://{elsewhere}/health")], b"");
    assert!(good(&health).contains(r#""health":"good""#), "{}", text(&health));
    TcpStream::connect(site.addr("metrics")).expect_err("closed");
    // A role that is taken out stops, and its sockets are closed.
    edit(&site, "\"pop-imap\", \"smtp\"]", "\"pop-imap\"]");
    assert_eq!(good(&site.fife(&["reload"])).trim(), "stopped: smtp");
    wait_for("smtp to be gone", || is_gone(after["smtp"]), || site.log_tail());
    TcpStream::connect(site.addr("smtp")).expect_err("closed");
    edit(&site, "\"pop-imap\"]", "\"pop-imap\", \"smtp\"]");
    assert_eq!(good(&site.fife(&["reload"])).trim(), "started: smtp");
    assert!(greeting(TcpStream::connect(site.addr("smtp")).unwrap()).starts_with("220 "));
}

#[test]
fn stopping_ends_everything_also_with_clients_that_stay() {
    let mut site = Site::start();
    let roles = pids(&site);
    // Clients that have said nothing, and one that is in the middle of a message.
    let idle: Vec<TcpStream> =
        ["imap", "pop3", "ldap"].into_iter().map(|service| TcpStream::connect(site.addr(service)).unwrap()).collect();
    let mut talking = TcpStream::connect(site.addr("smtp")).unwrap();
    talking.write_all(b"EHLO client.example.org\r\nMAIL FROM:<a@example.org>\r\n").unwrap();
    assert!(site.stop(), "{}", site.log_tail());
    assert!(roles.values().all(|pid| is_gone(*pid)), "no role is left behind");
    assert_eq!(site.log().matches("did not end in time").count(), 0, "{}", site.log());
    // Each may need those before it to finish what is in hand.
    let log = site.log();
    let order: Vec<&str> = log
        .lines()
        .filter_map(|line| ROLES.into_iter().find(|role| line.contains(&format!("\"stopped\":\"{role}\""))))
        .collect();
    assert_eq!(order, ["smtp", "pop-imap", "ldap-proxy"]);
    drop((idle, talking));
    let output = site.fife(&["status"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    // The same by command; it returns when all is over.
    site.launch();
    let roles = pids(&site);
    good(&site.fife(&["stop"]));
    assert!(roles.values().all(|pid| is_gone(*pid)), "no role is left behind");
    assert_eq!(site.fife(&["reload"]).status.code(), Some(3));
}

/// Nobody asks twice: the thirty seconds are waited out.
#[test]
fn a_role_that_does_not_end_is_killed_when_its_time_is_over() {
    let mut site = Site::start();
    let roles = pids(&site);
    kill(roles["smtp"], Signal::SIGSTOP).unwrap();
    kill(site.pid(), Signal::SIGTERM).unwrap();
    wait_for("smtp to be killed", || site.log().contains("did not end in time"), || site.log_tail());
    wait_for("the roles to be gone", || roles.values().all(|pid| is_gone(*pid)), || site.log_tail());
    assert_eq!(site.log().matches("\"stopping\"").count(), 1, "{}", site.log_tail());
    assert!(site.stop(), "{}", site.log_tail());
}

/// Asked a second time, it waits no longer; a role that cannot end is killed, as it is when its time is over.
#[test]
fn a_role_that_does_not_end_is_killed() {
    let mut site = Site::start();
    let roles = pids(&site);
    kill(roles["smtp"], Signal::SIGSTOP).unwrap();
    kill(site.pid(), Signal::SIGTERM).unwrap();
    wait_for("the stop to begin", || site.log().contains("stopping"), || site.log_tail());
    assert!(
        !is_gone(roles["smtp"]) && !is_gone(roles["pop-imap"]),
        "smtp has its time, and those before it wait for it"
    );
    assert!(site.stop(), "{}", site.log_tail());
    assert!(site.log().contains("did not end in time"), "{}", site.log_tail());
    assert!(site.log().contains("\"patience_secs\":0"), "at once: {}", site.log_tail());
    assert!(roles.values().all(|pid| is_gone(*pid)), "no role is left behind");
}

#[test]
fn clients_that_hang_in_a_handshake_do_not_delay_the_stop_of_smtp() {
    let site = Site::start();
    let silent = TcpStream::connect(site.addr("submissions")).unwrap();
    let mut begun = TcpStream::connect(site.addr("smtp")).unwrap();
    begun.write_all(b"EHLO client.example.org\r\nSTARTTLS\r\n").unwrap();
    let mut said = BufReader::new(begun.try_clone().unwrap());
    let mut line = String::new();
    while !line.contains("ready to start TLS") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "STARTTLS is taken");
    }
    // Half a ClientHello, and never more.
    begun.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    let smtp = pids(&site)["smtp"];
    kill(smtp, Signal::SIGTERM).unwrap();
    wait_for("smtp to be gone", || is_gone(smtp), || site.log_tail());
    let ended = site.log().lines().rfind(|line| line.contains("role is started again")).unwrap_or_default().to_owned();
    assert!(ended.contains("exit status: 0"), "{ended}");
    drop((silent, begun));
}

#[test]
fn a_killed_supervisor_takes_its_roles_with_it() {
    let mut site = Site::start();
    let roles = pids(&site);
    kill(site.pid(), Signal::SIGKILL).unwrap();
    wait_for("the roles to be gone", || roles.values().all(|pid| is_gone(*pid)), || site.log_tail());
    site.kill_all();
    // What it left lying about is no hindrance: sockets, lock.
    site.launch();
}

#[test]
fn a_second_supervisor_on_the_same_state_is_refused() {
    let site = Site::start();
    let before = pids(&site);
    let output = site.fife(&["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("another `fife run` uses the state directory"), "{}", text(&output));
    assert_eq!(pids(&site), before);
    assert!(site.fife(&["status"]).status.success(), "its control socket is still there");
}

#[test]
fn what_stands_in_the_way_of_a_start_is_told_at_once() {
    let site = Site::prepare("");
    let takers: Vec<std::net::TcpListener> =
        ["smtp", "imaps"].into_iter().map(|service| std::net::TcpListener::bind(site.addr(service)).unwrap()).collect();
    let output = site.fife(&["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for service in ["smtp", "imaps"] {
        assert!(text(&output).contains(&format!("cannot listen on {}", site.at(service))), "{}", text(&output));
    }
    drop(takers);
    let broken = Site::prepare("[smpt]\nlisten = []");
    let output = broken.fife(&["run"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(!broken.state().exists(), "a mistyped file leaves nothing behind");
}

#[test]
fn the_status_tells_what_is_so() {
    let site = Site::start();
    let status = site.status();
    assert_eq!((status["host"].as_str(), status["good"].as_bool()), (Some("demo"), Some(true)), "{status}");
    assert_eq!(status["pid"].as_i64(), Some(site.pid().as_raw().into()));
    let roles = status["roles"].as_array().unwrap();
    let names: Vec<_> = roles.iter().map(|role| role["role"].as_str().unwrap()).collect();
    assert_eq!(names, ROLES);
    for role in roles {
        assert!(role["rss_bytes"].as_u64().unwrap() > 1 << 20, "{role}");
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", role["pid"])).unwrap();
        let cmdline = String::from_utf8(cmdline).unwrap().replace('\0', " ");
        assert!(cmdline.starts_with(&format!("fife role {} ", role["role"].as_str().unwrap())), "{cmdline}");
    }
    let listens: BTreeSet<_> = roles
        .iter()
        .flat_map(|role| role["listeners"].as_array().unwrap())
        .map(|listener| format!("{} {}", listener["service"].as_str().unwrap(), listener["address"].as_str().unwrap()))
        .collect();
    assert!(listens.contains(&format!("imaps {}", site.at("imaps"))), "{listens:?}");
    // A role that is there but says nothing is not good.
    let smtp = site.role_pid("smtp").unwrap();
    kill(smtp, Signal::SIGSTOP).unwrap();
    let output = site.fife(&["status"]);
    kill(smtp, Signal::SIGCONT).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("does not answer"), "{}", text(&output));
    site.wait_healthy();
}

#[test]
fn metrics_of_all_roles_stand_on_one_page() {
    let site = Site::start();
    drop(greeting(TcpStream::connect(site.addr("smtp")).unwrap()));
    let page = good(&run("curl", &["--silent", "--fail", &format!("http://{}/metrics", site.at("metrics"))], b""));
    for role in ROLES {
        assert!(page.contains(&format!("fife_supervisor_role_up{{role=\"{role}\"}} 1\n")), "{role}\n{page}");
        let samples = page.lines().filter(|line| !line.starts_with('#') && line.contains(&format!("role=\"{role}\"")));
        assert!(samples.count() > 4, "{role} has metrics of its own\n{page}");
    }
    let mut types = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            assert!(types.insert(name), "{name} twice");
        } else if !line.starts_with('#') {
            let (series_name, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(series_name), "{series_name} twice");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        }
    }
    let health = run("curl", &["--silent", "--fail", &format!("http://{}/health", site.at("metrics"))], b"");
    assert!(good(&health).contains(r#""health":"good""#));
}

#[test]
fn roles_have_no_rights_and_no_environment() {
    let site = Site::start();
    let mut uids = BTreeSet::new();
    for (role, pid) in pids(&site) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{role}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{role} {set}");
        }
        if !geteuid().is_root() {
            continue; // Roles run as we do, and nobody but root may look further.
        }
        assert_eq!((field("CapBnd:").as_str(), field("Groups:").as_str()), ("0000000000000000", "6100"), "{role}");
        let uid = field("Uid:");
        let own: Vec<&str> = uid.split(' ').collect();
        assert!(own[0] != "0" && own.iter().all(|one| *one == own[0]), "{role}: {uid}");
        assert!(uids.insert(uid), "{role} shares its user");
        assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "{role}");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // Nothing open but what was handed over, its own files, and what the runtime needs.
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default().display().to_string();
            let own = site.state().join(role).display().to_string();
            let known =
                ["socket:", "anon_inode:", "/dev/null", "pipe:", &own, &site.dir().join("log").display().to_string()];
            assert!(known.iter().any(|start| target.starts_with(start)), "{role} has {target}");
        }
        let directory = std::fs::metadata(site.state().join(role)).unwrap();
        assert_eq!(directory.permissions().mode() & 0o777, 0o700, "{role}");
    }
}

#[test]
fn every_role_enters_landlock_before_it_reads_a_byte() {
    let site = Site::prepare("");
    let trace = site.dir().join("trace");
    let (config, state) = (site.config().display().to_string(), site.state().display().to_string());
    let mut strace = std::process::Command::new("timeout")
        .args([
            "--kill-after=5",
            "120",
            "strace",
            "--follow-forks",
            "--quiet=all",
            "--trace=landlock_restrict_self,accept4",
            "--output",
        ])
        .args([&trace.display().to_string(), FIFE, "run", "--config", &config, "--state", &state])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("strace starts");
    site.wait_healthy();
    let roles = pids(&site);
    good(&site.fife(&["stop"]));
    strace.wait().unwrap();
    let trace = std::fs::read_to_string(trace).unwrap();
    for (role, pid) in roles {
        let calls: Vec<&str> = trace.lines().filter(|line| line.starts_with(&format!("{pid} "))).collect();
        let first = calls.first().unwrap_or_else(|| panic!("{role} is not in the trace"));
        assert!(first.contains("landlock_restrict_self"), "{role}: {calls:?}");
        // strace cuts the line of a call in two when another process makes one meanwhile.
        let ended = calls.iter().find(|call| !call.ends_with("<unfinished ...>")).unwrap_or(first);
        assert!(ended.contains("landlock_restrict_self") && ended.ends_with("= 0"), "{role}: {calls:?}");
    }
}

#[test]
fn the_first_administrator_is_made_once() {
    let mut site = Site::start();
    let file = site.state().join("first-admin.txt");
    let told = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let password = told.lines().find_map(|line| line.strip_prefix("password: ")).unwrap().to_owned();
    assert!(told.contains("address: admin@example.test\n"), "{told}");
    assert!(!site.log().contains(&password), "a log is no place for it");
    let login = |site: &Site| {
        let url = format!("imap://{}/", site.at("imap"));
        run("curl", &["--silent", "--user", &format!("admin@example.test:{password}"), &url], b"")
    };
    assert!(good(&login(&site)).contains("INBOX"));
    assert!(site.stop());
    std::fs::remove_file(&file).unwrap();
    site.launch();
    assert!(!file.exists(), "the site has an administrator: none is made again");
    assert!(good(&login(&site)).contains("INBOX"));
}

/// Runs `fife run` on a terminal of its own, prints what it says up to its last line, does what it says, then sends
/// Ctrl-C and prints the exit code.
const ON_A_TERMINAL: &str = r#"
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
told = b""
while b"Stop with Ctrl-C." not in told:
    try:
        told += os.read(fd, 4096)
    except OSError:
        break
sys.stdout.write(told.decode())
sys.stdout.flush()
import subprocess
lines = told.decode().replace("\r\n", "\n").split("\n")
def command(start):
    return next(line.strip() for line in lines if line.strip().startswith(start))
sent = subprocess.run(["sh", "-c", command("swaks ")], stdin=subprocess.DEVNULL, capture_output=True, text=True)
print("SWAKS", sent.returncode, sent.stdout[-300:] if sent.returncode else "")
read = subprocess.run(["sh", "-c", command("curl ")], stdin=subprocess.DEVNULL, capture_output=True, text=True)
print("CURL", read.returncode, read.stdout, read.stderr)
os.write(fd, b"\x03")
try:
    while os.read(fd, 4096):
        pass
except OSError:
    pass
print("EXIT", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
# Once more; this time the terminal is closed.
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
told = b""
while b"Stop with Ctrl-C." not in told:
    told += os.read(fd, 4096)
os.close(fd)
print("HANGUP", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), b"password" in told)
"#;

#[test]
fn the_first_start_on_a_terminal_tells_lines_that_work() {
    let site = Site::prepare("");
    let (config, state) = (site.config().display().to_string(), site.state().display().to_string());
    let output = python(ON_A_TERMINAL, &[FIFE, "run", "--config", &config, "--state", &state]);
    let told = good(&output);
    assert!(told.contains("SWAKS 0") && told.contains("CURL 0") && told.contains("Subject: first mail"), "{told}");
    assert!(told.contains("EXIT 0") && told.contains("HANGUP 0 False"), "{told}");
    let kept = std::fs::read_to_string(site.state().join("first-admin.txt")).unwrap();
    let password = kept.lines().find_map(|line| line.strip_prefix("password: ")).unwrap();
    assert!(told.contains(&format!("password  {password}")), "{told}");
    // Lines for people, as this is a terminal.
    assert!(told.contains("level=info role=supervisor host=demo msg=\"role serves\""), "{told}");
}

#[test]
fn the_control_socket_is_bounded() {
    let site = Site::start();
    let path = site.state().join("run/control.sock");
    let ask = |bytes: &[u8]| {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(bytes).ok();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap_or_default();
        answer
    };
    assert!(ask(b"{\"command\":\"destroy\"}\n").contains("refused"));
    assert!(ask(b"\xff\x00\n").contains("refused"));
    assert!(ask(&b"[".repeat(4096)).contains("refused"), "a nesting or length without end");
    assert!(ask(b"{\"command\":\"status\"}\n").contains("\"status\""));
    // Connections that say nothing hold up nobody for long.
    let silent: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
    assert!(site.fife(&["status"]).status.success());
    drop(silent);
    if geteuid().is_root() {
        let to = format!("UNIX-CONNECT:{}", path.display());
        let stranger = ["--reuid=65534", "--regid=65534", "--clear-groups", "socat", "-u", "OPEN:/dev/null", &to];
        let output = run("setpriv", &stranger, b"");
        assert!(text(&output).contains("Permission denied"), "{}", text(&output));
    }
}

#[test]
fn without_root_all_of_it_runs_under_the_user_that_started_it() {
    const USER: u32 = 65_534;
    if !geteuid().is_root() {
        return; // Then every other test shows it.
    }
    let site = Site::prepare("");
    std::os::unix::fs::chown(site.dir(), Some(USER), Some(USER)).unwrap();
    // The path to the built binary may be closed to others.
    let binary = site.dir().join("fife");
    std::fs::copy(FIFE, &binary).unwrap();
    let (config, state) = (site.config().display().to_string(), site.state().display().to_string());
    let mut fife = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=KILL"])
        .args([&binary.display().to_string(), "run", "--config", &config, "--state", &state])
        .stderr(std::fs::File::create(site.dir().join("log")).unwrap())
        .spawn()
        .expect("setpriv starts");
    site.wait_healthy();
    for (role, pid) in pids(&site) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in ["Uid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            assert!(status.lines().any(|one| one == line), "{role}: no {line} in\n{status}");
        }
    }
    assert!(greeting(TcpStream::connect(site.addr("pop3")).unwrap()).starts_with("+OK"));
    let health = run("curl", &["--silent", "--fail", &format!("http://{}/health", site.at("metrics"))], b"");
    assert!(good(&health).contains(r#""health":"good""#));
    good(&site.fife(&["stop"]));
    assert!(fife.wait().unwrap().success(), "{}", site.log_tail());
}

#[test]
fn root_runs_it_in_a_directory_that_is_closed_to_others() {
    if !geteuid().is_root() {
        return; // Roles run as we do then, and reach what we reach.
    }
    let mut site = Site::prepare("");
    std::fs::set_permissions(site.dir(), PermissionsExt::from_mode(0o700)).unwrap();
    site.spawn();
    wait_for(
        "health, or a refusal that names the directory",
        || site.fife(&["status"]).status.success() || site.log().contains("has mode 700"),
        || site.log_tail(),
    );
    if site.log().contains("has mode 700") {
        return; // Root without the right to mount, as in a container.
    }
    site.user("u1", "a long enough password");
    let url = format!("imap://{}/", site.at("imap"));
    assert!(
        good(&run("curl", &["--silent", "--user", "u1@example.test:a long enough password", &url], b""))
            .contains("INBOX")
    );
    for (role, pid) in pids(&site) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1") && !status.contains("Uid:\t0"), "{role}: {status}");
    }
    assert!(!std::path::Path::new("/mnt/run/ldap.sock").exists(), "nobody else sees what roles see");
}
