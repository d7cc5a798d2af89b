//! The update bundle: a tar with a manifest, a kernel and an initramfs, and a signature beside it.
//!
//! Owns: what a bundle must be to be believed. Called by: `update`. Never: looks into a bundle whose signature was not verified over all of it.
//! Spec: POSIX.1-2017 ustar (three plain files, in this order: `manifest.json`, `linux`, `initrd`); minisign's signatures, prehashed.

#[cfg(test)]
pub(super) mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Octets of a bundle, at most: two slots have to find room on the ESP.
pub const BUNDLE_LEN_MAX: u64 = 96 << 20;
/// Octets of a signature file, at most.
pub const SIGNATURE_LEN_MAX: u64 = 4096;
/// Octets of a manifest, at most.
const MANIFEST_LEN_MAX: u64 = 64 * 1024;
/// Letters of a version, at most: it stands in file names, loader entries and on the console.
const VERSION_CHARS_MAX: usize = 64;
const MANIFEST: &str = "manifest.json";
/// What follows the manifest.
const FILES: [&str; 2] = ["linux", "initrd"];
const COPY_LEN: usize = 256 * 1024;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the bundle cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("the bundle is larger than {BUNDLE_LEN_MAX} octets")]
    TooLarge,
    #[error("the signature file is no minisign signature")]
    NoSignature,
    #[error("the bundle is signed with another key than the one that this system believes")]
    OtherKey,
    #[error("the signature is not of this bundle: it was damaged on its way, or is a forgery")]
    Forged,
    #[error("the bundle is signed, but it is none of ours: {0}")]
    Odd(String),
}

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: String,
    /// The kernel's version.
    pub kernel: String,
    files: BTreeMap<String, Described>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    size: u64,
    sha256: String,
}

/// A bundle whose signature is good.
#[derive(Debug)]
pub struct Bundle {
    file: File,
}

impl Bundle {
    /// Verifies the signature over the whole file. The file must be the caller's own: what is in it afterwards is believed.
    ///
    /// # Errors
    /// `TooLarge`, `NoSignature`, `OtherKey`, `Forged`.
    pub fn verify(mut file: File, signature: &str, key: &PublicKey) -> Result<Self, BundleError> {
        let signature = Signature::decode(signature).map_err(|_| BundleError::NoSignature)?;
        let mut verifier = key.verify_stream(&signature).map_err(|error| {
            let is_other = matches!(error, minisign_verify::Error::UnexpectedKeyId);
            if is_other { BundleError::OtherKey } else { BundleError::NoSignature }
        })?;
        file.rewind().map_err(BundleError::Unreadable)?;
        let mut piece = vec![0; COPY_LEN];
        let mut octets: u64 = 0;
        loop {
            let count = file.read(&mut piece).map_err(BundleError::Unreadable)?;
            let read = piece.get(..count).unwrap_or_default();
            octets += count as u64;
            if octets > BUNDLE_LEN_MAX {
                return Err(BundleError::TooLarge);
            }
            if read.is_empty() {
                break;
            }
            verifier.update(read);
        }
        verifier.finalize().map_err(|_| BundleError::Forged)?;
        Ok(Self { file })
    }

    /// Reads the manifest.
    ///
    /// # Errors
    /// `Odd`, `Unreadable`.
    pub fn manifest(&mut self) -> Result<Manifest, BundleError> {
        self.walk(|_, _| Ok(false))
    }

    /// Writes kernel and initramfs into a directory, as `linux` and `initrd`.
    ///
    /// # Errors
    /// `Odd`: a file is not what the manifest says; `Io`: it cannot be written.
    pub fn unpack(&mut self, dir: &Path) -> Result<Manifest, BundleError> {
        self.walk(|name, entry| {
            let path = dir.join(name);
            let mut write = || {
                let mut file = File::create(&path)?;
                io::copy(entry, &mut file)?;
                file.sync_all()
            };
            write().map_err(|source| BundleError::Io { path: path.clone(), source })?;
            Ok(true)
        })
    }

