//! Under which numeric user each role runs when fife is started as root.
//!
//! Owns: the table of uids. Called by: the supervisor (drops to them), `Peer` (knows them again on unix
//! sockets). Never: asks /etc/passwd; the image has none, and numbers need none.

use crate::config::hosts::Role;

/// The group of all roles: what the sockets between roles are given to.
pub const ROLES_GID: u32 = 6100;

/// The uid, and the gid of the same number, under which a role runs.
#[must_use]
pub const fn uid_of(role: Role) -> u32 {
    match role {
        Role::LdapProxy => 6101,
        Role::PopImap => 6102,
        Role::Smtp => 6103,
    }
}

/// The role that runs under this uid.
#[must_use]
pub fn role_of(uid: u32) -> Option<Role> {
    Role::ALL.into_iter().find(|role| uid_of(*role) == uid)
}

/// The effective uid of this process.
#[must_use]
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}
