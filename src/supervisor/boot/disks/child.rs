//! mount(2), umount2(2) and statfs(2) in a process of their own: each may hang for as long as a file server is silent, and a process
//! can be ended.
//!
//! Owns: the process's command line, its exit code (0, or the errno of the call). Called by: `entry`, `leave`; `main`, for the process
//! itself. Never: decides what is mounted.
//! Spec: mount(2), umount2(2), statfs(2).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::base::clock;

/// By this name the process knows what it is.
const NAME: &str = "fife-mount";
/// The program that is running.
const SELF: &str = "/proc/self/exe";
/// Time that a process has to end which was told to. One that waits for a disk that is broken does not; it is left behind.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether it has ended, where there is no event loop.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What it does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task<'a> {
    Mount {
        source: &'a str,
        kind: &'a str,
        at: &'a Path,
        flags: MsFlags,
        data: &'a str,
    },
    Leave {
        at: &'a Path,
        how: MntFlags,
    },
    /// Asks the file system for something that no cache answers.
    Look {
        at: &'a Path,
    },
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The system's answer.
    Refused(Errno),
    /// There was no answer in this time.
    Silent(Duration),
    /// There was no such process, or somebody ended it.
    Process(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => f.write_str(errno.desc()),
            Self::Silent(patience) => write!(f, "no answer within {} seconds", patience.as_secs()),
            Self::Process(why) => write!(f, "mounting failed by itself: {why}"),
        }
    }
}

/// Whether this process is to do such a task and nothing else.
#[must_use]
pub fn is_child() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Does it.
#[must_use]
pub fn child() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match carry_out(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => ExitCode::from(u8::try_from(errno as i32).unwrap_or(u8::MAX)),
    }
}

fn carry_out(arguments: &[OsString]) -> Result<(), Errno> {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    match arguments.as_slice() {
        [word, source, kind, at, flags, data] if *word == "mount" => {
            let flags = MsFlags::from_bits_truncate(number(flags)?);
            mount(Some(*source), Path::new(at), Some(*kind), flags, Some(*data))
        }
        [word, at, how] if *word == "leave" => {
            let how = MntFlags::from_bits_truncate(number(how)?);
            umount2(Path::new(at), how | MntFlags::UMOUNT_NOFOLLOW)
        }
        [word, at] if *word == "look" => nix::sys::statfs::statfs(Path::new(at)).map(drop),
        _ => Err(Errno::EINVAL),
    }
}

fn number<T: std::str::FromStr>(text: &OsStr) -> Result<T, Errno> {
    text.to_str().and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)
}

fn command(task: Task<'_>) -> Command {
    let mut command = Command::new(SELF);
    command.arg0(NAME).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    match task {
        Task::Mount { source, kind, at, flags, data } => {
            command.args(["mount", source, kind]).arg(at).args([&flags.bits().to_string(), data])
        }
        Task::Leave { at, how } => command.arg("leave").arg(at).arg(how.bits().to_string()),
        Task::Look { at } => command.arg("look").arg(at),
    };
    command
}

fn answered(ended: io::Result<ExitStatus>) -> Result<(), Failure> {
    match ended.map_err(|error| Failure::Process(error.to_string()))? {
        status if status.success() => Ok(()),
        status => Err(match status.code() {
            Some(code) => Failure::Refused(Errno::from_raw(code)),
            None => Failure::Process(status.to_string()),
        }),
    }
}

/// Has it done. Dropped before the end, the process is ended.
pub(super) async fn run(task: Task<'_>, patience: Duration) -> Result<(), Failure> {
    let mut command = tokio::process::Command::from(command(task));
    let mut child = command.kill_on_drop(true).spawn().map_err(|error| Failure::Process(error.to_string()))?;
    if let Ok(ended) = tokio::time::timeout(patience, child.wait()).await {
        return answered(ended);
    }
    child.start_kill().ok();
    match tokio::time::timeout(END_PATIENCE, child.wait()).await {
        // It was done in the last moment.
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err(Failure::Silent(patience)),
    }
}

/// The same where there is no event loop any more.
pub(super) fn run_now(task: Task<'_>, patience: Duration) -> Result<(), Failure> {
    let mut child = command(task).spawn().map_err(|error| Failure::Process(error.to_string()))?;
    let deadline = clock::monotonic() + patience;
    loop {
        match child.try_wait().transpose() {
            Some(ended) => return answered(ended),
            None if clock::monotonic() < deadline => std::thread::park_timeout(LOOK_INTERVAL),
            None => {
                child.kill().ok();
                return Err(Failure::Silent(patience));
            }
        }
    }
}
