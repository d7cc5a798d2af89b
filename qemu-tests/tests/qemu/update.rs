//! A new version is tried, kept, left again, and survives what it does not: faults of its own, and power cuts in the middle.

use std::path::Path;

use fife_qemu_tests::https::Https;
use fife_qemu_tests::image::VERSION;
use fife_qemu_tests::shell::{self, Shell};
use fife_qemu_tests::{Disk, Firmware, Guest, Machine, wait_for};

const NEVER: [&str; 1] = ["panicked"];
const GOOD: &str = "9.0.0";
const BROKEN: &str = "9.1.0";

/// A machine with a shell, and a disk with bundles.
fn start(dir: &Path, firmware: Firmware, disk: &Disk, bundles: &Disk) -> (Guest, Shell) {
    let socket = dir.join("shell");
    // Of an earlier guest.
    std::fs::remove_file(&socket).ok();
    let serial = Shell::arguments(&socket);
    let machine = Machine::new("mail1", firmware, disk).disk(bundles, ",readonly=on").reboots();
    let guest = machine.more(&serial.each_ref().map(String::as_str)).start();
    (guest, Shell::connect(&socket))
}

/// The binary is the same in every slot; what is told of it as well.
fn started(guest: &Guest, slot: &str) {
    guest.console.wait_unless(&format!("fife: starting {VERSION}, slot {slot}"), &NEVER);
}

fn mount_bundles(shell: &Shell) {
    assert_eq!(shell.run("mkdir -p /run/bundles && mount -t vfat -o ro /dev/vdb /run/bundles").1, 0);
}

/// Begins an update; the shell's machine starts again when it is staged.
fn begin_update(shell: &Shell, version: &str) {
    mount_bundles(shell);
    shell.begin(&format!("fife update /run/bundles/{version}.update --config /boot/fife.toml"));
}

/// The same from an HTTPS server. It is believed only when an authority of the machine vouches for it, and of nothing else than it has.
fn begin_update_by_https(shell: &Shell, server: &Https, version: &str) {
    mount_bundles(shell);
    let update = |file: &str| format!("fife update {} --config /boot/fife.toml", server.url(file));
    let (said, code) = shell.run(&update(&format!("{version}.update")));
    assert!(code == 1 && said.contains("TLS: "), "{code} {said}");
    let certificates = "/etc/ssl/certs/ca-certificates.crt";
    let trust = format!("cat {certificates} /run/bundles/ca.pem >/run/ca && mount --bind /run/ca {certificates}");
    assert_eq!(shell.run(&trust).1, 0);
    let (said, code) = shell.run(&update("8.0.0.update"));
    assert!(code == 1 && said.contains("404"), "{code} {said}");
    // The signature of another bundle.
    let (said, code) = shell.run(&update("false.update"));
    assert!(code == 1 && said.contains("signature"), "{code} {said}");
    shell.begin(&update(&format!("{version}.update")));
}

fn updates(firmware: Firmware, by_https: bool) {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 1024);
    let keys = tempfile::tempdir().unwrap();
    let server = Https::serve(dir.path(), keys.path());
    let bundles = shell::bundles(dir.path(), &disk, &[(GOOD, false), (BROKEN, true)], &[server.authority()]);
    for (from, to) in [(BROKEN, "false.update"), (GOOD, "false.update.minisig")] {
        let kind = to.strip_prefix("false").unwrap();
        std::fs::copy(dir.path().join(format!("{from}{kind}")), dir.path().join(to)).unwrap();
    }
    shell::prepare(&disk);
    let (guest, shell) = start(dir.path(), firmware, &disk, &bundles);
    started(&guest, "a");
    shell.wait();

    if by_https {
        begin_update_by_https(&shell, &server, GOOD);
    } else {
        begin_update(&shell, GOOD);
    }
    started(&guest, "b");
    guest.console.wait_unless("fife: slot b is in good health and is kept", &NEVER);
    shell.wait();
    let (said, _) = shell.run("fife update --status");
    assert!(said.contains(&format!("slot b  {GOOD}")) && said.contains("good; runs; next to start"), "{said}");

    shell.begin("fife update --rollback --config /boot/fife.toml");
    started(&guest, "a");
    shell.wait();

    // Its kernel finds no first process, three times.
    begin_update(&shell, BROKEN);
    for _ in 0..3 {
        guest.console.wait_unless("Kernel panic", &["fife: starting"]);
    }
    started(&guest, "a");
    shell.wait();
    let (said, _) = shell.run("fife update --status");
    assert!(said.contains("failed or given up"), "{said}");
    assert!(said.contains(&format!("slot a  {VERSION}")), "{said}");
}

#[test]
fn a_version_is_tried_kept_left_and_a_broken_one_given_up_by_bios() {
    updates(Firmware::Bios, false);
}

#[test]
fn a_version_from_a_server_is_tried_kept_left_and_a_broken_one_given_up_by_uefi() {
    updates(Firmware::Uefi, true);
}

#[test]
fn the_machine_boots_whenever_the_power_goes_during_an_update() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 1024);
    let bundles = shell::bundles(dir.path(), &disk, &[(GOOD, false)], &[]);
    shell::prepare(&disk);
    // What lies on the ESP at the moment of the cut, seen from outside; the cut may come later, when all is staged and even kept.
    for name in ["linux", "initrd", "+3.conf"] {
        let (guest, shell) = start(dir.path(), Firmware::Bios, &disk, &bundles);
        let other = match running_slot(&guest) {
            'a' => 'b',
            _ => 'a',
        };
        shell.wait();
        begin_update(&shell, GOOD);
        let lies_there = || {
            let entry = disk.list_esp("loader/entries").contains(&format!("fife-{other}{name}"));
            (entry || disk.list_esp(&format!("fife/{other}")).iter().any(|there| there == name)).then_some(())
        };
        wait_for(&format!("{name} of slot {other}"), lies_there, || guest.console.tail());
        guest.cut();
    }
    let (guest, _shell) = start(dir.path(), Firmware::Bios, &disk, &bundles);
    running_slot(&guest);
}

/// The slot that runs and is not, or no longer, on trial.
fn running_slot(guest: &Guest) -> char {
    let started = guest.console.wait_unless("fife: serving", &NEVER);
    let on_trial = started.contains("is on trial");
    let slot = started.split_once(", slot ").and_then(|(_, slot)| slot.chars().next()).expect("the slot is told");
    if on_trial {
        guest.console.wait_unless("is in good health and is kept", &NEVER);
    }
    slot
}