    /// Goes through the files after the manifest, as long as `each` wants more; it must read its file to the end.
    fn walk(
        &mut self,
        mut each: impl FnMut(&str, &mut dyn Read) -> Result<bool, BundleError>,
    ) -> Result<Manifest, BundleError> {
        self.file.seek(SeekFrom::Start(0)).map_err(BundleError::Unreadable)?;
        let mut archive = tar::Archive::new(&self.file);
        // Raw: no extended headers, which could give other names and lengths.
        let mut entries = archive.entries().map_err(BundleError::Unreadable)?.raw(true);
        let mut first = next(&mut entries, MANIFEST)?;
        if first.size() > MANIFEST_LEN_MAX {
            return Err(BundleError::Odd(format!("{MANIFEST} is too long")));
        }
        let mut text = String::new();
        first.read_to_string(&mut text).map_err(BundleError::Unreadable)?;
        let manifest = Manifest::parse(&text)?;
        for name in FILES {
            let mut entry = next(&mut entries, name)?;
            let expected = manifest.files.get(name);
            let expected = expected.ok_or_else(|| BundleError::Odd(format!("{MANIFEST} does not have {name}")))?;
            if entry.size() != expected.size {
                return Err(BundleError::Odd(format!("{name} has {} octets, not {}", entry.size(), expected.size)));
            }
            let mut hashed = Hashed { inner: &mut entry, hasher: Sha256::new(), octets: 0 };
            if !each(name, &mut hashed)? {
                return Ok(manifest);
            }
            let Hashed { hasher, octets, .. } = hashed;
            if octets != expected.size {
                return Err(BundleError::Odd(format!("{name} ends early")));
            }
            if hex::encode(hasher.finalize()) != expected.sha256 {
                return Err(BundleError::Odd(format!("{name} has another SHA-256 than {MANIFEST} says")));
            }
        }
        match entries.next() {
            None => Ok(manifest),
            Some(_) => Err(BundleError::Odd("it holds more files than it should".to_owned())),
        }
    }
}

/// The next file of the archive, which must have this name and be a plain file.
fn next<'a, R: Read>(entries: &mut tar::Entries<'a, R>, name: &str) -> Result<tar::Entry<'a, R>, BundleError> {
    let missing = || BundleError::Odd(format!("{name} is missing"));
    let entry = entries.next().ok_or_else(missing)?.map_err(BundleError::Unreadable)?;
    if entry.path_bytes().as_ref() != name.as_bytes() || !entry.header().entry_type().is_file() {
        return Err(BundleError::Odd(format!(
            "{:?} is where {name} should be",
            entry.path_bytes().escape_ascii().to_string()
        )));
    }
    Ok(entry)
}

impl Manifest {
    fn parse(text: &str) -> Result<Self, BundleError> {
        let manifest: Self =
            serde_json::from_str(text).map_err(|error| BundleError::Odd(format!("{MANIFEST}: {error}")))?;
        for version in [&manifest.version, &manifest.kernel] {
            if !is_version(version) {
                return Err(BundleError::Odd(format!("{version:?} is no version")));
            }
        }
        Ok(manifest)
    }
}

/// Letters that cannot end a line of a loader entry or climb out of a directory.
fn is_version(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '~' | '_');
    (1..=VERSION_CHARS_MAX).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('.')
}

/// Versions in the order in which they came out: digits as numbers, the rest by letters, and `1.0-rc1` before `1.0`
/// (as Semantic Versioning 2.0.0 section 11 has it).
#[must_use]
pub fn compare(one: &str, other: &str) -> Ordering {
    let core = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
    let (one, other) = (core(one), core(other));
    let mut pieces = (pieces(&one).into_iter(), pieces(&other).into_iter());
    loop {
        let (left, right) = (pieces.0.next(), pieces.1.next());
        let order = match (&left, &right) {
            (None, None) => return Ordering::Equal,
            // What follows with a hyphen comes before, all else after.
            (Some(more), None) => is_before(more),
            (None, Some(more)) => is_before(more).reverse(),
            (Some(left), Some(right)) => left.cmp(right),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Text(String),
    Number(u64),
}

fn is_before(piece: &Piece) -> Ordering {
    match piece {
        Piece::Text(text) if text.starts_with(['-', '~']) => Ordering::Less,
        Piece::Text(_) | Piece::Number(_) => Ordering::Greater,
    }
}

/// Runs of digits, and what is between them.
fn pieces(version: &str) -> Vec<Piece> {
    let chunk = |chunk: &[u8]| {
        let text = String::from_utf8_lossy(chunk).into_owned();
        text.parse().map_or(Piece::Text(text), Piece::Number)
    };
    version.as_bytes().chunk_by(|left, right| left.is_ascii_digit() == right.is_ascii_digit()).map(chunk).collect()
}

/// A reader that hashes and counts what goes through it.
struct Hashed<'a, R> {
    inner: &'a mut R,
    hasher: Sha256,
    octets: u64,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.hasher.update(out.get(..count).unwrap_or_default());
        self.octets += count as u64;
        Ok(count)
    }
}

/// Copies a bundle to where only the system writes, not more of it than there may be.
///
/// # Errors
/// `Io`, `TooLarge`.
pub fn take(from: &mut impl Read, to: &Path) -> Result<File, BundleError> {
    let fault = |source| BundleError::Io { path: to.to_owned(), source };
    let mut file = create(to).map_err(fault)?;
    let copied = io::copy(&mut from.take(BUNDLE_LEN_MAX + 1), &mut file).map_err(fault)?;
    if copied > BUNDLE_LEN_MAX {
        return Err(BundleError::TooLarge);
    }
    file.flush().map_err(fault)?;
    Ok(file)
}

/// A new file that nobody else has open; what was there under this name is gone.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::options().read(true).write(true).create_new(true).open(path)
}
