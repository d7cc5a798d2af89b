//! The appliance: the disk that fife boots from, its two slots, updates, installation, preflight.
//!
//! Owns: what is written to the system's own disk. Called by: boot (growth at each start, the slot that is healthy), the commands
//! `fife install|update|preflight`. Never: does anything on a machine that did not boot from fife's image, unless told the disk.
//!
//! - `block`: disks and partitions as the kernel shows them; `disk`: the partition table, and growing into a larger disk;
//! - `superblock`: which file system lies on one;
//! - `slots`: which of the two systems is booted next, in the words of both loaders;
//! - `bundle`: an update as a file, and its signature; `fetch`: over HTTP; `update`: from there to the other slot;
//! - `install`: onto another disk; `filesystem`: what is there now;
//! - `preflight`: whether a machine is fit for it.

pub mod block;
pub mod bundle;
pub mod disk;
pub mod fetch;
pub mod filesystem;
pub mod install;
pub mod preflight;
pub mod slots;
pub mod superblock;
pub mod update;
