//! IMAP against clients that nobody here wrote: Python's imaplib, curl, mbsync, mutt.
//!
//! Owns: what a reader of mail may rely on, from outside. Called by: `cargo test`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::harness::{Site, good, python, run, text, wait_for};

const PASSWORD: &str = "correct horse";

fn site() -> Site {
    let site = Site::start();
    site.user("u1", PASSWORD);
    site
}

/// What every script begins with: a connection as u1, and helpers.
const PRELUDE: &str = r#"
import imaplib, re, smtplib, socket, ssl, sys, glob, email, email.policy
imaplib._MAXLINE = 100_000_000
host, imap_port, imaps_port, lmtp_port, password = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
rest = sys.argv[6:]

def connect():
    client = imaplib.IMAP4(host, imap_port, timeout=30)
    client.login("u1@example.test", password)
    return client

def ok(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data

def no(answer):
    kind, data = answer
    assert kind == "NO", answer
    return data[0]

def deliver(subject, body="hello\r\n"):
    with smtplib.LMTP(host, lmtp_port) as lmtp:
        lmtp.sendmail("sender@example.test", ["u1@example.test"], f"From: sender@example.test\r\nTo: u1@example.test\r\nSubject: {subject}\r\n\r\n{body}")
"#;

fn script(site: &Site, script: &str, args: &[&str]) -> String {
    let (ip, imap, imaps, lmtp) = (site.ip(), site.port("imap"), site.port("imaps"), site.port("lmtp"));
    let mut all = vec![ip.as_str(), &imap, &imaps, &lmtp, PASSWORD];
    all.extend(args);
    good(&python(&format!("{PRELUDE}\n{script}"), &all))
}

fn mail_dir() -> String {
    format!("{}/tests/data/mail", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn imaplib_reads_files_and_searches_mail() {
    let site = site();
    script(
        &site,
        r#"
deliver("one"); deliver("two", "needle in here\r\n"); deliver("three")
client = connect()
assert ok(client.select()) == [b"3"]
assert ok(client.search(None, "ALL")) == [b"1 2 3"]
assert ok(client.search(None, "TEXT", "NEEDLE")) == [b"2"]
assert ok(client.search(None, "UNSEEN", "SUBJECT", '"three"')) == [b"3"]
data = ok(client.fetch("2", "(FLAGS BODY[])"))
assert b"Subject: two" in data[0][1] and data[0][1].endswith(b"needle in here\r\n"), data
assert b"\\Seen" in ok(client.fetch("2", "(FLAGS)"))[0]
assert b"\\Seen" not in ok(client.fetch("1", "(FLAGS)"))[0]
ok(client.store("1", "+FLAGS", r"(\Flagged $Label1)"))
assert ok(client.uid("SEARCH", "KEYWORD", "$Label1")) == [b"1"]
ok(client.create('"Gesch&AOQ-ftlich/2024"'))
ok(client.copy("1:2", '"Gesch&AOQ-ftlich/2024"'))
kind, data = client.uid("MOVE", "3", "Trash")
assert kind == "OK"
assert ok(client.select('"Gesch&AOQ-ftlich/2024"')) == [b"2"]
assert b"$Label1" in ok(client.fetch("1", "(FLAGS)"))[0]
ok(client.store("1", "+FLAGS", r"\Deleted"))
assert ok(client.expunge()) == [b"1"]
ok(client.close())
names = b"\n".join(ok(client.list()))
for name in [b"INBOX", b"Trash", b"Gesch&AOQ-ftlich/2024", b"\\Drafts", b"\\Sent"]:
    assert name in names, (name, names)
assert ok(client.status("INBOX", "(MESSAGES UNSEEN UIDNEXT)"))[0].endswith(b"(MESSAGES 2 UNSEEN 1 UIDNEXT 4)")
ok(client.append("Drafts", r"(\Draft)", imaplib.Time2Internaldate(86400 * 365), b"Subject: d\r\n\r\nx\r\n"))
ok(client.select("Drafts"))
assert b'" 1-Jan-1971' in ok(client.fetch("1", "(INTERNALDATE)"))[0]
ok(client.rename("Drafts", "Entwurf"))
ok(client.delete("Entwurf"))
assert b"NONEXISTENT" in no(client.select("Entwurf"))
assert client.logout()[0] == "BYE"
"#,
        &[],
    );
}

#[test]
fn real_messages_come_back_byte_for_byte_and_part_by_part() {
    let site = site();
    let out = script(
        &site,
        r#"
def parse(data):
    # One parenthesized list, literals and quoted strings included.
    at = 0
    def value():
        nonlocal at
        if data[at:at+1] == b"(":
            at += 1
            items = []
            while data[at:at+1] != b")":
                if data[at:at+1] == b" ": at += 1; continue
                items.append(value())
            at += 1
            return items
        if data[at:at+1] == b'"':
            out = b""; at += 1
            while data[at:at+1] != b'"':
                if data[at:at+1] == b"\\": at += 1
                out += data[at:at+1]; at += 1
            at += 1
            return out
        if data[at:at+1] == b"{":
            end = data.index(b"}", at); size = int(data[at+1:end]); at = end + 3 + size
            return data[end+3:at]
        end = re.compile(rb"[ ()]").search(data, at).start()
        word = data[at:end]; at = end
        return None if word == b"NIL" else word
    return value()

def joined(answer):
    # imaplib splits at literals.
    out = b""
    for piece in answer:
        out += piece if isinstance(piece, bytes) else piece[0] + b"\r\n" + piece[1]
    return out

def leaves(structure, path=()):
    if isinstance(structure[0], list):
        for number, part in enumerate([s for s in structure if isinstance(s, list) and s and (isinstance(s[0], list) or (isinstance(s[0], bytes) and len(s) >= 7))], 1):
            yield from leaves(part, path + (number,))
    else:
        yield path or (1,), structure

client = connect()
compared = parts = 0
for path in sorted(glob.glob(rest[0] + "/*.eml")):
    message = re.sub(rb"\r?\n", b"\r\n", open(path, "rb").read())
    if b"\0" in message:
        # RFC 3501 section 9: CHAR8 excludes NUL.
        try: client.append("INBOX", None, None, message); assert False
        except imaplib.IMAP4.error as error: assert "BAD" in str(error), error
        continue
    kind, data = client.append("Archive", None, None, message)
    assert kind == "OK", (path, data)
    uid = int(re.search(rb"APPENDUID \d+ (\d+)", data[0]).group(1))
    ok(client.select("Archive"))
    fetched = ok(client.uid("FETCH", str(uid), "(RFC822.SIZE BODY.PEEK[])"))
    assert fetched[0][1] == message, path
    assert b"RFC822.SIZE %d " % len(message) in fetched[0][0], path
    header, body = (ok(client.uid("FETCH", str(uid), f"(BODY.PEEK[{what}])"))[0][1] for what in ("HEADER", "TEXT"))
    assert header + body == message, path
    compared += 1
    answer = joined(ok(client.uid("FETCH", str(uid), "(BODYSTRUCTURE)")))
    structure = parse(answer[answer.index(b"BODYSTRUCTURE ") + 14:])
    other = email.message_from_bytes(message)
    if other.defects or any(part.defects for part in other.walk()): continue
    if any(part.get_content_type() == "message/rfc822" for part in other.walk()): continue
    theirs = [part for part in other.walk() if not part.is_multipart()]
    ours = list(leaves(structure))
    if other.is_multipart() and not theirs: continue
    names = [(leaf[0] + b"/" + leaf[1]).decode().lower() for _, leaf in ours]
    assert names == [part.get_content_type() for part in theirs], (path, names, [part.get_content_type() for part in theirs])
    for (number, leaf), part in zip(ours, theirs):
        section = ".".join(map(str, number))
        found = ok(client.uid("FETCH", str(uid), f"(BODY.PEEK[{section}])"))[0][1]
        assert int(leaf[6]) == len(found), (path, section)
        # The payload as Python has split it off, before it decodes anything.
        payload = part._payload.encode("ascii", "surrogateescape")
        lines = lambda data: data.replace(b"\r\n", b"\n").strip()
        assert lines(found) == lines(payload), (path, section)
        parts += 1
print(compared, parts)
"#,
        &[&mail_dir()],
    );
    let numbers: Vec<usize> = out.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(numbers[0] > 45 && numbers[1] > 40, "messages and parts compared: {out}");
}

#[test]
fn idle_pushes_mail_as_it_is_delivered() {
    let site = site();
    script(
        &site,
        r#"
client = connect()
ok(client.select())
def line(): return client.readline().rstrip(b"\r\n")
client.send(b"x IDLE\r\n")
assert line().startswith(b"+ ")
deliver("pushed")
assert line() == b"* 1 EXISTS"
other = connect()
ok(other.select())
ok(other.store("1", "+FLAGS.SILENT", r"(\Flagged)"))
assert line() == rb"* 1 FETCH (FLAGS (\Flagged))"
ok(other.store("1", "+FLAGS.SILENT", r"(\Deleted)"))
assert line() == rb"* 1 FETCH (FLAGS (\Flagged \Deleted))"
ok(other.expunge())
assert line() == b"* 1 EXPUNGE"
client.send(b"DONE\r\n")
assert line() == b"x OK Idle completed"
client.logout()
"#,
        &[],
    );
}

#[test]
fn starttls_and_tls_work_and_plaintext_behind_starttls_is_not_carried_out() {
    let site = site();
    script(
        &site,
        r#"
context = ssl._create_unverified_context()
client = imaplib.IMAP4(host, imap_port, timeout=30)
client.starttls(context)
assert "STARTTLS" not in client.capabilities
client.authenticate("PLAIN", lambda _: b"\0u1@example.test\0" + password.encode())
ok(client.select())
client.logout()
client = imaplib.IMAP4_SSL(host, imaps_port, ssl_context=context, timeout=30)
client.login("u1@example.test", password)
client.logout()

# What is sent together with STARTTLS in the clear must not be answered within TLS.
raw = socket.create_connection((host, imap_port), timeout=30)
raw.recv(1000)
raw.sendall(b"a STARTTLS\r\nb CAPABILITY\r\n")
answer = b""
while chunk := raw.recv(1000): answer += chunk
assert b"a BAD" in answer and b"BYE" in answer and b"b OK" not in answer, answer
"#,
        &[],
    );
}

#[test]
fn hostile_clients_get_an_answer_and_no_more() {
    let site = site();
    script(
        &site,
        r#"
def talk(*pieces, want):
    raw = socket.create_connection((host, imap_port), timeout=30)
    raw.recv(1000)
    try:
        for piece in pieces: raw.sendall(piece)
    except (BrokenPipeError, ConnectionResetError): pass
    answer = b""
    try:
        while want not in answer:
            chunk = raw.recv(65536)
            if not chunk: break
            answer += chunk
    except ConnectionResetError: pass
    assert want in answer, (pieces[0][:50], answer[-500:])
    raw.close()

talk(b"a LOGIN " + b"x" * 1_000_000 + b"\r\n", want=b"BYE")
talk(b"a LOGIN {4294967295+}\r\n", want=b"BYE")
talk(b"a LOGIN {4294967295}\r\n", want=b"a BAD [TOOBIG]")
talk(b"a NOOP\n", want=b"a BAD")
talk(b"a NO\0OP\r\n", want=b"a BAD")
talk(b"a NOOP\rb NOOP\r\n", want=b"a BAD")
talk(b"a X\r\n" * 20, want=b"Too many bad commands")
talk(b"GET / HTTP/1.0\r\n" + b"Host: x\r\n" * 20, want=b"Too many bad commands")
login = b'a LOGIN u1@example.test "' + password.encode() + b'"\r\n'
talk(login, b"b SEARCH " + b"(" * 60000 + b"\r\n", want=b"b BAD")
talk(login, b"b SEARCH " + b"NOT " * 15000 + b"ALL\r\n", want=b"b BAD")
talk(login, b"b APPEND INBOX {4000000000}\r\n", want=b"b BAD [TOOBIG]")
talk(login, b"b CREATE ../../etc\r\n", b"c CREATE {9+}\r\na\r\nb: c\r\n\r\n", want=b"c NO [CANNOT]")
talk(login, b"b SELECT INBOX\r\nc FETCH 1:4294967295 (FLAGS)\r\n", want=b"c OK")
talk(login, b"b LIST \"\" \"" + b"*%" * 400 + b"x\"\r\n", want=b"b OK")
# A wrong password three times over.
talk(b"a LOGIN u1@example.test wrong\r\n" * 3, want=b"Too many failed logins")
# Half-open: it must not keep others waiting.
half = socket.create_connection((host, imap_port), timeout=30)
half.sendall(b"a LOGIN {5}\r\nab")
connect().logout()
"#,
        &[],
    );
    let log = site.log();
    assert!(!log.contains("wrong") && !log.contains(PASSWORD), "no password in the log");
    assert!(log.contains("login refused"), "{log}");
}

#[test]
fn what_append_acknowledged_survives_kill_9() {
    let site = site();
    script(
        &site,
        r#"
client = connect()
for number in range(20):
    ok(client.append("INBOX", r"(\Seen)", None, b"Subject: m%d\r\n\r\nbody\r\n" % number))
ok(client.create("Kept"))
"#,
        &[],
    );
    site.kill_role("pop-imap");
    site.wait_healthy();
    script(
        &site,
        r#"
client = connect()
assert ok(client.select()) == [b"20"]
subjects = [data[1] for data in ok(client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")) if isinstance(data, tuple)]
assert subjects == [b"Subject: m%d\r\n\r\n" % number for number in range(20)], subjects
assert ok(client.search(None, "SEEN"))[0].split() == [b"%d" % (number + 1) for number in range(20)]
ok(client.select("Kept"))
"#,
        &[],
    );
}

#[test]
fn idle_sessions_are_told_when_the_server_stops() {
    let mut site = site();
    let (ip, port) = (site.ip(), site.port("imap"));
    let waiting = std::thread::spawn(move || {
        let script = r#"
import imaplib, sys
client = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]), timeout=60)
client.login("u1@example.test", sys.argv[3])
client.select()
client.send(b"x IDLE\r\n")
client.readline()
print("idling", flush=True)
open(sys.argv[4], "w").close()
assert client.readline().startswith(b"* BYE [UNAVAILABLE]")
"#;
        python(script, &[&ip, &port, PASSWORD, &format!("/tmp/fife-idle-{}", std::process::id())])
    });
    let mark = format!("/tmp/fife-idle-{}", std::process::id());
    wait_for("the client to idle", || Path::new(&mark).exists(), || site.log_tail());
    fs::remove_file(&mark).unwrap();
    assert!(site.stop(), "{}", site.log_tail());
    good(&waiting.join().unwrap());
}

#[test]
fn curl_lists_reads_and_files_mail() {
    let site = site();
    let dir = site.dir().display().to_string();
    let message = "Subject: by curl\r\n\r\nuploaded\r\n";
    fs::write(format!("{dir}/message"), message).unwrap();
    let user = format!("u1@example.test:{PASSWORD}");
    let curl = |url: &str, more: &[&str]| {
        let mut args = vec!["--silent", "--show-error", "--insecure", "--user", &user];
        args.extend(more);
        args.push(url);
        good(&run("curl", &args, b""))
    };
    let (plain, tls) = (format!("imap://{}", site.at("imap")), format!("imaps://{}", site.at("imaps")));
    curl(&format!("{plain}/INBOX"), &["--upload-file", &format!("{dir}/message")]);
    assert!(curl(&plain, &[]).contains("INBOX"));
    assert_eq!(curl(&format!("{plain}/INBOX;UID=1"), &["--ssl-reqd"]), message);
    assert_eq!(curl(&format!("{tls}/INBOX;MAILINDEX=1;SECTION=TEXT"), &[]), "uploaded\r\n");
    assert!(curl(&format!("{tls}/INBOX?SUBJECT%20curl"), &[]).contains("SEARCH 1"));
    assert!(curl(&format!("{tls}/INBOX"), &["--request", "EXAMINE INBOX"]).contains("1 EXISTS"));
}

#[test]
fn mbsync_keeps_a_maildir_and_mailboxes_alike() {
    let site = site();
    let dir = site.dir().join("mbsync");
    for folder in ["INBOX", "Sent", "Work"] {
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(dir.join("mail").join(folder).join(part)).unwrap();
        }
    }
    let config = dir.join("rc");
    let text = format!(
        "IMAPAccount a\nHost {ip}\nPort {port}\nUser u1@example.test\nPass \"{PASSWORD}\"\nSSLType None\n\n\
         IMAPStore far\nAccount a\n\n\
         MaildirStore near\nPath {dir}/mail/\nInbox {dir}/mail/INBOX\nSubFolders Verbatim\n\n\
         Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nRemove Both\nExpunge Both\nSync All\nSyncState {dir}/state/\n",
        ip = site.ip(),
        port = site.port("imap"),
        dir = dir.display(),
    );
    fs::create_dir_all(dir.join("state")).unwrap();
    fs::write(&config, text).unwrap();
    let sync = || good(&run("mbsync", &["-c", config.to_str().unwrap(), "c"], b""));
    let files = |folder: &str| -> Vec<String> {
        let mut names = Vec::new();
        for part in ["cur", "new"] {
            let entries = fs::read_dir(dir.join("mail").join(folder).join(part)).unwrap();
            names.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
        }
        names.sort();
        names
    };
    script(
        &site,
        r#"
deliver("one"); deliver("two"); deliver("three")
client = connect()
ok(client.create("Far/Away"))
ok(client.append("Far/Away", None, None, b"Subject: far\r\n\r\nfar away\r\n"))
ok(client.select())
ok(client.store("1", "+FLAGS", r"(\Seen \Flagged)"))
"#,
        &[],
    );
    fs::write(dir.join("mail/Work/new/1.local"), "Subject: near\n\nfrom the maildir\n").unwrap();
    sync();
    assert_eq!(files("INBOX").len(), 3);
    assert_eq!(files("Far/Away").len(), 1);
    assert!(files("INBOX").iter().any(|name| name.ends_with(":2,FS")), "{:?}", files("INBOX"));
    // Changes on both sides: a flag and a deletion here, a flag, a deletion and a message there.
    let two =
        files("INBOX").into_iter().find(|name| fs::read_to_string(name).unwrap().contains("Subject: two")).unwrap();
    let base = Path::new(&two).file_name().unwrap().to_str().unwrap().split(':').next().unwrap().to_owned();
    fs::rename(&two, dir.join("mail/INBOX/cur").join(format!("{base}:2,RS"))).unwrap();
    fs::remove_file(files("Far/Away").remove(0)).unwrap();
    script(
        &site,
        r#"
client = connect()
ok(client.select("Work"))
assert b"from the maildir" in ok(client.fetch("1", "(BODY[TEXT])"))[0][1]
ok(client.select())
ok(client.store("3", "+FLAGS", r"(\Deleted)"))
ok(client.expunge())
deliver("four")
"#,
        &[],
    );
    sync();
    let mut subjects = String::new();
    for name in files("INBOX") {
        let message = fs::read_to_string(&name).unwrap();
        let subject = message.lines().find(|line| line.starts_with("Subject: ")).unwrap().to_owned();
        writeln!(subjects, "{subject}").unwrap();
    }
    let mut subjects: Vec<&str> = subjects.lines().collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["Subject: four", "Subject: one", "Subject: two"]);
    script(
        &site,
        r#"
client = connect()
ok(client.select())
assert ok(client.search(None, "ANSWERED", "SEEN", "SUBJECT", "two")) == [b"2"]
assert ok(client.select('"Far/Away"')) == [b"0"]
"#,
        &[],
    );
    // Nothing more to do: a third run changes nothing on either side.
    let before = files("INBOX");
    sync();
    assert_eq!(files("INBOX"), before);
}

