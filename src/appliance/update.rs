//! A new version of the system: fetched, verified, put into the other slot.
//!
//! Owns: the way of an update from a file or URL to the slot. Called by: `fife update`. Never: starts the machine again, which is the
//! supervisor's; stages what is not signed.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hickory_resolver::TokioResolver;
use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::bundle::{self, BUNDLE_LEN_MAX, Bundle, BundleError, Manifest, SIGNATURE_LEN_MAX};
use super::fetch::{FetchError, fetch};
use super::slots::{Esp, Slot, SlotError};
use crate::config::update::{BundleUrl, UpdateKey};

/// What follows a bundle's name in that of its signature.
const SIGNATURE_SUFFIX: &str = ".minisig";
/// Room on the ESP that is left over: directories, entries, the last cluster of each file.
const ESP_SPARE: u64 = 1 << 20;

/// Why there is no update.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error(
        "this machine did not boot from fife's image ({0}); where fife is installed as a program, it is updated as one"
    )]
    NotAppliance(String),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the key in {} is no minisign key", .0.display())]
    NoKey(PathBuf),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error(
        "the bundle is older than what runs ({offered}, kernel {offered_kernel}; {running}, kernel {running_kernel} runs): --force takes it"
    )]
    Older { offered: String, offered_kernel: String, running: String, running_kernel: String },
    #[error("the ESP has room for {room} octets, the bundle needs {needed}")]
    NoRoom { room: u64, needed: u64 },
}

/// The system that runs.
#[derive(Debug, Clone)]
pub struct System {
    pub running: Slot,
    pub version: String,
    /// The kernel's version.
    pub kernel: String,
    pub esp: Esp,
    /// The key that came with the image.
    key: PathBuf,
}

/// Where a bundle comes from.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    Url(BundleUrl),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Staged {
    pub version: String,
    pub kernel: String,
    pub slot: Slot,
}

impl System {
    /// This machine's.
    ///
    /// # Errors
    /// `NotAppliance`.
    pub fn here() -> Result<Self, UpdateError> {
        Self::at(Path::new("/"))
    }

    /// The machine whose files lie below `root`.
    fn at(root: &Path) -> Result<Self, UpdateError> {
        let read = |path: &str| {
            let text = fs::read_to_string(root.join(path));
            text.map(|text| text.trim().to_owned())
                .map_err(|error| UpdateError::NotAppliance(format!("/{path}: {error}")))
        };
        let line = read("proc/cmdline")?;
        let running = Slot::running(&line);
        let running = running.ok_or_else(|| UpdateError::NotAppliance("its kernel was told no slot".to_owned()))?;
        Ok(Self {
            running,
            version: read("etc/fife/version")?,
            kernel: read("etc/fife/kernel-version")?,
            esp: Esp::at(root.join("boot")),
            key: root.join("etc/fife/update.pub"),
        })
    }

    /// Brings a bundle into the other slot. `work`: a directory of the system's own on the data partition, made and removed again.
    /// `key`: believed in place of the image's.
    ///
    /// # Errors
    /// The other slot is as it was, except when the ESP failed (`Slot`): then nothing boots from it.
    pub async fn update(
        &self,
        source: &Source,
        key: Option<&UpdateKey>,
        resolver: &TokioResolver,
        work: &Path,
        force: bool,
    ) -> Result<Staged, UpdateError> {
        let fault = |source| UpdateError::Io { path: work.to_owned(), source };
        clear(work).map_err(fault)?;
        fs::create_dir_all(work).map_err(fault)?;
        let staged = self.bring(source, key, resolver, work, force).await;
        clear(work).map_err(fault)?;
        staged
    }

