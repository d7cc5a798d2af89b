//! Further disks and a file server: mounted when they are there, told when they are not, left in order, and never in anybody's way.

use std::path::Path;
use std::process::Command;

use fife_qemu_tests::nfs::{PSEUDO, Server};
use fife_qemu_tests::shell::{self, Shell};
use fife_qemu_tests::{Disk, Guest, wait_for};
use serde_json::json;

const NEVER: [&str; 2] = ["Kernel panic", "panicked"];

/// Waits until the console has said this at any time: mounts come in no order.
fn says(guest: &Guest, words: &str) {
    let said = || guest.console.text().contains(words).then_some(());
    wait_for(&format!("{words:?} on the console"), said, || guest.console.tail());
}

/// What a command said, without the shell's prompt around it.
fn run(shell: &Shell, command: &str) -> String {
    let (said, code) = shell.run(command);
    assert_eq!(code, 0, "{command}: {said}");
    said
}

/// Process numbers of the roles, without the prompt and the echo, which stand where the terminal happens to put them.
fn pids(shell: &Shell) -> String {
    let said = run(shell, "pidof fife-smtp fife-pop-imap fife-ldap-proxy");
    let is_pids = |line: &&str| !line.is_empty() && line.split(' ').all(|word| word.parse::<u32>().is_ok());
    said.lines().map(str::trim).find(is_pids).expect("process numbers").to_owned()
}

fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

/// An ext4 that was not left in order, with a file in it.
fn archive(dir: &Path) -> Disk {
    let files = dir.join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("hello"), "from an ext4\n").unwrap();
    let (files, path) = (files.to_str().unwrap(), dir.join("archive"));
    let arguments = ["-q", "-t", "ext4", "-L", "archive", "-d", files];
    let disk = Disk::formatted(&path, 64, "/sbin/mke2fs", &arguments);
    tool("/sbin/debugfs", &["-w", "-R", "set_super_value state 0", path.to_str().unwrap()]);
    disk
}

/// A FAT as a stick has it.
fn stick(dir: &Path) -> Disk {
    let path = dir.join("stick");
    let disk = Disk::formatted(&path, 64, "/sbin/mkfs.vfat", &["-n", "STICK"]);
    std::fs::write(dir.join("note"), "from a stick\n").unwrap();
    tool("mcopy", &["-i", path.to_str().unwrap(), dir.join("note").to_str().unwrap(), "::"]);
    disk
}

fn settings(server: &Server, export: &Path) -> String {
    let (port, mount_port, export) = (server.port, server.mount_port, export.display());
    format!(
        r#"
[hosts.mail1.mounts.archive]
device = "LABEL=archive"
[hosts.mail1.mounts.big]
device = "LABEL=big"
where = "/srv/big"
options = ["noatime"]
[hosts.mail1.mounts.stick]
device = "LABEL=STICK"
[hosts.mail1.mounts.gone]
device = "UUID=0fc63daf-8483-4772-8e79-3d69d8477de4"
[hosts.mail1.mounts.nas]
device = "10.0.2.2:{PSEUDO}"
options = ["port={port}"]
[hosts.mail1.mounts.old]
device = "10.0.2.2:{export}"
options = ["vers=3", "port={port}", "mountport={mount_port}"]
"#
    )
}

