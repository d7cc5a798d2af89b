//! Mail in: by port 25, by submission, by programs that others wrote; and what happens when something behind is away.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};

use super::harness::{Site, good, python, run, text, wait_for};

const PASSWORD: &str = "correct horse battery";

/// Prints the messages in a mailbox, one a line as JSON.
const INBOX: &str = r#"
import json, poplib, sys
host, port, user, password = sys.argv[1:]
box = poplib.POP3(host, int(port), timeout=60)
box.user(user)
box.pass_(password)
for number in range(1, len(box.list()[1]) + 1):
    print(json.dumps(b"\r\n".join(box.retr(number)[1]).decode("utf-8", "surrogateescape")))
box.quit()
"#;

/// The messages in `NAME@example.test`'s inbox.
pub fn inbox(site: &Site, name: &str) -> Vec<String> {
    let user = format!("{name}@example.test");
    let output = good(&python(INBOX, &[&site.ip(), &site.port("pop3"), &user, PASSWORD]));
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How often each of these subjects is in the inbox: once.
pub fn each_once(site: &Site, name: &str, subjects: &[&str]) {
    let messages = inbox(site, name);
    for subject in subjects {
        let line = format!("Subject: {subject}\r\n");
        let found = messages.iter().filter(|message| message.contains(&line)).count();
        assert_eq!(found, 1, "{subject} in {messages:#?}\n{}", site.log_tail());
    }
}

/// swaks with these arguments beside the usual; its output.
fn swaks(site: &Site, service: &str, subject: &str, args: &[&str]) -> std::process::Output {
    let (ip, port, subject) = (site.ip(), site.port(service), format!("Subject: {subject}"));
    let mut all =
        vec!["--server", &ip, "--port", &port, "--to", "u1@example.test", "--header", &subject, "--timeout", "60"];
    all.extend(args);
    run("swaks", &all, b"")
}

/// A site with u1 and u2.
fn site() -> Site {
    let site = Site::start();
    site.user("u1", PASSWORD);
    site.user("u2", PASSWORD);
    site
}

#[test]
fn swaks_curl_and_smtplib_are_understood() {
    let site = site();
    let auth = ["--from", "u2@example.test", "--auth-user", "u2@example.test", "--auth-password", PASSWORD];
    let sent = |subject: &str, service: &str, args: &[&str]| {
        let output = swaks(&site, service, subject, args);
        assert!(output.status.success(), "{subject}: {}\n{}", text(&output), site.log_tail());
    };
    sent("plain", "smtp", &["--from", "s@elsewhere.test"]);
    sent("helo", "smtp", &["--from", "s@elsewhere.test", "--protocol", "SMTP"]);
    sent("null sender", "smtp", &["--from", "<>"]);
    sent("pipelined", "smtp", &["--from", "s@elsewhere.test", "--pipeline"]);
    sent("starttls", "smtp", &["--from", "s@elsewhere.test", "--tls"]);
    sent("auth plain", "submission", &[&auth[..], &["--tls", "--auth", "PLAIN"]].concat());
    sent("auth login", "submission", &[&auth[..], &["--tls", "--auth", "LOGIN"]].concat());
    sent("auth local", "submission", &[&auth[..], &["--auth", "PLAIN"]].concat());
    for postmaster in ["postmaster", "Postmaster@example.test"] {
        sent(postmaster, "smtp", &["--from", "s@elsewhere.test", "--to", postmaster]);
    }
    sent("tls first", "submissions", &[&auth[..], &["--tlsc", "--auth", "PLAIN"]].concat());

    let url = format!("smtp://{}/c.test", site.at("smtp"));
    let message = b"Subject: curl\r\nFrom: s@elsewhere.test\r\n\r\n.dots\r\n..more\r\n.\r\n";
    let curl = |url: &str, message: &[u8], args: &[&str]| {
        let common = ["-sS", "--url", url, "--mail-rcpt", "u1@example.test", "--upload-file", "-"];
        good(&run("curl", &[&common[..], args].concat(), message));
    };
    curl(&url, message, &["--mail-from", "s@elsewhere.test"]);
    let url = format!("smtps://{}/c.test", site.at("submissions"));
    let user = format!("u2@example.test:{PASSWORD}");
    let message = b"Subject: curl over TLS\r\n\r\n";
    curl(&url, message, &["--mail-from", "u2@example.test", "--user", &user, "--insecure"]);

    good(&python(SMTPLIB, &[&site.ip(), &site.port("smtp"), &site.port("submission"), PASSWORD]));
    let messages = inbox(&site, "u1");
    let with = |subject: &str| -> String {
        let line = format!("Subject: {subject}\r\n");
        messages
            .iter()
            .find(|message| message.contains(&line))
            .unwrap_or_else(|| panic!("{subject}: {messages:#?}"))
            .clone()
    };
    each_once(
        &site,
        "u1",
        &[
            "plain",
            "helo",
            "null sender",
            "pipelined",
            "starttls",
            "auth plain",
            "auth login",
            "auth local",
            "tls first",
        ],
    );
    each_once(&site, "u1", &["curl", "curl over TLS", "smtplib", "unicode 你好", "chunks"]);
    assert!(with("helo").contains(" with SMTP\r\n"));
    assert!(with("plain").contains(" with ESMTP\r\n"));
    assert!(with("starttls").contains(" with ESMTPS (TLSv1."));
    assert!(with("auth plain").contains(" with ESMTPSA (TLSv1."));
    assert!(with("auth local").contains(" with ESMTPA\r\n"));
    assert!(with("unicode 你好").contains(" with UTF8SMTP\r\n"));
    assert!(with("curl").ends_with("\r\n\r\n.dots\r\n..more\r\n."));
    assert!(with("curl over TLS").contains("\r\nMessage-ID: <"), "submission adds what is missing");
    assert!(with("chunks").ends_with("\r\n\r\n.in chunks\r\n."));
}

/// smtplib, with and without SMTPUTF8 and AUTH; chunks by hand, for smtplib cannot.
const SMTPLIB: &str = r#"
import smtplib, socket, ssl, sys
from email.message import EmailMessage
host, port, submission, password = sys.argv[1:]
def message(subject):
    m = EmailMessage()
    m["Subject"], m["From"], m["To"] = subject, "u2@example.test", "u1@example.test"
    m.set_content("text\n")
    return m
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
with smtplib.SMTP(host, int(submission), timeout=60) as s:
    s.starttls(context=tls)
    s.login("u2@example.test", password)
    assert s.send_message(message("smtplib")) == {}
with smtplib.SMTP(host, int(port), timeout=60) as s:
    s.ehlo("c.test")
    s.mail("grün@elsewhere.test", ["SMTPUTF8", "BODY=8BITMIME"])
    assert s.rcpt("u1@example.test")[0] == 250
    assert s.data("Subject: unicode 你好\r\n\r\n你好\r\n".encode())[0] == 250
    s.docmd("RSET")
    code, reply = s.docmd("MAIL", "FROM:<s@elsewhere.test> SIZE=999999999")
    assert code == 552, (code, reply)
with socket.create_connection((host, int(port)), 60) as s:
    f = s.makefile("rwb")
    def hear(code):
        while True:
            line = f.readline()
            assert line.startswith(code), line
            if line[3:4] == b" ":
                return
    hear(b"220")
    f.write(b"EHLO c.test\r\n"); f.flush(); hear(b"250")
    f.write(b"MAIL FROM:<s@elsewhere.test>\r\nRCPT TO:<u1@example.test>\r\n"
            b"BDAT 15\r\nSubject: chunksBDAT 4\r\n\r\n\r\nBDAT 12\r\n.in chunks\r\nBDAT 3 LAST\r\n.\r\n")
    f.flush()
    for _ in range(6):
        hear(b"250")
    f.write(b"QUIT\r\n"); f.flush(); hear(b"221")
"#;

#[test]
fn what_must_not_be_sent_is_refused() {
    let site = site();
    let check = |service: &str, args: &[&str], expected: &str| {
        let output = swaks(&site, service, "never", args);
        assert!(!output.status.success() && text(&output).contains(expected), "{args:?} {expected}: {}", text(&output));
    };
    let auth = ["--from", "u2@example.test", "--auth-user", "u2@example.test", "--auth-password", PASSWORD, "--tls"];
    check("smtp", &["--from", "s@elsewhere.test", "--to", "x@elsewhere.test"], "550 5.7.1 relaying denied");
    check("smtp", &["--from", "s@elsewhere.test", "--to", "nobody@example.test"], "550 5.1.1");
    check("submission", &["--from", "u2@example.test"], "530 5.7.0");
    check("submission", &[&auth[..], &["--from", "u1@example.test"]].concat(), "553 5.7.1");
    check("submission", &[&auth[..], &["--auth-password", "wrong"]].concat(), "535 5.7.8");
    check(
        "smtp",
        &["--from", "s@elsewhere.test", "--auth", "PLAIN", "--auth-user", "u2", "--auth-password", "x"],
        "did not advertise auth",
    );
    let smuggled = "text\n.\nMAIL FROM:<forged@example.test>";
    let script = format!(
        "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),60)\nf=s.makefile('rwb')\nf.write(b'HELO c\\r\\nMAIL FROM:<>\\r\\nRCPT TO:<u1@example.test>\\r\\nDATA\\r\\n')\nf.flush()\n[f.readline() for _ in range(5)]\nf.write({smuggled:?}.encode()+b'\\r\\n.\\r\\nQUIT\\r\\n')\nf.flush()\nprint(f.read().decode())\n"
    );
    let heard = good(&python(&script, &[&site.ip(), &site.port("smtp")]));
    assert!(heard.starts_with("550 5.6.0") && heard.contains("221"), "{heard}");
    assert!(inbox(&site, "u1").is_empty());
}

#[test]
fn mail_waits_in_the_queue_while_the_mailboxes_are_away() {
    let mut site = site();
    let pop_imap = site.role_pid("pop-imap").unwrap();
    kill(pop_imap, Signal::SIGSTOP).unwrap();
    let output = swaks(&site, "smtp", "away one", &["--from", "s@elsewhere.test"]);
    assert!(good(&output).contains("queued"), "{}", text(&output));
    // Known to be away: the next is not kept waiting.
    let output =
        swaks(&site, "smtp", "away two", &["--from", "s@elsewhere.test", "--to", "u1@example.test,u2@example.test"]);
    assert!(good(&output).contains("queued"), "{}", text(&output));
    kill(pop_imap, Signal::SIGCONT).unwrap();
    wait_for("the queue to be delivered", || inbox(&site, "u1").len() == 2, || site.log_tail());
    each_once(&site, "u1", &["away one", "away two"]);
    each_once(&site, "u2", &["away two"]);

    // The same over kill -9 of everything.
    kill(site.role_pid("pop-imap").unwrap(), Signal::SIGSTOP).unwrap();
    let output = swaks(&site, "smtp", "away three", &["--from", "s@elsewhere.test"]);
    assert!(good(&output).contains("queued"), "{}", text(&output));
    site.kill_all();
    site.launch();
    wait_for("the queue to be delivered", || inbox(&site, "u1").len() == 3, || site.log_tail());
    each_once(&site, "u1", &["away one", "away two", "away three"]);
    assert!(site.stop());
}

#[test]
fn idle_sessions_are_told_when_the_server_stops() {
    let mut site = site();
    let script = "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),60)\nf=s.makefile('rwb')\nf.readline()\nopen(sys.argv[3],'w').close()\nprint(f.read().decode())\n";
    let (ip, port) = (site.ip(), site.port("smtp"));
    let ready = site.dir().join("connected");
    let path = ready.display().to_string();
    let client = std::thread::spawn(move || good(&python(script, &[&ip, &port, &path])));
    wait_for("the client to be greeted", || ready.exists(), || site.log_tail());
    assert!(site.stop());
    assert_eq!(client.join().unwrap().trim(), "421 4.3.2 server is stopping");
}

#[test]
fn a_full_disk_refuses_mail_until_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        println!("not root: no file system of our own to fill");
        return;
    }
    let mut site = Site::prepare("");
    std::fs::create_dir_all(site.state()).unwrap();
    // In a mount namespace of this thread and the processes that it starts; it goes with them.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    mount(Some("tmpfs"), &site.state(), Some("tmpfs"), MsFlags::empty(), Some("size=64m,mode=755")).unwrap();
    site.launch();
    site.user("u1", PASSWORD);
    let filler = site.state().join("filler");
    let mut room = 64 << 20;
    // As much as goes in; the last octets may not.
    while room > (1 << 20) && std::fs::write(&filler, vec![1; room]).is_err() {
        room -= 1 << 20;
    }
    let send = |subject: &str| swaks(&site, "smtp", subject, &["--from", "s@elsewhere.test"]);
    let refused = || String::from_utf8_lossy(&send("full").stdout).contains("452 4.3.1");
    wait_for("mail to be refused", refused, || site.log_tail());
    std::fs::remove_file(&filler).unwrap();
    wait_for("mail to be taken", || send("room again").status.success(), || site.log_tail());
    each_once(&site, "u1", &["room again"]);
}

