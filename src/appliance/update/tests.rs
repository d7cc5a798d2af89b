//! Updates from files and over HTTP into a machine that lies in a directory.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::super::bundle::tests::{Signer, good};
use super::*;
use crate::config::dns::Dns;

/// A machine that runs version 1.1 from slot a.
struct Machine {
    dir: tempfile::TempDir,
    signer: Signer,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap(), signer: Signer::new() };
        let entry = "title fife 1.1\nsort-key fife\nversion 1\nlinux /fife/a/linux\ninitrd /fife/a/initrd\noptions quiet fife.slot=a\n";
        for (path, text) in [
            ("proc/cmdline", "quiet fife.slot=a\n"),
            ("etc/fife/version", "1.1\n"),
            ("etc/fife/kernel-version", "6.1.0-1\n"),
            ("etc/fife/update.pub", &format!("untrusted comment: x\n{}\n", machine.signer.key())),
            ("boot/loader/entries/fife-a.conf", entry),
            ("boot/fife/grubenv", "slot=a\n"),
        ] {
            let path = machine.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A signed bundle of this version.
    fn bundle(&self, version: &str) -> PathBuf {
        let path = self.path("fife.update");
        fs::write(&path, good(version)).unwrap();
        self.signer.sign(&path);
        path
    }

    fn update(&self, source: &Source, key: Option<&UpdateKey>, force: bool) -> Result<Staged, UpdateError> {
        let system = System::at(self.dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let resolver = crate::net::dns::resolver(&Dns::default()).unwrap();
            system.update(source, key, &resolver, &self.path("work"), force).await
        });
        assert!(!self.path("work").exists(), "what was fetched is removed");
        outcome
    }

    /// Whether slot b is what it was: empty.
    fn is_untouched(&self) -> bool {
        !self.path("boot/fife/b").exists() && fs::read_dir(self.path("boot/loader/entries")).unwrap().count() == 1
    }
}

#[test]
fn a_signed_file_is_staged_in_the_other_slot() {
    let machine = Machine::new();
    let staged = machine.update(&Source::File(machine.bundle("1.2")), None, false).unwrap();
    assert_eq!(staged, Staged { version: "1.2".to_owned(), kernel: "6.1.0-1".to_owned(), slot: Slot::B });
    assert_eq!(fs::read(machine.path("boot/fife/b/linux")).unwrap(), b"kernel");
    assert!(machine.path("boot/loader/entries/fife-b+3.conf").exists());
}

#[test]
fn what_is_older_is_taken_by_force_only() {
    let machine = Machine::new();
    let older = Source::File(machine.bundle("1.0"));
    assert!(matches!(machine.update(&older, None, false), Err(UpdateError::Older { .. })));
    assert!(machine.is_untouched());
    machine.update(&older, None, true).unwrap();
    machine.update(&Source::File(machine.bundle("1.1")), None, false).expect("the same version again");
}

#[test]
fn a_refused_bundle_touches_nothing() {
    let machine = Machine::new();
    let path = machine.bundle("1.2");
    let other = Signer::new().key();
    let refused = machine.update(&Source::File(path.clone()), Some(&other), false).unwrap_err();
    assert!(matches!(refused, UpdateError::Bundle(BundleError::OtherKey)), "{refused}");
    fs::write(&path, &good("1.2")[..1000]).unwrap();
    let refused = machine.update(&Source::File(path.clone()), None, true).unwrap_err();
    assert!(matches!(refused, UpdateError::Bundle(BundleError::Forged)), "{refused}");
    fs::remove_file(signature_of(&path)).unwrap();
    let refused = machine.update(&Source::File(path), None, false).unwrap_err().to_string();
    assert!(refused.contains("fife.update.minisig"), "{refused}");
    assert!(machine.is_untouched());
}

#[test]
fn a_machine_that_did_not_boot_from_the_image_is_told_so() {
    let machine = Machine::new();
    fs::write(machine.path("proc/cmdline"), "root=/dev/sda1\n").unwrap();
    assert!(matches!(System::at(machine.dir.path()), Err(UpdateError::NotAppliance(_))));
}

/// Answers requests by the path, until the listener's address is no longer asked: as many as there are answers.
fn serve(answers: Vec<(&'static str, Vec<u8>)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let answers = Arc::new(answers);
    let serving = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for (head, body) in answers.iter() {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut octet = [0];
            while !request.ends_with(b"\r\n\r\n") {
                assert_eq!(stream.read(&mut octet).unwrap(), 1);
                request.push(octet[0]);
            }
            asked.push(String::from_utf8(request).unwrap().split(' ').nth(1).unwrap().to_owned());
            // The other end may have seen enough.
            stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).and_then(|()| stream.write_all(body)).ok();
        }
        asked
    });
    (at, serving)
}

#[test]
fn a_bundle_is_fetched_from_a_url_by_way_of_a_redirection() {
    let machine = Machine::new();
    let path = machine.bundle("1.2");
    let (bundle, signature) = (fs::read(&path).unwrap(), fs::read(signature_of(&path)).unwrap());
    let (at, serving) = serve(vec![
        ("302 Found\r\nLocation: /there/fife.update.minisig\r\nContent-Length: 0", Vec::new()),
        ("200 OK\r\nConnection: close", signature),
        ("200 OK\r\nConnection: close", bundle),
    ]);
    let url = format!("http://{at}/fife.update?a=b").parse().unwrap();
    assert_eq!(machine.update(&Source::Url(url), None, false).unwrap().version, "1.2");
    assert_eq!(serving.join().unwrap(), ["/fife.update.minisig?a=b", "/there/fife.update.minisig", "/fife.update?a=b"]);
}

#[test]
fn a_server_that_does_not_do_as_it_should_is_no_source() {
    let check = |answers: Vec<(&'static str, Vec<u8>)>, expected: &str| {
        let machine = Machine::new();
        let (at, serving) = serve(answers);
        let url = format!("http://{at}/x").parse().unwrap();
        let refused = machine.update(&Source::Url(url), None, false).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(machine.is_untouched());
        serving.join().unwrap();
    };
    check(vec![("404 Not Found\r\nContent-Length: 0", Vec::new())], "404");
    check(vec![("200 OK\r\nContent-Length: 100", b"short".to_vec())], "ends early");
    check(vec![("200 OK\r\nConnection: close", vec![b'x'; 5000])], "more than 4096 octets");
    check(vec![("302 Found\r\nLocation: ftp://a/b\r\nContent-Length: 0", Vec::new())], "odd place");
    check(vec![("302 Found\r\nContent-Length: 0", Vec::new())], "odd place");
    check(vec![("301 Moved\r\nLocation: /x\r\nContent-Length: 0", Vec::new()); 6], "odd place");
    check(vec![("nonsense", Vec::new())], "/x");
}

#[test]
fn urls_and_keys_are_checked_where_they_are_written() {
    let check = |url: &str, good: bool| assert_eq!(url.parse::<BundleUrl>().is_ok(), good, "{url}");
    check("https://mirror.example.test/fife.update", true);
    check("http://[::1]:8080/x", true);
    for bad in ["ftp://a/b", "/x", "mirror.example.test/x", "https://user:secret@a/x", "https:///x", ""] {
        check(bad, false);
    }
    assert!("RWQ".parse::<UpdateKey>().is_err());
    assert!("".parse::<UpdateKey>().is_err());
}
