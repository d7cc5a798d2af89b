//! What goes wrong with a machine ends on its console, and as much as can runs.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fife_image::disk::{DATA_FIRST_LBA, ESP_FIRST_LBA, SECTOR};
use fife_image::initramfs::Archive;
use fife_qemu_tests::client::{first_administrator, greeting, send, subjects};
use fife_qemu_tests::shell::{self, Shell};
use fife_qemu_tests::{Disk, Firmware, Guest, Machine, wait_for};
use serde_json::json;

/// Nothing may end so.
const NEVER: [&str; 2] = ["Kernel panic", "panicked"];

/// Boots a disk that `shell::prepare` has put a shell on.
fn boot(dir: &Path, disk: &Disk) -> (Guest, Shell) {
    let socket = dir.join("shell");
    // Of an earlier guest.
    std::fs::remove_file(&socket).ok();
    let serial = Shell::arguments(&socket);
    let machine = Machine::new("mail1", Firmware::Bios, disk);
    let guest = machine.more(&serial.each_ref().map(String::as_str)).start();
    (guest, Shell::connect(&socket))
}

/// A disk with a shell.
fn disk_with_shell(dir: &Path) -> Disk {
    let disk = Disk::of_image(&dir.join("disk"), 512);
    shell::prepare(&disk);
    disk
}

/// Puts a file of the guest's in place of its fife.toml.
fn change_settings(shell: &Shell, from: &str) {
    let command = format!("mount -o remount,rw /boot && cp {from} /boot/fife.toml && mount -o remount,ro /boot");
    let (said, code) = shell.run(&command);
    assert_eq!(code, 0, "{said}");
}

/// Boots without firmware and loader; `overlay` is laid over the system.
fn machine_of_kernel(dir: &Path, disk: &Disk, overlay: Option<&Archive>) -> Machine {
    let image = Disk::of_image(&dir.join("kernel-from"), 512);
    let file = |name: &str| -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, image.read_esp(&format!("fife/a/{name}"))).unwrap();
        path
    };
    let (linux, initrd) = (file("linux"), file("initrd"));
    if let Some(overlay) = overlay {
        // The kernel unpacks one archive after the other, each at a multiple of four.
        let mut octets = std::fs::read(&initrd).unwrap();
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets.extend(overlay.write().unwrap());
        std::fs::write(&initrd, octets).unwrap();
    }
    let options = "console=ttyS0,115200 panic=10 quiet fife.slot=a";
    Machine::new("mail1", Firmware::Bios, disk).more(&[
        "-kernel",
        linux.to_str().unwrap(),
        "-initrd",
        initrd.to_str().unwrap(),
        "-append",
        options,
    ])
}

fn off(mut guest: Guest) {
    guest.press_power_button();
    guest.console.wait_unless("fife: powering off", &NEVER);
    guest.wait_off();
}

