//! From a stick onto a disk, and from there without the stick.

use fife_qemu_tests::client::greeting;
use fife_qemu_tests::image::VERSION;
use fife_qemu_tests::shell::{self, Shell};
use fife_qemu_tests::{Disk, Firmware, Machine};

const NEVER: [&str; 2] = ["Kernel panic", "panicked"];

#[test]
fn a_stick_installs_on_a_disk_that_then_boots_by_both_firmwares() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let stick = Disk::of_image(&dir.path().join("stick"), 512);
    shell::prepare(&stick);
    let disk = Disk::empty(&dir.path().join("disk"), 2048);
    let small = Disk::empty(&dir.path().join("small"), 256);
    let socket = dir.path().join("shell");
    let serial = Shell::arguments(&socket);
    let machine = Machine::new("mail1", Firmware::Bios, &stick).disk(&disk, "").disk(&small, "");
    let guest = machine.more(&serial.each_ref().map(String::as_str)).start();
    let shell = Shell::connect(&socket);
    shell.wait();
    // Nothing of the running system is writable.
    for place in ["/bin/new", "/etc/passwd", "/new"] {
        let (said, code) = shell.run(&format!("touch {place}"));
        assert!(code != 0 && said.contains("Read-only file system"), "{place}: {code} {said}");
    }
    let refused = |disk: &str, why: &str| {
        let (said, code) = shell.run(&format!("fife install {disk} --yes --config /boot/fife.toml"));
        assert!(code == 1 && said.contains(why), "{disk}: {code} {said}");
    };
    refused("/dev/vda", "is the disk that this system runs from");
    refused("/dev/vda3", "a partition; name the whole disk");
    refused("/dev/vdc", "at least");
    refused("/dev/ttyS0", "is no disk");
    // The same from the menu, where it asks; and what this machine is fit for.
    guest.console.type_line("8");
    guest.console.wait("onto which disk (vda, vdb, vdc): ");
    guest.console.type_line("vda");
    guest.console.wait("is the disk that this system runs from");
    guest.console.type_line("8");
    guest.console.wait("onto which disk");
    guest.console.type_line("vdb");
    guest.console.wait("/dev/vdb: 2.0 GiB");
    guest.console.wait("Type yes to install on /dev/vdb: ");
    guest.console.type_line("no");
    guest.console.wait("nothing was changed");
    guest.console.type_line("7");
    guest.console.wait(" memory ");
    guest.console.wait(" outbound ");
    let (said, code) = shell.run("cp /boot/fife.toml /run/new.toml && echo '# of the disk' >>/run/new.toml");
    assert_eq!(code, 0, "{said}");
    let (said, code) = shell.run("fife install /dev/vdb --yes --settings /run/new.toml");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Remove the stick"), "{said}");
    guest.cut();

    let settings = String::from_utf8(disk.read_esp("fife.toml")).unwrap();
    assert!(settings.ends_with("# of the disk\n"), "{settings}");
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let mut guest = Machine::new("mail1", firmware, &disk).start();
        guest.console.wait_unless(&format!("fife: starting {VERSION}, slot a"), &NEVER);
        guest.console.wait_unless("fife: serving", &NEVER);
        assert!(greeting(&guest, 25).starts_with("220 "));
        guest.press_power_button();
        guest.wait_off();
    }
}