#[test]
fn disks_and_a_file_server_come_and_go_and_hold_nothing_up() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let export = dir.path().join("export");
    std::fs::create_dir(&export).unwrap();
    std::fs::write(export.join("hello"), "from a file server\n").unwrap();
    let server = Server::start(dir.path(), &export);
    let disk = Disk::of_image(&dir.path().join("disk"), 512);
    shell::prepare(&disk);
    let mut toml = String::from_utf8(disk.read_esp("fife.toml")).unwrap();
    toml.push_str(&settings(&server, &export));
    disk.write_esp("fife.toml", toml.as_bytes());
    let big = Disk::formatted(&dir.path().join("big"), 320, "/sbin/mkfs.xfs", &["-q", "-L", "big"]);
    let stick = stick(dir.path());
    let socket = dir.path().join("shell");
    let machine = shell::machine(dir.path(), &disk).disk(&archive(dir.path()), "").disk(&big, "");
    let machine = machine.more(&["-device", "qemu-xhci,id=usb"]);
    let mut guest = machine.more(&Shell::arguments(&socket).each_ref().map(String::as_str)).start();
    let shell = Shell::connect(&socket);

    // What is not there keeps nothing from starting.
    guest.console.wait_unless("fife: serving mail1", &NEVER);
    says(&guest, "fife: mount archive: e2fsck: ");
    says(&guest, "fife: mount archive: /dev/vdb (ext4) at /mnt/archive");
    says(&guest, "fife: mount big: /dev/vdc (xfs) at /srv/big");
    says(&guest, &format!("fife: mount nas: 10.0.2.2:{PSEUDO} (nfs 4.2) at /mnt/nas"));
    says(&guest, "(nfs 3) at /mnt/old");
    says(&guest, "fife: trouble: mount stick: LABEL=STICK is not there");
    says(&guest, "fife: trouble: mount gone: UUID=0fc63daf-8483-4772-8e79-3d69d8477de4 is not there");
    shell.wait();
    assert!(run(&shell, "cat /mnt/archive/hello").contains("from an ext4"));
    for nas in ["nas", "old"] {
        assert!(run(&shell, &format!("cat /mnt/{nas}/hello")).contains("from a file server"));
        run(&shell, &format!("echo from {nas} >/mnt/{nas}/{nas}"));
        assert_eq!(std::fs::read_to_string(export.join(nas)).unwrap(), format!("from {nas}\n"));
    }
    for (at, more) in
        [("/mnt/archive", "ext4"), ("/srv/big", "noatime"), ("/mnt/nas", "softerr"), ("/mnt/old", "vers=3")]
    {
        let line = run(&shell, &format!("grep ' {at} ' /proc/self/mounts"));
        assert!(line.contains("nosuid,nodev,noexec") && line.contains(more), "{line}");
    }
    let status = run(&shell, "fife status --state /data --config /boot/fife.toml");
    for line in [
        "mail1: good",
        "mount archive      mounted  /dev/vdb (ext4) at /mnt/archive",
        "mount gone         waiting  UUID=0fc63daf-8483-4772-8e79-3d69d8477de4 at /mnt/gone",
    ] {
        assert!(status.contains(line), "{status}");
    }
    let roles = pids(&shell);

    // A stick comes, and is pulled out.
    let file = json!({ "driver": "file", "filename": stick.path() });
    guest.monitor.execute("blockdev-add", &json!({ "driver": "raw", "node-name": "stick", "file": file }));
    let device = json!({ "driver": "usb-storage", "id": "stick0", "drive": "stick", "bus": "usb.0" });
    guest.monitor.execute("device_add", &device);
    says(&guest, "fife: mount stick: /dev/sda (vfat) at /mnt/stick");
    assert!(run(&shell, "cat /mnt/stick/note").contains("from a stick"));
    guest.monitor.execute("device_del", &json!({ "id": "stick0" }));
    says(&guest, "fife: trouble: mount stick: /dev/sda (vfat) has vanished");

    // Taken out of the file: left when nobody uses it any more, and no role hears of it.
    run(&shell, "cd /mnt/archive && mount -o remount,rw /boot");
    run(&shell, "sed -i '/mounts.archive/,/LABEL=archive/d' /boot/fife.toml && mount -o remount,ro /boot");
    run(&shell, "fife reload --state /data --config /boot/fife.toml");
    says(&guest, "fife: trouble: mount archive: /mnt/archive is in use");
    run(&shell, "cd /");
    says(&guest, "fife: mount archive: /mnt/archive is free");
    run(&shell, "test ! -e /mnt/archive && test ! -e /mnt/gone");
    assert_eq!(pids(&shell), roles);

    // The server hangs, and somebody waits for it: the machine is switched off all the same.
    server.fall_silent();
    shell.begin("echo lost >/mnt/nas/lost");
    guest.press_power_button();
    guest.console.wait_unless("fife: powering off", &NEVER);
    guest.wait_off();
    tool("/sbin/e2fsck", &["-fn", dir.path().join("archive").to_str().unwrap()]);
    tool("/sbin/xfs_repair", &["-n", big.path().to_str().unwrap()]);
}
