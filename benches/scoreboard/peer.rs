//! Debian's Postfix and Dovecot as a contender, installed when missing, with a configuration of their own.
//!
//! Owns: both programs' files and processes. Called by: `server`. Never: touches /etc/postfix, /etc/dovecot or an instance
//! of the system. Settings are Debian's defaults, those of durability above all; only limits that would turn this many
//! clients away are raised, and services that are not needed are left out.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::mail::{self, Mail};
use crate::server::{Guard, Kind, Service, run, wait_for};
use crate::{DOMAIN, Failure, PASSWORD};

/// What has to be there. `perf` counts fsyncs and finds costs.
const PACKAGES: [&str; 5] = ["postfix", "dovecot-imapd", "dovecot-pop3d", "dovecot-lmtpd", "linux-perf"];
/// Owner of the mailboxes; needs no entry in /etc/passwd.
const MAIL_UID: u32 = 5000;
/// Time of the first message, as Dovecot would name its file: 2026-11-24.
const FIRST_SECS: u64 = 1_795_460_400;

/// Installs the packages that are missing, without starting anything.
pub(crate) fn install() -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err("Postfix and Dovecot start as root only".into());
    }
    let status = |package: &&str| run(Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]));
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|package| !status(package).is_ok_and(|text| text.contains("ok installed")))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    run(Command::new("apt-get").args(["update", "-q"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1"))?;
    Ok(())
}

/// Versions, as Debian counts them.
pub(crate) fn versions() -> String {
    let version = |package: &str| {
        run(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]))
            .unwrap_or_else(|_| "missing".to_owned())
    };
    format!("Postfix {}, Dovecot {}", version("postfix"), version("dovecot-core"))
}

pub(crate) struct Peer {
    dir: PathBuf,
    ip: Ipv4Addr,
    kind: Kind,
    dovecot: Option<Child>,
    postfix: Option<i32>,
    guard: Option<Guard>,
}

impl Peer {
    pub(crate) fn start(
        dir: &Path,
        ip: Ipv4Addr,
        kind: Kind,
        routes: &[(String, SocketAddr)],
    ) -> Result<Self, Failure> {
        let mut peer = Self { dir: dir.to_owned(), ip, kind, dovecot: None, postfix: None, guard: None };
        for below in ["postfix/conf", "postfix/data", "postfix/queue", "dovecot/run", "mail"] {
            fs::create_dir_all(dir.join(below))?;
        }
        chown(dir.join("mail"), Some(MAIL_UID), Some(MAIL_UID))?;
        run(Command::new("chown").arg("postfix").arg(dir.join("postfix/data")))?;
        fs::write(peer.dovecot_conf(), peer.dovecot_text())?;
        fs::write(dir.join("postfix/conf/main.cf"), peer.main_cf())?;
        fs::write(dir.join("postfix/conf/master.cf"), peer.master_cf())?;
        let transport: String = routes.iter().fold(String::new(), |mut text, (domain, addr)| {
            // Writing to a string does not fail.
            writeln!(text, "{domain} smtp:[{}]:{}", addr.ip(), addr.port()).ok();
            text
        });
        fs::write(dir.join("postfix/conf/transport"), transport)?;
        run(Command::new("postmap").arg("-c").arg(peer.postfix_conf()).arg(peer.postfix_conf().join("transport")))?;
        peer.accounts(0)?;
        peer.launch()?;
        Ok(peer)
    }

