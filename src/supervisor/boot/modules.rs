//! Kernel modules: which one a device asks for, what that one needs first, and loading them.
//!
//! Owns: reading of `modules.alias` and `modules.dep`, the walk over the devices that are there, `fife` as the kernel's `modprobe`.
//! Called by: boot, `hotplug`, whoever needs a module by name (`load`). Never: unloads; reads `modules.softdep` (what the kernel needs
//! besides it asks for by name, and `modprobe` answers).
//! Spec: modules.dep(5), modules.alias as depmod(8) writes it, init_module(2), the kernel's request_module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// Where the kernel's devices are shown.
const DEVICES: &str = "/sys/devices";
/// Directories below `DEVICES` to which the walk goes down, at most; sysfs has no loops, but the depth of buses is the hardware's.
const DEPTH_MAX: usize = 40;
/// Where the kernel is told that we load modules for it.
const MODPROBE: &str = "/sbin/modprobe";

/// Stands for all buses; no bus is called so.
const ANY_BUS: &str = "*";

static OF_THIS_KERNEL: OnceLock<Modules> = OnceLock::new();

/// The modules that lie in the image.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// By name, with `_` for `-`.
    by_name: BTreeMap<String, Module>,
    /// Pattern and module, by what stands before the pattern's first `:` (the bus); by `ANY_BUS` where that is itself a pattern (`acpi*`).
    aliases: BTreeMap<String, Vec<(String, String)>>,
}

#[derive(Debug)]
struct Module {
    file: PathBuf,
    /// All that must be loaded before, the first one first.
    before: Vec<PathBuf>,
}

/// A module that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("module {}: {source}", .file.display())]
pub(super) struct LoadError {
    file: PathBuf,
    source: io::Error,
}

impl Modules {
    /// Those of the running kernel; none when the image has none for it.
    pub(super) fn of_this_kernel() -> &'static Self {
        OF_THIS_KERNEL.get_or_init(|| {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            let dir = Path::new("/lib/modules").join(release.trim());
            let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
            Self::parse(&dir, &text("modules.dep"), &text("modules.alias"))
        })
    }

    fn parse(dir: &Path, dependencies: &str, aliases: &str) -> Self {
        let mut modules = Self::default();
        for line in dependencies.lines() {
            let Some((file, before)) = line.split_once(':') else { continue };
            // depmod lists what a module needs before what that needs in turn.
            let before = before.split_ascii_whitespace().rev().map(|file| dir.join(file)).collect();
            modules.by_name.insert(name_of(Path::new(file)), Module { file: dir.join(file), before });
        }
        for line in aliases.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) = (words.next(), words.next(), words.next()) {
                let bus = bus_of(pattern);
                let bus = if bus.contains(['*', '?', '[']) { ANY_BUS } else { bus };
                let of_bus = modules.aliases.entry(bus.to_owned()).or_default();
                of_bus.push((pattern.to_owned(), name.replace('-', "_")));
            }
        }
        modules
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The modules that a name or an alias (of a device, a file system, a cipher) means.
    fn meant_by<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a Module> {
        let own_name = self.by_name.get(&wanted.replace('-', "_"));
        let of_bus = [bus_of(wanted), ANY_BUS].into_iter().filter_map(|bus| self.aliases.get(bus)).flatten();
        let by_alias = of_bus.filter(move |(pattern, _)| fits(pattern.as_bytes(), wanted.as_bytes()));
        own_name.into_iter().chain(by_alias.filter_map(|(_, name)| self.by_name.get(name)))
    }

    /// Loads all that a name or an alias means, what they need first. True when at least one is in the kernel now.
    pub(super) fn load(&self, wanted: &str) -> Result<bool, LoadError> {
        let mut any = false;
        for module in self.meant_by(wanted) {
            for file in module.before.iter().chain([&module.file]) {
                insert(file).map_err(|source| LoadError { file: file.clone(), source })?;
            }
            any = true;
        }
        Ok(any)
    }

    /// Loads what these devices ask for, and answers what went wrong. A device that no module fits is none of our business.
    pub(super) fn load_for(&self, devices: &BTreeSet<String>) -> Vec<String> {
        let wanted = devices.iter().flat_map(|device| [Some(device.as_str()), generic(device)]).flatten();
        wanted.filter_map(|wanted| self.load(wanted).err()).map(|error| error.to_string()).collect()
    }
}