#[test]
fn a_report_of_success_that_finds_no_room_does_not_bring_the_message_back() {
    let mut site = Site::prepare("");
    // The disk under the queue only, as above; what the queue needs for itself is there.
    let toml = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), toml.replacen("free-space-min = \"4 MiB\"", "free-space-min = 0", 1)).unwrap();
    let dir = site.state().join("smtp");
    std::fs::create_dir_all(&dir).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=4m,mode=755")).unwrap();
    site.launch();
    site.user("u1", PASSWORD);
    let mut filler = std::fs::File::create(dir.join("filler")).unwrap();
    while std::io::Write::write(&mut filler, &[1; 4096]).is_ok() {}
    let script = "import smtplib,sys\nwith smtplib.SMTP(sys.argv[1],int(sys.argv[2]),timeout=60) as s:\n s.login('u1@example.test',sys.argv[3])\n s.mail('u1@example.test')\n s.rcpt('u1@example.test',['NOTIFY=SUCCESS'])\n print(s.data(b'Subject: told\\r\\n\\r\\nx\\r\\n'))";
    let said = good(&python(script, &[&site.ip(), &site.port("submission"), PASSWORD]));
    assert!(said.contains("(250,") && said.contains("delivered"), "{said}\n{}", site.log_tail());
    assert!(site.log().contains("the sender is not told of the delivery"), "{}", site.log_tail());
    each_once(&site, "u1", &["told"]);
}

