//! System calls that no role has a use for: refused, so that whoever takes a role over cannot use them either.
//!
//! Owns: the list and the seccomp filter made of it. Called by: `sandbox::enter`. Never: lists what is merely unused; each group says
//! what it would be good for. All else is allowed: files are Landlock's business, and a role's libraries may change what they call.
//! Spec: seccomp(2); x86-64 numbers, those of the x32 calls among them.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Why the filter is not in place.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    #[error("seccomp: {0}")]
    Make(#[from] seccompiler::BackendError),
    #[error("seccomp: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// Starting programs and processes. Threads are made by `clone`, which is looked at below.
const PROGRAMS: [i64; 4] = [libc::SYS_execve, libc::SYS_execveat, libc::SYS_fork, libc::SYS_vfork];

/// Looking into other processes and signalling them. Landlock bars signals from Linux 6.12 on; this does before.
const PROCESSES: [i64; 15] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setpriority,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// Another view of the file system, which Landlock's rules were not made for.
const MOUNTS: [i64; 19] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];

/// Becoming somebody else.
const USERS: [i64; 10] = [
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The machine and its kernel. Most need capabilities that roles do not have; the rest are where kernels had their faults.
const KERNEL: [i64; 32] = [
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_personality,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Its requests are calls that no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
];

/// New services: roles are handed sockets that listen.
const SERVICES: [i64; 1] = [libc::SYS_listen];

/// Added to a number to make the same call by the x32 ABI, where a kernel has that.
const X32: i64 = 0x4000_0000;
/// x32 calls that have numbers of their own: execve, ptrace, …, execveat and what lies between (asm/unistd_x32.h).
const X32_OWN: std::ops::Range<i64> = 512..548;

/// Refuses the calls to this thread and to those that it makes.
pub(super) fn refuse() -> Result<(), CallsError> {
    // glibc makes threads by clone3 and, where the kernel does not know that, by clone, whose flags a filter can see.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new()), (libc::SYS_clone3 + X32, Vec::new())]);
    for (rules, errno) in [(unknown, libc::ENOSYS), (refused()?, libc::EPERM)] {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, TargetArch::x86_64)?;
        apply_filter(&BpfProgram::try_from(filter)?)?;
    }
    Ok(())
}

/// What is refused: calls without rules always, others when one of their rules fits.
fn refused() -> Result<BTreeMap<i64, Vec<SeccompRule>>, CallsError> {
    let groups: [&[i64]; 6] = [&PROGRAMS, &PROCESSES, &MOUNTS, &USERS, &KERNEL, &SERVICES];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        groups.into_iter().flatten().flat_map(|call| [*call, call + X32]).map(|call| (call, Vec::new())).collect();
    rules.extend(X32_OWN.map(|call| (call + X32, Vec::new())));
    // A process in place of a thread.
    let thread = number(libc::CLONE_THREAD);
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(thread), 0)?]);
    // Signals to threads of other processes, and limits of others.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Ne, own)?]);
    rules.insert(libc::SYS_prlimit64, vec![when(0, SeccompCmpOp::Ne, 0)?]);
    // Memory that holds what was written into it a moment ago, and is executed.
    let execute = number(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![when(2, SeccompCmpOp::MaskedEq(execute), execute)?]);
    }
    // The network as the kernel's configurators, sniffers and forgers see it.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    let none = families.map(|family| condition(0, SeccompCmpOp::Ne, number(family)));
    let none = none.into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(none)?]);
    // Nobody here is x32.
    let looked_at: Vec<i64> = rules.iter().filter(|(_, rules)| !rules.is_empty()).map(|(call, _)| call + X32).collect();
    rules.extend(looked_at.into_iter().map(|call| (call, Vec::new())));
    Ok(rules)
}

fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, CallsError> {
    Ok(SeccompRule::new(vec![condition(argument, operator, value)?])?)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, CallsError> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

/// A constant of the system's, none of which is negative.
fn number(constant: libc::c_int) -> u64 {
    u64::from(constant.unsigned_abs())
}
