//! Builds the appliance: a disk image that boots by UEFI and by BIOS, and the bundle that updates it.
//!
//! Owns: the order of the work, what is printed. Called by: `main`, the tests under QEMU. Never: needs root, a loop device,
//! or the network for anything but Debian packages.
//!
//! - `source`: the commit; `packages`: the kernel, loaders and tools; `modules`: which of the kernel's; `initramfs`: the system;
//! - `esp`, `data`: the two volumes; `grub`: loader for BIOS; `disk`: all in its place; `bundle`: the update.
//!
//! The same inputs give the same octets: times are fixed, and whatever would be random is derived from a hash of the inputs.

#![expect(clippy::print_stdout, reason = "what was built, and how large, is told")]

pub mod bundle;
pub mod data;
pub mod disk;
pub mod esp;
pub mod files;
pub mod grub;
pub mod initramfs;
pub mod modules;
pub mod packages;
pub mod source;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::bundle::Signer;
use crate::grub::Grub;
use crate::initramfs::Archive;
use crate::modules::Modules;
use crate::packages::{Package, Packages};
use crate::source::Source;

/// Octets of the image, at most; without zeros that are only there for the partitions' places, it is far smaller.
const IMAGE_LEN_MAX: u64 = 150_000_000;
/// Octets of the update bundle, at most.
const BUNDLE_LEN_MAX: u64 = 60_000_000;
/// zstd levels: what is shipped, and what is made for a test.
const LEVEL: i32 = 19;
const LEVEL_FAST: i32 = 1;
/// What the kernel is told, beside the slot. The last console is where messages for people go: the serial line. A kernel that cannot go on
/// starts again.
const OPTIONS: &str = "console=tty0 console=ttyS0,115200 panic=10 quiet";

/// What is to be built.
#[derive(Debug, Clone)]
pub struct Options {
    /// The repository's root.
    pub root: PathBuf,
    /// The static binary.
    pub fife: PathBuf,
    /// Its version.
    pub version: String,
    /// Where all goes.
    pub out: PathBuf,
    /// Secret key in minisign's format, without a password.
    pub sign_key: Option<PathBuf>,
    /// What the first boot finds as `fife.toml`, in place of `etc/image.toml`.
    pub config: Option<PathBuf>,
    /// Compress little; leave out the copies (`.zst`, `.qcow2`) that people download.
    pub fast: bool,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    pub image: PathBuf,
    pub bundle: PathBuf,
    pub record: Record,
}

/// What went in, kept in the image and beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    pub fife: Package,
    /// Of this repository; none when it was no clone.
    pub commit: Option<String>,
    pub kernel: String,
    /// Debian packages by name.
    pub packages: BTreeMap<String, Package>,
}

/// Builds the binary by cargo, in its release profile, and says where it is.
///
/// Under `cargo run` and `cargo test`, cargo has told this program which package it is of. Build scripts would take that for a change and
/// build half of the dependencies again, each time: it is not passed on.
pub fn build_fife(root: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let status =
        cargo.args(["build", "--release", "--locked", "--workspace", "--bin", "fife"]).current_dir(root).status()?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(root.join("target/x86_64-unknown-linux-gnu/release/fife"))
}

