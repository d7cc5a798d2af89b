//! `[hosts.NAME.mounts.X]`: further disks and network file systems of a host that boots fife itself.
//!
//! Owns: `Mount` and what it is made of. Called by: loading, `supervisor::boot::disks`. Never: looks for a disk.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hosts::{HostAddress, text_type};

/// Octets of a label, a UUID or an option, at most: far more than any file system has.
const TEXT_LEN_MAX: usize = 255;
/// Where a mount may be: never over the system, and not below /data, whose content must not depend on whether a disk is there.
pub const UNDER: [&str; 3] = ["/mnt", "/media", "/srv"];

/// They come and go while fife runs, when they are written or taken away and the file is read again. Only where fife runs the machine (the disk image). What is not there keeps nothing from starting: it is waited for, and told on the console and by `fife status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Mount {
    /// What is mounted: a file system by its `LABEL=`, its `UUID=`, the `PARTUUID=` of its partition (GPT) or its device file (which may be called otherwise after the next start), or `SERVER:/PATH`, a file server's directory (NFS). Required. (Restarts nothing; mounts it anew.)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-example" = "LABEL=archive"))]
    pub device: Option<Device>,
    /// The file system. Not set: as it is found on the disk; nfs for `SERVER:/PATH`. (Restarts nothing; mounts it anew.)
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<FileSystem>,
    /// Options of the file system, such as "ro", "noatime" or "vers=4.2". Programs and devices on it are never honoured (nosuid, nodev, noexec). NFS: without "vers=", the highest version that the server speaks (4.2, 4.1, 4.0, 3); a server that is silent gives errors after some minutes ("softerr"), unless "hard" is given. (Restarts nothing; mounts it anew.)
    pub options: Vec<MountOption>,
    /// Directory at which it appears, below /mnt, /media or /srv. Not set: /mnt/X. (Restarts nothing; mounts it anew.)
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-example" = "/mnt/archive"))]
    pub where_: Option<MountPoint>,
}

impl Mount {
    /// The directory at which the mount of this name appears.
    #[must_use]
    pub fn point(&self, name: &str) -> PathBuf {
        self.where_.as_ref().map_or_else(|| Path::new("/mnt").join(name), |point| point.0.clone())
    }

    /// The file system, as far as it is known before the disk is looked at.
    #[must_use]
    pub fn file_system(&self) -> Option<FileSystem> {
        let of_device = matches!(self.device, Some(Device::Export { .. })).then_some(FileSystem::Nfs);
        self.type_.or(of_device)
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Device {
    /// `LABEL=…`: the file system of this label.
    Label(String),
    /// `UUID=…`: the file system of this UUID, as blkid(8) writes it, in small letters.
    Uuid(String),
    /// `PARTUUID=…`: the file system in the partition of this GUID, in small letters.
    PartUuid(String),
    /// A device file.
    Path(PathBuf),
    /// `SERVER:/PATH`: a directory of a file server.
    Export { server: HostAddress, path: String },
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let is_text =
            |text: &&str| (1..=TEXT_LEN_MAX).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == ',');
        if let Some(label) = text.strip_prefix("LABEL=") {
            return Some(label).filter(is_text).map(|label| Self::Label(label.to_owned())).ok_or(DeviceError);
        }
        let is_uuid = |uuid: &&str| is_text(uuid) && uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        for (prefix, of) in [("UUID=", Self::Uuid as fn(String) -> Self), ("PARTUUID=", Self::PartUuid)] {
            if let Some(uuid) = text.strip_prefix(prefix) {
                return Some(uuid).filter(is_uuid).map(|uuid| of(uuid.to_ascii_lowercase())).ok_or(DeviceError);
            }
        }
        let text = Some(text).filter(is_text).ok_or(DeviceError)?;
        if text.starts_with('/') {
            let is_device = text.starts_with("/dev/") && is_straight(Path::new(text));
            return is_device.then(|| Self::Path(text.into())).ok_or(DeviceError);
        }
        // An IPv6 address has colons of its own; the path begins at the first ":/".
        let (server, path) = text.split_once(":/").ok_or(DeviceError)?;
        let server = server.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(server);
        let server = server.parse().map_err(|_| DeviceError)?;
        Ok(Self::Export { server, path: format!("/{path}") })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "LABEL={label}"),
            Self::Uuid(uuid) => write!(f, "UUID={uuid}"),
            Self::PartUuid(uuid) => write!(f, "PARTUUID={uuid}"),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Export { server: HostAddress::Ip(std::net::IpAddr::V6(ip)), path } => write!(f, "[{ip}]:{path}"),
            Self::Export { server, path } => write!(f, "{server}:{path}"),
        }
    }
}

/// The text names nothing that can be mounted.
#[derive(Debug, thiserror::Error)]
#[error("expected a device such as \"LABEL=archive\"")]
pub struct DeviceError;

text_type!(
    Device,
    "a device such as \"LABEL=archive\", \"UUID=2b1c…\", \"/dev/sdb1\" or \"nas.example.edu.cn:/export/mail\""
);

/// File systems that can be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    Ext4,
    Xfs,
    Vfat,
    Nfs,
}

impl FileSystem {
    /// The kernel's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Vfat => "vfat",
            Self::Nfs => "nfs",
        }
    }
}

/// One option of a file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MountOption(String);

impl MountOption {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Options by which what lies on a disk could do more than lie there, those that fife gives itself, and the words of fstab(5) that tell
/// others than the kernel what to do.
const REFUSED: [&str; 15] = [
    "suid", "dev", "exec", "remount", "bind", "rbind", "addr", "defaults", "auto", "noauto", "user", "users", "owner",
    "nofail", "_netdev",
];

impl FromStr for MountOption {
    type Err = MountOptionError;

    fn from_str(text: &str) -> Result<Self, MountOptionError> {
        let is_option = (1..=TEXT_LEN_MAX).contains(&text.len())
            && text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b',')
            && !REFUSED.contains(&text.split('=').next().unwrap_or_default());
        if is_option { Ok(Self(text.to_owned())) } else { Err(MountOptionError) }
    }
}

impl fmt::Display for MountOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no option, or one that is not given.
#[derive(Debug, thiserror::Error)]
#[error("expected one option without comma")]
pub struct MountOptionError;

text_type!(
    MountOption,
    "one option of the file system such as \"ro\" or \"vers=4.2\", without comma; not suid, dev, exec, remount, bind, addr, nor what is for mount(8) such as defaults or nofail"
);

/// Where a mount appears.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MountPoint(PathBuf);

impl FromStr for MountPoint {
    type Err = MountPointError;

    fn from_str(text: &str) -> Result<Self, MountPointError> {
        let path = Path::new(text);
        let is_under = UNDER.iter().any(|top| path.starts_with(top) && path != Path::new(top));
        let is_point =
            is_under && is_straight(path) && text.len() <= TEXT_LEN_MAX && !text.chars().any(char::is_control);
        if is_point { Ok(Self(path.components().collect())) } else { Err(MountPointError) }
    }
}

impl fmt::Display for MountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

/// The text is no directory for a mount.
#[derive(Debug, thiserror::Error)]
#[error("expected a directory below /mnt, /media or /srv")]
pub struct MountPointError;

text_type!(MountPoint, "a directory below /mnt, /media or /srv");

/// Absolute, and without `..`.
fn is_straight(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}
