//! The commands: parse, call, print.
//!
//! Owns: the command line, what is printed, exit codes. Called by: `main.rs`. Never: does the work itself; it joins
//! names to rooms, also `fife role NAME` to that role's `serve`.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or invalid configuration, 3 not reachable.

mod alias;
mod backup;
mod check;
mod config;
mod console;
mod dkim;
mod domain;
mod door;
mod install;
mod preflight;
mod queue;
mod reload;
mod role;
mod run;
mod status;
mod stop;
mod update;
mod user;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::config::Loaded;
use crate::config::identity::Identity;
use crate::supervisor::control::Request;

/// A mail appliance for schools: one binary, one TOML file, every service role.
#[derive(Debug, Parser)]
#[command(name = "fife", version, arg_required_else_help = true)]
struct Line {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub struct Global {
    /// The TOML that describes the site.
    #[arg(long, global = true, value_name = "PATH", default_value = "/etc/fife.toml")]
    pub config: PathBuf,
    /// Which of [hosts] this machine is, in place of its `match`.
    #[arg(long, global = true, value_name = "NAME")]
    pub host: Option<String>,
    /// Where the site's data and control socket lie, in place of [site] state.
    #[arg(long, global = true, value_name = "DIR", env = "FIFE_STATE")]
    pub state: Option<PathBuf>,
    /// Print facts as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    Config(config::Arguments),
    /// Run this host: its sockets, its roles, until stopped.
    Run,
    /// Tell what runs on this host, and how it is.
    Status,
    /// Make the running site follow the changed file; restarts only the roles that it concerns.
    Reload,
    /// Stop the running site; roles finish what is in hand. The appliance is switched off.
    Stop,
    /// Stop the running site, then start the machine again. On the appliance only.
    Reboot,
    User(user::Arguments),
    Domain(domain::Arguments),
    Alias(alias::Arguments),
    Dkim(dkim::Arguments),
    Queue(queue::Arguments),
    Backup(backup::Arguments),
    Preflight(preflight::Arguments),
    Install(install::Arguments),
    Update(update::Arguments),
    #[command(hide = true)]
    Console(console::Arguments),
    /// One role, as the supervisor starts it.
    #[command(hide = true)]
    Role(role::Arguments),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// It was asked for and did not come about.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// The running site (or its directory) does not answer.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Unreachable => Self::from(3),
        }
    }
}

/// Runs the command that the process was called with.
#[must_use]
pub fn main() -> ExitCode {
    // One TLS provider for the whole binary; libraries that would pick one take this. Already set: nothing to do.
    drop(rustls::crypto::ring::default_provider().install_default());
    let Line { global, command } = Line::parse();
    match command {
        Command::Check(arguments) => check::run(&global, &arguments),
        Command::Config(arguments) => config::run(&global, &arguments),
        Command::Run => run::run(&global),
        Command::Status => status::run(&global),
        Command::Reload => reload::run(&global),
        Command::Stop => stop::run(&global, Request::Stop),
        Command::Reboot => stop::run(&global, Request::Reboot),
        Command::User(arguments) => user::run(&global, &arguments),
        Command::Domain(arguments) => domain::run(&global, &arguments),
        Command::Alias(arguments) => alias::run(&global, &arguments),
        Command::Dkim(arguments) => dkim::run(&global, &arguments),
        Command::Queue(arguments) => queue::run(&global, &arguments),
        Command::Backup(arguments) => backup::run(&global, &arguments),
        Command::Preflight(arguments) => preflight::run(&global, &arguments),
        Command::Install(arguments) => install::run(&global, &arguments),
        Command::Update(arguments) => update::run(&global, &arguments),
        Command::Console(arguments) => console::run(&global, &arguments),
        Command::Role(arguments) => role::run(&arguments),
    }
    .into()
}

impl Global {
    /// Loads the file; says everything that is wrong with it.
    ///
    /// # Errors
    /// The exit of the command.
    pub fn load(&self) -> Result<Loaded, Exit> {
        crate::config::load(&self.config).map_err(|faults| {
            if self.json {
                print_json(&faults.to_json());
            } else {
                complain(faults.render(io::stderr().is_terminal()));
            }
            Exit::Usage
        })
    }

    /// The name of the host that this machine is; says why it is none.
    ///
    /// # Errors
    /// The exit of the command.
    pub fn this_host(&self, loaded: &Loaded) -> Result<String, Exit> {
        loaded.this_host(self.host.as_deref(), &Identity::read()).map_err(|error| {
            complain(error);
            Exit::Usage
        })
    }

    /// The state directory, absolute: `--state` or `FIFE_STATE`, else `[site] state` of the file.
    ///
    /// # Errors
    /// The exit of the command.
    pub fn state_dir(&self) -> Result<PathBuf, Exit> {
        let given = match &self.state {
            Some(given) => given.clone(),
            None => {
                let loaded = self.load()?;
                let host = self.this_host(&loaded)?;
                let effective = loaded.effective(&host);
                effective.map(|effective| effective.site.state.clone()).unwrap_or_default()
            }
        };
        std::path::absolute(&given).map_err(|error| {
            complain(format_args!("state directory {}: {error}", given.display()));
            Exit::Usage
        })
    }
}

/// A line on standard output.
pub fn print(text: impl Display) {
    // Whoever closed the other end (`fife status | head`) wants no more.
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// Facts as JSON on standard output.
pub fn print_json(facts: &impl Serialize) {
    match serde_json::to_string_pretty(facts) {
        Ok(text) => print(text),
        Err(error) => complain(error),
    }
}

/// A line on standard error, with the program's name before it.
pub fn complain(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "fife: {text}"));
}

/// Runs a command that asks others, on this thread.
///
/// # Errors
/// The system gives no event loop.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
