//! Servers in the directory's place that send what no directory sends: the roles that ask them refuse it, in bounded memory and time.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::openldap::make_certificates;
use crate::harness::{Site, python, text, wait_for};

/// What pop-imap may occupy while it is sent gigabytes.
const RSS_BYTES_MAX: u64 = 300 << 20;

/// `impostor.py` at work.
struct Impostor {
    child: Child,
    mode: PathBuf,
    dir: tempfile::TempDir,
}

impl Impostor {
    fn start(ip: &str, port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_certificates(dir.path());
        std::fs::write(dir.path().join("script"), include_str!("impostor.py")).unwrap();
        let (mode, told) = (dir.path().join("mode"), dir.path().join("told"));
        let child = Command::new("python3")
            .arg(dir.path().join("script"))
            .args([ip, &port.to_string()])
            .args([&mode, &dir.path().join("cert.pem"), &dir.path().join("key.pem")])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&told).unwrap())
            .spawn()
            .unwrap();
        let impostor = Self { child, mode, dir };
        wait_for("the impostor", || impostor.handshakes("ready") == 1, String::new);
        impostor
    }

    /// How it answers from now on.
    fn become_one(&self, mode: &str) {
        std::fs::write(&self.mode, mode).unwrap();
    }

    /// How often it has told this.
    fn handshakes(&self, line: &str) -> usize {
        let told = std::fs::File::open(self.dir.path().join("told")).unwrap();
        BufReader::new(told).lines().map_while(Result::ok).filter(|told| told == line).count()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn what_a_false_directory_sends_is_refused_in_bounded_memory_and_time() {
    let mut site = Site::prepare("");
    let impostor = Impostor::start(&site.ip(), 2388);
    let directory = format!(
        "[directory]\nservers = [\"{}:2388\"]\ntls = \"start-tls\"\ntls-ca = {{ file = \"{}\" }}\ntls-name = \"ldap.school.test\"\ntimeout = \"2s\"\ncache-lifetime = \"0s\"\n",
        site.ip(),
        impostor.dir.path().join("ca.pem").display()
    );
    let toml = std::fs::read_to_string(site.config()).unwrap();
    let toml = toml.replace(r#"["ldap-proxy", "pop-imap", "smtp"]"#, r#"["pop-imap"]"#);
    std::fs::write(site.config(), format!("{toml}\n{directory}")).unwrap();
    site.launch();
    let pid = site.role_pid("pop-imap").unwrap();
    // A recipient is asked for.
    let rcpt = || {
        let script = r#"
import smtplib, sys
with smtplib.LMTP(sys.argv[1], int(sys.argv[2]), timeout=60) as server:
    server.ehlo_or_helo_if_needed(); server.mail("a@b.test"); print(server.rcpt("u1@example.test"))
"#;
        text(&python(script, &[&site.ip(), &site.port("lmtp")]))
    };
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let good = || {
        impostor.become_one("good");
        // That domain is nobody's here: a permanent refusal, which only an answer can bring.
        wait_for("a good directory to be believed again", || rcpt().contains("(550"), || site.log_tail());
    };
    good();
    for mode in ["indefinite", "huge", "deep", "many", "endless", "strangers", "wrong", "malformed", "drip", "inject"] {
        impostor.become_one(mode);
        // Who injects meets new connections only; the client still has some.
        let met = || {
            let said = rcpt();
            assert!(said.contains("(451") || said.contains("(550"), "{mode}: {said}");
            said.contains("(451")
        };
        wait_for(mode, met, || site.log_tail());
        assert!(peak() < RSS_BYTES_MAX, "{mode}: {} octets", peak());
    }
    assert_eq!(impostor.handshakes("handshake inject"), 0, "nothing is said to whom injects");
    assert!(site.log().contains("octets in the clear behind the answer to StartTLS"), "{}", site.log_tail());
    good();
    assert_eq!(site.role_pid("pop-imap"), Some(pid), "the same process");
}
