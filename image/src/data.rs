//! The data partition as it is shipped: an empty ext4 that can grow to any size.
//!
//! Owns: how it is made. Called by: `build`. By mke2fs: there is no crate that makes ext4.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

use crate::disk::DATA_LEN;

/// mke2fs takes its times from here; the oldest that it takes.
const TIME: &str = "1";

/// Writes the volume as a file of its own. Blocks of 4 KiB and 64-bit block numbers from the start (a small volume would get neither, and could not
/// grow beyond 16 TiB), a journal of the size that a large volume needs (it never grows), inode tables written when they are first used,
/// checksums with a seed of their own: `fife install` gives the copy on another disk a UUID of its own, which the kernel refuses without.
pub fn make(path: &Path, uuid: Uuid, hash_seed: Uuid) -> Result<()> {
    File::create(path)?.set_len(DATA_LEN)?;
    let output = Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext4", "-b", "4096", "-L", "fife-data", "-m", "0", "-J", "size=16"])
        .args(["-O", "64bit,metadata_csum,metadata_csum_seed,resize_inode", "-U", &uuid.to_string()])
        .args(["-E", &format!("lazy_itable_init=1,hash_seed={hash_seed},root_owner=0:0")])
        .arg(path)
        .env("E2FSPROGS_FAKE_TIME", TIME)
        .output()
        .context("mke2fs (package e2fsprogs)")?;
    ensure!(output.status.success(), "mke2fs: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
