//! Which kernel modules go in, and the tables by which the system finds them.
//!
//! Owns: the selection, its closure over dependencies, `modules.dep` and `modules.alias`. Called by: `initramfs`.
//! The tables are written here and not by `depmod`: what it writes depends on its version, and all that is needed
//! stands in the modules' own `.modinfo` sections.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

/// Whole directories below `kernel/`, and single modules by name. What servers have, and what fife does.
/// No firmware goes in: Debian 12 has the files that `bnx2`, `tg3`'s offloads and `ice`'s larger features ask for outside its main section.
const DIRECTORIES: [&str; 9] = [
    "drivers/ata",
    "drivers/net/mdio",
    "drivers/net/phy",
    "drivers/nvme/host",
    "drivers/usb/host",
    "drivers/virtio",
    "drivers/watchdog",
    "net/netfilter/ipvs",
    "fs/nls",
];
const MODULES: [&str; 91] = [
    // storage
    "aacraid",
    "ahci",
    "hpsa",
    "smartpqi",
    "megaraid_sas",
    "mpi3mr",
    "mpt3sas",
    "mptsas",
    "mptspi",
    "vmw_pvscsi",
    "virtio_blk",
    "virtio_scsi",
    "nvme",
    "sd_mod",
    "sr_mod",
    "uas",
    "usb_storage",
    "dm_mod",
    "dm_multipath",
    "md_mod",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    "loop",
    "iscsi_tcp",
    "hv_storvsc",
    "mmc_block",
    "sdhci_pci",
    // tape
    "ch",
    "sg",
    "st",
    // network
    "bnxt_en",
    "e1000",
    "e1000e",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "mlx4_en",
    "mlx5_core",
    "r8169",
    "tg3",
    "bnx2",
    "virtio_net",
    "vmxnet3",
    "hv_netvsc",
    "bonding",
    "8021q",
    "macvlan",
    "dummy",
    "veth",
    "tun",
    "af_packet",
    "nf_tables",
    // file systems
    "ext4",
    "xfs",
    "vfat",
    "exfat",
    "isofs",
    "udf",
    "nfs",
    "nfsv3",
    "nfsv4",
    "efivarfs",
    "overlay",
    "squashfs",
    // what ext4 and xfs look up by name; not aesni_intel: every processor asks for it, it tests itself for a second, and nothing here uses it
    "crc32c_generic",
    "crc32c_intel",
    "libcrc32c",
    "sha256_generic",
    // serial lines and USB serial adapters
    "8250_exar",
    "cdc_acm",
    "ch341",
    "cp210x",
    "ftdi_sio",
    "option",
    "pl2303",
    "qcserial",
    "sierra",
    "usbserial",
    // the console of machines, and their buttons and clocks
    "button",
    "evdev",
    "hid_generic",
    "i8042",
    "atkbd",
    "usbhid",
    "rtc_cmos",
    "virtio_console",
    "virtio_rng",
];

/// The selection, ready to be written down.
#[derive(Debug)]
pub struct Modules {
    /// Path below `lib/modules/VERSION` to the module's octets.
    pub files: BTreeMap<String, Vec<u8>>,
    /// A line each: path, colon, paths of what must be loaded before, the last one first.
    pub dep: String,
    /// `alias PATTERN MODULE`, a line each.
    pub alias: String,
}

#[derive(Debug)]
struct Module {
    path: String,
    octets: Vec<u8>,
    depends: Vec<String>,
    aliases: Vec<String>,
}

