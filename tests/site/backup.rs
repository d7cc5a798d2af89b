//! Backups on volumes, against GNU tar, zstd and dd: what stands there is theirs to read, and what goes wrong leaves the rest alone.
//!
//! Owns: `fife backup run|list|find|verify|restore|scan` from outside. Called by: `cargo test`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{FIFE, Site, good, python, run, text, wait_for};

/// A site with a directory of volumes for a drive, and the job `data` over a directory.
struct Vault {
    site: Site,
}

impl Vault {
    /// Without a running site.
    fn new(more: &str) -> Self {
        let site = Site::prepare("");
        let (volumes, data) = (site.dir().join("volumes"), site.dir().join("data"));
        fs::create_dir_all(&volumes).unwrap();
        fs::create_dir_all(&data).unwrap();
        let table = format!(
            "\n[backup-to-tape]\ndrive = \"file:{}\"\nbuffer = \"64 MiB\"\n{more}\njobs = [\n  {{ name = \"data\", sources = [\"path:{}\"] }},\n  \
             {{ name = \"kernel\", sources = [\"path:/proc/sys/net/ipv4/route\"] }},\n  \
             {{ name = \"site\", sources = [\"mail\", \"directory\", \"queue\", \"configuration\"] }},\n]\n",
            volumes.display(),
            data.display()
        );
        let toml = fs::read_to_string(site.config()).unwrap();
        fs::write(site.config(), toml + &table).unwrap();
        Self { site }
    }

    fn data(&self) -> PathBuf {
        self.site.dir().join("data")
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.site.dir().join("volumes").join(name)
    }

    fn backup(&self, args: &[&str]) -> String {
        good(&self.refused(args))
    }

    fn refused(&self, args: &[&str]) -> std::process::Output {
        self.site.fife(&[&["backup"], args].concat())
    }

    /// Restores everything; the directory below which it lies.
    fn restored(&self) -> PathBuf {
        let to = self.site.dir().join("back");
        drop(fs::remove_dir_all(&to));
        self.backup(&["restore", "*", "--to", to.to_str().unwrap()]);
        to.join(self.data().strip_prefix("/").unwrap())
    }
}

/// Octets that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut octets = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut octets);
    octets
}

fn fill(dir: &Path, count: u64, len: usize) {
    fs::create_dir_all(dir.join("sub")).unwrap();
    for number in 0..count {
        fs::write(dir.join(format!("sub/file-{number}")), noise(len, number)).unwrap();
    }
    fs::write(dir.join("a name\nof two lines, café, and long ".to_owned() + &"x".repeat(180)), b"odd").unwrap();
    symlink("sub/file-0", dir.join("link")).unwrap();
    fs::hard_link(dir.join("sub/file-1"), dir.join("hard")).unwrap();
}

/// Fails unless both hold the same, names, kinds and contents.
fn same(a: &Path, b: &Path) {
    good(&run("diff", &["-r", "--no-dereference", a.to_str().unwrap(), b.to_str().unwrap()], b""));
}

fn shell(script: &str) -> String {
    good(&run("sh", &["-euc", script], b""))
}

