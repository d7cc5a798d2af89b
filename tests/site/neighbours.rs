//! Other sites: DNS, and servers that take mail.
//!
//! Owns: starting and ending them, each on addresses of the site that it belongs to. Called by: `outbound`, `queue`.
//! Never: leaves anything running.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::harness::{Site, good, run, wait_for};

/// The port at which other sites take mail in these tests.
pub const MX_PORT: u16 = 3525;
const DNS_PORT: u16 = 5353;

/// What every site in these tests has beside the usual.
pub fn toml(ip: &str, more: &str) -> String {
    format!(
        "[dns]\nservers = [\"{ip}:{DNS_PORT}\"]\ntimeout = \"2s\"\n[smtp]\nretry-after = [\"1s\"]\n[smtp-outbound]\nport = {MX_PORT}\n{more}\n"
    )
}

/// A site that finds others by its own DNS; not started yet. The zone is `test.`; `{n}` in it is the n-th neighbour's address.
pub fn site(zone: &str, more: &str) -> (Site, Program) {
    let site = Site::prepare("");
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("{text}\n{}", toml(&site.ip(), more))).unwrap();
    let dns = dns(&site, zone);
    (site, dns)
}

/// The address of the n-th neighbour.
pub fn address(site: &Site, nth: u8) -> String {
    let ip = site.ip();
    let mut octets = ip.split('.').skip(2);
    format!("127.{}.{}.{}", 252 + nth, octets.next().unwrap(), octets.next().unwrap())
}

/// A program that is killed when dropped.
pub struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().unwrap();
    }
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// nsd with this zone.
fn dns(site: &Site, zone: &str) -> Program {
    let dir = site.dir().join("dns");
    std::fs::create_dir_all(&dir).unwrap();
    let (ip, dir_name) = (site.ip(), dir.display());
    let mut records = zone.to_owned();
    for nth in 0..3 {
        records = records.replace(&format!("{{{nth}}}"), &address(site, nth));
    }
    let start_of_zone = "$ORIGIN test.\n$TTL 60\n@ SOA ns.test. x.test. 1 60 60 60 1\n@ NS ns.test.\nns A 127.0.0.1\n";
    std::fs::write(dir.join("zone"), format!("{start_of_zone}{records}\n")).unwrap();
    let conf = format!(
        "server:\n ip-address: {ip}@{DNS_PORT}\n zonesdir: \"{dir_name}\"\n username: \"\"\n chroot: \"\"\n pidfile: \"{dir_name}/pid\"\n zonelistfile: \"{dir_name}/zones\"\n xfrdfile: \"{dir_name}/xfrd\"\n xfrdir: \"{dir_name}\"\n cookie-secret-file: \"{dir_name}/cookie\"\n database: \"\"\n server-count: 1\n reuseport: no\nremote-control:\n control-enable: no\nzone:\n name: \"test.\"\n zonefile: \"zone\"\n"
    );
    std::fs::write(dir.join("conf"), conf).unwrap();
    let child = start(Command::new("nsd").args(["-d", "-c"]).arg(dir.join("conf")));
    let asked = || {
        let script = "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.settimeout(1)\ns.sendto(bytes.fromhex('12340000000100000000000004746573740000060001'),(sys.argv[1],int(sys.argv[2])))\ns.recv(512)";
        run("python3", &["-c", script, &ip, &DNS_PORT.to_string()], b"").status.success()
    };
    wait_for("nsd to answer", asked, String::new);
    Program(child)
}

/// `receiver.py` at the n-th neighbour's address.
pub struct Receiver {
    _program: Program,
    file: PathBuf,
}

impl Receiver {
    /// With these extensions.
    pub fn start(site: &Site, nth: u8, extensions: &[&str]) -> Self {
        Self::start_at(site, &address(site, nth), MX_PORT, extensions)
    }

