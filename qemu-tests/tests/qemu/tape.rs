//! A tape drive and a media changer, by the kernel's own drivers, on a library that nobody here wrote.

use fife_qemu_tests::shell::{self, Shell};
use fife_qemu_tests::tape::Library;
use fife_qemu_tests::{Disk, wait_for};

const NEVER: [&str; 2] = ["Kernel panic", "panicked"];

/// The commands in the guest, as an administrator gives them.
struct Hand<'a>(&'a Shell);

impl Hand<'_> {
    fn run(&self, command: &str) -> (String, u8) {
        self.0.run(&format!("fife backup {command}"))
    }

    /// It goes well, and says all of this.
    fn good(&self, command: &str, says: &[&str]) {
        let (said, code) = self.run(command);
        assert_eq!(code, 0, "{command}: {said}");
        says.iter().for_each(|words| assert!(said.contains(words), "{command}: no {words:?} in {said}"));
    }

    /// It fails, and says why.
    fn bad(&self, command: &str, why: &str) {
        let (said, code) = self.run(command);
        assert_eq!(code, 1, "{command}: {said}");
        assert!(said.contains(why), "{command}: no {why:?} in {said}");
    }
}

#[test]
fn a_drive_and_a_changer_do_what_backups_need() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let library = Library::start(dir.path(), &[("FIFE01L5", 64), ("FIFE02L5", 6), ("FIFE03L5", 64)]);
    let disk = Disk::of_image(&dir.path().join("disk"), 512);
    shell::prepare(&disk);
    let socket = dir.path().join("shell");
    let arguments = [library.arguments(), Shell::arguments(&socket).to_vec()].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut guest = shell::machine(dir.path(), &disk).more(&arguments).start();
    let shell = Shell::connect(&socket);
    guest.console.wait_unless("fife: serving", &NEVER);
    shell.wait();
    let hand = Hand(&shell);
    let there = || (shell.run("test -e /dev/nst0 && ls /dev/sg1").1 == 0).then_some(());
    wait_for("the drive's and the changer's devices", there, || guest.console.tail());

    // An empty drive, and which tape is where.
    let slots =
        ["drive   0  empty", "slot    1  FIFE01L5", "slot    2  FIFE02L5", "slot    3  FIFE03L5", "slot    4  empty"];
    hand.good("changer status", &slots);
    hand.good("drive status", &["drive     /dev/nst0 (IET", "volume    none"]);
    hand.bad("drive rewind", "there is no volume in the drive");
    hand.bad("drive test", "there is no volume in the drive");
    hand.bad("changer load 4", "slot 4 is empty");
    hand.bad("changer load FIFE09L5", "no tape in the changer has the barcode");

    hand.good("changer load FIFE01L5", &["the tape of slot 1 is in drive 0"]);
    hand.bad("changer load 2", "drive 0 has a tape in it already");
    hand.good("changer status", &["drive   0  FIFE01L5", "slot    1  empty"]);
    hand.good("drive load", &[]);
    hand.good("drive status", &["volume    one is loaded", "place     tape file 0, block 0"]);
    hand.good("drive --block-size 64KiB test", &["good  the volume is blank"]);
    // As other programs write; it is not written over.
    let (said, code) = shell.run("dd if=/boot/fife.toml of=/dev/nst0 bs=1M conv=sync count=1");
    assert_eq!(code, 0, "{said}");
    hand.good("drive label", &["[hosts.mail1]"]);
    hand.bad("drive test", "the volume is not blank");
    hand.bad("drive --block-size 64KiB label", "larger than 65536 octets");
    hand.good("drive end", &["tape file 1, block 0"]);
    hand.bad("drive seek 5", "data ends before it");
    hand.good("drive test --overwrite", &["good  every place is found", "good  the volume is blank"]);
    hand.good("drive eject", &[]);
    hand.good("changer unload", &["the tape of drive 0 is in slot 1"]);

    // A tape that ends.
    hand.good("changer load 2", &[]);
    hand.good("drive load", &[]);
    hand.good(
        "drive --block-size 64KiB test --fill",
        &["good  early warning after", "good  the whole volume is read back"],
    );
    hand.good("drive eject", &[]);
    hand.good("changer unload 4", &["in slot 4"]);

    // One that must not be written.
    hand.good("changer load 3", &[]);
    library.protect(true);
    hand.good("drive load", &[]);
    hand.good("drive status", &["write-protected"]);
    hand.bad("drive test", "the volume is write-protected");
    guest.press_power_button();
    guest.console.wait_unless("fife: powering off", &NEVER);
    guest.wait_off();
}
