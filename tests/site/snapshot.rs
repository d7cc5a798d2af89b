//! What roles give to be backed up: fetched by curl, unpacked by GNU tar, read by Python's mailbox, mutt and OpenLDAP's tools.
//!
//! Owns: what a backup may rely on, from outside. Called by: `cargo test`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::harness::{Site, good, python, run, text, wait_for};
use crate::neighbours;

const PASSWORD: &str = "correct horse";

fn site() -> Site {
    let site = Site::start();
    site.user("u1", PASSWORD);
    site.user("u2", PASSWORD);
    site
}

fn socket(site: &Site, role: &str) -> String {
    site.state().join(format!("run/{role}.backup.sock")).display().to_string()
}

/// Has curl fetch a snapshot into a file of this name; gives the status of the answer, and the file.
fn fetch(site: &Site, role: &str, since: Option<&str>, name: &str) -> (String, PathBuf) {
    let file = site.dir().join(name);
    let query = since.map(|token| format!("?since={token}")).unwrap_or_default();
    let (url, out) = (format!("http://localhost/snapshot{query}"), file.display().to_string());
    let output =
        run("curl", &["-sS", "--unix-socket", &socket(site, role), "-o", &out, "-w", "%{http_code}", &url], b"");
    (good(&output), file)
}

/// The same with the tar unpacked beside it; the members as GNU tar lists them, the directory, and the token to go on from.
fn unpack(site: &Site, role: &str, since: Option<&str>, name: &str) -> (Vec<String>, PathBuf, String) {
    let (status, file) = fetch(site, role, since, &format!("{name}.tar"));
    assert_eq!(status, "200", "{}", site.log_tail());
    let (tar, dir) = (file.display().to_string(), site.dir().join(name));
    fs::create_dir(&dir).unwrap();
    let listed = run("tar", &["-xvf", &tar, "-C", dir.to_str().unwrap()], b"");
    assert!(listed.stderr.is_empty(), "{}", text(&listed));
    let head = fs::read(dir.join(".fife/snapshot.json")).unwrap();
    let head: serde_json::Value = serde_json::from_slice(&head).unwrap();
    assert_eq!(head["source"], role);
    assert_eq!(head["since"].as_str(), since);
    (good(&listed).lines().map(str::to_owned).collect(), dir, head["next"].as_str().unwrap().to_owned())
}

/// What every script begins with: both users, mail, and the mailboxes as IMAP and a Maildir show them.
const PRELUDE: &str = r#"
import base64, glob, imaplib, json, mailbox, os, random, re, smtplib, sys
imaplib._MAXLINE = 100_000_000
host, imap_port, lmtp_port, password = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rest = sys.argv[5:]

