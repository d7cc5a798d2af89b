//! Bundles good and hostile, signed by the `minisign` program.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::config::update::UpdateKey;

/// A key pair of the minisign program.
pub(in super::super) struct Signer {
    dir: tempfile::TempDir,
}

impl Signer {
    pub(in super::super) fn new() -> Self {
        let signer = Self { dir: tempfile::tempdir().unwrap() };
        signer.minisign(&["-G", "-W", "-p", "pub", "-s", "sec"]);
        signer
    }

    fn minisign(&self, arguments: &[&str]) {
        let output = Command::new("minisign").args(arguments).current_dir(self.dir.path()).output();
        let output = output.expect("minisign (package minisign)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(in super::super) fn key(&self) -> UpdateKey {
        fs::read_to_string(self.dir.path().join("pub")).unwrap().parse().unwrap()
    }

    /// The signature of a file, beside it.
    pub(in super::super) fn sign(&self, path: &Path) -> String {
        self.minisign(&["-S", "-s", "sec", "-m", path.to_str().unwrap()]);
        fs::read_to_string(format!("{}.minisig", path.display())).unwrap()
    }
}

/// A tar of these files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, octets) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(octets.len() as u64);
        header.set_mode(0o644);
        // The builder would refuse names that climb.
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *octets).unwrap();
    }
    tar.into_inner().unwrap()
}

fn manifest(version: &str, linux: &[u8], initrd: &[u8]) -> Vec<u8> {
    let describe =
        |octets: &[u8]| serde_json::json!({"size": octets.len(), "sha256": hex::encode(Sha256::digest(octets))});
    let files = serde_json::json!({"linux": describe(linux), "initrd": describe(initrd)});
    serde_json::json!({"version": version, "kernel": "6.1.0-1", "files": files}).to_string().into_bytes()
}

/// A bundle as the builder makes it.
pub(in super::super) fn good(version: &str) -> Vec<u8> {
    tar_of(&[
        ("manifest.json", &manifest(version, b"kernel", b"ramdisk")),
        ("linux", b"kernel"),
        ("initrd", b"ramdisk"),
    ])
}

struct World {
    dir: tempfile::TempDir,
    signer: Signer,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), signer: Signer::new() }
    }

    fn file(&self, octets: &[u8]) -> PathBuf {
        let path = self.dir.path().join("bundle");
        fs::write(&path, octets).unwrap();
        path
    }

    /// What unpacking says of a bundle that is signed as it is.
    fn signed(&self, octets: &[u8]) -> Result<Manifest, BundleError> {
        let path = self.file(octets);
        let signature = self.signer.sign(&path);
        let mut bundle = Bundle::verify(File::open(&path).unwrap(), &signature, self.signer.key().key())?;
        bundle.unpack(self.dir.path())
    }
}

#[test]
fn a_bundle_that_minisign_signed_is_unpacked() {
    let world = World::new();
    let manifest = world.signed(&good("1.2.3")).unwrap();
    assert_eq!((manifest.version.as_str(), manifest.kernel.as_str()), ("1.2.3", "6.1.0-1"));
    assert_eq!(fs::read(world.dir.path().join("linux")).unwrap(), b"kernel");
    assert_eq!(fs::read(world.dir.path().join("initrd")).unwrap(), b"ramdisk");
}

#[test]
fn what_is_not_signed_as_it_is_is_never_looked_into() {
    let world = World::new();
    let path = world.file(&good("1"));
    let (signature, key) = (world.signer.sign(&path), world.signer.key());
    let check = |octets: &[u8], signature: &str, key: &UpdateKey, expected: &str| {
        let path = world.file(octets);
        let refused = Bundle::verify(File::open(path).unwrap(), signature, key.key()).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    };
    let mut altered = good("1");
    altered[600] ^= 1;
    check(&altered, &signature, &key, "not of this bundle");
    check(&good("1")[..1024], &signature, &key, "not of this bundle");
    check(&[], &signature, &key, "not of this bundle");
    check(&good("1"), "", &key, "no minisign signature");
    check(&good("1"), "untrusted comment: x\nAAAA\ntrusted comment: y\nAAAA\n", &key, "no minisign signature");
    check(&good("1"), &signature, &Signer::new().key(), "another key");
    // The comment is signed too.
    check(&good("1"), &signature.replace("timestamp", "timestomp"), &key, "not of this bundle");
}

