//! A guest's disk: a file of its own.
//!
//! Owns: copying, growing, formatting, and the FAT partition as any PC sees it. Called by: suites. By mtools.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fife_image::disk::{ESP_FIRST_LBA, SECTOR};

/// A raw disk.
#[derive(Debug, Clone)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// A copy of the tested image, grown to so many MiB. Zeros take no place.
    #[must_use]
    pub fn of_image(path: &Path, mib: u64) -> Self {
        Self::copy(crate::image::image(), path, mib)
    }

    /// A copy of another disk.
    #[must_use]
    pub fn copy(from: &Path, path: &Path, mib: u64) -> Self {
        let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(path).status();
        assert!(copied.unwrap().success(), "cp {}", from.display());
        let disk = Self { path: path.to_path_buf() };
        disk.grow(mib);
        disk
    }

    /// An empty one.
    #[must_use]
    pub fn empty(path: &Path, mib: u64) -> Self {
        File::create(path).unwrap();
        let disk = Self { path: path.to_path_buf() };
        disk.grow(mib);
        disk
    }

    /// One with a file system on all of it, made by `program`.
    #[must_use]
    pub fn formatted(path: &Path, mib: u64, program: &str, arguments: &[&str]) -> Self {
        let disk = Self::empty(path, mib);
        let output = Command::new(program).args(arguments).arg(path).output().expect(program);
        assert!(output.status.success(), "{output:?}");
        disk
    }

    /// One that is there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn grow(&self, mib: u64) {
        File::options().write(true).open(&self.path).unwrap().set_len(mib << 20).unwrap();
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ESP in mtools' notation.
    fn esp(&self) -> String {
        format!("{}@@{}", self.path.display(), ESP_FIRST_LBA * SECTOR)
    }

    /// Puts a file onto the FAT partition, as an installer does on his PC. Only while no guest runs on the disk.
    pub fn write_esp(&self, name: &str, octets: &[u8]) {
        let mut mcopy = Command::new("mcopy")
            .args(["-o", "-i", &self.esp(), "-", &format!("::{name}")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        mcopy.stdin.take().unwrap().write_all(octets).unwrap();
        assert!(mcopy.wait().unwrap().success(), "mcopy to {name}");
    }

    /// Reads a file of the FAT partition.
    #[must_use]
    pub fn read_esp(&self, name: &str) -> Vec<u8> {
        self.mtools("mtype", name).stdout
    }

    /// Removes one.
    pub fn remove_esp(&self, name: &str) {
        self.mtools("mdel", name);
    }

    /// Names in a directory of the FAT partition.
    #[must_use]
    pub fn list_esp(&self, name: &str) -> Vec<String> {
        let output = Command::new("mdir").args(["-b", "-i", &self.esp(), &format!("::{name}")]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter_map(|line| Some(line.trim_end_matches('/').rsplit_once('/')?.1.to_owned())).collect()
    }

    fn mtools(&self, program: &str, name: &str) -> Output {
        let output = Command::new(program).args(["-i", &self.esp(), &format!("::{name}")]).output().unwrap();
        assert!(output.status.success(), "{program} {name}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}