def ok(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data

def connect(user="u1"):
    client = imaplib.IMAP4(host, imap_port, timeout=30)
    ok(client.login(f"{user}@example.test", password))
    return client

def deliver(raw, to=("u1",)):
    with smtplib.LMTP(host, lmtp_port, timeout=30) as lmtp:
        assert not lmtp.sendmail("a@other.test", [f"{user}@example.test" for user in to], raw, ["BODY=8BITMIME"])
        # RFC 2033 section 4.2: one reply for each recipient; smtplib reads the first.
        assert all(lmtp.getreply()[0] == 250 for _ in to[1:])

def noise(octets):
    return base64.encodebytes(random.randbytes(octets)).replace(b"\n", b"\r\n")

def by_imap(user):
    "Mailbox: sorted (octets, flags) of its messages."
    client, found = connect(user), {}
    for line in ok(client.list()):
        name = re.search(rb'"/" (.*)$', line).group(1).decode()
        ok(client.select(name, readonly=True))
        data = ok(client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[])"))
        rows = [(item[1], b"\\Seen" in item[0], b"\\Flagged" in item[0]) for item in data if isinstance(item, tuple)]
        found[name.strip('"')] = sorted(rows)
    return found

def by_maildir(root):
    "The same of a Maildir++."
    top, found = mailbox.Maildir(root, factory=None, create=False), {}
    for name in ["INBOX", *top.list_folders()]:
        box = top if name == "INBOX" else top.get_folder(name)
        flags = {key: box.get_message(key).get_flags() for key in box.keys()}
        found[name.replace(".", "/")] = sorted((box.get_bytes(key), "S" in flags[key], "F" in flags[key]) for key in flags)
    return found

def accounts(root):
    "Directory of each account, u1's first: it has more."
    return sorted(glob.glob(f"{root}/mail/*/"), key=lambda path: -len(glob.glob(path + "Maildir/cur/*")))

def lines(account):
    paths = sorted(glob.glob(account + "fife-[mc]*.jsonl"))
    return [json.loads(line) for path in paths for line in open(path)]
"#;

fn script(site: &Site, script: &str, args: &[&str]) -> String {
    let (ip, imap, lmtp) = (site.ip(), site.port("imap"), site.port("lmtp"));
    let mut all = vec![ip.as_str(), &imap, &lmtp, PASSWORD];
    all.extend(args);
    let output = python(&format!("{PRELUDE}\n{script}"), &all);
    assert!(output.status.success(), "{}\n{}", text(&output), site.log_tail());
    good(&output)
}

#[test]
fn mail_is_a_maildir_for_each_user_and_later_only_what_has_changed() {
    let site = site();
    script(
        &site,
        r#"
head = b"From: a@other.test\r\nSubject: x\r\n\r\n"
deliver(head + b"both\r\n", ("u1", "u2"))
for raw in [b"\r\n", b"no header\r\n", head + b".\r\n..\r\n", head + bytes(range(128, 256)) + b"\r\n", head + noise(300000)]:
    deliver(raw)
client = connect()
ok(client.select())
ok(client.create('"Entw&APw-rfe/2026"'))
ok(client.copy("2:3", '"Entw&APw-rfe/2026"'))
ok(client.store("1", "+FLAGS", r"(\Seen $Label1)"))
"#,
        &[],
    );
    let (members, dir, next) = unpack(&site, "pop-imap", None, "full");
    assert_eq!(members[0], ".fife/snapshot.json");
    script(
        &site,
        r#"
u1, u2 = accounts(rest[0])
for user, account in [("u1", u1), ("u2", u2)]:
    assert by_imap(user) == by_maildir(account + "Maildir"), (by_imap(user), by_maildir(account + "Maildir"))
assert len(by_imap("u1")["Entw&APw-rfe/2026"]) == 2 and len(by_imap("u1")["INBOX"]) == 6
listing = json.load(open(u1 + "fife-mailboxes.json"))
assert {"Entwürfe/2026", "INBOX"} <= {box["name"] for box in listing["mailboxes"]}
assert all(box["complete"] for box in listing["mailboxes"])
for line in lines(u1):
    assert os.path.getsize(u1 + line["file"]) == line["size"], line
assert any(line["flags"] == ["\\Seen", "$Label1"] for line in lines(u1))
"#,
        &[dir.to_str().unwrap()],
    );
    let maildir = fs::read_dir(dir.join("mail")).unwrap().map(|entry| entry.unwrap().path().join("Maildir"));
    let counts: BTreeSet<usize> = maildir.map(|maildir| mutt_counts(&maildir)).collect();
    assert_eq!(counts, BTreeSet::from([1, 6]));

    let (members, _, same) = unpack(&site, "pop-imap", Some(&next), "nothing");
    assert_eq!((members.len(), same.as_str()), (1, next.as_str()));
    script(
        &site,
        r#"
client = connect()
ok(client.select())
ok(client.store("2", "+FLAGS", r"(\Flagged)"))
ok(client.store("3", "+FLAGS", r"(\Deleted)"))
ok(client.expunge())
ok(client.rename('"Entw&APw-rfe/2026"', "Old"))
deliver(b"Subject: new\r\n\r\nnew\r\n")
"#,
        &[],
    );
    let (members, dir, later) = unpack(&site, "pop-imap", Some(&next), "later");
    assert_ne!(later, next);
    let messages: Vec<&String> = members.iter().filter(|path| path.contains("/cur/1")).collect();
    assert_eq!(messages.len(), 1, "the new one only: {members:?}");
    script(
        &site,
        r#"
u1, = accounts(rest[0])
found = lines(u1)
new, = [line for line in found if "file" in line]
raw = open(u1 + new["file"], "rb").read()
assert raw.endswith(b"Subject: new\r\n\r\nnew\r\n") and new["uid"] == 7, new
assert {"mailbox": new["mailbox"], "gone": [3]} in found, found
assert [line["flags"] for line in found if line.get("uid") == 2] == [["\\Flagged"]], found
names = {box["name"] for box in json.load(open(u1 + "fife-mailboxes.json"))["mailboxes"]}
assert "Old" in names and "Entwürfe/2026" not in names, names
"#,
        &[dir.to_str().unwrap()],
    );
    assert_eq!(fetch(&site, "pop-imap", Some("0-1-2-3"), "gone").0, "410");
    assert_eq!(fetch(&site, "pop-imap", Some("%20"), "gone").0, "410");
    for entry in fs::read_dir(site.state().join("pop-imap")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("spool"), "{name} was left");
    }
}

