//! `fife console`: the host at a glance and a menu, on a terminal of the appliance.
//!
//! Owns: the terminal, and carrying out what was chosen. Called by: PID 1, once for each console; whoever wants to see it.
//! Never: lets anybody into a shell without an administrator's password. The rest of the menu is for whoever stands before the
//! machine, who could as well pull the plug or take the disk.
//!
//! `menu`: the dialogue; `screen`: what is shown; `network`: the edit of the TOML; `actions`: what the menu does.

mod actions;
mod menu;
mod network;
mod screen;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use self::menu::{Menu, Said};
use super::{Exit, Global, complain};

/// How often it is looked whether something has changed.
const REFRESH: Duration = Duration::from_secs(2);

/// Show this host and a menu on a terminal.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The terminal; without it, the one that the command was called on.
    #[arg(long, value_name = "DEVICE", default_value = "/dev/tty")]
    tty: PathBuf,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Exit {
    let terminal = OpenOptions::new().read(true).write(true).open(&arguments.tty);
    let outcome = terminal.and_then(|terminal| converse(global, terminal, arguments));
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(format_args!("{}: {error}", arguments.tty.display()));
            Exit::Failed
        }
    }
}

/// Until the terminal is closed.
fn converse(global: &Global, terminal: File, arguments: &Arguments) -> io::Result<()> {
    let mut out = terminal.try_clone()?;
    let mut lines = BufReader::new(terminal);
    let mut menu = Menu::new(actions::interfaces(), actions::disks());
    let mut shown = None;
    // A former process may have ended amid a password.
    set_echo(&out, true)?;
    loop {
        if menu.is_idle() {
            let overview = actions::overview(global);
            if shown.as_ref() != Some(&overview) {
                write!(out, "{}\r\n> ", overview.text().replace('\n', "\r\n"))?;
                shown = Some(overview);
            }
            if !is_readable(lines.get_ref(), REFRESH)? {
                continue;
            }
        }
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match menu.answer(&line) {
            Said::Overview => {
                set_echo(&out, true)?;
                shown = None;
            }
            Said::Ask(question, hidden) => {
                write!(out, "{question}: ")?;
                set_echo(&out, !hidden)?;
            }
            Said::Do(action) => {
                set_echo(&out, true)?;
                let said = actions::perform(global, action, &arguments.tty);
                write!(out, "\r\n{}\r\n> ", said.replace('\n', "\r\n"))?;
            }
        }
    }
}

fn is_readable(terminal: &File, patience: Duration) -> io::Result<bool> {
    let mut wanted = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut wanted, patience)? > 0)
}

/// Whether what is typed is seen. On what is no terminal, nothing is.
fn set_echo(terminal: &File, echo: bool) -> io::Result<()> {
    let Ok(mut settings) = tcgetattr(terminal) else { return Ok(()) };
    settings.local_flags.set(LocalFlags::ECHO, echo);
    Ok(tcsetattr(terminal, SetArg::TCSADRAIN, &settings)?)
}