impl Modules {
    /// Selects from an unpacked kernel package. Names that this kernel has built in are passed over.
    ///
    /// # Errors
    /// The kernel has no such module: it was renamed, or this list is wrong.
    pub fn select(root: &Path, kernel_version: &str) -> Result<Self> {
        let base = root.join("lib/modules").join(kernel_version);
        let mut all = BTreeMap::new();
        find(&base, &base.join("kernel"), &mut all)?;
        let builtin = std::fs::read_to_string(base.join("modules.builtin"))?;
        let builtin: BTreeSet<String> = builtin.lines().filter_map(|path| name_of(Path::new(path))).collect();
        if let Some(missing) = MODULES.iter().find(|name| !all.contains_key(**name) && !builtin.contains(**name)) {
            bail!("the kernel {kernel_version} has no module {missing}");
        }
        let wanted = all.iter().filter(|(name, path)| {
            let below = |dir: &&str| path.starts_with(&format!("kernel/{dir}/"));
            MODULES.contains(&name.as_str()) || DIRECTORIES.iter().any(below)
        });
        let mut selected = BTreeMap::new();
        for name in wanted.map(|(name, _)| name) {
            select(&base, &all, name, &mut selected)?;
        }
        Self::write_down(&selected)
    }

    fn write_down(selected: &BTreeMap<String, Module>) -> Result<Self> {
        let (mut dep, mut alias) = (String::new(), String::new());
        for (name, module) in selected {
            let mut before = Vec::new();
            before_it(selected, name, &mut before)?;
            dep.push_str(&format!(
                "{}:{}\n",
                module.path,
                before.iter().map(|path| format!(" {path}")).collect::<String>()
            ));
            for pattern in module.aliases.iter().collect::<BTreeSet<_>>() {
                alias.push_str(&format!("alias {pattern} {name}\n"));
            }
        }
        let files = selected.values().map(|module| (module.path.clone(), module.octets.clone())).collect();
        Ok(Self { files, dep, alias })
    }
}

/// Every module by name, with hyphens as the kernel has them: underscores.
fn find(base: &Path, dir: &Path, all: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            find(base, &path, all)?;
        } else if let Some(name) = name_of(&path) {
            all.insert(name, path.strip_prefix(base)?.display().to_string());
        }
    }
    Ok(())
}

/// A module's name by its file's.
fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.strip_suffix(".ko")?.replace('-', "_"))
}

/// This module, and whatever it depends on.
fn select(
    base: &Path,
    all: &BTreeMap<String, String>,
    name: &str,
    selected: &mut BTreeMap<String, Module>,
) -> Result<()> {
    if selected.contains_key(name) {
        return Ok(());
    }
    let path = all.get(name).with_context(|| format!("a module depends on {name}, which the kernel has not"))?;
    let octets = std::fs::read(base.join(path))?;
    let info = modinfo(&octets).with_context(|| path.clone())?;
    let depends: Vec<String> = values(&info, "depends")
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect();
    // What it asks for when it runs, by name.
    let soft = values(&info, "softdep").flat_map(|list| list.split_whitespace()).filter(|word| !word.ends_with(':'));
    let soft: Vec<String> = soft.map(|name| name.replace('-', "_")).filter(|name| all.contains_key(name)).collect();
    let aliases = values(&info, "alias").map(str::to_owned).collect();
    selected.insert(name.to_owned(), Module { path: path.clone(), octets, depends: depends.clone(), aliases });
    for name in depends.iter().chain(&soft) {
        select(base, all, name, selected)?;
    }
    Ok(())
}

/// Paths of what must be loaded before, each once: a module stands before what it depends on, so that they are loaded from the
/// last to the first.
fn before_it<'a>(selected: &'a BTreeMap<String, Module>, name: &str, before: &mut Vec<&'a str>) -> Result<()> {
    let module = selected.get(name).with_context(|| name.to_owned())?;
    for name in &module.depends {
        let path = selected.get(name).with_context(|| name.clone())?.path.as_str();
        // Needed by another one as well: it must come before both.
        before.retain(|other| *other != path);
        before.push(path);
        before_it(selected, name, before)?;
    }
    Ok(())
}

/// The `key=value` strings of a module.
fn modinfo(octets: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(octets)?;
    let section = file.section_by_name(".modinfo").context("no .modinfo")?;
    let text = section.data()?.split(|octet| *octet == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    Ok(text.collect())
}

fn values<'a>(info: &'a [String], key: &'a str) -> impl Iterator<Item = &'a str> {
    info.iter().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
}