/// Messages that mutt sees in a Maildir.
fn mutt_counts(maildir: &Path) -> usize {
    let settings = "set status_format=\"Messages: %m.\"";
    let mutt =
        format!("TERM=xterm mutt -n -F /dev/null -R -f '{}' -e '{settings}' -e 'push <exit>'", maildir.display());
    let shown = good(&run("script", &["-qec", &mutt, "/dev/null"], b""));
    let (_, count) = shown.split_once("Messages: ").unwrap_or_else(|| panic!("{shown}"));
    count.split('.').next().unwrap().parse().unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// curl that has begun to read a snapshot, and waits.
struct Slow {
    curl: Child,
    from: ChildStdout,
    read: Vec<u8>,
}

impl Slow {
    fn start(site: &Site) -> Self {
        let mut curl = Command::new("curl")
            .args(["-sS", "--max-time", "60", "--unix-socket", &socket(site, "pop-imap"), "http://localhost/snapshot"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut from = curl.stdout.take().unwrap();
        let mut read = vec![0; 4096];
        from.read_exact(&mut read).unwrap();
        Self { curl, from, read }
    }

    /// Reads to the end: curl's exit status, and what came.
    fn finish(mut self) -> (i32, Vec<u8>) {
        self.from.read_to_end(&mut self.read).unwrap();
        (self.curl.wait().unwrap().code().unwrap(), self.read)
    }
}

#[test]
fn a_reader_that_pauses_gets_the_moment_at_which_it_asked_and_sees_when_the_role_dies() {
    let site = site();
    // More than pipes, sockets and the role hold of a stream.
    script(&site, "for _ in range(6):\n    deliver(b'Subject: old\\r\\n\\r\\n' + noise(1600000))", &[]);
    let slow = Slow::start(&site);
    script(
        &site,
        r#"
deliver(b"Subject: while it is read\r\n\r\nnew\r\n")
client = connect()
ok(client.select())
ok(client.store("1:6", "+FLAGS", r"(\Deleted)"))
ok(client.expunge())
"#,
        &[],
    );
    let (status, octets) = slow.finish();
    assert_eq!(status, 0);
    assert_eq!(octets.windows(14).filter(|window| *window == b"\r\nSubject: old").count(), 6);
    assert!(!octets.windows(24).any(|window| window == b"Subject: while it is read".get(..24).unwrap()));
    let tar = run("tar", &["-tf", "-"], &octets);
    assert!(good(&tar).lines().filter(|path| path.contains("/cur/1")).count() == 6 && tar.stderr.is_empty());

    script(&site, "for _ in range(6):\n    deliver(b'Subject: old\\r\\n\\r\\n' + noise(1600000))", &[]);
    let slow = Slow::start(&site);
    site.kill_role("pop-imap");
    let (status, octets) = slow.finish();
    assert_eq!(status, 18, "curl calls it a partial file");
    let tar = run("tar", &["-tf", "-"], &octets);
    assert!(!tar.status.success() && String::from_utf8_lossy(&tar.stderr).contains("Unexpected EOF"), "{}", text(&tar));
    site.wait_healthy();
    assert_eq!(fetch(&site, "pop-imap", None, "again.tar").0, "200");
}

#[test]
fn strangers_are_refused() {
    let site = site();
    let ask = |role: &str, user: &[&str]| {
        let (socket, more) =
            (socket(&site, role), ["--clear-groups", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"]);
        run("setpriv", &[user, &more, &["--unix-socket", &socket, "http://localhost/snapshot"]].concat(), b"")
    };
    for role in ["ldap-proxy", "pop-imap", "smtp"] {
        assert_eq!(good(&ask(role, &["--reuid=0", "--regid=0"])), "200");
        // Another role reaches the socket, and is not given anything.
        assert_eq!(good(&ask(role, &["--reuid=6999", "--regid=6100"])), "403");
        // Nobody else reaches it.
        assert_eq!(ask(role, &["--reuid=6999", "--regid=6999"]).status.code(), Some(7));
    }
    let smtp = ["--reuid=6103", "--regid=6100"];
    assert_eq!(good(&ask("pop-imap", &smtp)), "403");
    assert_eq!(good(&ask("smtp", &smtp)), "200", "its own");
}

#[test]
fn the_directory_is_ldif_with_everything_and_openldap_reads_it() {
    let site = site();
    let name = "dn: uid=u2,ou=example.test,o=demo\nchangetype: modify\nreplace: cn\ncn: \
        Ägypten mit einem sehr langen Namen, der in keine Zeile passt, wie er ist, sondern in zwei\n";
    let door = format!("ldapi://{}", site.state().join("run/ldap.sock").display().to_string().replace('/', "%2F"));
    good(&run("ldapmodify", &["-Q", "-Y", "EXTERNAL", "-H", &door], name.as_bytes()));
    let signs = || good(&site.fife(&["dkim", "list"])).contains("example.test");
    wait_for("the domain to have its keys", signs, || site.log_tail());
    let (members, dir, _) = unpack(&site, "ldap-proxy", None, "directory");
    assert_eq!(members, [".fife/snapshot.json", "directory/directory.ldif", "directory/fife.schema"]);
    let path = |name: &str| dir.join(name).display().to_string();
    fs::create_dir(dir.join("data")).unwrap();
    let schemas = ["core", "cosine", "inetorgperson"].map(|name| format!("include /etc/ldap/schema/{name}.schema\n"));
    let conf = format!(
        "{}include {}\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\ndatabase mdb\nsuffix o=demo\ndirectory {}\n",
        schemas.concat(),
        path("directory/fife.schema"),
        path("data"),
    );
    fs::write(path("slapd.conf"), conf).unwrap();
    good(&run("slapadd", &["-f", &path("slapd.conf"), "-l", &path("directory/directory.ldif")], b""));
    let theirs = good(&run("slapcat", &["-f", &path("slapd.conf")], b""));
    fs::write(path("theirs.ldif"), theirs).unwrap();
    good(&python(
        r#"
import base64, sys
def read(path):
    found, dn = set(), None
    for line in open(path).read().replace("\n ", "").splitlines():
        if line and not line.startswith('#'):
            name, value = line.split(":", 1)
            value = base64.b64decode(value[2:]) if value.startswith(": ") else value[1:].encode()
            dn = value if name == "dn" else dn
            found.add((dn, name.lower(), value))
    return found
ours, theirs = read(sys.argv[1]), read(sys.argv[2])
assert ours <= theirs, ours - theirs
names = [name for _, name, _ in ours]
assert names.count("dn") == 5 and names.count("userpassword") == 3 and names.count("fifedkimkey") == 2, names
assert any(value.startswith("Ägypten".encode()) and value.endswith(b"in zwei") for _, _, value in ours)
"#,
        &[&path("directory/directory.ldif"), &path("theirs.ldif")],
    ));
}

#[test]
fn the_queue_is_its_messages_and_their_envelopes() {
    let (mut site, _dns) = neighbours::site("", "[[smtp-outbound.routes]]\ndomains = [\"held.test\"]\nhold = true\n");
    site.launch();
    site.user("u1", PASSWORD);
    let sent = python(
        r#"
import smtplib, sys
with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=60) as s:
    s.login("u1@example.test", sys.argv[3])
    s.sendmail("u1@example.test", ["a@held.test", "b@held.test"], "Subject: one\r\n\r\nwaits\r\n")
    s.sendmail("u1@example.test", ["c@held.test"], "Subject: two\r\n\r\nwaits\r\n")
"#,
        &[&site.ip(), &site.port("submission"), PASSWORD],
    );
    assert!(sent.status.success(), "{}\n{}", text(&sent), site.log_tail());
    let queued = || good(&site.fife(&["queue", "list", "--json"])).lines().count() == 2;
    wait_for("both to be in the queue", queued, || site.log_tail());
    let (members, dir, _) = unpack(&site, "smtp", None, "queue");
    assert_eq!(members.len(), 5, "{members:?}");
    let mut found = Vec::new();
    for path in members.iter().filter(|path| path.ends_with(".json") && path.starts_with("queue/")) {
        let envelope: serde_json::Value = serde_json::from_slice(&fs::read(dir.join(path)).unwrap()).unwrap();
        assert_eq!(envelope["reverse-path"], "u1@example.test");
        let content = fs::read_to_string(dir.join(path.replace(".json", ".eml"))).unwrap();
        assert!(content.ends_with("\r\n\r\nwaits\r\n"), "{content}");
        found.push(envelope["recipients"].as_array().unwrap().len());
    }
    found.sort_unstable();
    assert_eq!(found, [1, 2]);
}