    async fn bring(
        &self,
        source: &Source,
        key: Option<&UpdateKey>,
        resolver: &TokioResolver,
        work: &Path,
        force: bool,
    ) -> Result<Staged, UpdateError> {
        let key = match key {
            Some(key) => key.clone(),
            None => self.own_key()?,
        };
        let path = work.join("bundle");
        let (file, signature) = match source {
            Source::File(from) => (copy(from, &path)?, read_signature(from)?),
            Source::Url(url) => download(url, resolver, &path).await?,
        };
        let mut bundle = Bundle::verify(file, &signature, key.key())?;
        let manifest = bundle.manifest()?;
        if !force {
            self.is_newer(&manifest)?;
        }
        bundle.unpack(work)?;
        let (linux, initrd) = (work.join("linux"), work.join("initrd"));
        self.has_room(&[&linux, &initrd])?;
        let Manifest { version, kernel, .. } = manifest;
        self.esp.stage(self.running, &version, &linux, &initrd)?;
        Ok(Staged { version, kernel, slot: self.running.other() })
    }

    fn own_key(&self) -> Result<UpdateKey, UpdateError> {
        let text = fs::read_to_string(&self.key);
        let text = text.map_err(|source| UpdateError::Io { path: self.key.clone(), source })?;
        text.parse().map_err(|_| UpdateError::NoKey(self.key.clone()))
    }

    /// The same version again is no step back: its kernel may be a newer one.
    fn is_newer(&self, offered: &Manifest) -> Result<(), UpdateError> {
        let order = bundle::compare(&offered.version, &self.version);
        if order.then(bundle::compare(&offered.kernel, &self.kernel)).is_lt() {
            return Err(UpdateError::Older {
                offered: offered.version.clone(),
                offered_kernel: offered.kernel.clone(),
                running: self.version.clone(),
                running_kernel: self.kernel.clone(),
            });
        }
        Ok(())
    }

    /// Before anything is touched: the files find room where those of the other slot lie now.
    fn has_room(&self, files: &[&Path]) -> Result<(), UpdateError> {
        let len = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let needed = files.iter().map(|path| len(path)).sum::<u64>() + ESP_SPARE;
        let root = self.esp.root();
        let free = statvfs(root).map_err(|error| UpdateError::Io { path: root.to_owned(), source: error.into() })?;
        let old = ["linux", "initrd"].map(|name| len(&root.join(format!("fife/{}/{name}", self.running.other()))));
        let room = free.blocks_available().saturating_mul(free.fragment_size()).saturating_add(old.iter().sum());
        if room < needed { Err(UpdateError::NoRoom { room, needed }) } else { Ok(()) }
    }
}

fn clear(work: &Path) -> io::Result<()> {
    fs::remove_dir_all(work).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn copy(from: &Path, to: &Path) -> Result<File, UpdateError> {
    let mut file = File::open(from).map_err(|source| UpdateError::Io { path: from.to_owned(), source })?;
    Ok(bundle::take(&mut file, to)?)
}

fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SIGNATURE_SUFFIX);
    name.into()
}

fn read_signature(bundle: &Path) -> Result<String, UpdateError> {
    let path = signature_of(bundle);
    let fault = |source| UpdateError::Io { path: path.clone(), source };
    let mut octets = Vec::new();
    File::open(&path).map_err(fault)?.take(SIGNATURE_LEN_MAX).read_to_end(&mut octets).map_err(fault)?;
    String::from_utf8(octets).map_err(|_| BundleError::NoSignature.into())
}

/// The signature first: a server that has none need not send the rest.
async fn download(url: &BundleUrl, resolver: &TokioResolver, to: &Path) -> Result<(File, String), UpdateError> {
    let fault = |source| UpdateError::Io { path: to.to_owned(), source };
    let signature_url = url.with_suffix(SIGNATURE_SUFFIX);
    let mut signature = Vec::new();
    fetch(&signature_url, resolver, SIGNATURE_LEN_MAX, &mut signature).await?;
    let signature = String::from_utf8(signature).map_err(|_| BundleError::NoSignature)?;
    let mut file = bundle::create(to).map_err(fault)?;
    fetch(url, resolver, BUNDLE_LEN_MAX, &mut file).await?;
    Ok((file, signature))
}