    pub(crate) fn launch(&mut self) -> Result<(), Failure> {
        let child = Command::new("dovecot")
            .args(["-F", "-c"])
            .arg(self.dovecot_conf())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.dir.join("dovecot/stderr"))?)
            .spawn()?;
        let stop = format!("postfix -c {} stop; kill {}", self.postfix_conf().display(), child.id());
        self.guard = Some(Guard::new(&stop)?);
        self.dovecot = Some(child);
        run(Command::new("postfix").arg("-c").arg(self.postfix_conf()).arg("start").stdin(Stdio::null()))?;
        let pid = fs::read_to_string(self.dir.join("postfix/queue/pid/master.pid"))?;
        self.postfix = Some(pid.trim().parse()?);
        for service in [Service::Smtp, Service::Imap, Service::Pop3, Service::Lmtp] {
            let addr: SocketAddr = (self.ip, service.port()).into();
            wait_for(&format!("{service:?} to answer"), || std::net::TcpStream::connect(addr).is_ok())?;
        }
        Ok(())
    }

    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        if let Some(pid) = self.postfix.take() {
            let stopped = run(Command::new("postfix").arg("-c").arg(self.postfix_conf()).arg("stop"));
            wait_for("Postfix to stop", || !Path::new(&format!("/proc/{pid}")).exists())?;
            stopped?;
        }
        self.guard = None;
        if let Some(mut child) = self.dovecot.take() {
            kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn roots(&self) -> Vec<i32> {
        let dovecot = self.dovecot.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        self.postfix.into_iter().chain(dovecot).collect()
    }

    fn postfix_conf(&self) -> PathBuf {
        self.dir.join("postfix/conf")
    }

    fn dovecot_conf(&self) -> PathBuf {
        self.dir.join("dovecot/dovecot.conf")
    }

    fn main_cf(&self) -> String {
        format!(
            "compatibility_level = 3.6\n\
             command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nqueue_directory = {dir}/postfix/queue\n\
             data_directory = {dir}/postfix/data\nmaillog_file = {dir}/postfix/log\nmaillog_file_prefixes = {dir}\n\
             myhostname = mail.bench.test\nmydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = loopback-only\n\
             inet_protocols = ipv4\nsmtp_address_preference = ipv4\nbiff = no\nappend_dot_mydomain = no\nalias_maps =\n\
             virtual_mailbox_domains = {DOMAIN}\nvirtual_mailbox_maps = hash:{dir}/postfix/conf/mailboxes\n\
             virtual_transport = lmtp:inet:{ip}:{lmtp}\ntransport_maps = hash:{dir}/postfix/conf/transport\n\
             disable_dns_lookups = yes\nsmtp_host_lookup = native\ndefault_process_limit = 400\n",
            dir = self.dir.display(),
            ip = self.ip,
            lmtp = Service::Lmtp.port(),
        )
    }

    /// As shipped, without chroot and without the services that nothing here uses.
    fn master_cf(&self) -> String {
        format!(
            "{ip}:{port} inet n - n - - smtpd\n\
             pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
             flush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\n\
             smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nshowq unix n - n - - showq\nerror unix - - n - - error\n\
             retry unix - - n - - error\ndiscard unix - - n - - discard\nlocal unix - n n - - local\n\
             virtual unix - n n - - virtual\nlmtp unix - - n - - lmtp\nanvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\n\
             postlog unix-dgram n - n - 1 postlogd\n",
            ip = self.ip,
            port = Service::Smtp.port(),
        )
    }

    fn location(&self) -> &'static str {
        if self.kind == Kind::Sdbox { "sdbox:~/sdbox" } else { "maildir:~/Maildir" }
    }

    fn dovecot_text(&self) -> String {
        let listener = |service: Service, name: &str| {
            format!("inet_listener {name} {{\n address = {}\n port = {}\n }}\n", self.ip, service.port())
        };
        format!(
            "protocols = imap pop3 lmtp\nbase_dir = {dir}/dovecot/run\nstate_dir = {dir}/dovecot/run\nlog_path = {dir}/dovecot/log\n\
             ssl = no\ndisable_plaintext_auth = no\nmail_location = {location}\nmail_uid = {MAIL_UID}\nmail_gid = {MAIL_UID}\n\
             first_valid_uid = {MAIL_UID}\nhostname = mail.bench.test\npostmaster_address = postmaster@{DOMAIN}\n\
             mail_max_userip_connections = 0\ndefault_client_limit = 20000\ndefault_process_limit = 400\ndefault_vsz_limit = 2G\n\
             passdb {{\n driver = passwd-file\n args = {dir}/dovecot/users\n}}\n\
             userdb {{\n driver = static\n args = uid={MAIL_UID} gid={MAIL_UID} home={dir}/mail/%n\n}}\n\
             namespace inbox {{\n inbox = yes\n}}\n\
             service imap-login {{\n{imap}inet_listener imaps {{\n port = 0\n }}\n}}\n\
             service pop3-login {{\n{pop3}inet_listener pop3s {{\n port = 0\n }}\n}}\n\
             service lmtp {{\n{lmtp}}}\n\
             service imap {{\n process_limit = 5000\n}}\nservice pop3 {{\n process_limit = 5000\n}}\n\
             service anvil {{\n client_limit = 20000\n}}\nservice auth {{\n client_limit = 20000\n}}\n",
            dir = self.dir.display(),
            location = self.location(),
            imap = listener(Service::Imap, "imap"),
            pop3 = listener(Service::Pop3, "pop3"),
            lmtp = listener(Service::Lmtp, "lmtp"),
        )
    }

    /// Writes the accounts 0 to `to` - 1. Dovecot looks for changes once in a while only: what runs is started again.
    pub(crate) fn accounts(&mut self, to: u64) -> Result<(), Failure> {
        let (mut users, mut mailboxes) = (String::new(), String::new());
        for number in 0..to {
            let address = mail::address(number);
            writeln!(users, "{address}:{{PLAIN}}{PASSWORD}")?;
            writeln!(mailboxes, "{address} {address}")?;
        }
        fs::write(self.dir.join("dovecot/users"), users)?;
        fs::write(self.postfix_conf().join("mailboxes"), mailboxes)?;
        run(Command::new("postmap").arg("-c").arg(self.postfix_conf()).arg(self.postfix_conf().join("mailboxes")))?;
        if self.dovecot.is_some() {
            self.stop()?;
            self.launch()?;
        }
        Ok(())
    }

    /// Writes maildirs as Dovecot would; for sdbox imports them.
    pub(crate) fn fill(&mut self, accounts: std::ops::Range<u64>, count: u64, octets: usize) -> Result<(), Failure> {
        let sdbox = self.kind == Kind::Sdbox;
        let home = |account: u64| {
            if sdbox { self.dir.join(format!("import/u{account}")) } else { self.dir.join(format!("mail/u{account}")) }
        };
        let mut templates = Mail::templates(64, octets);
        let among = accounts.end - accounts.start;
        for account in accounts.clone().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            for name in ["cur", "new", "tmp"] {
                fs::create_dir_all(home(account).join("Maildir").join(name))?;
            }
            for path in ["", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"] {
                chown(home(account).join(path), Some(MAIL_UID), Some(MAIL_UID))?;
            }
        }
        for number in 0..count {
            let text = mail::pick(&mut templates, number)?;
            let unix: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\r').collect();
            let (secs, nth) = (FIRST_SECS + number / 1000, number % 1000);
            let name = format!("{secs}.M{nth}P1_{number}.mail,S={},W={}:2,", unix.len(), text.len());
            let path = home(accounts.start + number % among).join("Maildir/cur").join(name);
            let mut file = BufWriter::new(File::create(&path)?);
            file.write_all(&unix)?;
            file.flush()?;
            chown(&path, Some(MAIL_UID), Some(MAIL_UID))?;
        }
        if sdbox {
            for account in accounts {
                let from = format!("maildir:{}", home(account).join("Maildir").display());
                run(Command::new("doveadm").arg("-c").arg(self.dovecot_conf()).args([
                    "-o",
                    "mail_fsync=never",
                    "import",
                    "-u",
                    &mail::address(account),
                    &from,
                    "",
                    "ALL",
                ]))?;
            }
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("Postfix and Dovecot could not be stopped: {error}");
        }
    }
}
