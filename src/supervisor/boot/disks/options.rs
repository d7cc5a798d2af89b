//! What the kernel is told of a mount: flags and a text of options.
//!
//! Owns: which words are flags, fife's own options and their reasons. Called by: `entry`. Never: asks DNS.
//! Spec: mount(2), mount(8) for the words; ext4(5), xfs(5), nfs(5); the kernel's fs/nfs/fs_context.c for what it reads by itself: `addr`
//! must be an address, `clientaddr` it finds, a port that is not given it asks rpcbind for (version 3) or takes for 2049 (version 4).

use std::net::IpAddr;

use nix::mount::MsFlags;

use crate::config::mounts::{FileSystem, MountOption};

/// Of every mount: what lies there is data.
pub(super) const ALWAYS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Words that are flags of the call.
const FLAGS: [(&str, MsFlags); 8] = [
    ("ro", MsFlags::MS_RDONLY),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("relatime", MsFlags::MS_RELATIME),
    ("strictatime", MsFlags::MS_STRICTATIME),
    ("lazytime", MsFlags::MS_LAZYTIME),
    ("sync", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", MsFlags::MS_DIRSYNC),
];
/// Words that say what is so anyway.
const SO_ANYWAY: [&str; 7] = ["rw", "async", "atime", "diratime", "nosuid", "nodev", "noexec"];
/// The highest first, as mount.nfs(8) tries them.
const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];
/// Not trusted any more after an error: what is there can still be read.
const OF_EXT4: &str = "errors=remount-ro";
/// Nobody but root reads it: FAT knows no owners. Names are UTF-8, as everywhere here.
const OF_VFAT: &str = "umask=0077,utf8=1";
/// A server that is gone gives errors (ETIMEDOUT) after about two minutes in place of holding everything up for good. No mail lies there:
/// whoever writes a copy there sees the error (at the latest at fsync), says so and does it again. With "hard" nothing that has a file open
/// there can be ended, nor the machine switched off in order, before the server is back.
const OF_NFS: &str = "softerr,timeo=150,retrans=2";
/// Locks of version 3 need a daemon on each side, and nothing here locks files of a server.
const OF_NFS_3: &str = "nolock";

/// What an administrator wrote, in the call's two parts.
fn split(given: &[MountOption]) -> (MsFlags, Vec<&str>) {
    let (mut flags, mut data) = (ALWAYS, Vec::new());
    for word in given.iter().map(MountOption::as_str) {
        if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == word) {
            flags |= *flag;
        } else if !SO_ANYWAY.contains(&word) {
            data.push(word);
        }
    }
    (flags, data)
}

/// Fife's own options stand first: of two that contradict each other the kernel takes the last.
fn join<'a>(own: impl IntoIterator<Item = &'a str>, given: Vec<&'a str>) -> String {
    own.into_iter().filter(|word| !word.is_empty()).chain(given).collect::<Vec<_>>().join(",")
}

/// Of a disk. `protected`: nobody can write to it, so that no journal can be replayed either.
pub(super) fn of_disk(system: FileSystem, given: &[MountOption], protected: bool) -> (MsFlags, String) {
    let (mut flags, data) = split(given);
    let (own, without_journal) = match system {
        FileSystem::Ext4 => (OF_EXT4, "noload"),
        FileSystem::Xfs => ("", "norecovery"),
        FileSystem::Vfat => (OF_VFAT, ""),
        FileSystem::Nfs => ("", ""),
    };
    if protected {
        flags |= MsFlags::MS_RDONLY;
        return (flags, join([own, without_journal], data));
    }
    (flags, join([own], data))
}

/// The versions of NFS to be tried, in this order.
pub(super) fn versions(given: &[MountOption]) -> Vec<&str> {
    let said = given.iter().filter_map(|word| version_of(word.as_str())).next_back();
    said.map_or_else(|| VERSIONS.to_vec(), |version| vec![version])
}

fn version_of(word: &str) -> Option<&str> {
    word.strip_prefix("vers=").or_else(|| word.strip_prefix("nfsvers="))
}

/// Of a directory of the file server at `address`, by this version.
pub(super) fn of_export(given: &[MountOption], address: IpAddr, version: &str) -> (MsFlags, String) {
    let (flags, mut data) = split(given);
    data.retain(|word| version_of(word).is_none());
    let (version, address) = (format!("vers={version}"), format!("addr={address}"));
    let of_3 = if version == "vers=3" { OF_NFS_3 } else { "" };
    (flags, join([version.as_str(), &address, OF_NFS, of_3], data))
}
