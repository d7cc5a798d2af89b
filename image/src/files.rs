//! Small things about files.
//!
//! Owns: nothing. Called by: every room of the builder.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// Octets read at a time.
const READ_LEN: usize = 64 * 1024;

/// SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut hasher = Sha256::new();
    let mut octets = vec![0; READ_LEN];
    loop {
        let count = file.read(&mut octets)?;
        match octets.get(..count) {
            Some(read) if !read.is_empty() => hasher.update(read),
            _ => break,
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// SHA-256 of octets, in hex.
pub fn sha256_of(octets: &[u8]) -> String {
    hex::encode(Sha256::digest(octets))
}

/// A program without its symbols, which nothing in the image reads: the loader and the kernel have a fifth less to read and unpack.
/// binutils' strip, which is there with the linker: ELF needs no second writer here.
pub fn stripped(program: &Path) -> Result<Vec<u8>> {
    let out = tempfile::NamedTempFile::new()?;
    let status = Command::new("strip").arg("--strip-all").arg("-o").arg(out.path()).arg(program).status();
    let status = status.context("strip, of the package binutils")?;
    ensure!(status.success(), "strip {}: {status}", program.display());
    std::fs::read(out.path()).with_context(|| program.display().to_string())
}

/// Names in a directory, sorted.
pub fn list(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
