//! What a role's process may still do, once it is what it is.
//!
//! Owns: the Landlock ruleset, the system calls that are refused (`calls`), the process flags that survive exec or are set after it.
//! Called by: `fife role`, before anything from outside is read. Never: gives up over a kernel that knows less; it says what it got.
//! Spec: landlock(7); seccomp(2); prctl(2).

mod calls;

use std::ffi::CString;
use std::io;
use std::path::Path;

use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::handover::Handover;

/// The newest Landlock that was looked through. Older kernels get what they know of it (Debian 12: V2, files only).
const LANDLOCK_ABI: ABI = ABI::V9;
/// What every role may read beside its own directory: who answers for names, what time it is here, whom to trust.
const READABLE: [&str; 6] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/etc/ssl/certs",
    "/usr/share/ca-certificates",
];

/// Why the sandbox could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("landlock: {0}")]
    Landlock(#[from] RulesetError),
    #[error(transparent)]
    Calls(#[from] calls::CallsError),
    #[error("process flags: {0}")]
    Flags(#[from] io::Error),
}

/// How far the kernel went along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    Full,
    /// The kernel knows Landlock, but an older one.
    Partial,
    /// The kernel does not know Landlock.
    None,
}

/// Confines this process, for good: it sees its role's directory and `READABLE`, reaches the sockets in `state/run`,
/// binds no TCP port, starts no program and no process, signals and traces nobody; it leaves no core and cannot be traced by its
/// own user. To be called while the process has one thread.
///
/// # Errors
/// The kernel refuses what it says it knows.
pub fn enter(handover: &Handover) -> Result<Confinement, SandboxError> {
    // `ps` and `top` show roles by name, not as "exe". At most 15 bytes: "fife-ldap-proxy" is.
    let name = CString::new(format!("fife-{}", handover.role)).unwrap_or_default();
    nix::sys::prctl::set_name(&name).map_err(io::Error::from)?;
    nix::sys::prctl::set_dumpable(false).map_err(io::Error::from)?;
    nix::sys::prctl::set_no_new_privs().map_err(io::Error::from)?;
    // A user other than root may have been given some, to bind low ports: that is the supervisor's business.
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    let confinement = confine(&handover.role_dir(), &handover.state_dir.join("run"))?;
    calls::refuse()?;
    Ok(confinement)
}

/// The ruleset: `own` to be read and written, sockets in `run` to be connected to.
fn confine(own: &Path, run: &Path) -> Result<Confinement, SandboxError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let own_access = AccessFs::from_all(LANDLOCK_ABI) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    if let Ok(directory) = PathFd::new(own) {
        ruleset = ruleset.add_rule(PathBeneath::new(directory, own_access))?;
    }
    if let Ok(directory) = PathFd::new(run) {
        ruleset = ruleset.add_rule(PathBeneath::new(directory, AccessFs::ResolveUnix))?;
    }
    for path in READABLE {
        // What is not there needs no rule.
        if let Ok(opened) = PathFd::new(path) {
            let access = if Path::new(path).is_dir() { read } else { AccessFs::ReadFile.into() };
            ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    Ok(match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::None,
    })
}

#[cfg(test)]
mod tests;