#[test]
fn mutt_reads_and_moves_mail() {
    let site = site();
    script(&site, r#"deliver("first"); deliver("second", "read by mutt\r\n")"#, &[]);
    let dir = site.dir().display().to_string();
    let rc = format!("{dir}/muttrc");
    let url = format!("imap://{}/", site.at("imap"));
    let text = format!(
        "set folder = \"{url}\"\nset spoolfile = \"+INBOX\"\nset imap_user = \"u1@example.test\"\nset imap_pass = \"{PASSWORD}\"\n\
         set ssl_starttls = no\nset ssl_force_tls = no\nset imap_check_subscribed\nset confirmappend = no\nset confirmcreate = no\n\
         set delete = yes\nset move = no\nset wait_key = no\nset sort = mailbox-order\nset header_cache = \"\"\nset record = \"\"\n\
         set copy = no\nset mark_old = no\nset certificate_file = \"{dir}/certs\"\nset tmpdir = \"{dir}\"\n",
    );
    fs::write(&rc, text).unwrap();
    // Reads the second message, saves its text to a file, moves the first to Archive, and leaves.
    let keys = format!(
        "<last-entry><pipe-message>cat > {dir}/piped<enter><first-entry><save-message>+Archive<enter><sync-mailbox><quit>"
    );
    let command = format!("TERM=xterm mutt -F {rc} -e 'push \"{keys}\"'");
    let output = run("script", &["--quiet", "--return", "--command", &command, "/dev/null"], b"");
    assert!(output.status.success(), "{}", text_of(&output));
    let piped = fs::read_to_string(format!("{dir}/piped")).unwrap_or_else(|_| panic!("{}", text_of(&output)));
    assert!(piped.contains("Subject: second") && piped.contains("read by mutt"), "{piped}");
    script(
        &site,
        r#"
client = connect()
assert ok(client.select()) == [b"1"]
assert ok(client.search(None, "SUBJECT", "second")) == [b"1"]
assert ok(client.select("Archive")) == [b"1"]
assert ok(client.search(None, "SUBJECT", "first")) == [b"1"]
"#,
        &[],
    );
}

fn text_of(output: &std::process::Output) -> String {
    text(output)
}
