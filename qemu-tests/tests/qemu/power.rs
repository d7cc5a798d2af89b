//! The power is cut under load, again and again: what was acknowledged is there.

use fife_qemu_tests::client::{SETTINGS_UNDER_LOAD, Senders, check_acknowledged, first_administrator, greeting};
use fife_qemu_tests::{Disk, Firmware, Machine};

/// Times that the power is cut.
const CUTS: usize = 20;
/// Acknowledged messages between two cuts: so many, and a few more each time, so that the cut falls at no fixed place.
const ACKNOWLEDGED_MIN: usize = 40;

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::of_image(&dir.path().join("disk"), 1024);
    disk.write_esp("fife.toml", SETTINGS_UNDER_LOAD.as_bytes());
    let machine = Machine::new("mail1", Firmware::Bios, &disk);
    let mut guest = machine.start();
    let (admin, password) = first_administrator(&guest);
    let mut senders = Senders::start(&guest, &admin, &password);
    let mut acknowledged = Vec::new();
    for cut in 0..CUTS {
        for _ in 0..ACKNOWLEDGED_MIN + cut * 7 % 30 {
            acknowledged.push(senders.acknowledged());
        }
        guest.cut();
        println!("cut {cut}: {} acknowledged", acknowledged.len());
        guest = machine.start();
        assert!(greeting(&guest, 25).starts_with("220 "));
    }
    acknowledged.extend(senders.stop());
    println!("{}", check_acknowledged(guest.at(143), &admin, &password, &acknowledged));
    guest.press_power_button();
    guest.wait_off();
}
