//! Debian packages that the image is made of: fetched, unpacked, written down.
//!
//! Owns: `target/image/debs` and `target/image/unpacked`. Called by: `build`. Never: installs anything on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::files;

/// Beside the kernel, which `linux-image-amd64` names.
const PACKAGES: [&str; 6] =
    ["systemd-boot-efi", "grub-pc-bin", "grub-common", "busybox-static", "e2fsck-static", "ca-certificates"];
const KERNEL: &str = "linux-image-amd64";

/// One package that went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    pub version: String,
    pub sha256: String,
}

/// What was unpacked.
#[derive(Debug)]
pub struct Packages {
    /// The root that they were unpacked into.
    pub root: PathBuf,
    pub kernel_version: String,
    /// By name.
    pub list: BTreeMap<String, Package>,
}

impl Packages {
    /// Fetches what is not there yet in its current version, and unpacks it.
    pub fn fetch(dir: &Path) -> Result<Self> {
        let debs = dir.join("debs");
        std::fs::create_dir_all(&debs)?;
        let kernel = kernel_package()?;
        let names: Vec<&str> = PACKAGES.into_iter().chain([kernel.as_str()]).collect();
        let mut list = BTreeMap::new();
        let mut paths = Vec::new();
        for name in names {
            let version = candidate(name)?;
            let path = deb(&debs, name, &version)?;
            let sha256 = files::sha256(&path)?;
            list.insert(name.to_owned(), Package { version, sha256 });
            paths.push(path);
        }
        let root = unpack(dir, &paths, &list)?;
        let kernel_version = kernel.trim_start_matches("linux-image-").to_owned();
        Ok(Self { root, kernel_version, list })
    }

    /// A file of the unpacked packages.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.root.join(path);
        std::fs::read(&path).with_context(|| path.display().to_string())
    }
}

/// The package that the kernel's metapackage now depends on.
fn kernel_package() -> Result<String> {
    let text = output("apt-cache", &["depends", KERNEL])?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned);
    name.filter(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{KERNEL} names no kernel: apt-get update?"))
}

/// The version that apt would install.
fn candidate(package: &str) -> Result<String> {
    let text = output("apt-cache", &["policy", package])?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    version.filter(|version| *version != "(none)").map(str::to_owned).with_context(|| format!("apt knows no {package}"))
}

/// The package's file, fetched when it is not there.
fn deb(debs: &Path, name: &str, version: &str) -> Result<PathBuf> {
    // As apt names it: the colon of an epoch is escaped.
    let start = format!("{name}_{}_", version.replace(':', "%3a"));
    let find = || -> Result<Option<PathBuf>> {
        let names = files::list(debs)?;
        Ok(names.into_iter().find(|found| found.starts_with(&start)).map(|found| debs.join(found)))
    };
    if let Some(path) = find()? {
        return Ok(path);
    }
    let status =
        Command::new("apt-get").args(["download", "-q", &format!("{name}={version}")]).current_dir(debs).status()?;
    ensure!(status.success(), "apt-get download {name}: {status}");
    find()?.with_context(|| format!("apt-get download left no {start}*.deb"))
}

/// One tree of all of them, made anew when any of them is another than last time.
fn unpack(dir: &Path, paths: &[PathBuf], list: &BTreeMap<String, Package>) -> Result<PathBuf> {
    let (root, mark) = (dir.join("unpacked"), dir.join("unpacked.json"));
    let wanted = serde_json::to_vec(list)?;
    if std::fs::read(&mark).is_ok_and(|found| found == wanted) {
        return Ok(root);
    }
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    for path in paths {
        let status = Command::new("dpkg-deb").arg("-x").arg(path).arg(&root).status()?;
        ensure!(status.success(), "dpkg-deb -x {}: {status}", path.display());
    }
    std::fs::write(&mark, wanted)?;
    Ok(root)
}

/// What a program prints.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).env("LC_ALL", "C").output().with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