#[test]
fn a_signed_bundle_that_is_none_is_refused() {
    let world = World::new();
    let check = |octets: &[u8], expected: &str| {
        let refused = world.signed(octets).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}, not {expected}");
    };
    let manifest = manifest("1", b"kernel", b"ramdisk");
    let with = |files: &[(&str, &[u8])]| {
        let mut all: Vec<(&str, &[u8])> = vec![("manifest.json", &manifest)];
        all.extend(files);
        tar_of(&all)
    };
    let rest: [(&str, &[u8]); 2] = [("linux", b"kernel"), ("initrd", b"ramdisk")];
    check(b"", "manifest.json is missing");
    check(&[0x55; 2000], "cannot be read");
    check(&tar_of(&rest), "\"linux\" is where manifest.json should be");
    check(&tar_of(&[("manifest.json", b"{}")]), "missing field");
    check(&with(&[("../../etc/passwd", b"kernel")]), "../../etc/passwd\" is where linux should be");
    check(&with(&[("/linux", b"kernel")]), "is where linux should be");
    check(&with(&[("initrd", b"ramdisk"), ("linux", b"kernel")]), "is where linux should be");
    check(&with(&[("linux", b"kernel")]), "initrd is missing");
    check(&with(&[("linux", b"kern"), ("initrd", b"ramdisk")]), "linux has 4 octets, not 6");
    check(&with(&[("linux", b"colonl"), ("initrd", b"ramdisk")]), "another SHA-256");
    check(&with(&[rest[0], rest[1], ("more", b"")]), "more files");
    // The archive ends in the middle of a file; the header still says its length.
    let whole = with(&rest);
    let kernel_at = whole.windows(6).rposition(|window| window == b"kernel").unwrap();
    check(&whole[..kernel_at + 3], "ends early");
    let odd = String::from_utf8(manifest.clone()).unwrap();
    for version in ["1\\noptions init=/bin/sh", "../1", "", "1 2", ".."] {
        let text = odd.replace("\"version\":\"1\"", &format!("\"version\":\"{version}\""));
        assert_ne!(text, odd);
        check(&tar_of(&[("manifest.json", text.as_bytes()), rest[0], rest[1]]), "is no version");
    }
    // A length in the header that the archive does not have.
    let mut lying = with(&rest);
    let header = 512 + manifest.len().div_ceil(512) * 512;
    lying[header + 124..header + 135].copy_from_slice(b"77777777777");
    check(&lying, "");
    let long = vec![b' '; 70_000];
    check(&tar_of(&[("manifest.json", &long)]), "too long");
}

#[test]
fn versions_are_ordered_as_they_came_out() {
    let check = |one: &str, other: &str, expected: Ordering| {
        assert_eq!(compare(one, other), expected, "{one} {other}");
        assert_eq!(compare(other, one), expected.reverse(), "{other} {one}");
    };
    check("1.0.0", "1.0.0", Ordering::Equal);
    check("1.9.0", "1.10.0", Ordering::Less);
    check("1.0", "1.0.1", Ordering::Less);
    check("1.0.0-rc1", "1.0.0", Ordering::Less);
    check("1.0.0-rc2", "1.0.0-rc10", Ordering::Less);
    check("1.0.0-rc1", "1.0.1", Ordering::Less);
    check("1.0.0+build5", "1.0.0+build9", Ordering::Equal);
    check("6.1.0-56-amd64", "6.1.0-9-amd64", Ordering::Greater);
    check("6.1.0-56-amd64", "6.12.1-1-amd64", Ordering::Less);
}