/// Runs debugfs on the data partition of a disk that no guest uses.
fn debugfs(disk: &Disk, request: &str) -> String {
    let device = format!("{}?offset={}", disk.path().display(), DATA_FIRST_LBA * SECTOR);
    let output = Command::new("/sbin/debugfs").args(["-w", "-R", request, &device]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_broken_file_is_told_the_last_good_one_runs_and_a_mended_one_is_taken_at_once() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let disk = disk_with_shell(dir.path());
    let broken = b"[site]\nname = \"school\"\ndomane = \"example.test\"\n";
    disk.write_esp("fife.toml", broken);

    // The first boot: there is no last good one.
    let (guest, shell) = boot(dir.path(), &disk);
    guest.console.wait_unless("fife: trouble: this machine does not serve", &NEVER);
    guest.console.wait_unless("fife.toml:3:1", &NEVER);
    guest.console.wait_unless("did you mean `domain`?", &NEVER);
    shell.wait();
    change_settings(&shell, "/usr/share/fife/fife.toml");
    guest.console.wait_unless("fife: fife.toml has changed: it is tried", &NEVER);
    guest.console.wait_unless("fife: serving mail1 (example.test)", &["trouble", "Kernel panic"]);
    assert!(greeting(&guest, 25).starts_with("220 "));
    guest.console.wait_unless("first administrator", &NEVER);
    off(guest);

    disk.write_esp("fife.toml", broken);
    let (guest, shell) = boot(dir.path(), &disk);
    guest.console.wait_unless("fife: trouble: the last good fife.toml runs", &NEVER);
    guest.console.wait_unless("did you mean `domain`?", &NEVER);
    guest.console.wait_unless("fife: serving mail1 (example.test)", &NEVER);
    assert!(greeting(&guest, 25).starts_with("220 "));
    shell.wait();
    shell.run("sed 's/mail1/mail2/' /usr/share/fife/fife.toml > /run/other.toml");
    change_settings(&shell, "/run/other.toml");
    guest.console.wait_unless("fife: trouble: fife.toml has changed, but:", &NEVER);
    guest.console.wait_unless("this machine would be another host, mail2", &NEVER);
    change_settings(&shell, "/usr/share/fife/fife.toml");
    guest.console.wait_unless("fife: fife.toml is good now, and runs", &NEVER);
    // The power is cut: the next boot finds the data partition not in order.
    guest.cut();

    let mut octets = std::fs::read(disk.path()).unwrap();
    let esp = usize::try_from(ESP_FIRST_LBA * SECTOR).unwrap();
    octets[esp..esp + (4 << 20)].fill(0x5a);
    std::fs::write(disk.path(), octets).unwrap();
    let guest = machine_of_kernel(dir.path(), &disk, None).start();
    guest.console.wait_unless("which holds fife.toml, cannot be mounted", &NEVER);
    guest.console.wait_unless("fife: e2fsck: ", &NEVER);
    guest.console.wait_unless("fife: trouble: the last good fife.toml runs", &NEVER);
    guest.console.wait_unless("fife: serving mail1 (example.test)", &NEVER);
    assert!(greeting(&guest, 25).starts_with("220 "));
    off(guest);
}

#[test]
fn a_full_disk_refuses_mail_for_now_also_after_a_restart_and_loses_none() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let disk = disk_with_shell(dir.path());
    let (mut guest, shell) = boot(dir.path(), &disk);
    let (administrator, password) = first_administrator(&guest);
    let mail = |guest: &Guest| subjects(guest.at(143), &administrator, &password);
    let take = |guest: &Guest, subject: &str| {
        let taken = || send(guest.at(25), &administrator, subject).0.then_some(());
        wait_for(&format!("{subject} to be taken"), taken, || guest.console.tail());
    };
    let refused = |guest: &Guest| {
        let answer = || send(guest.at(25), &administrator, "refused").1.contains("452 4.3.1").then_some(());
        wait_for("mail to be refused", answer, || guest.console.tail());
    };
    take(&guest, "before");
    shell.wait();
    // At once, and all but some blocks.
    let free = "$(($(df -k /data | awk 'END { print $4 }') * 1024 - 32768))";
    let (said, code) = shell.run(&format!("fallocate -l {free} /data/filler"));
    assert_eq!(code, 0, "{said}");
    guest.console.wait_unless("fife: trouble: the disk is full (", &NEVER);
    refused(&guest);
    assert_eq!(mail(&guest), ["before"]);
    shell.run("rm /data/filler");
    guest.console.wait_unless("fife: the disk is well again", &NEVER);
    take(&guest, "between");
    guest.press_keys("ctrl-alt-delete");
    guest.console.wait_unless("fife: rebooting", &NEVER);
    guest.wait_off();

    debugfs(&disk, "write /dev/null filler");
    let free =
        debugfs(&disk, "stats").lines().find_map(|line| line.strip_prefix("Free blocks:")?.trim().parse::<u64>().ok());
    debugfs(&disk, &format!("fallocate filler 0 {}", free.unwrap() - 8));
    let (mut guest, shell) = boot(dir.path(), &disk);
    guest.console.wait_unless("fife: trouble: the disk is full (", &NEVER);
    guest.console.wait_unless("fife: serving mail1", &NEVER);
    refused(&guest);
    assert_eq!(mail(&guest), ["before", "between"]);
    shell.wait();
    let (said, code) = shell.run("fife status --config /boot/fife.toml");
    assert!(code == 1 && said.contains("the disk is full ("), "{said}");
    shell.run("rm /data/filler");
    guest.console.wait_unless("fife: the disk is well again", &NEVER);
    take(&guest, "after");
    assert_eq!(mail(&guest), ["before", "between", "after"]);
    shell.begin("fife reboot --config /boot/fife.toml");
    guest.console.wait_unless("fife: rebooting", &NEVER);
    guest.wait_off();
}

#[test]
fn a_disk_that_fails_and_vanishes_is_told_nothing_is_taken_and_the_machine_can_be_switched_off() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let disk = disk_with_shell(dir.path());
    let (mut guest, shell) = boot(dir.path(), &disk);
    let (administrator, _) = first_administrator(&guest);
    wait_for(
        "mail to be taken",
        || send(guest.at(25), &administrator, "before").0.then_some(()),
        || guest.console.tail(),
    );
    shell.wait();
    // Every access fails from now on.
    guest.monitor.execute("human-monitor-command", &json!({ "command-line": "drive_del d0" }));
    let (taken, said) = send(guest.at(25), &administrator, "lost");
    assert!(!taken && said.contains("<** 4"), "{said}");
    guest.console.wait_unless("fife: trouble: the disk with the mail cannot be written any more", &NEVER);
    let (said, code) = shell.run("cd -P /sys/block/vda/device/.. && echo 1 > remove");
    assert_eq!(code, 0, "{said}");
    guest.console.wait_unless("fife: trouble: the disk with the mail is gone", &NEVER);
    let (taken, said) = send(guest.at(25), &administrator, "lost");
    assert!(!taken && said.contains("<** 4"), "{said}");
    let lines = guest.console.text().lines().count();
    assert!(lines < 400, "{lines} lines");
    off(guest);
}

