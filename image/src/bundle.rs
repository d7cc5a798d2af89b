//! The update bundle: what a running system needs to write its other slot, and the signature over it.
//!
//! Owns: `fife-VERSION.update` (tar: `manifest.json`, `linux`, `initrd`) and `.update.minisig`. Called by: `build`.
//! Spec: POSIX.1-2017 ustar; minisign's signatures (Ed25519 over BLAKE2b-512).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use serde::Serialize;

use crate::files;

/// Who signs, and what verifies it.
#[derive(Debug)]
pub struct Signer {
    secret: SecretKey,
    /// As it stands in `/etc/fife/update.pub`.
    pub public: String,
}

impl Signer {
    /// With the given key, which has no password; or with one that is made once and kept in `dir`.
    pub fn new(given: Option<&Path>, dir: &Path) -> Result<Self> {
        let path = given.map_or_else(|| dir.join("update.key"), PathBuf::from);
        if given.is_none() && !path.exists() {
            std::fs::create_dir_all(dir)?;
            let pair = KeyPair::generate_unencrypted_keypair()?;
            // For its owner only (mode 0600), and there as a whole or not at all.
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(pair.sk.to_box(None)?.to_string().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
        }
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let secret = SecretKeyBox::from_string(&text)?.into_unencrypted_secret_key()?;
        let public = PublicKey::from_secret_key(&secret)?.to_box()?.to_string();
        Ok(Self { secret, public })
    }
}

#[derive(Debug, Serialize)]
struct Manifest<'a> {
    version: &'a str,
    kernel: &'a str,
    files: BTreeMap<&'a str, Described>,
}

#[derive(Debug, Serialize)]
struct Described {
    size: usize,
    sha256: String,
}

/// Writes the bundle and its signature beside it.
pub fn make(path: &Path, version: &str, kernel: &str, linux: &[u8], initrd: &[u8], signer: &Signer) -> Result<()> {
    let files = [("linux", linux), ("initrd", initrd)];
    let describe = |octets: &[u8]| Described { size: octets.len(), sha256: files::sha256_of(octets) };
    let described = files.iter().map(|(name, octets)| (*name, describe(octets))).collect();
    let manifest = serde_json::to_vec_pretty(&Manifest { version, kernel, files: described })?;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, octets) in [("manifest.json", manifest.as_slice())].into_iter().chain(files) {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(octets.len())?);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        tar.append_data(&mut header, name, octets)?;
    }
    let octets = tar.into_inner()?;
    // The comment is signed too: it says for people what this is.
    let comment = format!("fife {version} update bundle");
    let signature = minisign::sign(None, &signer.secret, Cursor::new(&octets), Some(&comment), Some("fife update"))?;
    std::fs::write(path, &octets)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".minisig");
    std::fs::write(PathBuf::from(beside), signature.to_string())?;
    File::open(path)?.sync_all()?;
    Ok(())
}
