//! GRUB for machines that boot by BIOS: its core image, its place on the disk, its menu.
//!
//! Owns: the boot code in sector 0 and what lies in the BIOS boot partition. Called by: `disk`, `esp`.
//! `grub-install` is not used: it wants root and a block device, and does these few things.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::disk::{BIOS_BOOT_FIRST_LBA, BIOS_BOOT_SECTORS, SECTOR};

/// Octets of sector 0 that are code (the partition table follows).
pub const BOOT_CODE_LEN: usize = 440;
/// Where boot.img holds the sector of the core image, and the jump that is for floppy disks only.
const BOOT_KERNEL_SECTOR_AT: usize = 0x5c;
const BOOT_DRIVE_CHECK_AT: usize = 0x66;
const NOP_NOP: [u8; 2] = [0x90, 0x90];
/// Where the first sector of the core image holds the place and length of the rest.
const CORE_REST_SECTOR_AT: usize = 0x1f4;
const CORE_REST_LEN_AT: usize = 0x1fc;

/// What the core image must know to read the ESP and the environment block.
const GRUB_MODULES: [&str; 14] = [
    "biosdisk",
    "part_gpt",
    "fat",
    "linux",
    "normal",
    "loadenv",
    "test",
    "minicmd",
    "configfile",
    "serial",
    "search",
    "search_label",
    "probe",
    "echo",
];

/// Boot code and core image.
#[derive(Debug)]
pub struct Grub {
    pub boot_code: [u8; BOOT_CODE_LEN],
    pub core: Vec<u8>,
}

impl Grub {
    /// From the unpacked packages.
    pub fn make(packages: &Path) -> Result<Self> {
        let images = packages.join("usr/lib/grub/i386-pc");
        let work = tempfile::tempdir()?;
        let path = work.path().join("core.img");
        let status = Command::new(packages.join("usr/bin/grub-mkimage"))
            .args(["-O", "i386-pc", "-p", "(hd0,gpt2)/fife", "-d"])
            .arg(&images)
            .arg("-o")
            .arg(&path)
            .args(GRUB_MODULES)
            .status()
            .context("grub-mkimage")?;
        ensure!(status.success(), "grub-mkimage: {status}");
        let boot = std::fs::read(images.join("boot.img"))?;
        let mut core = std::fs::read(&path)?;
        let mut boot_code = [0; BOOT_CODE_LEN];
        boot_code.copy_from_slice(boot.get(..BOOT_CODE_LEN).context("boot.img is too short")?);
        put(&mut boot_code, BOOT_KERNEL_SECTOR_AT, &BIOS_BOOT_FIRST_LBA.to_le_bytes())?;
        put(&mut boot_code, BOOT_DRIVE_CHECK_AT, &NOP_NOP)?;
        let sectors = u64::try_from(core.len())?.div_ceil(SECTOR);
        ensure!(sectors <= BIOS_BOOT_SECTORS, "GRUB's core image has {sectors} sectors: too many");
        put(&mut core, CORE_REST_SECTOR_AT, &(BIOS_BOOT_FIRST_LBA + 1).to_le_bytes())?;
        put(&mut core, CORE_REST_LEN_AT, &u16::try_from(sectors - 1)?.to_le_bytes())?;
        Ok(Self { boot_code, core })
    }
}

fn put(octets: &mut [u8], at: usize, value: &[u8]) -> Result<()> {
    octets.get_mut(at..at + value.len()).context("image is too short")?.copy_from_slice(value);
    Ok(())
}

/// Octets of an environment block, always.
const ENVIRONMENT_LEN: usize = 1024;
const ENVIRONMENT_HEAD: &str = "# GRUB Environment Block\n";

/// The environment block that says that slot `a` is to be booted.
pub fn environment() -> Vec<u8> {
    let mut block = format!("{ENVIRONMENT_HEAD}slot=a\ntrial=\ntries=0\n").into_bytes();
    block.resize(ENVIRONMENT_LEN, b'#');
    block
}

/// GRUB's configuration: boots the slot on trial as long as it has tries left, counting them down; else the slot that is known to be good.
/// A slot that cannot be loaded gives way to the other one. When the environment block cannot be written, nothing would count the tries: then
/// the good slot is booted.
pub fn configuration(options: &str) -> String {
    format!(
        r#"# Written by the image builder; which slot is booted stands in /fife/grubenv.
set timeout=0
serial --unit=0 --speed=115200
set slot=a
load_env -f /fife/grubenv slot trial tries
if [ "$slot" = "b" ]; then set first=b; set second=a; else set first=a; set second=b; fi
set left=
if [ "$tries" = "3" ]; then set left=2
elif [ "$tries" = "2" ]; then set left=1
elif [ "$tries" = "1" ]; then set left=0
fi
if [ "$trial" = "$second" -a -n "$left" ]; then
  set tries=$left
  if save_env -f /fife/grubenv tries; then
    set second=$first
    set first=$trial
  fi
fi
# From which of several disks with fife this is.
probe --set=esp --part-uuid $root
for boot in $first $second; do
  if linux /fife/$boot/linux {options} fife.slot=$boot fife.esp=$esp; then
    if initrd /fife/$boot/initrd; then
      boot
    fi
  fi
done
echo "fife: neither of the two systems on this disk can be loaded. Boot from the installation stick."
"#
    )
}
