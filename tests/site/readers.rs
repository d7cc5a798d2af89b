//! A mailbox that fife filled, read by programs that people use: offlineimap, getmail, Thunderbird.
//!
//! Owns: whole programs as witnesses, each with its own idea of IMAP and POP3. Called by: `cargo test`. mutt, mbsync and
//! fetchmail stand with the protocols (`imap`, `pop3`).

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::harness::{Site, good, python, run, wait_for};

const PASSWORD: &str = "correct horse";
const USER: &str = "u1@example.test";

fn send(site: &Site, subject: &str, body: &str) {
    let (server, header) = (site.at("smtp"), format!("Subject: {subject}"));
    let args = ["--server", &server, "--to", USER, "--from", "a@example.org", "--header", &header, "--body", body];
    good(&run("swaks", &args, b""));
}

fn site() -> Site {
    let site = Site::start();
    site.user("u1", PASSWORD);
    for number in 1..=3 {
        send(&site, &format!("letter {number}"), &format!("words of letter {number}\n.and a dot"));
    }
    site
}

/// Every file below a Maildir's `cur` and `new`.
fn maildir(dir: &Path) -> Vec<PathBuf> {
    let parts = ["cur", "new"].map(|part| fs::read_dir(dir.join(part)).unwrap());
    let mut files: Vec<PathBuf> = parts.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The texts have these letters, each once.
fn assert_letters(texts: &[String], numbers: &[u32]) {
    assert_eq!(texts.len(), numbers.len(), "{texts:?}");
    for number in numbers {
        let (subject, body) = (format!("Subject: letter {number}"), format!("words of letter {number}"));
        let found = texts.iter().filter(|text| text.contains(&subject) && text.contains(&body)).count();
        assert_eq!(found, 1, "letter {number} in {texts:?}");
    }
}

fn read(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn offlineimap_keeps_a_maildir_and_mailboxes_alike() {
    let site = site();
    let dir = site.dir().join("offlineimap");
    fs::create_dir_all(dir.join("home")).unwrap();
    let (rc, dir_text) = (dir.join("rc"), dir.display().to_string());
    let text = format!(
        "[general]\naccounts = a\nmetadata = {dir_text}/meta\n[Account a]\nlocalrepository = near\nremoterepository = far\n\
         [Repository near]\ntype = Maildir\nlocalfolders = {dir_text}/mail\n\
         [Repository far]\ntype = IMAP\nremotehost = {ip}\nremoteport = {port}\nremoteuser = {USER}\nremotepass = {PASSWORD}\n\
         ssl = no\nstarttls = no\nmaxconnections = 2\n",
        ip = site.ip(),
        port = site.port("imap"),
    );
    fs::write(&rc, text).unwrap();
    let home = format!("HOME={dir_text}/home");
    let sync = || good(&run("env", &[&home, "offlineimap", "-o", "-u", "basic", "-c", rc.to_str().unwrap()], b""));
    sync();
    let inbox = dir.join("mail/INBOX");
    assert_letters(&read(&maildir(&inbox)), &[1, 2, 3]);
    assert!(dir.join("mail/Archive/cur").is_dir(), "the other mailboxes came too");
    // A letter thrown away and one answered here, a new one there.
    let with = |word: &str| {
        maildir(&inbox).into_iter().find(|file| read(std::slice::from_ref(file))[0].contains(word)).unwrap()
    };
    fs::remove_file(with("letter 1")).unwrap();
    let second = with("letter 2");
    let name = second.file_name().unwrap().to_str().unwrap().split(":2,").next().unwrap().to_owned();
    fs::rename(&second, inbox.join("cur").join(format!("{name}:2,RS"))).unwrap();
    send(&site, "letter 4", "words of letter 4");
    sync();
    assert_letters(&read(&maildir(&inbox)), &[2, 3, 4]);
    let check = r#"
import imaplib, sys
client = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]), timeout=30)
client.login(sys.argv[3], sys.argv[4]); client.select()
found = [client.search(None, *key)[1][0] for key in (["ALL"], ["ANSWERED", "SEEN"], ["SUBJECT", '"letter 2"'])]
assert found == [b"1 2 3", b"1", b"1"], found
"#;
    good(&python(check, &[&site.ip(), &site.port("imap"), USER, PASSWORD]));
}