/// Tape drives (type 1) and media changers (type 8) are sent SCSI commands past their drivers, through a module that no alias names.
fn generic(device: &str) -> Option<&'static str> {
    ["scsi:t-0x01", "scsi:t-0x08"].contains(&device).then_some("sg")
}

/// Loads a module by name or alias; what goes wrong is logged.
pub fn load(wanted: &str) {
    match Modules::of_this_kernel().load(wanted) {
        Ok(true) => {}
        // It may be built into the kernel.
        Ok(false) => tracing::debug!(wanted, "no such module in the image"),
        Err(error) => tracing::warn!(wanted, %error, "the module cannot be loaded"),
    }
}

/// Whether this process was started by the kernel to load a module: by the name that `answer_the_kernel` gave it.
#[must_use]
pub fn is_modprobe() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == "modprobe"))
}

/// `modprobe [-OPTION…] [--] NAME…`, as the kernel calls it and as people do.
#[must_use]
pub fn modprobe() -> ExitCode {
    let mut failed = false;
    for wanted in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        failed |= !Modules::of_this_kernel().load(&wanted).unwrap_or(false);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Makes the kernel call us when it misses a module: a cipher of ext4, the character set of a FAT, a file system in mount(2).
///
/// # Errors
/// The kernel then gets no module that no device asks for.
pub(super) fn answer_the_kernel() -> io::Result<()> {
    if !Path::new(MODPROBE).exists() {
        fs::create_dir_all("/sbin")?;
        std::os::unix::fs::symlink("/init", MODPROBE)?;
    }
    fs::write("/proc/sys/kernel/modprobe", MODPROBE)
}

/// What every device that is there says of itself.
pub(super) fn devices() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(Path::new(DEVICES), 0, &mut found);
    found
}

fn walk(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        // Links lead to other places of the same tree.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&entry.path(), depth + 1, found);
        } else if kind.is_file() && entry.file_name() == "modalias" {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            found.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
        }
    }
}

/// The name that the kernel has for the module in this file.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn bus_of(alias: &str) -> &str {
    alias.split_once(':').map_or("", |(bus, _)| bus)
}

/// Loads one file; loaded already: good.
fn insert(file: &Path) -> io::Result<()> {
    if Path::new("/sys/module").join(name_of(file)).exists() {
        return Ok(());
    }
    match finit_module(File::open(file)?, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a pattern of `modules.alias` fits: `*`, `?` and `[a-z]` as fnmatch(3) has them, nothing escaped.
///
/// Of several `*` only the last one is gone back to: what an earlier one took can always be as short as it was.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            again = Some((rest, text));
            pattern = rest;
        } else if let Some((pattern_rest, text_rest)) = one(pattern, text) {
            (pattern, text) = (pattern_rest, text_rest);
        } else if pattern.is_empty() && text.is_empty() {
            return true;
        } else {
            let Some((star, [_, longer @ ..])) = again else { return false };
            again = Some((star, longer));
            (pattern, text) = (star, longer);
        }
    }
}

/// What is left of both after one character, if it fits.
fn one<'a>(pattern: &'a [u8], text: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (first, text_rest) = text.split_first()?;
    match pattern {
        [b'?', rest @ ..] => Some((rest, text_rest)),
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            let (set, after) = rest.split_at(end);
            in_set(set, *first).then_some((after.get(1..).unwrap_or_default(), text_rest))
        }
        [same, rest @ ..] if same == first => Some((rest, text_rest)),
        _ => None,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    match set {
        [low, b'-', high, rest @ ..] => (low..=high).contains(&&byte) || in_set(rest, byte),
        [same, rest @ ..] => *same == byte || in_set(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests;