    /// At any address.
    pub fn start_at(site: &Site, ip: &str, port: u16, extensions: &[&str]) -> Self {
        let script = site.dir().join("receiver.py");
        std::fs::write(&script, include_str!("receiver.py")).unwrap();
        let file = site.dir().join(format!("received.{ip}"));
        let child =
            start(Command::new("python3").arg(&script).args([ip, &port.to_string()]).arg(&file).args(extensions));
        let program = Program(child);
        let open = || std::net::TcpStream::connect((ip, port)).is_ok();
        wait_for("the receiver to listen", open, String::new);
        Self { _program: program, file }
    }

    /// What it took.
    pub fn received(&self) -> Vec<serde_json::Value> {
        received(&self.file)
    }

    /// Waits until it has taken so many.
    pub fn wait(&self, count: usize, site: &Site) -> Vec<serde_json::Value> {
        wait_for("messages to arrive", || self.received().len() >= count, || site.log_tail());
        self.received()
    }
}

fn received(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Debian's Postfix as another site, at the n-th neighbour's address: takes mail for `far.test`, relays for us.
pub struct Postfix {
    dir: PathBuf,
}

impl Postfix {
    pub fn start(site: &Site, nth: u8) -> Self {
        let dir = site.dir().join("postfix");
        for name in ["spool", "data", "mail"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let (name, ip, fife) = (dir.display(), address(site, nth), site.ip());
        good(&run("chown", &["postfix", &format!("{name}/data"), &format!("{name}/mail")], b""));
        certificate(&dir);
        let (key, cert) = (format!("{name}/key"), format!("{name}/cert"));
        let uid = good(&run("id", &["-u", "postfix"], b""));
        let uid = uid.trim();
        std::fs::write(
            dir.join("main.cf"),
            format!(
                "compatibility_level = 3.6\nqueue_directory = {name}/spool\ndata_directory = {name}/data\ncommand_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\nsetgid_group = postdrop\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = mx.far.test\nmydestination =\nmynetworks = 127.0.0.0/8\nvirtual_mailbox_domains = far.test\nvirtual_mailbox_base = {name}/mail\nvirtual_mailbox_maps = static:all\nvirtual_uid_maps = static:{uid}\nvirtual_gid_maps = static:{uid}\nsmtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\nsmtpd_tls_security_level = may\nsmtp_tls_security_level = may\nsmtpd_tls_received_header = yes\ndebug_peer_list = 127.0.0.0/8\nsmtputf8_enable = yes\nsmtp_dns_support_level = disabled\nsmtp_host_lookup = native\ntransport_maps = inline:{{ {{ example.test = smtp:[{fife}]:2525 }} }}\nsmtp_bind_address = {ip}\nmaillog_file = {name}/log\nmaillog_file_prefixes = /tmp\nlocal_recipient_maps =\nalias_maps =\n"
            ),
        )
        .unwrap();
        let own = "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\ntlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\nsmtp unix - - n - - smtp\nrelay unix - - n - - smtp\nshowq unix n - n - - showq\nerror unix - - n - - error\nretry unix - - n - - error\ndiscard unix - - n - - discard\nlocal unix - n n - - local\nvirtual unix - n n - - virtual\nlmtp unix - - n - - lmtp\nanvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n";
        std::fs::write(dir.join("master.cf"), format!("{ip}:{MX_PORT} inet n - n - - smtpd\n{own}")).unwrap();
        let started = Self { dir };
        assert!(started.command("start"), "Postfix starts: {}", started.log());
        let open = || std::net::TcpStream::connect((ip.as_str(), MX_PORT)).is_ok();
        wait_for("Postfix to listen", open, || started.log());
        started
    }

    /// Its daemon keeps the descriptors that it inherits: it gets none.
    fn command(&self, what: &str) -> bool {
        let dir = self.dir.display().to_string();
        start(Command::new("timeout").args(["60", "postfix", "-c", &dir, what])).wait().unwrap().success()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Waits until a message with this text is in its one mailbox.
    pub fn wait(&self, text: &str, site: &Site) -> String {
        wait_mbox(&self.dir.join("mail/all"), text, || format!("{}\n---\n{}", self.log(), site.log_tail()))
    }
}

/// Waits until a message with this text is in the mailbox file (mbox).
fn wait_mbox(file: &Path, text: &str, explain: impl Fn() -> String) -> String {
    let found = || {
        let all = String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
        all.split("\nFrom ").find(|mail| mail.contains(text)).map(str::to_owned)
    };
    wait_for(text, || found().is_some(), explain);
    found().unwrap()
}

/// A certificate for `mx.far.test` and its key, made in this directory as `cert` and `key`.
fn certificate(dir: &Path) {
    let (key, cert) = (dir.join("key").display().to_string(), dir.join("cert").display().to_string());
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let subject = ["-subj", "/CN=mx.far.test", "-addext", "subjectAltName=DNS:mx.far.test"];
    good(&run("openssl", &[&kind[..], &subject[..], &["-keyout", &key, "-out", &cert]].concat(), b""));
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.command("stop");
    }
}

/// Debian's Exim as another site, as Postfix above. It cannot be installed beside Postfix: `tests/run` unpacks it.
pub struct Exim {
    dir: PathBuf,
    _program: Program,
}

/// Where `tests/run` unpacks it.
const EXIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/exim4/usr/sbin/exim4");

impl Exim {
    pub fn start(site: &Site, nth: u8) -> Self {
        assert!(Path::new(EXIM).exists(), "{EXIM} is not there: tests/run unpacks it");
        let dir = site.dir().join("exim");
        for name in ["spool", "mail"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        certificate(&dir);
        let (name, ip, fife) = (dir.display(), address(site, nth), site.ip());
        good(&run("chown", &["mail", &format!("{name}/mail")], b""));
        let acls = "begin acl\naccept_all:\n accept\n";
        let routers = format!(
            "begin routers\nours:\n driver = accept\n domains = far.test\n transport = file\nothers:\n driver = manualroute\n route_list = * {fife}::2525\n self = send\n transport = out\n"
        );
        let transports = format!(
            "begin transports\nfile:\n driver = appendfile\n file = {name}/mail/all\n user = mail\n envelope_to_add\nout:\n driver = smtp\n user = mail\n allow_localhost\n interface = {ip}\nbegin retry\n* * F,1h,1s\n"
        );
        // It starts itself again for each delivery: `exim_path`, and a user who may name a configuration of his own.
        let conf = format!(
            "exim_path = {EXIM}\nexim_user = root\nexim_group = root\nprimary_hostname = mx.far.test\nlocal_interfaces = <; {ip}\ndaemon_smtp_ports = {MX_PORT}\nspool_directory = {name}/spool\nlog_file_path = {name}/log.%s\npid_file_path = {name}/pid\ntls_advertise_hosts = *\ntls_certificate = {name}/cert\ntls_privatekey = {name}/key\nsmtputf8_advertise_hosts = *\ndsn_advertise_hosts = *\nkeep_environment =\nacl_smtp_rcpt = accept_all\nacl_smtp_data = accept_all\n{acls}{routers}{transports}"
        );
        std::fs::write(dir.join("conf"), conf).unwrap();
        // Debian's build wants its own user to exist; only it sees that he does.
        for (file, line) in
            [("passwd", "Debian-exim:x:64999:64999::/nonexistent:/bin/false\n"), ("group", "Debian-exim:x:64999:\n")]
        {
            let known = std::fs::read_to_string(Path::new("/etc").join(file)).unwrap();
            std::fs::write(dir.join(file), known + line).unwrap();
        }
        let script =
            "mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec \"$0\" -C \"$1\" -bdf -q1s";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, EXIM]).arg(dir.join("conf")).current_dir(&dir);
        let started = Self { _program: Program(start(&mut command)), dir };
        let open = || std::net::TcpStream::connect((ip.as_str(), MX_PORT)).is_ok();
        wait_for("Exim to listen", open, || started.log());
        started
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        read("log.main") + &read("log.panic")
    }

    /// Waits until a message with this text is in its one mailbox.
    pub fn wait(&self, text: &str, site: &Site) -> String {
        wait_mbox(&self.dir.join("mail/all"), text, || format!("{}\n---\n{}", self.log(), site.log_tail()))
    }
}
