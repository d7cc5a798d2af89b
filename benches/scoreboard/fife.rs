//! fife as a contender: its TOML, its accounts by LDAP, its store filled by LMTP.
//!
//! Owns: one `fife run`. Called by: `server`. Everything that has to do with durability stays at its default. Mail is
//! neither signed nor checked by DNS, as it is not by Postfix.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt, TryStreamExt};
use ldap3::LdapConnAsync;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha1::Digest;

use crate::client::Smtp;
use crate::mail::{self, Mail};
use crate::server::{Guard, Service, run, wait_for};
use crate::{DOMAIN, Failure, PASSWORD};

/// The binary that is measured: the one built with this benchmark, unless `main` was told another.
pub(crate) static BINARY: OnceLock<PathBuf> = OnceLock::new();
/// Accounts that are being added at a time.
const ADDS: usize = 64;
/// Connections that fill the store.
const FILLERS: u64 = 64;

pub(crate) struct Fife {
    dir: PathBuf,
    ip: Ipv4Addr,
    child: Option<Child>,
    guard: Option<Guard>,
}

impl Fife {
    pub(crate) fn start(dir: &Path, ip: Ipv4Addr, routes: &[(String, SocketAddr)]) -> Result<Self, Failure> {
        let mut fife = Self { dir: dir.to_owned(), ip, child: None, guard: None };
        std::fs::write(fife.config(), fife.toml(routes))?;
        fife.launch()?;
        Ok(fife)
    }

