//! A tape library that nobody here wrote: tgt's virtual one, on this machine's loopback address. QEMU itself is its initiator, so that a
//! guest sees a SCSI tape drive and a media changer.
//!
//! Owns: the target daemon, its files, what QEMU must be told. Called by: suites. Takes root (the daemon locks its memory).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::guest::free_port;
use crate::wait_for;

const TARGET: &str = "iqn.2026-11.test.fife:library";
const DRIVE: &str = "1";
const CHANGER: &str = "2";
/// Address of the first slot, as the changer has it.
const FIRST_SLOT: usize = 1000;

/// A library with one drive, which is empty at first.
#[derive(Debug)]
pub struct Library {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Library {
    /// Starts it with these tapes in its slots, each with a barcode and so many MiB, and one empty slot behind them. Its files go to `dir`.
    #[must_use]
    pub fn start(dir: &Path, tapes: &[(&str, u32)]) -> Self {
        let (dir, port) = (dir.join("library"), free_port());
        std::fs::create_dir(&dir).unwrap();
        // What the changer knows stands in memory; the daemon wants a file all the same.
        std::fs::write(dir.join("changer"), [0; 1024]).unwrap();
        for (barcode, mib) in tapes {
            make_tape(&dir.join(barcode), barcode, *mib, "data");
        }
        make_tape(&dir.join("none"), "", 1, "clean");
        let child = Command::new("tgtd")
            .args(["-f", "-C", "0", "--iscsi", &format!("portal=127.0.0.1:{port}")])
            .env("TGT_IPC_SOCKET", dir.join("control"))
            .stdin(Stdio::null())
            .stdout(File::create(dir.join("log")).unwrap())
            .stderr(File::create(dir.join("errors")).unwrap())
            .spawn()
            .expect("tgtd (package tgt)");
        let library = Self { child, dir, port };
        let said = || std::fs::read_to_string(library.dir.join("errors")).unwrap_or_default();
        let answers = || library.ask(&["--op", "show", "--mode", "sys"]).then_some(());
        wait_for("tgtd", answers, said);
        library.set_up(tapes);
        library
    }

    fn set_up(&self, tapes: &[(&str, u32)]) {
        let file = |name: &str| self.dir.join(name).display().to_string();
        self.tell(&["--mode", "target", "--op", "new", "--tid", "1", "-T", TARGET]);
        let unit = ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun"];
        let drive = [DRIVE, "-b", &file("none"), "--device-type=tape", "--bstype", "ssc"];
        self.tell(&[&unit[..], &drive[..]].concat());
        self.change(DRIVE, "online=0");
        self.tell(&[&unit[..], &[CHANGER, "-b", &file("changer"), "--device-type=changer"]].concat());
        let slots = tapes.len() + 1;
        for places in [
            format!("media_home={}", self.dir.display()),
            "element_type=4,start_address=1,quantity=1".to_owned(),
            "element_type=4,address=1,tid=1,lun=1".to_owned(),
            "element_type=1,start_address=2,quantity=1".to_owned(),
            format!("element_type=2,start_address={FIRST_SLOT},quantity={slots}"),
        ] {
            self.change(CHANGER, &places);
        }
        for (address, (barcode, _)) in (FIRST_SLOT..).zip(tapes) {
            self.change(CHANGER, &format!("element_type=2,address={address},barcode={barcode},sides=1"));
        }
        self.tell(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"]);
    }

    /// What QEMU must be told.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut line = "-device virtio-scsi-pci,id=scsi".to_owned();
        for (lun, (name, unit)) in [("tape", DRIVE), ("changer", CHANGER)].into_iter().enumerate() {
            let at = format!("iscsi://127.0.0.1:{}/{TARGET}/{unit}", self.port);
            line.push_str(&format!(" -drive id={name},if=none,format=raw,file={at}"));
            line.push_str(&format!(" -device scsi-generic,drive={name},bus=scsi.0,scsi-id=0,lun={lun}"));
        }
        line.split(' ').map(str::to_owned).collect()
    }

    /// Whether the tape in the drive has its tab set so that it cannot be written.
    pub fn protect(&self, is_protected: bool) {
        self.change(DRIVE, &format!("readonly={}", u8::from(is_protected)));
    }

    fn change(&self, unit: &str, what: &str) {
        self.tell(&["--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", unit, "--params", what]);
    }

    fn tell(&self, arguments: &[&str]) {
        assert!(self.ask(arguments), "tgtadm {arguments:?}");
    }

    fn ask(&self, arguments: &[&str]) -> bool {
        let mut program = Command::new("tgtadm");
        program.args(["-C", "0", "--lld", "iscsi"]).args(arguments).env("TGT_IPC_SOCKET", self.dir.join("control"));
        program.output().expect("tgtadm").status.success()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // It does not listen to anything milder. It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn make_tape(path: &Path, barcode: &str, mib: u32, kind: &str) {
    let path = path.display().to_string();
    let mut program = Command::new("tgtimg");
    program.args(["--op", "new", "--device-type", "tape", "--barcode", barcode, "--size", &mib.to_string()]);
    let made = program.args(["--type", kind, "--file", &path]).output().expect("tgtimg (package tgt)");
    assert!(made.status.success(), "{made:?}");
}