#[test]
fn what_the_mailboxes_refuse_comes_back_to_its_sender() {
    let site = site();
    // A mailbox that vanishes between RCPT and delivery: the directory's answer is remembered for some seconds, the store asks anew.
    let script = r#"
import smtplib, subprocess, sys
host, port, fife, config, state, password = sys.argv[1:]
s = smtplib.SMTP(host, int(port), timeout=60)
s.login("u2@example.test", password)
s.mail("u2@example.test")
assert s.rcpt("u1@example.test")[0] == 250
assert s.rcpt("gone@example.test")[0] == 250
subprocess.run([fife, "user", "del", "gone@example.test", "--config", config, "--state", state], check=True)
code, text = s.data(b"Subject: mixed\r\n\r\n")
print(code, text.decode())
"#;
    site.user("gone", PASSWORD);
    let (config, state) = (site.config().display().to_string(), site.state().display().to_string());
    let output =
        python(script, &[&site.ip(), &site.port("submission"), super::harness::FIFE, &config, &state, PASSWORD]);
    assert!(good(&output).starts_with("250"), "{}\n{}", text(&output), site.log_tail());
    each_once(&site, "u1", &["mixed"]);
    wait_for("the bounce", || !inbox(&site, "u2").is_empty(), || site.log_tail());
    let bounce = inbox(&site, "u2").remove(0);
    for expected in
        ["Return-Path: <>", "multipart/report", "rfc822; gone@example.test", "Action: failed", "Subject: mixed"]
    {
        assert!(bounce.contains(expected), "{expected}: {bounce}");
    }
}
