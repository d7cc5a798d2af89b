//! The image boots, by either firmware, to a host that takes mail and gives it out.

use fife_qemu_tests::client::{first_administrator, greeting, send, subjects};
use fife_qemu_tests::{Disk, Firmware, Machine, tell};

/// What the console says when every role serves.
const SERVING: &str = "fife: serving";

fn serves(firmware: Firmware) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 512);
    let mut guest = Machine::new("mail1", firmware, &disk).start();
    assert!(greeting(&guest, 25).starts_with("220 "));
    let took = guest.up().as_secs_f32();
    tell(&format!("{firmware:?}: {took:.1} s from power on to the SMTP banner of a first boot"));
    let before = guest.console.wait_unless(SERVING, &["Kernel panic"]);
    assert!(before.contains("the data partition has grown"), "{before}");
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