#[test]
fn getmail_fetches_by_imap_and_by_pop3() {
    let site = site();
    for (kind, service) in [("SimpleIMAPRetriever", "imap"), ("SimplePOP3Retriever", "pop3")] {
        let dir = site.dir().join(service);
        for part in ["mail/cur", "mail/new", "mail/tmp"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        let dir_text = dir.display().to_string();
        let text = format!(
            "[retriever]\ntype = {kind}\nserver = {}\nport = {}\nusername = {USER}\npassword = {PASSWORD}\n\
             [destination]\ntype = Maildir\npath = {dir_text}/mail/\n[options]\nread_all = false\ndelete = false\n",
            site.ip(),
            site.port(service),
        );
        fs::write(dir.join("rc"), text).unwrap();
        // It delivers for no root.
        good(&run("chown", &["--recursive", "65534:65534", &dir_text], b""));
        let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", "getmail"];
        let fetch =
            || good(&run("setpriv", &[&as_nobody[..], &["--getmaildir", &dir_text, "--rcfile", "rc"]].concat(), b""));
        fetch();
        let before = maildir(&dir.join("mail"));
        assert_letters(&read(&before), &[1, 2, 3]);
        // It knows messages by UID: what it has it does not fetch again.
        fetch();
        assert_eq!(maildir(&dir.join("mail")), before, "{kind}");
    }
}

/// A program and all that it has started, killed when the test ends.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        // It may have ended by itself.
        killpg(group, Signal::SIGKILL).ok();
        self.0.wait().ok();
    }
}

/// Thunderbird logs in by itself, reads the folders, fetches what is there, and what comes while it waits in IDLE.
#[test]
fn thunderbird_logs_in_and_fetches_what_is_there_and_what_comes() {
    let site = site();
    let dir = site.dir().join("thunderbird");
    fs::create_dir_all(dir.join("home")).unwrap();
    let profile = dir.join("profile");
    let profile_text = profile.display().to_string();
    let make = include_str!("thunderbird_profile.py");
    good(&python(make, &[&profile_text, &site.ip(), &site.port("imap"), USER, PASSWORD]));
    // The X server says on its standard output which display it took.
    let display = dir.join("display");
    let _server = Group::start(
        Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"])
            .stdout(fs::File::create(&display).unwrap())
            .stderr(Stdio::null()),
    );
    let number = || fs::read_to_string(&display).unwrap_or_default();
    wait_for("the X server", || number().ends_with('\n'), String::new);
    let said = dir.join("said");
    let _thunderbird = Group::start(
        Command::new("/usr/lib/thunderbird/thunderbird")
            .args(["--no-remote", "--profile", &profile_text])
            .env("DISPLAY", format!(":{}", number().trim()))
            .env("HOME", dir.join("home"))
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .env_remove("WAYLAND_DISPLAY")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said).unwrap()),
    );
    // Its own copy of INBOX: an mbox file.
    let has = |words: &str| {
        let mbox = fs::read(profile.join("ImapMail/fife/INBOX")).unwrap_or_default();
        String::from_utf8_lossy(&mbox).contains(words)
    };
    let context = || format!("{}\n{}", fs::read_to_string(&said).unwrap_or_default(), site.log_tail());
    wait_for("Thunderbird to fetch", || (1..=3).all(|n| has(&format!("words of letter {n}"))), context);
    send(&site, "letter 4", "words of letter 4");
    wait_for("Thunderbird to fetch what came", || has("words of letter 4"), context);
    for folder in ["Archive", "Drafts", "Junk", "Sent", "Trash"] {
        assert!(profile.join(format!("ImapMail/fife/{folder}.msf")).exists(), "{folder}");
    }
    assert!(site.log().contains("logged in"));
}
