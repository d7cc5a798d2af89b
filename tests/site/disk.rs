//! The disk under a site: full when it starts, full while it runs, room made by deleting.
//!
//! Owns: the site on a small file system of its own. Called by: `cargo test`. Needs root: others cannot mount.

use std::fs::File;
use std::io::Write;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::harness::{Site, good, python, run, text, wait_for};

const PASSWORD: &str = "secret-1";
const USER: &str = "u1@example.test";

/// A site on a file system of so many MiB, in a mount namespace of this thread and of what it starts; it goes with them. None: not root.
fn on_small_disk(mib: u32, toml: &str) -> Option<Site> {
    if !geteuid().is_root() {
        println!("not root: no file system of our own to fill");
        return None;
    }
    let mut site = Site::prepare("");
    let usual = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), usual.replace("free-space-min = \"4 MiB\"", toml)).unwrap();
    std::fs::create_dir_all(site.state()).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    let options = format!("size={mib}m,mode=755");
    mount(Some("tmpfs"), &site.state(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
    site.launch();
    site.user("u1", PASSWORD);
    Some(site)
}

/// Somebody else takes all that is left.
fn fill(site: &Site) {
    let mut filler = File::create(site.state().join("filler")).unwrap();
    let mut piece = 1 << 20;
    while piece > 0 {
        if filler.write_all(&vec![1; piece]).is_err() {
            piece /= 2;
        }
    }
}

/// Whether a message is taken at port 25, and the whole dialogue.
fn send(site: &Site, subject: &str) -> (bool, String) {
    let subject = format!("Subject: {subject}");
    let to = site.at("smtp");
    let output =
        run("swaks", &["--server", &to, "--from", "s@elsewhere.test", "--to", USER, "--header", &subject], b"");
    (output.status.success(), text(&output))
}

/// The user's subjects by IMAP; those in `delete` are deleted after they were read.
fn read(site: &Site, delete: &[&str]) -> Vec<String> {
    let script = r"
import imaplib, sys
imap = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]), timeout=60); imap.login(sys.argv[3], sys.argv[4]); imap.select()
for number in imap.search(None, 'ALL')[1][0].split():
    subject = imap.fetch(number, '(BODY.PEEK[HEADER.FIELDS (SUBJECT)])')[1][0][1].decode().split(':', 1)[1].strip()
    print(subject)
    if subject in sys.argv[5:]:
        kind, said = imap.store(number, '+FLAGS', r'(\Deleted)')
        assert kind == 'OK', said
kind, said = imap.expunge()
assert kind == 'OK', said
";
    let (ip, port) = (site.ip(), site.port("imap"));
    let arguments = [&[ip.as_str(), port.as_str(), USER, PASSWORD], delete].concat();
    good(&python(script, &arguments)).lines().map(str::to_owned).collect()
}

#[test]
fn a_site_that_starts_on_a_full_disk_is_read_and_deleted_from_and_refuses_mail_until_there_is_room() {
    let Some(mut site) = on_small_disk(64, "free-space-min = \"8 MiB\"") else { return };
    let (taken, said) = send(&site, "before");
    assert!(taken, "{said}");
    assert!(send(&site, "unwanted").0);
    for stopped_in_order in [true, false] {
        if stopped_in_order {
            assert!(site.stop())
        } else {
            site.kill_all()
        }
        fill(&site);
        site.spawn();
        // Every role serves, and says that it is not well.
        let up = || send(&site, "full").1.contains("452 4.3.1");
        wait_for("mail to be refused", up, || site.log_tail());
        let expected = if stopped_in_order { ["before", "unwanted"].as_slice() } else { &["before", "after"] };
        assert_eq!(read(&site, &["unwanted"]), expected);
        assert!(!read(&site, &[]).contains(&"unwanted".to_owned()));
        let told = site.fife(&["status"]);
        assert!(!told.status.success() && text(&told).contains("the disk is full ("), "{}", text(&told));
        good(&site.fife(&["queue", "list"]));
        std::fs::remove_file(site.state().join("filler")).unwrap();
        site.wait_healthy();
        assert_eq!(site.status()["disk"]["reserve_bytes"], 4 << 20);
        let (taken, said) = send(&site, if stopped_in_order { "after" } else { "in the end" });
        assert!(taken, "{said}");
    }
    assert_eq!(read(&site, &[]), ["before", "after", "in the end"]);
    let status = site.status();
    assert!(status["roles"].as_array().unwrap().iter().all(|role| role["restarts"] == 0), "{status}");
    assert!(!site.log().contains("panicked"), "{}", site.log_tail());
}

#[test]
fn a_disk_that_mail_has_filled_takes_mail_again_when_some_was_deleted() {
    let Some(site) = on_small_disk(64, "free-space-min = \"24 MiB\"") else { return };
    let fill = r"
import base64, os, smtplib, sys
smtp = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=60)
for taken in range(100):
    text = base64.encodebytes(os.urandom(1 << 20)).replace(b'\n', b'\r\n')
    try:
        smtp.sendmail('s@elsewhere.test', [sys.argv[3]], b'Subject: big\r\n\r\n' + text)
    except smtplib.SMTPException as error:
        print(taken, error)
        break
";
    let said = good(&python(fill, &[&site.ip(), &site.port("smtp"), USER]));
    assert!(said.contains("452"), "{said}");
    let taken = read(&site, &["big"]).len();
    assert!(taken > 20 && said.starts_with(&format!("{taken} ")), "{taken} of {said}");
    wait_for("mail to be taken", || send(&site, "after").0, || site.log_tail());
    assert_eq!(read(&site, &[]), ["after"]);
    assert!(site.log().contains("segment compacted"), "{}", site.log_tail());
}
