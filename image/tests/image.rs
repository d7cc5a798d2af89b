//! The built image, looked at by the programs that others use for it.
//!
//! Owns: what holds for the files before anything boots. Witnesses: sgdisk, fsck.vfat, e2fsck, mtools, GNU cpio, minisign.
//! The binary in it is this test's own executable: any static program does; that fife boots is for the tests under QEMU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fault in the set-up ends the test")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fife_image::source::Source;
use fife_image::{Built, Options, disk, files};

/// Of each kind of hardware that is promised one, and what nothing else would bring in.
const MODULES_OF_SERVERS: [&str; 57] = [
    "ahci",
    "nvme",
    "virtio_blk",
    "virtio_scsi",
    "megaraid_sas",
    "mpt3sas",
    "aacraid",
    "hpsa",
    "usb-storage",
    "virtio_net",
    "e1000e",
    "igb",
    "ixgbe",
    "i40e",
    "ice",
    "tg3",
    "bnxt_en",
    "r8169",
    "mlx5_core",
    "bonding",
    "8021q",
    "st",
    "sg",
    "ch",
    "option",
    "ftdi_sio",
    "pl2303",
    "cp210x",
    "cdc-acm",
    "nfs",
    "nfsv4",
    "ext4",
    "xfs",
    "vfat",
    "dm-mod",
    "iscsi_tcp",
    "softdog",
    "i6300esb",
    "iTCO_wdt",
    "ip_vs",
    "ip_vs_wlc",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "crc32c_generic",
    "crc32c-intel",
    "efivarfs",
    "virtio_pci",
    "xhci-pci",
    "ehci-pci",
    "uhci-hcd",
    "sd_mod",
    "sr_mod",
    "usbhid",
    "button",
    "virtio-rng",
    "mbcache",
];

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

/// One test: the image is built once for all that is looked at, and a second time to be compared.
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
    check_secrets(dir.path(), &built);
    assert!(files::list(dir.path()).unwrap().iter().all(|name| !name.starts_with('.')), "the work directory is left");

    // At another place, with nothing left over from the first time.
    let elsewhere = tempfile::tempdir().unwrap();
    let again = build(elsewhere.path());
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
    let unpacked = dir.join("system");
    std::fs::create_dir(&unpacked).unwrap();
    run("sh", &["-c", &format!("cd {} && zstd -dc {initrd} | cpio -idm --quiet 'lib/*' 'etc/*'", unpacked.display())]);
    let base = run("sh", &["-c", &format!("ls -d {}/lib/modules/*", unpacked.display())]).trim().to_owned();
    // Whatever a module needs is there, and is loaded before it.
    let dep = std::fs::read_to_string(format!("{base}/modules.dep")).unwrap();
    for path in dep.split([':', ' ', '\n']).filter(|path| !path.is_empty()) {
        assert!(Path::new(&base).join(path).exists(), "{path} is missing");
    }
    let line = |name: &str| dep.lines().find(|line| line.split(':').next().unwrap().ends_with(name)).unwrap();
    let ext4 = line("/ext4.ko");
    assert!(ext4.contains("jbd2.ko") && ext4.contains("mbcache.ko"), "{ext4}");
    for name in MODULES_OF_SERVERS {
        line(&format!("/{name}.ko"));
    }
    // A clock in the past is set to the age of the system's files: that of the source.
    let version = Path::new(&format!("{}/etc/fife/version", unpacked.display())).metadata().unwrap();
    let time = version.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(time, u64::from(Source::of(&root()).unwrap().time));
    let alias = std::fs::read_to_string(format!("{base}/modules.alias")).unwrap();
    for (pattern, module) in [("virtio:d00000002v*", "virtio_blk"), ("pci:v00008086d0000100E", "e1000")] {
        assert!(alias.lines().any(|line| line.contains(pattern) && line.ends_with(module)), "{pattern}");
    }
}

/// The key that signs is nowhere in what is given away, not as it is written in its file and not in octets.
fn check_secrets(dir: &Path, built: &Built) {
    let file = root().join("target/image/keys/update.key");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "others can read {}", file.display());
    let key = std::fs::read_to_string(file).unwrap();
    let written = key.lines().last().unwrap().as_bytes();
    let secret =
        run("sh", &["-c", &format!("printf %s '{}' | base64 -d | od -An -v -tx1", String::from_utf8_lossy(written))]);
    // minisign's own format: two octets of kind for each of three algorithms, 32 of salt, 8 + 8 of limits, 8 of key number, then the key.
    let secret: Vec<u8> = secret.split_whitespace().map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    let seed = secret.get(62..94).unwrap();
    let system = dir.join("initrd.cpio").display().to_string();
    run("zstd", &["-qdfo", &system, &dir.join("initrd").display().to_string()]);
    for path in [Path::new(&system), &built.image, &built.bundle] {
        let octets = std::fs::read(path).unwrap();
        for part in [written, seed] {
            assert!(!octets.windows(part.len()).any(|found| found == part), "the secret key is in {}", path.display());
        }
    }
    let etc = dir.join("system/etc").display().to_string();
    let found = Command::new("grep").args(["-rlE", "PRIVATE KEY|secret key", &etc]).output().unwrap();
    assert_eq!(text(&found), "");
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
