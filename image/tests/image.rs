//! The built image, looked at by the programs that others use for it.
//!
//! Owns: what holds for the files before anything boots. Witnesses: sgdisk, fsck.vfat, e2fsck, mtools, GNU cpio, minisign.
//! The binary in it is this test's own executable: any static program does; that fife boots is for the tests under QEMU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fault in the set-up ends the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fife_image::{Built, Options, disk, files};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn build(out: &Path) -> Built {
    let fife = std::env::current_exe().unwrap();
    let options = Options {
        root: root(),
        fife,
        version: "0.0.1".to_owned(),
        out: out.to_path_buf(),
        sign_key: None,
        config: None,
        fast: true,
    };
    fife_image::build(&options).unwrap()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output().unwrap();
    assert!(output.status.success(), "{program}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// One after the other: they share the work directory.
#[test]
fn the_image_is_sound_and_made_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let built = build(dir.path());
    let image = built.image.display().to_string();
    let first = (files::sha256(&built.image).unwrap(), files::sha256(&built.bundle).unwrap());

    assert!(run("sgdisk", &["-v", &image]).contains("No problems found"));
    let esp = dir.path().join("esp").display().to_string();
    let (skip, count) = (disk::ESP_FIRST_LBA, disk::ESP_LEN / disk::SECTOR);
    let copy = |of: &str, skip: u64, count: u64| {
        let (skip, count) = (format!("skip={skip}"), format!("count={count}"));
        run("dd", &[&format!("if={image}"), &format!("of={of}"), "bs=512", &skip, &count, "status=none"]);
    };
    copy(&esp, skip, count);
    run("fsck.vfat", &["-n", &esp]);
    let data = dir.path().join("data").display().to_string();
    copy(&data, skip + count, disk::DATA_LEN / disk::SECTOR);
    run("e2fsck", &["-fn", &data]);

    let settings = run("mtype", &["-i", &esp, "::fife.toml"]);
    assert_eq!(settings, std::fs::read_to_string(root().join("etc/image.toml")).unwrap());
    assert_eq!(run("mtype", &["-i", &esp, "::fife/grubenv"]).len(), 1024);
    check_system(dir.path(), &esp);
    check_bundle(dir.path(), &built);

    let again = build(dir.path());
    assert_eq!((files::sha256(&again.image).unwrap(), files::sha256(&again.bundle).unwrap()), first);
}

/// What GNU cpio finds in the initramfs: all that the boot counts on, and nothing secret.
fn check_system(dir: &Path, esp: &str) {
    let initrd = dir.join("initrd").display().to_string();
    run("mcopy", &["-n", "-i", esp, "::fife/a/initrd", &initrd]);
    let list = run("sh", &["-c", &format!("zstd -dc {initrd} | cpio -t --quiet")]);
    let paths: BTreeSet<&str> = list.lines().collect();
    for path in
        ["init", "usr/bin/fife", "bin/busybox", "sbin/e2fsck", "etc/resolv.conf", "etc/fife/update.pub", "dev/console"]
    {
        assert!(paths.contains(path), "{path} is missing");
    }
    let secret = paths.iter().find(|path| path.contains("update.key") || path.contains("secret"));
    assert_eq!(secret, None);

    let unpacked = dir.join("system");
    std::fs::create_dir(&unpacked).unwrap();
    run("sh", &["-c", &format!("cd {} && zstd -dc {initrd} | cpio -id --quiet 'lib/*' 'etc/*'", unpacked.display())]);
    let base = run("sh", &["-c", &format!("ls -d {}/lib/modules/*", unpacked.display())]).trim().to_owned();
    // Whatever a module needs is there, and is loaded before it.
    let dep = std::fs::read_to_string(format!("{base}/modules.dep")).unwrap();
    for path in dep.split([':', ' ', '\n']).filter(|path| !path.is_empty()) {
        assert!(Path::new(&base).join(path).exists(), "{path} is missing");
    }
    let line = |name: &str| dep.lines().find(|line| line.split(':').next().unwrap().ends_with(name)).unwrap();
    let ext4 = line("/ext4.ko");
    assert!(ext4.contains("jbd2.ko") && ext4.contains("mbcache.ko"), "{ext4}");
    let alias = std::fs::read_to_string(format!("{base}/modules.alias")).unwrap();
    for (pattern, module) in [("virtio:d00000002v*", "virtio_blk"), ("pci:v00008086d0000100E", "e1000")] {
        assert!(alias.lines().any(|line| line.contains(pattern) && line.ends_with(module)), "{pattern}");
    }
}

/// minisign believes the bundle by the key that the image carries, and not when a bit is another.
fn check_bundle(dir: &Path, built: &Built) {
    let key = dir.join("system/etc/fife/update.pub").display().to_string();
    let bundle = built.bundle.display().to_string();
    run("minisign", &["-Vm", &bundle, "-p", &key]);
    let manifest = run("tar", &["-xOf", &bundle, "manifest.json"]);
    assert!(manifest.contains("\"version\": \"0.0.1\""), "{manifest}");
    let forged = dir.join("forged.update");
    let mut octets = std::fs::read(&built.bundle).unwrap();
    *octets.last_mut().unwrap() ^= 1;
    std::fs::write(&forged, octets).unwrap();
    std::fs::copy(format!("{bundle}.minisig"), dir.join("forged.update.minisig")).unwrap();
    let forged = forged.display().to_string();
    assert!(!Command::new("minisign").args(["-Vm", &forged, "-p", &key]).output().unwrap().status.success());
}