    pub(crate) fn launch(&mut self) -> Result<(), Failure> {
        let log = OpenOptions::new().create(true).append(true).open(self.dir.join("log"))?;
        let child = Command::new(binary())
            .args(["run", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(File::create(self.dir.join("told"))?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.guard = Some(Guard::new(&format!("kill {}", child.id()))?);
        let config = self.config();
        let child = self.child.insert(child);
        let mut ended = None;
        wait_for("fife to be healthy", || {
            ended = child.try_wait().ok().flatten();
            let status = || run(Command::new(binary()).args(["status", "--config"]).arg(&config).stdin(Stdio::null()));
            ended.is_some() || status().is_ok()
        })?;
        match ended {
            None => Ok(()),
            Some(status) => Err(format!("fife ended with {status}; see what it says of its configuration").into()),
        }
    }

    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        self.guard = None;
        // Ended by itself: nothing to stop.
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM).ok();
        child.wait()?;
        Ok(())
    }

    pub(crate) fn roots(&self) -> Vec<i32> {
        self.child.iter().filter_map(|child| i32::try_from(child.id()).ok()).collect()
    }

    fn config(&self) -> PathBuf {
        self.dir.join("fife.toml")
    }

    fn toml(&self, routes: &[(String, SocketAddr)]) -> String {
        let at = |service: Service| format!("[\"{}:{}\"]", self.ip, service.port());
        let route = |(domain, addr): &(String, SocketAddr)| {
            let (ip, port) = (addr.ip(), addr.port());
            format!("[[smtp-outbound.routes]]\ndomains = [\"{domain}\"]\nhost = \"{ip}\"\nport = {port}\n\n")
        };
        let routes: String = routes.iter().map(route).collect();
        format!(
            "[site]\nname = \"bench\"\ndomain = \"{DOMAIN}\"\nstate = \"{state}\"\n\n\
             [hosts.bench]\nroles = [\"ldap-proxy\", \"pop-imap\", \"smtp\"]\n\n\
             [metrics]\nlisten = {metrics}\n\n\
             [smtp]\nlisten = {smtp}\nlisten-submission = {submission}\nlisten-submissions = []\n\
             connections-per-client-max = 10000\nfree-space-min = \"16 MiB\"\n\n\
             [smtp-authentication]\nsign = false\ndmarc = \"off\"\n\n{routes}\
             [pop-imap]\nlisten-imap = {imap}\nlisten-imaps = []\nlisten-pop3 = {pop3}\nlisten-pop3s = []\n\
             listen-lmtp = [\"unix:run/lmtp.sock\", {lmtp}]\nconnections-per-client-max = 20000\nfree-space-min = \"16 MiB\"\n\n\
             [ldap-proxy]\nlisten = [\"unix:run/ldap.sock\"]\nlisten-tls = []\n",
            state = self.dir.join("state").display(),
            metrics = at(Service::Metrics),
            smtp = at(Service::Smtp),
            submission = at(Service::Submission),
            imap = at(Service::Imap),
            pop3 = at(Service::Pop3),
            lmtp = at(Service::Lmtp).trim_matches(['[', ']']),
        )
    }

    /// Adds accounts by LDAP, as `fife user add` does, with a password that is hashed already.
    pub(crate) fn accounts(&mut self, from: u64, to: u64) -> Result<(), Failure> {
        let socket = self.dir.join("state/run/ldap.sock").display().to_string().replace('/', "%2F");
        let secret = salted_sha1(PASSWORD);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, mut ldap) = LdapConnAsync::new(&format!("ldapi://{socket}")).await?;
            tokio::spawn(async move { connection.drive().await.ok() });
            ldap.sasl_external_bind().await?.success()?;
            futures_util::stream::iter(from..to)
                .map(|number| {
                    let (mut ldap, secret) = (ldap.clone(), secret.clone());
                    async move {
                        let (local, address) = (format!("u{number}"), mail::address(number));
                        let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
                        let attributes = vec![
                            ("objectClass".to_owned(), set(&["inetOrgPerson", "qmailUser", "fifeObject"])),
                            ("uid".to_owned(), set(&[&local])),
                            ("cn".to_owned(), set(&[&local])),
                            ("sn".to_owned(), set(&[&local])),
                            ("mail".to_owned(), set(&[&address])),
                            ("accountStatus".to_owned(), set(&["active"])),
                            ("userPassword".to_owned(), set(&[&secret])),
                        ];
                        ldap.add(&format!("uid={local},ou={DOMAIN},o=bench"), attributes).await?.success()?;
                        Ok::<(), Failure>(())
                    }
                })
                .buffer_unordered(ADDS)
                .try_collect::<Vec<()>>()
                .await?;
            Ok(())
        })
    }

    pub(crate) fn fill(&mut self, accounts: std::ops::Range<u64>, count: u64, octets: usize) -> Result<(), Failure> {
        let addr: SocketAddr = (self.ip, Service::Lmtp.port()).into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let filler = |nth: u64| {
                let accounts = accounts.clone();
                async move {
                    let mut templates: Vec<Mail> =
                        Mail::templates(64, octets).into_iter().map(Mail::for_data).collect();
                    let mut session = Smtp::connect(addr, "LHLO").await?;
                    let mut number = nth;
                    while number < count {
                        let to = mail::address(accounts.start + number % (accounts.end - accounts.start));
                        session.send("sender@client.bench.test", &to, mail::pick(&mut templates, number)?).await?;
                        number += FILLERS;
                    }
                    session.quit().await
                }
            };
            futures_util::future::try_join_all((0..FILLERS).map(filler)).await.map(|_| ())
        })
    }
}

impl Drop for Fife {
    fn drop(&mut self) {
        // Roles die with their supervisor.
        if self.stop().is_err() {
            eprintln!("fife could not be stopped");
        }
    }
}

fn binary() -> &'static Path {
    BINARY.get().map_or(Path::new(env!("CARGO_BIN_EXE_fife")), PathBuf::as_path)
}

/// `{SSHA}`: cheap to verify; what is measured here is not the login.
fn salted_sha1(password: &str) -> String {
    let salt = b"saltsalt";
    let mut hash = sha1::Sha1::digest([password.as_bytes(), salt].concat()).to_vec();
    hash.extend_from_slice(salt);
    format!("{{SSHA}}{}", BASE64_STANDARD.encode(hash))
}
