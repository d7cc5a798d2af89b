//! DNS to test against: Debian's nsd, authoritative for everything.
//!
//! Owns: writing zones, starting and stopping nsd. Called by: tests that need names.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::harness::{run, wait_for};

/// A running server; killed and removed when dropped.
pub struct Nsd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Nsd {
    /// Answers at this address with these lines of a zone file, names from the root (`example.test. TXT "…"`). Names in `broken` and below them get
    /// SERVFAIL.
    pub fn start(at: SocketAddr, records: &str, broken: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("nsd").tempdir_in("/tmp").unwrap();
        let own = dir.path().display();
        let mut config = format!(
            "server:\n ip-address: {}@{}\n username: \"\"\n database: \"\"\n zonesdir: \"{own}\"\n pidfile: \"{own}/pid\"\n \
             zonelistfile: \"{own}/list\"\n xfrdfile: \"{own}/xfrd\"\n xfrdir: \"{own}\"\n server-count: 1\n reuseport: no\n \
             rrl-ratelimit: 0\n logfile: \"{own}/log\"\n\
             remote-control:\n control-enable: no\nzone:\n name: \".\"\n zonefile: \"root\"\n",
            at.ip(),
            at.port()
        );
        for name in broken {
            // A zone whose file is missing is one that the server cannot answer for.
            config += &format!("zone:\n name: \"{name}\"\n zonefile: \"missing.{name}\"\n");
        }
        let zone = format!(
            "$ORIGIN .\n$TTL 60\n@ SOA ns.test. root.test. 1 3600 600 86400 60\n@ NS ns.test.\nns.test. A {}\n{records}\n",
            at.ip()
        );
        std::fs::write(dir.path().join("root"), zone).unwrap();
        std::fs::write(dir.path().join("conf"), config).unwrap();
        let conf = dir.path().join("conf");
        let child = Command::new("/usr/sbin/nsd")
            .arg("-d")
            .arg("-c")
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsd starts");
        let nsd = Self { dir, child };
        let (ip, port) = (at.ip().to_string(), at.port().to_string());
        let asks = "import sys, dns.message, dns.query\n\
                    answer = dns.query.udp(dns.message.make_query('ns.test.', 'A'), sys.argv[1], port=int(sys.argv[2]), timeout=1)\n\
                    sys.exit(not answer.answer)";
        let answers = || run("/usr/bin/python3", &["-c", asks, &ip, &port], b"").status.success();
        wait_for("nsd to answer", answers, || nsd.log());
        nsd
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // SIGTERM, so that nsd stops its children; it has nothing to lose.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- log of nsd:\n{}", self.log());
        }
    }
}

/// A TXT record of any length.
pub fn txt(name: &str, text: &str) -> String {
    let octets: Vec<String> = text
        .bytes()
        .map(
            |octet| if octet.is_ascii_alphanumeric() { char::from(octet).to_string() } else { format!("\\{octet:03}") },
        )
        .collect();
    let strings: Vec<String> = octets.chunks(255).map(|chunk| format!("\"{}\"", chunk.concat())).collect();
    format!("{}. TXT {}\n", name.trim_end_matches('.'), strings.join(" "))
}