/// Builds everything. What is there already under these names is replaced only by what is complete.
pub fn build(options: &Options) -> Result<Built> {
    let shared = options.root.join("target/image");
    std::fs::create_dir_all(&shared)?;
    std::fs::create_dir_all(&options.out)?;
    let (packages, signer) = inputs(options, &shared)?;
    let source = Source::of(&options.root)?;
    let fife = files::stripped(&options.fife)?;
    let record = Record {
        fife: Package { version: options.version.clone(), sha256: files::sha256_of(&fife) },
        commit: source.commit,
        kernel: packages.kernel_version.clone(),
        packages: packages.list.clone(),
    };
    let seed = seed(&record, options)?;
    let guid = |name: &str| derived(&seed, name);

    let work = tempfile::Builder::new().prefix(".fife-image").tempdir_in(&options.out)?;
    let data = work.path().join("data.ext4");
    data::make(&data, guid("data"), guid("data hash seed"))?;
    let archive = system(options, &packages, &signer, &record, fife, &data)?.dated(source.time);
    let cpio = archive.write()?;
    let initrd = zstd::encode_all(cpio.as_slice(), if options.fast { LEVEL_FAST } else { LEVEL })?;
    let linux = packages.read(&format!("boot/vmlinuz-{}", packages.kernel_version))?;
    report(&archive, &cpio, &initrd, &linux);
    esp::check_slot(&linux, &initrd)?;

    let grub = Grub::make(&packages.root)?;
    let esp = work.path().join("esp.fat");
    let volume_id = u32::from_le_bytes(guid("esp volume").as_bytes().first_chunk().copied().unwrap_or_default());
    esp::make(&esp, volume_id, &esp_files(options, &packages, &linux, &initrd)?)?;
    let name = format!("fife-{}", options.version);
    let made = work.path().join(format!("{name}.img"));
    disk::make(&made, &grub, &esp, &data, &guid)?;
    bundle::make(
        &work.path().join(format!("{name}.update")),
        &options.version,
        &packages.kernel_version,
        &linux,
        &initrd,
        &signer,
    )?;
    std::fs::write(work.path().join(format!("{name}.json")), serde_json::to_vec_pretty(&record)?)?;
    check_size(&made, IMAGE_LEN_MAX)?;
    check_size(&work.path().join(format!("{name}.update")), BUNDLE_LEN_MAX)?;
    if !options.fast {
        copies(&made)?;
    }
    std::fs::remove_file(&esp)?;
    std::fs::remove_file(&data)?;
    // The image comes last: that it is there says that the others are.
    let image = options.out.join(format!("{name}.img"));
    for file in files::list(work.path())?.iter().filter(|file| **file != format!("{name}.img")) {
        std::fs::rename(work.path().join(file), options.out.join(file))?;
    }
    std::fs::rename(&made, &image)?;
    Ok(Built { image, bundle: options.out.join(format!("{name}.update")), record })
}

/// What comes from outside the repository. Several builds may run at once; one at a time fetches, unpacks, and makes a key.
fn inputs(options: &Options, shared: &Path) -> Result<(Packages, Signer)> {
    let lock = File::create(shared.join("lock"))?;
    lock.lock()?;
    Ok((Packages::fetch(shared)?, Signer::new(options.sign_key.as_deref(), &shared.join("keys"))?))
}

/// What the initramfs holds.
fn system(
    options: &Options,
    packages: &Packages,
    signer: &Signer,
    record: &Record,
    fife: Vec<u8>,
    data: &Path,
) -> Result<Archive> {
    let mut archive = Archive::new();
    archive.program("init", fife);
    archive.link("usr/bin/fife", "/init");
    archive.link("bin/fife", "/init");
    // The kernel calls it by this name when it misses a module.
    archive.link("sbin/modprobe", "/init");
    archive.program("bin/busybox", packages.read("bin/busybox")?);
    archive.link("bin/sh", "busybox");
    // What fife's commands read when no other file is named.
    archive.link("etc/fife.toml", "/boot/fife.toml");
    archive.program("sbin/e2fsck", packages.read("sbin/e2fsck.static")?);
    archive.file("etc/ssl/certs/ca-certificates.crt", authorities(&packages.root)?);
    archive.link("etc/resolv.conf", "/run/resolv.conf");
    archive.file("etc/fife/version", format!("{}\n", options.version).into_bytes());
    archive.file("etc/fife/kernel-version", format!("{}\n", record.kernel).into_bytes());
    archive.file("etc/fife/update.pub", signer.public.clone().into_bytes());
    archive.file("etc/fife/manifest.json", serde_json::to_vec_pretty(record)?);
    archive.file("usr/share/fife/fife.toml", settings(options)?);
    // For a disk that is installed to: there is no mke2fs here.
    archive.file("usr/share/fife/data.ext4.zst", zstd::encode_all(File::open(data)?, LEVEL)?);
    let modules = Modules::select(&packages.root, &packages.kernel_version)?;
    let base = format!("lib/modules/{}", packages.kernel_version);
    for (path, octets) in modules.files {
        archive.file(&format!("{base}/{path}"), octets);
    }
    archive.file(&format!("{base}/modules.dep"), modules.dep.into_bytes());
    archive.file(&format!("{base}/modules.alias"), modules.alias.into_bytes());
    archive.file(&format!("{base}/modules.builtin"), packages.read(&format!("{base}/modules.builtin"))?);
    archive.overlay(&options.root.join("rootfs-overlay"))?;
    Ok(archive)
}

