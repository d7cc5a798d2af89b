//! The image boots, by either firmware, to a host that takes mail and gives it out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fault in the set-up ends the test")]

use fife_qemu_tests::client::{first_administrator, greeting, send, subjects};
use fife_qemu_tests::{Disk, Firmware, Guest, Machine};

/// What the console says when every role serves.
const SERVING: &str = "fife: serving";

/// Boots a fresh copy of the image on a disk of 512 MiB, and waits until it serves.
fn boot(firmware: Firmware) -> (Guest, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 512);
    let guest = Machine::new("mail1", firmware, &disk).start();
    guest.console.wait_unless(SERVING, &["Kernel panic"]);
    (guest, dir)
}

fn serves(firmware: Firmware) {
    let (mut guest, _dir) = boot(firmware);
    assert!(greeting(&guest, 25).starts_with("220 "));
    assert!(greeting(&guest, 143).starts_with("* OK"));
    assert!(greeting(&guest, 110).starts_with("+OK"));
    let (admin, password) = first_administrator(&guest);
    let (taken, said) = send(guest.at(25), &admin, "hello appliance");
    assert!(taken, "{said}");
    assert_eq!(subjects(guest.at(143), &admin, &password), ["hello appliance"]);
    guest.press_power_button();
    guest.wait_off();
}

#[test]
fn boots_by_bios_and_serves() {
    serves(Firmware::Bios);
}

#[test]
fn boots_by_uefi_and_serves() {
    serves(Firmware::Uefi);
}