#[test]
fn a_disk_that_cannot_be_written_or_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 512);
    let guest = Machine::new("mail1", Firmware::Uefi, &disk).first_disk_options(",readonly=on").start();
    guest.console.wait_unless("/dev/vda3 is read-only: mail cannot be kept", &NEVER);
    off(guest);

    let other = Disk::empty(&dir.path().join("other"), 64);
    let guest = machine_of_kernel(dir.path(), &other, None).start();
    guest.console.wait_unless("the disk that this machine was booted from does not show up", &NEVER);
    guest.cut();
}

/// A time server on this machine's loopback, which guests reach as 10.0.2.2. It may not set this machine's clock (`-x`, and no
/// capability for it).
struct Chrony(Child);

impl Chrony {
    fn start(dir: &Path, port: u16) -> Self {
        let conf = dir.join("chrony.conf");
        let pid = dir.join("chrony.pid");
        let text = format!(
            "port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 3\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
            pid.display()
        );
        std::fs::write(&conf, text).unwrap();
        let root = nix::unistd::geteuid().is_root();
        let mut chrony = if root { Command::new("setpriv") } else { Command::new("chronyd") };
        if root {
            chrony.args(["--inh-caps", "-sys_time", "--bounding-set", "-sys_time", "chronyd", "-u", "root"]);
        }
        Self(chrony.args(["-x", "-U", "-d", "-f"]).arg(conf).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Chrony {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_clock_in_1970_is_told_lifted_and_set_by_a_time_server_and_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 512);
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = String::from_utf8(disk.read_esp("fife.toml")).unwrap();
    let settings = settings.replacen("[site]\n", &format!("[site]\ntime-servers = [\"10.0.2.2:{port}\"]\n"), 1);
    disk.write_esp("fife.toml", settings.as_bytes());

    // Nobody tells the time: the clock is lifted to when the image was built, and mail comes in.
    let machine = machine_of_kernel(dir.path(), &disk, None).reboots().more(&["-rtc", "base=1970-01-01T00:00:00"]);
    let guest = machine.start();
    guest.console.wait_unless("fife: trouble: clock: the hardware clock says 1970-01-01 00:0", &NEVER);
    guest.console.wait_unless("which cannot be: the clock is set to 20", &NEVER);
    guest.console.wait_unless("fife: serving mail1 (example.test)", &NEVER);
    assert!(greeting(&guest, 25).starts_with("220 "));

    // A person sets it, at the console; then a server answers, which knows better.
    guest.console.type_line("3");
    guest.console.wait("date and time in UTC");
    guest.console.type_line("2037-11-24 08:30:00");
    guest.console.wait("type \"yes\"");
    guest.console.type_line("yes");
    let said = guest.console.wait_unless("the clock is set", &NEVER);
    assert!(!said.contains("failed"), "{said}");
    guest.console.wait_unless("health     good", &NEVER);
    let _chrony = Chrony::start(dir.path(), port);
    guest.console.wait_unless("right by 1 of 1 time servers", &NEVER);

    // The clock on the board has it too: the next boot believes it.
    guest.console.type_line("4");
    guest.console.wait("type \"yes\"");
    guest.console.type_line("yes");
    guest.console.wait_unless("fife: rebooting", &NEVER);
    guest.console.wait_unless("fife: serving mail1 (example.test)", &["hardware clock", "Kernel panic", "panicked"]);
    off(guest);
}

/// Runs in place of e2fsck, and leaves something behind that runs on beside process 1.
const COMPANION: &str = r#"#!/bin/busybox sh
b=/bin/busybox
until_serving() { until $b killall -0 fife-smtp; do $b usleep 200000; done; }
zombies() { $b grep -l '^State:.Z' /proc/[0-9]*/status | $b wc -l; }
(
  until_serving
  i=0
  while [ $i -lt 1000 ]; do (: &); i=$((i+1)); done
  until [ $(zombies) = 0 ]; do $b usleep 300000; done
  echo "test: 1000 orphans are gone"
  i=0
  while [ $i -lt 5 ]; do until_serving; $b killall -9 fife-smtp; i=$((i+1)); done
  until_serving
  echo "test: smtp is back after 5 kills"
  $b mkdir /tmp/c && $b mount -t cgroup2 none /tmp/c && $b mkdir /tmp/c/f && echo 1 > /tmp/c/f/cgroup.procs
  echo "test: process 1 is frozen"
  echo 1 > /tmp/c/f/cgroup.freeze
) </dev/null >/dev/console 2>/dev/null &
exit 0
"#;

#[test]
fn process_1_survives_orphans_and_a_role_that_crashes_and_is_reset_when_it_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 512);
    // Not left in order: e2fsck is called.
    debugfs(&disk, "set_super_value state 0");
    let mut overlay = Archive::new();
    overlay.program("sbin/e2fsck", COMPANION.as_bytes().to_vec());
    let machine = machine_of_kernel(dir.path(), &disk, Some(&overlay));
    let mut guest = machine.more(&["-device", "i6300esb", "-action", "watchdog=reset"]).start();
    guest.console.wait_unless("test: 1000 orphans are gone", &NEVER);
    guest.console.wait_unless("test: smtp is back after 5 kills", &NEVER);
    guest.console.wait_unless("test: process 1 is frozen", &NEVER);
    // QEMU ends in place of the reset.
    guest.wait_off();
}
