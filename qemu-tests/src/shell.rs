//! A shell in the guest, for tests: on its second serial line, beside the appliance's own first process. The image has none that
//! could be had without a password.
//!
//! Owns: what is laid over the initramfs for it, and the dialogue. Called by: suites.

use std::path::{Path, PathBuf};

use fife_image::bundle::{self, Signer};
use fife_image::initramfs::Archive;

use crate::disk::Disk;
use crate::{Console, Firmware, Machine, image};

/// First the shell, which waits until there is something to be asked; then what the kernel would have started.
const HOOK: &str = "#!/bin/busybox sh
# The shell opens it for what runs beside it.
/bin/busybox mknod -m 666 /dev/null c 1 3
export PATH=/bin:/sbin:/usr/bin FIFE_STATE=/data
(
  while [ ! -e /data/run/control.sock ]; do /bin/busybox sleep 1; done
  exec /bin/busybox sh -i </dev/ttyS1 >/dev/ttyS1 2>&1
) &
exec /init
";
/// By which the kernel starts it.
pub const KERNEL_ARGUMENT: &str = "rdinit=/hook";
/// What the shell says after each command, and how it is asked to: the echo of the question must not be taken for the answer.
const END: &str = "END:";
const ASK_END: &str = "echo E'N'D:$?";

/// An initramfs of a slot with the shell in it, and this as its version.
fn with_shell(disk: &Disk, version: &str) -> Vec<u8> {
    let mut archive = Archive::new();
    archive.program("hook", HOOK.as_bytes().to_vec());
    archive.file("etc/fife/version", format!("{version}\n").into_bytes());
    // The kernel unpacks one archive after the other, each at a multiple of four.
    let mut initrd = disk.read_esp("fife/a/initrd");
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend(archive.write().unwrap());
    initrd
}

/// Puts the shell into slot a of a fresh disk. Systems that are put into the other slot must have it too.
pub fn prepare(disk: &Disk) {
    disk.write_esp("fife/a/initrd", &with_shell(disk, image::VERSION));
    for file in ["loader/entries/fife-a.conf", "fife/grub.cfg"] {
        let text = String::from_utf8(disk.read_esp(file)).unwrap();
        let changed = text.replace("fife.slot=", &format!("{KERNEL_ARGUMENT} fife.slot="));
        assert_ne!(changed, text, "{file}");
        disk.write_esp(file, changed.as_bytes());
    }
}

/// A machine with the shell that boots without firmware and loader: what they do is not what is tested. The disk is prepared; kernel and
/// initramfs of it go to `dir`.
#[must_use]
pub fn machine(dir: &Path, disk: &Disk) -> Machine {
    let file = |name: &str| {
        let path = dir.join(name);
        std::fs::write(&path, disk.read_esp(&format!("fife/a/{name}"))).unwrap();
        path.display().to_string()
    };
    let options = format!("console=ttyS0,115200 panic=10 quiet fife.slot=a {KERNEL_ARGUMENT}");
    let arguments = ["-kernel", &file("linux"), "-initrd", &file("initrd"), "-append", &options];
    Machine::new("mail1", Firmware::Bios, disk).more(&arguments)
}

/// Signed bundles with the system of a fresh disk under other versions, in a directory, and with more files of it on a FAT disk. `broken`: with an initramfs that is none.
pub fn bundles(dir: &Path, fresh: &Disk, versions: &[(&str, bool)], more: &[&Path]) -> Disk {
    let signer = Signer::new(None, &image::root().join("target/image/keys")).unwrap();
    let linux = fresh.read_esp("fife/a/linux");
    let path = dir.join("bundles");
    let mib = 80 * u64::try_from(versions.len()).unwrap();
    run("mkfs.vfat", &["-C", path.to_str().unwrap(), &(mib << 10).to_string()]);
    for (version, broken) in versions {
        let initrd = if *broken { b"no initramfs".to_vec() } else { with_shell(fresh, version) };
        let bundle = dir.join(format!("{version}.update"));
        bundle::make(&bundle, version, "99.0", &linux, &initrd, &signer).unwrap();
        let signature: PathBuf = dir.join(format!("{version}.update.minisig"));
        for file in [bundle, signature] {
            copy_to(&path, &file);
        }
    }
    more.iter().for_each(|file| copy_to(&path, file));
    Disk::at(path)
}

fn copy_to(fat: &Path, file: &Path) {
    run("mcopy", &["-i", fat.to_str().unwrap(), file.to_str().unwrap(), "::"]);
}

fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The shell of one guest.
#[derive(Debug)]
pub struct Shell(Console);

impl Shell {
    /// QEMU's end of the guest's second serial line; see `arguments`.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        Self(Console::connect(socket))
    }

    /// What QEMU must be told.
    #[must_use]
    pub fn arguments(socket: &Path) -> [String; 2] {
        ["-serial".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
    }

    /// Waits until the guest's system has started so far that the shell answers.
    pub fn wait(&self) {
        self.0.wait("built-in shell");
    }

    /// Types a command and waits for nothing.
    pub fn begin(&self, command: &str) {
        self.0.type_line(&format!("{command}; {ASK_END}"));
    }

    /// Runs a command; what it said, and its exit code.
    pub fn run(&self, command: &str) -> (String, u8) {
        self.begin(command);
        let said = self.0.wait(END);
        let code = self.0.wait("\n");
        (said, code.trim().parse().unwrap())
    }
}
