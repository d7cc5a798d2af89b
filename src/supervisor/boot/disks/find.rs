//! Which disk is meant: every file system that the machine has, and the choice among them.
//!
//! Owns: `Volume`, `choose`. Called by: `entry`. Never: offers a partition of the running system; guesses between two that fit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::partitions;
use crate::appliance::filesystem::printable;
use crate::appliance::superblock::Superblock;
use crate::config::mounts::Device;

/// A block device on which a file system may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) device: PathBuf,
    /// Of the partition, in small letters; none when it is none of a GPT.
    pub(super) part_guid: Option<String>,
    /// None when it is not known, or cannot be read.
    pub(super) superblock: Option<Superblock>,
}

/// Why no disk is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FindError {
    #[error("{0} is not there; it is mounted when it turns up")]
    Absent(String),
    #[error("{wanted} is on {}: name the one that is meant by UUID= or PARTUUID=", names(.on))]
    Several { wanted: String, on: Vec<PathBuf> },
}

fn names(devices: &[PathBuf]) -> String {
    devices.iter().map(|device| device.display().to_string()).collect::<Vec<_>>().join(" and ")
}

/// All that are there now, without the system's own. Reads from every disk.
pub(super) fn volumes(own: &[PathBuf]) -> Vec<Volume> {
    let guids: BTreeMap<PathBuf, String> = partitions::guids().into_iter().collect();
    let others = partitions::block_devices().into_iter().filter(|device| !own.contains(device));
    others
        .map(|device| Volume {
            part_guid: guids.get(&device).cloned(),
            // A drive without a medium says so by an error.
            superblock: Superblock::read(&device).ok().flatten(),
            device,
        })
        .collect()
}

/// The one that is meant.
pub(super) fn choose<'a>(wanted: &Device, volumes: &'a [Volume]) -> Result<&'a Volume, FindError> {
    let path = match wanted {
        // A link to it is as good.
        Device::Path(path) => fs::canonicalize(path).ok(),
        Device::Label(_) | Device::Uuid(_) | Device::PartUuid(_) | Device::Export { .. } => None,
    };
    let fits = |volume: &&Volume| is_meant(wanted, path.as_deref(), volume);
    let mut fitting = volumes.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(volume), None) => Ok(volume),
        (None, _) => Err(FindError::Absent(wanted.to_string())),
        (Some(_), Some(_)) => Err(FindError::Several {
            wanted: wanted.to_string(),
            on: volumes.iter().filter(fits).map(|volume| volume.device.clone()).collect(),
        }),
    }
}

fn is_meant(wanted: &Device, path: Option<&Path>, volume: &Volume) -> bool {
    let superblock = volume.superblock.as_ref();
    match wanted {
        Device::Label(label) => superblock.is_some_and(|found| found.label == *label),
        Device::Uuid(uuid) => superblock.is_some_and(|found| found.uuid == *uuid),
        Device::PartUuid(guid) => volume.part_guid.as_ref() == Some(guid),
        Device::Path(_) => path == Some(&volume.device),
        Device::Export { .. } => false,
    }
}

/// The labels that there are, for people who look for a mistyped one.
pub(super) fn labels(volumes: &[Volume]) -> Vec<String> {
    let of = |volume: &Volume| Some(printable(&volume.superblock.as_ref()?.label)).filter(|label| !label.is_empty());
    volumes.iter().filter_map(of).collect()
}