/// The authorities that Debian trusts, in one file, as `update-ca-certificates` would make it.
fn authorities(root: &Path) -> Result<Vec<u8>> {
    let dir = root.join("usr/share/ca-certificates/mozilla");
    let mut all = Vec::new();
    for name in files::list(&dir)? {
        all.extend(std::fs::read(dir.join(name))?);
    }
    Ok(all)
}

/// What the first boot finds as `fife.toml`.
fn settings(options: &Options) -> Result<Vec<u8>> {
    let path = options.config.clone().unwrap_or_else(|| options.root.join("etc/image.toml"));
    std::fs::read(&path).with_context(|| path.display().to_string())
}

fn esp_files(options: &Options, packages: &Packages, linux: &[u8], initrd: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let entry = format!(
        "title fife {}\nsort-key fife\nversion 1\nlinux /fife/a/linux\ninitrd /fife/a/initrd\noptions {OPTIONS} fife.slot=a\n",
        options.version
    );
    let files = [
        ("EFI/BOOT/BOOTX64.EFI", packages.read("usr/lib/systemd/boot/efi/systemd-bootx64.efi")?),
        ("loader/loader.conf", b"timeout 0\nconsole-mode keep\n".to_vec()),
        ("loader/entries/fife-a.conf", entry.into_bytes()),
        ("fife/grub.cfg", grub::configuration(OPTIONS).into_bytes()),
        ("fife/grubenv", grub::environment()),
        ("fife/a/linux", linux.to_vec()),
        ("fife/a/initrd", initrd.to_vec()),
        ("fife/a/version", format!("{}\n", options.version).into_bytes()),
        ("fife.toml", settings(options)?),
    ];
    Ok(files.into_iter().map(|(path, octets)| (path.to_owned(), octets)).collect())
}

/// A hash of all that goes in.
fn seed(record: &Record, options: &Options) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    hasher.update(serde_json::to_vec(record)?);
    hasher.update(settings(options)?);
    Ok(hasher.finalize().into())
}

/// An identifier that looks random and is not.
fn derived(seed: &[u8; 32], name: &str) -> Uuid {
    let mut hasher = Sha256::new();
    hasher.update(seed);
    hasher.update(name.as_bytes());
    let octets: [u8; 32] = hasher.finalize().into();
    let first = octets.first_chunk().copied().unwrap_or_default();
    uuid::Builder::from_random_bytes(first).into_uuid()
}

fn report(archive: &Archive, cpio: &[u8], initrd: &[u8], linux: &[u8]) {
    let mib = |len: usize| format!("{}.{} MiB", len >> 20, ((len & 0xf_ffff) * 10) >> 20);
    println!("kernel       {}", mib(linux.len()));
    println!("fife         {}", mib(archive.size_below("init")));
    println!("modules      {}", mib(archive.size_below("lib/modules")));
    println!("initramfs    {}, compressed {}", mib(cpio.len()), mib(initrd.len()));
}

fn check_size(path: &Path, len_max: u64) -> Result<()> {
    let len = std::fs::metadata(path)?.len();
    println!("{}   {len} octets", path.file_name().unwrap_or_default().display());
    ensure!(len <= len_max, "{} has {len} octets; {len_max} are allowed", path.display());
    Ok(())
}

/// What people download: the image compressed, as a disk for virtual servers, and their hashes.
fn copies(image: &Path) -> Result<()> {
    let with = |ending: &str| {
        let mut path = image.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let compressed = with(".zst");
    let mut encoder = zstd::Encoder::new(BufWriter::new(File::create(&compressed)?), LEVEL)?;
    io::copy(&mut File::open(image)?, &mut encoder)?;
    encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    let qcow2 = image.with_extension("qcow2");
    let status = Command::new("qemu-img")
        .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
        .arg(image)
        .arg(&qcow2)
        .status()
        .context("qemu-img (package qemu-utils)")?;
    ensure!(status.success(), "qemu-img: {status}");
    for path in [image, &compressed, &qcow2] {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut beside = path.as_os_str().to_owned();
        beside.push(".sha256");
        // As sha256sum writes and checks it.
        std::fs::write(beside, format!("{}  {name}\n", files::sha256(path)?))?;
        println!("{name}   {} octets", std::fs::metadata(path)?.len());
    }
    Ok(())
}