#[test]
fn what_dd_zstd_and_tar_restore_is_what_was_there() {
    let vault = Vault::new("");
    fill(&vault.data(), 30, 300_000);
    vault.backup(&["run", "data"]);
    let volume = vault.volume("fife-0001");
    let label = fs::read_to_string(volume.join("000000")).unwrap();
    assert!(label.contains("dd if=/dev/nst0 bs=1048576 | zstd -dc | tar -xpf -"), "{label}");
    let by_hand = vault.site.dir().join("by-hand");
    let (tape, to) = (volume.join("000001"), by_hand.display());
    shell(&format!("mkdir {to}; dd if={} bs=1048576 status=none | zstd -dc | tar -xpf - -C {to}", tape.display()));
    same(&vault.data(), &by_hand.join(vault.data().strip_prefix("/").unwrap()));
    let list = shell(&format!("dd if={} bs=1048576 status=none | zstd -dc", volume.join("000002").display()));
    assert!(list.lines().all(|line| line.starts_with("{\"kind\":")), "{list}");
    same(&vault.data(), &vault.restored());
    assert!(vault.backup(&["find", "*file-7"]).contains("sub/file-7"));
    assert!(vault.backup(&["verify"]).contains("0 damaged"));
    // Only what is new is in the next one; both together are what is there.
    fs::write(vault.data().join("sub/new"), b"new").unwrap();
    let told = vault.backup(&["run", "data", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["end"]["volume"] == "fife-0001", "behind the first: {told}");
    assert!(volume.join("000004").exists());
    same(&vault.data(), &vault.restored());
}

#[test]
fn a_part_over_several_volumes_is_one_tar_and_a_lost_catalogue_comes_back() {
    let vault = Vault::new("volume-size = \"40 MiB\"");
    fill(&vault.data(), 350, 300_000);
    vault.backup(&["run", "data"]);
    let tapes: Vec<String> =
        (1..=3).map(|n| vault.volume(&format!("fife-000{n}")).join("000001").display().to_string()).collect();
    let to = vault.site.dir().join("by-hand");
    let pieces: String = tapes.iter().map(|tape| format!("dd if={tape} bs=1048576 status=none | zstd -dc; ")).collect();
    shell(&format!("mkdir {to}; ({pieces}) | tar -xpf - -C {to}", to = to.display()));
    same(&vault.data(), &to.join(vault.data().strip_prefix("/").unwrap()));
    same(&vault.data(), &vault.restored());
    fs::remove_dir_all(vault.site.state().join("backup-to-tape")).unwrap();
    for name in ["fife-0002", "fife-0001", "fife-0003"] {
        let loaded = vault.site.dir().join("volumes/loaded");
        fs::remove_file(&loaded).unwrap();
        symlink(name, &loaded).unwrap();
        vault.backup(&["scan"]);
    }
    same(&vault.data(), &vault.restored());
}

#[test]
fn a_damaged_block_costs_what_stands_in_it_and_nothing_else() {
    let vault = Vault::new("");
    fill(&vault.data(), 60, 300_000);
    vault.backup(&["run", "data"]);
    let tape = vault.volume("fife-0001").join("000001");
    shell(&format!("dd if=/dev/zero of={} bs=1000 seek=9000 count=5 conv=notrunc status=none", tape.display()));
    let to = vault.site.dir().join("back");
    let output = vault.refused(&["restore", "*", "--to", to.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let damaged = report["damaged"].as_array().unwrap();
    assert!(!damaged.is_empty() && damaged.len() <= 30, "{report}");
    assert!(damaged[0]["reason"].as_str().unwrap().contains("volume fife-0001"), "{report}");
    let back = to.join(vault.data().strip_prefix("/").unwrap());
    for number in 0..60 {
        let name = format!("sub/file-{number}");
        let told = damaged.iter().any(|fault| fault["path"].as_str().unwrap().ends_with(&name));
        match fs::read(back.join(&name)) {
            Ok(octets) => assert!(!told && octets == noise(300_000, number), "{name}"),
            Err(_) => assert!(told, "{name} is missing and not told"),
        }
    }
}

#[test]
fn a_part_that_lost_its_list_is_not_written_over() {
    let vault = Vault::new("");
    fill(&vault.data(), 3, 1000);
    vault.backup(&["run", "data"]);
    vault.backup(&["run", "data", "--full"]);
    fs::remove_dir_all(vault.site.state().join("backup-to-tape")).unwrap();
    let list = vault.volume("fife-0001").join("000002");
    shell(&format!("dd if=/dev/zero of={} bs=100 seek=1 count=1 conv=notrunc status=none", list.display()));
    let output = vault.refused(&["run", "data"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fife backup scan"), "{}", text(&output));
    assert!(vault.backup(&["scan"]).contains("it was read itself"));
    vault.backup(&["run", "data", "--full"]);
    assert!(vault.volume("fife-0001").join("000006").exists());
    same(&vault.data(), &vault.restored());
}

#[test]
fn what_is_not_ours_is_never_written_to() {
    let vault = Vault::new("");
    fill(&vault.data(), 3, 1000);
    let foreign = vault.volume("theirs");
    fs::create_dir_all(&foreign).unwrap();
    let archive = foreign.join("000000");
    good(&run(
        "tar",
        &["-b", "2048", "-cf", archive.to_str().unwrap(), "-C", vault.data().to_str().unwrap(), "sub"],
        b"",
    ));
    fs::write(foreign.join("block-bytes"), "1048576\n").unwrap();
    symlink("theirs", vault.site.dir().join("volumes/loaded")).unwrap();
    let before = fs::read(&archive).unwrap();
    for args in [&["run", "data"][..], &["run", "data", "--overwrite", "theirs"], &["scan"]] {
        let output = vault.refused(args);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("a tar archive"), "{}", text(&output));
    }
    assert!(fs::read(&archive).unwrap() == before && fs::read_dir(&foreign).unwrap().count() == 2);
    // A volume of ours is begun anew only by its name.
    fs::remove_file(vault.site.dir().join("volumes/loaded")).unwrap();
    vault.backup(&["run", "data"]);
    let output = vault.refused(&["run", "data", "--overwrite", "fife-0009"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    vault.backup(&["run", "data", "--overwrite", "fife-0001"]);
    assert_eq!(vault.backup(&["list"]).lines().count(), 1);
}

#[test]
fn after_kill_9_the_next_run_goes_on_behind_the_last_whole_part() {
    let vault = Vault::new("");
    fill(&vault.data(), 3, 1000);
    vault.backup(&["run", "data"]);
    // So much that it is still being written when the kill comes.
    let huge = vault.data().join("huge");
    fs::write(&huge, noise(250_000_000, 7)).unwrap();
    let (config, state) = (vault.site.config(), vault.site.state());
    let mut child = Command::new(FIFE)
        .args(["backup", "run", "data", "--full", "--config"])
        .arg(&config)
        .arg("--state")
        .arg(&state)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let third = vault.volume("fife-0001").join("000003");
    wait_for("the second part to be begun", || fs::metadata(&third).is_ok_and(|told| told.len() > 0), String::new);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(&huge).unwrap();
    assert_eq!(vault.backup(&["list"]).lines().count(), 1);
    vault.backup(&["run", "data", "--full"]);
    let list = vault.backup(&["list"]);
    assert!(list.lines().count() == 2 && !list.contains("NOT WHOLE"), "{list}");
    assert!(vault.volume("fife-0001").join("000004").exists());
    same(&vault.data(), &vault.restored());
}

/// Delivers a message to u1 and u2 whose text is this word.
fn deliver(site: &Site, word: &str) {
    let script = r#"
import smtplib, sys
with smtplib.LMTP(sys.argv[1], int(sys.argv[2]), timeout=30) as lmtp:
    raw = f"Subject: x\r\n\r\n{sys.argv[3]}\r\n".encode()
    assert not lmtp.sendmail("a@other.test", ["u1@example.test", "u2@example.test"], raw)
    assert lmtp.getreply()[0] == 250
"#;
    good(&python(script, &[&site.ip(), &site.port("lmtp"), word]));
}

/// What Python's mailbox reads in all Maildirs below, one word a message.
fn words(dir: &Path) -> Vec<String> {
    let script = r#"
import glob, mailbox, sys
for root in glob.glob(sys.argv[1] + "/mail/*/Maildir"):
    for message in mailbox.Maildir(root, factory=None, create=False):
        print(message.get_payload().strip())
"#;
    let mut words: Vec<String> = good(&python(script, &[dir.to_str().unwrap()])).lines().map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
fn a_site_that_serves_is_backed_up_and_restored_when_it_does_not() {
    let mut vault = Vault::new("");
    vault.site.launch();
    vault.site.user("u1", "correct horse");
    vault.site.user("u2", "correct horse");
    deliver(&vault.site, "one");
    deliver(&vault.site, "two");
    vault.backup(&["run", "site"]);
    let by_hand = vault.site.dir().join("by-hand");
    let (volume, to) = (vault.volume("fife-0001"), by_hand.display());
    // Parts are tape files 1, 3, 5 and 7.
    shell(&format!(
        "mkdir {to}; cd {}; for part in 1 3 5 7; do dd if=00000$part bs=1048576 status=none | zstd -dc | tar -xpf - -C {to}; done",
        volume.display()
    ));
    assert_eq!(words(&by_hand), ["one", "one", "two", "two"]);
    let ldif = fs::read_to_string(by_hand.join("directory/directory.ldif")).unwrap();
    assert!(ldif.contains("u1@example.test") && ldif.contains("userPassword"), "{ldif}");
    let config = vault.site.config();
    let copy = by_hand.join(config.strip_prefix("/").unwrap());
    assert_eq!(fs::read(copy).unwrap(), fs::read(config).unwrap());

    deliver(&vault.site, "three");
    vault.backup(&["run", "site"]);
    let new = shell(&format!("dd if={} bs=1048576 status=none | zstd -dc | tar -t", volume.join("000009").display()));
    assert_eq!(
        new.lines().filter(|path| path.contains("/cur/") && !path.ends_with('/')).count(),
        2,
        "only what is new: {new}"
    );

    vault.site.kill_all();
    let back = vault.site.dir().join("back");
    vault.backup(&["restore", "mail", "--to", back.to_str().unwrap()]);
    assert_eq!(words(&back), ["one", "one", "three", "three", "two", "two"]);
    assert!(!back.join("directory").exists(), "only what was asked for");
    assert!(vault.backup(&["find", "*directory.ldif"]).contains("directory/directory.ldif"));
}

#[test]
fn what_cannot_be_read_is_told_and_all_else_is_in_the_backup() {
    let vault = Vault::new("");
    // One file there is nobody's to read, not even root's.
    let output = vault.refused(&["run", "kernel"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("not in the backup: /proc/sys/net/ipv4/route/flush"), "{told}");
    assert!(vault.backup(&["find", "*route/*"]).contains("route/gc_interval"));
}
